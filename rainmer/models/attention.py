"""Sparse channel attention: keep the largest entries of each row, at several rates."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rainmer import kernels
from rainmer.kernels.products import over_pixels
from rainmer.models.layers import (
    autocast_off,
    channel_conv,
    depthwise_conv,
    float32_at_least,
    per_image_projection,
)

__all__ = [
    "SparseChannelAttention",
    "TopkTies",
    "gram_matrix",
    "is_nested",
    "kept_entries",
    "products_and_squares",
    "sparse_cascade",
    "sparse_softmax",
    "split_gram",
    "sums_low_precision",
]

TopkTies = Literal["lowest", "native"]
"""Which of equal attention entries are kept: the lowest indices, or what `torch.topk` picks."""

_COSINE_EPSILON = 1e-12
_LEAST_PIXELS = 256  # of a part of q and k


class SparseChannelAttention(nn.Module):
    """Top-k sparse attention between channels (section 2.2).

    Cosine similarities of the channels, scaled by a learned temperature, go through a cascade: each
    rate keeps the largest entries of every row of the previous map and takes the softmax of those.
    From the second rate on, rows are probabilities with exact zeros; `ties` decides which of the
    zeros are kept again. The sum of the maps, with learned weights, is applied to v.

    Args:
        channels: Width of the features.
        heads: Number of heads; divides `channels`.
        sparse_rates: Share of a row that each rate keeps; none: dense attention.
        bias: Whether the convolutions have biases.
        ties: "lowest" keeps the lowest of tied indices, the same on every device (and as the
            official network does on CUDA); "native" keeps what `torch.topk` picks on the device.
    """

    rate_weights: nn.Parameter | None

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        sparse_rates: Sequence[Fraction] = (),
        bias: bool = False,
        ties: TopkTies = "lowest",
    ) -> None:
        super().__init__()
        self.heads = heads
        self.ties = ties
        self.kept = tuple(kept_entries(channels // heads, rate) for rate in sparse_rates)
        self.qkv = channel_conv(channels, 3 * channels, bias=bias)
        self.qkv_depthwise = depthwise_conv(3 * channels, 3, bias=bias)
        self.project = nn.Linear(channels, channels, bias=bias)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        if self.kept:
            self.rate_weights = nn.Parameter(torch.full((len(self.kept),), 0.2))
        else:
            self.register_parameter("rate_weights", None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        qkv = self.qkv_depthwise(self.qkv(x))
        both, v = qkv.split((2 * x.shape[1], x.shape[1]), dim=1)
        with autocast_off(x.device):
            attention = self.combine_maps(self.similarities(both))
            # The maps are small matrices per head. Multiplying them into the output projection
            # first leaves one product with the pixels instead of two.
            weight = self.multiply_into_projection(attention)
        return per_image_projection(v, weight, self.project.bias)

    def similarities(self, both: Tensor) -> Tensor:
        """Return the scaled cosines of q and k (together B, 2C, H, W): (B, heads, C/h, C/h).

        Float32, or float64 for float64. Where gradients are needed without kernels, q and k are
        copied to float32.
        """
        batch, channels, height, width = both.shape
        trained = torch.is_grad_enabled() and both.requires_grad
        if sums_low_precision(both) and (kernels.fits(both) or not trained):
            pixels = both.permute(0, 2, 3, 1).flatten(1, 2)  # B, HW, 2C
            products, squares = products_and_squares(pixels, self.heads)
            norms = squares.sqrt().view(batch, 2, self.heads, -1)
            return self.scale_products(products, *norms.unbind(1))
        shape = (batch, self.heads, channels // (2 * self.heads), height * width)
        q, k = (float32_at_least(part).reshape(shape) for part in both.chunk(2, dim=1))
        # Dividing the products by the norms needs no normalised copies of q and k. The dimension
        # is not -1: torch 2.11 compiles that to a wrong shape for maps of a single pixel.
        q_norm, k_norm = (torch.linalg.vector_norm(matrix, dim=3) for matrix in (q, k))
        return self.scale_products(q @ k.transpose(-2, -1), q_norm, k_norm)

    def scale_products(self, products: Tensor, q_norm: Tensor, k_norm: Tensor) -> Tensor:
        """Turn inner products (B, heads, N, N) into logits by the norms (B, heads, N)."""
        rows = q_norm.clamp_min(_COSINE_EPSILON).unsqueeze(-1)
        columns = k_norm.clamp_min(_COSINE_EPSILON).unsqueeze(-2)
        return products / rows / columns * self.temperature.to(products.dtype)

    def combine_maps(self, logits: Tensor) -> Tensor:
        """Run the cascade of rates and add up its maps; same shape as the logits."""
        if self.rate_weights is None:
            return logits.softmax(-1)
        maps = sparse_cascade(logits, self.kept, ties=self.ties)
        total = torch.zeros_like(logits)
        for scores, share in zip(maps, self.rate_weights.unbind(), strict=True):
            total = total + share * scores
        return total

    def multiply_into_projection(self, attention: Tensor) -> Tensor:
        """Multiply the output projection by maps (B, heads, C/h, C/h); returns (B, C, C)."""
        weight = float32_at_least(self.project.weight)
        weight = weight.view(weight.shape[0], self.heads, -1)
        return torch.einsum("ohi,bhij->bohj", weight, attention).flatten(2)


def sums_low_precision(x: Tensor) -> bool:
    """Whether products of such a tensor can be summed in float32 without a float32 copy of it."""
    return x.dtype in (torch.bfloat16, torch.float16) and x.device.type in ("cuda", "meta")


def products_and_squares(both: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return the inner products of q with k over the pixels, and the sums of their squares.

    Half precision on CUDA is multiplied as it is and summed in float32 (`gram_matrix`); everything
    else is computed from float32 copies.

    Args:
        both: q and k (B, HW, 2C).
        heads: Number of heads.

    Returns:
        Products (B, heads, C/h, C/h) and squares (B, 2C), float32.
    """
    if sums_low_precision(both):
        gram = cast(Tensor, _Gram.apply(both)) if both.requires_grad else gram_matrix(both)
        return split_gram(gram, heads)
    count, pixels, _ = both.shape
    both = both.float()
    squares = (both * both).sum(1)
    # (B, HW, 2, heads, C/h) to q and k, each (B, heads, HW, C/h).
    q, k = both.view(count, pixels, 2, heads, -1).permute(2, 0, 3, 1, 4)
    return q.transpose(-2, -1) @ k, squares


def split_gram(gram: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Take what `products_and_squares` returns out of the `gram_matrix` of q and k."""
    count, channels = len(gram), gram.shape[-1] // 2
    # Every q with every k, of which those within a head are wanted: (B, h, C/h, h, C/h).
    blocks = gram[:, :channels, channels:]
    blocks = blocks.reshape(count, heads, -1, heads, channels // heads)
    products = blocks.diagonal(dim1=1, dim2=3).movedim(-1, 1)
    return products, gram.diagonal(dim1=1, dim2=2)


def gram_matrix(pixels: Tensor) -> Tensor:
    """Multiply each channel with each over the pixels: (B, N, D) to (B, D, D), float32.

    One matrix product of half precision reads q and k once and gives their products and, on the
    diagonal, their squares.
    """
    return over_pixels(pixels, pixels, least=_LEAST_PIXELS)


class _Gram(torch.autograd.Function):
    """`gram_matrix` with the derivative that torch lacks: a product in the type of q and k.

    Bytes of the gradient: 2 maps (q and k read, their gradient written). By float32 copies: about
    20 (two products, the norms, the sum of these, conversions).
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's, to be given attributes)
        pixels: Tensor,
    ) -> Tensor:
        """Return the products; see `gram_matrix`."""
        ctx.save_for_backward(pixels)
        return gram_matrix(pixels)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 (see above)
        grad: Tensor,
    ) -> Tensor:
        """Return the gradient of the pixels (B, N, D)."""
        (pixels,) = ctx.saved_tensors
        return cast(Tensor, pixels @ (grad + grad.transpose(1, 2)).to(pixels.dtype))


def kept_entries(row_length: int, rate: Fraction) -> int:
    """Return how many entries of a row a rate keeps: rate * length, rounded down exactly."""
    return row_length * rate.numerator // rate.denominator


def sparse_cascade(logits: Tensor, counts: Sequence[int], *, ties: TopkTies) -> list[Tensor]:
    """Apply `sparse_softmax` repeatedly, each count to the result of the previous round.

    From the second round on, rows contain zeros. With `ties="lowest"`, a round that keeps at least
    as many entries as the previous one keeps every positive entry and the first zeros. If the
    counts ascend, one running count of the zeros serves all rounds, and only the first round sorts.

    Args:
        logits: Tensor (..., N).
        counts: How many entries each round keeps, 1 to N.
        ties: Which of equal entries stay, see `TopkTies`.

    Returns:
        The map of each round, with the shape of the logits.
    """
    maps = [sparse_softmax(logits, counts[0], ties=ties)]
    nested = is_nested(counts, ties)
    if nested and len(counts) > 1:
        above_zero = maps[0].detach() > 0
        # Rank of each zero: after all entries above zero, in the order of the zeros' indices.
        place = (~above_zero).cumsum(-1) + above_zero.sum(-1, keepdim=True)
    for count in counts[1:]:
        if nested:
            dropped = ~above_zero & (place > count)
            maps.append(maps[-1].masked_fill(dropped, -torch.inf).softmax(-1))
        else:
            maps.append(sparse_softmax(maps[-1], count, ties=ties))
    return maps


def is_nested(counts: Sequence[int], ties: TopkTies) -> bool:
    """Whether each round of `sparse_cascade` keeps what the one before has kept."""
    return ties == "lowest" and list(counts) == sorted(counts)


def sparse_softmax(scores: Tensor, count: int, *, ties: TopkTies) -> Tensor:
    """Take the softmax of the `count` largest entries of each row; the others become exactly 0.

    Args:
        scores: Tensor (..., N).
        count: How many entries stay, 1 to N.
        ties: Which of equal entries stay, see `TopkTies`.
    """
    if count == scores.shape[-1]:
        return scores.softmax(-1)
    detached = scores.detach()
    if ties == "lowest":
        # A stable sort leaves equal entries in the order of their indices.
        largest = detached.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    else:
        largest = detached.topk(count, dim=-1, sorted=False).indices
    dropped = torch.ones_like(detached, dtype=torch.bool).scatter_(-1, largest, False)
    return scores.masked_fill(dropped, -torch.inf).softmax(-1)
