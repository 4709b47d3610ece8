"""Means over classes: each class alike, each box alike, and only classes with enough boxes.

mAP counts a class with three boxes as much as one with a thousand, so one such class can decide the
sign of a small change. The other two means show whether it does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "FEWEST_BOXES",
    "FEWEST_IMAGES",
    "FEW_BOXES",
    "are_few",
    "mean_by_boxes",
    "mean_over_classes",
]

FloatArray = npt.NDArray[np.float64]

FEW_BOXES = 10
"""A class with fewer boxes than this is flagged, and left out of the mean over common classes."""

FEWEST_IMAGES = 20
FEWEST_BOXES = 50
"""With fewer images or boxes nothing is claimed: a bootstrap of so few is too sure of itself."""


def are_few(images: int, boxes: int) -> bool:
    """Tell whether there are too few images or boxes to claim anything."""
    return images < FEWEST_IMAGES or boxes < FEWEST_BOXES


def mean_over_classes(values: FloatArray) -> FloatArray:
    """Return the mean over the last axis, classes without a value (NaN) left out.

    >>> float(mean_over_classes(np.array([0.2, 0.4, np.nan])).round(3))
    0.3
    """
    return mean_by_boxes(values, np.ones_like(values))


def mean_by_boxes(values: FloatArray, boxes: FloatArray) -> FloatArray:
    """Return the mean over the last axis, each class weighted by its number of boxes.

    Args:
        values: (..., K) a number of each class; NaN where it has none.
        boxes: (..., K) weights; broadcast.

    Returns:
        (...); NaN where no class has a value.

    >>> float(mean_by_boxes(np.array([0.2, 0.4, np.nan]), np.array([1, 3, 5])).round(3))
    0.35
    """
    weights = np.where(np.isnan(values), 0.0, boxes)
    total = weights.sum(axis=-1)
    weighted = (np.nan_to_num(values) * weights).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, weighted / total, np.nan)
