"""The figures: gains per derainer with a line per set, and detection against restoration gains.

Each set has a colour and a marker. Controls are hollow.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.relation.gains import GainRow
from eval.relation.words import MEASURES
from eval.report.figures import WIDTH, ruled, spread_legend
from eval.report.tables import shorten
from rainmer.figures import INK, color_of, draw_grid, marker_of, styled

__all__ = ["condition_scatters", "order_derainers", "relation_figure"]

_LONGEST_NAME = 20
_FEW_POINTS = 60


def order_derainers(rows: Sequence[GainRow]) -> list[str]:
    """Order derainers for the axis: controls first, then by mean PSNR gain over the sets."""
    gains: dict[tuple[bool, str], list[float]] = {}
    for row in rows:
        key = (not row.control, row.derainer)
        gains.setdefault(key, []).append(row.gains["delta_psnr"].value or 0.0)
    return [
        name for _, name in sorted(gains, key=lambda k: (k[0], sum(gains[k]) / len(gains[k]), k[1]))
    ]


@styled
def relation_figure(rows: Sequence[GainRow], width: float = WIDTH) -> Figure:
    """Draw gains per derainer (PSNR, mAP), and the mAP gain against the PSNR and SSIM gains.

    Args:
        rows: Rows of one condition, at least one.
        width: Of the figure in inches.
    """
    names, sets = order_derainers(rows), _sets(rows)
    shape, height = ((2, 2), 7.4) if width >= WIDTH else ((4, 1), 13.0)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(*shape).reshape(2, 2)
    titles = (
        "Restoration gain of each derainer",
        "Detection gain of each derainer",
        "Detection against PSNR",
        "Detection against SSIM",
    )
    for axes, title in zip(grid.ravel(), titles, strict=True):
        axes.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
    for axes, gain in zip(grid[0], ("delta_psnr", "delta_mAP"), strict=True):
        _draw_lines(axes, rows, gain, names, sets)
    for axes, gain in zip(grid[1], ("delta_psnr", "delta_ssim"), strict=True):
        _draw_scatter(axes, rows, gain, names, sets)
    spread_legend(figure, _legend(rows, sets), width, 4, "lower")
    return figure


@styled
def condition_scatters(
    groups: Sequence[tuple[str, Sequence[GainRow]]], width: float = WIDTH
) -> Figure:
    """Draw the mAP gain against the PSNR gain, conditions side by side on equal axes.

    Args:
        groups: Name and rows of each condition, at least one.
        width: Of the figure in inches.
    """
    every = [row for _, rows in groups for row in rows]
    names, sets = order_derainers(every), _sets(every)
    columns = min(3, max(2, len(groups))) if width >= WIDTH else 1
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(width, 3.4 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, rows) in zip(grid, groups, strict=False):
        _draw_scatter(axes, rows, "delta_psnr", names, sets)
        axes.set_title(shorten(name, 40), loc="left", fontweight="bold")
        axes.label_outer()
    for axes in grid[len(groups) :]:
        axes.set_axis_off()
    spread_legend(figure, _legend(every, sets), width, 4, "lower")
    return figure


def _sets(rows: Sequence[GainRow]) -> list[str]:
    return list(dict.fromkeys(row.set_name for row in rows))


def _draw_lines(
    axes: Axes, rows: Sequence[GainRow], gain: str, names: Sequence[str], sets: Sequence[str]
) -> None:
    """Draw a gain per derainer: a line per set, with intervals as whiskers."""
    for index, set_name in enumerate(sets):
        # The sets are offset, so that their whiskers do not overlap.
        shift = 0.09 * (index - (len(sets) - 1) / 2)
        points = sorted(
            (
                (names.index(row.derainer) + shift, value, row)
                for row in rows
                if row.set_name == set_name and (value := _shown(row, gain)) is not None
            ),
            key=lambda point: point[0],
        )
        color, marker = color_of(index), marker_of(index)
        axes.plot([p[0] for p in points], [p[1] for p in points], color=color, lw=1.4, alpha=0.8)
        for place, value, row in points:
            _draw_whisker(axes, row, gain, place, color, vertical=True)
            _draw_marker(axes, place, value, color, marker, hollow=row.control)
    axes.axhline(0, color=INK, linewidth=1, alpha=0.7)
    labels = [f"{shorten(name, _LONGEST_NAME)} ({n})" for n, name in enumerate(names, start=1)]
    axes.set_xticks(range(len(names)), labels, rotation=32, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel(MEASURES[gain].title, labelpad=8)
    draw_grid(axes)


def _draw_scatter(
    axes: Axes, rows: Sequence[GainRow], gain: str, names: Sequence[str], sets: Sequence[str]
) -> None:
    """Draw the mAP gain against a restoration gain; points carry the numbers of their derainers.

    Lines join the points of a set in the order of restoration gains, as in the paper.
    """
    count = sum(len(_points(rows, name, gain)) for name in sets)
    for index, set_name in enumerate(sets):
        color, marker = color_of(index), marker_of(index)
        points = _points(rows, set_name, gain)
        axes.plot([p[0] for p in points], [p[1] for p in points], color=color, lw=1, alpha=0.5)
        for x, y, row in points:
            _draw_whisker(axes, row, gain, y, color, vertical=False)
            _draw_whisker(axes, row, "delta_mAP", x, color, vertical=True)
            _draw_marker(axes, x, y, color, marker, hollow=row.control)
            if count <= _FEW_POINTS:
                _draw_number(axes, x, y, names.index(row.derainer) + 1, color)
    ruled(axes)
    axes.set_xlabel(MEASURES[gain].title)
    axes.set_ylabel(MEASURES["delta_mAP"].title, labelpad=8)
    axes.margins(0.08)
    if not count:
        axes.annotate("undefined", (0.5, 0.6), xycoords="axes fraction", ha="center")


def _points(
    rows: Sequence[GainRow], set_name: str, gain: str
) -> list[tuple[float, float, GainRow]]:
    """Return a set's points (restoration gain, detection gain, row), sorted, in axes units."""
    points = [
        (x, y, row)
        for row in rows
        if row.set_name == set_name
        and (x := _shown(row, gain)) is not None
        and (y := _shown(row, "delta_mAP")) is not None
    ]
    return sorted(points, key=lambda point: point[:2])


def _shown(row: GainRow, gain: str) -> float | None:
    """Convert a gain to the unit of the axes."""
    value = row.gains[gain].value
    return None if value is None else MEASURES[gain].factor * value


def _draw_marker(axes: Axes, x: float, y: float, color: str, marker: str, *, hollow: bool) -> None:
    face = "none" if hollow else color
    axes.plot(x, y, marker=marker, color=color, markerfacecolor=face, markersize=6.5, ls="none")


def _draw_whisker(
    axes: Axes, row: GainRow, gain: str, place: float, color: str, *, vertical: bool
) -> None:
    low, high = row.gains[gain].low, row.gains[gain].high
    if low is None or high is None:
        return
    ends = (MEASURES[gain].factor * low, MEASURES[gain].factor * high)
    across = (place, place)
    axes.plot(*((across, ends) if vertical else (ends, across)), color=color, lw=1.2, alpha=0.5)


def _draw_number(axes: Axes, x: float, y: float, value: int, color: str) -> None:
    if (x, y) != (0.0, 0.0):  # the identity of every set
        axes.annotate(
            str(value),
            (x, y),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=7.5,
            fontweight="bold",
            color=color,
        )


def _legend(rows: Sequence[GainRow], sets: Sequence[str]) -> list[Line2D]:
    """Return the legend's entries: the sets, and the meaning of hollow markers."""
    entries = [
        Line2D([], [], color=color_of(i), marker=marker_of(i), label=shorten(name, 34))
        for i, name in enumerate(sets)
    ]
    if any(row.control for row in rows):
        entries.append(
            Line2D([], [], color=INK, marker="o", mfc="none", ls="none", label="hollow: control")
        )
    return entries
