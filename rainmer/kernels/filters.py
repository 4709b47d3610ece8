"""Depthwise convolutions of channels-last maps, with what follows them.

A program computes a tile of strips times a group of channels. A strip is `STRIP` columns of a row,
as far apart as the filter's dilation: a value that a thread has loaded and converted serves all of
the strip's results whose filters reach it, so that arithmetic, not loads and addresses, is what
takes the time. The rows and columns around a tile are read by its neighbours too; they come from
the L2 cache.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["STRIP", "Tiling", "depthwise", "pair_sums", "place", "strip_sums", "tiling"]

STRIP = 8
"""Columns of a strip."""

_STRIP = tl.constexpr(STRIP)
_TILE = 512  # channels of all strips of a tile: 4 for each of 128 threads
_GROUP = 32  # channels of a tile: 64 bytes of half precision are read at once
_ROWS = 8  # of a tile


@triton.jit
def place(
    tile: tl.tensor,
    across: tl.tensor,
    dilation: tl.tensor,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    """Return the rows and the first columns of a tile's strips."""
    number = tl.arange(0, TILE_H * TILE_W)
    rows = (tile // across) * TILE_H + number // TILE_W
    strip = (tile % across) * TILE_W + number % TILE_W
    return rows, strip // dilation * (_STRIP * dilation) + strip % dilation


@triton.jit
def strip_sums(
    x: tl.tensor,
    taps: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    stride_h: tl.tensor,
    stride_w: tl.tensor,
    tap_stride: tl.tensor,
    count: tl.tensor,
    dilation: tl.tensor,
    WHOLE: tl.constexpr,
    GROUP: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Return the float32 results of an odd filter, strips times channels, for each column.

    Pixels beyond the map count as zeros, and so do channels from `count` on. Strides that are
    constants become parts of the addresses. With a stride of taps below 0, from the last tap on,
    the filter is turned by half a circle. Where all groups of channels are `WHOLE`, they have no
    masks.
    """
    totals: tl.tuple = ()
    for _ in tl.static_range(_STRIP):
        totals += (tl.zeros((rows.shape[0], GROUP), tl.float32),)
    present = channels < count
    leftmost = columns - SIDE // 2 * dilation
    for i in range(SIDE):
        y = rows + (i - SIDE // 2) * dilation
        row_inside = (y >= 0) & (y < height)
        start = (x + y.to(tl.int64) * stride_h + leftmost * stride_w)[:, None] + channels[None, :]
        line = taps + i * SIDE * tap_stride + channels
        for c in tl.static_range(_STRIP + SIDE - 1):
            column = leftmost + c * dilation
            inside = (row_inside & (column >= 0) & (column < width))[:, None]
            if not WHOLE:
                inside = inside & present[None, :]
            value = tl.load(start + c * dilation * stride_w, mask=inside, other=0.0).to(tl.float32)
            sums: tl.tuple = ()
            for p in tl.static_range(_STRIP):
                if c >= p and c - p < SIDE:
                    if WHOLE:
                        tap = tl.load(line + (c - p) * tap_stride)
                    else:
                        tap = tl.load(line + (c - p) * tap_stride, mask=present, other=0.0)
                    sums += (totals[p] + value * tap.to(tl.float32)[None, :],)
                else:
                    sums += (totals[p],)
            totals = sums
    return totals


@triton.jit(do_not_specialize=["height", "width", "across"])
def _filter_kernel(
    x: tl.tensor,
    taps: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    across: tl.tensor,
    stride_b: tl.tensor,
    stride_h: tl.tensor,
    out_b: tl.tensor,
    out_h: tl.tensor,
    COUNT: tl.constexpr,
    STRIDE_W: tl.constexpr,
    TAP_STRIDE: tl.constexpr,
    OUT_W: tl.constexpr,
    READABLE: tl.constexpr,
    SECOND: tl.constexpr,
    SIDE: tl.constexpr,
    DILATION: tl.constexpr,
    RELU: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    rows, columns = place(tl.program_id(0), across, DILATION, TILE_H, TILE_W)
    channels = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    image = tl.program_id(2).to(tl.int64)
    x += image * stride_b
    # fmt: off
    totals = strip_sums(
        x, taps, rows, columns, channels, height, width, stride_h, STRIDE_W, TAP_STRIDE, READABLE,
        DILATION, READABLE % GROUP == 0, GROUP, SIDE,
    )
    if SECOND > 0:
        others = strip_sums(
            x + SECOND, taps + SECOND, rows, columns, channels, height, width, stride_h, STRIDE_W,
            TAP_STRIDE, READABLE, DILATION, READABLE % GROUP == 0, GROUP, SIDE,
        )
    # fmt: on
    present = channels < COUNT
    if bias is not None:
        offset = tl.load(bias + channels, mask=present, other=0.0).to(tl.float32)[None, :]
    line = (out + image * out_b + rows.to(tl.int64) * out_h + columns * OUT_W)[:, None]
    for p in tl.static_range(_STRIP):
        total = totals[p]
        if SECOND > 0:
            total += others[p]
        if bias is not None:
            total += offset
        if RELU:
            total = tl.where(total < 0, 0.0, total)  # keeps NaN
        inside = ((rows < height) & (columns + p * DILATION < width))[:, None] & present[None, :]
        address = line + p * DILATION * OUT_W + channels[None, :]
        tl.store(address, total.to(out.dtype.element_ty), mask=inside)


class Tiling(NamedTuple):
    """How a map is cut into tiles.

    Attributes:
        rows: Rows of a tile.
        strips: Strips in a row of a tile.
        group: Channels of a tile.
        across: Tiles side by side.
        tiles: Tiles of an image.
        groups: Groups of channels.
    """

    rows: int
    strips: int
    group: int
    across: int
    tiles: int
    groups: int


def tiling(height: int, width: int, count: int, dilation: int) -> Tiling:
    """Return the tiles of maps of a size and `count` channels."""
    half = _GROUP // 2
    group = half if count <= half or count % _GROUP == half else _GROUP
    strips = _TILE // group // _ROWS
    across = triton.cdiv(triton.cdiv(width, STRIP * dilation) * dilation, strips)
    tiles = across * triton.cdiv(height, _ROWS)
    return Tiling(_ROWS, strips, group, across, tiles, triton.cdiv(count, group))


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
    tile = tiling(height, width, count, dilation)
    # Behind the last channels of a part of a map are others, which may be read.
    readable = min(tile.groups * tile.group, pixels.shape[-1] - second)
    # fmt: off
    _filter_kernel[tile.tiles, tile.groups, batch](
        pixels, taps, bias, out, height, width, tile.across, *pixels.stride()[:2],
        *out.stride()[:2], COUNT=count, STRIDE_W=pixels.stride(2), TAP_STRIDE=taps.stride(1),
        OUT_W=out.stride(2), READABLE=readable, SECOND=second, SIDE=taps.shape[0],
        DILATION=dilation, RELU=relu, TILE_H=tile.rows, TILE_W=tile.strips, GROUP=tile.group,
    )
    # fmt: on
    return out
