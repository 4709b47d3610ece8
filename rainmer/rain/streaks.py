"""Draw streaks: from segments to opacity and light, by adding integers.

Sums of integers do not depend on their order, so a picture is the same on every run, in every
batch, and with the parallel additions of a GPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rainmer.rain.drops import Streaks
from rainmer.rain.randomness import expand

__all__ = ["StreakMaps", "draw_streaks"]

_UNIT = 1 << 20  # fixed point: one millionth of optical depth
_WAVE = 0.35  # depth of the bright and dark periods along a streak
_LENS_VARIANCE = 0.1  # of the lens and sensor, px^2, beside the pixel's own 1/12
_SUPPORT = math.sqrt(7.0)  # half width of the biweight kernel in standard deviations


class StreakMaps(NamedTuple):
    """What streaks add to frames: tensors (B, 1, H, W)."""

    opacity: Tensor
    """0..1."""
    brightness: Tensor
    """Mean of the streaks at a pixel, weighted by opacity, about 1; 0 where there is none."""
    nearness: Tensor
    """Mean of 1 / depth^2 in m^-2: how much light of the vehicle's headlights comes back."""


def draw_streaks(
    streaks: Streaks, batch: int, size_hw: tuple[int, int], depth_m: Tensor | None = None
) -> StreakMaps:
    """Draw streaks with smooth profiles, preserving energy however thin or blurred they are.

    Args:
        streaks: Segments.
        batch: Number of frames B.
        size_hw: (height, width) of the frames.
        depth_m: Depth of the scene (B, 1, H, W); streaks behind it are hidden.
    """
    height, width = size_hw
    samples = _samples(streaks)
    inside = (samples.x >= 0) & (samples.x < width) & (samples.y >= 0) & (samples.y < height)
    kept = (inside & (samples.weight > 0)).nonzero()[:, 0]
    samples = _Samples(*(values[kept] for values in samples))
    streak = samples.streak
    pixel = (streaks.image[streak] * height + samples.y) * width + samples.x
    alpha = (streaks.opacity[streak] * samples.weight).clamp_max(0.99)
    if depth_m is not None:
        alpha = alpha * (streaks.depth_m[streak] < depth_m.flatten()[pixel])
    optical_depth = -torch.log1p(-alpha)
    light = streaks.brightness[streak] * samples.wave
    nearness = streaks.depth_m[streak] ** -2
    planes = [
        _sum(pixel, values, batch * height * width).view(batch, 1, height, width)
        for values in (optical_depth, optical_depth * light, optical_depth * light * nearness)
    ]
    total = planes[0].clamp_min(1.0 / _UNIT)
    return StreakMaps(-torch.expm1(-planes[0]), planes[1] / total, planes[2] / total)


class _Samples(NamedTuple):
    """Pixels that streaks touch: tensors (M,)."""

    streak: Tensor
    x: Tensor
    y: Tensor
    weight: Tensor
    wave: Tensor


def _samples(streaks: Streaks) -> _Samples:
    """List the pixels of each streak, line by line along its longer axis."""
    dx, dy = streaks.x1 - streaks.x0, streaks.y1 - streaks.y0
    steep = dy.abs() >= dx.abs()
    flip = torch.where(steep, dy, dx) < 0
    major = torch.where(steep, streaks.y0, streaks.x0), torch.where(steep, streaks.y1, streaks.x1)
    minor = torch.where(steep, streaks.x0, streaks.y0), torch.where(steep, streaks.x1, streaks.y1)
    start, end = torch.where(flip, major[1], major[0]), torch.where(flip, major[0], major[1])
    side, side_end = torch.where(flip, minor[1], minor[0]), torch.where(flip, minor[0], minor[1])
    slope = (side_end - side) / (end - start).clamp_min(1e-6) * (end - start > 1e-6)
    slant = (1.0 + slope.square()).sqrt()  # 1 / cos of the angle to the longer axis
    variance = (streaks.width.square() + streaks.blur.square()) / 16.0 + 1.0 / 12 + _LENS_VARIANCE
    half = _SUPPORT * variance.sqrt()
    # Ends fade over the width of the profile, half of it outside.
    start, end, side = start - half / 2, end + half / 2, side - slope * half / 2

    streak, number = expand((end.floor() - start.floor()).long() + 1)
    line = start.floor()[streak] + number
    begin, stop = torch.maximum(line, start[streak]), torch.minimum(line + 1, end[streak])
    middle = (begin + stop) / 2
    fade = torch.minimum(middle - start[streak], end[streak] - middle) / half[streak]
    covered = (stop - begin).clamp_min(0.0) * fade.clamp(0.0, 1.0)
    center = side[streak] + slope[streak] * (middle - start[streak])
    along = (middle - start[streak]) / (end - start)[streak]
    angle = 2.0 * math.pi * (streaks.waves[streak] * along + streaks.phase[streak])
    wave = 1.0 + _WAVE * torch.sin(angle)

    reach = (half * slant)[streak]
    owner, number = expand((2.0 * reach).long() + 2)
    across = (center - reach).floor()[owner] + number
    distance = (across + 0.5 - center[owner]) / reach[owner]
    streak = streak[owner]
    kernel = (1.0 - distance.square()).clamp_min(0.0).square() * (15.0 / 16.0) / half[streak]
    line = line[owner]
    return _Samples(
        streak=streak,
        x=torch.where(steep[streak], across, line).long(),
        y=torch.where(steep[streak], line, across).long(),
        weight=kernel * streaks.width[streak] * covered[owner],
        wave=wave[owner],
    )


def _sum(pixel: Tensor, values: Tensor, pixels: int) -> Tensor:
    """Add the values of each pixel; the sum must stay below 2000."""
    units = (values * _UNIT).round().int()
    total = torch.zeros(pixels, dtype=torch.int32, device=values.device)
    return total.index_add_(0, pixel, units).float() / _UNIT
