"""Rain as in early synthetic sets: white streaks of one direction, added to the picture.

Kept for comparison and for training on Rain13K-like data; not physically based.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rainmer.rain.drops import Streaks
from rainmer.rain.randomness import expand, normal, uniform

__all__ = ["additive_streaks"]

_SLANT = math.radians(25.0)  # largest angle to the vertical
_SPREAD = 0.04  # of directions within an image, radians


def additive_streaks(
    *,
    density: Tensor,
    strength: Tensor,
    length: Tensor,
    width_px: Tensor,
    keys: Tensor,
    size_hw: tuple[int, int],
    frame_width: Tensor,
) -> Streaks:
    """Scatter streaks over a batch of frames.

    Args:
        density: Share of the pixels that streaks would cover if none overlapped (B,).
        strength: Their opacity (B,).
        length: Their mean length in frame widths (B,).
        width_px: Their mean width in pixels, in frames up to 640 pixels wide (B,).
        keys: Random keys (B,).
        size_hw: (height, width) in pixels.
        frame_width: Width of whole frames in pixels (B,), float64; streaks grow with it.
    """
    height, width = size_hw
    length = frame_width.float() * length
    thick = (frame_width / 640).clamp_min(1.0).float() * width_px
    margin = length  # streaks reach into the frame from outside
    area = (height + 2 * margin) * (width + 2 * margin)
    counts = (density * area / (length * thick)).long()
    image, index = expand(counts)
    slant = _SLANT * (2.0 * uniform(keys, 0, 2002) - 1.0)
    angle = slant[image] + _SPREAD * normal(keys, index, 2010, image)
    reach = length[image] * (0.5 + uniform(keys, index, 2012, image))
    margin = margin[image]
    x0 = uniform(keys, index, 2013, image) * (width + 2 * margin) - margin
    y0 = uniform(keys, index, 2014, image) * (height + 2 * margin) - margin
    depth = torch.ones_like(x0)
    return Streaks(
        image=image,
        x0=x0,
        y0=y0,
        x1=x0 + reach * torch.sin(angle),
        y1=y0 + reach * torch.cos(angle),
        width=thick[image] * (0.6 + 0.8 * uniform(keys, index, 2015, image)),
        blur=torch.zeros_like(x0),
        opacity=(strength[image] * (0.4 + 0.6 * uniform(keys, index, 2016, image))).clamp_max(0.98),
        depth_m=depth,
        brightness=depth,
        waves=depth,
        phase=uniform(keys, index, 2017, image),
    )
