"""Which frames to look at: those that changed most, those worth a label, a stretch for a clip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from detection.types import Detections
from eval.footage.matching import FrameChange, union
from eval.footage.records import RAINY, FrameResult
from eval.footage.study import Study

__all__ = ["busiest_stretch", "changed_most", "informativeness", "most_informative", "spread"]

GAP_S = 1.0
"""Frames that are picked from a shot are at least so many seconds apart."""


def spread(
    ranked: Iterable[int],
    frames: Sequence[FrameResult],
    count: int,
    *,
    gap_s: float = GAP_S,
    stills: bool = False,
) -> list[int]:
    """Pick the first frames of a ranking that are no neighbours of those picked before.

    Args:
        ranked: Indices of frames, the best first.
        frames: The frames.
        count: Most frames to pick.
        gap_s: Frames of a shot that are less than that apart are neighbours, in seconds.
        stills: The frames are no consecutive ones: none are neighbours.
    """
    picked: list[int] = []
    taken: dict[str, list[float]] = {}
    for n in ranked:
        if len(picked) == count:
            break
        times = taken.setdefault(frames[n].shot, [])
        if stills or all(abs(frames[n].time_s - time_s) >= gap_s for time_s in times):
            times.append(frames[n].time_s)
            picked.append(n)
    return picked


def changed_most(study: Study, derainer: str, gains: int, losses: int) -> list[int]:
    """Pick the frames in which a derainer gained, and lost, most detections in all.

    Returns:
        Indices of frames: gains, the largest first, then losses, the largest first.
    """
    net = [len(change.gained) - len(change.lost) for change in study.changes[derainer]]
    picked = []
    for sign, count in ((1, gains), (-1, losses)):
        ranked = sorted((n for n, gain in enumerate(net) if sign * gain > 0),
                        key=lambda n: -abs(net[n]))  # fmt: skip
        picked += spread(ranked, study.frames, count, stills=study.rules.stills)
    return picked


def informativeness(rainy: Detections, derained: Detections, change: FrameChange) -> float:
    """Say how much a label of a frame would tell.

    Each detection that only one version shows counts 1: there the label decides. Each thing that
    either shows counts up to 1/2 more, the less sure the detector is of it: a score of 0.5 counts
    all of that, 0 and 1 count nothing.
    """
    scores = union(rainy, derained, change).scores.astype(np.float64)
    doubt = float((1.0 - np.abs(2.0 * scores - 1.0)).sum())
    return len(change.gained) + len(change.lost) + 0.5 * doubt


def most_informative(study: Study, derainer: str, count: int) -> dict[int, float]:
    """Pick the frames to label: see `informativeness`, and `spread` for what is left out.

    Returns:
        Index to informativeness, the most informative first.
    """
    pairs = zip(study.detections[RAINY], study.detections[derainer], strict=True)
    changes = study.changes[derainer]
    values = [informativeness(*pair, change) for pair, change in zip(pairs, changes, strict=True)]
    ranked = sorted(range(len(values)), key=lambda n: -values[n])
    picked = spread(ranked, study.frames, count, stills=study.rules.stills)
    return {n: values[n] for n in picked}


def busiest_stretch(study: Study, derainer: str, seconds: float) -> range:
    """Return the consecutive frames of a shot, not longer than that, in which most changes.

    Of equal ones the first. Empty where nothing is followed.
    """
    best, most = range(0), -1
    for shot in study.shots if seconds > 0 else ():
        if not shot.tracked:
            continue
        changes = [study.changes[derainer][n] for n in shot.frames]
        seen = np.cumsum([0, *(len(change.gained) + len(change.lost) for change in changes)])
        times = np.array([study.frames[n].time_s for n in shot.frames])
        ends = np.searchsorted(times, times + seconds, side="left")
        # A stretch cut off by the end of the shot is no better than the one before it.
        totals = seen[ends] - seen[:-1]
        start = int(totals.argmax())
        if totals[start] > most:
            most = int(totals[start])
            first = shot.frames[0]
            best = range(first + start, first + int(ends[start]))
    return best
