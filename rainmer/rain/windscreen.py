"""Drops on a windscreen, in focus or nearly so: caps of water that bend light by Snell's law.

A ray that leaves a cap where its surface is inclined by a is bent by asin(n sin a) - a, n = 1.333,
towards the other side: a drop shows a wide field of view upside down and tiny, sky below and road
above. Beyond sin a = 1 / n the light is totally reflected, and the rim is dark. Drops stick, so
they are steeper at their lower edge, and a raked windscreen shows them wider than high.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer.rain.lens import GlassDrops, inside_drop, topmost
from rainmer.rain.light import blur_each
from rainmer.rain.randomness import expand, uniform

__all__ = ["Windscreen", "wet_windscreen"]

_STREAM = 4000
_WATER = 1.333  # refractive index
_CONTACT = 0.80  # mean contact angle of water on a used windscreen, radians
_HYSTERESIS = 0.20  # by which it is larger at the lower edge, and smaller at the upper one
_CONTACT_SPREAD = 0.25  # largest difference of single drops
_SMALLEST = 0.17  # of the largest drop
_FRAME_ASPECT = 9 / 16
_RIM = 0.9  # light lost where it is totally reflected
_UNFOCUSED = 40  # frames hold this many blur radii: a drop's pixel shows many pixels of the frame


class Windscreen(NamedTuple):
    """The wet glass of each image: tensors (B,)."""

    drops: Tensor
    """Their number in a whole frame of 16:9."""
    largest_mm: Tensor
    """Contact diameter of the largest drops."""
    distance_m: Tensor
    """From the camera to the glass."""
    focal_px: Tensor
    blur_px: Tensor
    """Diameter of the circle of confusion on the glass."""


def wet_windscreen(
    linear: Tensor,
    scene: Tensor,
    glass: Windscreen,
    keys: Tensor,
    *,
    frame_widths: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Put drops on the windscreen in front of a picture.

    Args:
        linear: The picture (B, 3, H, W), linear light.
        scene: What drops refract (B, 3, H, W), linear light; lamps may exceed 1.
        glass: The drops of each image.
        keys: Random keys (B,).
        frame_widths: Longer side of each whole frame in pixels; crops show their share of drops.

    Returns:
        The picture through the wet glass, and how much of each pixel drops cover (B, 1, H, W).
    """
    batch, (height, width) = len(linear), linear.shape[-2:]
    drops, contact, radius = _stick(glass, keys, (height, width), frame_widths)
    top = topmost(drops, batch, (height, width))
    pixel = (top > 0).nonzero()[:, 0]
    drop = top[pixel] % max(1, len(contact))
    x, y = pixel % width, pixel // width % height
    dx, dy, squared = inside_drop(drops, drop, x, y)
    image, rho = drops.image[drop], squared.clamp(0.0, 1.0).sqrt()

    sharpness = radius[drop] / drops.radius_x[drop]
    angle = contact[drop] + _HYSTERESIS * dy / torch.hypot(dx, dy).clamp_min(1e-6)
    inclined = rho * torch.sin(angle)
    bent = (_WATER * inclined).clamp_max(1.0)
    reach = glass.focal_px[image] * torch.tan(torch.asin(bent) - torch.asin(inclined))
    away = reach / torch.hypot(dx, dy).clamp_min(1e-6)
    cover, loss, look_x, look_y = (
        torch.zeros(batch * height * width, device=linear.device) for _ in range(4)
    )
    cover[pixel] = _cover(rho, radius[drop], drops.radius_x[drop], glass.blur_px[image])
    loss[pixel] = _RIM * sharpness * bent**8
    look_x[pixel] = (drops.x[drop] - away * dx) / width * 2.0 - 1.0
    look_y[pixel] = (drops.y[drop] - away * dy) / height * 2.0 - 1.0
    grid = torch.stack([look_x, look_y], dim=-1).view(batch, height, width, 2)
    unfocused = blur_each(scene, [max(1, frame // _UNFOCUSED) for frame in frame_widths])
    seen = F.grid_sample(unfocused, grid, padding_mode="border", align_corners=False)
    shape = (batch, 1, height, width)
    cover = cover.view(shape)
    return linear + cover * (seen * (1.0 - loss.view(shape)) - linear), cover


def _stick(
    glass: Windscreen, keys: Tensor, size_hw: tuple[int, int], frame_widths: Sequence[int]
) -> tuple[GlassDrops, Tensor, Tensor]:
    """Return drops as wide as they appear out of focus, their contact angles and true radii."""
    height, width = size_hw
    shares = [height * width / (_FRAME_ASPECT * frame**2) for frame in frame_widths]
    share = torch.tensor(shares, device=keys.device)
    image, index = expand((glass.drops * share + uniform(keys, 0, _STREAM)).long())

    def drawn(stream: int) -> Tensor:
        return uniform(keys, index, _STREAM + stream, image)

    # Small drops are many, large ones few.
    diameter_m = 1e-3 * glass.largest_mm[image] * (_SMALLEST + (1.0 - _SMALLEST) * drawn(1) ** 4)
    radius = 0.5 * diameter_m * glass.focal_px[image] / glass.distance_m[image]
    spread = 0.5 * glass.blur_px[image].clamp_min(1.0)
    drops = GlassDrops(
        image=image,
        x=drawn(2) * width,
        y=drawn(3) * height,
        radius_x=radius + spread,
        radius_y=radius * (0.55 + 0.55 * drawn(4)) + spread,
        twist=6.2832 * drawn(5),
    )
    return drops, _CONTACT + _CONTACT_SPREAD * (2.0 * drawn(6) - 1.0), radius


def _cover(rho: Tensor, radius: Tensor, shown: Tensor, blur_px: Tensor) -> Tensor:
    """Return how much a drop covers at `rho` of its blurred radius `shown`: a sharp disc, blurred.

    A drop smaller than the circle of confusion covers no pixel in full.
    """
    blur_px = blur_px.clamp_min(1.0)
    edge = (0.5 + (radius - rho * shown) / blur_px).clamp(0.0, 1.0)
    return edge * (2.0 * radius / blur_px).clamp_max(1.0).square()
