"""A step of a mixture (`rainmer.models.layers.CompensatorStep`) in two passes.

Each of its eight operations ends in a matrix, by which the sum over the operations is one result:

- four separable ones, of side 1, 3, 5, 7: filter, matrix, ReLU, filter (none for side 1);
- three filters of side 3, 5, 7 with dilation 2;
- the average over 3x3 pixels, ignoring those beyond the border.

The first pass computes what lies before the second filters, the second pass everything else, with
sums in float32. The filters of both passes lie in one table, see `TAP_ROWS`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rainmer.kernels.filters import STRIP, place, strip_sums

__all__ = ["TAP_ROWS", "mixture"]

TAP_ROWS = 3 * (9 + 25 + 49) + 9
"""Rows of the table of filters: first, last and dilated ones, each 3x3, 5x5, 7x7; 9 of ones."""

_STRIP = tl.constexpr(STRIP)
_ROWS = 8  # of a tile
_TILE = 512  # channels filtered at a time of all strips of a tile: 4 for each of 128 threads
_LEAST_SIDE = 16  # of the matrices that Triton multiplies


@triton.jit
def _pixels(strips: tl.tuple, DILATION: tl.constexpr):
    """Turn the columns of strips (S, C) into pixels (S * 8, C), row by row as they lie in a tile.

    `DILATION` strips lie within each other.
    """
    pairs: tl.tuple = ()
    for k in tl.static_range(_STRIP // 2):
        pairs += (tl.join(strips[2 * k], strips[2 * k + 1]),)
    first, second = tl.join(pairs[0], pairs[1]), tl.join(pairs[2], pairs[3])
    joined = tl.permute(tl.join(first, second), (0, 4, 3, 2, 1))  # S, 2, 2, 2, C
    count: tl.constexpr = strips[0].shape[0]
    channels: tl.constexpr = strips[0].shape[1]
    if DILATION > 1:
        apart = tl.reshape(joined, (count // DILATION, DILATION, _STRIP, channels))
        joined = tl.permute(apart, (0, 2, 1, 3))
    return tl.reshape(joined, (count * _STRIP, channels))


@triton.jit
def _pixel_places(tile: tl.tensor, across: tl.tensor, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """Return the rows and columns of the pixels of a tile, in the order of `_pixels`."""
    wide: tl.constexpr = TILE_W * _STRIP
    number = tl.arange(0, TILE_H * wide)
    return (tile // across) * TILE_H + number // wide, (tile % across) * wide + number % wide


@triton.jit
def _filtered(
    x: tl.tensor,
    taps: tl.tensor,
    tile: tl.tensor,
    across: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    COUNT: tl.constexpr,
    SIDE: tl.constexpr,
    DILATION: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Filter some channels of a contiguous map (H, W, COUNT) for the pixels of a tile."""
    rows, columns = place(tile, across, DILATION, TILE_H, TILE_W)
    # fmt: off
    strips = strip_sums(
        x, taps, rows, columns, channels, height, width, width * COUNT, COUNT, COUNT, COUNT,
        DILATION, COUNT % CHUNK == 0, CHUNK, SIDE,
    )
    # fmt: on
    return _pixels(strips, DILATION)


@triton.jit
def _multiply_add(
    total: tl.tensor,
    value: tl.tensor,
    matrix: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    COUNT: tl.constexpr,
):
    """Add pixels times some rows and columns of a matrix (COUNT, COUNT) to a float32 total."""
    address = matrix + rows[:, None] * COUNT + columns[None, :]
    inside = (rows < COUNT)[:, None] & (columns < COUNT)[None, :]
    table = tl.load(address, mask=inside, other=0.0)
    return tl.dot(value.to(matrix.dtype.element_ty), table, total, input_precision="ieee")


@triton.jit(do_not_specialize=["height", "width", "across"])
def _first_pass(
    state: tl.tensor,
    taps: tl.tensor,
    inner: tl.tensor,
    hidden: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    across: tl.tensor,
    image_size: tl.tensor,
    plane: tl.tensor,
    COUNT: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    CHUNK: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    tile, image = tl.program_id(0), tl.program_id(1).to(tl.int64) * image_size
    rows, columns = _pixel_places(tile, across, TILE_H, TILE_W)
    all_channels = tl.arange(0, CHANNELS)
    inside = ((rows < height) & (columns < width))[:, None] & (all_channels < COUNT)[None, :]
    at = (rows.to(tl.int64) * width + columns)[:, None] * COUNT + all_channels[None, :]
    out = hidden + image + at
    for n in tl.static_range(3):
        inner += COUNT * COUNT
        total = tl.zeros((TILE_H * TILE_W * _STRIP, CHANNELS), tl.float32)
        for start in range(0, COUNT, CHUNK):
            channels = start + tl.arange(0, CHUNK)
            # fmt: off
            value = _filtered(
                state + image, taps, tile, across, channels, height, width, COUNT, 2 * n + 3, 1,
                TILE_H, TILE_W, CHUNK,
            )
            # fmt: on
            total = _multiply_add(total, value, inner, channels, all_channels, COUNT)
        total = tl.where(total < 0, 0.0, total)  # keeps NaN
        tl.store(out, total.to(hidden.dtype.element_ty), mask=inside)
        taps += (2 * n + 3) * (2 * n + 3) * COUNT
        out += plane


@triton.jit
def _filter_sums(
    total: tl.tensor,
    state: tl.tensor,
    source: tl.tensor,
    taps: tl.tensor,
    merges: tl.tensor,
    seen: tl.tensor,
    tile: tl.tensor,
    across: tl.tensor,
    channels: tl.tensor,
    all_channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    plane: tl.tensor,
    COUNT: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Add what the filters of some channels give to a total: last, dilated, and the average."""
    square: tl.constexpr = COUNT * COUNT
    last = merges + 7 * square
    for n in tl.static_range(3):
        merges += square
        # fmt: off
        value = _filtered(
            source, taps, tile, across, channels, height, width, COUNT, 2 * n + 3, 1, TILE_H,
            TILE_W, CHUNK,
        )
        total = _multiply_add(total, value, merges, channels, all_channels, COUNT)
        value = _filtered(
            state, taps + 83 * COUNT, tile, across, channels, height, width, COUNT, 2 * n + 3, 2,
            TILE_H, TILE_W, CHUNK,
        )
        # fmt: on
        total = _multiply_add(total, value, merges + 3 * square, channels, all_channels, COUNT)
        taps += (2 * n + 3) * (2 * n + 3) * COUNT
        source += plane
    # fmt: off
    value = _filtered(
        state, taps + 83 * COUNT, tile, across, channels, height, width, COUNT, 3, 1, TILE_H,
        TILE_W, CHUNK,
    )
    # fmt: on
    return _multiply_add(total, value / seen, last, channels, all_channels, COUNT)


@triton.jit(do_not_specialize=["height", "width", "across"])
def _second_pass(
    state: tl.tensor,
    taps: tl.tensor,
    inner: tl.tensor,
    hidden: tl.tensor,
    merges: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    across: tl.tensor,
    image_size: tl.tensor,
    plane: tl.tensor,
    COUNT: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    CHUNK: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    tile, image = tl.program_id(0), tl.program_id(1).to(tl.int64) * image_size
    rows, columns = _pixel_places(tile, across, TILE_H, TILE_W)
    on_map = ((rows < height) & (columns < width))[:, None]
    at = (rows.to(tl.int64) * width + columns)[:, None] * COUNT
    all_channels = tl.arange(0, CHANNELS)
    merges += tl.program_id(1) * 8 * COUNT * COUNT
    state += image
    high = 3 - (rows == 0).to(tl.int32) - (rows == height - 1).to(tl.int32)
    wide = 3 - (columns == 0).to(tl.int32) - (columns == width - 1).to(tl.int32)
    seen = (high * wide).to(tl.float32)[:, None]  # pixels under the average
    total = tl.zeros((TILE_H * TILE_W * _STRIP, CHANNELS), tl.float32)
    for start in range(0, COUNT, CHUNK):
        channels = start + tl.arange(0, CHUNK)
        value = tl.zeros((TILE_H * TILE_W * _STRIP, CHUNK), tl.float32)
        for given in range(0, COUNT, CHUNK):
            sources = given + tl.arange(0, CHUNK)
            mask = on_map & (sources < COUNT)[None, :]
            own = tl.load(state + at + sources[None, :], mask=mask, other=0.0)
            value = _multiply_add(value, own, inner, sources, channels, COUNT)
        value = tl.where(value < 0, 0.0, value)
        total = _multiply_add(total, value, merges, channels, all_channels, COUNT)
        # fmt: off
        total = _filter_sums(
            total, state, hidden + image, taps, merges, seen, tile, across, channels, all_channels,
            height, width, plane, COUNT, TILE_H, TILE_W, CHUNK,
        )
        # fmt: on
    at += all_channels[None, :]
    inside = on_map & (all_channels < COUNT)[None, :]
    own = tl.load(state + at, mask=inside, other=0.0).to(tl.float32)
    total = tl.where(total < 0, 0.0, total) + own
    tl.store(out + image + at, total.to(out.dtype.element_ty), mask=inside)


def mixture(state: Tensor, taps: Tensor, inner: Tensor, merges: Tensor) -> Tensor:
    """Return the next state, >= 0.

    Bytes: 9 maps: the first pass reads 1 and writes 3, the second reads 4 and writes 1. torch: 64,
    an operation at a time: 11 for each separable one of side 3 to 7, 6 for the one of side 1, 5 for
    each other, 5 for the last ReLU and addition.

    Args:
        state: (B, H, W, C) >= 0.
        taps: The filters of `TAP_ROWS`, (TAP_ROWS, C).
        inner: Matrices of the separable operations (4, C in, C out).
        merges: Matrices of all operations, for each image: (B, 8, C in, C out).
    """
    state = state.contiguous()
    batch, height, width, count = state.shape
    hidden = state.new_empty(3, *state.shape)
    out = state.new_empty(state.shape)
    chunk = 32 if count % 32 == 0 else _LEAST_SIDE
    across = _TILE // chunk // _ROWS  # strips
    tiles = triton.cdiv(width, across * STRIP)
    grid = (tiles * triton.cdiv(height, _ROWS), batch)
    sizes = (height, width, tiles, height * width * count, state.numel())
    tile = {
        "COUNT": count,
        "TILE_H": _ROWS,
        "TILE_W": across,
        "CHUNK": chunk,
        "CHANNELS": max(_LEAST_SIDE, triton.next_power_of_2(count)),
    }
    _first_pass[grid](state, taps, inner, hidden, *sizes, **tile)
    last = taps[9 + 25 + 49 :]
    _second_pass[grid](state, last, inner, hidden, merges, out, *sizes, **tile)
    return out
