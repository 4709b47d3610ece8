"""Choosing and composing the picture strips: the images that deraining changed most, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.detect.alone import frame_of
from eval.detect.comparison import Comparison
from eval.detect.table import RowResult
from eval.report.strips import Mark, Outcome, Panel, Strip
from eval.report.tables import CONTROLS
from eval.rows.run import RowSpec
from eval.scores.changes import ImageChange, compare_rows, rank_changes
from eval.scores.coco import Evaluation
from eval.sets import ALL, Sample

__all__ = ["INVENTED", "Seen", "count_changes", "seen_in", "select_strips", "shown_rows"]

INVENTED = "invented"
"""Kind of a strip that shows new false detections."""

_MOST_GAINS = 4
_MOST_LOSSES = 3
_MOST_INVENTED = 2
_MOST_DERAINERS = 3


def shown_rows(comparison: Comparison) -> list[RowResult]:
    """Return the rows that strips show: rainy, up to three derainers, and clean.

    Controls are shown only when there is no other derainer. Unions and rows at the detector's
    resolution never are, as they have no derained image of native size.
    """
    derained = [
        row for row in comparison.rows if row.spec.input == "derained" and row.spec.has_frames
    ]
    wanted = [row for row in derained if row.spec.derainer_name not in CONTROLS] or derained
    clean = comparison.find("clean")
    return [comparison.rows[0], *wanted[:_MOST_DERAINERS], *([clean] if clean else [])]


@dataclass(frozen=True)
class Seen:
    """What pictures are chosen from and drawn with.

    Attributes:
        comparison: A finished comparison.
        rows: From `shown_rows`.
        evaluations: Detections of these rows that depend on no other image; default: the rows' own.
        conf: Confidence from which detections count, 0..1.
    """

    comparison: Comparison
    rows: Sequence[RowResult]
    evaluations: Mapping[RowSpec, Evaluation]
    conf: float

    @property
    def changes(self) -> dict[str, list[ImageChange]]:
        """What each derainer changed in each image."""
        rainy = self.evaluations[self.rows[0].spec]
        return {
            row.spec.derainer_name: compare_rows(rainy, self.evaluations[row.spec], self.conf)
            for row in self.rows
            if row.spec.input == "derained"
        }


def seen_in(comparison: Comparison, conf: float) -> Seen:
    """Return what pictures show of a comparison, by the detections of its rows."""
    rows = shown_rows(comparison)
    return Seen(comparison, rows, {row.spec: row.evaluation for row in rows}, conf)


def select_strips(seen: Seen) -> list[Strip]:
    """Build strips (rainy | derained | clean, with boxes) of the images that changed most.

    An image's change is its number of objects found at the confidence and IoU 0.5, derained minus
    rainy; ties are broken by fewer false detections gained.

    Returns:
        For each derainer its best gains, then its worst losses, then the images with most new false
        detections.
    """
    samples = {sample.image_id: sample for sample in seen.comparison.data.samples}
    changes = seen.changes
    strips = []
    for row in seen.rows:
        for change, kind in _chosen(changes.get(row.spec.derainer_name, ())):
            sample = samples[change.image_id]
            strips.append(
                Strip(
                    image=sample.name,
                    condition=_condition_of(seen.comparison, sample),
                    derainer=row.spec.derainer_name,
                    gain=change.false if kind else change.gain,
                    panels=_panels(seen, row, sample),
                    unit="false detections" if kind else "correct detections",
                    kind=kind,
                )
            )
    return strips


def _chosen(changes: Sequence[ImageChange]) -> Iterator[tuple[ImageChange, str]]:
    """Yield the images to show, with the kind of their strip."""
    ranked = rank_changes(changes)
    gains = [change for change in ranked if change.gain > 0]
    losses = [change for change in reversed(ranked) if change.gain < 0]
    yield from ((change, "") for change in gains[:_MOST_GAINS] + losses[:_MOST_LOSSES])
    invented = sorted(changes, key=lambda change: (-change.false, change.gain, change.image_id))
    yield from ((change, INVENTED) for change in invented[:_MOST_INVENTED] if change.false > 0)


def count_changes(seen: Seen) -> list[str]:
    """Say in how many images each derainer finds more, fewer, and as many objects as rainy ones.

    The strips show the ends of these; most images may not change at all.
    """
    return [
        f"{name}: more correct detections in {sum(change.gain > 0 for change in changes)} of "
        f"{len(changes)} images, fewer in {sum(change.gain < 0 for change in changes)}, as many "
        f"in {sum(change.gain == 0 for change in changes)}; more false ones in "
        f"{sum(change.false > 0 for change in changes)}, fewer in "
        f"{sum(change.false < 0 for change in changes)}"
        for name, changes in seen.changes.items()
    ]


def _condition_of(comparison: Comparison, sample: Sample) -> str:
    for name, image_ids in comparison.data.conditions.items():
        if name != ALL and sample.image_id in image_ids:
            return name
    return ALL


def _panels(seen: Seen, row: RowResult, sample: Sample) -> list[Panel]:
    rainy, *_, last = seen.rows
    shown = [("rainy", rainy), (row.spec.derainer_name, row)]
    if last.spec.input == "clean" and sample.clean is not None:
        shown.append(("clean", last))
    return [
        Panel(title, frame_of(other.spec, sample), _marks(seen, other, sample))
        for title, other in shown
    ]


def _marks(seen: Seen, row: RowResult, sample: Sample) -> list[Mark]:
    matches = seen.evaluations[row.spec].image_matches(sample.image_id, seen.conf)
    outcomes: list[tuple[Outcome, Sequence[Mapping[str, Any]]]] = [
        ("found", matches.found),
        ("false", matches.false),
        ("missed", matches.missed),
    ]
    return [
        Mark(
            _xyxy(box["bbox"]),
            kind,
            seen.comparison.truth.categories[box["category_id"]],
            box.get("score") if kind != "missed" else None,
        )
        for kind, boxes in outcomes
        for box in boxes
    ]


def _xyxy(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = bbox
    return (left, top, left + width, top + height)
