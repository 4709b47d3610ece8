"""Operating points: what a detector finds, and what it invents, at each confidence.

mAP sums up all confidences; a detector in use has one. All classes count together, at IoU 0.5, as
in `eval.scores.coco.Evaluation.counts`. Confidences are whole hundredths, so that a number that is
shown is one that can be set, and gives the very counts that stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from eval.scores.bootstrap import difference_interval
from eval.scores.coco import Evaluation
from eval.scores.score import Score

__all__ = ["Curve", "Operating", "Point", "Sweep", "operate", "sweep"]

FloatArray = npt.NDArray[np.float64]

_HUNDREDTHS = np.arange(1, 100) / 100


@dataclass(frozen=True)
class Point:
    """Counts at one confidence.

    Attributes:
        conf: The confidence from which detections count.
        found: Objects found, which is also the number of correct detections.
        false: False detections.
        missed: Objects not found.
    """

    conf: float
    found: int
    false: int
    missed: int

    @property
    def f1(self) -> float | None:
        """2 TP / (2 TP + FP + FN); None without objects and detections.

        >>> Point(0.25, found=3, false=1, missed=2).f1
        0.6666666666666666
        """
        total = 2 * self.found + self.false + self.missed
        return 2 * self.found / total if total else None


@dataclass(frozen=True)
class Curve:
    """Counts at rising confidences.

    Attributes:
        confs: (C,) confidences.
        found, false: (C,) correct and false detections from each confidence on.
        objects: Number of objects.
    """

    confs: FloatArray
    found: FloatArray
    false: FloatArray
    objects: float

    def point(self, index: int) -> Point:
        """Return the counts at one of the confidences."""
        found = round(self.found[index])
        return Point(
            float(self.confs[index]), found, round(self.false[index]), round(self.objects) - found
        )

    @property
    def precision(self) -> FloatArray:
        """(C,) share of the detections that are correct; NaN without detections."""
        return _ratio(self.found, self.found + self.false)

    @property
    def recall(self) -> FloatArray:
        """(C,) share of the objects that are found; NaN without objects."""
        return _ratio(self.found, np.full_like(self.found, self.objects))

    @property
    def f1(self) -> FloatArray:
        """(C,) F1; NaN without objects and detections."""
        return _f1(self.found, self.false, np.array(self.objects))


@dataclass(frozen=True)
class Sweep:
    """One row's counts by image, at many confidences.

    Attributes:
        confs: (C,) the hundredths from 0.01 to 0.99, and the confidence of the counts.
        chosen: Position of the confidence of the counts.
        found, false: (I, C) correct and false detections of each image from each confidence on.
        objects: (I,) objects of each image.
    """

    confs: FloatArray
    chosen: int
    found: FloatArray
    false: FloatArray
    objects: FloatArray


@dataclass(frozen=True, kw_only=True)
class Operating:
    """How a row works at a fixed confidence, and at others.

    Attributes:
        at: Counts at the confidence of the counts.
        equal: At the lowest confidence with no more false detections than the reference has at the
            confidence of the counts; None without a reference, or without such a confidence.
        best: At the confidence of the highest F1.
        change_f1: F1 of `at` minus that of the reference.
        change_recall: Recall of `equal` minus that of the reference's `at`.
        change_best_f1: F1 of `best` minus that of the reference's own best.
        curve: Counts at every confidence.
    """

    at: Point
    equal: Point | None = None
    best: Point
    change_f1: Score = field(default_factory=Score)
    change_recall: Score = field(default_factory=Score)
    change_best_f1: Score = field(default_factory=Score)
    curve: Curve


def sweep(evaluation: Evaluation, conf: float) -> Sweep:
    """Count a row's detections by image at all confidences.

    Args:
        evaluation: The row.
        conf: The confidence of the counts, 0..1; it need not be a hundredth.
    """
    graded = evaluation.graded()
    confs = np.unique(np.append(_HUNDREDTHS, conf))
    # How many of the confidences a detection reaches.
    reached = np.searchsorted(confs, graded.scores, side="right")
    shape = (len(graded.objects), len(confs) + 1)

    def count(chosen: npt.NDArray[np.bool_]) -> FloatArray:
        places = graded.image_index[chosen] * shape[1] + reached[chosen]
        counts = np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)
        return counts[:, :0:-1].cumsum(axis=1)[:, ::-1].astype(np.float64)

    return Sweep(
        confs,
        int(np.searchsorted(confs, conf)),
        count(graded.correct),
        count(~graded.correct),
        graded.objects.astype(np.float64),
    )


@dataclass(frozen=True)
class _Totals:
    """A sweep's sums over the images of each resample: (B, C) and (B,)."""

    found: FloatArray
    false: FloatArray
    objects: FloatArray

    def f1(self) -> FloatArray:
        return _f1(self.found, self.false, self.objects[:, None])


def operate(
    row: Sweep, reference: Sweep | None, inside: npt.NDArray[np.bool_], weights: FloatArray | None
) -> Operating:
    """Return a row's operating points on some images, compared with those of a reference.

    In each resample the confidences are chosen anew, so the intervals allow for their choice.

    Args:
        row: The row.
        reference: What it is compared with, at the same confidences; None: nothing.
        inside: (I,) which images count.
        weights: (B, I) how often each image counts in each resample; None: no intervals.
    """
    totals = _totals(row, inside[None].astype(np.float64))
    curve = Curve(row.confs, totals.found[0], totals.false[0], float(totals.objects[0]))
    best = int(np.nan_to_num(curve.f1, nan=-1.0).argmax())
    at = curve.point(row.chosen)
    if reference is None:
        return Operating(at=at, best=curve.point(best), curve=curve)
    other = _totals(reference, inside[None].astype(np.float64))
    (equal,) = _equal(totals, other, row.chosen)
    values = _changes(totals, other, row.chosen)
    samples: Sequence[FloatArray] = [np.zeros(0)] * len(values)
    if weights is not None:
        samples = _changes(_totals(row, weights), _totals(reference, weights), row.chosen)
    f1, recall, best_f1 = (
        _score(float(value[0]), sample) for value, sample in zip(values, samples, strict=True)
    )
    return Operating(
        at=at,
        equal=None if equal < 0 else curve.point(equal),
        best=curve.point(best),
        change_f1=f1,
        change_recall=recall,
        change_best_f1=best_f1,
        curve=curve,
    )


def _totals(row: Sweep, weights: FloatArray) -> _Totals:
    return _Totals(weights @ row.found, weights @ row.false, weights @ row.objects)


def _equal(row: _Totals, reference: _Totals, chosen: int) -> npt.NDArray[np.intp]:
    """Return (B,) the first confidence with no more false detections; -1 where there is none."""
    few = row.false <= reference.false[:, chosen, None]
    return np.where(few.any(axis=1), few.argmax(axis=1), -1)


def _changes(row: _Totals, reference: _Totals, chosen: int) -> Sequence[FloatArray]:
    """Return (B,) the changes of F1, of recall at equal false detections, and of the best F1."""
    f1, other_f1 = row.f1(), reference.f1()
    equal = _equal(row, reference, chosen)
    found = np.take_along_axis(row.found, np.maximum(equal, 0)[:, None], axis=1)[:, 0]
    recall = _ratio(found - reference.found[:, chosen], row.objects)
    return (
        f1[:, chosen] - other_f1[:, chosen],
        np.where(equal < 0, np.nan, recall),
        _highest(f1) - _highest(other_f1),
    )


def _highest(values: FloatArray) -> FloatArray:
    """Return the largest number of each row; NaN where it has none."""
    highest = np.nan_to_num(values, nan=-1.0).max(axis=1)
    return np.where(highest < 0, np.nan, highest)


def _score(value: float, samples: FloatArray) -> Score:
    if np.isnan(value):
        return Score()
    return Score(value, *(difference_interval(samples, np.zeros_like(samples)) or (None, None)))


def _f1(found: FloatArray, false: FloatArray, objects: FloatArray) -> FloatArray:
    return _ratio(2 * found, found + false + objects)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return part / whole; NaN where the whole is nothing."""
    ratio = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
