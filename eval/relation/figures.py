"""The figures: gains per derainer with one line per set, and one gain against the other.

Sets have a colour and a marker each. Controls are hollow.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.relation.words import MEASURES
from eval.report.figures import INK, color_of, marker_of, styled
from eval.report.tables import Row, number, shorten
from rainmer.files import write_bytes

__all__ = ["condition_scatters", "order_derainers", "relation_figure", "save_svg"]

_WIDTH = 9.2
_LONGEST_NAME = 20
_FEW_POINTS = 60
_FIRST = "delta_psnr"


def order_derainers(rows: Sequence[Row]) -> list[str]:
    """Order derainers for the axis: controls, then by their mean gain of PSNR over the sets."""
    gains: dict[tuple[bool, str], list[float]] = {}
    for row in rows:
        key = (not row["control"], str(row["derainer"]))
        gains.setdefault(key, []).append(number(row.get(_FIRST)) or 0.0)
    return [
        name for _, name in sorted(gains, key=lambda k: (k[0], sum(gains[k]) / len(gains[k]), k[1]))
    ]


@styled
def relation_figure(rows: Sequence[Row]) -> Figure:
    """Draw gains per derainer (PSNR, mAP), and the gain of mAP against PSNR and SSIM.

    Args:
        rows: Rows of relation.csv of one condition, at least one.
    """
    names = order_derainers(rows)
    sets = list(dict.fromkeys(str(row["set"]) for row in rows))
    figure = Figure(figsize=(_WIDTH, 7.4), layout="constrained")
    grid = figure.subplots(2, 2)
    titles = (
        "Restoration gain of each derainer",
        "Detection gain of each derainer",
        "Detection against PSNR",
        "Detection against SSIM",
    )
    for axes, title in zip(grid.ravel(), titles, strict=True):
        axes.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
    for axes, key in zip(grid[0], (_FIRST, "delta_mAP"), strict=True):
        _draw_lines(axes, rows, key, names, sets)
    for axes, key in zip(grid[1], (_FIRST, "delta_ssim"), strict=True):
        _draw_scatter(axes, rows, key, names, sets)
    figure.legend(handles=_legend(rows, sets), loc="outside lower center", ncols=4)
    return figure


@styled
def condition_scatters(groups: Sequence[tuple[str, Sequence[Row]]]) -> Figure:
    """Draw the gain of mAP against the gain of PSNR, conditions side by side on equal axes.

    Args:
        groups: Name and rows of each condition, at least one.
    """
    every = [row for _, rows in groups for row in rows]
    names, sets = order_derainers(every), list(dict.fromkeys(str(row["set"]) for row in every))
    columns = min(3, max(2, len(groups)))
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(_WIDTH, 3.4 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, rows) in zip(grid, groups, strict=False):
        _draw_scatter(axes, rows, _FIRST, names, sets)
        axes.set_title(shorten(name, 40), loc="left", fontweight="bold")
        axes.label_outer()
    for axes in grid[len(groups) :]:
        axes.set_axis_off()
    figure.legend(handles=_legend(every, sets), loc="outside lower center", ncols=4)
    return figure


def _draw_lines(
    axes: Axes, rows: Sequence[Row], key: str, names: Sequence[str], sets: Sequence[str]
) -> None:
    """Draw a gain per derainer, one line per set, with intervals as whiskers."""
    factor = MEASURES[key].factor
    for index, name in enumerate(sets):
        # Sets side by side, so that their whiskers do not cover each other.
        shift = 0.09 * (index - (len(sets) - 1) / 2)
        own = {str(row["derainer"]): row for row in rows if row["set"] == name}
        chosen = [d for d in names if d in own and number(own[d].get(key)) is not None]
        places = [names.index(d) + shift for d in chosen]
        values = [factor * (number(own[d].get(key)) or 0.0) for d in chosen]
        color, marker = _look(index)
        axes.plot(places, values, color=color, linewidth=1.4, alpha=0.8)
        for place, value, derainer in zip(places, values, chosen, strict=True):
            _draw_whisker(axes, own[derainer], key, place, color, vertical=True)
            _draw_marker(axes, place, value, color, marker, hollow=bool(own[derainer]["control"]))
    axes.axhline(0, color=INK, linewidth=1, alpha=0.7)
    labels = [f"{shorten(name, _LONGEST_NAME)} ({n})" for n, name in enumerate(names, start=1)]
    axes.set_xticks(range(len(names)), labels, rotation=32, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel(MEASURES[key].title, labelpad=8)
    _finish(axes)


def _draw_scatter(
    axes: Axes, rows: Sequence[Row], key: str, names: Sequence[str], sets: Sequence[str]
) -> None:
    """Draw the gain of mAP against a gain of restoration; numbers are those of the derainers.

    Lines join the points of a set in order of the restoration gain, as in the paper.
    """
    count = sum(len(_points(rows, name, key)) for name in sets)
    for index, name in enumerate(sets):
        color, marker = _look(index)
        points = _points(rows, name, key)
        axes.plot([p[0] for p in points], [p[1] for p in points], color=color, lw=1, alpha=0.5)
        for x, y, row in points:
            _draw_whisker(axes, row, key, y, color, vertical=False)
            _draw_whisker(axes, row, "delta_mAP", x, color, vertical=True)
            _draw_marker(axes, x, y, color, marker, hollow=bool(row["control"]))
            if count <= _FEW_POINTS:
                _draw_number(axes, x, y, names.index(str(row["derainer"])) + 1, color)
    axes.axhline(0, color=INK, linewidth=1, alpha=0.7)
    axes.axvline(0, color=INK, linewidth=1, alpha=0.7)
    axes.set_xlabel(MEASURES[key].title)
    axes.set_ylabel(MEASURES["delta_mAP"].title, labelpad=8)
    axes.margins(0.08)
    _finish(axes)
    if not count:
        axes.annotate("undefined", (0.5, 0.6), xycoords="axes fraction", ha="center")


def _points(rows: Sequence[Row], name: str, key: str) -> list[tuple[float, float, Row]]:
    """Return a set's points (restoration gain, detection gain, row), sorted, as they are shown."""
    found = []
    for row in rows:
        x, y = number(row.get(key)), number(row.get("delta_mAP"))
        if row["set"] == name and x is not None and y is not None:
            found.append((MEASURES[key].factor * x, MEASURES["delta_mAP"].factor * y, row))
    return sorted(found, key=lambda point: point[:2])


def _look(index: int) -> tuple[str, str]:
    return color_of(index), marker_of(index)


def _draw_marker(axes: Axes, x: float, y: float, color: str, marker: str, *, hollow: bool) -> None:
    face = "none" if hollow else color
    axes.plot(x, y, marker=marker, color=color, markerfacecolor=face, markersize=6.5, ls="none")


def _draw_whisker(
    axes: Axes, row: Row, key: str, place: float, color: str, *, vertical: bool
) -> None:
    low, high = number(row.get(f"{key}_low")), number(row.get(f"{key}_high"))
    if low is None or high is None:
        return
    ends = (MEASURES[key].factor * low, MEASURES[key].factor * high)
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


def _finish(axes: Axes) -> None:
    axes.grid(color=INK, alpha=0.13, linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(rows: Sequence[Row], sets: Sequence[str]) -> list[Line2D]:
    """Return the legend's entries: the sets, and what hollow markers are."""
    entries = []
    for index, name in enumerate(sets):
        color, marker = _look(index)
        entries.append(Line2D([], [], color=color, marker=marker, label=shorten(name, 34)))
    if any(row["control"] for row in rows):
        entries.append(
            Line2D([], [], color=INK, marker="o", mfc="none", ls="none", label="hollow: control")
        )
    return entries


def save_svg(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as an SVG file of its own, on white.

    Raises:
        OutputError: The file cannot be written.
    """
    buffer = io.StringIO()
    figure.set_facecolor("white")
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    styled(FigureCanvasSVG(figure).print_svg)(buffer, metadata=nothing)
    write_bytes(path, buffer.getvalue().encode())
