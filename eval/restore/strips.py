"""Choosing the picture strips: the images where a derainer does worst, and where it does best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eval.report.strips import Panel, Strip
from eval.report.tables import CONTROLS, UNDEFINED
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
    """Strips of one page, in groups.

    Attributes:
        worst: The images that gain least.
        lowest: Others with the lowest PSNR after deraining.
        best: The images that gain most.
        unscored: Images of sets without clean ones, evenly spread.
    """

    worst: list[Strip]
    lowest: list[Strip]
    best: list[Strip]
    unscored: list[Strip]


class _Gain(NamedTuple):
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

    Controls get strips only when there is no other derainer. Of many methods and sets, the first.

    Args:
        rows: Rows of a comparison; of each set the rainy images first.
        convention: Whose PSNR decides.
        derain: Derains a frame of an image by its name, as its row did.
        metrics: What captions tell beside PSNR and SSIM.
    """
    rainy = {row.images.label: row for row in rows if row.method is None}
    derained = [row for row in rows if row.method and row.usable]
    wanted = [row for row in derained if row.name not in CONTROLS] or derained
    measures = [*measures_of(convention), *metrics]
    strips = Strips([], [], [], [])
    for row in wanted[:_MOST_ROWS]:
        groups = _groups(rainy[row.images.label], row, convention)
        for chosen, group in zip(groups, strips, strict=True):
            group += [_strip(row, rainy[row.images.label], one, measures, derain) for one in chosen]
    return strips


def _groups(rainy: RowResult, row: RowResult, convention: Convention) -> list[list[_Gain]]:
    """Choose the images of each group; none is in two."""
    if not row.images.has_reference:
        images = row.usable
        shown = min(len(images), _MOST_UNSCORED)
        spread = [images[i * len(images) // shown] for i in range(shown)]
        return [[], [], [], [_Gain(image, 0.0, math.nan) for image in spread]]
    gains = _gains(rainy, row, convention)
    by_gain = sorted(gains, key=lambda one: one.gain)
    worst = by_gain[:_MOST_WORST]
    best = by_gain[len(worst) :][-_MOST_BEST:]
    others = [one for one in gains if one not in worst + best]
    lowest = sorted(others, key=lambda one: one.after)[:_MOST_LOW]
    return [worst, lowest, best, []]


def _gains(rainy: RowResult, row: RowResult, convention: Convention) -> list[_Gain]:
    """Return what each image gains; images with infinite scores are left out."""
    key = key_of("psnr", convention)
    gains = []
    for image in row.usable:
        before, after = (one.scores[image.name].scores.get(key, math.nan) for one in (rainy, row))
        if math.isfinite(before) and math.isfinite(after):
            gains.append(_Gain(image, after - before, after))
    return gains


def _strip(
    row: RowResult, rainy: RowResult, one: _Gain, measures: Sequence[Measure], derain: DerainFrame
) -> Strip:
    name = one.image.name
    frame, clean = load_pair(one.image, row.images.height)
    panels = [
        Panel("rainy", frame, caption=_caption(rainy, name, measures)),
        Panel(row.name, derain(row, frame, name), caption=_caption(row, name, measures)),
    ]
    if clean is not None:
        panels.append(Panel("clean", clean, caption="the target"))
    return Strip(name, row.images.label, row.name, round(one.gain, 2), panels, unit="dB")


def _caption(row: RowResult, name: str, measures: Sequence[Measure]) -> str:
    scores = row.scores[name].scores
    texts = [
        f"{text} dB" if measure.title == "PSNR" else f"{measure.title} {text}"
        for measure in measures
        if (text := format_score(scores.get(measure.key), measure.digits)) != UNDEFINED
    ]
    return ", ".join(texts) or "no score"
