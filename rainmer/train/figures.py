"""The curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rainmer.figures import color_of, draw_grid, save_figure, styled

__all__ = ["draw_curves"]

_LOSSES = ("total", "charbonnier", "l1", "ssim_term")
_CONTRASTIVE = ("chromatic", "degradation")


@styled
def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw losses, scores and learning rate over the steps; nothing without records.

    Args:
        rows: Records of the log, each with its `step`.
        path: The picture; its suffix decides the format.

    Raises:
        OutputError: It cannot be written.
    """
    from matplotlib.figure import Figure

    scores = dict.fromkeys(name for row in rows for name in row if name.startswith("psnr"))
    groups = {
        "losses": _LOSSES,
        "contrastive losses": _CONTRASTIVE,
        "PSNR in dB": tuple(scores),
        "learning rate": ("lr",),
    }
    shown = {
        title: lines
        for title, names in groups.items()
        if (lines := {name: points for name in names if (points := _points(rows, name))})
    }
    if not shown:  # the first save of a run limited by time comes before the first record
        return
    figure = Figure(figsize=(5.5 * len(shown), 3.6), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (title, lines) in zip(panels, shown.items(), strict=True):
        for index, (name, points) in enumerate(lines.items()):
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=color_of(index), label=name, linewidth=1)
        axes.set_title(title)
        axes.set_xlabel("step")
        draw_grid(axes)
        axes.legend()
    save_figure(path, figure)


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]
