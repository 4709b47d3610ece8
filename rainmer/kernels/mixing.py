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

from rainmer.kernels.filters import filtered, place, tile_of

__all__ = ["TAP_ROWS", "mixture"]

TAP_ROWS = 3 * (9 + 25 + 49) + 9
"""Rows of the table of filters: first, last and dilated ones, each 3x3, 5x5, 7x7; 9 of ones."""

_LEAST_SIDE = 16  # of the matrices that Triton multiplies


@triton.jit
def _multiplied(
    value: tl.tensor,
    matrix: tl.tensor,
    channels: tl.tensor,
    count: tl.tensor,
    DTYPE: tl.constexpr,
):
    """Multiply pixels by a matrix (C in, C out); float32."""
    present = channels < count
    address = matrix + channels[:, None] * count + channels[None, :]
    table = tl.load(address, mask=present[:, None] & present[None, :], other=0.0)
    return tl.dot(value.to(DTYPE), table, input_precision="ieee")


@triton.jit(do_not_specialize=["height", "width", "across"])
def _first_pass(
    state: tl.tensor,
    taps: tl.tensor,
    inner: tl.tensor,
    hidden: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    across: tl.tensor,
    image_size: tl.tensor,
    plane: tl.tensor,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    rows, columns = place(tl.program_id(0), across, TILE_H, TILE_W)
    channels = tl.arange(0, CHANNELS)
    image = tl.program_id(1).to(tl.int64) * image_size
    inside = ((rows < height) & (columns < width))[:, None] & (channels < count)[None, :]
    at = (rows.to(tl.int64) * width + columns)[:, None] * count + channels[None, :]
    out = hidden + image + at
    dtype: tl.constexpr = hidden.dtype.element_ty
    for n in tl.static_range(3):
        # fmt: off
        value = filtered(
            state + image, taps, rows, columns, channels, count, height, width, width * count,
            count, count, 2 * n + 3, 1,
        )
        # fmt: on
        value = _multiplied(value, inner + (n + 1) * count * count, channels, count, dtype)
        value = tl.where(value < 0, 0.0, value)  # keeps NaN
        tl.store(out, value.to(dtype), mask=inside)
        taps += (2 * n + 3) * (2 * n + 3) * count
        out += plane


@triton.jit(do_not_specialize=["height", "width", "across"])
def _second_pass(
    state: tl.tensor,
    taps: tl.tensor,
    inner: tl.tensor,
    hidden: tl.tensor,
    merges: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    across: tl.tensor,
    image_size: tl.tensor,
    plane: tl.tensor,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    rows, columns = place(tl.program_id(0), across, TILE_H, TILE_W)
    channels = tl.arange(0, CHANNELS)
    image = tl.program_id(1).to(tl.int64) * image_size
    inside = ((rows < height) & (columns < width))[:, None] & (channels < count)[None, :]
    at = (rows.to(tl.int64) * width + columns)[:, None] * count + channels[None, :]
    dtype: tl.constexpr = out.dtype.element_ty
    square = count * count
    merges += tl.program_id(1) * 8 * square
    state += image
    own = tl.load(state + at, mask=inside, other=0.0)
    value = _multiplied(own, inner, channels, count, dtype)
    value = tl.where(value < 0, 0.0, value)
    total = _multiplied(value, merges, channels, count, dtype)
    source = hidden + image
    for n in tl.static_range(3):
        # fmt: off
        value = filtered(
            source, taps, rows, columns, channels, count, height, width, width * count, count,
            count, 2 * n + 3, 1,
        )
        total += _multiplied(value, merges + (n + 1) * square, channels, count, dtype)
        value = filtered(
            state, taps + 83 * count, rows, columns, channels, count, height, width, width * count,
            count, count, 2 * n + 3, 2,
        )
        # fmt: on
        total += _multiplied(value, merges + (n + 4) * square, channels, count, dtype)
        taps += (2 * n + 3) * (2 * n + 3) * count
        source += plane
    # fmt: off
    value = filtered(
        state, taps + 83 * count, rows, columns, channels, count, height, width, width * count,
        count, count, 3, 1,
    )
    # fmt: on
    high = 3 - (rows == 0).to(tl.int32) - (rows == height - 1).to(tl.int32)
    wide = 3 - (columns == 0).to(tl.int32) - (columns == width - 1).to(tl.int32)
    value = value / (high * wide).to(tl.float32)[:, None]
    total += _multiplied(value, merges + 7 * square, channels, count, dtype)
    total = tl.where(total < 0, 0.0, total) + own.to(tl.float32)
    tl.store(out + image + at, total.to(dtype), mask=inside)


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
    channels = max(_LEAST_SIDE, triton.next_power_of_2(count))
    tile_h, tile_w = tile_of(channels)
    across = triton.cdiv(width, tile_w)
    grid = (across * triton.cdiv(height, tile_h), batch)
    sizes = (count, height, width, across, height * width * count, state.numel())
    tile = {"TILE_H": tile_h, "TILE_W": tile_w, "CHANNELS": channels}
    _first_pass[grid](state, taps, inner, hidden, *sizes, **tile)
    last = taps[9 + 25 + 49 :]
    _second_pass[grid](state, last, inner, hidden, merges, out, *sizes, **tile)
    return out
