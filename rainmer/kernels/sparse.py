"""From the products of q and k to the matrices that multiply v, in one launch."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["attention_matrices"]

_LEAST_SIDE = 16  # of the matrices that Triton multiplies
_SMALL = 32  # side of the maps that four warps hold in registers
_OUTPUTS = 16  # channels multiplied at a time; more of float32 do not fit into registers
_EPSILON = tl.constexpr(1e-12)  # of `rainmer.models.attention`


@triton.jit
def _softmax(scores: tl.tensor, kept: tl.tensor):
    """Take the softmax of the kept entries of each row; the others become 0."""
    scores = tl.where(kept, scores, float("-inf"))
    powers = tl.exp(scores - tl.max(scores, 1)[:, None])
    return powers / tl.sum(powers, 1)[:, None]


@triton.jit
def _ranks(scores: tl.tensor, columns: tl.tensor, COUNT: tl.constexpr):
    """Count the entries of each row that are larger, or equal and of a lower index."""
    ranks = tl.zeros(scores.shape, tl.int32)
    for other in range(COUNT):
        entry = tl.sum(tl.where(columns[None, :] == other, scores, 0.0), 1)[:, None]
        first = (entry > scores) | ((entry == scores) & (other < columns)[None, :])
        ranks += first.to(tl.int32)
    return ranks


@triton.jit
def _matrices_kernel(
    gram: tl.tensor,
    temperature: tl.tensor,
    shares: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    HEADS: tl.constexpr,
    COUNT: tl.constexpr,
    KEPT: tl.constexpr,
    SIDE: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    head, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    channels: tl.constexpr = HEADS * COUNT
    rows, columns = tl.arange(0, SIDE), tl.arange(0, SIDE)
    present = columns < COUNT
    inside = present[:, None] & present[None, :]
    # The Gram matrix (2C, 2C) of an image: products off, squares on its diagonal.
    gram += image * 4 * channels * channels
    q, k = head * COUNT + rows, channels + head * COUNT + columns
    products = tl.load(gram + q[:, None] * 2 * channels + k[None, :], mask=inside, other=0.0)
    q_square = tl.load(gram + q * (2 * channels + 1), mask=present, other=1.0)
    k_square = tl.load(gram + k * (2 * channels + 1), mask=present, other=1.0)
    # Rounded as in torch, so that the same entries are the largest.
    q_norm = tl.maximum(tl.sqrt_rn(q_square), _EPSILON)[:, None] + tl.zeros_like(products)
    k_norm = tl.maximum(tl.sqrt_rn(k_square), _EPSILON)[None, :] + tl.zeros_like(products)
    logits = tl.div_rn(tl.div_rn(products, q_norm), k_norm)
    logits *= tl.load(temperature + head).to(tl.float32)
    scores = tl.where(present[None, :], logits, float("-inf"))
    if len(KEPT) == 0:
        total = _softmax(scores, present[None, :] & (rows >= 0)[:, None])
    else:
        kept = _ranks(scores, columns, COUNT) < KEPT[0]
        scores = _softmax(scores, kept & present[None, :])
        total = scores * tl.load(shares).to(tl.float32)
        positive = (scores > 0) & present[None, :]
        zero = (1 - positive.to(tl.int32)) * present[None, :].to(tl.int32)
        # Rank of each zero: after all entries above zero, in the order of the zeros' indices.
        place = tl.cumsum(zero, 1) + tl.sum(positive.to(tl.int32), 1)[:, None]
        for r in tl.static_range(1, len(KEPT)):
            scores = _softmax(scores, (positive | (place <= KEPT[r])) & present[None, :])
            total += scores * tl.load(shares + r).to(tl.float32)
    total = tl.trans(tl.where(inside, total, 0.0))  # C/h of v, C/h
    out += image * channels * channels
    for start in range(0, channels, OUTPUTS):
        outputs = start + tl.arange(0, OUTPUTS)
        wide = present[:, None] & (outputs < channels)[None, :]
        part = weight + outputs[None, :] * channels + q[:, None]
        table = tl.load(part, mask=wide, other=0.0).to(tl.float32)
        product = tl.dot(total, table, input_precision="ieee")
        row = out + (head * COUNT + columns)[:, None] * channels
        tl.store(row + outputs[None, :], product.to(out.dtype.element_ty), mask=wide)


def attention_matrices(
    gram: Tensor,
    temperature: Tensor,
    shares: Tensor | None,
    weight: Tensor,
    out: Tensor,
    *,
    kept: Sequence[int],
) -> Tensor:
    """Compute a map for each image and head, and multiply it into the output projection.

    Cosines, the cascade of rates with lowest-index ties, the sum of its maps, and the product: some
    45 operators of torch on matrices of a few kilobytes, each a launch. A program holds a map in
    its registers.

    Args:
        gram: Products of each channel of q and k with each, (B, 2C, 2C), float32.
        temperature: (heads, 1, 1).
        shares: Weights of the maps (R,); None: dense attention.
        weight: The output projection (C out, C).
        out: Receives the matrices (B, C in, C out).
        kept: How many entries of a row each of R rates keeps, ascending.
    """
    batch, channels = len(gram), gram.shape[-1] // 2
    heads = temperature.numel()
    count = channels // heads
    side = max(_LEAST_SIDE, triton.next_power_of_2(count))
    # fmt: off
    _matrices_kernel[heads, batch](
        gram, temperature, shares, weight, out, HEADS=heads, COUNT=count, KEPT=tuple(kept),
        SIDE=side, OUTPUTS=_OUTPUTS, num_warps=8 if side > _SMALL else 4,
    )
    # fmt: on
    return out
