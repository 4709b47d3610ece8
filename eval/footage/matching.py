"""What deraining changed in the detections of one frame, and what both inputs find together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detection.types import Detections
from eval.scores.changes import best_pairs
from eval.scores.errors import box_overlaps

__all__ = ["Band", "FrameChange", "band_edges", "compare_frame", "count_bands", "pair", "union"]

Pairs = list[tuple[int, int]]

_EDGES = (0.5, 0.75)


@dataclass(frozen=True)
class FrameChange:
    """The detections of two versions of a frame, paired by class and IoU 0.5.

    Attributes:
        kept: Pairs (rainy, derained) of which both reach the confidence.
        gained: Derained ones that reach it, and have no such partner.
        lost: Rainy ones that reach it, and have no such partner.
        raised: Those of `gained` that have a weaker partner: seen before, but not surely.
        lowered: Those of `lost` that have a weaker partner: still seen, but not surely.
    """

    kept: Sequence[tuple[int, int]] = ()
    gained: Sequence[int] = ()
    lost: Sequence[int] = ()
    raised: Sequence[int] = ()
    lowered: Sequence[int] = ()

    @property
    def united(self) -> int:
        """Number of things that either version shows."""
        return len(self.kept) + len(self.gained) + len(self.lost)


def pair(first: Detections, second: Detections) -> Pairs:
    """Pair detections of one class one to one, the largest IoU first, none below 0.5."""
    overlaps = box_overlaps(_as_items(first), _as_items(second))
    return best_pairs(np.where(first.labels[:, None] == second.labels[None], overlaps, 0.0))


def _as_items(detections: Detections) -> list[dict[str, object]]:
    corners = detections.boxes_xyxy.astype(np.float64)
    ltwh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [{"bbox": box} for box in ltwh.tolist()]


def compare_frame(rainy: Detections, derained: Detections, conf: float) -> FrameChange:
    """Compare what a detector finds in a frame and in its derained version.

    Those that reach the confidence are paired first; what is left over may have a weaker partner.

    Args:
        rainy: Detections in the frame as it is, weak ones too.
        derained: Detections in the derained frame.
        conf: Confidence from which detections count, 0..1.
    """
    sure = [np.flatnonzero(side.scores >= conf) for side in (rainy, derained)]
    weak = [np.flatnonzero(side.scores < conf) for side in (rainy, derained)]
    kept = _pair_some(rainy, derained, sure[0], sure[1])
    lost = np.setdiff1d(sure[0], [row for row, _ in kept])
    gained = np.setdiff1d(sure[1], [column for _, column in kept])
    lowered = _pair_some(rainy, derained, lost, weak[1])
    raised = _pair_some(rainy, derained, weak[0], gained)
    return FrameChange(
        kept,
        gained.tolist(),
        lost.tolist(),
        sorted(column for _, column in raised),
        sorted(row for row, _ in lowered),
    )


def _pair_some(
    first: Detections,
    second: Detections,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> Pairs:
    """Pair some detections of each side; return their indices."""
    pairs = pair(first.select(rows), second.select(columns))
    return sorted((int(rows[i]), int(columns[j])) for i, j in pairs)


def union(rainy: Detections, derained: Detections, change: FrameChange) -> Detections:
    """Return what either version of a frame shows; of a pair the detection with the higher score.

    The order is by score, the highest first.
    """
    best_rainy = [i for i, j in change.kept if rainy.scores[i] >= derained.scores[j]]
    best_derained = [j for i, j in change.kept if rainy.scores[i] < derained.scores[j]]
    first = rainy.select(np.array([*best_rainy, *change.lost], np.int64))
    second = derained.select(np.array([*best_derained, *change.gained], np.int64))
    both = Detections(
        np.concatenate([first.boxes_xyxy, second.boxes_xyxy]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.labels, second.labels]),
    )
    return both.select(np.argsort(-both.scores, kind="stable"))


def band_edges(conf: float) -> list[float]:
    """Return the edges of the bands of confidence, from the lowest that counts to 1.

    >>> band_edges(0.25), band_edges(0.6)
    ([0.25, 0.5, 0.75, 1.0], [0.6, 0.75, 1.0])
    """
    return [conf, *(edge for edge in _EDGES if edge > conf), 1.0]


@dataclass
class Band:
    """Counts of detections within a band of confidence, over many frames.

    Attributes:
        low, high: The band: `low` belongs to it, `high` only if it is 1.
        rainy, derained: Detections in either version.
        gained, lost, raised, lowered: As in `FrameChange`, in the band of their own confidence.
    """

    low: float
    high: float
    rainy: int = 0
    derained: int = 0
    gained: int = 0
    lost: int = 0
    raised: int = 0
    lowered: int = 0


def count_bands(
    frames: Sequence[tuple[Detections, Detections, FrameChange]], conf: float
) -> list[Band]:
    """Count detections, and what became of them, by bands of confidence.

    Args:
        frames: Rainy detections, derained detections and their comparison, of each frame.
        conf: The lowest confidence that counts.
    """
    edges = band_edges(conf)
    bands = [Band(*ends) for ends in itertools.pairwise(edges)]
    for rainy, derained, change in frames:
        for kind, side, chosen in (
            ("rainy", rainy, np.flatnonzero(rainy.scores >= conf)),
            ("derained", derained, np.flatnonzero(derained.scores >= conf)),
            ("gained", derained, change.gained),
            ("raised", derained, change.raised),
            ("lost", rainy, change.lost),
            ("lowered", rainy, change.lowered),
        ):
            scores = side.scores[np.asarray(chosen, np.int64)]
            for place in np.searchsorted(edges[1:-1], scores, side="right").tolist():
                setattr(bands[place], kind, getattr(bands[place], kind) + 1)
    return bands
