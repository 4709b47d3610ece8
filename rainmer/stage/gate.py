"""The gate: which frames are derained at all, decided by the rain meter before the network runs.

A frame whose expected benefit (`rainmer.meter.Reading.benefit`) is below a threshold passes as it
is, bit for bit. Frames of a video share a `GateState`: once a stream is derained it stays so until
the benefit falls clearly below the threshold, so that it does not flicker; a change of scene is
followed at once, as every frame is read on its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rainmer.errors import RainmerError
from rainmer.meter import RainMeter, Reading
from rainmer.meter.meter import place
from rainmer.stage.restorers import digest

__all__ = ["Decision", "Gate", "GateState", "Threshold", "check_threshold"]

Threshold = Literal["auto"] | float
"""`auto`: what was fitted to the benefit for a detector; or a benefit, 0..1."""

_AT_ONCE = 32  # frames that are decided for, and then derained
_STAYS = 0.5  # share of the threshold down to which a stream that is derained stays so


@dataclass(frozen=True)
class Decision:
    """What the gate decided for a frame.

    Attributes:
        derain: Whether to derain it.
        reading: What the meter read in it.
        frame: An array that is to be derained as the meter had it, (3, H, W) on the meter's device,
            so that deraining does not upload it again. Keep decisions no longer than needed.
    """

    derain: bool
    reading: Reading
    frame: Tensor | None = field(default=None, repr=False, compare=False)


@dataclass
class GateState:
    """What the gate remembers of a stream: whether its last frame was derained."""

    is_open: bool = False


class Gate:
    """Decides frame by frame. Several threads may share it.

    Args:
        threshold: The benefit from which frames are derained.
        device: Where the meter computes.
        meter: The rain meter; None: the shipped one, which has an encoder of its own.

    Attributes:
        threshold: As a number, 0..1.
        name: `gate`, or `gate-T` for a threshold of one's own.
        fingerprint: Changes whenever a decision may.
        derained, passed: Numbers of frames so far.

    Raises:
        RainmerError: The threshold is out of range.
        WeightsError: The meter cannot be loaded, or knows no benefit.
    """

    def __init__(
        self,
        threshold: Threshold = "auto",
        device: str | torch.device | None = None,
        *,
        meter: RainMeter | None = None,
    ) -> None:
        self.setting = check_threshold(threshold)
        self.meter = meter or RainMeter(device=device)
        fitted = self.meter.threshold
        self.threshold = fitted if self.setting == "auto" else float(self.setting)
        self.name = "gate" if self.setting == "auto" else f"gate-{self.threshold:g}"
        self.fingerprint = digest("gate", self.threshold, self.meter.fingerprint)
        self.derained = self.passed = 0
        self._lock = threading.Lock()

    def decide(
        self, frames: Sequence[Any], states: Sequence[GateState | None] | None = None
    ) -> list[Decision]:
        """Decide for frames, and count them. On a GPU this waits for the meter.

        Arrays are uploaded once: decisions to derain hold what is on the device.

        Args:
            frames: Arrays (H, W, 3) or tensors (3, H, W), RGB, uint8 or 0..1, in order.
            states: The state of each frame's stream; None: a frame of its own.
        """
        decisions = []
        placed = [place(frame, self.meter.device) for frame in frames]
        readings = self.meter(placed)
        with self._lock:
            states = states or [None] * len(readings)
            for given, frame, reading, state in zip(frames, placed, readings, states, strict=True):
                held = state is not None and state.is_open
                least = self.threshold * (_STAYS if held else 1.0)
                derain = (reading.benefit or 0.0) >= least
                if state is not None:
                    state.is_open = derain
                self.derained += derain
                self.passed += not derain
                kept = frame if derain and not isinstance(given, Tensor) else None
                decisions.append(Decision(derain, reading, kept))
        return decisions

    def split(
        self,
        frames: Sequence[Any],
        decisions: Sequence[Decision] | None,
        derain: Callable[[list[Any], list[Tensor | None]], list[Any]],
    ) -> list[Any]:
        """Derain the frames that should be, and return copies of all others.

        Args:
            frames: As in `decide`.
            decisions: Of `decide`; None: decide here, each frame on its own.
            derain: Derains a list of frames, given those that are on the device already.

        Raises:
            RainmerError: There are more or fewer decisions than frames.
        """
        if decisions is None and len(frames) > _AT_ONCE:  # not more of them on the device
            parts = (frames[i : i + _AT_ONCE] for i in range(0, len(frames), _AT_ONCE))
            return [result for part in parts for result in self.split(part, None, derain)]
        decisions = self.decide(frames) if decisions is None else decisions
        if len(decisions) != len(frames):
            raise RainmerError(f"got {len(decisions)} decisions for {len(frames)} frames")
        chosen = [i for i, decision in enumerate(decisions) if decision.derain]
        placed = [decisions[i].frame for i in chosen]
        results = dict(zip(chosen, derain([frames[i] for i in chosen], placed), strict=True))
        return [results[i] if i in results else _copy(frame) for i, frame in enumerate(frames)]

    def summary(self) -> str:
        """Return how many frames were derained, in words."""
        total = self.derained + self.passed
        return f"derained {self.derained} of {total} frame{'s' * (total != 1)}"


def check_threshold(threshold: object) -> Threshold:
    """Return a threshold if it is one.

    Raises:
        RainmerError: It is neither `auto` nor within 0..1.
    """
    if threshold == "auto":
        return "auto"
    if isinstance(threshold, int | float) and 0.0 <= threshold <= 1.0:
        return float(threshold)
    raise RainmerError(f"the gate takes auto or a threshold within 0..1, not {threshold!r}")


def _copy(frame: Any) -> Any:  # noqa: ANN401
    return frame.clone() if isinstance(frame, Tensor) else np.copy(frame)
