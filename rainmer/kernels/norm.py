"""The norm over the channels of each pixel, alone and with the 1x1 convolution that follows it."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["channel_norm", "norm_linear"]

_TILE = 4096  # values that a program normalises at once: 32 for each of 128 threads
_LEAST_SIDE = 16  # of the matrices that Triton multiplies
_OUTPUTS = 64  # channels computed at a time


@triton.jit
def _normed(
    x: tl.tensor,
    gain: tl.tensor,
    shift: tl.tensor,
    first: tl.tensor,
    pixels: tl.tensor,
    count: tl.tensor,
    epsilon: float,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Return normalised pixels, float32, and where they are; zeros beyond the channels."""
    pixel = first.to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channels = tl.arange(0, CHANNELS)
    present = channels < count
    inside = (pixel < pixels)[:, None] & present[None, :]
    address = x + pixel[:, None] * count + channels[None, :]
    value = tl.load(address, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value, 1) / count
    centred = tl.where(inside, value - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / count + epsilon)
    if shift is not None:  # without it the numerator is not centred either
        value = centred
    factor = tl.load(gain + channels, mask=present, other=0.0).to(tl.float32)
    value = value * scale[:, None] * factor[None, :]
    if shift is not None:
        value += tl.load(shift + channels, mask=present, other=0.0).to(tl.float32)[None, :]
    return value, pixel, channels


@triton.jit(do_not_specialize=["pixels"])
def _norm_kernel(
    x: tl.tensor,
    gain: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    pixels: tl.tensor,
    count: tl.tensor,
    epsilon: float,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    value, pixel, channels = _normed(
        x, gain, shift, tl.program_id(0), pixels, count, epsilon, PIXELS, CHANNELS
    )
    inside = (pixel < pixels)[:, None] & (channels < count)[None, :]
    address = out + pixel[:, None] * count + channels[None, :]
    tl.store(address, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["pixels"])
def _norm_linear_kernel(
    x: tl.tensor,
    gain: tl.tensor,
    shift: tl.tensor,
    matrix: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    pixels: tl.tensor,
    count: tl.tensor,
    outputs: tl.tensor,
    epsilon: float,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    value, pixel, channels = _normed(
        x, gain, shift, tl.program_id(0), pixels, count, epsilon, PIXELS, CHANNELS
    )
    value = value.to(x.dtype.element_ty)  # as a norm of its own would write it
    for start in range(0, outputs, OUTPUTS):
        columns = start + tl.arange(0, OUTPUTS)
        wanted = columns < outputs
        address = matrix + columns[None, :] * count + channels[:, None]
        part = tl.load(address, mask=(channels < count)[:, None] & wanted[None, :], other=0.0)
        total = tl.dot(value, part, input_precision="ieee")
        if bias is not None:
            total += tl.load(bias + columns, mask=wanted, other=0.0).to(tl.float32)[None, :]
        address = out + pixel[:, None] * outputs + columns[None, :]
        inside = (pixel < pixels)[:, None] & wanted[None, :]
        tl.store(address, total.to(out.dtype.element_ty), mask=inside)


def channel_norm(pixels: Tensor, gain: Tensor, shift: Tensor | None, epsilon: float) -> Tensor:
    """Normalise the channels of each pixel; statistics are float32.

    Bytes: 2 maps (read, written). torch in half precision: 10 (a float32 copy of twice the bytes,
    the norm of that, and its conversion), and a block of threads for each pixel.

    Args:
        pixels: (B, H, W, C).
        gain: Factors (C,).
        shift: Added to the centred and scaled pixels (C,); None: they are not centred.
        epsilon: Added to the variance.
    """
    pixels = pixels.contiguous()
    out = pixels.new_empty(pixels.shape)
    count = pixels.shape[-1]
    channels = triton.next_power_of_2(count)
    rows = max(1, _TILE // channels)
    number = pixels.numel() // count
    grid = (triton.cdiv(number, rows),)
    _norm_kernel[grid](
        pixels, gain, shift, out, number, count, epsilon, PIXELS=rows, CHANNELS=channels
    )
    return out


def norm_linear(
    pixels: Tensor,
    gain: Tensor,
    shift: Tensor | None,
    epsilon: float,
    matrix: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Normalise the channels of each pixel and multiply them by a matrix.

    Bytes: C read, D written. A norm by itself and a product: 3 C + D. For D = 2 C, that is 3 maps
    instead of 5. Matrices of more than 128 channels take longer than their bytes: those are left to
    cuBLAS.

    Args:
        pixels: (B, H, W, C).
        gain: As for `channel_norm`, like `shift` and `epsilon`.
        shift: See there.
        epsilon: See there.
        matrix: (D, C), contiguous.
        bias: (D,).

    Returns:
        (B, H, W, D).
    """
    pixels = pixels.contiguous()
    outputs, count = matrix.shape
    out = pixels.new_empty(*pixels.shape[:3], outputs)
    channels = max(_LEAST_SIDE, triton.next_power_of_2(count))
    rows = min(128, _TILE // channels)
    number = pixels.numel() // count
    grid = (triton.cdiv(number, rows),)
    # fmt: off
    _norm_linear_kernel[grid](
        pixels, gain, shift, matrix, bias, out, number, count, outputs, epsilon,
        PIXELS=rows, CHANNELS=channels, OUTPUTS=_OUTPUTS,
    )
    # fmt: on
    return out
