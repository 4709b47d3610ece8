"""Validation of a network during training: PSNR and SSIM on sets with targets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from rainmer import models
from rainmer.errors import ImageError
from rainmer.frames.arrays import Frame, to_batch, to_frames
from rainmer.metrics import psnr, ssim
from rainmer.train.boxes import join_boxes
from rainmer.train.losses import ExtraLoss
from rainmer.train.sources import Source

__all__ = ["SetScores", "validate"]


class SetScores(NamedTuple):
    """Scores of a set.

    Attributes:
        psnr: Mean over images, dB, on 8-bit luma; NaN if a restored image is not finite.
        ssim: Mean over images, on 8-bit luma; NaN likewise.
        strips: Rainy, restored and clean frame of the first images.
        extra: Means of the terms of an extra loss, by name.
        failures: Errors by unreadable image; the scores are without these.
    """

    psnr: float
    ssim: float
    strips: list[tuple[Frame, Frame, Frame]]
    extra: dict[str, float]
    failures: dict[str, str]


@torch.no_grad()
def validate(
    network: models.Network,
    source: Source,
    *,
    limit: int | None = None,
    strips: int = 2,
    progress: Callable[[], None] | None = None,
    extra_loss: ExtraLoss | None = None,
) -> SetScores:
    """Restore a set's images and score them.

    Args:
        network: On its device; its mode is restored.
        source: The source of pairs.
        limit: Maximum number of images.
        strips: Number of pictures to return.
        progress: Called after each image.
        extra_loss: A further loss to measure.

    Raises:
        ImageError: No image can be read.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    scores: list[tuple[float, float]] = []
    pictures: list[tuple[Frame, Frame, Frame]] = []
    failures: dict[str, str] = {}
    extra: dict[str, list[float]] = {}
    for index in itertools.islice(range(len(source)), limit):
        try:
            pair = source.load(index, 0)
        except ImageError as error:
            failures[f"image {index} of {source.name}"] = str(error)
            continue
        rainy, clean = to_batch([pair.rainy]), to_batch([pair.clean])
        restored = network(rainy.to(device)).clamp(0, 1)
        if extra_loss is not None:
            boxes = None if pair.boxes is None else join_boxes([pair.boxes]).to(device)
            for name, term in extra_loss(restored, clean.to(device), boxes).items():
                extra.setdefault(name, []).append(term.item())
        restored = restored.cpu()
        if restored.isfinite().all():
            scores.append((psnr(restored, clean).item(), ssim(restored, clean).item()))
        else:
            scores.append((math.nan, math.nan))
            restored = restored.nan_to_num(0.0)
        if len(pictures) < strips:
            pictures.append((pair.rainy, to_frames(restored)[0], pair.clean))
        if progress is not None:
            progress()
    network.train(was_training)
    if not scores:
        raise ImageError(f"no image of {source.name} can be read; {next(iter(failures.values()))}")
    means = np.mean(scores, axis=0)
    terms = {name: float(np.mean(values)) for name, values in extra.items()}
    return SetScores(float(means[0]), float(means[1]), pictures, terms, failures)
