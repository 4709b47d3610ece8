"""The readings of videos and images over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rainmer.figures import color_of, draw_grid, save_figure, styled
from rainmer.meter.meter import Reading

__all__ = ["draw_readings"]

_PANELS = (
    ("rain rate, mm/h", ("rate_mm_h",)),
    ("share of the picture", ("coverage", "drops")),
    ("probability, transmission", ("rain", "night", "transmission", "benefit")),
)


@styled
def draw_readings(
    times: Sequence[float], readings: Sequence[Reading], path: Path, *, axis: str, title: str
) -> None:
    """Draw readings over time or over images, their errors as bands.

    Args:
        times: When each frame is shown in seconds, or its number.
        readings: Of each frame.
        path: The picture, `.png` or `.svg`.
        axis: What `times` are.
        title: Name of the source.

    Raises:
        OutputError: It cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.0), layout="constrained")
    for axes, (label, names) in zip(figure.subplots(3, 1, sharex=True), _PANELS, strict=True):
        for index, name in enumerate(names):
            values = [getattr(reading, name) for reading in readings]
            if None in values:
                continue
            color = color_of(index)
            axes.plot(times, values, color=color, linewidth=1.2, label=name, marker=".")
            if name in readings[0].intervals and name not in ("rain", "night"):
                low, high = zip(*(reading.intervals[name] for reading in readings), strict=True)
                axes.fill_between(times, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0.0)
        draw_grid(axes)
        axes.legend(fontsize=7, loc="upper right")
    axes.set_xlabel(axis)
    figure.suptitle(title)
    save_figure(path, figure)
