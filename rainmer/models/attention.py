"""Sparse channel attention: keep the largest entries of each row, at several rates."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from rainmer.models.layers import (
    autocast_off,
    channel_conv,
    depthwise_conv,
    float32_at_least,
    per_image_projection,
)

__all__ = ["SparseChannelAttention", "TopkTies", "kept_entries", "sparse_cascade", "sparse_softmax"]

TopkTies = Literal["lowest", "native"]
"""Which of equal attention entries are kept: the lowest indices, or what `torch.topk` picks."""

_COSINE_EPSILON = 1e-12


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
        q, k, v = self.qkv_depthwise(self.qkv(x)).chunk(3, dim=1)
        with autocast_off(x.device):
            attention = self.combine_maps(self.similarities(q, k))
            # The maps are small matrices per head. Multiplying them into the output projection
            # first leaves one product with the pixels instead of two.
            weight = self.multiply_into_projection(attention)
        return per_image_projection(v, weight, self.project.bias)

    def similarities(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the scaled cosines of q and k (both B, C, H, W): (B, heads, C/h, C/h), float32."""
        batch, channels, height, width = q.shape
        shape = (batch, self.heads, channels // self.heads, height * width)
        q, k = float32_at_least(q).reshape(shape), float32_at_least(k).reshape(shape)
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
    nested = ties == "lowest" and list(counts) == sorted(counts)
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
