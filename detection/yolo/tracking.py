"""ByteTrack of ultralytics over detections that are there already, frame by frame."""

from __future__ import annotations

import numpy as np
from ultralytics.engine.results import Boxes
from ultralytics.utils import YAML, IterableSimpleNamespace
from ultralytics.utils.checks import check_yaml

from detection.types import NO_TRACK, Detections, IntArray, lowest_score
from rainmer.extras import import_extra

__all__ = ["ByteTracker"]


class ByteTracker:
    """Follows objects through the frames of one video or stream.

    The settings are ultralytics' own, but tracks begin at `conf`; a track goes on with weaker
    detections, from `lowest_score(conf)`. As in ultralytics, classes do not matter. Objects are
    numbered from 1.

    Args:
        conf: Score from which a detection begins a track, 0..1.

    Raises:
        SpecError: The package that ByteTrack needs is not installed.
    """

    def __init__(self, conf: float) -> None:
        # ultralytics would install it at run time.
        import_extra("lap", "track", "following objects through frames")
        from ultralytics.trackers.byte_tracker import BYTETracker

        settings = YAML.load(check_yaml("bytetrack.yaml")) | {
            "track_high_thresh": conf,
            "new_track_thresh": conf,
            "track_low_thresh": lowest_score(conf),
        }
        self._tracker = BYTETracker(IterableSimpleNamespace(**settings))

    def __call__(self, detections: Detections, size_hw: tuple[int, int]) -> IntArray:
        """Take the next frame's detections, weak ones too, and return their objects' numbers.

        Args:
            detections: N of them.
            size_hw: (height, width) of the frame in pixels.

        Returns:
            (N,) int64; `NO_TRACK` where a detection belongs to no track.
        """
        columns = (detections.boxes_xyxy, detections.scores[:, None], detections.labels[:, None])
        table = np.concatenate(columns, axis=1, dtype=np.float32, casting="unsafe")
        self._tracker.update(Boxes(table, size_hw))
        numbers = np.full(len(detections), NO_TRACK, np.int64)
        # What it returns lacks tracks in their first frame, before a second one confirms them.
        for track in self._tracker.tracked_stracks:
            if track.frame_id == self._tracker.frame_id:
                numbers[int(track.idx)] = track.track_id
        return numbers
