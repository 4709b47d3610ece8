"""Losses of restoration and of contrast.

Source: the training scripts of Rainmer (ACM MM 2024), section 2.3 of the training protocol, and of
the methods compared there. Images are (B, C, H, W), 0..1; restored images are not clamped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer.train.boxes import CropBoxes

__all__ = [
    "PIXEL_LOSSES",
    "ContrastLosses",
    "ExtraLoss",
    "PixelLoss",
    "charbonnier",
    "contrast_losses",
    "contrastive",
    "ssim",
]

_WINDOW = 11
_SIGMA = 1.5
_C1 = 0.01**2
_C2 = 0.03**2
_CHARBONNIER_EPSILON = 1e-3
_SSIM_WEIGHT = 0.1
_WEIGHT_EPSILON = 1e-5


class ExtraLoss(Protocol):
    """A further loss of restored crops, which the caller of `rainmer.train.run.train` gives.

    It is called within the run's autocast, with restored and clean crops (B, 3, H, W), RGB, on the
    run's device; restored crops are clamped to 0..1. It returns scalars by name, already
    weighted, whose sum is added to the loss to minimise. For validation it is called without
    gradients on whole images.
    """

    fingerprint: str
    """A text that changes with the values of the loss: a run resumes with the same one only."""

    classes: Sequence[str]
    """Names of the classes whose boxes it needs; none: it is given no boxes."""

    def __call__(
        self, restored: Tensor, clean: Tensor, boxes: CropBoxes | None = None
    ) -> Mapping[str, Tensor]:
        """Return the terms."""


class PixelLoss(NamedTuple):
    """A pixel loss of a batch.

    Attributes:
        total: The loss to minimise, a scalar with gradient.
        parts: Detached scalars to log, by name.
    """

    total: Tensor
    parts: dict[str, Tensor]


def charbonnier(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt((x - y)² + 1e-6) over all elements."""
    return ((restored - target).square() + _CHARBONNIER_EPSILON**2).sqrt().mean()


def ssim(restored: Tensor, target: Tensor) -> Tensor:
    """Return the structural similarity of each image, as used in losses (B,).

    A Gaussian window of 11x11 pixels with a standard deviation of 1.5, zero padding, each channel
    separately, at full resolution. `rainmer.metrics.ssim` has the conventions for measuring.
    """
    x, y = restored.float(), target.float()
    mean_x, mean_y, square_x, square_y, product = _blur(
        torch.cat((x, y, x * x, y * y, x * y))
    ).chunk(5)
    variance_x = square_x - mean_x.square()
    variance_y = square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return (luminance * structure).mean((1, 2, 3))


def _blur(images: Tensor) -> Tensor:
    """Filter every channel with the separable window."""
    batch, channels, height, width = images.shape
    window = _window(images.device)
    planes = images.reshape(batch * channels, 1, height, width)
    rows = F.conv2d(planes, window[None, None, :, None], padding=(_WINDOW // 2, 0))
    blurred = F.conv2d(rows, window[None, None, None, :], padding=(0, _WINDOW // 2))
    return blurred.view(batch, channels, height, width)


@functools.cache
def _window(device: torch.device) -> Tensor:
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    return (window / window.sum()).float().to(device)


def _charbonnier_ssim(restored: Tensor, target: Tensor) -> PixelLoss:
    """0.1 (1 - SSIM) + Charbonnier: Rainmer."""
    distance, dissimilarity = charbonnier(restored, target), 1 - ssim(restored, target).mean()
    total = _SSIM_WEIGHT * dissimilarity + distance
    return PixelLoss(total, {"charbonnier": distance, "ssim_term": dissimilarity})


def _l1_ssim(restored: Tensor, target: Tensor) -> PixelLoss:
    """(1 - SSIM) + mean absolute error: Rainmer without views (section 2.5)."""
    distance, dissimilarity = F.l1_loss(restored, target), 1 - ssim(restored, target).mean()
    return PixelLoss(dissimilarity + distance, {"l1": distance, "ssim_term": dissimilarity})


def _negative_ssim(restored: Tensor, target: Tensor) -> PixelLoss:
    """-SSIM: PReNet, BRN, IDT (section 3)."""
    similarity = ssim(restored, target).mean()
    return PixelLoss(-similarity, {"ssim_term": 1 - similarity})


def _l1(restored: Tensor, target: Tensor) -> PixelLoss:
    """Mean absolute error: DRSformer (section 3)."""
    distance = F.l1_loss(restored, target)
    return PixelLoss(distance, {"l1": distance})


PixelLossName = Literal["charbonnier_ssim", "l1_ssim", "negative_ssim", "l1", "own"]
"""Names of `PIXEL_LOSSES`; "own" is the `training_loss` of the network."""

PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], PixelLoss]] = {
    "charbonnier_ssim": _charbonnier_ssim,
    "l1_ssim": _l1_ssim,
    "negative_ssim": _negative_ssim,
    "l1": _l1,
}
"""Functions of restored and target images (B, 3, H, W), by name."""


def contrastive(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the cross entropy of logits (B, 1 + N) whose first class is the true one.

    Args:
        logits: Similarity with the positive, then with each negative.
        weights: Weights of the samples (B,), for their weighted mean; None: the plain mean.
    """
    right = logits.new_zeros(len(logits), dtype=torch.long)
    if weights is None:
        return F.cross_entropy(logits, right)
    losses = F.cross_entropy(logits, right, reduction="none")
    return (weights * losses).sum() / (_WEIGHT_EPSILON + weights.sum())


class ContrastLosses(NamedTuple):
    """Contrastive losses, scalars: of the chromatic view, and of degradation with detail."""

    chromatic: Tensor | None
    degradation: Tensor | None

    def total(self) -> Tensor | None:
        """Return the sum of the losses that the network has."""
        losses = [loss for loss in self if loss is not None]
        return torch.stack(losses).sum() if losses else None


def contrast_losses(logits: dict[str, Tensor]) -> ContrastLosses:
    """Return the losses of the views' logits, each (B, 1 + N), by the views' names.

    Degradation and detail share one map and one loss: their positive logits are added, their
    negative logits are concatenated.
    """
    chromatic, degradation, detail = (
        logits.get(view) for view in ("chromatic", "degradation", "detail")
    )
    if degradation is not None and detail is not None:
        positive = degradation[:, :1] + detail[:, :1]
        degradation = torch.cat((positive, degradation[:, 1:], detail[:, 1:]), dim=1)
    return ContrastLosses(
        None if chromatic is None else contrastive(chromatic),
        None if degradation is None else contrastive(degradation),
    )
