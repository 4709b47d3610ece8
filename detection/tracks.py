"""Following objects through frames, whatever detector found them.

The tracker is ultralytics' (AGPL-3.0), which is imported when one is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from detection.types import NO_TRACK, Detections, IntArray, lowest_score
from rainmer.errors import SpecError

__all__ = ["NO_TRACK", "Tracker", "lowest_score", "make_tracker", "track_detections"]


class Tracker(Protocol):
    """Follows objects through the frames of one video or stream."""

    def __call__(self, detections: Detections, size_hw: tuple[int, int]) -> IntArray:
        """Take the next frame's detections, weak ones too, and return their objects' numbers."""


def make_tracker(conf: float) -> Tracker:
    """Make a tracker whose tracks begin at a score; see `detection.yolo.tracking.ByteTracker`.

    Raises:
        SpecError: ultralytics, or the package that its ByteTrack needs, is not installed.
    """
    try:
        from detection.yolo.tracking import ByteTracker
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ultralytics":
            raise
        raise SpecError(
            "following objects through frames needs ByteTrack of the package ultralytics "
            "(AGPL-3.0): pip install ultralytics"
        ) from error
    return ByteTracker(conf)


def track_detections(
    frames: Sequence[Detections], size_hw: tuple[int, int], *, conf: float
) -> list[IntArray]:
    """Follow objects through consecutive frames of one size; see `make_tracker`.

    Args:
        frames: The detections in each frame, in order, weak ones too.
        size_hw: (height, width) of the frames in pixels.
        conf: Score from which a detection begins a track, 0..1.

    Returns:
        For each frame the number of each detection's track, (N,) int64; `NO_TRACK` where it belongs
        to none.

    Raises:
        SpecError: See `make_tracker`.
    """
    tracker = make_tracker(conf)
    return [tracker(detections, size_hw) for detections in frames]
