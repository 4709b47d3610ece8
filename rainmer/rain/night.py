"""Relight a day picture as night: dark sky, less ambient light, lamps in space, sensor noise.

A relit picture is not a photograph taken at night. What matters for rain is kept: light falls off
around lamps, has their colour, and most of the scene is dark.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer.rain.light import airlight, blur, luminance, to_srgb
from rainmer.rain.randomness import rough_normal, uniform

__all__ = ["Night", "add_noise", "is_day", "relight"]

_DAY_LEVEL = 0.22  # mean sRGB value from which a picture counts as taken by day
_MOST_LAMPS = 30
_STREAM = 1000  # of random numbers
_SHRINK = 4  # light varies slowly: it is computed on a picture this much smaller
_AMBIENT = (0.010, 0.013, 0.020)  # bluish, relative to a lamp at 5 m
_SKY_TOP, _SKY_LOW = (0.003, 0.004, 0.008), (0.020, 0.016, 0.012)
# Colours of lamps: sodium, warm white, cold white, red, green; chosen with these shares.
_COLOURS = (
    (1.0, 0.55, 0.18),
    (1.0, 0.80, 0.52),
    (0.85, 0.93, 1.0),
    (1.0, 0.12, 0.08),
    (0.15, 1.0, 0.45),
)
_SHARES = (0.35, 0.35, 0.18, 0.08, 0.04)
_SHOT_NOISE = 20.0  # variance grows by this factor from black to white


class Night(NamedTuple):
    """Parameters of relighting for each image: tensors (B,)."""

    level: Tensor
    """Mean level of the result, sRGB 0..1."""
    lamps: Tensor
    """Number of lamps."""
    headlights: Tensor
    horizon: Tensor
    camera_height_m: Tensor
    focal_px: Tensor


def is_day(image: Tensor) -> Tensor:
    """Return which images (B, 3, H, W), sRGB 0..1, are too bright for night: (B,) bool."""
    height, width = image.shape[-2:]
    cells = F.adaptive_avg_pool2d(image, (min(32, height), min(32, width)))
    return cells.flatten(1).mean(dim=1) > _DAY_LEVEL


def relight(linear: Tensor, depth_m: Tensor, night: Night, keys: Tensor) -> Tensor:
    """Return the scene at night.

    Args:
        linear: Day image (B, 3, H, W), linear light.
        depth_m: (B, 1, H, W).
        night: Darkness and number of lamps.
        keys: Random keys (B,).

    Returns:
        Linear light; lamps exceed 1.
    """
    size_hw = linear.shape[-2], linear.shape[-1]
    width = size_hw[1]
    brightness = luminance(linear)
    around = blur(brightness, max(1, width // 5))
    albedo = (0.5 * linear / (around + 0.05).sqrt()).clamp_max(1.0)
    lamps = _place_lamps(night, size_hw, keys)
    small = F.avg_pool2d(depth_m, _shrink(size_hw), ceil_mode=True, count_include_pad=False)
    light = _illumination(small, lamps, night, size_hw)
    light = F.interpolate(light, size_hw, mode="bilinear", align_corners=False)
    sky = _sky_share(linear, brightness, night.horizon)
    scene = albedo * light * (1.0 - sky) + _night_sky(size_hw, night.horizon) * sky
    scene = scene + 0.3 * _own_light(linear, sky)
    return _exposed(scene, night.level) + _discs(lamps, size_hw)


def add_noise(linear: Tensor, amount: Tensor, keys: Tensor) -> Tensor:
    """Add sensor noise: constant and shot noise, the latter growing with the light.

    Args:
        linear: (B, 3, H, W).
        amount: Standard deviation in the dark, as a fraction of full scale (B,).
        keys: Random keys (B,).
    """
    count = linear[0].numel()
    index = torch.arange(count, device=linear.device).view(1, *linear.shape[1:])
    grain = rough_normal(keys[:, None, None, None], index, _STREAM + 90)
    spread = (1.0 + _SHOT_NOISE * linear.clamp(0.0, 1.0)).sqrt() * amount[:, None, None, None]
    return (linear + spread * grain).clamp_min(0.0)


class _Lamps(NamedTuple):
    """Lamps in space: tensors (B, K); colour (B, K, 3)."""

    x: Tensor
    y: Tensor
    z: Tensor
    power: Tensor
    """0 for those beyond an image's number."""
    colour: Tensor
    column: Tensor
    row: Tensor
    radius_px: Tensor


def _place_lamps(night: Night, size_hw: tuple[int, int], keys: Tensor) -> _Lamps:
    """Place street lamps and signs at the sides of an assumed street."""
    height, width = size_hw
    count = int(night.lamps.max().ceil().clamp(1, _MOST_LAMPS))
    number = torch.arange(count, device=keys.device)[None]
    key = keys[:, None]

    def drawn(stream: int, low: float, high: float) -> Tensor:
        return low + (high - low) * uniform(key, number, _STREAM + stream)

    z = 5.0 * torch.exp(drawn(0, 0.0, 2.3))  # 5 to 50 m, evenly in the logarithm
    reach = 0.55 * z * width / night.focal_px[:, None]
    x = drawn(1, -1.0, 1.0) * reach
    above_ground = drawn(2, 2.0, 6.5)
    y = night.camera_height_m[:, None] - above_ground
    power = drawn(3, 0.4, 1.6) * (number < night.lamps[:, None]) * (z / 12.0).clamp_min(0.6)
    kind = torch.bucketize(
        drawn(4, 0.0, 1.0), torch.tensor(_SHARES, device=keys.device).cumsum(0)[:-1]
    )
    colour = torch.tensor(_COLOURS, device=keys.device)[kind]
    focal = night.focal_px[:, None]
    return _Lamps(
        x=x,
        y=y,
        z=z,
        power=power,
        colour=colour,
        column=width / 2 + focal * x / z,
        row=height * night.horizon[:, None] + focal * y / z,
        radius_px=(0.12 * focal / z).clamp_min(1.2),
    )


def _illumination(depth_m: Tensor, lamps: _Lamps, night: Night, size_hw: tuple[int, int]) -> Tensor:
    """Return the light on the surfaces of a (shrunk) scene (B, 3, h, w)."""
    height, width = size_hw
    rows, columns = depth_m.shape[-2:]
    v = (torch.arange(rows, device=depth_m.device) + 0.5) * (height / rows)
    u = (torch.arange(columns, device=depth_m.device) + 0.5) * (width / columns)
    focal = night.focal_px[:, None, None, None]
    z = depth_m.clamp_max(200.0)
    right = (u - width / 2) / focal
    down = (v[:, None] - height * night.horizon[:, None, None, None]) / focal
    light = torch.tensor(_AMBIENT, device=depth_m.device)[None, :, None, None].expand(
        len(depth_m), 3, rows, columns
    )
    for k in range(lamps.x.shape[1]):
        x, y, depth, power = (
            values[:, k, None, None, None] for values in (lamps.x, lamps.y, lamps.z, lamps.power)
        )
        distance2 = (z * right - x).square() + (z * down - y).square() + (z - depth).square()
        falling = power * 25.0 / (distance2 + 2.0)
        light = light + falling * lamps.colour[:, k, :, None, None]
    cone = torch.exp(-(right / 0.45).square() - ((down - 0.08) / 0.22).square())
    beam = night.headlights[:, None, None, None] * cone * 6.0 / (z.square() + 30.0).sqrt()
    return light + beam * torch.tensor((1.0, 0.93, 0.82), device=depth_m.device)[:, None, None]


def _sky_share(linear: Tensor, brightness: Tensor, horizon: Tensor) -> Tensor:
    """Guess where the sky is (B, 1, H, W), 0..1: bright, even, and above the horizon."""
    height, width = linear.shape[-2:]
    size = max(1, width // 60)
    even = blur(brightness, size)
    contrast = blur((brightness - even).abs(), size) / (even + 0.02)
    top = luminance(airlight(linear))
    bright = torch.sigmoid(14.0 * (even / (top + 1e-3) - 0.55))
    smooth = torch.exp(-(contrast / 0.12).square())
    rows = (torch.arange(height, device=linear.device) + 0.5) / height
    above = torch.sigmoid((horizon[:, None, None, None] + 0.1 - rows[:, None]) / 0.05)
    return blur(bright * smooth, size) * above


def _night_sky(size_hw: tuple[int, int], horizon: Tensor) -> Tensor:
    """Return the glow of a town over a dark sky (B, 3, H, 1)."""
    rows = (torch.arange(size_hw[0], device=horizon.device) + 0.5) / size_hw[0]
    share = (rows / horizon.clamp_min(0.05)[:, None]).clamp(0.0, 1.0).square()[:, None, :, None]
    low = torch.tensor(_SKY_LOW, device=horizon.device)[:, None, None]
    top = torch.tensor(_SKY_TOP, device=horizon.device)[:, None, None]
    return top + (low - top) * share


def _own_light(linear: Tensor, sky: Tensor) -> Tensor:
    """Return the scene's own lights by day: bright spots of a strong colour, such as signals."""
    high, low = linear.amax(dim=1, keepdim=True), linear.amin(dim=1, keepdim=True)
    coloured = ((high - low) / (high + 1e-3) - 0.75).clamp_min(0.0) * 4.0
    return linear * coloured * ((high - 0.6) / 0.4).clamp_min(0.0) * (1.0 - sky)


def _exposed(scene: Tensor, level: Tensor) -> Tensor:
    """Scale a scene so that its mean sRGB value is `level`, like automatic exposure."""
    height, width = scene.shape[-2:]
    cells = F.adaptive_avg_pool2d(scene, (min(64, height), min(64, width))).flatten(1)
    gain = torch.ones_like(level)
    for _ in range(4):
        mean = to_srgb(cells * gain[:, None]).mean(dim=1)
        gain = gain * (level / mean.clamp_min(1e-4)) ** 2.0
    return scene * gain[:, None, None, None]


def _discs(lamps: _Lamps, size_hw: tuple[int, int]) -> Tensor:
    """Draw the lamps themselves (B, 3, H, W): bright cores with a little glare of the lens."""
    height, width = size_hw
    rows = torch.arange(height, device=lamps.x.device) + 0.5
    columns = torch.arange(width, device=lamps.x.device) + 0.5
    total = torch.zeros(len(lamps.x), 3, height, width, device=lamps.x.device)
    for scale, strength in ((1.0, 3.0), (3.5, 0.12)):
        for k in range(lamps.x.shape[1]):
            radius = lamps.radius_px[:, k, None] * scale
            across = torch.exp(-((columns - lamps.column[:, k, None]) / radius).square())
            down = torch.exp(-((rows - lamps.row[:, k, None]) / radius).square())
            shape = down[:, None, :, None] * across[:, None, None, :]
            shining = (lamps.power[:, k] > 0).float() * strength
            total = total + shape * (shining[:, None] * lamps.colour[:, k])[:, :, None, None]
    return total


def _shrink(size_hw: tuple[int, int]) -> int:
    return max(1, min(_SHRINK, min(size_hw) // 8))
