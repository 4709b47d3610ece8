"""Selection of picture strips: the images on which a derainer does worst and best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eval.report.strips import Panel, Strip
from eval.report.tables import CONTROLS
from eval.restore.comparison import RowResult
from eval.restore.scores import Measure, key_of, measures_of
from eval.restore.sets import load_pair
from eval.restore.tables import format_score
from rainmer.data.layouts import Pair
from rainmer.frames.arrays import Frame
from rainmer.metrics import Convention

__all__ = ["Strips", "select_strips"]

_MOST_WORST = 3
_MOST_LOW = 2
_MOST_BEST = 1
_MOST_UNSCORED = 2
_MOST_ROWS = 6

DerainFrame = Callable[[RowResult, Frame, str], Frame]


class Strips(NamedTuple):
    """The strips of a report, in groups.

    Attributes:
        worst: The images with the smallest gains.
        lowest: Other images with the lowest PSNR after deraining.
        best: The images with the largest gains.
        unscored: Images of sets without clean images, evenly spread.
    """

    worst: list[Strip]
    lowest: list[Strip]
    best: list[Strip]
    unscored: list[Strip]


class _Gain(NamedTuple):
    """An image with its PSNR gain and its PSNR after deraining, both in dB."""

    image: Pair
    gain: float
    after: float


def select_strips(
    rows: Sequence[RowResult],
    convention: Convention,
    derain: DerainFrame,
    metrics: Sequence[Measure] = (),
) -> Strips:
    """Build strips (rainy | derained | clean) of the extremes of each method on each set.

    Controls get strips only if there is no other derainer. With many rows, only the first get some.

    Args:
        rows: Rows of a comparison by set, rainy images first.
        convention: Convention of the PSNR that decides.
        derain: Derains a frame as its row did; the text is the image's name.
        metrics: Other metrics for the captions.
    """
    rainy = {row.image_set.label: row for row in rows if row.method is None}
    derained = [row for row in rows if row.method and row.usable]
    wanted = [row for row in derained if row.name not in CONTROLS] or derained
    measures = [*measures_of(convention), *metrics]
    strips = Strips([], [], [], [])
    for row in wanted[:_MOST_ROWS]:
        groups = _groups(rainy[row.image_set.label], row, convention)
        for chosen, group in zip(groups, strips, strict=True):
            group += [
                _strip(row, rainy[row.image_set.label], gain, measures, derain) for gain in chosen
            ]
    return strips


def _groups(rainy: RowResult, row: RowResult, convention: Convention) -> list[list[_Gain]]:
    """Choose the images of each group; no image is in two groups."""
    if not row.image_set.has_reference:
        images = row.usable
        shown = min(len(images), _MOST_UNSCORED)
        spread = [images[i * len(images) // shown] for i in range(shown)]
        return [[], [], [], [_Gain(image, 0.0, math.nan) for image in spread]]
    gains = _gains(rainy, row, convention)
    by_gain = sorted(gains, key=lambda gain: gain.gain)
    worst = by_gain[:_MOST_WORST]
    best = by_gain[len(worst) :][-_MOST_BEST:]
    others = [gain for gain in gains if gain not in worst + best]
    lowest = sorted(others, key=lambda gain: gain.after)[:_MOST_LOW]
    return [worst, lowest, best, []]


def _gains(rainy: RowResult, row: RowResult, convention: Convention) -> list[_Gain]:
    """Return the gain of each image, leaving out images with an infinite score."""
    return [
        _Gain(image, after - before, after)
        for image, before, after in row.pairs(rainy, key_of("psnr", convention))
        if math.isfinite(before) and math.isfinite(after)
    ]


def _strip(
    row: RowResult, rainy: RowResult, gain: _Gain, measures: Sequence[Measure], derain: DerainFrame
) -> Strip:
    name = gain.image.name
    frame, clean = load_pair(gain.image, row.image_set.height)
    panels = [
        Panel("rainy", frame, caption=_caption(rainy, name, measures)),
        Panel(row.name, derain(row, frame, name), caption=_caption(row, name, measures)),
    ]
    if clean is not None:
        panels.append(Panel("clean", clean, caption="the target"))
    return Strip(name, row.image_set.label, row.name, round(gain.gain, 2), panels, unit="dB")


def _caption(row: RowResult, name: str, measures: Sequence[Measure]) -> str:
    """Return the scores of an image as text."""
    scores = row.scores[name].scores
    texts = [
        _score_text(measure, scores[measure.key]) for measure in measures if measure.key in scores
    ]
    return ", ".join(texts) or "no score"


def _score_text(measure: Measure, value: float) -> str:
    text = format_score(value, measure.digits)
    return f"{text} {measure.unit}" if measure.unit else f"{measure.title} {text}"
