"""Figures of views: a map of the images, and a heat map of how alike the sets are.

Matplotlib is imported by the functions that draw: nothing else of the package needs it.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rainmer.files import write_bytes
from rainmer.views.projection import Projection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["map_figure", "save_figure", "similarity_figure"]

_INK = "#22303c"
_COLORS = (
    "#2a78b8",
    "#d9703b",
    "#2f9e77",
    "#a05cc0",
    "#c9991f",
    "#c2477f",
    "#5fb4d6",
    "#6d7f2e",
    "#8c5a3c",
    "#7a8794",
)
_MARKERS = "o^sDP"  # another marker for each round of colours
_STYLE = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "legend.frameon": False,
    "text.color": _INK,
    "text.parse_math": False,  # names of sets may hold $
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_LONGEST_NAME = 24
_LEGEND_ROWS = 24
_PNG_DPI = 150


def map_figure(
    projection: Projection, members: Tensor, names: Sequence[str], title: str, subtitle: str
) -> Figure:
    """Draw images as points, coloured by set.

    Args:
        projection: Where the N points lie.
        members: Index of the set of each point, (N,), integers.
        names: Names of the sets.
        title: First line above the points.
        subtitle: Second line.
    """
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(8.2, 5.6), layout="constrained")
        axes = figure.add_subplot()
        _draw_points(axes, projection.points, members)
        axes.set_xlabel(projection.axes[0])
        axes.set_ylabel(projection.axes[1])
        if projection.method == "umap":
            _frame_sphere(axes)
        else:
            axes.grid(color=_INK, alpha=0.08, linewidth=0.8)
        _set_title(axes, title, subtitle)
        _draw_legend(axes, names, members.bincount(minlength=len(names)).tolist())
    return figure


def _draw_points(axes: Axes, points: Tensor, members: Tensor) -> None:
    """Draw points in random order, so that no set hides another."""
    size = min(60.0, max(7.0, 9000 / len(points)))
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    points, members = points[order], members[order]
    rounds = members // len(_COLORS)
    for index in sorted(set(rounds.tolist())):
        chosen = rounds == index
        x, y = points[chosen].T.tolist()
        axes.scatter(
            x,
            y,
            s=size,
            c=[_color(member) for member in members[chosen].tolist()],
            marker=_marker(index * len(_COLORS)),
            alpha=0.75,
            linewidths=0,
        )


def _frame_sphere(axes: Axes) -> None:
    axes.set_xlim(-186, 186)
    axes.set_ylim(186, -6)  # the north pole, polar angle 0, is above
    axes.set_xticks(range(-180, 181, 60))
    axes.set_yticks(range(0, 181, 30))
    axes.grid(color=_INK, alpha=0.12, linewidth=0.8)


def _draw_legend(axes: Axes, names: Sequence[str], counts: Sequence[int]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=_marker(index), color=_color(index), markersize=7)
        for index in range(len(names))
    ]
    legend = axes.legend(
        handles,
        [str(index) for index in range(len(names))],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.02),
        ncols=math.ceil(len(names) / _LEGEND_ROWS),
        handletextpad=0.3,
        alignment="left",
    )
    # Set afterwards: what starts with "_" is left out of a legend.
    for text, name, count in zip(legend.get_texts(), names, counts, strict=True):
        text.set_text(f"{_short(name)} ({count})")


def similarity_figure(matrix: Tensor, names: Sequence[str], title: str) -> Figure:
    """Draw the mean cosines between sets, (S, S), as coloured cells with their values."""
    from matplotlib.figure import Figure

    count = len(names)
    digits = 2 if float(matrix.max() - matrix.min()) >= 0.1 else 3
    side = count * (0.72 if count <= 12 else 0.5)  # inches; a value must fit into a cell
    with _style():
        figure = Figure(figsize=(max(4.6, side + 2.8), max(3.4, side + 1.8)), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(matrix.numpy(), cmap="viridis")
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(count), [_short(n) for n in names], rotation=40, ha="right")
        axes.set_yticks(range(count), [_short(name) for name in names])
        axes.tick_params(length=0)
        _write_values(axes, matrix, digits, font_size=9 if count <= 12 else 6.5)
        bar = figure.colorbar(image, ax=axes, shrink=0.85, label="mean cosine")
        bar.outline.set_visible(False)
        low, high = float(matrix.min()), float(matrix.max())
        # Above the whole figure: few sets make a heat map that is narrower than its title.
        figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
        axes.set_title(f"min {low:.3f}, max {high:.3f}", loc="left", fontsize=9)
    return figure


def _write_values(axes: Axes, matrix: Tensor, digits: int, font_size: float) -> None:
    low, high = float(matrix.min()), float(matrix.max())
    for row, values in enumerate(matrix.tolist()):
        for column, value in enumerate(values):
            light = high > low and (value - low) / (high - low) > 0.65
            axes.text(
                column,
                row,
                f"{round(value, digits) + 0.0:.{digits}f}",  # without a minus before zero
                ha="center",
                va="center",
                fontsize=font_size,
                color=_INK if light else "white",
            )


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG. Raises OutputError."""
    content = io.BytesIO()
    with _style():
        figure.savefig(content, format="png", dpi=_PNG_DPI)
    write_bytes(path, content.getvalue())


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Draw in this style, whatever the process uses elsewhere."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Names may be in any script; what the font lacks becomes a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _set_title(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontweight="bold")
    line = axes.annotate(
        subtitle,
        (0, 1),
        xytext=(0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
    )
    line.set_in_layout(False)  # it may reach beyond the axes, which then would shrink


def _color(index: int) -> str:
    return _COLORS[index % len(_COLORS)]


def _marker(index: int) -> str:
    return _MARKERS[index // len(_COLORS) % len(_MARKERS)]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
