"""Rain as early synthetic sets have it: white streaks of one direction, added to the picture.

Kept for comparison and for training on Rain13K-like data; it follows no physics.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rainmer.data.rain.drops import Streaks
from rainmer.data.rain.randomness import expand, normal, uniform

__all__ = ["additive_streaks"]

_LENGTH = (0.02, 0.10)  # of the frame width
_SLANT = math.radians(25.0)  # largest angle to the vertical
_WIDTH_PX = (1.0, 3.5)
_SPREAD = 0.04  # of directions within an image, radians


def additive_streaks(
    density: Tensor, strength: Tensor, keys: Tensor, size_hw: tuple[int, int], frame_width: int
) -> Streaks:
    """Scatter streaks over a batch of frames.

    Args:
        density: Share of the pixels that streaks would cover if none overlapped (B,).
        strength: Their opacity (B,).
        keys: Random keys (B,).
        size_hw: (height, width) in pixels.
        frame_width: Width of whole frames in pixels; streaks grow with it.
    """
    height, width = size_hw
    scale = max(1.0, frame_width / 640)
    longest = _LENGTH[1] * frame_width

    def of_image(stream: int, low: float, high: float) -> Tensor:
        return low + (high - low) * uniform(keys, 0, 2000 + stream)

    length = frame_width * of_image(0, *_LENGTH)
    thick = scale * of_image(1, *_WIDTH_PX)
    area = (height + 2 * longest) * (width + 2 * longest)
    counts = (density * area / (length * thick)).long()
    image, index = expand(counts)
    key = keys[image]
    angle = of_image(2, -_SLANT, _SLANT)[image] + _SPREAD * normal(key, index, 2010)
    reach = length[image] * (0.5 + uniform(key, index, 2012))
    x0 = uniform(key, index, 2013) * (width + 2 * longest) - longest
    y0 = uniform(key, index, 2014) * (height + 2 * longest) - longest
    depth = torch.ones_like(x0)
    return Streaks(
        image=image,
        x0=x0,
        y0=y0,
        x1=x0 + reach * torch.sin(angle),
        y1=y0 + reach * torch.cos(angle),
        width=thick[image] * (0.6 + 0.8 * uniform(key, index, 2015)),
        blur=torch.zeros_like(x0),
        opacity=(strength[image] * (0.4 + 0.6 * uniform(key, index, 2016))).clamp_max(0.98),
        depth_m=depth,
        brightness=depth,
        waves=depth,
        phase=uniform(key, index, 2017),
    )
