"""PSNR and SSIM of images and sets: plain means, and intervals of differences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from eval.scores.bootstrap import difference_interval, draw_weights
from eval.scores.score import Score
from rainmer.frames.arrays import upload
from rainmer.metrics import Convention, psnr, ssim

__all__ = [
    "MeanScore",
    "Measure",
    "compare_scores",
    "key_of",
    "mean_score",
    "measures_of",
    "score_image",
]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure, and how tables print its scores.

    Attributes:
        key: Its name in metrics.json and in the files of rows.
        title: Its name for readers.
        digits: Decimals.
        lower_is_better: Whether lower scores are better.
        unit: Its unit; empty: none.
    """

    key: str
    title: str
    digits: int = 4
    lower_is_better: bool = False
    unit: str = ""

    @property
    def heading(self) -> str:
        """The title, with an arrow where lower is better."""
        return f"{self.title} ↓" if self.lower_is_better else self.title


@dataclass(frozen=True, kw_only=True)
class MeanScore:
    """The score of a row: a measure averaged over the images of a set.

    Attributes:
        mean: Plain mean over the images; infinite if any score is, None without scores.
        change: Mean difference to the rainy images; undefined for the rainy images themselves.
        infinite: Number of images with an infinite score, because they equal the clean ones.
        mean_of_others: Mean over the images with a finite score, where some are infinite.
    """

    mean: float | None
    change: Score = field(default_factory=Score)
    infinite: int = 0
    mean_of_others: float | None = None


def key_of(metric: str, convention: Convention) -> str:
    """Return a score's name in metrics.json; plain `psnr` and `ssim` mean convention `matlab`.

    Example:
        >>> key_of("psnr", "matlab"), key_of("ssim", "official")
        ('psnr', 'ssim_official')
    """
    return metric if convention == "matlab" else f"{metric}_{convention}"


def measures_of(convention: Convention) -> tuple[Measure, Measure]:
    """Return PSNR and SSIM in a convention."""
    return (
        Measure(key=key_of("psnr", convention), title="PSNR", digits=2, unit="dB"),
        Measure(key=key_of("ssim", convention), title="SSIM"),
    )


def score_image(
    restored: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    clean: npt.NDArray[np.uint8],
    conventions: Sequence[Convention],
    device: torch.device,
) -> dict[str, float]:
    """Score an image against its clean partner.

    Args:
        restored: (H, W, 3), RGB, uint8 of 0..255 or float32 of 0..1.
        clean: (H, W, 3), RGB, uint8.
        conventions: Conventions of PSNR and SSIM; see `rainmer.metrics`.
        device: Device that computes scores.

    Returns:
        Scores by name (`key_of`). Equal images have an infinite PSNR. An image smaller than the
        SSIM window has no SSIM.
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
    """Return the plain mean; infinite if any value is, None without values."""
    return float(np.mean(values)) if values else None


def compare_scores(
    differences: Sequence[float], units: Sequence[Hashable], resamples: int, seed: int
) -> Score:
    """Return the mean of paired differences with its 95 % bootstrap interval.

    The bootstrap resamples units. Images of a scene are not independent, so in a set with scenes a
    unit is a scene with all its images.

    Args:
        differences: Derained minus rainy score of each image.
        units: The unit of each image: its scene, or the image itself.
        resamples: Bootstrap resamples; 0 leaves the interval out.
        seed: Seed of the bootstrap.

    Returns:
        The mean, undefined without images or if a difference is infinite or NaN. There is no
        interval with fewer than two units.

    Example:
        >>> compare_scores([1.0, 1.0], ["a", "b"], resamples=10, seed=0)
        Score(value=1.0, low=1.0, high=1.0)
    """
    values = np.asarray(differences, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        return Score()
    mean = float(values.mean())
    index = {unit: position for position, unit in enumerate(dict.fromkeys(units))}
    if resamples == 0 or len(index) < 2:
        return Score(mean)
    positions = np.asarray([index[unit] for unit in units])
    totals = np.bincount(positions, weights=values)
    weights = draw_weights(len(index), resamples, seed)
    means = (weights @ totals) / (weights @ np.bincount(positions))
    low, high = difference_interval(means, np.zeros_like(means)) or (None, None)
    return Score(mean, low, high)
