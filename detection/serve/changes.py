"""Boxes found and lost: detections in a derained frame against those in the rainy one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detection.types import Detections

__all__ = ["Changes", "compare"]

_SAME_IOU = 0.5

Flags = npt.NDArray[np.bool_]


class Changes(NamedTuple):
    """Which boxes have no partner on the other side.

    Attributes:
        found: (N,) of the derained frame's detections: not there in the rainy frame.
        lost: (M,) of the rainy frame's detections: no longer there in the derained one.
    """

    found: Flags
    lost: Flags


def compare(rainy: Detections, derained: Detections) -> Changes:
    """Pair boxes of one class with IoU 0.5 or more, the surest first, each with one other.

    Example:
        >>> one = Detections([[0, 0, 8, 8]], [0.9], [2])
        >>> two = Detections([[0, 0, 8, 7], [20, 20, 30, 30]], [0.8, 0.7], [2, 2])
        >>> [flags.tolist() for flags in compare(one, two)]
        [[False, True], [False]]
    """
    overlaps = _overlaps(rainy, derained)
    overlaps[rainy.labels[:, None] != derained.labels] = 0.0
    found, lost = np.ones(len(derained), bool), np.ones(len(rainy), bool)
    for i in np.argsort(-derained.scores, kind="stable"):
        free = np.where(lost, overlaps[:, i], 0.0)
        if free.size and free.max() >= _SAME_IOU:
            lost[free.argmax()] = found[i] = False
    return Changes(found, lost)


def _overlaps(one: Detections, two: Detections) -> npt.NDArray[np.float32]:
    """Return the IoU (N, M) of each box with each other."""
    a, b = one.boxes_xyxy[:, None], two.boxes_xyxy[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    overlaps: npt.NDArray[np.float32] = np.divide(
        shared, union, out=np.zeros_like(shared), where=union > 0
    )
    return overlaps
