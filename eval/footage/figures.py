"""The timeline: what happens in the footage over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.footage.records import RAINY
from eval.footage.study import Study
from eval.report.colors import color_in
from eval.report.figures import WIDTH, short
from rainmer.figures import INK, color_of, draw_grid, styled

__all__ = ["Timeline", "timeline_figure", "timeline_of"]

FloatArray = npt.NDArray[np.float64]

_POINTS = 240
_DERAINERS = 3


@dataclass(frozen=True, eq=False)
class Timeline:
    """Means over consecutive frames, so many that a figure can show them; arrays (N,).

    Attributes:
        times_s: When, with all shots one after the other.
        detections: For each input the detections a frame.
        gained, lost: Detections a frame that the first derainer gains and loses.
        meter: Values of the rain meter by name; NaN where there are none.
        cuts_s: Where shots begin, but the first.
        derainer: The first derainer.
    """

    times_s: FloatArray
    detections: dict[str, FloatArray]
    gained: FloatArray
    lost: FloatArray
    meter: dict[str, FloatArray]
    cuts_s: Sequence[float]
    derainer: str


def timeline_of(study: Study, points: int = _POINTS) -> Timeline:
    """Average over stretches of equally many frames, at most `points` of them."""
    begins, times = [0.0], []
    for shot in study.shots:
        own = [float(n) if study.rules.stills else study.frames[n].time_s for n in shot.frames]
        step = float(np.median(np.diff(own))) if len(own) > 1 else 1.0
        times += [begins[-1] + time_s - own[0] for time_s in own]
        begins.append(times[-1] + step)
    conf, first = study.rules.conf, study.derainers[0]
    parts = np.array_split(np.arange(len(times)), min(points, len(times)))

    def means(values: Sequence[float]) -> FloatArray:
        array = np.asarray(values, np.float64)
        return np.array([array[part].mean() for part in parts])

    meters = [frame.inputs[RAINY].meter for frame in study.frames]
    return Timeline(
        times_s=means(times),
        detections={
            name: means([int((d.scores >= conf).sum()) for d in study.detections[name]])
            for name in study.inputs[: _DERAINERS + 1]
        },
        gained=means([len(change.gained) for change in study.changes[first]]),
        lost=means([len(change.lost) for change in study.changes[first]]),
        meter={
            key: means([meter.get(key, np.nan) for meter in meters])
            for key in dict.fromkeys(key for meter in meters for key in meter)
        },
        cuts_s=begins[1:-1],
        derainer=first,
    )


@styled
def timeline_figure(timeline: Timeline, width: float = WIDTH, *, stills: bool) -> Figure:
    """Draw detections, gains and losses, and the values of the meter, above each other."""
    heights = [2.0, 1.3, *[1.0] * len(timeline.meter)]
    figure = Figure(figsize=(width, sum(heights) + 0.5), layout="constrained")
    axes = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for n, (name, values) in enumerate(timeline.detections.items()):
        color = color_of(n - 1) if n else color_in("rainy")
        label = short(name) if n else "rainy"
        axes[0].plot(timeline.times_s, values, color=color, linewidth=1.3, label=label)
    axes[0].set_ylabel("detections a frame")
    axes[0].set_ylim(bottom=0)
    columns = len(timeline.detections) if width >= WIDTH else 2
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns)
    _draw_changes(axes[1], timeline)
    for own, (name, values) in zip(axes[2:], timeline.meter.items(), strict=True):
        own.plot(timeline.times_s, values, color=color_in("rainy"), linewidth=1.2)
        own.set_ylabel(short(name))
    for own in axes:
        draw_grid(own)
        for cut_s in timeline.cuts_s if not stills else ():
            own.axvline(cut_s, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    axes[-1].set_xlabel("image" if stills else "seconds")
    return figure


def _draw_changes(axes: Axes, timeline: Timeline) -> None:
    for values, color, word in (
        (timeline.gained, color_of(0), "gained"),
        (-timeline.lost, color_in("loss"), "lost"),
    ):
        axes.fill_between(timeline.times_s, 0, values, color=color, alpha=0.7, linewidth=0)
        axes.plot(timeline.times_s, values, color=color, linewidth=0.8, label=word)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("changes a frame")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
