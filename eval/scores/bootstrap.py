"""Confidence of a difference in mAP: a paired bootstrap over images.

What is resampled are the images, the same ones for every row, so that a difference is taken within
each resample. Matches do not change when images are drawn again, hence only their weights do:
AP is computed for all resamples at once from the matches that COCOeval made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eval.scores.coco import ClassMatches
from eval.scores.means import mean_over_classes

__all__ = [
    "average_precisions",
    "class_precisions",
    "class_recalls",
    "difference_interval",
    "draw_weights",
]

FloatArray = npt.NDArray[np.float64]

_RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK = 250  # resamples at once: keeps the largest intermediate of a common class in cache


def draw_weights(images: int, resamples: int, seed: int) -> FloatArray:
    """Draw how often each image is in each resample: (resamples, images), rows sum to `images`."""
    rng = np.random.default_rng(seed)
    share = np.full(images, 1.0 / images)
    return rng.multinomial(images, share, size=resamples).astype(np.float64)


def average_precisions(classes: Sequence[ClassMatches], weights: FloatArray) -> FloatArray:
    """Compute mAP (IoU 0.50:0.95) for each row of image weights.

    With all weights 1 this is COCOeval's number. A class without objects in a resample has no AP
    there and is left out of that resample's mean.

    Args:
        classes: Matches per class, from one evaluation.
        weights: (B, I): how often each image counts.

    Returns:
        (B,) fractions 0..1; NaN where a resample holds no object at all.
    """
    return mean_over_classes(class_precisions(classes, weights))


def class_precisions(classes: Sequence[ClassMatches], weights: FloatArray) -> FloatArray:
    """Compute AP (IoU 0.50:0.95) of each class for each row of image weights.

    Args:
        classes: Matches per class, from one evaluation.
        weights: (B, I): how often each image counts.

    Returns:
        (B, K) fractions 0..1; NaN where a resample holds no object of the class.
    """
    precisions = np.full((len(weights), len(classes)), np.nan)
    for k, matches in enumerate(classes):
        objects = weights @ matches.objects
        for start in range(0, len(weights), _CHUNK):
            part = slice(start, start + _CHUNK)
            precision = _class_precision(matches, weights[part], objects[part])
            precisions[part, k] = np.where(objects[part] > 0, precision, np.nan)
    return precisions


def class_recalls(classes: Sequence[ClassMatches], weights: FloatArray) -> FloatArray:
    """Compute the average recall (IoU 0.50:0.95, 100 detections) of each class as above.

    Returns:
        (B, K) fractions 0..1; NaN where a resample holds no object of the class.
    """
    recalls = np.full((len(weights), len(classes)), np.nan)
    for k, matches in enumerate(classes):
        objects = weights @ matches.objects
        # Found objects of each image, mean over the thresholds.
        found = np.bincount(
            matches.image_index,
            weights=matches.true_positive.mean(axis=0),
            minlength=weights.shape[1],
        )
        np.divide(weights @ found, objects, out=recalls[:, k], where=objects > 0)
    return recalls


def _class_precision(matches: ClassMatches, weights: FloatArray, objects: FloatArray) -> FloatArray:
    """Return the AP of one class, mean over IoU thresholds, per resample (0 without objects)."""
    counts = weights[:, matches.image_index]  # (B, D)
    thresholds = len(matches.true_positive)
    precision = np.zeros(len(weights))
    seen = None
    for true, ignored in zip(matches.true_positive, matches.ignored, strict=True):
        hits = np.flatnonzero(true)
        if not hits.size:
            continue
        if ignored.any():
            seen_here = np.cumsum(counts * ~ignored, axis=1)
        else:
            seen = np.cumsum(counts, axis=1) if seen is None else seen
            seen_here = seen
        precision += _interpolated(counts[:, hits].cumsum(axis=1), seen_here[:, hits], objects)
    return precision / thresholds


def _interpolated(found: FloatArray, seen: FloatArray, objects: FloatArray) -> FloatArray:
    """Average the precision envelope at 101 recalls.

    Only true positives can raise the envelope, so the curve is needed at their positions alone.

    Args:
        found: (B, M) true positives up to and including each one.
        seen: (B, M) detections up to there.
        objects: (B,) number of objects.
    """
    at_hits = found / np.maximum(seen, 1.0)  # the hit itself is seen, so 0 means not drawn
    envelope = np.maximum.accumulate(at_hits[:, ::-1], axis=1)[:, ::-1]
    recall = found / np.maximum(objects, 1.0)[:, None]
    # Each hit holds the recalls that it is the first to reach.
    reached = np.searchsorted(_RECALLS, recall, side="right")
    held = np.diff(reached, axis=1, prepend=0)
    precision = (envelope * held).sum(axis=1) / len(_RECALLS)
    return np.where(objects > 0, precision, 0.0)


def difference_interval(
    values: FloatArray, reference: FloatArray, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the percentile interval of paired differences, or None with fewer than 2 of them."""
    differences = values - reference
    differences = differences[np.isfinite(differences)]
    if differences.size < 2:
        return None
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(differences, [tail, 1.0 - tail])
    return float(low), float(high)
