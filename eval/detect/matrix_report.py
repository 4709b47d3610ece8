"""The report of a run with several detectors: the matrix, and the way to each detector's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.detect.matrix import Matrix, MatrixCell, cell_change
from eval.detect.model import condition_title
from eval.report.colors import series_of
from eval.report.facts import RunFacts
from eval.report.figures import WIDTH, draw_chart, legend, name_bars, short, spread_legend
from eval.report.page import render_page
from eval.report.parts import (
    Cell,
    Group,
    Head,
    Line,
    Table,
    Tile,
    effect_of,
)
from eval.report.tables import (
    UNDEFINED,
    format_count,
    format_interval,
    format_percent,
    format_points,
    number,
    typographic,
)
from eval.report.timing import format_timing
from rainmer.figures import INK, color_of, styled

__all__ = ["render_matrix"]

_BAR = 0.17  # inches
_CAPTION = (
    "mAP of each detector on each input. Whiskers: the 95 % interval of the change against the "
    "first detector on the same images without a derainer, counted from that detector's mAP "
    "(dashed); one that meets the dashed line is no measurable change."
)


def render_matrix(
    matrix: Matrix, set_name: str, facts: RunFacts, reports: Mapping[str, Path]
) -> str:
    """Render the report as one HTML page that links to the detectors' own reports.

    Args:
        matrix: Detectors by inputs.
        set_name: Name of the set.
        facts: How the numbers came about.
        reports: Each detector's report, relative to this one.

    Returns:
        The page's text, to be written as UTF-8.
    """
    main = matrix.verdicts[0]
    sections = {
        "matrix": "Matrix",
        "verdicts": "Findings",
        "bars": "Bars",
        "detectors": "Detectors",
        **({"notes": "Data"} if facts.notes else {}),
        **({"labels": "Labels"} if facts.repairs else {}),
        "method": "Method",
    }
    head = Head(
        title=f"Detectors and derainers: {set_name}",
        question=f"Derain, {_other(matrix)}, or both?",
        headline=main.headline,
        subjects=[("", set_name), ("detectors", ", ".join(matrix.detectors))],
        date=facts.date,
        tiles=_tiles(matrix),
        sections=sections,
    )
    alt = "Bars of mAP for every detector and input"
    return render_page(
        "matrix.html",
        head=head,
        matrix=matrix,
        other=_other(matrix),
        verdicts=[
            (condition_title(v.condition, matrix.part), v.effect, v) for v in matrix.verdicts
        ],
        table=_table(matrix),
        bars=draw_chart(partial(_bars, matrix), "matrix", alt, _CAPTION),
        reports={name: quote(path.as_posix()) for name, path in reports.items()},
        facts=facts,
    )


def _other(matrix: Matrix) -> str:
    """Return what another detector than the first is called."""
    return "switch" if any(cell.way == "switch" for cell in matrix.cells) else "retrain"


def _tiles(matrix: Matrix) -> list[Tile]:
    """Return the mAP of the best cell of each way in the first condition."""
    tiles = []
    for cell in matrix.verdicts[0].best_cells:
        about = f"“{cell.way}”: {cell.subject}"
        if number(cell.change.value) is not None:
            interval = format_interval(cell.change.low, cell.change.high)
            about += f", {format_points(cell.change.value)} points {interval}".rstrip()
        kind = series_of(matrix.detectors)[cell.detector]
        tiles.append(Tile(f"{format_percent(cell.mean_ap)} %", about, kind))
    return tiles


def _table(matrix: Matrix) -> Table:
    """Show the detectors below each condition, and the inputs beside each other."""
    groups = []
    for condition in matrix.conditions:
        lines = [
            Line(
                [name],
                list(map(_table_cell, matrix.row(condition, name))),
                {"first": None} if name == matrix.detectors[0] else {},
            )
            for name in matrix.detectors
        ]
        cell = next(cell for cell in matrix.cells if cell.condition == condition)
        facts = f"{format_count(cell.images)} images, {format_count(cell.boxes)} boxes"
        groups.append(Group(lines, condition_title(condition, matrix.part), facts))
    return Table(
        about="mAP of every detector on every input",
        texts=["detector"],
        numbers=matrix.inputs,
        groups=groups,
    )


def _table_cell(cell: MatrixCell | None) -> Cell:
    """Return mAP, below it the change with its interval, and the time."""
    if cell is None:
        return Cell(UNDEFINED)
    change = typographic(cell_change(cell)).replace(" ", "\N{NO-BREAK SPACE}")
    text = Markup("<b>{}</b>").format(format_percent(cell.mean_ap))
    if change:
        text += Markup("<br><small>{}</small>").format(change)
    text += Markup('<br><small class="soft">{}\N{NO-BREAK SPACE}ms</small>').format(
        format_timing(cell.timing)
    )
    has_change = number(cell.change.value) is not None
    return Cell(text, effect_of(cell.change) if has_change else None)


@styled
def _bars(matrix: Matrix, width: float) -> Figure:
    """Draw a block per condition, in it a group of bars per input: one for each detector."""
    inputs, detectors = matrix.inputs, matrix.detectors
    blocks = matrix.conditions
    block_height = _BAR * (len(detectors) + 1) * len(inputs) + 0.35
    figure = Figure(figsize=(width, block_height * len(blocks) + 0.6), layout="constrained")
    reach = max([_reach(cell, matrix) for cell in matrix.cells], default=0.0)
    for index, condition in enumerate(blocks):
        axes = figure.add_subplot(len(blocks), 1, index + 1)
        for place, name in enumerate(detectors):
            for group, cell in enumerate(matrix.row(condition, name)):
                if cell is not None:
                    _draw_bar(axes, cell, matrix, group, place)
        name_bars(axes, [short(name, width) for name in inputs])
        room = 0.15 * WIDTH / width
        axes.set_xlim(0, min((1 + room) * reach or 1.0, 100 * (1 + room)))
        if len(blocks) > 1:
            axes.set_title(
                short(condition_title(condition, matrix.part)), loc="left", fontweight="bold"
            )
    axes.set_xlabel("mAP (%)")
    spread_legend(figure, legend(series_of(detectors), ()), width, 4)
    return figure


def _reference(cell: MatrixCell, matrix: Matrix) -> float:
    """Return the mAP in percent that a cell is compared with."""
    wanted = "clean" if cell.input in ("clean", "derained_clean") else "rainy"
    values = [
        number(other.mean_ap) or 0.0
        for other in matrix.row(cell.condition, matrix.detectors[0])
        if other is not None and other.input == wanted
    ]
    return 100 * values[0] if values else 0.0


def _whisker(cell: MatrixCell, matrix: Matrix) -> tuple[float, float] | None:
    low, high = number(cell.change.low), number(cell.change.high)
    if low is None or high is None:
        return None
    base = _reference(cell, matrix)
    return base + 100 * low, base + 100 * high


def _reach(cell: MatrixCell, matrix: Matrix) -> float:
    """Return how far to the right a cell draws anything, in percent."""
    whisker = _whisker(cell, matrix)
    compared = (*whisker, _reference(cell, matrix)) if whisker else (0.0,)
    return max(100 * (number(cell.mean_ap) or 0.0), *compared)


def _draw_bar(axes: Axes, cell: MatrixCell, matrix: Matrix, group: int, place: int) -> None:
    count = len(matrix.detectors)
    height = 0.8 / count
    middle = group - 0.4 + height * (place + 0.5)
    value = 100 * (number(cell.mean_ap) or 0.0)
    axes.barh(middle, value, 0.86 * height, color=color_of(place))
    whisker = _whisker(cell, matrix)
    if whisker:
        axes.plot(whisker, (middle, middle), color=INK, linewidth=1.1)
        base = _reference(cell, matrix)
        ends = (middle - height / 2, middle + height / 2)
        axes.plot((base, base), ends, color=INK, linewidth=1.1, linestyle=(0, (2, 2)), alpha=0.75)
    axes.annotate(
        format_percent(cell.mean_ap),
        (_reach(cell, matrix), middle),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
