"""Choosing and composing the picture strips: the images that deraining changed most, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.detect.comparison import Comparison
from eval.detect.table import RowResult
from eval.report.strips import Mark, Outcome, Panel, Strip
from eval.report.tables import CONTROLS
from eval.scores.changes import compare_rows, rank_changes
from eval.sets import ALL, Sample
from rainmer.frames.arrays import Frame
from rainmer.frames.images import read_image

__all__ = ["select_strips"]

_MOST_GAINS = 4
_MOST_LOSSES = 3
_MOST_DERAINERS = 3


def select_strips(comparison: Comparison, conf: float) -> list[Strip]:
    """Build strips (rainy | derained | clean, with boxes) of the images that changed most.

    An image's change is its number of objects found at confidence `conf` and IoU 0.5, derained
    minus rainy; ties are broken by fewer false detections gained. Controls get strips only when
    there is no other derainer. Unions and rows at the detector's resolution have none, as they have
    no derained image of native size.

    Args:
        comparison: A finished comparison.
        conf: Confidence of the counts, 0..1.

    Returns:
        For each of up to three derainers its best gains, then its worst losses.
    """
    derained = [
        row for row in comparison.rows if row.spec.input == "derained" and row.spec.has_frames
    ]
    wanted = [row for row in derained if row.spec.derainer_name not in CONTROLS] or derained
    return [
        strip for row in wanted[:_MOST_DERAINERS] for strip in _strips_of(comparison, row, conf)
    ]


def _strips_of(comparison: Comparison, row: RowResult, conf: float) -> list[Strip]:
    samples = {sample.image_id: sample for sample in comparison.data.samples}
    ranked = rank_changes(compare_rows(comparison.rows[0].evaluation, row.evaluation, conf))
    gains = [change for change in ranked if change.gain > 0][:_MOST_GAINS]
    losses = [change for change in reversed(ranked) if change.gain < 0][:_MOST_LOSSES]
    return [
        Strip(
            image=samples[change.image_id].name,
            condition=_condition_of(comparison, samples[change.image_id]),
            derainer=row.spec.derainer_name,
            gain=change.gain,
            panels=_panels(comparison, row, samples[change.image_id], conf),
        )
        for change in gains + losses
    ]


def _condition_of(comparison: Comparison, sample: Sample) -> str:
    for name, image_ids in comparison.data.conditions.items():
        if name != ALL and sample.image_id in image_ids:
            return name
    return ALL


def _panels(comparison: Comparison, row: RowResult, sample: Sample, conf: float) -> list[Panel]:
    rainy = read_image(sample.rainy)
    assert row.spec.derainer is not None
    derained = row.spec.derainer([rainy], [sample.name])[0].frame
    panels = [
        Panel("rainy", rainy, _marks(comparison, comparison.rows[0], sample, conf)),
        Panel(row.spec.derainer_name, derained, _marks(comparison, row, sample, conf)),
    ]
    clean = comparison.find("clean")
    if clean is not None and sample.clean is not None:
        frame: Frame = read_image(sample.clean)
        panels.append(Panel("clean", frame, _marks(comparison, clean, sample, conf)))
    return panels


def _marks(comparison: Comparison, row: RowResult, sample: Sample, conf: float) -> list[Mark]:
    matches = row.evaluation.image_matches(sample.image_id, conf)
    outcomes: list[tuple[Outcome, Sequence[Mapping[str, Any]]]] = [
        ("found", matches.found),
        ("false", matches.false),
        ("missed", matches.missed),
    ]
    return [
        Mark(
            _xyxy(box["bbox"]),
            kind,
            comparison.truth.categories[box["category_id"]],
            box.get("score") if kind != "missed" else None,
            box["category_id"],
        )
        for kind, boxes in outcomes
        for box in boxes
    ]


def _xyxy(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = bbox
    return (left, top, left + width, top + height)
