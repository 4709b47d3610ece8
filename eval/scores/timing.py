"""How long something takes for an image: medians, apart for what was timed in an earlier run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["Timing", "mean_timing", "timing_of", "together"]


@dataclass(frozen=True)
class Timing:
    """The time for an image.

    Attributes:
        ms: Median in milliseconds; None without any time.
        high: What 90 % of the images stay below, in milliseconds; None where it is unknown.
        images: How many images were timed.
        earlier: Whether all of it comes from an earlier run, perhaps on another device: frames of
            the cache, and rows that were resumed.
    """

    ms: float | None = None
    high: float | None = None
    images: int = 0
    earlier: bool = False

    @property
    def when(self) -> str:
        """`now`, `earlier`, or empty without any time."""
        return "" if self.ms is None else "earlier" if self.earlier else "now"

    @property
    def rate(self) -> float | None:
        """Images a second, one after the other; None where it is unknown."""
        return 1000 / self.ms if self.ms else None


def timing_of(times: Iterable[tuple[float | None, bool]]) -> Timing:
    """Return the median of the times of this run; only without any, that of earlier ones.

    Args:
        times: Milliseconds, None where unknown, and whether an earlier run took them.

    >>> timing_of([(300.0, True), (12.0, False), (10.0, False), (14.0, False), (None, False)])
    Timing(ms=12.0, high=13.6, images=3, earlier=False)
    >>> timing_of([(300.0, True)]).earlier, timing_of([]).ms
    (True, None)
    """
    known = [(ms, earlier) for ms, earlier in times if ms is not None]
    now = [ms for ms, earlier in known if not earlier]
    chosen = now or [ms for ms, _ in known]
    if not chosen:
        return Timing()
    median, high = np.quantile(chosen, [0.5, 0.9]).tolist()
    return Timing(median, high, len(chosen), earlier=not now)


def mean_timing(times: Iterable[tuple[float | None, bool]]) -> Timing:
    """Return the mean of all times: of a gate, behind which some images cost much, most little.

    >>> mean_timing([(300.0, True), (10.0, False), (None, False)])
    Timing(ms=155.0, high=None, images=2, earlier=True)
    """
    known = [(ms, earlier) for ms, earlier in times if ms is not None]
    if not known:
        return Timing()
    mean = float(np.mean([ms for ms, _ in known]))
    return Timing(mean, None, len(known), earlier=any(earlier for _, earlier in known))


def together(timings: Iterable[Timing]) -> Timing:
    """Return the time of stages one after the other; unknown where that of one is.

    >>> together([Timing(30.0, 33.0, 8), Timing(20.0, 21.0, 8, earlier=True)])
    Timing(ms=50.0, high=None, images=8, earlier=True)
    >>> together([Timing(), Timing(20.0)]).ms, together([Timing(30.0), Timing(20.0)]).rate
    (None, 20.0)
    """
    stages = list(timings)
    times = [timing.ms for timing in stages if timing.ms is not None]
    if len(times) < len(stages) or not times:
        return Timing()
    fewest = min(timing.images for timing in stages)
    return Timing(sum(times), None, fewest, any(timing.earlier for timing in stages))
