"""Gains of one set: what each derainer adds in restoration and in detection, resample by resample.

Every gain is a difference to the rainy input on the same images. One draw of images per condition
serves all derainers and all measures, so gains of one resample belong together, and a correlation
of gains can be taken within each resample. With one seed the intervals are those of eval.detect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.detect.comparison import Comparison
from eval.detect.table import SCORES, RowResult
from eval.report.tables import CONTROLS
from eval.scores.bootstrap import average_precisions, difference_interval, draw_weights
from eval.scores.coco import ClassMatches, Evaluation
from eval.sets import ALL

__all__ = [
    "DETECTION",
    "RESTORATION",
    "ConditionGains",
    "ImageGains",
    "SetGains",
    "f1_score",
    "interval_of",
    "measure_gains",
]

FloatArray = npt.NDArray[np.float64]

RESTORATION: tuple[str, ...] = tuple(f"delta_{score}" for score in SCORES)
"""Gains of restoration: differences of PSNR in dB and of SSIM, in two conventions."""

DETECTION = ("delta_mAP", "relative_mAP", "recovered")
"""Gains of detection: difference of mAP, its share of the rainy mAP, and of what the rain took."""

_LEAST_DEFINED = 0.95  # of the resamples; with fewer an interval would be of the lucky ones


@dataclass(frozen=True)
class ImageGains:
    """One derainer's gains image by image, in the order of `SetGains.image_ids`.

    Attributes:
        scores: Name of a restoration score to (rainy, derained), each (I,); NaN where there is
            none or where an image equals its clean partner, so that its PSNR has no end.
        counts: (I, 2, 3): tp, fp and fn, rainy and derained, at the fixed confidence.
    """

    scores: Mapping[str, tuple[FloatArray, FloatArray]]
    counts: npt.NDArray[np.int64]

    def restoration(self, gain: str) -> FloatArray:
        """Return the gain `delta_psnr`, `delta_ssim`, ... of each image."""
        rainy, derained = self.scores[gain.removeprefix("delta_")]
        return derained - rainy

    @property
    def detection(self) -> FloatArray:
        """The gain of F1 of each image; see `f1_score`."""
        return f1_score(self.counts[:, 1]) - f1_score(self.counts[:, 0])


@dataclass(frozen=True)
class ConditionGains:
    """Gains of one condition of a set.

    Attributes:
        positions: Which images belong to it, as positions in `SetGains.image_ids`.
        weights: (R, I) how often each of them is in each resample; None: no intervals.
        rows: One flat row per derainer; fractions 0..1, None where undefined.
        samples: Derainer to gain to its value in each resample (R,); empty without weights.
    """

    positions: npt.NDArray[np.intp]
    weights: FloatArray | None
    rows: list[dict[str, Any]]
    samples: Mapping[str, Mapping[str, FloatArray]]


@dataclass(frozen=True)
class SetGains:
    """Everything that one set says about restoration and detection.

    Attributes:
        name: The set.
        truth: What detections were scored against, in words.
        image_ids: Its images.
        conditions: Gains by condition; the whole set (`all`) comes first.
        images: Gains by derainer, image by image.
    """

    name: str
    truth: str
    image_ids: tuple[int, ...]
    conditions: Mapping[str, ConditionGains]
    images: Mapping[str, ImageGains]


def f1_score(counts: npt.NDArray[np.int64]) -> FloatArray:
    """Return F1 = 2 TP / (2 TP + FP + FN) of each image.

    F1 serves as the detection score of a single image. An image's AP hangs on the order of a
    handful of boxes and is undefined without objects; recall alone would reward inventing boxes.
    F1 counts missed and false boxes alike, at the confidence that a user of the detector sets. An
    image without objects in which nothing is found is answered rightly: 1.

    Args:
        counts: (I, 3) tp, fp, fn.

    Returns:
        (I,) fractions 0..1.

    Example:
        >>> f1_score(np.array([[2, 1, 1], [0, 3, 0], [0, 0, 0]])).round(3).tolist()
        [0.667, 0.0, 1.0]
    """
    found, wrong = 2.0 * counts[:, 0], counts[:, 1] + counts[:, 2]
    return np.where(found + wrong > 0, found / np.maximum(found + wrong, 1.0), 1.0)


def interval_of(samples: FloatArray) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of resampled values (R,).

    None where fewer than 95 % of the resamples define a value, or fewer than two.
    """
    defined = np.isfinite(samples)
    if not samples.size or defined.mean() < _LEAST_DEFINED:
        return None
    return difference_interval(samples, np.zeros_like(samples))


def measure_gains(
    comparison: Comparison, *, truth: str, conf: float, resamples: int, seed: int
) -> SetGains:
    """Turn a finished comparison into gains over the rainy input.

    Args:
        comparison: Of rainy, clean and derained rows.
        truth: What it was scored against, in words.
        conf: Confidence of the counts per image, 0..1.
        resamples: Bootstrap resamples; 0 leaves intervals out.
        seed: Seed of the bootstrap.
    """
    rainy = comparison.rows[0]
    image_ids = rainy.evaluation.image_ids
    images = {
        row.spec.derainer_name: _image_gains(rainy, row, image_ids, conf)
        for row in comparison.rows
        if row.spec.input == "derained"
    }
    matches: dict[tuple[str, str], Sequence[ClassMatches]] = {
        (row.spec.input, row.spec.derainer_name): row.evaluation.class_matches()
        for row in comparison.rows
    }
    material = _Material(comparison, truth, images, matches)
    conditions = {}
    for condition, members in comparison.data.conditions.items():
        positions = np.array([n for n, i in enumerate(image_ids) if i in members], dtype=np.intp)
        weights = None
        if resamples and len(positions) > 1:
            weights = draw_weights(len(positions), resamples, seed)
        conditions[condition] = _condition_gains(material, condition, positions, weights)
    first_all = sorted(conditions.items(), key=lambda item: item[0] != ALL)
    return SetGains(comparison.data.name, truth, image_ids, dict(first_all), images)


@dataclass(frozen=True)
class _Material:
    """What all conditions of a set are made from; matches by input and derainer."""

    comparison: Comparison
    truth: str
    images: Mapping[str, ImageGains]
    matches: Mapping[tuple[str, str], Sequence[ClassMatches]]


def _image_gains(
    rainy: RowResult, derained: RowResult, image_ids: Sequence[int], conf: float
) -> ImageGains:
    scores = {name: (_scores(rainy, name), _scores(derained, name)) for name in SCORES}
    counts = [
        [_counts(row.evaluation, image_id, conf) for row in (rainy, derained)]
        for image_id in image_ids
    ]
    return ImageGains(scores, np.array(counts, dtype=np.int64).reshape(-1, 2, 3))


def _scores(row: RowResult, name: str) -> FloatArray:
    values = [row.images[i].scores.get(name, math.nan) for i in row.evaluation.image_ids]
    scores = np.array(values, dtype=np.float64)
    return np.where(np.isfinite(scores), scores, np.nan)


def _counts(evaluation: Evaluation, image_id: int, conf: float) -> list[int]:
    matches = evaluation.image_matches(image_id, conf)
    return [len(matches.found), len(matches.false), len(matches.missed)]


def _condition_gains(
    material: _Material,
    condition: str,
    positions: npt.NDArray[np.intp],
    weights: FloatArray | None,
) -> ConditionGains:
    precisions = _precision_samples(material, positions, weights)
    table: dict[tuple[str, str], Mapping[str, Any]] = {
        (row.input, row.derainer): row.flat()
        for row in material.comparison.table
        if row.condition == condition
    }
    rows, samples = [], {}
    for name, gains in material.images.items():
        restored = {score: _paired(gains.scores[score], positions) for score in SCORES}
        drawn: dict[str, FloatArray] = {}
        if weights is not None:
            drawn = {f"delta_{score}": _means(pair, weights) for score, pair in restored.items()}
            drawn |= _detection_samples(precisions, name)
        samples[name] = drawn
        rows.append(
            {
                "set": material.comparison.data.name,
                "condition": condition,
                "derainer": name,
                "control": name in CONTROLS,
                "truth": material.truth,
                "images": len(positions),
                "boxes": table["rainy", ""]["boxes"],
                **_detection_values(table, name, drawn),
                **_restoration_values(restored, drawn),
            }
        )
    return ConditionGains(positions, weights, rows, samples)


def _precision_samples(
    material: _Material, positions: npt.NDArray[np.intp], weights: FloatArray | None
) -> dict[tuple[str, str], FloatArray]:
    """Return the mAP of each row in each resample, by input and derainer."""
    if weights is None:
        return {}
    spread = np.zeros((len(weights), len(material.comparison.rows[0].evaluation.image_ids)))
    spread[:, positions] = weights
    return {key: average_precisions(found, spread) for key, found in material.matches.items()}


def _detection_samples(
    precisions: Mapping[tuple[str, str], FloatArray], derainer: str
) -> dict[str, FloatArray]:
    rainy, clean = precisions["rainy", ""], precisions["clean", ""]
    gain = precisions["derained", derainer] - rainy
    return {
        "delta_mAP": gain,
        "relative_mAP": _share(gain, rainy),
        "recovered": _share(gain, clean - rainy),
    }


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return part / whole; NaN where the whole is nothing or less."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def _detection_values(
    table: Mapping[tuple[str, str], Mapping[str, Any]],
    derainer: str,
    drawn: Mapping[str, FloatArray],
) -> dict[str, float | None]:
    rainy, derained = table["rainy", ""]["mAP"], table["derained", derainer]
    gain = derained["delta_mAP"]
    values = {
        "delta_mAP": gain,
        "relative_mAP": gain / rainy if gain is not None and rainy else None,
        "recovered": derained["recovered"],
    }
    levels = {"mAP_rainy": rainy, "mAP": derained["mAP"], "mAP_clean": table["clean", ""]["mAP"]}
    return {**levels, **_with_intervals(values, drawn)}


def _paired(pair: tuple[FloatArray, FloatArray], positions: npt.NDArray[np.intp]) -> FloatArray:
    """Return (2, I): rainy and derained scores, undefined where either of them is."""
    scores = np.stack(pair)[:, positions]
    return np.where(np.isfinite(scores).all(axis=0), scores, np.nan)


def _means(pair: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean gain in each resample; NaN in one without any image that has a gain."""
    gains = pair[1] - pair[0]
    defined = np.isfinite(gains)
    return _share(weights[:, defined] @ gains[defined], weights[:, defined].sum(axis=1))


def _restoration_values(
    restored: Mapping[str, FloatArray], drawn: Mapping[str, FloatArray]
) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for score, (rainy, derained) in restored.items():
        defined = np.isfinite(rainy)
        before = float(rainy[defined].mean()) if defined.any() else None
        after = float(derained[defined].mean()) if defined.any() else None
        gain = float((derained - rainy)[defined].mean()) if defined.any() else None
        values |= {f"{score}_rainy": before, score: after}
        values |= _with_intervals({f"delta_{score}": gain}, drawn)
    return {"images_scored": int(np.isfinite(restored["psnr"][0]).sum()), **values}


def _with_intervals(
    values: Mapping[str, float | None], drawn: Mapping[str, FloatArray]
) -> dict[str, float | None]:
    """Put `_low` and `_high` beside each value."""
    result: dict[str, float | None] = {}
    for key, value in values.items():
        ends = interval_of(drawn[key]) if value is not None and key in drawn else None
        low, high = ends or (None, None)
        result |= {key: value, f"{key}_low": low, f"{key}_high": high}
    return result
