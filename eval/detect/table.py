"""The table of a comparison: scores, changes, intervals, times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eval.detect.model import ClassRow, TableRow
from eval.rows.run import ImageResult, RowSpec
from eval.scores.bootstrap import average_precisions, difference_interval, draw_weights
from eval.scores.coco import ClassMatches, Evaluation, GroundTruth
from eval.scores.score import Score
from eval.sets import DetectionSet

__all__ = ["SCORES", "RowResult", "Settings", "per_class_rows", "table_rows"]

SCORES = ("psnr", "ssim", "psnr_official", "ssim_official")
"""The restoration scores of an image, by their names in `eval.rows.run.ImageResult`."""


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
) -> list[TableRow]:
    """Return the rows of the table of scores: each input, condition by condition."""
    matches = [row.evaluation.class_matches() for row in rows]
    return [
        table_row
        for condition, image_ids in data.conditions.items()
        for table_row in _condition_rows(
            TableRow(
                image_set=data.name,
                condition=condition,
                input="rainy",
                images=len(image_ids),
                boxes=sum(a["image_id"] in image_ids for a in truth.annotations),
            ),
            rows,
            image_ids,
            settings,
            _resampled(rows, matches, image_ids, settings),
        )
    ]


def _condition_rows(
    blank: TableRow,
    rows: Sequence[RowResult],
    image_ids: frozenset[int],
    settings: Settings,
    samples: Mapping[RowSpec, npt.NDArray[np.float64]],
) -> Iterator[TableRow]:
    """Yield the rows of one condition, `blank` being what they share."""
    summaries = [row.evaluation.summary(image_ids) for row in rows]
    maps = {row.spec: summary["mAP"] for row, summary in zip(rows, summaries, strict=True)}
    for row, summary in zip(rows, summaries, strict=True):
        # What the place changes, where the same row was also derained at native size.
        frame = replace(row.spec, where="frame") if row.spec.where == "network" else None
        counts = row.evaluation.counts(image_ids, settings.count_conf)
        times = _times(row, image_ids)
        yield replace(
            blank,
            input=row.spec.input,
            derainer=row.spec.derainer_name,
            mean_ap=summary["mAP"],
            mean_ap50=summary["mAP50"],
            mean_ap75=summary["mAP75"],
            mean_ap_small=summary["mAP_small"],
            mean_ap_medium=summary["mAP_medium"],
            mean_ap_large=summary["mAP_large"],
            mean_ar=summary["AR"],
            change=_change(row.spec, _reference(row.spec), maps, samples),
            place_change=_change(row.spec, frame, maps, samples),
            recovered=_recovered(row.spec, maps),
            psnr=_mean_score(row, "psnr", image_ids),
            ssim=_mean_score(row, "ssim", image_ids),
            psnr_official=_mean_score(row, "psnr_official", image_ids),
            ssim_official=_mean_score(row, "ssim_official", image_ids),
            tp=counts["tp"],
            fp=counts["fp"],
            fn=counts["fn"],
            precision=_share(counts["tp"], counts["tp"] + counts["fp"]),
            recall=_share(counts["tp"], counts["tp"] + counts["fn"]),
            ms_derain=times.derain,
            ms_detect=times.detect,
            ms_per_image=times.both,
        )


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
) -> Score:
    """Return the difference of mAP of two rows with its interval, as far as they are defined."""
    if reference is None or reference not in maps:
        return Score()
    difference = _difference(maps[spec], maps[reference])
    if not samples:
        return Score(difference)
    interval = difference_interval(samples[spec], samples[reference])
    return Score(difference, *(interval or (None, None)))


def _difference(value: float | None, reference: float | None) -> float | None:
    return value - reference if value is not None and reference is not None else None


def _recovered(spec: RowSpec, maps: Mapping[RowSpec, float | None]) -> float | None:
    """Return (derained - rainy) / (clean - rainy); None where the rain took nothing."""
    derained, rainy, clean = maps[spec], maps[RowSpec("rainy")], maps.get(RowSpec("clean"))
    if spec.input != "derained" or derained is None or rainy is None or clean is None:
        return None
    return (derained - rainy) / (clean - rainy) if clean > rainy else None


def _mean_score(row: RowResult, name: str, image_ids: Iterable[int]) -> float | None:
    """Return the mean of a restoration score over images; infinite for equal images."""
    return _mean([s[name] for i in image_ids if name in (s := row.images[i].scores)])


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


class _Times(NamedTuple):
    """Milliseconds per image; None where unknown."""

    derain: float | None
    detect: float | None
    both: float | None


def _times(row: RowResult, image_ids: Iterable[int]) -> _Times:
    results = [row.images[i] for i in image_ids]
    derain = _mean([r.derain_ms for r in results if r.derain_ms is not None])
    detect = _mean([r.detect_ms for r in results if r.detect_ms is not None])
    if detect is None or (row.spec.derainer is not None and derain is None):
        return _Times(derain, detect, None)
    return _Times(derain, detect, detect + (derain or 0.0))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def per_class_rows(data: DetectionSet, rows: Sequence[RowResult]) -> list[ClassRow]:
    """Return AP per class, condition and row."""
    table = []
    for condition, image_ids in data.conditions.items():
        references: dict[str, dict[str, float | None]] = {}
        for row in rows:
            classes = row.evaluation.per_class(image_ids)
            if row.spec.derainer is None:
                references[row.spec.input] = {score.name: score.ap for score in classes}
            reference = references["clean" if row.spec.input == "derained_clean" else "rainy"]
            for score in classes:
                change = _difference(score.ap, reference[score.name])
                table.append(
                    ClassRow(
                        condition=condition,
                        input=row.spec.input,
                        derainer=row.spec.derainer_name,
                        class_name=score.name,
                        boxes=score.boxes,
                        ap=score.ap,
                        ap50=score.ap50,
                        change=None if row.spec.input == "rainy" else change,
                    )
                )
    return table
