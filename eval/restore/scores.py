"""PSNR and SSIM of a set: means that hide nothing, and how certain a difference is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from eval.scores.bootstrap import difference_interval, draw_weights
from rainmer.frames.arrays import upload
from rainmer.metrics import Convention, psnr, ssim

__all__ = [
    "CONVENTIONS",
    "Difference",
    "Measure",
    "compare_scores",
    "key_of",
    "mean_score",
    "measures_of",
    "score_image",
]

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A score, as tables print it.

    Attributes:
        key: Its name in rows.
        title: Its name for readers.
        digits: Decimals.
        lower_is_better: Which way is up.
    """

    key: str
    title: str
    digits: int
    lower_is_better: bool = False

    @property
    def heading(self) -> str:
        """The title, with an arrow where lower is better."""
        return f"{self.title} ↓" if self.lower_is_better else self.title


class Difference(NamedTuple):
    """A mean difference with the ends of its 95 % interval, which may be unknown."""

    mean: float | None
    low: float | None = None
    high: float | None = None


def key_of(metric: str, convention: Convention) -> str:
    """Return the name of a score in rows: `psnr` and `ssim` are MATLAB's.

    Example:
        >>> key_of("psnr", "matlab"), key_of("ssim", "official")
        ('psnr', 'ssim_official')
    """
    return metric if convention == "matlab" else f"{metric}_{convention}"


def measures_of(convention: Convention) -> tuple[Measure, Measure]:
    """Return PSNR and SSIM in a convention."""
    return (
        Measure(key=key_of("psnr", convention), title="PSNR", digits=2),
        Measure(key=key_of("ssim", convention), title="SSIM", digits=4),
    )


def score_image(
    restored: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    clean: npt.NDArray[np.uint8],
    conventions: Sequence[Convention],
    device: torch.device,
) -> dict[str, float]:
    """Score one image against its clean partner.

    Args:
        restored: (H, W, 3), RGB, uint8 of 0..255 or float32 of 0..1.
        clean: (H, W, 3), RGB, uint8.
        conventions: How; see `rainmer.metrics`.
        device: Where it is computed.

    Returns:
        Score by name (`key_of`). Equal images have an infinite PSNR; the SSIM of an image smaller
        than its window is undefined and left out.
    """
    preds, target = upload([restored], device), upload([clean], device)
    scores = {}
    for convention in conventions:
        for metric, measure in (("psnr", psnr), ("ssim", ssim)):
            value = float(measure(preds, target, convention=convention))
            if not math.isnan(value):
                scores[key_of(metric, convention)] = value
    return scores


def mean_score(values: Sequence[float]) -> float | None:
    """Return the plain mean: infinite if one value is, None of none."""
    return float(np.mean(values)) if values else None


def compare_scores(
    differences: Sequence[float], units: Sequence[Hashable], resamples: int, seed: int
) -> Difference:
    """Return the mean of paired differences with its 95 % bootstrap interval over units.

    Images of one scene share what makes them hard, so scenes are resampled as a whole where there
    are any; each keeps the weight of its images.

    Args:
        differences: Derained minus rainy, one of each image.
        units: What each image belongs to: its scene, or itself.
        resamples: Bootstrap resamples; 0 gives no interval.
        seed: Seed of the bootstrap.

    Returns:
        The mean, None where it is undefined (no image, or infinite scores); without an interval
        where there is only one unit.

    Example:
        >>> compare_scores([1.0, 1.0], ["a", "b"], resamples=10, seed=0)
        Difference(mean=1.0, low=1.0, high=1.0)
    """
    values = np.asarray(differences, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        return Difference(None)
    mean = float(values.mean())
    index = {unit: position for position, unit in enumerate(dict.fromkeys(units))}
    if resamples == 0 or len(index) < 2:
        return Difference(mean)
    positions = np.asarray([index[unit] for unit in units])
    totals = np.bincount(positions, weights=values)
    weights = draw_weights(len(index), resamples, seed)
    means = (weights @ totals) / (weights @ np.bincount(positions))
    interval = difference_interval(means, np.zeros_like(means))
    return Difference(mean, *(interval or (None, None)))
