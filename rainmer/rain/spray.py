"""Spray: the turbulent clouds of fine drops that tyres raise from a wet road.

Spray is thickest at the road and thins out exponentially with the height, so the optical depth of
a ray that falls from the camera to the road has a closed form, as for ground fog. To this layer
come plumes behind vehicles that the frame may not show, and both are broken up by noise.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer.data.depth import Ground
from rainmer.rain.randomness import uniform

__all__ = ["spray_clouds"]

_STREAM = 5000
_SCALE_M = 0.8  # height in which the layer thins out to 37 %
_PLUMES = 5  # at most
_OWN_M = 7.0  # the air ahead of the camera's own vehicle is free of spray
_PLUME_M = 10.0  # length of the layer's thickest spray that a plume is worth
_PLUME_WIDTH_M, _PLUME_HEIGHT_M = 1.6, 1.5
_NEAREST_M, _FARTHEST_M = 8.0, 50.0  # of plumes
_ASIDE_M = 6.0
_OCTAVES = 4
_CELLS = 5  # of the coarsest noise, in a frame's width; clouds are wider than high
_FLATTENED = 1.5
_RUGGED = 2.0  # the noise's influence on the logarithm of the density
_CHANGES_PER_S = 2.0


def spray_clouds(
    ground: Ground, depth_m: Tensor, keys: Tensor, time_s: Tensor, *, frame_widths: Sequence[int]
) -> Tensor:
    """Return how much spray is in front of a scene, in metres of the thickest (B, 1, H, W).

    Args:
        ground: The plane of the road.
        depth_m: Depth of the scene (B, 1, H, W).
        keys: Random keys (B,).
        time_s: Time of the exposure (B,); clouds change slowly.
        frame_widths: Longer side of each whole frame in pixels.
    """
    size_hw = depth_m.shape[-2], depth_m.shape[-1]
    noise = _turbulence(keys, time_s, size_hw, frame_widths)
    ahead = _layer(ground, depth_m) - _layer(ground, depth_m.clamp_max(_OWN_M))
    clouds = ahead.clamp_min(0.0) + _plumes(ground, depth_m, keys)
    return clouds * torch.exp(_RUGGED * noise)


def _map(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _layer(ground: Ground, depth_m: Tensor) -> Tensor:
    """Return the metres of thickest spray along each ray: the integral of exp(-height / scale)."""
    height = depth_m.shape[-2]
    rows = (torch.arange(height, device=depth_m.device) + 0.5)[:, None]
    fall = (rows - height * _map(ground.horizon)) / _map(ground.focal_px)  # per metre ahead
    start = _map(ground.camera_height_m) / _SCALE_M
    sunk = torch.minimum(fall * depth_m / _SCALE_M, start)  # a ray ends at the road
    mean = torch.where(sunk.abs() < 1e-2, 1.0 + 0.5 * sunk, torch.expm1(sunk) / sunk)
    return torch.exp(-start) * depth_m * mean


def _plumes(ground: Ground, depth_m: Tensor, keys: Tensor) -> Tensor:
    """Return the metres of thickest spray in plumes, which hide only what lies behind them."""
    height, width = depth_m.shape[-2:]
    rows = (torch.arange(height, device=depth_m.device) + 0.5)[:, None]
    columns = torch.arange(width, device=depth_m.device) + 0.5
    total = torch.zeros_like(depth_m)
    for plume in range(_PLUMES):

        def drawn(stream: int, plume: int = plume) -> Tensor:
            return _map(uniform(keys, plume, _STREAM + stream))

        distance = _NEAREST_M * (_FARTHEST_M / _NEAREST_M) ** drawn(0)
        scale = _map(ground.focal_px) / distance  # pixels per metre
        middle = 0.5 * width + scale * _ASIDE_M * (2.0 * drawn(1) - 1.0)
        road = height * _map(ground.horizon) + scale * _map(ground.camera_height_m)
        above = (road - rows) / (scale * _PLUME_HEIGHT_M * (0.6 + 0.8 * drawn(2)))
        aside = (columns - middle) / (scale * _PLUME_WIDTH_M)
        upright = torch.exp(-torch.where(above < 0, 3.0 * above, above).square())
        behind = ((depth_m - distance) / 4.0 + 0.5).clamp(0.0, 1.0)
        total = total + drawn(3) * upright * torch.exp(-aside.square()) * behind
    return _PLUME_M * total


def _turbulence(
    keys: Tensor, time_s: Tensor, size_hw: tuple[int, int], frame_widths: Sequence[int]
) -> Tensor:
    """Return a few octaves of smooth noise (B, 1, H, W), about -0.5..0.5."""
    total = torch.zeros(len(keys), 1, *size_hw, device=keys.device)
    for octave in range(_OCTAVES):
        cells = _CELLS * 2**octave
        grids = defaultdict(list)  # frames of several widths have grids of several sizes
        for row, frame in enumerate(frame_widths):
            down = max(1, math.ceil(_FLATTENED * cells * size_hw[0] / frame))
            across = max(1, math.ceil(cells * size_hw[1] / frame))
            grids[down, across].append(row)
        steps = _CHANGES_PER_S * time_s * 2**octave
        for grid_hw, own in grids.items():
            rows = torch.tensor(own, device=keys.device)
            smooth = _noise(keys[rows], steps[rows], grid_hw, size_hw, _STREAM + 10 + octave)
            total.index_add_(0, rows, smooth, alpha=0.5 ** (octave + 1))
    return total


def _noise(
    keys: Tensor, steps: Tensor, grid_hw: tuple[int, int], size_hw: tuple[int, int], stream: int
) -> Tensor:
    """Return noise of a grid's random values (B, 1, H, W), -0.5..0.5, between two steps of time."""
    down, across = grid_hw
    places = torch.arange(down * across, device=keys.device).view(1, 1, down, across)
    later = _map(steps - steps.floor())
    first = _map(steps.floor().long() * down * across) + places
    now = uniform(_map(keys), first, stream)
    grid = now + later * (uniform(_map(keys), first + down * across, stream) - now)
    return F.interpolate(grid - 0.5, size_hw, mode="bicubic", align_corners=False)
