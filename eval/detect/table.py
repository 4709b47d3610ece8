"""The table of a comparison: scores, changes, intervals, times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eval.rows.run import ImageResult, RowSpec
from eval.scores.bootstrap import average_precisions, difference_interval, draw_weights
from eval.scores.coco import ClassMatches, Evaluation, GroundTruth
from eval.sets import DetectionSet

if TYPE_CHECKING:
    pass

__all__ = ["SCORES", "RowResult", "Settings", "per_class_rows", "table_rows"]


SCORES = ("psnr", "ssim", "psnr_official", "ssim_official")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What turns detections into numbers."""

    count_conf: float = 0.25
    """Confidence of the TP/FP/FN counts, 0..1."""
    pseudo_conf: float = 0.25
    """Confidence from which a detection on a clean image is a pseudo-label, 0..1."""
    resamples: int = 1000
    """Bootstrap resamples of the intervals; 0 leaves intervals out."""
    seed: int = 0
    """Seed of the bootstrap."""
    union_iou: float = 0.7
    """IoU of the NMS that unites two rows; that of the detector's own NMS."""
    union_max_det: int = 300
    """Most boxes of one image in a united row; that of the detector's own NMS."""


@dataclass(frozen=True)
class RowResult:
    """One row with everything behind it."""

    spec: RowSpec
    images: Mapping[int, ImageResult]
    evaluation: Evaluation
    results: Sequence[Mapping[str, Any]]
    """COCO results of the images that count."""


def table_rows(
    data: DetectionSet, truth: GroundTruth, rows: Sequence[RowResult], settings: Settings
) -> list[dict[str, Any]]:
    """Return the rows of `metrics.json`: each input, condition by condition."""
    table = []
    matches = [row.evaluation.class_matches() for row in rows]
    for condition, image_ids in data.conditions.items():
        summaries = [row.evaluation.summary(image_ids) for row in rows]
        maps = {row.spec: summary["mAP"] for row, summary in zip(rows, summaries, strict=True)}
        samples = _resampled(rows, matches, image_ids, settings)
        objects = sum(a["image_id"] in image_ids for a in truth.annotations)
        for row, summary in zip(rows, summaries, strict=True):
            change = _change(row.spec, _reference(row.spec), maps, samples)
            # What the place changes, where the same row was also derained at native size.
            frame = replace(row.spec, where="frame") if row.spec.where == "network" else None
            place = _change(row.spec, frame, maps, samples)
            table.append(
                {
                    "set": data.name,
                    "condition": condition,
                    "input": row.spec.input,
                    "derainer": row.spec.derainer_name,
                    **summary,
                    "delta_mAP": change.difference,
                    "ci_low": change.low,
                    "ci_high": change.high,
                    "delta_frame": place.difference,
                    "frame_ci_low": place.low,
                    "frame_ci_high": place.high,
                    "recovered": _recovered(row.spec, maps),
                    **_mean_scores(row, image_ids),
                    **_counts(row, image_ids, settings.count_conf),
                    **_times(row, image_ids),
                    "images": len(image_ids),
                    "boxes": objects,
                }
            )
    return table


def _resampled(
    rows: Sequence[RowResult],
    matches: Sequence[Sequence[ClassMatches]],
    image_ids: frozenset[int],
    settings: Settings,
) -> dict[RowSpec, npt.NDArray[np.float64]]:
    """Return the mAP of each row on each bootstrap resample; empty where there is no interval."""
    if settings.resamples == 0 or len(image_ids) < 2:
        return {}
    order = rows[0].evaluation.image_ids
    positions = [n for n, image_id in enumerate(order) if image_id in image_ids]
    weights = np.zeros((settings.resamples, len(order)))
    weights[:, positions] = draw_weights(len(positions), settings.resamples, settings.seed)
    return {
        row.spec: average_precisions(classes, weights)
        for row, classes in zip(rows, matches, strict=True)
    }


class _Change(NamedTuple):
    """A difference of two rows with the ends of its 95 % interval, as far as they are defined."""

    difference: float | None
    low: float | None = None
    high: float | None = None


def _reference(spec: RowSpec) -> RowSpec | None:
    """Return the row that a row is compared with."""
    if spec.input == "rainy":
        return None
    return RowSpec("clean" if spec.input == "derained_clean" else "rainy")


def _change(
    spec: RowSpec,
    reference: RowSpec | None,
    maps: Mapping[RowSpec, float | None],
    samples: Mapping[RowSpec, npt.NDArray[np.float64]],
) -> _Change:
    if reference is None or reference not in maps:
        return _Change(None)
    difference = _difference(maps[spec], maps[reference])
    if not samples:
        return _Change(difference)
    interval = difference_interval(samples[spec], samples[reference])
    return _Change(difference, *(interval or (None, None)))


def _difference(value: float | None, reference: float | None) -> float | None:
    return value - reference if value is not None and reference is not None else None


def _recovered(spec: RowSpec, maps: Mapping[RowSpec, float | None]) -> float | None:
    """Return (derained - rainy) / (clean - rainy); None where the rain took nothing."""
    derained, rainy, clean = maps[spec], maps[RowSpec("rainy")], maps.get(RowSpec("clean"))
    if spec.input != "derained" or derained is None or rainy is None or clean is None:
        return None
    return (derained - rainy) / (clean - rainy) if clean > rainy else None


def _mean_scores(row: RowResult, image_ids: Iterable[int]) -> dict[str, float | None]:
    """Return the mean of each restoration score over images; infinite for equal images."""
    means: dict[str, float | None] = dict.fromkeys(SCORES)
    for name in SCORES:
        values = [s[name] for i in image_ids if name in (s := row.images[i].scores)]
        if values:
            means[name] = float(np.mean(values))
    return means


def _counts(row: RowResult, image_ids: Iterable[int], conf: float) -> dict[str, float | int | None]:
    counts = row.evaluation.counts(image_ids, conf)
    found, detected = counts["tp"], counts["tp"] + counts["fp"]
    objects = counts["tp"] + counts["fn"]
    return {
        **counts,
        "precision": found / detected if detected else None,
        "recall": found / objects if objects else None,
    }


def _times(row: RowResult, image_ids: Iterable[int]) -> dict[str, float | None]:
    results = [row.images[i] for i in image_ids]
    derain = [r.derain_ms for r in results if r.derain_ms is not None]
    detect = [r.detect_ms for r in results if r.detect_ms is not None]
    derain_ms = float(np.mean(derain)) if derain else None
    detect_ms = float(np.mean(detect)) if detect else None
    if detect_ms is None or (row.spec.derainer is not None and derain_ms is None):
        total = None
    else:
        total = detect_ms + (derain_ms or 0.0)
    return {"ms_derain": derain_ms, "ms_detect": detect_ms, "ms_per_image": total}


def per_class_rows(data: DetectionSet, rows: Sequence[RowResult]) -> list[dict[str, Any]]:
    """Return AP per class, condition and row; `delta_AP` as `delta_mAP` in the table."""
    table = []
    for condition, image_ids in data.conditions.items():
        references: dict[str, dict[str, float | None]] = {}
        for row in rows:
            classes = row.evaluation.per_class(image_ids)
            if row.spec.derainer is None:
                references[row.spec.input] = {entry["class"]: entry["AP"] for entry in classes}
            reference = references["clean" if row.spec.input == "derained_clean" else "rainy"]
            for entry in classes:
                delta = _difference(entry["AP"], reference[entry["class"]])
                table.append(
                    {
                        "condition": condition,
                        "input": row.spec.input,
                        "derainer": row.spec.derainer_name,
                        **entry,
                        "delta_AP": None if row.spec.input == "rainy" else delta,
                    }
                )
    return table
