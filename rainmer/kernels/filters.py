"""Depthwise convolutions of channels-last maps, with what follows them.

A program computes a tile of pixels times a group of channels. The rows and columns around a tile
are read by its neighbours too; they come from the L2 cache.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["depthwise", "filtered", "pair_sums", "place", "tile_of"]

_TILE = 2048  # values of a tile: 16 for each of 128 threads
_GROUP = 32  # channels of a tile: 64 bytes of half precision are read at once


def tile_of(channels: int) -> tuple[int, int]:
    """Return height and width of a tile of pixels with so many channels, powers of two."""
    bits = (_TILE // channels).bit_length() - 1
    return 1 << bits // 2, 1 << (bits - bits // 2)


@triton.jit
def place(tile: tl.tensor, across: tl.tensor, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """Return the rows and the columns of a tile's pixels."""
    pixel = tl.arange(0, TILE_H * TILE_W)
    rows = (tile // across) * TILE_H + pixel // TILE_W
    columns = (tile % across) * TILE_W + pixel % TILE_W
    return rows, columns


@triton.jit
def filtered(
    x: tl.tensor,
    taps: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    channels: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    stride_h: tl.tensor,
    stride_w: tl.tensor,
    tap_stride: tl.tensor,
    SIDE: tl.constexpr,
    DILATION: tl.constexpr,
):
    """Return float32 results of an odd filter for pixels times channels, zeros beyond the map."""
    total = tl.zeros((rows.shape[0], channels.shape[0]), tl.float32)
    present = channels < count
    for i in range(SIDE):
        y = rows + (i - SIDE // 2) * DILATION
        row_inside = (y >= 0) & (y < height)
        line = x + y.to(tl.int64) * stride_h
        for j in tl.static_range(SIDE):
            column = columns + (j - SIDE // 2) * DILATION
            inside = row_inside & (column >= 0) & (column < width)
            address = (line + column * stride_w)[:, None] + channels[None, :]
            value = tl.load(address, mask=inside[:, None] & present[None, :], other=0.0)
            tap = tl.load(taps + (i * SIDE + j) * tap_stride + channels, mask=present, other=0.0)
            total += value.to(tl.float32) * tap.to(tl.float32)[None, :]
    return total


@triton.jit(do_not_specialize=["height", "width", "across"])
def _filter_kernel(
    x: tl.tensor,
    taps: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    across: tl.tensor,
    stride_b: tl.tensor,
    stride_h: tl.tensor,
    stride_w: tl.tensor,
    tap_stride: tl.tensor,
    out_b: tl.tensor,
    out_h: tl.tensor,
    out_w: tl.tensor,
    second: tl.tensor,
    SIDE: tl.constexpr,
    DILATION: tl.constexpr,
    PAIRED: tl.constexpr,
    RELU: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    rows, columns = place(tl.program_id(0), across, TILE_H, TILE_W)
    channels = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    image = tl.program_id(2).to(tl.int64)
    x += image * stride_b
    # fmt: off
    total = filtered(
        x, taps, rows, columns, channels, count, height, width, stride_h, stride_w, tap_stride,
        SIDE, DILATION,
    )
    if PAIRED:
        total += filtered(
            x + second, taps + second, rows, columns, channels, count, height, width, stride_h,
            stride_w, tap_stride, SIDE, DILATION,
        )
    # fmt: on
    present = channels < count
    if bias is not None:
        total += tl.load(bias + channels, mask=present, other=0.0).to(tl.float32)[None, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # keeps NaN
    line = out + image * out_b + rows.to(tl.int64) * out_h + columns * out_w
    inside = ((rows < height) & (columns < width))[:, None] & present[None, :]
    tl.store(line[:, None] + channels[None, :], total.to(out.dtype.element_ty), mask=inside)


def depthwise(
    pixels: Tensor, taps: Tensor, bias: Tensor | None = None, *, dilation: int = 1, relu: bool
) -> Tensor:
    """Convolve every channel with its own filter, then take the ReLU if asked.

    Bytes: 2 maps (read, written). torch: 2, and 2 more for a ReLU of its own.

    Args:
        pixels: (B, H, W, C); only the channels must lie side by side.
        taps: Filters (k, k, C), k odd, contiguous; the image is padded with zeros.
        bias: (C,).
        dilation: Dilation of the filters.
        relu: Whether to replace negative results by zeros.

    Returns:
        (B, H, W, C), contiguous.
    """
    out = pixels.new_empty(pixels.shape)
    return _launch(pixels, taps, bias, out, second=0, dilation=dilation, relu=relu)


def pair_sums(
    pixels: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    first: int,
    second: int,
    relu: bool,
) -> Tensor:
    """Filter two parts of the channels, add them up, then take the ReLU if asked.

    Bytes, for two parts of D channels: 3 D (2 read, 1 written). torch: 7 D (filter 4, sum 3), and
    2 D more for a ReLU of its own.

    Args:
        pixels: (B, H, W, C).
        taps: Filters (k, k, C), k odd, contiguous; the image is padded with zeros.
        bias: (D,).
        out: Receives the sums (B, H, W, D); may be a part of the channels of a wider map.
        first: First of the D channels of one part.
        second: First of the D channels of the other.
        relu: Whether to replace negative results by zeros.
    """
    pixels, taps = pixels[..., first:], taps[..., first:]
    return _launch(pixels, taps, bias, out, second=second - first, dilation=1, relu=relu)


def _launch(
    pixels: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    second: int,
    dilation: int,
    relu: bool,
) -> Tensor:
    batch, height, width, count = out.shape
    group = _GROUP if count > _GROUP // 2 else _GROUP // 2
    tile_h, tile_w = tile_of(group)
    across = triton.cdiv(width, tile_w)
    grid = (across * triton.cdiv(height, tile_h), triton.cdiv(count, group), batch)
    # fmt: off
    _filter_kernel[grid](
        pixels, taps, bias, out, count, height, width, across, *pixels.stride()[:3], taps.stride(1),
        *out.stride()[:3], second, SIDE=taps.shape[0], DILATION=dilation, PAIRED=second > 0,
        RELU=relu, TILE_H=tile_h, TILE_W=tile_w, GROUP=group,
    )
    # fmt: on
    return out
