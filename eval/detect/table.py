"""The table of a comparison: scores, changes, intervals, times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from eval.detect.measures import Measures, measure
from eval.detect.model import ClassRow, Cost, TableRow, is_control
from eval.rows.run import ImageResult, RowSpec
from eval.scores.coco import Evaluation, GroundTruth
from eval.scores.timing import Timing, mean_timing, timing_of
from eval.sets import DetectionSet

__all__ = ["SCORES", "RowResult", "Settings", "table_rows"]

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
    """IoU of the NMS that unites two rows, as in the detector's NMS."""
    union_max_det: int = 300
    """Most boxes of one image in a united row, as in the detector's NMS."""


@dataclass(frozen=True)
class RowResult:
    """A row with its images, detections and matches."""

    spec: RowSpec
    images: Mapping[int, ImageResult]
    evaluation: Evaluation
    results: Sequence[Mapping[str, Any]]
    """COCO results of the images that count."""


def table_rows(
    data: DetectionSet, truth: GroundTruth, rows: Sequence[RowResult], settings: Settings
) -> tuple[list[TableRow], list[ClassRow]]:
    """Return the tables of scores and of classes: each input, condition by condition."""
    evaluations = {row.spec: row.evaluation for row in rows}
    detect = _detect_timing(rows)
    table: list[TableRow] = []
    classes: list[ClassRow] = []
    for condition, image_ids in data.conditions.items():
        measures = measure(evaluations, image_ids, resamples=settings.resamples, seed=settings.seed)
        blank = TableRow(
            image_set=data.name,
            condition=condition,
            input="rainy",
            images=len(image_ids),
            boxes=sum(a["image_id"] in image_ids for a in truth.annotations),
        )
        table += _condition_rows(blank, rows, image_ids, settings, measures, detect)
        classes += _class_rows(condition, rows, image_ids, measures)
    return table, classes


def _condition_rows(
    blank: TableRow,
    rows: Sequence[RowResult],
    image_ids: frozenset[int],
    settings: Settings,
    measures: Measures,
    detect: Timing,
) -> Iterator[TableRow]:
    """Yield the rows of one condition; `blank` holds the fields that they share."""
    for row in rows:
        spec = row.spec
        summary = row.evaluation.summary(image_ids)
        # The same row derained at native size, to see what the place changes.
        frame = replace(spec, where="frame") if spec.where == "network" else None
        counts = row.evaluation.counts(image_ids, settings.count_conf)
        times = _times(row, image_ids)
        control, rival = _opponents(spec, measures.mean_ap.values)
        yield replace(
            blank,
            input=spec.input,
            derainer=spec.derainer_name,
            mean_ap=summary["mAP"],
            mean_ap50=summary["mAP50"],
            mean_ap75=summary["mAP75"],
            mean_ap_small=summary["mAP_small"],
            mean_ap_medium=summary["mAP_medium"],
            mean_ap_large=summary["mAP_large"],
            mean_ar=summary["AR"],
            ap_by_boxes=measures.by_boxes.values[spec],
            ap_common=measures.common.values[spec],
            change=measures.mean_ap.change(spec, spec.reference),
            change_ar=measures.mean_ar.change(spec, spec.reference),
            change_by_boxes=measures.by_boxes.change(spec, spec.reference),
            change_common=measures.common.change(spec, spec.reference),
            place_change=measures.mean_ap.change(spec, frame),
            control=control.derainer_name if control else "",
            control_change=measures.mean_ap.change(spec, control),
            rival=rival.derainer_name if rival else "",
            rival_change=measures.mean_ap.change(spec, rival),
            recovered=_recovered(spec, measures.mean_ap.values),
            psnr=_mean_score(row, "psnr", image_ids),
            ssim=_mean_score(row, "ssim", image_ids),
            psnr_official=_mean_score(row, "psnr_official", image_ids),
            ssim_official=_mean_score(row, "ssim_official", image_ids),
            tp=counts.tp,
            fp=counts.fp,
            fn=counts.fn,
            precision=counts.precision,
            recall=counts.recall,
            share_derained=_share_derained(row, image_ids),
            ms_derain=times.derain,
            ms_detect=times.detect,
            ms_per_image=times.both,
            cost=_cost(row, image_ids, detect),
        )


def _opponents(
    spec: RowSpec, maps: Mapping[RowSpec, float | None]
) -> tuple[RowSpec | None, RowSpec | None]:
    """Return the best control, and the best other derainer, that a derained row has to beat."""
    if spec.input != "derained" or is_control(spec.derainer_name):
        return None, None

    def best(*, controls: bool) -> RowSpec | None:
        return max(
            (
                other
                for other, value in maps.items()
                if other.input == "derained"
                and other != spec
                and is_control(other.derainer_name) == controls
                and value is not None
            ),
            key=lambda other: maps[other] or 0.0,
            default=None,
        )

    return best(controls=True), best(controls=False)


def _recovered(spec: RowSpec, maps: Mapping[RowSpec, float | None]) -> float | None:
    """Return (derained - rainy) / (clean - rainy); None where the rain took nothing."""
    derained, rainy, clean = maps[spec], maps[RowSpec("rainy")], maps.get(RowSpec("clean"))
    if spec.input != "derained" or derained is None or rainy is None or clean is None:
        return None
    return (derained - rainy) / (clean - rainy) if clean > rainy else None


def _mean_score(row: RowResult, name: str, image_ids: Iterable[int]) -> float | None:
    """Return the mean of a restoration score over images; infinite for equal images."""
    return _mean([s[name] for i in image_ids if name in (s := row.images[i].scores)])


def _share_derained(row: RowResult, image_ids: Iterable[int]) -> float | None:
    """Return the share of the images that a gate derained; None without a gate."""
    chosen = [row.images[i].derained for i in image_ids]
    return _mean([float(derained) for derained in chosen if derained is not None])


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


def _detect_timing(rows: Sequence[RowResult]) -> Timing:
    """Return the detector's time for an image: one number, as its input has one size in all rows.

    A median for each row would show nothing but how busy the machine was meanwhile.
    """
    return timing_of(
        (result.detect_ms, result.detect_earlier)
        for row in rows
        if not row.spec.union
        for result in row.images.values()
    )


def _cost(row: RowResult, image_ids: Iterable[int], detect: Timing) -> Cost:
    if row.spec.union and detect.ms is not None and detect.high is not None:
        detect = replace(detect, ms=2 * detect.ms, high=2 * detect.high)
    if row.spec.derainer is None:
        return Cost(detect=detect)
    results = [row.images[i] for i in image_ids]
    times = [(result.derain_ms, result.derain_earlier) for result in results]
    gated = any(result.derained is not None for result in results)
    derain = mean_timing(times) if gated else timing_of(times)
    return Cost(derain=derain, detect=detect, precision=row.spec.derainer.precision)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _class_rows(
    condition: str,
    rows: Sequence[RowResult],
    image_ids: frozenset[int],
    measures: Measures,
) -> Iterator[ClassRow]:
    """Yield AP per class of each row in one condition."""
    for row in rows:
        spec = row.spec
        scores = row.evaluation.per_class(image_ids)
        for score, number in zip(scores, measures.per_class, strict=True):
            yield ClassRow(
                condition=condition,
                input=spec.input,
                derainer=spec.derainer_name,
                class_name=score.name,
                boxes=score.boxes,
                ap=score.ap,
                ap50=score.ap50,
                change=number.change(spec, spec.reference),
            )
