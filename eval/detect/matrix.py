"""Several detectors on the same inputs: what a derainer gives, another detector, and both.

The first detector on rainy images is where a user stands: every cell is compared with it, on the
same resamples of the images. Deraining costs time for every image, another detector (one trained on
rain, say) costs its training once; the words of a condition say which of the ways wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from eval.detect.columns import format_change
from eval.detect.comparison import Comparison
from eval.detect.measures import Measure, image_weights
from eval.detect.model import (
    Cell,
    Row,
    condition_title,
    conditions,
    find_row,
    sort_rows,
)
from eval.detect.table import RowResult, Settings
from eval.detect.truth import common_categories
from eval.detect.verdicts import signed_text, size_text
from eval.report.parts import Effect, effect_of
from eval.report.tables import (
    UNDEFINED,
    align_table,
    format_percent,
    number,
)
from eval.report.timing import format_timing
from eval.rows.run import RowSpec
from eval.scores.bootstrap import class_precisions
from eval.scores.means import are_few, mean_over_classes
from eval.scores.score import Score
from eval.scores.timing import Timing
from eval.sets import DetectionSet
from rainmer.errors import DatasetError

__all__ = [
    "Matrix",
    "MatrixCell",
    "MatrixVerdict",
    "Way",
    "build_matrix",
    "cell_change",
    "format_matrix",
]

Way: TypeAlias = Literal["nothing", "derain", "retrain", "switch", "both"]
"""What was done against the rain: a derainer, another detector than the first, both, or nothing.

Another detector is called `switch` where detectors come from several libraries.
"""

_Key: TypeAlias = tuple[str, RowSpec]


@dataclass(frozen=True, kw_only=True)
class MatrixCell(Row):
    """One detector on one input; `condition`, `input` and `derainer` as in every row.

    Attributes:
        detector: The detector's name.
        way: What was done against the rain; empty on clean images.
        mean_ap: mAP over the classes that all detectors know, a fraction.
        change: `mean_ap` minus that of the first detector on the same images without a derainer: on
            rainy ones, or on clean ones, where it is the harm when it is dry.
        ms_per_image: Mean time of derainer and detector per image.
        timing: The same by medians, which is what is shown.
        images, boxes: Numbers of images, and of objects of these classes.
    """

    detector: str
    way: Way | Literal[""] = ""
    mean_ap: float | None = None
    change: Score = field(default_factory=Score)
    ms_per_image: float | None = None
    timing: Timing = field(default_factory=Timing)
    images: int = 0
    boxes: int = 0

    @property
    def subject(self) -> str:
        """The detector, and the derainer before it: `yolo11n with rainmer-s`."""
        return f"{self.detector} with {self.derainer}" if self.derainer else self.detector

    def flat(self) -> dict[str, Cell]:
        """Return the cell as in matrix.csv."""
        return {
            "condition": self.condition,
            "detector": self.detector,
            "input": self.input,
            "derainer": self.derainer,
            "way": self.way,
            "mAP": self.mean_ap,
            "delta_mAP": self.change.value,
            "ci_low": self.change.low,
            "ci_high": self.change.high,
            "ms_per_image": self.ms_per_image,
            "ms_median": self.timing.ms,
            "timed": self.timing.when,
            "images": self.images,
            "boxes": self.boxes,
        }


@dataclass(frozen=True, kw_only=True)
class MatrixVerdict:
    """Which way wins in a condition.

    Attributes:
        condition: On which images.
        best: The way with the highest mAP; empty where mAP is undefined.
        next: The second one.
        lead: mAP of the best cell of `best` minus that of `next`.
        sentences: What this means; the first names the winner, if the lead is beyond noise.
        best_cells: The best cell of each way.
    """

    condition: str
    best: Way | Literal[""] = ""
    next: Way | Literal[""] = ""
    lead: Score = field(default_factory=Score)
    sentences: Sequence[str]
    best_cells: Sequence[MatrixCell] = ()

    @property
    def effect(self) -> Effect:
        """What the lead says; `unclear` of too few images, whatever the interval."""
        few = any(are_few(cell.images, cell.boxes) for cell in self.best_cells)
        return "unclear" if few else effect_of(self.lead)

    @property
    def headline(self) -> str:
        """The first sentence, as a title."""
        text = self.sentences[0].rstrip(".")
        return text[0].upper() + text[1:]

    def flat(self) -> dict[str, Cell]:
        """Return the verdict as in metrics.json."""
        return {
            "condition": self.condition,
            "best": self.best,
            "next": self.next,
            "delta_mAP": self.lead.value,
            "ci_low": self.lead.low,
            "ci_high": self.lead.high,
            "text": " ".join(self.sentences),
        }


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Detectors by inputs, condition by condition.

    Attributes:
        detectors: Names, the first one being what others are compared with.
        cells: Of each condition the cells of each detector.
        verdicts: One for each condition.
        classes: The classes that count: those whose objects are the same for all detectors.
        left_out: The set's other classes, with their boxes.
        part: What was measured, if not the whole set: `12 of 200 images`.
    """

    detectors: Sequence[str]
    cells: Sequence[MatrixCell]
    verdicts: Sequence[MatrixVerdict]
    classes: Sequence[str]
    left_out: Sequence[str]
    part: str = ""

    @property
    def inputs(self) -> list[str]:
        """The titles of the columns."""
        return list(dict.fromkeys(cell.label for cell in sort_rows(self.cells)))

    @property
    def conditions(self) -> list[str]:
        """The conditions, `all` first."""
        return conditions(self.cells)

    @property
    def notes(self) -> list[str]:
        """What a reader must know about the classes."""
        if not self.left_out:
            return []
        return [
            f"the matrix counts what all detectors know alike: {', '.join(self.classes)}; "
            f"left out: {', '.join(self.left_out)}"
        ]

    def row(self, condition: str, detector: str) -> list[MatrixCell | None]:
        """Return a detector's cells in a condition, in the order of `inputs`."""
        found = {
            cell.label: cell
            for cell in self.cells
            if (cell.condition, cell.detector) == (condition, detector)
        }
        return [found.get(name) for name in self.inputs]

    def flat(self) -> dict[str, object]:
        """Return it as in metrics.json."""
        return {
            "detectors": list(self.detectors),
            "classes": list(self.classes),
            "left_out": list(self.left_out),
            "cells": [cell.flat() for cell in self.cells],
            "verdicts": [verdict.flat() for verdict in self.verdicts],
        }


def build_matrix(
    comparisons: Mapping[str, Comparison], settings: Settings, other: Way = "retrain"
) -> Matrix:
    """Compare detectors that were measured on the same inputs.

    Args:
        comparisons: Finished comparisons by the detector's name, at least two, with the same rows.
            Images that the last one lacks do not count.
        settings: The bootstrap.
        other: What another detector than the first is called, `retrain` or `switch`.

    Raises:
        DatasetError: The detectors have no class in common.
    """
    truths = [comparison.truth for comparison in comparisons.values()]
    common = common_categories(truths)
    if not common:
        raise DatasetError("no class with boxes is known to all detectors alike")
    rows = {
        (name, row.spec): row for name, comparison in comparisons.items() for row in comparison.rows
    }
    counted = frozenset(a["id"] for a in truths[0].annotations if a["category_id"] in common)
    cells: list[MatrixCell] = []
    verdicts = []
    *_, last = comparisons.values()
    for condition, image_ids in last.data.conditions.items():
        measure = _measure(rows, frozenset(common), image_ids, settings)
        boxes = sum(
            a["id"] in counted and a["image_id"] in image_ids for a in truths[0].annotations
        )
        block = dict(_cells(condition, comparisons, measure, (len(image_ids), boxes), other))
        cells += block.values()
        verdicts.append(_judge(condition, block, measure))
    return Matrix(
        detectors=list(comparisons),
        cells=cells,
        verdicts=verdicts,
        classes=list(common.values()),
        left_out=_left_out(last.data, counted),
    )


def _left_out(data: DetectionSet, counted: frozenset[int]) -> list[str]:
    """Name the classes of the set whose boxes do not count: `truck (12 boxes)`."""
    boxes = Counter(
        data.categories[box["category_id"]]
        for box in data.annotations or ()
        if box["id"] not in counted
    )
    return [
        f"{name} ({count} box{'' if count == 1 else 'es'})" for name, count in sorted(boxes.items())
    ]


def _measure(
    rows: Mapping[_Key, RowResult],
    common: frozenset[int],
    image_ids: frozenset[int],
    settings: Settings,
) -> Measure[_Key]:
    """Return the mAP over common classes of every cell, on some images and in each resample."""
    values: dict[_Key, float | None] = {}
    samples = {}
    for key, row in rows.items():
        evaluation = row.evaluation
        chosen = [k for k, category in enumerate(evaluation.category_ids) if category in common]
        scores = evaluation.per_class(image_ids)
        known = [ap for k in chosen if (ap := scores[k].ap) is not None]
        values[key] = float(np.mean(known)) if known else None
        inside = np.array([image_id in image_ids for image_id in evaluation.image_ids])
        weights = image_weights(inside, settings.resamples, settings.seed)
        if weights is not None:
            matches = evaluation.class_matches()
            precisions = class_precisions([matches[k] for k in chosen], weights)
            samples[key] = mean_over_classes(precisions)
    return Measure(values, samples)


def _cells(
    condition: str,
    comparisons: Mapping[str, Comparison],
    measure: Measure[_Key],
    counts: tuple[int, int],
    other: Way,
) -> Iterator[tuple[_Key, MatrixCell]]:
    """Yield the cells of a condition with its images and boxes, detector by detector."""
    first = next(iter(comparisons))
    for key in measure.values:
        detector, spec = key
        reference = (first, RowSpec("clean" if spec.shows_clean else "rainy"))
        table = comparisons[detector].table
        row = find_row(table, condition, spec.input, spec.derainer_name)
        yield (
            key,
            MatrixCell(
                condition=condition,
                input=spec.input,
                derainer=spec.derainer_name,
                detector=detector,
                way=_way(spec, other, is_first=detector == first),
                mean_ap=measure.values[key],
                change=measure.change(key, None if key == reference else reference),
                ms_per_image=row.ms_per_image if row else None,
                timing=row.cost.of(row.derainer) if row else Timing(),
                images=counts[0],
                boxes=counts[1],
            ),
        )


def _way(spec: RowSpec, other: Way, *, is_first: bool) -> Way | Literal[""]:
    if spec.shows_clean:
        return ""
    if spec.derainer is None:
        return "nothing" if is_first else other
    return "derain" if is_first else "both"


def _judge(
    condition: str, block: Mapping[_Key, MatrixCell], measure: Measure[_Key]
) -> MatrixVerdict:
    """Say which way wins. A way counts with its best cell, a control where nothing else derains."""
    best = _best_of_ways(block)
    if len(best) < 2:
        return MatrixVerdict(
            condition=condition, sentences=["could not be judged: mAP is undefined here."]
        )
    ranked = sorted(best, key=lambda key: -(block[key].mean_ap or 0.0))
    lead = measure.change(ranked[0], ranked[1])
    cells = [block[key] for key in best]
    dry = [
        replace(other, way=cell.way)
        for cell in cells
        for other in block.values()
        if other.input == ("derained_clean" if cell.derainer else "clean")
        and (other.detector, other.derainer) == (cell.detector, cell.derainer)
    ]
    sentences = [
        _lead_sentence(block[ranked[0]], block[ranked[1]], lead),
        _list("Against “nothing”", cells),
        _list("When it is dry", dry),
        _costs(cells),
    ]
    return MatrixVerdict(
        condition=condition,
        best=block[ranked[0]].way,
        next=block[ranked[1]].way,
        lead=lead,
        sentences=[sentence for sentence in sentences if sentence],
        best_cells=cells,
    )


def _best_of_ways(block: Mapping[_Key, MatrixCell]) -> list[_Key]:
    """Return the cell of each way that has the highest mAP, the first one among equals."""
    real = any(cell.input == "derained" and not cell.is_control for cell in block.values())
    best: dict[str, _Key] = {}
    for key, cell in block.items():
        if not cell.way or cell.mean_ap is None or (real and cell.derainer and cell.is_control):
            continue
        leader = best.setdefault(cell.way, key)
        if cell.mean_ap > (block[leader].mean_ap or 0.0):
            best[cell.way] = key
    return [best[way] for way in get_args(Way) if way in best]


def _lead_sentence(best: MatrixCell, second: MatrixCell, lead: Score) -> str:
    """Say whether the best way is beyond noise ahead of the next one, and by how much."""
    name, level = _describe(best), format_percent(best.mean_ap)
    other = f"{_describe(second)}, {format_percent(second.mean_ap)}"
    if are_few(best.images, best.boxes):
        return (
            f"too few images to tell, {best.images} with {best.boxes} boxes: {name}, {level}, and "
            f"{other}: {signed_text(lead)}."
        )
    if effect_of(lead) == "helps":
        return f"{name} wins with mAP {level}, by {size_text(lead)} over the next, {other}."
    if number(lead.low) is None:
        return (
            f"{name} has mAP {level}, {signed_text(lead)} to the next, {other}; it may be chance."
        )
    return f"no measurable difference between {name}, {level}, and {other}: {signed_text(lead)}."


def _describe(cell: MatrixCell) -> str:
    return f"“{cell.way}” ({cell.subject})"


def _list(title: str, cells: Sequence[MatrixCell]) -> str:
    """Say the changes of some ways: `When it is dry: derain -0.1 points [-0.2, 0.1], ...`."""
    parts = [
        f"{cell.way} {signed_text(cell.change)}"
        for cell in cells
        if number(cell.change.value) is not None
    ]
    return f"{title}: {', '.join(parts)}." if parts else ""


def _costs(cells: Sequence[MatrixCell]) -> str:
    parts = [
        f"{cell.way} {format_timing(cell.timing)} ms"
        for cell in cells
        if cell.timing.ms is not None
    ]
    return f"Time per image: {', '.join(parts)}." if parts else ""


def cell_change(cell: MatrixCell) -> str:
    """Return a cell's change in points with its interval; empty where it has none."""
    return "" if cell.change.value is None else format_change(cell.change)


def format_matrix(matrix: Matrix, width: int) -> str:
    """Format a matrix as plain text for a terminal: tables of rainy and of clean inputs.

    Args:
        matrix: The matrix.
        width: Characters per line. Columns that do not fit go on below; a single one may be wider.
    """
    lines = ["mAP (%), its change in points against the first detector on the same images, ms"]
    names = ["detector", *matrix.detectors]
    for condition in matrix.conditions:
        lines.append(f"\n{condition_title(condition, matrix.part)}")
        rows = [matrix.row(condition, name) for name in matrix.detectors]
        columns = [
            [title, *map(_cell_text, cells)]
            for title, *cells in zip(matrix.inputs, *rows, strict=True)
        ]
        rainy = sum(cell.input in ("rainy", "derained") for cell in rows[0] if cell)
        lines += _tables(names, columns[:rainy], width) + _tables(names, columns[rainy:], width)
    for verdict in matrix.verdicts:
        first, *others = verdict.sentences
        title = condition_title(verdict.condition, matrix.part)
        lines += [f"\n{title}: {first}", *(f"  {s}" for s in others)]
    return "\n".join(lines)


def _cell_text(cell: MatrixCell | None) -> str:
    if cell is None:
        return UNDEFINED
    parts = [
        format_percent(cell.mean_ap),
        cell_change(cell),
        f"{format_timing(cell.timing)} ms",
    ]
    return "  ".join(part for part in parts if part)


def _tables(names: Sequence[str], columns: Sequence[Sequence[str]], width: int) -> list[str]:
    """Align columns behind the names, as many in a table as fit."""
    fitting = len(columns)
    while columns:
        head, *lines = zip(names, *columns[:fitting], strict=True)
        text = align_table(head, lines, texts=1)
        if fitting == 1 or text.index("\n") <= width:
            return [text, *_tables(names, columns[fitting:], width)]
        fitting -= 1
    return []
