"""The part of the report on cost: medians for an image, and what they hold for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.detect.figures import derainer_series, key_of_row
from eval.detect.model import TableRow, find_row
from eval.report.parts import Tile
from eval.report.tables import UNDEFINED, format_ms
from eval.report.timing import EARLIER, TimedOn, format_rate, format_timing

__all__ = ["CostSection", "cost_section", "cost_tile"]


@dataclass(frozen=True)
class _Cost:
    """Time for an image of a row as text, and the widths of its bars in percent of the longest."""

    label: str
    key: str
    series: str
    derain: str
    high: str
    detect: str
    total: str
    rate: str
    derain_share: float
    detect_share: float


@dataclass(frozen=True)
class CostSection:
    """What `cost.html` shows.

    Attributes:
        sentence: What the times hold for, and the detector's own.
        costs: The rows; one without a derainer comes first.
        footnote: What a star means; empty without any.
    """

    sentence: str
    costs: Sequence[_Cost]
    footnote: str


def cost_section(
    rows: Sequence[TableRow], condition: str, timed_on: TimedOn | None
) -> CostSection | None:
    """Prepare the section for the template `cost.html`: rainy and derained rows of a condition."""
    shown = [
        row
        for row in rows
        if row.condition == condition
        and row.input in ("rainy", "derained")
        and (row.cost.derain.ms or row.cost.detect.ms)
    ]
    if not shown:
        return None
    series = derainer_series(rows)
    longest = max((row.cost.derain.ms or 0.0) + (row.cost.detect.ms or 0.0) for row in shown)
    costs = [
        _Cost(
            label=row.label,
            key=key_of_row(row, series),
            series=series.get(row.derainer, row.input),
            derain=format_timing(row.cost.derain),
            high=format_ms(row.cost.derain.high),
            detect=format_timing(row.cost.detect),
            total=format_timing(row.cost.of(row.derainer)),
            rate=format_rate(row.cost.of(row.derainer)),
            derain_share=100 * (row.cost.derain.ms or 0.0) / longest,
            detect_share=100 * (row.cost.detect.ms or 0.0) / longest,
        )
        for row in shown
    ]
    earlier = any(row.cost.of(row.derainer).earlier for row in shown)
    return CostSection(_sentence(timed_on), costs, EARLIER if earlier else "")


def _sentence(timed_on: TimedOn | None) -> str:
    place = "" if timed_on is None else f", on {timed_on.text}"
    return (
        f"Milliseconds for an image{place}: medians, derainer and detector one after the other. "
        "The detector's time is one median over all rows: what it sees has the same size in each."
    )


def cost_tile(rows: Sequence[TableRow], row: TableRow, timed_on: TimedOn | None) -> Tile:
    """Return the large number of a derained row's cost, with what it holds for."""
    derain = row.cost.derain
    value = UNDEFINED if derain.ms is None else f"{format_ms(derain.ms)} ms"
    about = f"to derain an image{', timed earlier' if derain.earlier else ''}"
    rainy = find_row(rows, row.condition, "rainy")
    both = row.cost.of(row.derainer)
    if rainy is not None and rainy.cost.detect.rate and both.rate:
        about += f": {format_rate(both)} images/s instead of {format_rate(rainy.cost.detect)}"
    return Tile(value, f"{about} ({timed_on.short})" if timed_on else about)
