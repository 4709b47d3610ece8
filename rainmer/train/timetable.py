"""Where a run is in its schedule, counted in steps or in time."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

from rainmer.train.config import Stage, TrainConfig

__all__ = ["Timetable"]

_SECONDS_A_MINUTE = 60.0
# What validating and saving took may grow by this factor at the end.
_MARGIN = 1.1


class Timetable:
    """Follows a run through its stages and its learning rates.

    Without `minutes` the schedule is counted in optimiser steps. With them it is stretched over
    the time: after a share of the time the run stands where one by steps stands after that share
    of its steps, in stages and in learning rates, however many steps it has made. The time counts
    from here on, over all calls. What the last validation and the last save took is kept free.

    Args:
        config: The run's configuration.
        now: A clock, in seconds.
    """

    def __init__(self, config: TrainConfig, now: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.step = 0
        """Optimiser steps so far."""
        self.sample = 0
        """Samples so far, so the number of the next one."""
        self.share = 0.0
        """With `minutes`: the share of the time at which the next step will end."""
        self._now, self._started, self._before = now, now(), 0.0
        self._mark = 0.0
        self._paces = [0.0, 0.0]
        self._reserves: dict[str, float] = {}

    @property
    def elapsed_s(self) -> float:
        """Seconds of all calls of the run."""
        return self._before + self._now() - self._started

    @property
    def position(self) -> float:
        """Where the next step stands in the schedule, in optimiser steps from 1 on."""
        if self.config.minutes is None:
            return self.step + 1
        return self.share * self.config.steps

    @property
    def over(self) -> bool:
        """Whether no step is left."""
        return self.position > self.config.steps

    @property
    def stage_index(self) -> int:
        """The stage of the next step; after the last step the last one."""
        ends = list(itertools.accumulate(stage.steps for stage in self.config.stages))
        return sum(self.position > end for end in ends[:-1])

    @property
    def stage(self) -> Stage:
        """The stage of the next step."""
        return self.config.stages[self.stage_index]

    @property
    def steps_left(self) -> int | None:
        """Steps left in the stage; None: the clock decides."""
        if self.config.minutes is not None:
            return None
        ends = itertools.accumulate(stage.steps for stage in self.config.stages)
        return next(end for end in ends if end > self.step) - self.step

    def __str__(self) -> str:
        """Return the step and the end, for messages."""
        if self.config.minutes is None:
            return f"{self.step} of {self.config.steps}"
        elapsed = self.elapsed_s / _SECONDS_A_MINUTE
        return f"{self.step}, after {elapsed:.3g} of {self.config.minutes:g} minutes"

    def begin_step(self) -> None:
        """Start the time of a step, the wait for its batches included."""
        self._mark = self.elapsed_s

    def end_step(self, samples: int) -> None:
        """Count a step, and the samples that it took on all processes."""
        self.step += 1
        self.sample += samples
        self._paces = [self._paces[1], self.elapsed_s - self._mark]

    @contextlib.contextmanager
    def reserve(self, name: str) -> Iterator[None]:
        """Keep as much time free at the end as the block takes."""
        started = self._now()
        yield
        self._reserves[name] = self._now() - started

    def expected_share(self) -> float:
        """Return the share of the time at which the next step will end; above 1: too late for it.

        A step is expected to take as long as the shorter one of the last two, because the first
        one of every size takes far longer.
        """
        if self.config.minutes is None:
            return 0.0
        free_s = _SECONDS_A_MINUTE * self.config.minutes - _MARGIN * sum(self._reserves.values())
        end_s = self.elapsed_s + min(self._paces)
        return end_s / free_s if free_s > 0 else float("inf")

    def state_dict(self) -> dict[str, Any]:
        """Return what the next steps depend on, for `load_state_dict`."""
        return {
            "step": self.step,
            "sample": self.sample,
            "seconds": self.elapsed_s,
            "share": self.share,
            "paces": self._paces,
            "reserves": self._reserves,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; of older runs there are steps and seconds only."""
        self.step = state["step"]
        self.sample = state.get("sample", self._samples_of_steps())
        self.share = state.get("share", 0.0)
        self._paces = list(state.get("paces", self._paces))
        self._reserves = dict(state.get("reserves", {}))
        self._before, self._started = state["seconds"], self._now()

    def _samples_of_steps(self) -> int:
        """Return the samples that `step` steps take when stages are counted in steps."""
        left, samples = self.step, 0
        for stage in self.config.stages:
            steps = min(left, stage.steps)
            samples += steps * stage.batch * self.config.accumulate
            left -= steps
        return samples
