"""The kernels of training: gradients of filters and of the norm.

Gradients of parameters are sums over all pixels. Each program sums up its own pixels in float32,
and torch adds up what the programs have found: in one order, without atomics, so that equal inputs
have equal gradients.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rainmer.kernels.filters import STRIP, place, strip_sums, tiling

__all__ = ["norm_gradients", "spread", "tap_gradients"]

_STRIP = tl.constexpr(STRIP)
_NORM_TILE = 2048  # values that a program normalises at once: 16 for each of 128 threads
_PROGRAMS = 2048  # that keep a large GPU busy and leave few partial sums


@triton.jit
def _column(
    line: tl.tensor,
    column: tl.tensor,
    inside: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    channels: tl.tensor,
    present: tl.tensor,
):
    """Return a pixel of each row, float32, zeros beyond the map."""
    inside = (inside & (column >= 0) & (column < width))[:, None] & present[None, :]
    at = (line + column * stride)[:, None] + channels[None, :]
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["height", "width", "across", "dilation", "parts", "added"])
def _spread_kernel(
    grad: tl.tensor,
    taps: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    across: tl.tensor,
    grad_b: tl.tensor,
    grad_h: tl.tensor,
    grad_w: tl.tensor,
    tap_stride: tl.tensor,
    out_b: tl.tensor,
    out_h: tl.tensor,
    out_w: tl.tensor,
    second: tl.tensor,
    dilation: tl.tensor,
    parts: tl.tensor,
    added: tl.tensor,
    WHOLE: tl.constexpr,
    SIDE: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    rows, columns = place(tl.program_id(0), across, dilation, TILE_H, TILE_W)
    channels = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    present = channels < count
    image = (tl.program_id(2) // parts).to(tl.int64)
    part = (tl.program_id(2) % parts) * second
    last = taps + part + (SIDE * SIDE - 1) * tap_stride
    # fmt: off
    totals = strip_sums(
        grad + image * grad_b, last, rows, columns, channels, height, width, grad_h, grad_w,
        -tap_stride, count, dilation, WHOLE, GROUP, SIDE,
    )
    # fmt: on
    line = out + part + image * out_b + rows.to(tl.int64) * out_h
    for p in tl.static_range(_STRIP):
        column = columns + p * dilation
        inside = ((rows < height) & (column < width))[:, None] & present[None, :]
        at = (line + column * out_w)[:, None] + channels[None, :]
        before = tl.load(at, mask=inside & (added > 0), other=0.0).to(tl.float32)
        tl.store(at, (totals[p] + before).to(out.dtype.element_ty), mask=inside)


def spread(
    grad: Tensor, taps: Tensor, out: Tensor, *, dilation: int = 1, second: int = 0, added: bool
) -> None:
    """Write the gradient of the pixels that were filtered: the filters, turned, on the results'.

    Bytes: 2 maps (read, written), 3 if added. For two parts of D channels that share D results: 3 D
    (1 read, 2 written). torch: 2, and 3 for each addition.

    Args:
        grad: Gradient of the results (B, H, W, D).
        taps: Filters (k, k, C), k odd.
        out: Receives the gradient (B, H, W, C).
        dilation: Dilation of the filters.
        second: First channel of the second part, which has the same results; 0: there is one part.
        added: Whether to add to what `out` holds.
    """
    batch, height, width, count = grad.shape
    tile = tiling(height, width, count, dilation)
    parts = 2 if second else 1
    # fmt: off
    _spread_kernel[tile.tiles, tile.groups, batch * parts](
        grad, taps, out, count, height, width, tile.across, *grad.stride()[:3], taps.stride(1),
        *out.stride()[:3], second, dilation, parts, int(added), WHOLE=count % tile.group == 0,
        SIDE=taps.shape[0], TILE_H=tile.rows, TILE_W=tile.strips, GROUP=tile.group,
    )
    # fmt: on


@triton.jit(do_not_specialize=["height", "width", "across", "tiles", "lines", "chunks", "dilation"])
def _taps_kernel(
    x: tl.tensor,
    grad: tl.tensor,
    partial: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    across: tl.tensor,
    tiles: tl.tensor,
    lines: tl.tensor,
    chunks: tl.tensor,
    x_b: tl.tensor,
    x_h: tl.tensor,
    x_w: tl.tensor,
    grad_b: tl.tensor,
    grad_h: tl.tensor,
    grad_w: tl.tensor,
    partial_stride: tl.tensor,
    second: tl.tensor,
    dilation: tl.tensor,
    SIDE: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    chunk = tl.program_id(0).to(tl.int64)
    image = chunk // chunks
    first = (chunk % chunks).to(tl.int32) * lines
    channels = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    present = channels < count
    part = tl.program_id(2) * second
    for i in range(SIDE):  # each reads the same pixels, from a cache after the first
        sums: tl.tuple = ()
        for _ in tl.static_range(SIDE):
            sums += (tl.zeros((TILE_H * TILE_W, GROUP), tl.float32),)
        for tile in range(first, tl.minimum(first + lines, tiles)):
            rows, columns = place(tile, across, dilation, TILE_H, TILE_W)
            line = grad + image * grad_b + rows.to(tl.int64) * grad_h
            inside = rows < height
            grads: tl.tuple = ()
            for p in tl.static_range(_STRIP):
                column = columns + p * dilation
                value = _column(line, column, inside, width, grad_w, channels, present)
                grads += (value,)
            y = rows + (i - SIDE // 2) * dilation
            line = x + image * x_b + part + y.to(tl.int64) * x_h
            inside = (y >= 0) & (y < height)
            for c in tl.static_range(_STRIP + SIDE - 1):
                column = columns + (c - SIDE // 2) * dilation
                value = _column(line, column, inside, width, x_w, channels, present)
                found: tl.tuple = ()
                for j in tl.static_range(SIDE):
                    if c >= j and c - j < _STRIP:
                        found += (sums[j] + value * grads[c - j],)
                    else:
                        found += (sums[j],)
                sums = found
        for j in tl.static_range(SIDE):
            at = ((chunk * SIDE + i) * SIDE + j) * partial_stride + part + channels
            tl.store(partial + at, tl.sum(sums[j], 0), mask=present)


def tap_gradients(
    pixels: Tensor, grad: Tensor, *, side: int, dilation: int = 1, second: int = 0
) -> Tensor:
    """Return the gradient of the filters.

    Bytes: 2 maps (pixels, gradient), and a sixtieth of a map for each tap: partial sums. torch: the
    same 2. Caches are read once for each row of taps.

    Args:
        pixels: What was filtered (B, H, W, C); only the channels must lie side by side.
        grad: Gradient of the results (B, H, W, D), likewise.
        side: Side k of the filters.
        dilation: Dilation of the filters.
        second: First channel of the second part, which has the same results; 0: there is one part.

    Returns:
        (k, k, C), float32.
    """
    batch, height, width, count = grad.shape
    tile = tiling(height, width, count, dilation)
    parts = 2 if second else 1
    lines = max(1, batch * tile.tiles * tile.groups * parts // _PROGRAMS)
    chunks = triton.cdiv(tile.tiles, lines)
    partial = grad.new_empty(batch * chunks, side * side, count * parts, dtype=torch.float32)
    # fmt: off
    _taps_kernel[batch * chunks, tile.groups, parts](
        pixels, grad, partial, count, height, width, tile.across, tile.tiles, lines, chunks,
        *pixels.stride()[:3], *grad.stride()[:3], partial.stride(1), second, dilation, SIDE=side,
        TILE_H=tile.rows, TILE_W=tile.strips, GROUP=tile.group,
    )
    # fmt: on
    return partial.sum(0).view(side, side, -1)


@triton.jit(do_not_specialize=["pixels", "blocks"])
def _norm_kernel(
    x: tl.tensor,
    gain: tl.tensor,
    grad: tl.tensor,
    out: tl.tensor,
    partial: tl.tensor,
    pixels: tl.tensor,
    count: tl.tensor,
    blocks: tl.tensor,
    epsilon: float,
    CENTRED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    program = tl.program_id(0)
    channels = tl.arange(0, CHANNELS)
    present = channels < count
    factor = tl.load(gain + channels, mask=present, other=0.0).to(tl.float32)
    gains = tl.zeros((PIXELS, CHANNELS), tl.float32)
    shifts = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for block in range(program, blocks, tl.num_programs(0)):
        pixel = (tl.zeros((PIXELS,), tl.int64) + block) * PIXELS + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & present[None, :]
        at = pixel[:, None] * count + channels[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        centred = tl.where(inside, value - (tl.sum(value, 1) / count)[:, None], 0.0)
        scale = tl.rsqrt(tl.sum(centred * centred, 1) / count + epsilon)[:, None]
        flow = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        if CENTRED:
            value = centred
            shifts += flow
        value *= scale
        gains += flow * value
        flow *= factor[None, :]
        # How the variance moves the result, and how the mean does.
        result = flow - centred * scale * (tl.sum(flow * value, 1) / count)[:, None]
        if CENTRED:
            result -= (tl.sum(flow, 1) / count)[:, None]
        tl.store(out + at, (result * scale).to(out.dtype.element_ty), mask=inside)
    at = partial + program * 2 * count + channels
    tl.store(at, tl.sum(gains, 0), mask=present)
    tl.store(at + count, tl.sum(shifts, 0), mask=present)


def norm_gradients(
    pixels: Tensor, gain: Tensor, grad: Tensor, epsilon: float, *, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the pixels, the factors and the shift of `norm.channel_norm`.

    Bytes: 3 maps (pixels and gradient read, one written); the statistics are computed again, which
    costs none. torch in half precision: 13 (the gradient converted, the norm of two float32
    maps to a third, its conversion, and both read again for the parameters).

    Args:
        pixels: What was normalised (B, H, W, C).
        gain: Factors (C,).
        grad: Gradient of the result (B, H, W, C).
        epsilon: Added to the variance.
        centred: Whether the pixels were centred.

    Returns:
        (B, H, W, C), (C,) and (C,), the last two float32.
    """
    pixels, grad = pixels.contiguous(), grad.contiguous()
    out = torch.empty_like(pixels)
    count = pixels.shape[-1]
    channels = triton.next_power_of_2(count)
    rows = max(1, _NORM_TILE // channels)
    number = pixels.numel() // count
    blocks = triton.cdiv(number, rows)
    programs = min(blocks, _PROGRAMS)
    partial = pixels.new_empty(programs, 2, count, dtype=torch.float32)
    # fmt: off
    _norm_kernel[(programs,)](
        pixels, gain, grad, out, partial, number, count, blocks, epsilon,
        CENTRED=centred, PIXELS=rows, CHANNELS=channels,
    )
    # fmt: on
    gains, shifts = partial.sum(0)
    return out, gains, shifts
