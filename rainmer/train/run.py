"""A training run: from the configuration to weights, resuming an earlier call."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
import yaml
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from rainmer import models
from rainmer.config import to_mapping
from rainmer.errors import ConfigError, RainmerError, WeightsError
from rainmer.files import make_folder, write_text
from rainmer.train.checkpoint import read_checkpoint, refuse_other_run, write_checkpoint
from rainmer.train.config import TrainConfig
from rainmer.train.loader import Loader, loader_processes, sample_shape
from rainmer.train.losses import ExtraLoss
from rainmer.train.mixture import Batch, Mixture
from rainmer.train.modules import first_network, trained_views
from rainmer.train.progress import Progress
from rainmer.train.record import Record
from rainmer.train.sources import hold_out, make_sources
from rainmer.train.step import PendingResult, StepResult, Trainer
from rainmer.train.timetable import Timetable
from rainmer.train.validation import validate
from rainmer.train.warming import warm_up

__all__ = ["CHECKPOINT", "WEIGHTS", "train"]

CHECKPOINT = "last.pt"
WEIGHTS = "last.safetensors"
_BEST = "best.safetensors"
_CONFIG = "config.yaml"

_log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    quiet: bool = False,
    max_steps: int | None = None,
    extra_loss: ExtraLoss | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Path:
    """Train a network.

    The folder gets `last.safetensors` and `best.safetensors` (weights; averaged ones if the run
    keeps an average), `last.pt` (the checkpoint), `log.csv`, `curves.png`, `strips/`. If it has a
    checkpoint already, the run resumes from there as if it had never stopped.

    Args:
        config: The configuration.
        out: The run's folder.
        device: Device of the network.
        quiet: Show no progress.
        max_steps: Maximum number of steps of this call.
        extra_loss: A further loss of the restored crops; it is validated too, also before the
            first step.
        now: The clock of a run of `minutes`, in seconds.

    Returns:
        The weights file.

    Raises:
        ConfigError: The folder has a run of another configuration, or the minutes are too few for
            a single step.
        DatasetError: Data is missing, or too much of it is unreadable.
        OutputError: Results cannot be written.
        WeightsError: The run would start or resume from values that are not finite.
        RainmerError: A weight became not finite, or the loss or a gradient was not in too many
            consecutive steps; the last good checkpoint stays.
    """
    # Fresh weights have gradients so small that CPUs compute with them many times slower.
    timetable = Timetable(config, now)
    with _denormals_flushed():
        run = _Run(config, make_folder(out), torch.device(device), quiet, extra_loss, timetable)
        return run.go(max_steps)


@contextlib.contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Let the CPU round denormal numbers to zero, and restore what the caller had."""
    # torch has no function that tells the setting, but the interpreter's numbers follow it.
    before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class _Run:
    """A run in progress."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        device: torch.device,
        quiet: bool,
        extra_loss: ExtraLoss | None,
        timetable: Timetable,
    ) -> None:
        self.config, self.out, self.quiet = config, out, quiet
        self.timetable = timetable
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        stored = read_checkpoint(out / CHECKPOINT) if (out / CHECKPOINT).is_file() else None
        if stored is not None:
            refuse_other_run(config, extra_loss, stored, out)
        self._check_batches()
        network = first_network(config)
        self._check_crops(network)
        self.classes = () if extra_loss is None else extra_loss.classes
        sources, held_out = (
            make_sources(part.pairs, part.rendered, seed=config.seed, classes=self.classes)
            for part in (config.data, config.validation)
        )
        held_out += hold_out(sources, config.validation.share)
        self.validation = {source.name: source for source in held_out}
        self.loader = Loader(
            Mixture(sources, seed=config.seed),
            threads=config.data.threads,
            processes=loader_processes(config.data, device),
            pin=device.type == "cuda",
            rank=self.rank,
            world=_world(),
            max_unreadable=config.data.max_unreadable,
            renders_on=device if config.data.rendering == "device" else None,
            windows=config.data.rendering_ahead,
        )
        try:
            # Processes render while the device starts.
            views = () if stored is not None else trained_views(network, config)
            self.archived = self._archive_batches() if views else None
            self._begin(network.to(device), extra_loss, stored)
        except BaseException:
            self.loader.close()
            raise

    def _begin(
        self, network: models.Network, extra_loss: ExtraLoss | None, stored: dict[str, Any] | None
    ) -> None:
        """Start or resume with a network on its device."""
        network.to(memory_format=torch.channels_last)
        self.trainer = Trainer(network, self.config, extra_loss=extra_loss)
        self.skipped = self.skipped_in_a_row = 0
        self.saved: int | None = None if stored is None else stored["step"]
        self.best = -1.0
        self.recent: list[StepResult] = []
        self.unread: list[StepResult | PendingResult] = []
        if stored is not None:
            self.trainer.load_state_dict(stored["trainer"])
            self.timetable.load_state_dict(stored)
            self.best, self.skipped = stored["best"], stored["skipped"]
            _log.info("%s: resumes from step %s", self.out, self.timetable)
        self._check_start(resumed=stored is not None)
        if self.trainer.device.type == "cuda":
            warm_up(self.trainer)
        self.device_s = self.timetable.elapsed_s
        self.record = Record(self.out, self.step) if self.rank == 0 else None

    def _check_start(self, *, resumed: bool) -> None:
        broken = self.trainer.broken_value()
        if broken is not None:
            source = self.out / CHECKPOINT if resumed else f"init: {self.config.init}"
            what = "delete it to start over" if resumed else "start from other weights"
            raise WeightsError(f"{source}: {broken} is not finite: {what}")

    def _check_batches(self) -> None:
        world = _world()
        for i, stage in enumerate(self.config.stages):
            if stage.batch % world:
                raise ConfigError(
                    f"stages.{i}.batch is {stage.batch}, which {world} processes cannot share"
                )

    def _check_crops(self, network: models.Network) -> None:
        for i, stage in enumerate(self.config.stages):
            if stage.crop % network.size_multiple:
                raise ConfigError(
                    f"stages.{i}.crop is {stage.crop}, but must be a multiple of "
                    f"{network.size_multiple}"
                )

    @property
    def step(self) -> int:
        """Optimiser steps so far."""
        return self.timetable.step

    def go(self, max_steps: int | None) -> Path:
        """Train to the end, or for at most `max_steps` steps."""
        end = None if max_steps is None else self.step + max_steps
        if self.rank == 0:
            write_text(self.out / _CONFIG, yaml.safe_dump(to_mapping(self.config), sort_keys=False))
        self.trainer.network.train()
        try:
            if self.step == 0:
                self._prepare()
            self._steps(end)
        finally:
            self.loader.close()
            if self.record is not None:
                self.record.close()
        if self.loader.failures:
            _log.warning(
                "%d images could not be read and were left out: %s",
                len(self.loader.failures),
                "; ".join(sorted(self.loader.failures.values())[:20]),
            )
        return self.out / WEIGHTS

    def _prepare(self) -> None:
        """Fill the archives, and measure what tuning starts from and how long validation takes."""
        if self.archived is not None:
            self.trainer.fill_archives(self.archived)
        if self.trainer.device.type == "cuda":
            now = self.timetable.elapsed_s
            _log.info("device ready after %.1f s, samples after %.1f s", self.device_s, now)
        timed = self.config.minutes is not None and self.config.validation.every
        if (self.trainer.extra_loss or timed) and self.record and self.validation:
            self._validate()
        self._agree(stop=False)
        if self.timetable.over:
            raise ConfigError(
                f"minutes is {self.config.minutes}, but {self.timetable.elapsed_s:.0f} s were over "
                "before the first step: give more, or lower validation.limit"
            )

    def _archive_batches(self) -> Iterable[Batch]:
        """Load what the archives start with: samples of negative numbers, which no step takes."""
        stage = self.config.stages[0]
        count = self.config.archive // stage.batch
        numbers = [
            range((i - count) * stage.batch, (i - count + 1) * stage.batch) for i in range(count)
        ]
        shape = sample_shape(stage, self.config.data.query, 0)
        batches = self.loader.batches(numbers, shape)
        return tqdm(batches, desc="archives", total=count, disable=self.quiet or self.rank > 0)

    def _steps(self, end: int | None) -> None:
        timed = self.config.minutes is not None
        goal = None if timed else min(end or self.config.steps, self.config.steps)
        progress = Progress(self.timetable, goal, quiet=self.quiet or self.rank > 0)
        # Lines of the log appear above the bar.
        with progress.bar, logging_redirect_tqdm(), _stop_requests() as stop:
            for batches in self._batches(end):
                self.trainer.position = self.timetable.position if timed else None
                stage = self.timetable.stage_index
                self.unread.append(self.trainer.step(batches))
                samples = self.config.stages[stage].batch * len(batches)
                self.timetable.end_step(samples)
                progress.update()
                stopped = self._agree(stop.is_set())
                last, stage_ended = self._ended(end), self.timetable.stage_index != stage
                if stopped or self._looks_at_results(last=last or stage_ended):
                    self._read()
                    progress.show(self.recent[-1].losses["total"])
                self._after_step(last=last, stage_ended=stage_ended)
                if stopped:
                    self._save()
                    raise KeyboardInterrupt

    def _looks_at_results(self, *, last: bool) -> bool:
        """Whether this step's results are read, for which a GPU has to be waited for."""
        config = self.config
        points = (config.log_every, config.save_every, config.validation.every, config.keep_every)
        # The first save of a run limited by time comes early.
        early = config.minutes is not None and self.saved is None
        due = any(every and self.step % every == 0 for every in points)
        return last or early or due or not self.trainer.deferred

    def _read(self) -> None:
        """Read the results of the steps since the last time, and stop where they are bad."""
        results = self.trainer.read(self.unread)
        self.unread.clear()
        for step, result in enumerate(results, self.step - len(results) + 1):
            self._guard(step, result)
        self.recent += results

    def _ended(self, end: int | None) -> bool:
        return self.timetable.over or self.step == end

    def _agree(self, stop: bool) -> bool:
        """Return whether any process was asked to stop, so that all stop after the same step.

        All go by the clock of the one that has come furthest, too.
        """
        share = self.timetable.expected_share()
        if self.trainer.world > 1:
            both = torch.tensor([float(stop), share], device=self.trainer.device)
            dist.all_reduce(both, dist.ReduceOp.MAX)
            stopped, share = both.tolist()
            stop = bool(stopped)
        self.timetable.share = share
        return stop

    def _batches(self, end: int | None) -> Iterator[list[Batch]]:
        """Yield the batches of each step up to `end`, stage by stage."""
        accumulate = self.config.accumulate
        while not self._ended(end):
            index, stage = self.timetable.stage_index, self.timetable.stage
            starts = itertools.count(self.timetable.sample, stage.batch)
            left = self.timetable.steps_left
            if end is not None:
                left = min(end - self.step, left or end)
            numbers = (range(start, start + stage.batch) for start in starts)
            negatives = self.config.data.negatives if self.trainer.views else 0
            shape = sample_shape(stage, self.config.data.query, negatives, len(self.classes))
            limited = itertools.islice(numbers, left and left * accumulate)
            with contextlib.closing(self.loader.batches(limited, shape)) as batches:
                while self.timetable.stage_index == index and not self._ended(end):
                    self.timetable.begin_step()
                    yield [next(batches) for _ in range(accumulate)]

    def _guard(self, step: int, result: StepResult) -> None:
        """Stop when a weight broke; count steps that were skipped, and stop after too many."""
        if result.broken is not None:
            self._stop(f"the weight {result.broken} is not finite after step {step}")
        self.skipped += result.skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if result.skipped else 0
        if self.skipped_in_a_row < self.config.max_skipped:
            return
        self._stop(
            f"the loss or a gradient was not finite in {self.skipped_in_a_row} steps in a row, up "
            f"to step {step}"
        )

    def _refuse_broken(self) -> None:
        """Stop before something that is not finite replaces a good file."""
        broken = self.trainer.broken_value()
        if broken is not None:
            self._stop(f"{broken} is not finite at step {self.step}, so nothing was saved")

    def _stop(self, reason: str) -> NoReturn:
        kept = f"no checkpoint is in {self.out} yet"
        if (self.out / CHECKPOINT).is_file():
            step = "" if self.saved is None else f", of step {self.saved},"
            kept = f"the last good checkpoint{step} is {self.out / CHECKPOINT}"
        raise RainmerError(f"{reason}: lower optimiser.lr, or use precision: fp32; {kept}")

    def _after_step(self, *, last: bool, stage_ended: bool) -> None:
        """Log, validate and save at the configured steps, in the first process only."""
        config = self.config
        if self.step % config.log_every == 0 or last:
            self._log()
        if self.record is None:
            return
        every = config.validation.every
        if self.validation and every and (self.step % every == 0 or last):
            self._refuse_broken()
            self._validate()
        # A run limited by time saves early, to learn how long that takes.
        untried = config.minutes is not None and self.saved is None
        if self.step % config.save_every == 0 or last or stage_ended or untried:
            self._save()
        if config.keep_every and self.step % config.keep_every == 0:
            self._refuse_broken()
            with self.trainer.averaged() as network:
                models.save_weights(self.out / f"step-{self.step:07d}.safetensors", network)

    def _log(self) -> None:
        """Add a line of means over the steps since the last one."""
        values = [{**result.losses, "grad_norm": result.grad_norm} for result in self.recent]
        means = {name: _finite_mean([value[name] for value in values]) for name in values[0]}
        seconds = self.timetable.elapsed_s
        state = {"lr": self.recent[-1].lr, "skipped": self.skipped, "seconds": round(seconds, 1)}
        if self.config.minutes is not None:
            state["minutes"] = round(seconds / 60, 3)
        if self.record is not None:
            self.record.add(self.step, {**means, **state})
        self.recent.clear()

    def _validate(self) -> None:
        assert self.record is not None
        limits = self.config.validation
        values = {}
        with self.timetable.reserve("validate"), self.trainer.averaged() as network:
            for name, source in self.validation.items():
                scores = validate(
                    network,
                    source,
                    limit=limits.limit,
                    strips=limits.strips,
                    extra_loss=self.trainer.extra_loss,
                )
                values[f"psnr/{name}"], values[f"ssim/{name}"] = scores.psnr, scores.ssim
                values |= {f"{term}/{name}": value for term, value in scores.extra.items()}
                for image, problem in scores.failures.items():
                    self.loader.note(image, problem)
                if scores.strips:
                    self.record.write_strip(name, self.step, scores.strips)
            mean = float(np.mean([v for k, v in values.items() if k.startswith("psnr/")]))
            if math.isnan(mean):
                _log.warning(
                    "step %d: restored images are not finite; %s stays as it is", self.step, _BEST
                )
            elif mean > self.best:
                self.best = mean
                models.save_weights(self.out / _BEST, network)
        self.record.add(self.step, values)
        _log.info(
            "step %d: %s", self.step,
            ", ".join(f"{k} {v:.4g}" for k, v in values.items() if not k.startswith("ssim/")),
        )  # fmt: skip

    def _save(self) -> None:
        if self.record is None:
            return
        self._refuse_broken()
        state = {
            "config": to_mapping(self.config),
            "extra_loss": getattr(self.trainer.extra_loss, "fingerprint", None),
            "trainer": self.trainer.state_dict(),
            **self.timetable.state_dict(),
            "best": self.best,
            "skipped": self.skipped,
        }
        with self.timetable.reserve("save"):
            write_checkpoint(self.out / CHECKPOINT, state)
            self.saved = self.step
            with self.trainer.averaged() as network:
                models.save_weights(self.out / WEIGHTS, network)
            self.record.write_csv()
            self.record.draw_curves()


@contextlib.contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn an interruption (Ctrl-C, or a signal) into a request to stop after a step."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


def _finite_mean(values: Sequence[float]) -> float:
    """Return the mean of the finite values; NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
