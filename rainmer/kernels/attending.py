"""The end of an attention: output projection, residual connection, and what prompts add to it."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rainmer.kernels.prompts import Prompts

__all__ = ["attend"]

_LEAST_SIDE = 16  # of the matrices that Triton multiplies
_TILE = 8192  # values of a program, twice: 128 for each of 128 threads
_MOST_PIXELS = 128
_NARROW = 64  # wider pixels need the registers of eight warps


@triton.jit
def _prompt_term(
    source: tl.tensor,
    gate_in: tl.tensor,
    gate_in_bias: tl.tensor,
    gate_out: tl.tensor,
    gate_out_bias: tl.tensor,
    offset: tl.tensor,
    value: tl.tensor,
    COUNT: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Return a prompt's term for pixels, float32; see `rainmer.models.blocks.PromptAttention`."""
    channels = tl.arange(0, CHANNELS)
    present = channels < COUNT
    address = gate_in + channels[None, :] * COUNT + channels[:, None]
    matrix = tl.load(address, mask=present[None, :] & present[:, None], other=0.0)
    hidden = tl.dot(source, matrix, input_precision="ieee")
    hidden += tl.load(gate_in_bias + channels, mask=present, other=0.0).to(tl.float32)[None, :]
    hidden = 0.5 * hidden * (1.0 + tl.erf(hidden * 0.7071067811865476))  # GELU
    row = tl.load(gate_out + channels, mask=present, other=0.0).to(tl.float32)
    gate = tl.sigmoid(tl.sum(hidden * row[None, :], 1) + tl.load(gate_out_bias).to(tl.float32))
    spread = gate[:, None] * tl.load(value + channels, mask=present, other=0.0).to(tl.float32)
    spread += tl.load(offset + channels, mask=present, other=0.0).to(tl.float32)[None, :]
    return spread * tl.sigmoid(spread)  # SiLU


@triton.jit(do_not_specialize=["pixels"])
def _attend_kernel(
    values: tl.tensor,
    matrices: tl.tensor,
    x: tl.tensor,
    bias: tl.tensor,
    gate_in: tl.tensor,
    gate_in_bias: tl.tensor,
    gate_out: tl.tensor,
    gate_out_bias: tl.tensor,
    offsets: tl.tensor,
    prompts: tl.tensor,
    shares: tl.tensor,
    out: tl.tensor,
    pixels: tl.tensor,
    COUNT: tl.constexpr,
    STRIDE: tl.constexpr,
    ROW: tl.constexpr,
    COLUMN: tl.constexpr,
    PROMPTS: tl.constexpr,
    AFTER: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channels = tl.arange(0, CHANNELS)
    present = channels < COUNT
    inside = (pixel < pixels)[:, None] & present[None, :]
    whole = image * pixels + pixel
    value = tl.load(values + whole[:, None] * STRIDE + channels[None, :], mask=inside, other=0.0)
    matrices += image * COUNT * COUNT
    address = matrices + channels[:, None] * ROW + channels[None, :] * COLUMN
    matrix = tl.load(address, mask=present[:, None] & present[None, :], other=0.0)
    attended = tl.dot(value, matrix, input_precision="ieee")
    if bias is not None:
        attended += tl.load(bias + channels, mask=present, other=0.0).to(tl.float32)[None, :]
    at = whole[:, None] * COUNT + channels[None, :]
    total = attended + tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if PROMPTS > 0:
        source = (total if AFTER else attended).to(x.dtype.element_ty)
    for p in tl.static_range(PROMPTS):
        # fmt: off
        term = _prompt_term(
            source, gate_in + p * COUNT * COUNT, gate_in_bias + p * COUNT,
            gate_out + p * (PROMPTS + 1) * COUNT, gate_out_bias + p, offsets + p * COUNT,
            prompts + (image * PROMPTS + p) * COUNT, COUNT, CHANNELS,
        )
        # fmt: on
        total += term * tl.load(shares + image * PROMPTS + p).to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def attend(
    values: Tensor,
    matrices: Tensor,
    pixels: Tensor,
    bias: Tensor | None,
    prompts: Prompts | None,
) -> Tensor:
    """Multiply v by each image's matrix, add it to the pixels, and add the prompts' term.

    Bytes: 3 maps (v and pixels read, the sum written). torch: 5 without prompts, and 10 more for
    each prompt (gate 6, value 2, SiLU 2, sum 3, and the source once).

    Args:
        values: v (B, H, W, C); may be a part of the channels of a wider map.
        matrices: (B, C in, C out), contiguous or transposed.
        pixels: (B, H, W, C).
        bias: Of the projection (C,).
        prompts: Prompts and the weights of their term; None: there are none.

    Returns:
        (B, H, W, C), contiguous.
    """
    pixels = pixels.contiguous()
    batch, height, width, count = pixels.shape
    out = pixels.new_empty(pixels.shape)
    channels = max(_LEAST_SIDE, triton.next_power_of_2(count))
    rows = min(_MOST_PIXELS, _TILE // channels)
    grid = (triton.cdiv(height * width, rows), batch)
    weights = (None,) * 7 if prompts is None else prompts[:7]
    # fmt: off
    _attend_kernel[grid](
        values, matrices, pixels, bias, *weights, out, height * width, COUNT=count,
        STRIDE=values.stride(2), ROW=matrices.stride(1), COLUMN=matrices.stride(2),
        PROMPTS=0 if prompts is None else prompts.values.shape[1],
        AFTER=prompts is not None and prompts.after, PIXELS=rows, CHANNELS=channels,
        num_warps=8 if channels > _NARROW else 4,
    )
    # fmt: on
    return out
