"""The attention of `rainmer.models.fused`, and what prompts add to it."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer import kernels
from rainmer.kernels import Prompts
from rainmer.models.attention import (
    SparseChannelAttention,
    gram_matrix,
    is_nested,
    products_and_squares,
    split_gram,
    sums_low_precision,
)
from rainmer.models.blocks import PromptAttention, PromptTerm
from rainmer.models.folding import Folded, Normed, matrix_of
from rainmer.models.layers import ChannelNorm
from rainmer.models.strips import Filters, Rows, strips

__all__ = ["FusedAttention", "FusedPrompts"]


class FusedAttention(nn.Module):
    """The norm and `SparseChannelAttention`, up to the matrices that are applied to v.

    Args:
        norm: The norm.
        attention: The attention; its weights are shared.
    """

    def __init__(self, norm: ChannelNorm, attention: SparseChannelAttention) -> None:
        super().__init__()
        self.norm = norm
        self.attention = attention
        depthwise = attention.qkv_depthwise
        self.filters = Filters(depthwise.weight, depthwise.bias)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return v (B, H, W, C) and the matrices (B, C in, C out) that multiply it."""
        count, _, _, channels = pixels.shape
        if kernels.fits(pixels):
            return self._at_once(pixels)
        attention = self.attention
        width = channels // attention.heads
        values = torch.empty_like(pixels)
        products = torch.zeros(count, attention.heads, width, width, device=pixels.device)
        squares = torch.zeros(count, 2 * channels, device=pixels.device)
        for images, rows in strips(pixels, 3 * channels):
            both, values[images, rows.in_image] = self._qkv(pixels[images], rows)
            product, square = products_and_squares(both, attention.heads)
            products[images] += product  # B, heads, C/h, C/h
            squares[images] += square
        return values, self.matrices(products, squares).to(pixels.dtype)

    def _at_once(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Do the same without strips, for a GPU."""
        height = pixels.shape[1]
        both, values = self._qkv(pixels, Rows(0, height, height))
        if not sums_low_precision(both):
            return values, self.matrices(*products_and_squares(both, self.attention.heads))
        return values, self.from_gram(gram_matrix(both), pixels.dtype)

    def from_gram(self, gram: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the matrices (B, C in, C out) of a `gram_matrix` of q and k (B, 2C, 2C)."""
        attention = self.attention

        def twin() -> Tensor:
            return self.matrices(*split_gram(gram, attention.heads)).to(dtype)

        nested = is_nested(attention.kept, attention.ties)
        if not (nested and kernels.fits_map(gram, attention.heads)):
            return twin()
        return kernels.attention_matrices(
            gram,
            attention.temperature,
            attention.rate_weights,
            attention.project.weight,
            dtype,
            kept=attention.kept,
            twin=twin,
        )

    def _qkv(self, pixels: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return q and k together (B, h W, 2C), and v (B, h, W, C), of some rows of images."""
        attention, channels = self.attention, pixels.shape[-1]
        seen = rows.grown(1)
        normed = Normed(self.norm, pixels[:, seen.in_image])
        qkv = normed.product(slice(None), attention.qkv.weight.flatten(1), attention.qkv.bias)
        qkv = self.filters(qkv, seen, rows)
        return qkv[..., : 2 * channels].flatten(1, 2), qkv[..., 2 * channels :]

    def matrices(self, products: Tensor, squares: Tensor) -> Tensor:
        """Return the matrices (B, C in, C out) of `products_and_squares`."""
        attention = self.attention
        # Each (B, heads, C/h).
        q_norm, k_norm = squares.sqrt().view(len(squares), 2, attention.heads, -1).unbind(1)
        maps = attention.combine_maps(attention.scale_products(products, q_norm, k_norm))
        return attention.multiply_into_projection(maps).transpose(1, 2)


class FusedPrompts(Folded):
    """`PromptTerm`, with the gates of all P prompts in one product.

    Args:
        term: The term; some of its weights are shared.
        after: Whether the gates see the sum with the residual.
    """

    gate_in: Tensor  # P * C, C
    gate_in_bias: Tensor  # P * C
    gate_out: Tensor  # P, P * C: block-diagonal
    gate_out_bias: Tensor  # P
    offsets: Tensor  # P, C

    def __init__(self, term: PromptTerm, *, after: bool) -> None:
        super().__init__()
        self.attentions = [cast(PromptAttention, attention) for attention in term.attentions]
        gates = [attention.gate for attention in self.attentions]
        first = [cast(nn.Conv2d, gate[0]) for gate in gates]
        last = [cast(nn.Conv2d, gate[2]) for gate in gates]
        dtype = first[0].weight.dtype
        self.keep("gate_in", torch.cat([matrix_of(conv) for conv in first], 1).t(), dtype)
        self.keep("gate_in_bias", torch.cat([cast(Tensor, conv.bias) for conv in first]), dtype)
        matrices = [matrix_of(conv) for conv in last]
        gate_out = torch.block_diag(*matrices)  # type: ignore[no-untyped-call]
        self.keep("gate_out", gate_out.t(), dtype)
        self.keep("gate_out_bias", torch.cat([cast(Tensor, conv.bias) for conv in last]), dtype)
        offsets = [attention.value.bias for attention in self.attentions]
        self.keep("offsets", torch.stack(list[Tensor](offsets)), dtype)
        self.term = term
        self.after = after

    def terms(self, prompts: Tensor, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Return the value (B, C) and the share (B,) of each of the prompts (B, P, base_dim)."""
        share = torch.ones_like(prompts[:, 0, 0])
        shares = [share] * prompts.shape[1]
        if self.term.direction is not None:
            share = self.term.chromatic_share(prompts)
            shares = [share, 1 - share]
        return [
            (F.linear(prompt.to(dtype), attention.value.weight), share.to(dtype))
            for prompt, attention, share in zip(
                prompts.unbind(1), self.attentions, shares, strict=True
            )
        ]

    def of(self, prompts: Tensor, dtype: torch.dtype) -> Prompts:
        """Return what prompts (B, P, base_dim) add to their images' pixels."""
        values, shares = zip(*self.terms(prompts, dtype), strict=True)
        return Prompts(
            self.gate_in,
            self.gate_in_bias,
            self.gate_out,
            self.gate_out_bias,
            self.offsets,
            torch.stack(values, 1),
            torch.stack(shares, 1),
            self.after,
        )

    def add_to(self, total: Tensor, attended: Tensor, prompts: Prompts, images: slice) -> None:
        """Add the term of some images to a total (B, H, W, C) of residual and attention."""
        source = total.clone() if self.after else attended
        hidden = F.gelu(F.linear(source, self.gate_in, self.gate_in_bias))  # B, H, W, P * C
        gates = F.linear(hidden, self.gate_out, self.gate_out_bias).sigmoid_()  # B, H, W, P
        for i, offset in enumerate(self.offsets):
            value = prompts.values[images, i, None, None]  # B, 1, 1, C
            share = prompts.shares[images, i, None, None, None]
            spread = torch.addcmul(offset, gates[..., i : i + 1], value)
            total.addcmul_(F.silu(spread, inplace=True), share)
