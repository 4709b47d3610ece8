"""What the meter sees of a frame: statistics of an encoder's maps of its query, and thin lines.

Each map tells something else about rain. Means say what kind of picture it is: light, haze, night.
Spread and maxima grow with streaks, which are few and bright. Differences across columns grow with
streaks much more than differences down the rows, because rain falls: their ratio tells rain from
texture, and how long streaks are tells the rate. Means of the upper, middle and lower third tell
a veil, which thickens to the horizon, from a flat picture. Unit-length prompts add the direction of
the view, which the encoder learned to tell rain by.

At 128 pixels thin streaks are gone, so the middle of the frame is looked at as sharp as it is, for
upright lines beside level ones. Rain is everywhere, texture in places: of the energy in small
blocks the least tells more than the mean.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer.errors import WeightsError
from rainmer.frames.arrays import quantize
from rainmer.frames.resize import resize_bilinear
from rainmer.models import Network, Rainmer
from rainmer.models.rainmer import QUERY_SIZE_HW, ViewEncoder, prompts_of_maps

__all__ = [
    "LONGER_SIDE",
    "encoder_fingerprint",
    "encoder_of",
    "meter_views",
    "view_statistics",
    "window_places",
]

LONGER_SIDE = 400
"""Frames are shrunk to this longer side first: the meter sees every camera at one resolution."""
WINDOW_HW = (128, 256)
"""Height and width of the part that is looked at as it is then."""
_WINDOW_AT = (0.45, 0.5)  # its middle: a little above the frame's, where less of the vehicle is
_DISTANCES = (1, 2, 3)  # pixels from the middle of a line to what lies beside it
_LONG = 9  # pixels along a line over which it is averaged
_STEP = 3  # and between two such averages
_BLOCKS_HW = (4, 8)
_BLOCK_RANKS = (1, 8, 16, 24, 30)  # of the 32 blocks by energy
_MEAN_RANKS = (2, 16, 29)
_FLOOR = 1e-3  # added before the logarithm of what may be zero


def encoder_of(network: Network) -> ViewEncoder:
    """Return the fused encoder of a network, for inference, on the network's device.

    Raises:
        WeightsError: The network has no views.
    """
    encoder = network.fuse().encoder if isinstance(network, Rainmer) else None
    if encoder is None or not encoder.heads:
        raise WeightsError(f"{network.name} has no views to measure rain by: use rainmer-s")
    return encoder


def encoder_fingerprint(network: Network) -> str:
    """Return the SHA-256 of a network's encoder (64 hexadecimal digits): its options and weights.

    Raises:
        WeightsError: The network has no encoder.
    """
    if not isinstance(network, Rainmer) or network.encoder is None or network.fused:
        raise WeightsError(f"{network.name} has no views to measure rain by: use rainmer-s")
    found = hashlib.sha256(f"{network.encoder.stride} {list(network.encoder.heads)}".encode())
    for key, tensor in sorted(network.encoder.state_dict().items()):
        found.update(f"{key} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def meter_views(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the meter looks at of frames (B, 3, H, W), RGB, 0..1 or uint8.

    Frames larger than `LONGER_SIDE` are averaged down to it first, so that a thin streak in a large
    frame looks as it does in a small one.

    Returns:
        Queries (B, 3, 128, 128), 0..1: the whole frame, as for the derainer, bilinear on 8-bit
        levels. And windows (B, 1, 128, 256), grey, 0..1: the middle at its own resolution; smaller
        frames are continued by their borders.
    """
    levels = batch if batch.dtype == torch.uint8 else quantize(batch)
    height, width = levels.shape[-2:]
    longer = max(height, width)
    if longer > LONGER_SIDE:
        rows, columns = (max(1, round(side * LONGER_SIDE / longer)) for side in (height, width))
        levels = F.adaptive_avg_pool2d(levels.float(), (rows, columns)).round().to(torch.uint8)
    query = resize_bilinear(levels, QUERY_SIZE_HW).float().div(255.0)
    return query, _middle(levels).float().mean(1, keepdim=True).div(255.0)


def _middle(levels: Tensor) -> Tensor:
    """Cut the window out of a batch."""
    rows, columns = window_places((levels.shape[-2], levels.shape[-1]), levels.device)
    return levels[..., rows, :][..., columns]


def window_places(
    size_hw: tuple[int, int], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return the rows (128,) and columns (256,) of the window in frames of a size."""
    places = []
    for side, wanted, centre in zip(size_hw, WINDOW_HW, _WINDOW_AT, strict=True):
        first = max(0, min(round(side * centre - wanted / 2), side - wanted))
        place = torch.arange(first, first + wanted, device=device)
        places.append(place.clamp_max(side - 1))
    return places[0], places[1]


@torch.no_grad()
def view_statistics(encoder: ViewEncoder, query: Tensor, window: Tensor) -> Tensor:
    """Return the statistics (B, N), float32, of queries (B, 3, h, w) and windows (B, 1, H, W).

    For each channel of the location map, the view maps, and the query with its darkest channel:
    mean, standard deviation, maximum, mean absolute difference across and down, and the means of
    three bands of rows; then the prompts; then, of the window, how much thin lines stand out, and
    the logarithm of that, by which the MLP sees ratios of upright and level ones.
    """
    location = encoder.location(query)
    maps = {view: head(location) for view, head in encoder.heads.items()}
    small = F.interpolate(query, location.shape[-2:], mode="bilinear", align_corners=False)
    seen = torch.cat([location, *maps.values(), small, small.amin(1, keepdim=True)], 1).float()
    lines = torch.cat([_lines(window), _lines(window.transpose(2, 3))], 1)
    parts = [
        seen.mean((2, 3)),
        _deviation(seen),
        seen.amax((2, 3)),
        seen.diff(dim=3).abs().mean((2, 3)),
        seen.diff(dim=2).abs().mean((2, 3)),
        F.adaptive_avg_pool2d(seen, (3, 1)).flatten(1),
        prompts_of_maps(maps).flatten(1),
        lines,
        (lines + _FLOOR).log(),
    ]
    return torch.cat(parts, dim=1)


def _lines(grey: Tensor) -> Tensor:
    """Return how much thin upright lines stand out of (B, 1, H, W): (B, 44).

    What is brighter than both sides of it at a few distances, at one distance also what is darker:
    over the window, and in blocks sorted by it.
    """
    parts = []
    for distance in _DISTANCES:
        inner = grey[..., distance:-distance]
        sides = (grey[..., 2 * distance :] + grey[..., : -2 * distance]) / 2.0
        ridge = inner - sides
        bright = ridge.clamp_min(0.0)
        along = F.avg_pool2d(bright, (_LONG, 1), stride=1)
        parts += [bright.mean((2, 3)), along.square().mean((2, 3)).sqrt(), _deviation(along)]
        parts += [along.amax((2, 3)), _block_ranks(bright, along[:, :, ::_STEP])]
        if distance == _DISTANCES[1]:
            dark = ridge.neg().clamp_min(0.0)
            along = F.avg_pool2d(dark, (_LONG, 1), stride=(_STEP, 1))
            parts.append(_block_ranks(dark, along))
    return torch.cat(parts, dim=1)


def _block_ranks(ridge: Tensor, along: Tensor) -> Tensor:
    """Return ranks of the blocks of (B, 1, H, W), by energy along lines and by mean: (B, 8)."""
    energy = F.adaptive_avg_pool2d(along.square(), _BLOCKS_HW).flatten(1).sqrt().sort(1).values
    mean = F.adaptive_avg_pool2d(ridge, _BLOCKS_HW).flatten(1).sort(1).values
    return torch.cat([energy[:, list(_BLOCK_RANKS)], mean[:, list(_MEAN_RANKS)]], dim=1)


def _deviation(maps: Tensor) -> Tensor:
    """Return the standard deviations (B, C) of maps (B, C, H, W): ten times as fast as `std`."""
    count = maps[0, 0].numel()
    spread = (maps - maps.mean((2, 3), keepdim=True)).square().mean((2, 3))
    return (spread * (count / max(1, count - 1))).sqrt()
