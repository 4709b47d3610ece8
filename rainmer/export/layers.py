"""The fused layers of `rainmer.models` written for exporters: fixed operations on (B, C, H, W).

The weights are those of the fused network, the numbers the same up to rounding. Where PyTorch on a
CPU works in strips, writes into slices and sorts, these run plain convolutions on whole maps, and
pick the largest entries of a row with `topk` of a constant count. In a half graph, norms, averages,
logits and softmax are computed in float32.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.models.attention import SparseChannelAttention
from rainmer.models.fused import (
    FusedCompensator,
    FusedTransformerBlock,
)
from rainmer.models.layers import NORM_EPSILON, ChannelNorm, float32_at_least
from rainmer.models.network import Network
from rainmer.models.strips import Filters

__all__ = ["exportable"]

_COSINE_EPSILON = 1e-12


def exportable(network: Network) -> Network:
    """Replace the fused layers of a network by those of this module.

    Args:
        network: A fused network, which is changed; others have no such layers and stay.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FusedTransformerBlock):
                module.register_module(name, _Block(child))
            elif isinstance(child, FusedCompensator):
                module.register_module(name, _Compensator(child))
    return network


class _Pointwise(nn.Module):
    """A 1x1 convolution by a matrix (D, C) and a bias (D,)."""

    def __init__(self, matrix: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(matrix.detach()[:, :, None, None].clone(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


class _Depthwise(nn.Module):
    """The convolution of `Filters`, which keeps the size."""

    def __init__(self, filters: Filters) -> None:
        super().__init__()
        bias = filters.bias
        self.weight = nn.Parameter(filters.weight.clone(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)
        self.margin, self.dilation = filters.margin, filters.dilation

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            x, self.weight, self.bias, 1, self.margin, self.dilation, groups=len(self.weight)
        )


class _NormedPointwise(nn.Module):
    """A `ChannelNorm`, whose gain and shift are folded into the 1x1 convolutions after it."""

    def __init__(self, norm: ChannelNorm, *products: tuple[Tensor, Tensor | None]) -> None:
        super().__init__()
        self.centred = norm.bias is not None
        gain = norm.weight.double()
        self.products = nn.ModuleList()
        for matrix, bias in products:
            shift = None if norm.bias is None else matrix.double() @ norm.bias.double()
            if bias is not None:
                shift = bias.double() if shift is None else shift + bias.double()
            kind = matrix.dtype
            self.products.append(
                _Pointwise(
                    (matrix.double() * gain).to(kind), None if shift is None else shift.to(kind)
                )
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to the result of each convolution."""
        values = float32_at_least(x)
        centred = values - values.mean(1, keepdim=True)
        scale = torch.rsqrt((centred * centred).mean(1, keepdim=True) + NORM_EPSILON)
        normed = ((centred if self.centred else values) * scale).to(x.dtype)
        return [product(normed) for product in self.products]


class _Attention(nn.Module):
    """The norm and `SparseChannelAttention`, its projection included."""

    earlier: Tensor  # N, N: 1 where the row's index is not above the column's

    def __init__(self, norm: ChannelNorm, attention: SparseChannelAttention, last: Filters) -> None:
        super().__init__()
        self.heads, self.kept = attention.heads, attention.kept
        self.qkv = _NormedPointwise(norm, (attention.qkv.weight.flatten(1), attention.qkv.bias))
        self.filters = _Depthwise(last)
        project = attention.project.weight  # C, C
        by_head = project.view(len(project), self.heads, -1).transpose(0, 1)  # heads, C, C/h
        self.project = nn.Parameter(by_head.clone(), requires_grad=False)
        bias = attention.project.bias
        self.bias = None if bias is None else nn.Parameter(bias[:, None].clone(), False)
        self.temperature = nn.Parameter(attention.temperature.clone(), False)
        shares = attention.rate_weights
        self.shares = () if shares is None else tuple(shares.float().tolist())
        width = project.shape[1] // self.heads
        self.register_buffer("earlier", torch.ones(width, width).triu())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        batch, channels, height, width = x.shape
        qkv = self.filters(self.qkv(x)[0]).flatten(2)  # B, 3C, HW
        q, k, v = qkv.chunk(3, dim=1)
        maps = self.combined(self.logits(q, k))  # B, heads, C/h, C/h
        # Multiplied into the projection first: one product with the pixels instead of two.
        weight = (self.project.to(maps.dtype) @ maps).transpose(1, 2).flatten(2)  # B, C, C
        attended: Tensor = weight.to(x.dtype) @ v
        if self.bias is not None:
            attended = attended + self.bias
        return attended.view(batch, channels, height, width)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the scaled cosines of q and k (B, C, HW): (B, heads, C/h, C/h), float32."""
        batch, channels, pixels = q.shape
        shape = batch, self.heads, channels // self.heads, pixels
        q, k = (float32_at_least(part).reshape(shape) for part in (q, k))
        q_norm, k_norm = (
            (part * part).sum(3).sqrt().clamp_min(_COSINE_EPSILON) for part in (q, k)
        )  # B, heads, C/h
        products = q @ k.transpose(2, 3)
        return products / q_norm[..., None] / k_norm[..., None, :] * self.temperature.to(q.dtype)

    def combined(self, logits: Tensor) -> Tensor:
        """Run the cascade of `rainmer.models.attention.sparse_cascade` and add up its maps."""
        if not self.kept:
            return logits.softmax(-1)
        scores = logits
        total = torch.zeros_like(logits)
        for count, share in zip(self.kept, self.shares, strict=True):
            scores = self.sparse_softmax(scores, count)
            total = total + share * scores
        return total

    def sparse_softmax(self, scores: Tensor, count: int) -> Tensor:
        """Take the softmax of the `count` largest entries of each row, the first ones of equals."""
        if count == scores.shape[-1]:
            return scores.softmax(-1)
        least = scores.topk(count, dim=-1).values[..., -1:]
        above = (scores > least).to(scores.dtype)
        equal = (scores == least).to(scores.dtype)
        place = equal @ self.earlier.to(equal.dtype) + above.sum(
            -1, keepdim=True
        )  # of each equal, from 1
        kept = above + equal * (place <= count).to(scores.dtype)
        # Without infinities, of which quantisers and half precision make NaN.
        powers = (scores - scores.amax(-1, keepdim=True)).exp() * kept
        return powers / powers.sum(-1, keepdim=True)


class _FeedForward(nn.Module):
    """The norm, `MixedScaleFeedForward`, and the residual connection around both."""

    def __init__(self, fused: Any) -> None:  # noqa: ANN401 (private to `fused`)
        super().__init__()
        products = [(half.expand, half.expand_bias) for half in fused.halves]
        self.expand = _NormedPointwise(fused.norm, *products)
        self.halves = nn.ModuleList(_Half(half) for half in fused.halves)
        self.reduce = _Pointwise(fused.reduce.t(), fused.reduce_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        expanded = self.expand(x)
        mixed = [half(part) for half, part in zip(self.halves, expanded, strict=True)]
        return x + cast(Tensor, self.reduce(torch.cat(mixed, dim=1)))


class _Half(nn.Module):
    """The half of the feed-forward net that one of its pair convolutions sees; see `fused`."""

    def __init__(self, half: Any) -> None:  # noqa: ANN401 (private to `fused`)
        super().__init__()
        self.part, self.odd, self.middle = half.part, half.odd, half.middle
        self.fine, self.coarse = _Depthwise(half.fine), _Depthwise(half.coarse)
        self.fine_pairs = _Depthwise(half.fine_pairs)
        self.coarse_pairs = _Depthwise(half.coarse_pairs)
        bias = half.pairs_bias
        self.bias = None if bias is None else nn.Parameter(bias[:, None, None].clone(), False)

    def forward(self, expanded: Tensor) -> Tensor:
        """Map expanded channels (B, 2 * part, H, W) to mixed ones (B, 2 * part - odd, H, W)."""
        part, odd, middle = self.part, self.odd, self.middle
        fine = self.fine_pairs(self.fine(expanded).relu())
        coarse = self.coarse_pairs(self.coarse(expanded).relu())
        sums = [
            fine[:, :part] + fine[:, part:],
            coarse[:, odd:part] + coarse[:, part : 2 * part - odd],
        ]
        if odd:  # the middle pair takes a channel of each
            first = sums[0]
            both = first[:, middle : middle + 1] + coarse[:, :1]
            sums = [first[:, :middle], both, first[:, middle + 1 :], sums[1]]
        mixed = torch.cat(sums, dim=1)
        return (mixed if self.bias is None else mixed + self.bias).relu()


class _Prompts(nn.Module):
    """What the prompts add to a decoder block; see `PromptTerm`."""

    def __init__(self, fused: Any) -> None:  # noqa: ANN401 (private to `fused`)
        super().__init__()
        self.gate_in = _Pointwise(fused.gate_in, fused.gate_in_bias)
        self.gate_out = _Pointwise(fused.gate_out, fused.gate_out_bias)
        self.values, self.term = fused.values, fused.term
        self.biases = nn.ParameterList(
            nn.Parameter(attention.value.bias[:, None, None].clone(), False)
            for attention in fused.attentions
        )

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Map (B, C, H, W) and prompts (B, P, base_dim) to the sum of the terms (B, C, H, W)."""
        gates = self.gate_out(F.gelu(self.gate_in(x))).sigmoid()  # B, P, H, W
        total: Tensor | None = None
        for i, (value, share) in enumerate(self.values(prompts, x.dtype)):
            spread = gates[:, i : i + 1] * value.transpose(1, 3) + self.biases[i]
            term = F.silu(spread) * share
            total = term if total is None else total + term
        return cast(Tensor, total)


class _Block(nn.Module):
    """`TransformerBlock`."""

    def __init__(self, fused: FusedTransformerBlock) -> None:
        super().__init__()
        attention = fused.attention
        self.attention = _Attention(attention.norm, attention.attention, attention.filters)
        self.prompts = None if fused.prompts is None else _Prompts(fused.prompts)
        self.prompt_position = fused.prompt_position
        self.feed_forward = _FeedForward(fused.feed_forward)

    def forward(self, x: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), with prompts (B, P, base_dim) in the decoder, to (B, C, H, W)."""
        attended = self.attention(x)
        total = x + attended
        if self.prompts is not None and prompts is not None and prompts.shape[1]:
            source = attended if self.prompt_position == "attention" else total
            total = total + self.prompts(source, prompts)
        return cast(Tensor, self.feed_forward(total))


class _Compensator(nn.Module):
    """`FeatureCompensator`."""

    def __init__(self, fused: FusedCompensator) -> None:
        super().__init__()
        self.gate, self.entry = fused.gate, fused.entry
        self.steps = nn.ModuleList(_Step(step) for step in fused.steps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; the result is not negative."""
        gate = self.gate(float32_at_least(x).mean((2, 3)).to(x.dtype)).float()
        weights = gate.unflatten(1, (len(self.steps), -1)).softmax(-1)
        state = self.entry(x).relu()
        for i, step in enumerate(self.steps):
            state = step(state, weights[:, i])
        return cast(Tensor, state)


class _Step(nn.Module):
    """`CompensatorStep`: eight operations, each scaled by its weight, and one merging matrix."""

    def __init__(self, fused: Any) -> None:  # noqa: ANN401 (private to `fused`)
        super().__init__()
        self.operations = nn.ModuleList(_operation(operation) for operation in fused.operations)
        merges = fused.merges.detach()  # 8, C in, C out
        self.merge = _Pointwise(merges.flatten(0, 1).t())

    def forward(self, state: Tensor, weights: Tensor) -> Tensor:
        """Map a state (B, C, H, W) >= 0 and weights (B, 8) to the next state >= 0."""
        shares = weights.to(state.dtype)[:, :, None, None]
        branches = [
            operation(state) * shares[:, i : i + 1] for i, operation in enumerate(self.operations)
        ]
        return cast(Tensor, self.merge(torch.cat(branches, dim=1))).relu() + state


def _operation(fused: Any) -> nn.Module:  # noqa: ANN401 (private to `fused`)
    """Return an operation of `CompensatorStep` without its last matrix."""
    if isinstance(fused, Filters):
        return _Depthwise(fused)
    if not hasattr(fused, "matrix"):
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    middle = [_Pointwise(fused.matrix), nn.ReLU()]
    if fused.first is None:
        return nn.Sequential(*middle)
    return nn.Sequential(_Depthwise(fused.first), *middle, _Depthwise(fused.last))
