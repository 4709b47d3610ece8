"""Light: linear values, airlight, lamp light, and blurs that do not depend on the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "LUMA",
    "airlight",
    "blur",
    "blur_each",
    "lamp_light",
    "lamp_share",
    "luminance",
    "to_linear",
    "to_srgb",
]

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of linear red, green and blue in luminance (Rec. 709)."""

_GRID = 24  # cells of the coarse picture that global light is taken from
_BRIGHT_SHARE = 0.15  # share of these cells, the brightest, that stands for the sky
_LAMP_THRESHOLD = 0.45  # linear value from which a pixel of a night image counts as a lamp
_LAMP_LIMIT = 4.0  # linear value at which a lamp is clipped: its halo must not depend on one pixel
_FALL_OFF = ((0.5, 0.012), (1.5, 0.035), (4.0, 0.1))  # weight, radius in frame widths


def to_linear(image: Tensor) -> Tensor:
    """Undo the sRGB curve: 0..1 to linear 0..1 (IEC 61966-2-1)."""
    low = image / 12.92
    high = ((image + 0.055) / 1.055).clamp_min(0.0) ** 2.4
    return torch.where(image <= 0.04045, low, high)


def to_srgb(linear: Tensor) -> Tensor:
    """Apply the sRGB curve: linear, clamped to 0..1, to 0..1."""
    linear = linear.clamp(0.0, 1.0)
    low = linear * 12.92
    high = 1.055 * linear ** (1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, low, high)


def luminance(linear: Tensor) -> Tensor:
    """Return the luminance (B, 1, H, W) of linear RGB (B, 3, H, W)."""
    red, green, blue = linear.unbind(dim=1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def blur(image: Tensor, radius: int) -> Tensor:
    """Blur (B, C, H, W) by about `radius` pixels, borders repeated.

    Three passes of box means on a picture shrunk so that the box stays small: cheap for any radius,
    and each value depends on its own image alone, to the last bit.
    """
    height, width = image.shape[-2:]
    shrink = max(1, min(radius // 3, min(height, width) // 8))
    small = F.avg_pool2d(image, shrink, ceil_mode=True, count_include_pad=False)
    half = max(1, round(radius / shrink / 1.7))
    for _ in range(3):
        padded = F.pad(small, (half, half, half, half), mode="replicate")
        small = F.avg_pool2d(padded, 2 * half + 1, stride=1)
    if shrink == 1:
        return small
    return F.interpolate(small, (height, width), mode="bilinear", align_corners=False)


def blur_each(image: Tensor, radii: Sequence[int]) -> Tensor:
    """Blur each image of a batch by a radius of its own; see `blur`."""
    if len(set(radii)) == 1:
        return blur(image, radii[0])
    blurred = torch.empty_like(image)
    for radius in set(radii):
        rows = torch.tensor([i for i, own in enumerate(radii) if own == radius])
        rows = rows.to(image.device)
        blurred[rows] = blur(image[rows], radius)
    return blurred


def airlight(linear: Tensor) -> Tensor:
    """Return the colour (B, 3, 1, 1) of the brightest part of a scene, usually its sky.

    The mean of the brightest cells of a coarse picture, half desaturated: more lights the rain
    than the frame shows.
    """
    height, width = linear.shape[-2:]
    cells = F.adaptive_avg_pool2d(linear, (min(_GRID, height), min(_GRID, width))).flatten(2)
    brightness = luminance(cells.unsqueeze(-1))[:, 0, :, 0]  # (B, cells)
    count = max(1, round(_BRIGHT_SHARE * brightness.shape[1]))
    brightest = brightness.topk(count, dim=1).indices.sort(dim=1).values
    chosen = cells.gather(2, brightest[:, None].expand(-1, 3, -1)).mean(dim=2)
    grey = luminance(chosen[:, :, None, None])[:, 0]
    return (0.5 * chosen + 0.5 * grey[:, :, 0])[:, :, None, None]


def lamp_share(linear: Tensor) -> Tensor:
    """Return how much each pixel of a night image counts as a lamp (B, 1, H, W), 0..1."""
    brightest = linear.amax(dim=1, keepdim=True)
    return ((brightest - _LAMP_THRESHOLD) / (1.0 - _LAMP_THRESHOLD)).clamp(0.0, 1.0)


def lamp_light(linear: Tensor) -> Tensor:
    """Return the light around lamps (B, 3, H, W), from the bright parts of a night image.

    Sums of wide blurs fall off about as light does in the air near a lamp.
    """
    lamps = linear.clamp_max(_LAMP_LIMIT) * lamp_share(linear)
    light = torch.zeros_like(linear)
    for weight, share in _FALL_OFF:
        light = light + weight * blur(lamps, max(1, round(linear.shape[-1] * share)))
    return light
