"""Drops on the lens or windscreen: small wide-angle lenses that show the scene upside down.

A drop is a cap of water. Through it, a pixel shows what lies on the other side of the drop's
centre, of a far wider field of view, out of focus because the camera focuses behind the glass; its
rim is dark where light is totally reflected. Some drops run down and leave a trail of small ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer.rain.light import blur
from rainmer.rain.randomness import expand, uniform

__all__ = ["GlassDrops", "inside_drop", "topmost", "wet_lens"]

_STREAM = 3000
_TRAIL = 7  # small drops behind a running one
_RUNNING = 0.18  # share of drops that run
_SPEED = 0.12  # frame heights per second
_WIDE = 3.2  # how much more a drop shows than the frame behind it, in radii
_LEAST_RADIUS = 0.25  # of the largest drop
_HEIGHT_STEPS = 256
_SOFT_EDGE = 0.45  # height of a drop, relative to its middle, from which it is opaque
_RIM = 0.6  # light lost at the rim


def wet_lens(
    linear: Tensor, count: Tensor, largest_px: Tensor, keys: Tensor, time_s: Tensor
) -> tuple[Tensor, Tensor]:
    """Put drops in front of a picture.

    Args:
        linear: (B, 3, H, W), linear light.
        count: Number of drops of each image (B,).
        largest_px: Radius of the largest drops in pixels (B,).
        keys: Random keys (B,).
        time_s: Time since running drops started (B,).

    Returns:
        The picture through the wet glass, and how much of each pixel drops cover (B, 1, H, W).
    """
    batch, (height, width) = len(linear), linear.shape[-2:]
    drops = _drops(count, largest_px, keys, (height, width), time_s)
    top = topmost(drops, batch, (height, width))
    pixel = (top > 0).nonzero()[:, 0]
    drop = top[pixel] % len(drops.image)
    dx, dy, squared = inside_drop(drops, drop, pixel % width, pixel // width % height)

    cover = torch.zeros(batch * height * width, device=linear.device)
    rim, look_x, look_y = (torch.zeros_like(cover) for _ in range(3))
    cover[pixel] = ((1.0 - squared).clamp_min(0.0).sqrt() / _SOFT_EDGE).clamp_max(1.0)
    rim[pixel] = squared.clamp_max(1.0) ** 4
    spread = _WIDE * (0.6 + 0.8 * squared)
    look_x[pixel] = (drops.x[drop] - spread * dx) / width * 2.0 - 1.0
    look_y[pixel] = (drops.y[drop] - spread * dy) / height * 2.0 - 1.0
    grid = torch.stack([look_x, look_y], dim=-1).view(batch, height, width, 2)
    unfocused = blur(linear, max(1, width // 200))
    seen = F.grid_sample(unfocused, grid, padding_mode="reflection", align_corners=False)
    cover = cover.view(batch, 1, height, width)
    through = seen * (1.0 - _RIM * rim.view(batch, 1, height, width))
    return linear + cover * (through - linear), cover


class GlassDrops(NamedTuple):
    """Drops on the glass: tensors (N,), pixels."""

    image: Tensor
    x: Tensor
    y: Tensor
    radius_x: Tensor
    radius_y: Tensor
    twist: Tensor
    """Angle of the drop's dents, radians."""


def _drops(
    count: Tensor, largest_px: Tensor, keys: Tensor, size_hw: tuple[int, int], time_s: Tensor
) -> GlassDrops:
    height, width = size_hw
    image, index = expand(count.round().long())

    def drawn(stream: int) -> Tensor:
        return uniform(keys, index, _STREAM + stream, image)

    # Small drops are many, large ones few.
    size = _LEAST_RADIUS + (1.0 - _LEAST_RADIUS) * drawn(0) ** 3
    radius = (largest_px[image] * size).clamp_min(1.5)
    runs = (drawn(1) < _RUNNING).float()
    x, y = drawn(2) * width, drawn(3) * height
    y = (y + runs * (0.5 + drawn(4)) * _SPEED * height * time_s[image]) % (1.2 * height)
    sag = 1.0 + 0.35 * drawn(5)  # heavy drops hang
    heads = GlassDrops(image, x, y, radius, radius * sag, 6.2832 * drawn(6))
    running = runs.nonzero()[:, 0].repeat_interleave(_TRAIL)
    step = torch.arange(_TRAIL, device=keys.device).repeat(len(running) // _TRAIL)
    above = (step + 1.6) * 1.5 * radius[running]
    jitter = uniform(keys, step + index[running] * _TRAIL, _STREAM + 7, image[running])
    small = radius[running] * (0.5 - 0.045 * step) * (0.6 + 0.6 * jitter)
    trails = GlassDrops(
        image=image[running],
        x=x[running] + (jitter - 0.5) * 0.5 * radius[running],
        y=y[running] - above,
        radius_x=small.clamp_min(1.0),
        radius_y=small.clamp_min(1.0) * 1.3,
        twist=6.2832 * jitter,
    )
    return GlassDrops(*(torch.cat(pair) for pair in zip(heads, trails, strict=True)))


def topmost(drops: GlassDrops, batch: int, size_hw: tuple[int, int]) -> Tensor:
    """Return the coded number of the topmost drop at each pixel of the batch; 0: none.

    The code is height * N + number: the largest code wins, whatever the order of writing.
    """
    height, width = size_hw
    across = 2 * drops.radius_x.ceil().long() + 3
    down = 2 * (1.2 * drops.radius_y).ceil().long() + 3
    drop, place = expand(across * down)
    x = (drops.x[drop].floor().long() - across[drop] // 2) + place % across[drop]
    y = (drops.y[drop].floor().long() - down[drop] // 2) + place // across[drop]
    _, _, squared = inside_drop(drops, drop, x, y)
    kept = (squared < 1) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    drop, x, y, squared = drop[kept], x[kept], y[kept], squared[kept]
    level = ((1.0 - squared) * drops.radius_x[drop] * _HEIGHT_STEPS).long() + 1
    pixel = (drops.image[drop] * height + y) * width + x
    top = torch.zeros(batch * height * width, dtype=torch.int64, device=x.device)
    return top.scatter_reduce_(0, pixel, level * len(drops.image) + drop, "amax")


def inside_drop(
    drops: GlassDrops, drop: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the place of a pixel in a drop, and its squared distance in radii: 1 at the rim."""
    dx, dy = x + 0.5 - drops.x[drop], y + 0.5 - drops.y[drop]
    angle = torch.atan2(dy, dx)
    dents = (
        1.0
        + 0.12 * torch.sin(2 * angle + drops.twist[drop])
        + 0.08 * torch.sin(3 * angle - drops.twist[drop])
    )
    squared = (dx / drops.radius_x[drop]).square() + (dy / drops.radius_y[drop]).square()
    return dx, dy, squared * dents
