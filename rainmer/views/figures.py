"""Figures of views: a map of the images, and a heat map of how alike the sets are.

Matplotlib is imported by the functions that draw: nothing else of the package needs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rainmer.figures import COLORS, INK, color_of, draw_grid, marker_of, styled
from rainmer.views.projection import Projection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["map_figure", "similarity_figure"]

_LONGEST_NAME = 24
_LEGEND_ROWS = 24


@styled
def map_figure(
    projection: Projection, members: Tensor, names: Sequence[str], title: str, subtitle: str
) -> Figure:
    """Draw images as points, coloured by set.

    Args:
        projection: Where the N points lie.
        members: Set index of each point, (N,), integers.
        names: Names of the sets.
        title: First line above the points.
        subtitle: Second line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 5.6), layout="constrained")
    axes = figure.add_subplot()
    _draw_points(axes, projection.points, members)
    axes.set_xlabel(projection.axes[0])
    axes.set_ylabel(projection.axes[1])
    if projection.method == "umap":
        _frame_sphere(axes)
    else:
        draw_grid(axes)
    _set_title(axes, title, subtitle)
    _draw_legend(axes, names, members.bincount(minlength=len(names)).tolist())
    return figure


def _draw_points(axes: Axes, points: Tensor, members: Tensor) -> None:
    """Draw points in random order, so that no set hides another."""
    size = min(60.0, max(7.0, 9000 / len(points)))
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    points, members = points[order], members[order]
    rounds = members // len(COLORS)
    for index in sorted(set(rounds.tolist())):
        chosen = rounds == index
        x, y = points[chosen].T.tolist()
        axes.scatter(
            x,
            y,
            s=size,
            c=[color_of(member) for member in members[chosen].tolist()],
            marker=marker_of(index),
            alpha=0.75,
            linewidths=0,
        )


def _frame_sphere(axes: Axes) -> None:
    axes.set_xlim(-186, 186)
    axes.set_ylim(186, -6)  # the north pole, polar angle 0, is above
    axes.set_xticks(range(-180, 181, 60))
    axes.set_yticks(range(0, 181, 30))
    draw_grid(axes)


def _draw_legend(axes: Axes, names: Sequence[str], counts: Sequence[int]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=marker_of(index // len(COLORS)),
            color=color_of(index),
            markersize=7,
        )
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
    # Set afterwards: a legend leaves out labels that start with "_".
    for text, name, count in zip(legend.get_texts(), names, counts, strict=True):
        text.set_text(f"{_short(name)} ({count})")


@styled
def similarity_figure(matrix: Tensor, names: Sequence[str], title: str) -> Figure:
    """Draw the mean cosines between sets, (S, S), as coloured cells with their values."""
    from matplotlib.figure import Figure

    count = len(names)
    digits = 2 if float(matrix.max() - matrix.min()) >= 0.1 else 3
    side = count * (0.72 if count <= 12 else 0.5)  # inches; a value must fit into a cell
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
    # Above the whole figure: with few sets, the heat map is narrower than its title.
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
                f"{round(value, digits) + 0.0:.{digits}f}",  # no minus before zero
                ha="center",
                va="center",
                fontsize=font_size,
                color=INK if light else "white",
            )


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
    line.set_in_layout(False)  # it may exceed the axes, which would shrink them


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
