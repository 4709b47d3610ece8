"""Time the stages of a pipeline without synchronising with a GPU."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

__all__ = ["StageTimes", "Stopwatch"]

Item = TypeVar("Item")


class Stopwatch:
    """Measures a `with` block: on CUDA by events of the current stream, otherwise by the clock.

    Leaving the block does not wait for the GPU, but reading `elapsed_ms` does: read it when the
    results of the block are available anyway.

    Args:
        device: Device of the computation.

    Example:
        >>> with Stopwatch() as watch:
        ...     _ = sum(range(1000))
        >>> watch.elapsed_ms > 0
        True
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        self._clock: list[float] = []
        self._events: list[torch.cuda.Event] = []

    def __enter__(self) -> Stopwatch:
        self._stamp()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stamp()

    @property
    def elapsed_ms(self) -> float:
        """The time between entering and leaving, in ms."""
        if self._device is None:
            return (self._clock[1] - self._clock[0]) * 1e3
        self._events[1].synchronize()
        return float(self._events[0].elapsed_time(self._events[1]))

    def _stamp(self) -> None:
        if self._device is None:
            self._clock.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._events.append(event)


class StageTimes:
    """Total time of each stage; threads may add to it concurrently."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals_ms: dict[str, float] = {}

    def add(self, stage: str, elapsed_ms: float) -> None:
        """Add to a stage."""
        with self._lock:
            self._totals_ms[stage] = self._totals_ms.get(stage, 0.0) + elapsed_ms

    @contextlib.contextmanager
    def measuring(self, stage: str) -> Iterator[None]:
        """Add the time of a `with` block to a stage, by the clock."""
        with Stopwatch() as watch:
            yield
        self.add(stage, watch.elapsed_ms)

    def of_items(self, stage: str, source: Iterable[Item]) -> Iterator[Item]:
        """Iterate over a source, adding the time for each item to a stage."""
        items = iter(source)
        while True:
            with Stopwatch() as watch:
                try:
                    item = next(items)
                except StopIteration:
                    return
            self.add(stage, watch.elapsed_ms)
            yield item

    def total_ms(self, stage: str) -> float:
        """Return the total of a stage so far, in ms; 0 if it did not run."""
        with self._lock:
            return self._totals_ms.get(stage, 0.0)
