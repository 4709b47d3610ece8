"""The fused layers of `rainmer.models` written for exporters: fixed operations on (B, C, H, W).

The weights are those of the fused network, the numbers the same up to rounding. Where PyTorch on a
CPU works in strips, writes into slices and sorts, these run plain convolutions on whole maps, and
pick the largest entries of a row with `topk` of a constant count. In a half graph, norms, averages,
logits and softmax are computed in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.models.attention import SparseChannelAttention
from rainmer.models.fused import FusedCompensator, FusedTransformerBlock
from rainmer.models.layers import NORM_EPSILON, ChannelNorm, float32_at_least
from rainmer.models.network import Network
from rainmer.models.strips import Filters

__all__ = ["exportable"]

_COSINE_EPSILON = 1e-12
_ALL = slice(None)


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
    """The convolution of some of the channels of `Filters`, which keeps the size."""

    def __init__(self, filters: Filters, channels: slice = _ALL) -> None:
        super().__init__()
        bias = None if filters.bias is None else filters.bias[channels]
        self.weight = nn.Parameter(filters.weight[channels].clone(), requires_grad=False)
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
        matrix, bias = attention.qkv.weight.flatten(1), attention.qkv.bias
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        self.qkv = _NormedPointwise(norm, *zip(matrix.chunk(3), biases, strict=True))
        self.filters = nn.ModuleList(_Depthwise(last, part) for part in _thirds(len(matrix)))
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
        # Three maps of their own: a runtime copies what is split.
        q, k, v = (
            filters(part).flatten(2)  # B, C, HW
            for filters, part in zip(self.filters, self.qkv(x), strict=True)
        )
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


def _thirds(count: int) -> list[slice]:
    return [slice(first, first + count // 3) for first in range(0, count, count // 3)]


class _FeedForward(nn.Module):
    """The norm, `MixedScaleFeedForward`, and the residual connection around both."""

    def __init__(self, fused: Any) -> None:  # noqa: ANN401 (private to `fused`)
        super().__init__()
        products = []
        for half in fused.halves:
            biases = (None,) * 2 if half.expand_bias is None else half.expand_bias.chunk(2)
            products += list(zip(half.expand.chunk(2), biases, strict=True))
        self.expand = _NormedPointwise(fused.norm, *products)
        reduces = fused.reduce.split(fused.halves[0].width)  # of each half (2 * part - odd, C)
        self.halves = nn.ModuleList(map(_Half, fused.halves, reduces))
        bias = fused.reduce_bias
        self.bias = None if bias is None else nn.Parameter(bias[:, None, None].clone(), False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        parts = self.expand(x)
        for i, half in enumerate(self.halves):
            x = x + half(*parts[2 * i : 2 * i + 2])
        return x if self.bias is None else x + self.bias


class _Half(nn.Module):
    """The half of the feed-forward net that one of its pair convolutions sees; see `fused`.

    The even and the odd channels are maps of their own, so that nothing is split or concatenated,
    which runtimes do by copying.

    Args:
        half: The `_FusedHalf`.
        reduce: Its rows (2 * part - odd, C) of the matrix at the end.
    """

    def __init__(self, half: Any, reduce: Tensor) -> None:  # noqa: ANN401 (private to `fused`)
        super().__init__()
        part = half.part
        biases = (None, None) if half.pairs_bias is None else half.pairs_bias.split(part)
        rows = torch.split(reduce, part)
        self.fine = _Scale(half.fine, half.fine_pairs, rows[0], biases[0])
        self.coarse = _Scale(half.coarse, half.coarse_pairs, rows[1], biases[1])
        # With an odd number, the first coarse channel goes to the middle pair, the others move up.
        self.moves: nn.ModuleList | None = None
        if half.odd:
            middle, up = torch.zeros(2, part, part, dtype=reduce.dtype)
            middle[half.middle, 0] = 1.0
            up[:-1, 1:] = torch.eye(part - 1)
            self.moves = nn.ModuleList((_Pointwise(middle), _Pointwise(up)))

    def forward(self, even: Tensor, odd: Tensor) -> Tensor:
        """Map the even and the odd expanded channels (B, part, H, W) to (B, C, H, W)."""
        fine = self.fine.filtered(even, odd)
        coarse = self.coarse.filtered(even, odd)
        if self.moves is not None:
            to_middle, up = self.moves
            fine.append(to_middle(coarse[0]))
            coarse[0] = up(coarse[0])
        return self.fine.reduced(fine) + self.coarse.reduced(coarse)


class _Scale(nn.Module):
    """The filters of one scale, the pair convolution of their results, and the last matrix."""

    shift: Tensor | None

    def __init__(self, first: Filters, pairs: Filters, rows: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        part = len(first.weight) // 2
        halves = slice(part), slice(part, None)
        self.first = nn.ModuleList(_Depthwise(first, channels) for channels in halves)
        self.pairs = nn.ModuleList(_Depthwise(pairs, channels) for channels in halves)
        self.register_buffer("shift", None if bias is None else _filled(bias, part)[:, None, None])
        self.reduce = _Pointwise(_filled(rows, part).t())

    def filtered(self, *maps: Tensor) -> list[Tensor]:
        """Return the terms of the pair convolution, of the even and of the odd channels."""
        layers = zip(self.first, self.pairs, maps, strict=True)
        return [pairs(first(x).relu()) for first, pairs, x in layers]

    def reduced(self, terms: list[Tensor]) -> Tensor:
        """Add the terms (B, part, H, W) and multiply them by the matrix: (B, C, H, W)."""
        total = _sum(terms)
        total = total if self.shift is None else total + self.shift
        return cast(Tensor, self.reduce(total.relu()))


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms)


def _filled(rows: Tensor, count: int) -> Tensor:
    """Append zeros to rows (N, ...) until there are `count`."""
    return torch.cat((rows, rows.new_zeros(count - len(rows), *rows.shape[1:])))


class _Prompts(nn.Module):
    """What the prompts add to a decoder block; see `PromptTerm`."""

    def __init__(self, fused: Any) -> None:  # noqa: ANN401 (private to `fused`)
        super().__init__()
        self.gate_in = _Pointwise(fused.gate_in, fused.gate_in_bias)
        self.gate_out = _Pointwise(fused.gate_out, fused.gate_out_bias)
        self.terms, self.term = fused.terms, fused.term
        self.biases = nn.ParameterList(
            nn.Parameter(offset[:, None, None].clone(), False) for offset in fused.offsets
        )

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Map (B, C, H, W) and prompts (B, P, base_dim) to the sum of the terms (B, C, H, W)."""
        gates = self.gate_out(F.gelu(self.gate_in(x))).sigmoid()  # B, P, H, W
        total: Tensor | None = None
        for i, (value, share) in enumerate(self.terms(prompts, x.dtype)):
            spread = gates[:, i : i + 1] * value[:, :, None, None] + self.biases[i]
            term = F.silu(spread) * share[:, None, None, None]
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
    """`CompensatorStep`: eight operations with their matrices, summed by their weights."""

    def __init__(self, fused: Any) -> None:  # noqa: ANN401 (private to `fused`)
        super().__init__()
        self.operations = nn.ModuleList(
            nn.Sequential(_operation(operation), _Pointwise(matrix.t()))
            for operation, matrix in zip(fused.operations, fused.merges, strict=True)
        )

    def forward(self, state: Tensor, weights: Tensor) -> Tensor:
        """Map a state (B, C, H, W) >= 0 and weights (B, 8) to the next state >= 0."""
        shares = weights.to(state.dtype)[:, :, None, None]
        terms = [
            operation(state) * shares[:, i : i + 1] for i, operation in enumerate(self.operations)
        ]
        return _sum(terms).relu() + state


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
