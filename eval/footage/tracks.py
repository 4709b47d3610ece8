"""How steadily a detector sees things: tracks, flicker, breaks.

Rain invents and hides detections from one frame to the next; things stay. So what lasts is more
likely real than what shows up once, whatever its score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detection.types import Detections, FloatArray, IntArray

__all__ = ["RESTART_S", "STEADY_S", "Steadiness", "Track", "collect_tracks", "measure_steadiness"]

STEADY_S = 0.5
"""A detection is steady if its track is seen for at least so many seconds."""

RESTART_S = 1.0
"""A track that begins within so many seconds where another one of its class ended may be its
continuation."""

_STEADY_FRAMES = 3


@dataclass(frozen=True, eq=False)
class Track:
    """One thing, as far as a tracker could follow it.

    Attributes:
        frames: (n,) numbers of the frames in which it is seen with enough confidence, rising.
        boxes_xyxy: (n, 4) its boxes there.
        label: Its most common class.
    """

    frames: IntArray
    boxes_xyxy: FloatArray
    label: int

    @property
    def first(self) -> int:
        """The first frame."""
        return int(self.frames[0])

    @property
    def last(self) -> int:
        """The last frame."""
        return int(self.frames[-1])


@dataclass(frozen=True, eq=False)
class Steadiness:
    """What happens in each frame of a shot; arrays (F,) of counts, unless said otherwise.

    Attributes:
        detections: Detections with enough confidence.
        steady: Those in tracks that last at least `STEADY_S`.
        flicker: Detections of a single frame, and tracks that are gone for a single frame.
        breaks: Tracks that are gone for longer and come back, and tracks that begin where another
            one of their class has just ended.
        starts: (T,) first frames of the tracks that are seen at least twice.
        lengths_s: (T,) how long these last, gaps included, in seconds.
    """

    detections: IntArray
    steady: IntArray
    flicker: IntArray
    breaks: IntArray
    starts: IntArray
    lengths_s: npt.NDArray[np.float64]


def collect_tracks(
    frames: Sequence[Detections], numbers: Sequence[IntArray], conf: float
) -> list[Track]:
    """Gather the detections of each track that reach a confidence.

    Args:
        frames: The detections in each frame, in order.
        numbers: For each frame the number of each detection's track; below 0: none.
        conf: Confidence from which a thing counts as seen, 0..1.

    Returns:
        The tracks that are seen at all, by their first frame.
    """
    seen: dict[int, list[tuple[int, int]]] = {}
    for n, (detections, own) in enumerate(zip(frames, numbers, strict=True)):
        for i in np.flatnonzero((own >= 0) & (detections.scores >= conf)).tolist():
            seen.setdefault(int(own[i]), []).append((n, i))
    return [
        Track(
            np.array([n for n, _ in places], np.int64),
            np.stack([frames[n].boxes_xyxy[i] for n, i in places]),
            Counter(int(frames[n].labels[i]) for n, i in places).most_common(1)[0][0],
        )
        for places in seen.values()
    ]


def measure_steadiness(
    frames: Sequence[Detections], tracks: Sequence[Track], times_s: Sequence[float], conf: float
) -> Steadiness:
    """Count what holds and what flickers in the consecutive frames of a shot.

    What begins in the last frame, or ends in the first, may be longer than the shot shows: it is no
    flicker.

    Args:
        frames: The detections in each frame.
        tracks: Their tracks at the same confidence; empty where nothing was followed.
        times_s: When each frame is shown, in seconds, rising.
        conf: Confidence from which detections count, 0..1.
    """
    count = len(frames)
    detections = np.array([int((d.scores >= conf).sum()) for d in frames], np.int64)
    steady, flicker, breaks = (np.zeros(count, np.int64) for _ in range(3))
    times = np.asarray(times_s, np.float64)
    step_s = float(np.median(np.diff(times))) if count > 1 else 0.0
    lengths_s = np.array([times[t.last] - times[t.first] + step_s for t in tracks], np.float64)
    for track, length_s in zip(tracks, lengths_s.tolist(), strict=True):
        if len(track.frames) == 1:
            flicker[track.first] += 0 < track.first < count - 1
        gaps = np.diff(track.frames) - 1
        flicker[track.frames[:-1][gaps == 1] + 1] += 1
        breaks[track.frames[:-1][gaps > 1] + 1] += 1
        # Half a frame of tolerance: times are rounded.
        if len(track.frames) >= _STEADY_FRAMES and length_s >= STEADY_S - step_s / 2:
            steady[track.frames] += 1
    for track in _restarts(tracks, times):
        breaks[track.first] += 1
    lasting = np.array([len(track.frames) > 1 for track in tracks], bool)
    starts = np.array([track.first for track in tracks], np.int64)
    return Steadiness(detections, steady, flicker, breaks, starts[lasting], lengths_s[lasting])


def _restarts(tracks: Sequence[Track], times: npt.NDArray[np.float64]) -> list[Track]:
    """Return the tracks that may continue another one, each of at most one, the nearest first."""
    lasting = [track for track in tracks if len(track.frames) > 1]
    starts_s = times[[track.first for track in lasting]] if lasting else times[:0]
    candidates = []
    for before, ended in enumerate(lasting):
        end_s = times[ended.last]
        window = np.searchsorted(starts_s, [end_s, end_s + RESTART_S], side="right").tolist()
        for after in range(*window):
            distance, size = _distance(ended.boxes_xyxy[-1], lasting[after].boxes_xyxy[0])
            if lasting[after].label == ended.label and distance <= size:
                candidates.append((distance / size, before, after))
    continued: dict[int, int] = {}
    for _, before, after in sorted(candidates):
        if before not in continued and after not in continued.values():
            continued[before] = after
    return [lasting[after] for after in continued.values()]


def _distance(ended: FloatArray, begun: FloatArray) -> tuple[float, float]:
    """Return how far the centres of two boxes are apart, and the longer side of the first."""
    centres = [(box[:2] + box[2:]) / 2 for box in (ended, begun)]
    return float(np.hypot(*(centres[1] - centres[0]))), max(float(max(ended[2:] - ended[:2])), 1e-6)
