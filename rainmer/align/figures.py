"""Figures that compare sets: a radar of their properties and a histogram of rain density.

Matplotlib is imported by the functions that draw: nothing else of `rainmer` needs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rainmer.align.measure import HISTOGRAM_WIDTH, SetSummary
from rainmer.align.options import Entropy
from rainmer.figures import INK, color_of, draw_grid, marker_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "density_figure",
    "radar_figure",
    "radar_values",
]

_SPOKES = (
    ("clean_entropy", "clean entropy", "bits"),
    ("rainy_entropy", "rainy entropy", "bits"),
    ("density", "rain density", ""),
    ("gradient", "vertical gradient", ""),
    ("clean_luminance", "clean luminance", ""),
    ("rainy_luminance", "rainy luminance", ""),
    ("colourfulness", "colourfulness of rain", ""),
    ("psnr_db", "PSNR", "dB"),
)
_RINGS = (0.25, 0.5, 0.75, 1.0)
_LABEL_RADIUS = 1.07
_ROOM_X, _ROOM_Y = 1.68, 1.27
_PAPER = {"facecolor": "white", "alpha": 0.65, "linewidth": 0, "pad": 0.8}


def radar_values(
    summaries: Sequence[SetSummary], entropy: Entropy = "sum"
) -> list[list[float | None]]:
    """Return each set's 8 properties divided by the largest value of all sets, in published order.

    None where a set lacks the property.

    Args:
        summaries: The sets.
        entropy: Whether to show the sum over a set or the mean of its images.
    """
    rows = [_values(summary, entropy) for summary in summaries]
    largest = _largest(rows)
    return [
        [
            None if value is None else value / top if top else 0.0
            for value, top in zip(row, largest, strict=True)
        ]
        for row in rows
    ]


@styled
def radar_figure(summaries: Sequence[SetSummary], entropy: Entropy = "sum") -> Figure:
    """Draw the properties of sets on 8 spokes, each as a share of the largest value.

    The number at a spoke's end is that largest value. Where a set lacks a property its outline
    passes through the centre, and the legend says so.

    Args:
        summaries: The sets, at least one.
        entropy: As for `radar_values`.
    """
    from matplotlib.figure import Figure

    values = radar_values(summaries, entropy)
    largest = _largest([_values(summary, entropy) for summary in summaries])
    figure = Figure(figsize=(8.4, 6.5 + 0.24 * len(summaries)), layout="constrained")
    axes = figure.add_subplot()
    _draw_frame(axes, largest, entropy)
    for index, (summary, row) in enumerate(zip(summaries, values, strict=True)):
        points = [_point(angle, value or 0.0) for angle, value in zip(_ANGLES, row, strict=True)]
        x, y = zip(*points, points[0], strict=True)
        color = color_of(index)
        axes.fill(x, y, color=color, alpha=0.1, linewidth=0)
        axes.plot(
            x,
            y,
            color=color,
            linewidth=2,
            marker=marker_of(index),
            markersize=5,
            label=_legend(summary, row),
        )
    figure.legend(loc="outside lower center", ncols=1, fontsize=10)
    return figure


@styled
def density_figure(summaries: Sequence[SetSummary]) -> Figure:
    """Draw a histogram of each set's rain densities, as shares in the 10 published bins.

    Args:
        summaries: The sets, at least one.
    """
    from matplotlib.figure import Figure

    bins = len(summaries[0].rain_density_counts)
    width = 0.84 * HISTOGRAM_WIDTH / len(summaries)
    rows = math.ceil(len(summaries) / 2)
    figure = Figure(figsize=(9.0, 4.3 + 0.22 * rows), layout="constrained")
    axes = figure.add_subplot()
    for index, summary in enumerate(summaries):
        shift = (index - (len(summaries) - 1) / 2) * width
        axes.bar(
            [(place + 0.5) * HISTOGRAM_WIDTH + shift for place in range(bins)],
            [100 * count / summary.pairs for count in summary.rain_density_counts],
            0.94 * width,
            color=color_of(index),
            label=_density_legend(summary),
        )
    axes.set_xticks([place * HISTOGRAM_WIDTH for place in range(bins + 1)])
    axes.set_xlim(0, bins * HISTOGRAM_WIDTH)
    axes.set_xlabel("rain density")
    axes.set_ylabel("share of pairs (%)")
    draw_grid(axes, "y")
    figure.legend(loc="outside upper center", ncols=1 if len(summaries) == 1 else 2)
    return figure


def _values(summary: SetSummary, entropy: Entropy) -> list[float | None]:
    suffix = "_sum" if entropy == "sum" else ""
    names = (f"{name}{suffix}" if "entropy" in name else name for name, _, _ in _SPOKES)
    return [getattr(summary, name) for name in names]


def _largest(rows: Sequence[Sequence[float | None]]) -> list[float]:
    return [
        max((value for value in column if value is not None), default=0.0)
        for column in zip(*rows, strict=True)
    ]


# From the top, clockwise.
_ANGLES = tuple(math.tau * (0.25 - index / len(_SPOKES)) for index in range(len(_SPOKES)))


def _point(angle: float, radius: float) -> tuple[float, float]:
    return radius * math.cos(angle), radius * math.sin(angle)


def _draw_frame(axes: Axes, largest: Sequence[float], entropy: Entropy) -> None:
    """Draw rings that are polygons, and spokes with a property and its largest value at the end."""
    for ring in _RINGS:
        corners = [_point(angle, ring) for angle in (*_ANGLES, _ANGLES[0])]
        outer = ring == _RINGS[-1]
        axes.plot(
            *zip(*corners, strict=True),
            color=INK,
            alpha=0.6 if outer else 0.18,
            linewidth=1.0 if outer else 0.8,
        )
    for angle, top, (name, label, unit) in zip(_ANGLES, largest, _SPOKES, strict=True):
        end = _point(angle, 1.0)
        axes.plot((0, end[0]), (0, end[1]), color=INK, alpha=0.18, linewidth=0.8)
        which = f" ({entropy})" if "entropy" in name else ""
        x, y = _point(angle, _LABEL_RADIUS)
        axes.text(
            x,
            y,
            f"{label}{which}\n{_number(top)} {unit}".rstrip(),
            ha="center" if abs(x) < 0.1 else "left" if x > 0 else "right",
            va="center" if abs(y) < 0.1 else "bottom" if y > 0 else "top",
            linespacing=1.3,
        )
    for ring in _RINGS[:-1]:
        axes.text(0.03, ring, f"{ring:.0%}", fontsize=8, va="bottom", zorder=4, bbox=_PAPER)
    # The layout ignores labels: make room for them here.
    axes.set_xlim(-_ROOM_X, _ROOM_X)
    axes.set_ylim(-_ROOM_Y, _ROOM_Y)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _legend(summary: SetSummary, values: Sequence[float | None]) -> str:
    lacking = [label for (_, label, _), value in zip(_SPOKES, values, strict=True) if value is None]
    text = f"{summary.name}: {summary.pairs:,} pairs"
    return f"{text}; undefined: {', '.join(lacking)}" if lacking else text


def _density_legend(summary: SetSummary) -> str:
    outside = summary.pairs - sum(summary.rain_density_counts)
    text = f"{summary.name}: mean {summary.rain_density:.3f}, {summary.pairs:,} pairs"
    return f"{text}, {outside:,} above" if outside else text
