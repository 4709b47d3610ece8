"""Gains of a set: what each derainer adds in restoration and in detection, per resample.

Every gain is a difference to the rainy input on the same images. All derainers and all measures of
a condition share the same resamples of images, so correlations of gains can be computed within each
resample. With the same seed, the intervals equal those of eval.detect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from eval.detect.comparison import Comparison
from eval.detect.table import SCORES, RowResult
from eval.report.tables import CONTROLS
from eval.scores.bootstrap import average_precisions, difference_interval, draw_weights
from eval.scores.coco import ClassMatches
from eval.scores.score import Score
from eval.sets import ALL

__all__ = [
    "DETECTION",
    "RESTORATION",
    "ConditionGains",
    "GainRow",
    "ImageGains",
    "Levels",
    "SetGains",
    "f1_score",
    "interval_of",
    "measure_gains",
    "with_ends",
]

FloatArray = npt.NDArray[np.float64]

RESTORATION: tuple[str, ...] = tuple(f"delta_{score}" for score in SCORES)
"""Restoration gains: differences of PSNR in dB and of SSIM, in two conventions."""

DETECTION = ("delta_mAP", "relative_mAP", "recovered")
"""Detection gains: mAP difference, and that relative to the rainy mAP and to the loss by rain."""

_LEAST_DEFINED = 0.95  # share of resamples that an interval needs, or it would be biased

_RowKey: TypeAlias = tuple[str, str]
"""Input and derainer of a row."""


@dataclass(frozen=True)
class Levels:
    """A score before and after deraining, None where it is undefined; PSNR in dB, others 0..1."""

    rainy: float | None
    derained: float | None


@dataclass(frozen=True, kw_only=True)
class GainRow:
    """The gains of a derainer on a condition of a set.

    Attributes:
        set_name: The set.
        condition: The condition; `all` is the whole set.
        derainer: Its name.
        control: Whether it is a control, the identity or the median filter.
        truth: Description of what detections were scored against.
        images: Number of images.
        boxes: Number of true boxes.
        mean_ap: mAP.
        clean_mean_ap: mAP of the clean images.
        images_scored: Number of images that have a PSNR before and after.
        levels: Each restoration score, averaged over images.
        gains: Each of `DETECTION` and `RESTORATION`, with its interval.
    """

    set_name: str
    condition: str
    derainer: str
    control: bool
    truth: str
    images: int
    boxes: int
    mean_ap: Levels
    clean_mean_ap: float | None
    images_scored: int
    levels: Mapping[str, Levels]
    gains: Mapping[str, Score]

    def as_record(self) -> dict[str, object]:
        """Return the fields that metrics.json and relation.csv hold."""
        record: dict[str, object] = {
            "set": self.set_name,
            "condition": self.condition,
            "derainer": self.derainer,
            "control": self.control,
            "truth": self.truth,
            "images": self.images,
            "boxes": self.boxes,
            "mAP_rainy": self.mean_ap.rainy,
            "mAP": self.mean_ap.derained,
            "mAP_clean": self.clean_mean_ap,
        }
        for gain in DETECTION:
            record |= with_ends(gain, self.gains[gain])
        record["images_scored"] = self.images_scored
        for score, levels in self.levels.items():
            record |= {f"{score}_rainy": levels.rainy, score: levels.derained}
            record |= with_ends(f"delta_{score}", self.gains[f"delta_{score}"])
        return record


@dataclass(frozen=True)
class ImageGains:
    """A derainer's scores image by image, in the order of `SetGains.image_ids`.

    Attributes:
        scores: Name of a restoration score to (rainy, derained), each (I,); NaN where
            there is none, or where the PSNR is infinite because an image equals its clean partner.
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
        """Return the F1 gain of each image; see `f1_score`."""
        return f1_score(self.counts[:, 1]) - f1_score(self.counts[:, 0])


@dataclass(frozen=True)
class ConditionGains:
    """Gains on a condition of a set.

    Attributes:
        positions: Images of the condition, as positions in `SetGains.image_ids`.
        weights: (R, I) how often each resample contains each image; None: no intervals.
        rows: A row per derainer.
        samples: Gains in each resample (R,), by derainer and name of the gain; empty without
            weights.
    """

    positions: npt.NDArray[np.intp]
    weights: FloatArray | None
    rows: Sequence[GainRow]
    samples: Mapping[str, Mapping[str, FloatArray]]


@dataclass(frozen=True)
class SetGains:
    """All gains on a set.

    Attributes:
        name: The set.
        truth: Description of what detections were scored against.
        image_ids: The ids of its images.
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

    F1 serves as the detection score of a single image. The AP of an image depends on the order of a
    handful of boxes and is undefined without objects; recall alone would reward false boxes. F1
    counts missed and false boxes alike, at the confidence that a user of the detector sets. An
    image without objects and without detections scores 1.

    Args:
        counts: (I, 3) tp, fp, fn.

    Returns:
        (I,) fractions 0..1.

    Example:
        >>> f1_score(np.array([[2, 1, 1], [0, 3, 0], [0, 0, 0]])).round(3).tolist()
        [0.667, 0.0, 1.0]
    """
    hits, errors = 2.0 * counts[:, 0], counts[:, 1] + counts[:, 2]
    return np.where(hits + errors > 0, hits / np.maximum(hits + errors, 1.0), 1.0)


def with_ends(name: str, score: Score) -> dict[str, float | None]:
    """Return a score as the fields `name`, `name_low` and `name_high` of a flat row."""
    return {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}


def interval_of(samples: FloatArray) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of resampled values (R,).

    None where fewer than 95 % of the resamples, or fewer than two, define a value.
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
        truth: Description of what it was scored against.
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
    matches = {_key(row): row.evaluation.class_matches() for row in comparison.rows}
    material = _Material(comparison, truth, images, matches)
    conditions = {}
    for condition, members in comparison.data.conditions.items():
        positions = np.array([n for n, i in enumerate(image_ids) if i in members], dtype=np.intp)
        weights = None
        if resamples and len(positions) > 1:
            weights = draw_weights(len(positions), resamples, seed)
        conditions[condition] = _condition_gains(material, condition, positions, weights)
    whole_set_first = dict(sorted(conditions.items(), key=lambda item: item[0] != ALL))
    return SetGains(comparison.data.name, truth, image_ids, whole_set_first, images)


@dataclass(frozen=True)
class _Material:
    """Inputs shared by the conditions of a set; matches are keyed by input and derainer."""

    comparison: Comparison
    truth: str
    images: Mapping[str, ImageGains]
    matches: Mapping[_RowKey, Sequence[ClassMatches]]


def _key(row: RowResult) -> _RowKey:
    return row.spec.input, row.spec.derainer_name


def _image_gains(
    rainy: RowResult, derained: RowResult, image_ids: Sequence[int], conf: float
) -> ImageGains:
    scores = {name: (_scores(rainy, name), _scores(derained, name)) for name in SCORES}
    counts = [
        [astuple(row.evaluation.counts([image_id], conf)) for row in (rainy, derained)]
        for image_id in image_ids
    ]
    return ImageGains(scores, np.array(counts, dtype=np.int64).reshape(-1, 2, 3))


def _scores(row: RowResult, name: str) -> FloatArray:
    values = [row.images[i].scores.get(name, math.nan) for i in row.evaluation.image_ids]
    scores = np.array(values, dtype=np.float64)
    return np.where(np.isfinite(scores), scores, np.nan)


def _condition_gains(
    material: _Material,
    condition: str,
    positions: npt.NDArray[np.intp],
    weights: FloatArray | None,
) -> ConditionGains:
    precisions = _precision_samples(material, positions, weights)
    table = {
        (row.input, row.derainer): row
        for row in material.comparison.table
        if row.condition == condition
    }
    rainy, clean = table["rainy", ""], table["clean", ""]
    rows, samples = [], {}
    for name, images in material.images.items():
        pairs = {score: _paired(images.scores[score], positions) for score in SCORES}
        resampled: dict[str, FloatArray] = {}
        if weights is not None:
            resampled = {f"delta_{score}": _means(pair, weights) for score, pair in pairs.items()}
            resampled |= _detection_samples(precisions, name)
        samples[name] = resampled
        derained = table["derained", name]
        gain = derained.change.value
        values = {
            "delta_mAP": gain,
            "relative_mAP": gain / rainy.mean_ap if gain is not None and rainy.mean_ap else None,
            "recovered": derained.recovered,
        } | {f"delta_{score}": _mean(pair[1] - pair[0]) for score, pair in pairs.items()}
        rows.append(
            GainRow(
                set_name=material.comparison.data.name,
                condition=condition,
                derainer=name,
                control=name in CONTROLS,
                truth=material.truth,
                images=len(positions),
                boxes=rainy.boxes,
                mean_ap=Levels(rainy.mean_ap, derained.mean_ap),
                clean_mean_ap=clean.mean_ap,
                images_scored=int(np.isfinite(pairs["psnr"][0]).sum()),
                levels={score: Levels(*map(_mean, pair)) for score, pair in pairs.items()},
                gains={key: _scored(value, resampled.get(key)) for key, value in values.items()},
            )
        )
    return ConditionGains(positions, weights, rows, samples)


def _precision_samples(
    material: _Material, positions: npt.NDArray[np.intp], weights: FloatArray | None
) -> dict[_RowKey, FloatArray]:
    """Return the mAP of each row in each resample."""
    if weights is None:
        return {}
    spread = np.zeros((len(weights), len(material.comparison.rows[0].evaluation.image_ids)))
    spread[:, positions] = weights
    return {key: average_precisions(classes, spread) for key, classes in material.matches.items()}


def _detection_samples(
    precisions: Mapping[_RowKey, FloatArray], derainer: str
) -> dict[str, FloatArray]:
    rainy, clean = precisions["rainy", ""], precisions["clean", ""]
    gain = precisions["derained", derainer] - rainy
    return {
        "delta_mAP": gain,
        "relative_mAP": _share(gain, rainy),
        "recovered": _share(gain, clean - rainy),
    }


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return part / whole; NaN where the whole is not positive."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def _paired(pair: tuple[FloatArray, FloatArray], positions: npt.NDArray[np.intp]) -> FloatArray:
    """Return rainy and derained scores (2, I); both are NaN where either is undefined."""
    scores = np.stack(pair)[:, positions]
    return np.where(np.isfinite(scores).all(axis=0), scores, np.nan)


def _means(pair: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean gain in each resample; NaN where none of its images has a gain."""
    gains = pair[1] - pair[0]
    defined = np.isfinite(gains)
    return _share(weights[:, defined] @ gains[defined], weights[:, defined].sum(axis=1))


def _mean(values: FloatArray) -> float | None:
    """Return the mean of the defined values; None if there are none."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else None


def _scored(value: float | None, samples: FloatArray | None) -> Score:
    """Return a value with the interval of its resamples, as far as they are defined."""
    ends = interval_of(samples) if value is not None and samples is not None else None
    return Score(value, *(ends or ()))
