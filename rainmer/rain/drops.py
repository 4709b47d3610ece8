"""Drops in the air: how many, how large, how fast, where, and the streaks they leave in a frame.

Sources: drop sizes after Marshall and Palmer (The distribution of raindrops with size, 1948), fall
speed after Atlas, Srivastava and Sekhon (1973), extinction after Weber et al. (2015), opacity after
Garg and Nayar (Vision and Rain, IJCV 2007): a drop covers a pixel only for a part of the exposure.

Drops live in boxes in front of the camera, one box for each class of size, as deep as drops of that
size are visible. A box moves past the camera and repeats, so a video needs nothing but the time.
Camera coordinates: x to the right, y down, z ahead, in metres.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rainmer.rain.randomness import expand, normal, uniform

__all__ = ["REFERENCE_WIDTH", "Air", "Streaks", "extinction_per_m", "fall_speed", "sample_streaks"]

REFERENCE_WIDTH = 640
"""Frame width in pixels at which `min_opacity` is meant: what is drawn must not depend on size."""

_CLASSES = 48
_LEAST_MM, _LARGEST_MM = 0.5, 6.0  # smaller drops are invisible alone, larger ones break up
_NEAREST_M, _FARTHEST_M = 0.35, 40.0
_LONGEST = 0.35  # of the frame width: longer streaks are cut
_ROUNDS = 8
_MOST_DROPS = 150_000  # for a 4:3 frame; beyond it the faintest are left out
_TURBULENCE = 0.06  # sideways speed of single drops, relative to their fall
_LEAST_SPEED_M_S = 0.1


class Air(NamedTuple):
    """Rain and camera motion of each image: tensors (B,)."""

    rate_mm_h: Tensor
    wind_m_s: Tensor
    camera_m_s: Tensor
    exposure_s: Tensor
    focal: Tensor
    """Focal length in longer sides of the frame."""
    focus_m: Tensor
    aperture_m: Tensor
    min_opacity: Tensor | float


class Streaks(NamedTuple):
    """Segments in a batch of frames: tensors (N,). Pixel (i, j) covers [j, j+1) x [i, i+1)."""

    image: Tensor
    """Which frame, int64."""
    x0: Tensor
    y0: Tensor
    x1: Tensor
    y1: Tensor
    width: Tensor
    """Width of the drop in pixels, below 1 for most."""
    blur: Tensor
    """Diameter of the circle of confusion in pixels."""
    opacity: Tensor
    """Share of the exposure for which a covered point is covered, 0..1."""
    depth_m: Tensor
    brightness: Tensor
    """The drop's brightness relative to others, about 1."""
    waves: Tensor
    """Number of bright and dark periods along the streak: drops oscillate."""
    phase: Tensor
    """Where the first period starts, 0..1."""


def fall_speed(diameter_mm: Tensor) -> Tensor:
    """Return the terminal speed of drops in m/s, v = 9.65 - 10.3 exp(-0.6 D)."""
    return (9.65 - 10.3 * torch.exp(-0.6 * diameter_mm)).clamp_min(_LEAST_SPEED_M_S)


def number_density(diameter_mm: Tensor, rate_mm_h: Tensor) -> Tensor:
    """Return drops per m^3 and mm of diameter, N = 8000 exp(-4.1 R^-0.21 D); none without rain."""
    falling = rate_mm_h.clamp_min(1e-3)
    return 8000.0 * torch.exp(-4.1 * falling**-0.21 * diameter_mm) * (rate_mm_h > 0)


def extinction_per_m(rate_mm_h: Tensor) -> Tensor:
    """Return how much light rain takes per metre, beta = 0.312 R^0.67 / km."""
    return 0.312e-3 * rate_mm_h**0.67


def sample_streaks(
    air: Air,
    keys: Tensor,
    size_hw: tuple[int, int],
    *,
    frame_width: Tensor | int | None = None,
    time_s: Tensor,
) -> Streaks:
    """Sample the visible streaks of falling drops for a batch of views.

    Args:
        air: Rain and camera of each image.
        keys: Random keys of the images (B,); see `image_key`.
        size_hw: (height, width) of the images in pixels.
        frame_width: Longer side of the whole frames in pixels if the images are crops of them, of
            all or of each (B,).
        time_s: Time of each exposure (B,); drops are where they have moved to by then.
    """
    height, width = size_hw
    # In double precision, so that what is derived from it rounds once.
    frame = torch.zeros_like(air.focal, dtype=torch.float64)
    frame = frame + (max(size_hw) if frame_width is None else frame_width)
    focal_px = air.focal * frame.float()
    longest = _LONGEST * frame
    faintest = _faintest(air, frame)
    classes = _size_classes(air, faintest, (height + longest, width + longest), focal_px)
    image, index, chosen = _choose(classes.expected, keys)
    drops = _SizeClasses(*(values[image, chosen] for values in classes))  # each tensor (N,)
    diameter_mm = drops.least_mm + drops.step_mm * uniform(keys, index, 1, image)
    speed = fall_speed(diameter_mm)
    velocity = (
        air.wind_m_s[image] + _TURBULENCE * speed * normal(keys, index, 2, image),
        speed,
        -air.camera_m_s[image],
    )
    box = (drops.box_x, drops.box_y, drops.box_z)
    x, y, z = _positions(keys, image, index, velocity, box, time_s[image])
    focal = focal_px[image]
    exposure = air.exposure_s[image]
    end_z = (z + velocity[2] * exposure).clamp_min(0.5 * _NEAREST_M)
    x0, y0 = width / 2 + focal * x / z, height / 2 + focal * y / z
    x1 = width / 2 + focal * (x + velocity[0] * exposure) / end_z
    y1 = height / 2 + focal * (y + velocity[1] * exposure) / end_z
    length = torch.hypot(x1 - x0, y1 - y0)
    cut = (length.clamp_min(1e-6).reciprocal() * longest.float()[image]).clamp_max(1.0)
    x1, y1 = x0 + (x1 - x0) * cut, y0 + (y1 - y0) * cut
    drop_px = focal * diameter_mm * 1e-3 / z
    blur_px = air.aperture_m[image] * focal * (1.0 / z - 1.0 / air.focus_m[image]).abs()
    opacity = drop_px / (drop_px + length)
    seen = _in_view((x0, x1), (y0, y1), drop_px + blur_px + 2.0, size_hw)
    image, index = image[seen], index[seen]
    shapes = [part[seen] for part in (x0, y0, x1, y1, drop_px, blur_px, opacity, z)]
    brightness = 0.6 + 0.8 * uniform(keys, index, 8, image)
    waves = 1.0 + 2.0 * uniform(keys, index, 9, image)
    return Streaks._make([image, *shapes, brightness, waves, uniform(keys, index, 10, image)])


def _in_view(
    x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], margin: Tensor, size_hw: tuple[int, int]
) -> Tensor:
    """Return the indices of streaks that reach into an image of this (height, width)."""
    height, width = size_hw
    inside = (
        (torch.maximum(*x) > -margin)
        & (torch.minimum(*x) < width + margin)
        & (torch.maximum(*y) > -margin)
        & (torch.minimum(*y) < height + margin)
    )
    return inside.nonzero()[:, 0]


class _SizeClasses(NamedTuple):
    """Classes of drop size: tensors (B, K)."""

    least_mm: Tensor
    step_mm: Tensor
    expected: Tensor
    """Mean number of drops in the class's box."""
    box_x: Tensor
    box_y: Tensor
    box_z: Tensor


def _faintest(air: Air, frame_width: Tensor) -> Tensor:
    """Return the smallest opacity drawn (B,), raised where there would be too many streaks.

    It depends on the whole frame, so that a crop shows the same rain as its frame.
    """
    opacity = torch.zeros_like(air.focal) + air.min_opacity
    extent_hw = ((0.75 + _LONGEST) * frame_width, (1.0 + _LONGEST) * frame_width)
    for _ in range(_ROUNDS):
        classes = _size_classes(air, opacity, extent_hw, air.focal * frame_width.float())
        surplus = classes.expected.sum(dim=1) / _MOST_DROPS
        # The volume of a box goes with the cube of how far drops are seen, unless that is cut.
        opacity = opacity * surplus.clamp_min(1.0) ** (1.0 / 3.0)
    return opacity


def _size_classes(
    air: Air, min_opacity: Tensor, extent_hw: tuple[Tensor, Tensor], focal_px: Tensor
) -> _SizeClasses:
    """Return the visible distance of each size class, and the mean number of drops within it."""
    device = air.rate_mm_h.device
    edges = torch.logspace(
        math.log10(_LEAST_MM), math.log10(_LARGEST_MM), _CLASSES + 1, device=device
    )
    middle, step = (edges[1:] + edges[:-1]) / 2, edges[1:] - edges[:-1]
    rate, wind, exposure, focal = (
        values[:, None] for values in (air.rate_mm_h, air.wind_m_s, air.exposure_s, air.focal)
    )
    diameter_m = middle * 1e-3
    path = torch.hypot(fall_speed(middle), wind) * exposure
    opacity = diameter_m / (diameter_m + path)
    # Beyond one pixel a streak fades with its width, which falls with the distance.
    farthest = opacity * focal * REFERENCE_WIDTH * diameter_m / min_opacity[:, None]
    box_z = (farthest.clamp_max(_FARTHEST_M) - _NEAREST_M).clamp_min(0.0)
    across = (box_z + _NEAREST_M) / focal_px[:, None]
    box_y, box_x = (across * extent.float()[:, None] for extent in extent_hw)
    expected = number_density(middle, rate) * step * box_x * box_y * box_z
    return _SizeClasses(
        edges[:-1].expand_as(expected), step.expand_as(expected), expected, box_x, box_y, box_z
    )


def _choose(expected: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, index within it, and size class of each drop, all (N,) int64."""
    cumulative = expected.double().cumsum(dim=1)
    total = cumulative[:, -1]
    counts = (total + uniform(keys, 0, 0).double()).long()
    images = torch.arange(len(keys), device=keys.device)
    image, index = expand(counts)
    # One sorted list for the whole batch: the distribution of image b lies between b and b + 1.
    steps = (cumulative / total.clamp_min(1e-12)[:, None]).clamp_max(1.0) + images[:, None]
    places = uniform(keys, index, 11, image).double() + image
    chosen = torch.searchsorted(steps.flatten(), places, right=True) - image * expected.shape[1]
    return image, index, chosen.clamp(0, expected.shape[1] - 1)


def _positions(
    keys: Tensor,
    image: Tensor,
    index: Tensor,
    velocity: tuple[Tensor, Tensor, Tensor],
    box: tuple[Tensor, Tensor, Tensor],
    time_s: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the positions of drops. One that leaves its box re-enters at another lateral place."""
    y = uniform(keys, index, 5, image) + velocity[1] * time_s / box[1]
    z = uniform(keys, index, 6, image) + velocity[2] * time_s / box[2]
    rounds = (y.floor() + 7919 * z.floor()).long()
    x = uniform(keys, index + (rounds << 20), 4, image) + velocity[0] * time_s / box[0]
    return (
        (x - x.floor() - 0.5) * box[0],
        (y - y.floor() - 0.5) * box[1],
        (z - z.floor()) * box[2] + _NEAREST_M,
    )
