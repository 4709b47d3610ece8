"""The figures of a detection run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.detect.model import AnyRow, ClassRow, Row, TableRow, conditions, find_row, sort_rows
from eval.report.colors import color_in, series_of
from eval.report.figures import WIDTH, beside, legend, name_bars, ruled, short, spread_legend
from eval.report.tables import (
    format_count,
    format_percent,
    format_points,
    number,
    typographic,
)
from eval.rows.run import RowInput
from rainmer.figures import COLORS, INK, marker_of, styled

__all__ = [
    "class_changes",
    "color_of_row",
    "count_shown",
    "derainer_series",
    "gain_scatter",
    "key_of_row",
    "score_bars",
]

_FADED = 0.45
_ROW_HEIGHT = 0.3
_CLASSES = 12

_Measure: TypeAlias = Callable[[TableRow], float | None]


def derainer_series(rows: Sequence[AnyRow]) -> dict[str, str]:
    """Return the name of each derainer's colour, the same in all figures and tables.

    Controls come behind what they are compared with, and what has no frames of its own comes last.
    """
    derained = [row for row in rows if row.input == "derained"]
    ordered = sorted(
        derained,
        key=lambda row: (row.derainer.startswith(("union-", "network-")), row.is_control),
    )
    return series_of(row.derainer for row in ordered)


def series_of_row(row: Row, series: Mapping[str, str]) -> str:
    """Return the name of a row's colour: that of its derainer, or of its input."""
    return series.get(row.derainer, row.input)


def color_of_row(row: Row, series: Mapping[str, str]) -> str:
    """Return the colour of a row."""
    return color_in(series_of_row(row, series))


def key_of_row(row: Row, series: Mapping[str, str]) -> str:
    """Return what the square before a row's name in tables looks like; see `Line.key`."""
    words = [series_of_row(row, series)]
    words += ["control"] if row.is_control else []
    words += ["on-clean"] if row.input == "derained_clean" else []
    return " ".join(words)


@styled
def score_bars(
    rows: Sequence[TableRow], titles: Mapping[str, str] | None = None, width: float = WIDTH
) -> Figure:
    """Draw the mAP of every row as bars, one block per condition.

    A whisker is the 95 % interval of the difference to a reference, drawn from the reference's
    dashed line: rainy for derained and clean images, clean for derained clean images. A whisker
    that meets the dashed line is a change that may be chance.

    Args:
        rows: Rows of the table of scores, at least one.
        titles: What conditions are called; default: their names.
        width: Of the figure in inches.
    """
    ordered = sort_rows(rows)
    blocks = [[row for row in ordered if row.condition == name] for name in conditions(ordered)]
    height = sum(_ROW_HEIGHT * len(block) + 0.3 for block in blocks) + 0.5
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.add_gridspec(len(blocks), 1, height_ratios=[len(block) + 0.6 for block in blocks])
    series = derainer_series(rows)
    limit = (1 + 0.22 * WIDTH / width) * max(
        _reach(row, block) for block in blocks for row in block
    ) or 1.0
    for index, block in enumerate(blocks):
        axes = figure.add_subplot(grid[index])
        _draw_block(axes, block, series)
        name_bars(axes, [short(row.label, width) for row in block])
        axes.set_xlim(0, min(limit, 100 + 18 * WIDTH / width))
        if len(blocks) > 1:
            name = block[0].condition
            title = short((titles or {}).get(name, name))
            axes.set_title(title, loc="left", fontweight="bold")
        if index < len(blocks) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("mAP (%)")
    return figure


def _reference(row: TableRow, block: Sequence[TableRow]) -> float | None:
    """Return the mAP in percent that a row's difference is measured against."""
    kind: RowInput = "clean" if row.input == "derained_clean" else "rainy"
    reference = find_row(block, row.condition, kind)
    value = None if reference is None else number(reference.mean_ap)
    return None if value is None else 100 * value


def _whisker(row: TableRow, block: Sequence[TableRow]) -> tuple[float, float] | None:
    """Return the interval of a row's mAP in percent, as reference plus interval of difference."""
    low, high, base = number(row.change.low), number(row.change.high), _reference(row, block)
    if low is None or high is None or base is None:
        return None
    return base + 100 * low, base + 100 * high


def _reach(row: TableRow, block: Sequence[TableRow]) -> float:
    """Return how far to the right a row draws anything, in percent."""
    value = number(row.mean_ap) or 0.0
    compared = row.input != "rainy"
    base = (_reference(row, block) or 0.0) if compared else 0.0
    return max(100 * value, base, *(_whisker(row, block) or (0.0,)))


def _draw_block(axes: Axes, block: Sequence[TableRow], series: Mapping[str, str]) -> None:
    """Draw the bars of one condition, from top to bottom: faint of controls, hatched on clean."""
    for position, row in enumerate(block):
        value = number(row.mean_ap)
        color, on_clean = color_of_row(row, series), row.input == "derained_clean"
        axes.barh(
            position,
            100 * (value or 0.0),
            0.62,
            facecolor="none" if on_clean else (color, _FADED if row.is_control else 1.0),
            edgecolor=color,
            hatch="//////" if on_clean else None,
        )
        whisker = _whisker(row, block)
        if whisker:
            axes.plot(whisker, (position, position), color=INK, linewidth=1.3, marker="|")
        axes.annotate(
            _bar_label(row),
            (_reach(row, block), position),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
        )
    _draw_references(axes, block)


def _bar_label(row: TableRow) -> str:
    """Return a bar's mAP with its change in parentheses."""
    level = format_percent(row.mean_ap)
    if number(row.change.value) is None:
        return level
    return f"{level} ({typographic(format_points(row.change.value))})"


def _draw_references(axes: Axes, block: Sequence[TableRow]) -> None:
    """Draw a dashed line from each reference's bar down to the last bar compared with it."""
    for position, row in enumerate(block):
        value = number(row.mean_ap)
        compared = {"rainy": ("derained", "clean"), "clean": ("derained_clean",)}
        kinds = compared.get(row.input, ())
        last = max((i for i, other in enumerate(block) if other.input in kinds), default=0)
        if value is not None and last > position:
            axes.plot(
                (100 * value, 100 * value),
                (position - 0.31, last + 0.4),
                color=INK,
                linewidth=1.1,
                linestyle=(0, (4, 3)),
                alpha=0.75,
            )


@styled
def class_changes(
    classes: Sequence[ClassRow], color: str = COLORS[0], width: float = WIDTH
) -> Figure | None:
    """Draw what deraining changes per class: the largest gains and losses of AP, sorted.

    Classes with few boxes are faint: their AP moves by chance. Thin lines are the 95 % intervals of
    the changes.

    Args:
        classes: Per-class rows of one condition and one derainer, with `input` derained.
        color: The derainer's.
        width: Of the figure in inches.

    Returns:
        The figure, or None when no class has a change.
    """
    shown = _select_changes(classes)
    if not shown:
        return None
    figure = Figure(figsize=(width, 0.24 * len(shown) + 0.75), layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(shown):
        _draw_change(axes, position, row, color)
    _frame_changes(axes, shown, width)
    return figure


def count_shown(classes: Sequence[ClassRow]) -> int:
    """Return how many classes `class_changes` shows of these rows."""
    return len(_select_changes(classes))


def _select_changes(classes: Sequence[ClassRow]) -> list[ClassRow]:
    """Return the classes to show, best first: all of a few, else the extremes of both signs."""
    known = [row for row in classes if number(row.change.value) is not None]
    known.sort(key=_change, reverse=True)
    if len(known) <= 2 * _CLASSES:
        return known
    gains = [row for row in known if _change(row) > 0]
    losses = [row for row in known if _change(row) < 0]
    return gains[:_CLASSES] + losses[-_CLASSES:] or known[:_CLASSES]


def _change(row: ClassRow) -> float:
    """Return a class's change of AP in points."""
    return 100 * (number(row.change.value) or 0.0)


def _ends(row: ClassRow) -> tuple[float, float]:
    """Return the ends of what a class's bar and its whisker reach, in points."""
    ends = [0.0, *(100 * (number(end) or 0.0) for end in (row.change.low, row.change.high))]
    return min(*ends, _change(row)), max(*ends, _change(row))


def _draw_change(axes: Axes, position: int, row: ClassRow, color: str) -> None:
    change = _change(row)
    axes.barh(position, change, 0.66, color=color, alpha=_FADED if row.is_rare else 1.0)
    low, high = number(row.change.low), number(row.change.high)
    if low is not None and high is not None:
        axes.plot((100 * low, 100 * high), (position, position), color=INK, linewidth=1, alpha=0.7)
    axes.annotate(
        typographic(format_points(row.change.value)),
        (_ends(row)[change >= 0], position),
        xytext=(5 if change >= 0 else -5, 0),
        textcoords="offset points",
        ha="left" if change >= 0 else "right",
        va="center",
    )


def _frame_changes(axes: Axes, shown: Sequence[ClassRow], width: float) -> None:
    ends = [_ends(row) for row in shown]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    room = 0.11 * WIDTH / width * max(high - low, 1.0)
    axes.set_xlim(low - (room if low < 0 else 0), high + (room if high > 0 else 0.1 * room))
    axes.set_xlabel("change of AP against rainy (points)")
    axes.axvline(0, color=INK, linewidth=1)
    name_bars(
        axes, [f"{short(row.class_name, width)} ({format_count(row.boxes)})" for row in shown]
    )


@styled
def gain_scatter(rows: Sequence[TableRow], width: float = WIDTH) -> Figure | None:
    """Draw gain of PSNR, and of SSIM, against gain of mAP: one point per derainer and condition.

    Whiskers are the 95 % intervals of the gain of mAP.

    Args:
        rows: Rows of the table of scores. Conditions without PSNR and SSIM are left out.
        width: Of the figure in inches.

    Returns:
        The figure, or None when there is no point.
    """
    measures: tuple[tuple[str, _Measure], ...] = (
        ("gain of PSNR (dB)", lambda row: row.psnr),
        ("gain of SSIM", lambda row: row.ssim),
    )
    panels = [(title, points) for title, measure in measures if (points := _gains(rows, measure))]
    if not panels:
        return None
    shown = {row.derainer for _, points in panels for row, _ in points}
    series = {name: own for name, own in derainer_series(rows).items() if name in shown}
    places = list(dict.fromkeys(row.condition for _, ps in panels for row, _ in ps))
    height = 3.5 if width >= WIDTH else 2.7 * len(panels) + 0.2 * len(series) + 0.2
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = beside(figure, len(panels), width)
    for axes, (title, points) in zip(grid, panels, strict=True):
        for row, gain in points:
            color = color_of_row(row, series)
            marker = marker_of(places.index(row.condition))
            _draw_point(axes, row, gain, color, marker)
        _frame_scatter(axes, title, labelled=axes is grid[0] or width < WIDTH)
    entries = legend(series, places)
    if width < WIDTH:
        spread_legend(figure, entries, width, 4)
    else:
        figure.legend(handles=entries, loc="outside right upper")
    return figure


def _gains(rows: Sequence[TableRow], measure: _Measure) -> list[tuple[TableRow, float]]:
    """Return the derained rows with their gain of a restoration metric over the rainy row."""
    gains = []
    for row in sort_rows(rows):
        rainy = find_row(rows, row.condition, "rainy")
        if row.input != "derained" or rainy is None:
            continue
        before, after = number(measure(rainy)), number(measure(row))
        if before is not None and after is not None and number(row.change.value) is not None:
            gains.append((row, after - before))
    return gains


def _draw_point(axes: Axes, row: TableRow, gain: float, color: str, marker: str) -> None:
    low, high = number(row.change.low), number(row.change.high)
    if low is not None and high is not None:
        axes.plot((gain, gain), (100 * low, 100 * high), color=color, linewidth=1.4, alpha=0.7)
    change = 100 * (number(row.change.value) or 0.0)
    axes.plot(gain, change, marker=marker, color=color, markersize=8, linestyle="none")


def _frame_scatter(axes: Axes, title: str, *, labelled: bool) -> None:
    axes.set_xlabel(title)
    if labelled:
        axes.set_ylabel("gain of mAP (points)")
    axes.margins(0.12)
    ruled(axes)
