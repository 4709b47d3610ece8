"""The part of the report on classes: what changes in each, and its AP in every row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from eval.detect import figures as plots
from eval.detect.model import ClassRow, sort_rows
from eval.detect.verdicts import Verdict
from eval.report.figures import draw_chart
from eval.report.parts import Cell, Chart, Group, Line, Table, effect_of
from eval.report.tables import UNDEFINED, format_count, format_percent, number
from eval.scores.means import FEW_BOXES

__all__ = ["class_charts", "class_table"]


def class_table(per_class: Sequence[ClassRow], condition: str) -> Table | None:
    """Return AP per class and input of a condition, classes with most boxes first."""
    shown = sort_rows([row for row in per_class if row.condition == condition])
    if not shown:
        return None
    inputs = list(dict.fromkeys(row.label for row in shown))
    boxes = {row.class_name: row.boxes for row in shown}
    precisions = {(row.class_name, row.label): format_percent(row.ap) for row in shown}
    lines = [
        Line(
            [name],
            [
                Cell(format_count(count)),
                *(Cell(precisions.get((name, label), UNDEFINED)) for label in inputs),
            ],
            {"few boxes": None} if count < FEW_BOXES else {},
        )
        for name, count in sorted(boxes.items(), key=lambda item: -item[1])
    ]
    return Table(
        about="AP of every class",
        texts=["class"],
        numbers=["boxes", *inputs],
        groups=[Group(lines)],
        caption="AP in percent",
    )


def class_charts(
    per_class: Sequence[ClassRow], verdicts: Sequence[Verdict], condition: str
) -> list[Chart]:
    """Draw the changes per class of each derainer in a condition, the best one first."""
    charts: list[Chart] = []
    series = plots.derainer_series(per_class)
    for verdict in verdicts:
        chosen = [
            row
            for row in per_class
            if row.condition == condition == verdict.condition
            and (row.input, row.derainer) == ("derained", verdict.derainer)
        ]
        if not chosen:
            continue
        chart = draw_chart(
            partial(plots.class_changes, chosen, plots.color_of_row(chosen[0], series)),
            f"classes-{len(charts)}",
            f"Change of AP per class with {verdict.derainer}, in points",
            _caption_changes(chosen),
            verdict.derainer,
        )
        charts += [chart] if chart else []
    return charts


def _caption_changes(classes: Sequence[ClassRow]) -> str:
    changes = [number(row.change.value) for row in classes]
    known = [change for change in changes if change is not None]
    gained, lost = sum(change > 0 for change in known), sum(change < 0 for change in known)
    text = f"Of {len(known)} classes with boxes, AP rises in {gained} and falls in {lost}; "
    beyond = [effect_of(row.change) for row in classes]
    text += (
        f"beyond chance in {beyond.count('helps')} and {beyond.count('harms')}. "
        "Thin lines: 95 % intervals."
    )
    shown = plots.count_shown(classes)
    return text if shown == len(known) else f"{text} Shown are the largest changes of both signs."
