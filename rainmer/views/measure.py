"""Measures of whether the vectors of several sets of images differ by set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Separability", "mean_cosines", "measure_separability"]

_REPEATS = 20
_RESAMPLES = 2000
_INTERVAL = (0.025, 0.975)
_SMALLEST_DISTANCE = 1e-12  # below it, vectors are equal up to rounding


def mean_cosines(sets: Sequence[Tensor]) -> Tensor:
    """Return the mean dot product of all pairs of vectors, for every two sets.

    The diagonal pairs a set with itself and includes each vector with itself, as in the published
    heat map.

    Args:
        sets: For each of S sets its unit vectors (N, C), N at least 1.

    Returns:
        Symmetric matrix (S, S), float64, on the CPU.

    Example:
        >>> x, y = torch.eye(2)
        >>> mean_cosines([torch.stack([x, y]), torch.stack([x, x])])
        tensor([[0.5000, 0.5000],
                [0.5000, 1.0000]], dtype=torch.float64)
    """
    # A mean over pairs of dot products is the dot product of the means.
    means = torch.stack([vectors.double().mean(0) for vectors in sets])
    matrix = means @ means.T
    return (matrix + matrix.T) / 2


@dataclass(frozen=True)
class Separability:
    """How well the vector of an image predicts its set.

    Attributes:
        accuracy: Share of held-out images that a nearest-centroid classifier assigns to their set,
            0..1, all sets weighted equally.
        ci_low, ci_high: 95 % bootstrap interval of it over the images.
        chance: Accuracy of guessing: 1 / number of sets.
        confusion: (S, S), float64: share of the images of a set (row) that are taken for another
            (column); rows sum to 1.
        silhouette: Mean silhouette, -1..1, by cosine distance, all sets weighted equally: 0 for
            overlapping sets, 1 for tight sets far apart.
        silhouettes: Its mean over the images of each set, (S,), float64.
    """

    accuracy: float
    ci_low: float
    ci_high: float
    chance: float
    confusion: Tensor
    silhouette: float
    silhouettes: Tensor


def measure_separability(sets: Sequence[Tensor], *, seed: int = 0) -> Separability | None:
    """Measure whether vectors separate sets.

    The classifier takes the mean direction of a random half of each set and assigns the images of
    the other half by the largest cosine; halves are swapped, and this is repeated for 20 splits.
    An image must not occur twice in a set: it would be in both halves.

    Args:
        sets: For each of S sets its unit vectors (N, C), N at least 2.
        seed: Random seed of the splits and resamples.

    Returns:
        The measures; None for fewer than two sets, where there is nothing to separate.
    """
    if len(sets) < 2:
        return None
    # Normalised again: float32 is off by 1e-7, more than some distances.
    sets = [F.normalize(vectors.double(), dim=1) for vectors in sets]
    chance = torch.Generator().manual_seed(seed)
    assigned = _held_out_shares(sets, chance)
    correct = [shares[:, index] for index, shares in enumerate(assigned)]
    low, high = _interval(correct, chance)
    silhouettes = torch.stack([values.mean() for values in _silhouettes(sets)])
    return Separability(
        accuracy=float(torch.stack([values.mean() for values in correct]).mean()),
        ci_low=low,
        ci_high=high,
        chance=1 / len(sets),
        confusion=torch.stack([shares.mean(0) for shares in assigned]),
        silhouette=float(silhouettes.mean()),
        silhouettes=silhouettes,
    )


def _held_out_shares(sets: Sequence[Tensor], chance: torch.Generator) -> list[Tensor]:
    """Return per set (N, S): how often each held-out image was assigned to each set."""
    counts = [vectors.new_zeros(len(vectors), len(sets)) for vectors in sets]
    for _ in range(_REPEATS):
        orders = [torch.randperm(len(vectors), generator=chance) for vectors in sets]
        halves = [order.tensor_split(2) for order in orders]
        for known, held_out in ((0, 1), (1, 0)):
            centroids = torch.stack(
                [vectors[half[known]].mean(0) for vectors, half in zip(sets, halves, strict=True)]
            )
            centroids = F.normalize(centroids, dim=1)
            for vectors, half, count in zip(sets, halves, counts, strict=True):
                index = half[held_out]
                count[index, (vectors[index] @ centroids.T).argmax(1)] += 1
    return [count / _REPEATS for count in counts]


def _interval(correct: Sequence[Tensor], chance: torch.Generator) -> tuple[float, float]:
    """Return the bootstrap interval of the mean over sets of the mean over images."""
    accuracy = torch.zeros(_RESAMPLES, dtype=torch.float64)
    for values in correct:
        resamples = torch.randint(len(values), (_RESAMPLES, len(values)), generator=chance)
        accuracy += values[resamples].mean(1) / len(correct)
    low, high = accuracy.quantile(torch.tensor(_INTERVAL, dtype=torch.float64)).tolist()
    return low, high


def _silhouettes(sets: Sequence[Tensor]) -> list[Tensor]:
    """Return the silhouette of every image (Rousseeuw 1987), by cosine distance, per set."""
    # A mean of cosine distances is one minus the cosine with the mean: no matrix of all pairs.
    means = torch.stack([vectors.mean(0) for vectors in sets])
    silhouettes = []
    for index, vectors in enumerate(sets):
        distances = 1 - vectors @ means.T
        inside = distances[:, index] * len(vectors) / (len(vectors) - 1)  # without itself
        distances[:, index] = torch.inf
        others = distances.min(1).values
        larger = torch.maximum(inside, others).clamp(min=_SMALLEST_DISTANCE)
        silhouettes.append((others - inside) / larger)
    return silhouettes
