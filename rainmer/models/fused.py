"""Inference versions of the blocks in `rainmer.models.blocks` and `layers`, linear maps merged.

They give the same numbers up to rounding, with fewer operations and less memory. Adjacent linear
maps become one matrix, nothing is concatenated, and a map that does not fit into a CPU's cache is
processed in horizontal strips. On a GPU, `rainmer.kernels` computes what torch does in too many
passes. Blocks take and return (B, C, H, W) like the originals; inside, a
map is (B, H, W, C), which is the same memory in channels-last order.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer import kernels
from rainmer.kernels import Prompts
from rainmer.models.blocks import TransformerBlock
from rainmer.models.convolutions import maps_of
from rainmer.models.folding import Folded, Normed, matrix_of, pointwise, project
from rainmer.models.fused_attention import FusedAttention, FusedPrompts
from rainmer.models.layers import (
    ChannelNorm,
    CompensatorStep,
    Dilated,
    FeatureCompensator,
    MixedScaleFeedForward,
    Separable,
    global_average,
)
from rainmer.models.strips import Filters, Rows, pixels_of, strips

__all__ = ["FusedCompensator", "FusedTransformerBlock"]

_CHANNEL_GROUP = 16  # fast depthwise kernels work on groups of this many channels


class _FusedHalf(Folded):
    """The half of a `MixedScaleFeedForward` that one of its pair convolutions sees.

    A pair convolution filters two neighbouring channels and adds them. With the even channels first
    and the odd ones after them, that is a depthwise convolution and the sum of two contiguous
    parts, each padded with zero channels to a width that suits the kernels. The first half of the
    pairs takes the fine (3x3) filters' results, the second half the coarse (5x5) ones; if their
    number is odd, the middle pair takes one of each: the coarse one moves to the fine ones.

    Args:
        feed_forward: The layer to fuse.
        half: 0 for its first pair convolution, 1 for the second.
    """

    expand: Tensor
    expand_bias: Tensor | None
    pairs_bias: Tensor | None
    reduce: Tensor

    def __init__(self, feed_forward: MixedScaleFeedForward, half: int) -> None:
        super().__init__()
        count = feed_forward.reduce.in_channels // 2
        self.odd = count % 2
        self.part = -(-count // _CHANNEL_GROUP) * _CHANNEL_GROUP // 2
        self.middle = count // 2
        part = slice(half * count, (half + 1) * count)
        channels = _padded(range(0, count, 2), self.part) + _padded(range(1, count, 2), self.part)
        pairs = _padded(range(count - self.middle), self.part) + _padded(
            range(count - self.middle, count), self.part - self.odd
        )
        self.width = len(pairs)
        expand, fine, coarse = (
            feed_forward.expand,
            feed_forward.depthwise3,
            feed_forward.depthwise5,
        )
        pair_conv = (feed_forward.pair3, feed_forward.pair5)[half]
        pair_filters = pair_conv.weight.flatten(0, 1).unsqueeze(1)
        for name, value, order in (
            ("expand", expand.weight[part].flatten(1), channels),
            ("expand_bias", None if expand.bias is None else expand.bias[part], channels),
            ("pairs_bias", pair_conv.bias, pairs),
            ("reduce", feed_forward.reduce.weight[:, part].flatten(1).t(), pairs),
        ):
            self.register_buffer(name, None if value is None else _take(value, order))
        self.fine, self.coarse = (
            Filters(
                _take(conv.weight[part], channels),
                None if conv.bias is None else _take(conv.bias[part], channels),
            )
            for conv in (fine, coarse)
        )
        fine_channels = [*channels]
        if self.odd:
            fine_channels[self.part + self.middle] = count
        self.fine_pairs = Filters(_take(pair_filters, fine_channels))
        self.coarse_pairs = Filters(_take(pair_filters[count:], channels))

    def forward(
        self, normed: Normed, given: Rows, rows: Rows, mixed: Tensor, *, finish: bool
    ) -> None:
        """Write the mixed channels of `rows` into (B, H, W, D).

        Args:
            normed: Normalised pixels (B, h, W, C) of the rows `given`.
            given: `rows` and the rows around them that the filters reach.
            rows: Rows to compute.
            mixed: Receives the result.
            finish: Whether to add the bias and take the ReLU on the way.
        """
        part, odd, bias = self.part, self.odd, self.pairs_bias
        between = rows.grown(self.fine_pairs.margin)
        seen = between.grown(self.coarse.margin)
        first, last = (bias[:part], bias[part:]) if finish and bias is not None else (None, None)
        expanded = normed.product(seen.within(given), self.expand, self.expand_bias)
        coarse = self.coarse(expanded, seen, between, relu=True)
        self.coarse_pairs.add_pairs(
            coarse, between, rows, mixed[..., part:], first=odd, bias=last, relu=finish
        )
        moved = coarse[..., :odd].clone()
        del coarse
        fine = self.fine(expanded, seen, between, relu=True)
        fine[..., part + self.middle : part + self.middle + odd] = moved
        self.fine_pairs.add_pairs(fine, between, rows, mixed[..., :part], bias=first, relu=finish)
        if bias is not None and not finish:
            mixed += bias


def _padded(indices: range, length: int) -> list[int]:
    """Pad indices with -1; see `_take`."""
    return [*indices, *[-1] * (length - len(indices))]


def _take(rows: Tensor, order: list[int]) -> Tensor:
    """Select rows (N, ...) by index, in this order; -1 gives zeros."""
    with_zeros = torch.cat((rows, torch.zeros_like(rows[:1])))
    return with_zeros[torch.tensor(order, device=rows.device)]


class _FusedFeedForward(nn.Module):
    """The norm, `MixedScaleFeedForward`, and the residual connection around both."""

    margin = 4  # rows needed above and below those computed: two filters of 5x5
    reduce: Tensor
    reduce_bias: Tensor | None

    def __init__(self, norm: ChannelNorm, feed_forward: MixedScaleFeedForward) -> None:
        super().__init__()
        self.norm = norm
        first, second = (_FusedHalf(feed_forward, half) for half in range(2))
        self.halves = nn.ModuleList([first, second])
        self.width = first.width
        self.register_buffer("reduce", torch.cat((first.reduce, second.reduce)))
        del first.reduce, second.reduce
        self.reduce_bias = feed_forward.reduce.bias

    def forward(self, pixels: Tensor, given: Rows, rows: Rows, out: Tensor) -> None:
        """Write `rows` of the given pixels (B, h, W, C) plus the result to (B, H, W, C)."""
        normed = Normed(self.norm, pixels)
        finish = kernels.fits(pixels)
        kept = pixels[:, rows.within(given)]
        mixed = kept.new_empty(*kept.shape[:3], 2 * self.width)
        for half, part in zip(self.halves, mixed.chunk(2, dim=-1), strict=True):
            half(normed, given, rows, part, finish=finish)
        if not finish:
            mixed.relu_()
        torch.addmm(
            kept.flatten(0, 2), mixed.flatten(0, 2), self.reduce, out=out.view(-1, out.shape[-1])
        )
        if self.reduce_bias is not None:
            out += self.reduce_bias


class FusedTransformerBlock(nn.Module):
    """`TransformerBlock` for inference.

    Args:
        block: The block to fuse; some of its weights are shared.
    """

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.attention = FusedAttention(block.norm1, block.attention)
        self.attention_bias = block.attention.project.bias
        self.prompt_position = block.prompt_position
        self.prompts = None
        if block.prompt_term is not None:
            after = self.prompt_position != "attention"
            self.prompts = FusedPrompts(block.prompt_term, after=after)
        self.feed_forward = _FusedFeedForward(block.norm2, block.feed_forward)

    @torch.no_grad()
    def forward(self, x: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), with prompts (B or 1, P, base_dim) in the decoder, to (B, C, H, W)."""
        pixels = pixels_of(x)
        values, matrices = self.attention(pixels)
        added = None
        if self.prompts is not None and prompts is not None and prompts.shape[1]:
            added = self.prompts.of(prompts.expand(len(x), -1, -1), x.dtype)
        restored = torch.empty_like(pixels)
        for images, rows in strips(pixels, self.feed_forward.width):
            seen = rows.grown(self.feed_forward.margin)
            part = images, seen.in_image
            total = self.attended(values[part], matrices[images], pixels[part], added, images)
            self.feed_forward(total, seen, rows, restored[images, rows.in_image])
        return maps_of(restored)

    def attended(
        self,
        values: Tensor,
        matrices: Tensor,
        pixels: Tensor,
        prompts: Prompts | None,
        images: slice,
    ) -> Tensor:
        """Add attention and prompts to the pixels (b, h, W, C) of some of the images."""

        def twin() -> Tensor:
            attended = project(values, matrices)
            if self.attention_bias is not None:
                attended += self.attention_bias
            total = pixels + attended
            if self.prompts is not None and prompts is not None:
                self.prompts.add_to(total, attended, prompts, images)
            return total

        if not kernels.fits(pixels, multiplied=True):
            return twin()
        return kernels.attend(values, matrices, pixels, self.attention_bias, prompts, twin=twin)


class FusedCompensator(nn.Module):
    """`FeatureCompensator` for inference.

    Args:
        compensator: The compensator to fuse; some of its weights are shared.
    """

    def __init__(self, compensator: FeatureCompensator) -> None:
        super().__init__()
        self.gate = compensator.gate
        self.entry = compensator.entry
        self.steps = nn.ModuleList(
            _FusedStep(cast(CompensatorStep, step)) for step in compensator.steps
        )

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; the result is not negative."""
        gate = self.gate(global_average(x)).float()
        weights = gate.view(len(x), len(self.steps), -1).softmax(-1)
        state = pointwise(pixels_of(x), self.entry).relu_()
        for step, step_weights in zip(self.steps, weights.unbind(1), strict=True):
            state = step(state, step_weights)
        return maps_of(state)


class _FusedStep(Folded):
    """`CompensatorStep`: each operation ends in one matrix, scaled by its weight."""

    margin = 6  # rows needed above and below those computed: two filters of 7x7, or one dilated
    merges: Tensor  # 8, C, C
    inner: Tensor  # 4, C, C: the matrices within the separable operations
    taps: Tensor  # see `rainmer.kernels.mixing`

    def __init__(self, step: CompensatorStep) -> None:
        super().__init__()
        dtype = step.merge.weight.dtype
        merges = list(matrix_of(step.merge).chunk(len(step.operations)))
        self.operations = nn.ModuleList()
        for i, operation in enumerate(step.operations):
            if isinstance(operation, Separable):
                merges[i] = matrix_of(operation.pointwise2) @ merges[i]
                if operation.depthwise2.kernel_size == (1, 1):
                    merges[i] = _diagonal(operation.depthwise2) @ merges[i]
                self.operations.append(_FusedSeparable(operation))
            elif isinstance(operation, Dilated):
                merges[i] = matrix_of(operation.pointwise) @ merges[i]
                conv = operation.depthwise
                self.operations.append(Filters(conv.weight, dilation=conv.dilation[0]))
            else:
                self.operations.append(_Average())
        self.keep("merges", torch.stack(merges), dtype)
        operations = list(self.operations)
        separable = cast("list[_FusedSeparable]", operations[:4])
        self.keep("inner", torch.stack([part.matrix.t() for part in separable]), dtype)
        filters = [part.first for part in separable[1:]] + [part.last for part in separable[1:]]
        taps = [cast(Filters, part).taps.flatten(0, 1) for part in (*filters, *operations[4:7])]
        self.keep("taps", torch.cat([*taps, torch.ones_like(taps[0][:9])]), dtype)

    def forward(self, state: Tensor, weights: Tensor) -> Tensor:
        """Map a state (B, H, W, C) >= 0 and weights (B, 8) to the next state >= 0."""
        matrices = (self.merges * weights[:, :, None, None]).to(state.dtype)  # B, 8, C in, C out

        def twin() -> Tensor:
            return self._by_operations(state, matrices)

        if not kernels.fits(state, multiplied=True):
            return twin()
        return kernels.mixture(state, self.taps, self.inner, matrices, twin=twin)

    def _by_operations(self, state: Tensor, matrices: Tensor) -> Tensor:
        result = torch.empty_like(state)
        for images, rows in strips(state, state.shape[-1]):
            seen = rows.grown(self.margin)
            pixels = state[images, seen.in_image]
            total = None
            for operation, matrix in zip(self.operations, matrices[images].unbind(1), strict=True):
                total = project(operation(pixels, seen, rows), matrix, total)
            assert total is not None
            strip = images, rows.in_image
            torch.add(total.relu_(), state[strip], out=result[strip])
        return result


def _diagonal(conv: nn.Conv2d) -> Tensor:
    """Return a depthwise convolution of size 1 as a matrix."""
    return conv.weight.flatten().double().diag()


class _FusedSeparable(Folded):
    """`Separable` up to its last 1x1 convolution."""

    matrix: Tensor
    first: Filters | None
    last: Filters | None

    def __init__(self, operation: Separable) -> None:
        super().__init__()
        dtype = operation.pointwise1.weight.dtype
        matrix = matrix_of(operation.pointwise1)
        pointwise = operation.depthwise1.kernel_size == (1, 1)
        if pointwise:
            matrix = _diagonal(operation.depthwise1) @ matrix
        self.keep("matrix", matrix.t(), dtype)
        self.first = None if pointwise else Filters(operation.depthwise1.weight)
        self.last = None if pointwise else Filters(operation.depthwise2.weight)

    def forward(self, pixels: Tensor, given: Rows, rows: Rows) -> Tensor:
        """Compute `rows` (B, H, W, C) from the pixels of the rows `given` (B, h, W, C)."""
        if self.first is None or self.last is None:  # size 1: merged into the matrices
            return F.linear(pixels[:, rows.within(given)], self.matrix).relu_()
        between = rows.grown(self.last.margin)
        hidden = F.linear(self.first(pixels, given, between), self.matrix).relu_()
        return cast(Tensor, self.last(hidden, between, rows))


class _Average(nn.Module):
    """Average over 3x3 pixels, ignoring those beyond the border."""

    def forward(self, pixels: Tensor, given: Rows, rows: Rows) -> Tensor:
        """Compute `rows` (B, H, W, C) from the pixels of the rows `given` (B, h, W, C)."""
        needed = rows.grown(1)
        x = maps_of(pixels[:, needed.within(given)])  # B, C, h, W
        averaged = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return averaged.permute(0, 2, 3, 1)[:, rows.within(needed)]  # B, H, W, C
