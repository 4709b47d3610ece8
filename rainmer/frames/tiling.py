"""Split frames into overlapping tiles, and merge the tiles again."""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Blend",
    "blend_window",
    "merge_tiles",
    "pad_to_least",
    "pad_to_multiple",
    "pad_to_size",
    "score_map",
    "split_tiles",
    "tile_starts",
]

Blend = Literal["smooth", "mean", "score"]

_SCORE_OFFSET = 1e-3


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles start along one axis: strides of `tile - overlap`, the last one snapped.

    The last tile is moved back to end at the border, so it may overlap more than the others
    (Rainmer's evaluation protocol). An axis not longer than a tile has the one start 0.

    Raises:
        ValueError: The overlap is negative or not smaller than the tile.

    Example:
        >>> tile_starts(72, 32, 8)
        [0, 24, 40]
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"expected 0 <= overlap < tile, but got {overlap} and {tile}")
    if length <= tile:
        return [0]
    starts = list(range(0, length - tile + 1, tile - overlap))
    if starts[-1] != length - tile:
        starts.append(length - tile)
    return starts


def split_tiles(
    batch: Tensor, tile_hw: tuple[int, int], overlap: int
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Cut a batch (B, C, H, W) into tiles of one size.

    Returns:
        Tiles (T * B, C, h, w) with h, w = min of frame and tile, ordered by tile (rows outer),
        then by frame; and the T places (top, left).
    """
    height, width = (min(a, b) for a, b in zip(batch.shape[-2:], tile_hw, strict=True))
    places = [
        (top, left)
        for top in tile_starts(batch.shape[-2], height, min(overlap, height - 1))
        for left in tile_starts(batch.shape[-1], width, min(overlap, width - 1))
    ]
    tiles = [batch[..., top : top + height, left : left + width] for top, left in places]
    return torch.cat(tiles), places


def merge_tiles(
    tiles: Tensor,
    places: list[tuple[int, int]],
    size_hw: tuple[int, int],
    *,
    overlap: int,
    blend: Blend = "smooth",
) -> Tensor:
    """Merge the tiles of `split_tiles` by a weighted mean.

    Args:
        tiles: (T * B, C, h, w), ordered as `split_tiles` gives them.
        places: The T places (top, left).
        size_hw: Size of the whole frames.
        overlap: Width of the ramp of `smooth`, in pixels.
        blend: Weights of a tile's pixels: `smooth`: raised cosines towards the seams, `mean`: equal
            (as in the paper), `score`: nearness to the tile's centre (as in the paper for IDT).

    Returns:
        (B, C, H, W) of the tiles' type.
    """
    by_place = tiles.reshape(len(places), -1, *tiles.shape[1:])  # (T, B, C, h, w)
    tile_hw = (tiles.shape[-2], tiles.shape[-1])
    if blend == "score":
        window = score_map(tile_hw, tiles.device)
    else:
        window = blend_window(tile_hw, overlap if blend == "smooth" else 0, tiles.device)
    merged = torch.zeros(by_place.shape[1:-2] + size_hw, device=tiles.device)
    weights = torch.zeros(size_hw, device=tiles.device)
    for place, tile in zip(places, by_place, strict=True):
        rows = slice(place[0], place[0] + tile_hw[0])
        columns = slice(place[1], place[1] + tile_hw[1])
        merged[..., rows, columns] += tile * window
        weights[rows, columns] += window
    return (merged / weights).to(tiles.dtype)


@functools.lru_cache(maxsize=16)
def blend_window(tile_hw: tuple[int, int], overlap: int, device: torch.device) -> Tensor:
    """Return the weights (h, w) of one tile: 1 inside, falling as a raised cosine to the rim.

    The ramps of two neighbours that overlap by exactly `overlap` pixels sum to one.
    """
    ramps = []
    for side in tile_hw:
        distance = torch.arange(side, dtype=torch.float32) + 0.5
        distance = torch.minimum(distance, distance.flip(0))
        width = min(overlap, side // 2)
        ramp = distance.div(max(width, 1)).clamp(max=1.0) if width else torch.ones(side)
        ramps.append((1.0 - torch.cos(math.pi * ramp)) / 2.0)
    return torch.outer(*ramps).to(device)


@functools.lru_cache(maxsize=16)
def score_map(tile_hw: tuple[int, int], device: torch.device) -> Tensor:
    """Return the weights (h, w) of one tile of IDT: one over the distance to the centre.

    `1 / sqrt((i - h/2)^2 + (j - w/2)^2 + 1e-3)`, from Rainmer's evaluation protocol (section 5).
    The centre is pixel h/2, so the map of an even side is not symmetric.
    """
    rows, columns = (torch.arange(side, dtype=torch.float32) - side / 2 for side in tile_hw)
    squares = rows.square()[:, None] + columns.square()
    return torch.rsqrt(squares + _SCORE_OFFSET).to(device)


def pad_to_multiple(batch: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the bottom and the right so that both sides divide by `multiple`.

    As `pad_to_size` does.
    """
    height, width = (side + -side % multiple for side in batch.shape[-2:])
    return pad_to_size(batch, (height, width))


def pad_to_least(batch: Tensor, least: int) -> Tensor:
    """Pad (B, C, H, W) at the bottom and the right so that no side is shorter than `least`.

    As `pad_to_size` does.
    """
    height, width = (max(least, side) for side in batch.shape[-2:])
    return pad_to_size(batch, (height, width))


def pad_to_size(batch: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Pad (B, C, H, W) at the bottom and the right to (height, width), which is not smaller.

    By reflection; along a side too short to be reflected, the last pixel is repeated.
    """
    sides = batch.shape[-2:]
    bottom, right = (size - side for size, side in zip(size_hw, sides, strict=True))
    for padding, side in zip(((0, 0, 0, bottom), (0, right, 0, 0)), sides, strict=True):
        if any(padding):
            batch = F.pad(batch, padding, mode="reflect" if max(padding) < side else "replicate")
    return batch
