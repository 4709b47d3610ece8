"""The curves of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rainmer.files import atomic_write

__all__ = ["draw_curves"]

_LOSSES = ("total", "charbonnier", "l1", "ssim_term")
_CONTRASTIVE = ("chromatic", "degradation")


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw losses, scores and learning rate over the steps.

    Args:
        rows: Lines of the log, each with its `step`.
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
    figure = Figure(figsize=(5.5 * len(shown), 3.6), layout="constrained")
    axes = figure.subplots(1, max(len(shown), 1), squeeze=False)[0]
    for axis, (title, lines) in zip(axes, shown.items(), strict=False):
        for name, points in lines.items():
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1)
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]
