"""The numbers of all rows in one condition, each with its value in every bootstrap resample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from eval.rows.run import RowSpec
from eval.scores.bootstrap import (
    class_precisions,
    class_recalls,
    difference_interval,
    draw_weights,
)
from eval.scores.coco import ClassMatches, Evaluation
from eval.scores.means import FEW_BOXES, mean_by_boxes, mean_over_classes
from eval.scores.score import Score

__all__ = ["Measure", "Measures", "image_weights", "measure"]

FloatArray = npt.NDArray[np.float64]
_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Measure(Generic[_Key]):
    """One number of every row.

    Attributes:
        values: Fractions 0..1; None where undefined.
        samples: (B,) the same in each resample; empty without a bootstrap.
    """

    values: Mapping[_Key, float | None]
    samples: Mapping[_Key, FloatArray]

    def change(self, spec: _Key, reference: _Key | None) -> Score:
        """Return a row's number minus that of another one, with its interval, where defined."""
        if reference is None or reference not in self.values:
            return Score()
        value = _difference(self.values[spec], self.values[reference])
        if not self.samples or value is None:
            return Score(value)
        interval = difference_interval(self.samples[spec], self.samples[reference])
        return Score(value, *(interval or (None, None)))


@dataclass(frozen=True)
class Measures:
    """Everything that is resampled.

    Attributes:
        mean_ap: mAP, by COCOeval.
        by_boxes: AP weighted by each class's boxes.
        common: Mean AP of the classes with at least `FEW_BOXES` boxes.
        mean_ar: Average recall at 100 detections, by COCOeval.
        per_class: AP of each class, in the order of `Evaluation.category_ids`.
    """

    mean_ap: Measure[RowSpec]
    by_boxes: Measure[RowSpec]
    common: Measure[RowSpec]
    mean_ar: Measure[RowSpec]
    per_class: Sequence[Measure[RowSpec]]


@dataclass(frozen=True)
class _Classes:
    """Numbers of one row by resample (B) and class (K); NaN where a class has no object.

    Attributes:
        ap: (B, K) AP.
        recall: (B, K) average recall.
        boxes: (B, K) objects.
    """

    ap: FloatArray
    recall: FloatArray
    boxes: FloatArray


def _difference(value: float | None, reference: float | None) -> float | None:
    """Subtract two numbers; None where one is undefined."""
    return value - reference if value is not None and reference is not None else None


def measure(
    evaluations: Mapping[RowSpec, Evaluation],
    image_ids: frozenset[int],
    *,
    resamples: int,
    seed: int,
) -> Measures:
    """Compute the numbers of all rows on some images.

    Args:
        evaluations: The rows, all against the same truth.
        image_ids: The images.
        resamples: Bootstrap resamples; 0 leaves intervals out, as do fewer than two images.
        seed: Seed of the bootstrap.
    """
    first = next(iter(evaluations.values()))
    matches = {spec: row.class_matches() for spec, row in evaluations.items()}
    inside = np.array([[float(image_id in image_ids) for image_id in first.image_ids]])
    weights = image_weights(inside[0] > 0, resamples, seed)
    points = {spec: _points(row, matches[spec], inside) for spec, row in evaluations.items()}
    samples = {} if weights is None else {s: _classes(m, weights) for s, m in matches.items()}
    common = next(iter(points.values())).boxes[0] >= FEW_BOXES

    def over_classes(number: Callable[[_Classes], FloatArray]) -> Measure[RowSpec]:
        return Measure(
            {spec: _defined(number(classes)[0]) for spec, classes in points.items()},
            {spec: number(classes) for spec, classes in samples.items()},
        )

    summaries = {spec: row.summary(image_ids) for spec, row in evaluations.items()}
    mean_ap = over_classes(lambda classes: mean_over_classes(classes.ap))
    mean_ar = over_classes(lambda classes: mean_over_classes(classes.recall))
    return Measures(
        mean_ap=Measure({spec: s["mAP"] for spec, s in summaries.items()}, mean_ap.samples),
        by_boxes=over_classes(lambda classes: mean_by_boxes(classes.ap, classes.boxes)),
        common=over_classes(lambda classes: mean_over_classes(classes.ap[:, common])),
        mean_ar=Measure({spec: s["AR"] for spec, s in summaries.items()}, mean_ar.samples),
        per_class=[over_classes(_ap_of(k)) for k in range(len(first.category_ids))],
    )


def _ap_of(k: int) -> Callable[[_Classes], FloatArray]:
    return lambda classes: classes.ap[:, k]


def image_weights(inside: npt.NDArray[np.bool_], resamples: int, seed: int) -> FloatArray | None:
    """Return how often each image counts in each resample.

    Args:
        inside: (I,) which images count at all. As many of them get the same weights always.
        resamples: Their number, B; 0 leaves intervals out.
        seed: Seed of the bootstrap.

    Returns:
        (B, I); None without intervals, also where fewer than two images count.
    """
    positions = np.flatnonzero(inside)
    if resamples == 0 or len(positions) < 2:
        return None
    weights = np.zeros((resamples, len(inside)))
    weights[:, positions] = draw_weights(len(positions), resamples, seed)
    return weights


def _points(
    evaluation: Evaluation, classes: Sequence[ClassMatches], inside: FloatArray
) -> _Classes:
    """Return a row's numbers on the images themselves, AP as COCOeval gives it."""
    image_ids = [i for i, counts in zip(evaluation.image_ids, inside[0], strict=True) if counts]
    scores = evaluation.per_class(image_ids)
    ap = np.array([[np.nan if score.ap is None else score.ap for score in scores]])
    return _Classes(ap.reshape(1, -1), class_recalls(classes, inside), _boxes(classes, inside))


def _classes(classes: Sequence[ClassMatches], weights: FloatArray) -> _Classes:
    return _Classes(
        class_precisions(classes, weights),
        class_recalls(classes, weights),
        _boxes(classes, weights),
    )


def _boxes(classes: Iterable[ClassMatches], weights: FloatArray) -> FloatArray:
    columns = [weights @ matches.objects for matches in classes]
    return np.stack(columns, axis=1) if columns else np.zeros((len(weights), 0))


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
