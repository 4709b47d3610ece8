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

__all__ = ["norm_gradients", "spread", "tap_gradients"]

_TILE = 2048  # values of a tile: 16 for each of 128 threads
_GROUP = 32  # channels of a tile: 64 bytes of half precision are read at once
_PRODUCTS = 4096  # of taps, pixels and channels that a program adds up at once
_PROGRAMS = 2048  # that keep a large GPU busy and leave few partial sums
_NORM_PROGRAMS = 1024


@triton.jit(do_not_specialize=["height", "width", "across"])
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
    SIDE: tl.constexpr,
    DILATION: tl.constexpr,
    PARTS: tl.constexpr,
    ADDED: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    pixel = tl.arange(0, TILE_H * TILE_W)
    rows = (tl.program_id(0) // across) * TILE_H + pixel // TILE_W
    columns = (tl.program_id(0) % across) * TILE_W + pixel % TILE_W
    channels = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    present = channels < count
    image = (tl.program_id(2) // PARTS).to(tl.int64)
    part = (tl.program_id(2) % PARTS) * second
    grad += image * grad_b
    taps += part
    total = tl.zeros((TILE_H * TILE_W, GROUP), tl.float32)
    for i in range(SIDE):
        y = rows - (i - SIDE // 2) * DILATION
        row_inside = (y >= 0) & (y < height)
        line = grad + y.to(tl.int64) * grad_h
        for j in tl.static_range(SIDE):
            column = columns - (j - SIDE // 2) * DILATION
            inside = row_inside & (column >= 0) & (column < width)
            address = (line + column * grad_w)[:, None] + channels[None, :]
            value = tl.load(address, mask=inside[:, None] & present[None, :], other=0.0)
            tap = tl.load(taps + (i * SIDE + j) * tap_stride + channels, mask=present, other=0.0)
            total += value.to(tl.float32) * tap.to(tl.float32)[None, :]
    line = out + part + image * out_b + rows.to(tl.int64) * out_h + columns * out_w
    inside = ((rows < height) & (columns < width))[:, None] & present[None, :]
    address = line[:, None] + channels[None, :]
    if ADDED:
        total += tl.load(address, mask=inside, other=0.0).to(tl.float32)
    tl.store(address, total.to(out.dtype.element_ty), mask=inside)


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
    group = _group(count)
    bits = (_TILE // group).bit_length() - 1
    tile_h, tile_w = 1 << bits // 2, 1 << (bits - bits // 2)
    across = triton.cdiv(width, tile_w)
    parts = 2 if second else 1
    grid = (across * triton.cdiv(height, tile_h), triton.cdiv(count, group), batch * parts)
    # fmt: off
    _spread_kernel[grid](
        grad, taps, out, count, height, width, across, *grad.stride()[:3], taps.stride(1),
        *out.stride()[:3], second, SIDE=taps.shape[0], DILATION=dilation, PARTS=parts, ADDED=added,
        TILE_H=tile_h, TILE_W=tile_w, GROUP=group,
    )
    # fmt: on


@triton.jit
def _after_relu(grad: tl.tensor, result: tl.tensor, inside: tl.tensor):
    """Return gradients where the ReLU let the result pass, which it does with NaN."""
    passed = tl.load(result, mask=inside, other=0.0)
    return tl.where(passed <= 0, 0.0, grad).to(grad.dtype)


@triton.jit
def _pixels(address: tl.tensor, inside: tl.tensor, channels: tl.tensor, present: tl.tensor):
    """Return the channels of pixels seen by taps, float32, zeros beyond the map."""
    mask = inside[:, :, None] & present[None, None, :]
    return tl.load(address[:, :, None] + channels[None, None, :], mask=mask, other=0.0).to(
        tl.float32
    )


@triton.jit(do_not_specialize=["height", "width", "lines", "chunks"])
def _taps_kernel(
    x: tl.tensor,
    grad: tl.tensor,
    result: tl.tensor,
    masked: tl.tensor,
    partial: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
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
    SIDE: tl.constexpr,
    DILATION: tl.constexpr,
    BIAS: tl.constexpr,
    TAPS: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    chunk = tl.program_id(0).to(tl.int64)
    image = chunk // chunks
    first = (chunk % chunks).to(tl.int32) * lines
    channels = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    present = channels < count
    part = tl.program_id(2) * second
    tap = tl.arange(0, TAPS)
    right = (tap % SIDE - SIDE // 2) * DILATION
    x += image * x_b + part
    total = tl.zeros((TAPS, PIXELS, GROUP), tl.float32)
    for row in range(first, tl.minimum(first + lines, height)):
        y = row + (tap // SIDE - SIDE // 2) * DILATION
        row_inside = (tap < SIDE * SIDE) & (y >= 0) & (y < height)
        line = x + y.to(tl.int64) * x_h
        base = tl.zeros((PIXELS,), tl.int64) + row
        for start in range(0, width, PIXELS):
            column = start + tl.arange(0, PIXELS)
            inside = (column < width)[:, None] & present[None, :]
            at = (image * grad_b + base * grad_h + column * grad_w)[:, None] + channels[None, :]
            value = tl.load(grad + at, mask=inside, other=0.0)
            if result is not None:
                value = _after_relu(value, result + at, inside)
                at = ((image * height + base) * width + column)[:, None] * count + channels[None, :]
                tl.store(masked + at, value, mask=inside & (part == 0))
            seen = column[None, :] + right[:, None]  # TAPS, PIXELS
            there = row_inside[:, None] & (seen >= 0) & (seen < width)
            pixel = _pixels(line[:, None] + seen * x_w, there, channels, present)
            if BIAS:  # is the tap of a pixel that is 1
                pixel = tl.where((tap == SIDE * SIDE)[:, None, None], 1.0, pixel)
            total += pixel * value.to(tl.float32)[None, :, :]
    sums = tl.sum(total, 1)  # TAPS, GROUP
    tap_inside = tap < SIDE * SIDE + BIAS
    at = (chunk * (SIDE * SIDE + BIAS) + tap)[:, None] * partial_stride + channels[None, :]
    tl.store(partial + part + at, sums, mask=tap_inside[:, None] & present[None, :])


def tap_gradients(
    pixels: Tensor,
    grad: Tensor,
    result: Tensor | None,
    *,
    side: int,
    dilation: int = 1,
    second: int = 0,
    bias: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradient after the ReLU, that of the filters, and that of the biases.

    Bytes: 2 maps (pixels, gradient), with a ReLU 4 (its result read, the masked gradient written),
    and a thirtieth of one for partial sums. torch: 2, and 3 for the ReLU, 1 for the biases. For
    two parts of D channels that share D results: 5 D with the ReLU, of 9 D.

    Args:
        pixels: What was filtered (B, H, W, C); only the channels must lie side by side.
        grad: Gradient of the results (B, H, W, D), likewise.
        result: The results, if they went through a ReLU; best in memory as the gradient is.
        side: Side k of the filters.
        dilation: Dilation of the filters.
        second: First channel of the second part, which has the same results; 0: there is one part.
        bias: Whether there are biases.

    Returns:
        (B, H, W, D), (k, k, C) and (D,), the last two float32.
    """
    batch, height, width, count = grad.shape
    parts = 2 if second else 1
    group = _group(count)
    taps = triton.next_power_of_2(side * side + bias)
    together = max(1, _PRODUCTS // (taps * group))  # pixels
    groups = triton.cdiv(count, group) * parts
    lines = max(1, batch * height * groups // _PROGRAMS)
    chunks = triton.cdiv(height, lines)
    rows = side * side + bias
    partial = grad.new_empty(batch * chunks, rows, count * parts, dtype=torch.float32)
    masked = grad
    if result is not None:
        if grad.stride() != result.stride():
            grad, result = grad.contiguous(), result.contiguous()
        masked = grad.new_empty(grad.shape)
    # fmt: off
    _taps_kernel[(batch * chunks, triton.cdiv(count, group), parts)](
        pixels, grad, result, masked, partial, count, height, width, lines, chunks,
        *pixels.stride()[:3], *grad.stride()[:3], partial.stride(1), second,
        SIDE=side, DILATION=dilation, BIAS=bias, TAPS=taps, PIXELS=together, GROUP=group,
    )
    # fmt: on
    sums = partial.sum(0)
    return masked, sums[: side * side].view(side, side, -1), sums[-1, :count] if bias else None


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
    rows = max(1, _TILE // channels)
    number = pixels.numel() // count
    blocks = triton.cdiv(number, rows)
    programs = min(blocks, _NORM_PROGRAMS)
    partial = pixels.new_empty(programs, 2, count, dtype=torch.float32)
    # fmt: off
    _norm_kernel[(programs,)](
        pixels, gain, grad, out, partial, number, count, blocks, epsilon,
        CENTRED=centred, PIXELS=rows, CHANNELS=channels,
    )
    # fmt: on
    gains, shifts = partial.sum(0)
    return out, gains, shifts


def _group(count: int) -> int:
    return _GROUP if count > _GROUP // 2 else _GROUP // 2
