"""The figure of a restoration run: which images gain, by how bad they were."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from eval.report.figures import WIDTH, color_of, legend, marker_of, ruled, styled
from eval.restore.comparison import RowResult

__all__ = ["MOST_POINTS", "gain_points", "image_scatter"]

MOST_POINTS = 400
"""Most images of a set and method that are drawn: a page stays small enough to be sent around."""


def gain_points(rainy: RowResult, row: RowResult, key: str) -> list[tuple[float, float]]:
    """Return the score of each rainy image and what deraining adds to it.

    Images with an infinite score are left out; of many images, evenly spread ones are returned.
    """
    points = []
    for image in row.usable:
        before = rainy.scores[image.name].scores.get(key, math.nan)
        gain = row.scores[image.name].scores.get(key, math.nan) - before
        if math.isfinite(before) and math.isfinite(gain):
            points.append((before, gain))
    shown = min(len(points), MOST_POINTS)
    return [points[i * len(points) // shown] for i in range(shown)]


@styled
def image_scatter(rows: Sequence[RowResult], key: str) -> Figure | None:
    """Draw the gain of PSNR of each image against its PSNR in the rain.

    Args:
        rows: Rows of a comparison; of each set the rainy images first.
        key: Name of the score, a PSNR.

    Returns:
        The figure, a colour for each method and a marker for each set; None without a point.
    """
    series = []
    rainy = {row.images.label: row for row in rows if row.method is None}
    for row in rows:
        if row.method is not None:
            points = gain_points(rainy[row.images.label], row, key)
            if points:
                series.append((row.name, row.images.label, points))
    if not series:
        return None
    names = list(dict.fromkeys(name for name, _, _ in series))
    places = list(dict.fromkeys(place for _, place, _ in series))
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, place, points in series:
        axes.plot(
            *zip(*points, strict=True),
            color=color_of(names.index(name)),
            marker=marker_of(places.index(place)),
            markersize=4.5,
            linestyle="none",
            alpha=0.6,
        )
    axes.set_xlabel("PSNR of the rainy image (dB)")
    axes.set_ylabel("gain of PSNR (dB)")
    axes.margins(0.05)
    left, right = axes.get_xlim()
    ruled(axes)
    axes.set_xlim(left, right)  # without the zero of dB, where no image is
    figure.legend(handles=legend(names, places), loc="outside right upper")
    return figure
