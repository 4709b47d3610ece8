"""Numbers of footage: each input by itself, and its difference to the rainy one with an interval.

All are ratios of sums over frames, so a bootstrap only weighs frames anew. What follows each other
within a second looks alike: blocks of consecutive frames are drawn, the same ones for both inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from eval.scores.bootstrap import difference_interval, draw_weights
from eval.scores.score import Score

__all__ = [
    "MEASURES",
    "Measure",
    "Rules",
    "Series",
    "block_weights",
    "change_of",
    "compare_series",
    "cut_blocks",
    "ratio",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_FEWEST_BLOCKS = 8
"""With fewer blocks there is no interval: it would be too narrow to mean anything."""


@dataclass(frozen=True)
class Measure:
    """One number of an input.

    Attributes:
        key: Its name in files.
        title: Its name in tables.
        help: What it is.
        better: Whether more of it is better; None: nobody can tell without labels.
        digits: Decimals in tables.
    """

    key: str
    title: str
    help: str
    better: Literal["more", "less"] | None
    digits: int = 2


MEASURES = (
    Measure("per_frame", "detections a frame", "detections that reach the confidence", None),
    Measure(
        "steady_per_frame",
        "steady ones",
        "those of them that belong to a track of at least half a second and three frames",
        "more",
    ),
    Measure(
        "flicker",
        "flicker",
        "detections that show up in a single frame, and tracks that are gone for a single frame, "
        "per 100 detections",
        "less",
    ),
    Measure(
        "breaks",
        "breaks",
        "tracks that are gone for longer and come back, and tracks that begin within a second and "
        "a box's side of where another one of their class ended (most switches of identity look "
        "like that), per 100 detections",
        "less",
    ),
    Measure("track_s", "median track (s)", "how long half of the tracks last, gaps included",
            "more"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How numbers are made.

    Attributes:
        conf: Confidence from which detections count, 0..1.
        stills: The images are no consecutive frames: nothing is followed.
        block_s: Length of the blocks that the bootstrap draws, in seconds.
        resamples: Resamples of the bootstrap; 0: no intervals.
        seed: Its seed.
        taught: Classes that the teacher knows; None without a teacher.
    """

    conf: float
    stills: bool = False
    block_s: float = 1.0
    resamples: int = 1000
    seed: int = 0
    taught: frozenset[int] | None = None


@dataclass(frozen=True, eq=False)
class Series:
    """What one input gave in each of F frames; arrays (F,) of counts, unless said otherwise.

    Attributes:
        detections: Detections with enough confidence.
        tracked: 1 for frames of shots in which things were followed, else 0.
        steady, flicker, breaks: See `eval.footage.tracks.Steadiness`; 0 where nothing was followed.
        starts: (T,) first frames of the tracks that are seen at least twice.
        lengths_s: (T,) how long these last, in seconds.
    """

    detections: IntArray
    tracked: IntArray
    steady: IntArray
    flicker: IntArray
    breaks: IntArray
    starts: IntArray
    lengths_s: FloatArray

    def select(self, frames: IntArray) -> Series:
        """Return some frames, given by their rising indices; tracks belong to their first frame."""
        places = np.full(len(self.detections), -1, np.int64)
        places[frames] = np.arange(len(frames))
        own = places[self.starts] >= 0
        names = ("detections", "tracked", "steady", "flicker", "breaks")
        return replace(
            self,
            **{name: getattr(self, name)[frames] for name in names},
            starts=places[self.starts][own],
            lengths_s=self.lengths_s[own],
        )


def cut_blocks(
    shots: Sequence[int], tracked: Sequence[bool], times_s: Sequence[float], block_s: float
) -> IntArray:
    """Number the blocks of consecutive frames that are drawn together.

    Args:
        shots: The shot of each frame, by number; frames of a shot are consecutive.
        tracked: For each frame whether its shot is consecutive frames; others stand for themselves.
        times_s: When each frame is shown in its shot, in seconds.
        block_s: Length of a block, in seconds.

    Returns:
        (F,) the block of each frame, from 0 without gaps.

    Example:
        >>> cut_blocks([0, 0, 0, 1], [True] * 4, [0.0, 0.9, 1.1, 1.0], 1.0).tolist()
        [0, 0, 1, 2]
    """
    keys = [
        (shot, int(time_s / block_s) if is_tracked else n)
        for n, (shot, is_tracked, time_s) in enumerate(zip(shots, tracked, times_s, strict=True))
    ]
    numbers = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def block_weights(blocks: IntArray, rules: Rules) -> FloatArray:
    """Draw how often each block counts: (1 + resamples, blocks), once each in the first row.

    With fewer than `_FEWEST_BLOCKS` blocks, there is only the first row.
    """
    count = int(blocks.max()) + 1
    resamples = rules.resamples if count >= _FEWEST_BLOCKS else 0
    return np.concatenate([np.ones((1, count)), draw_weights(count, resamples, rules.seed)])


def change_of(after: FloatArray, before: FloatArray) -> Score:
    """Return the difference of two numbers with its 95 % interval, as far as they are defined.

    Args:
        after: (1 + resamples,): the number itself, then those of the resamples.
        before: The same of the reference.
    """
    if np.isnan(after[0]) or np.isnan(before[0]):
        return Score()
    interval = difference_interval(after[1:], before[1:])
    return Score(float(after[0] - before[0]), *(interval or (None, None)))


def compare_series(
    rainy: Series, derained: Series, blocks: IntArray, rules: Rules
) -> tuple[dict[str, float | None], dict[str, Score]]:
    """Compute the measures of an input, and their differences to the rainy input.

    Args:
        rainy: The reference.
        derained: The input; `rainy` itself has no difference.
        blocks: (F,) from `cut_blocks`.
        rules: How.

    Returns:
        The value of each measure, None where it is undefined; its difference with a 95 % interval,
        which is missing where there are too few blocks.
    """
    weights = block_weights(blocks, rules)
    after = _estimates(derained, blocks, weights)
    before = after if derained is rainy else _estimates(rainy, blocks, weights)
    values = {key: None if np.isnan(drawn[0]) else float(drawn[0]) for key, drawn in after.items()}
    if derained is rainy:
        return values, dict.fromkeys(values, Score())
    return values, {key: change_of(after[key], before[key]) for key in values}


def _estimates(series: Series, blocks: IntArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Compute each measure for each row of weights of the blocks (B, K): (B,), NaN: undefined."""
    totals = {
        name: weights @ np.bincount(blocks, counts, weights.shape[1])
        for name, counts in (
            ("frames", np.ones(len(blocks))),
            ("tracked", series.tracked),
            ("detections", series.detections),
            ("followed", series.detections * series.tracked),
            ("steady", series.steady),
            ("flicker", series.flicker),
            ("breaks", series.breaks),
        )
    }
    return {
        "per_frame": ratio(totals["detections"], totals["frames"]),
        "steady_per_frame": ratio(totals["steady"], totals["tracked"]),
        "flicker": 100 * ratio(totals["flicker"], totals["followed"]),
        "breaks": 100 * ratio(totals["breaks"], totals["followed"]),
        "track_s": _weighted_median(series.lengths_s, blocks[series.starts], weights),
    }


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide element by element; NaN where the whole is 0."""
    quotient = np.full(len(whole), np.nan)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


def _weighted_median(values: FloatArray, blocks: IntArray, weights: FloatArray) -> FloatArray:
    """Return the median of values that count as often as their blocks, for each row of weights.

    Of an even number of values it is the lower one of the two in the middle.
    """
    if not len(values):
        return np.full(len(weights), np.nan)
    levels, place = np.unique(values, return_inverse=True)
    counts = np.zeros((weights.shape[1], len(levels)))
    np.add.at(counts, (blocks, place), 1.0)
    seen = np.cumsum(weights @ counts, axis=1)
    medians: FloatArray = levels[(seen < seen[:, -1:] / 2).sum(axis=1).clip(max=len(levels) - 1)]
    medians[seen[:, -1] == 0] = np.nan
    return medians
