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
from rainmer.models.attention import (
    SparseChannelAttention,
    gram_matrix,
    products_and_squares,
    split_gram,
    sums_low_precision,
)
from rainmer.models.blocks import PromptAttention, PromptTerm, TransformerBlock
from rainmer.models.layers import (
    NORM_EPSILON,
    ChannelNorm,
    CompensatorStep,
    Dilated,
    FeatureCompensator,
    MixedScaleFeedForward,
    Separable,
    global_average,
)
from rainmer.models.strips import Filters, Rows, maps_of, pixels_of, strips

__all__ = ["FusedCompensator", "FusedTransformerBlock", "Normed"]

_CHANNEL_GROUP = 16  # fast depthwise kernels work on groups of this many channels


def _project(pixels: Tensor, matrices: Tensor, total: Tensor | None = None) -> Tensor:
    """Multiply the pixels (B, H, W, C) of each image by its matrix (B, C, D).

    The products are added in place to a contiguous `total` (B, H, W, D), if given.
    """
    flat = pixels.flatten(1, 2)  # B, HW, C
    if total is None:
        return torch.bmm(flat, matrices).view(*pixels.shape[:3], -1)
    total.flatten(1, 2).baddbmm_(flat, matrices)
    return total


def _pointwise(pixels: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a 1x1 convolution to pixels (B, H, W, C): (B, H, W, D)."""
    return F.linear(pixels, conv.weight.flatten(1), conv.bias)


def _norm(norm: ChannelNorm, pixels: Tensor) -> Tensor:
    """Normalise pixels (B, H, W, C)."""

    def twin() -> Tensor:
        return cast(Tensor, norm(maps_of(pixels))).permute(0, 2, 3, 1)  # B, H, W, C

    if not kernels.fits(pixels):
        return twin()
    return kernels.channel_norm(pixels, norm.weight, norm.bias, NORM_EPSILON, twin=twin)


class Normed:
    """Pixels (B, H, W, C) whose norm is taken once, or on a GPU within each product with them."""

    def __init__(self, norm: ChannelNorm, pixels: Tensor) -> None:
        self.norm = norm
        self.within = kernels.fits(pixels, multiplied=True)
        self.pixels = pixels if self.within else _norm(norm, pixels)

    def product(self, rows: slice, matrix: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply some rows by a matrix (D, C): (B, h, W, D)."""
        pixels, norm = self.pixels[:, rows], self.norm
        if not self.within:
            return F.linear(pixels, matrix, bias)
        return kernels.norm_linear(
            pixels,
            norm.weight,
            norm.bias,
            NORM_EPSILON,
            matrix,
            bias,
            twin=lambda: F.linear(_norm(norm, pixels), matrix, bias),
        )


def _matrix(conv: nn.Conv2d) -> Tensor:
    """Return the weights of a 1x1 convolution as a float64 matrix (in, out)."""
    return conv.weight.flatten(1).t().double()


class _Folded(nn.Module):
    """A module without parameters, whose merged weights are buffers."""

    def _keep(self, name: str, value: Tensor | None, dtype: torch.dtype) -> None:
        """Register a merged weight as a buffer; None where the layers have none."""
        self.register_buffer(name, None if value is None else value.detach().to(dtype).contiguous())


class _StripwiseAttention(nn.Module):
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
            both, values[images, rows.in_image] = self._parts(pixels[images], rows)
            product, square = products_and_squares(both, attention.heads)
            products[images] += product  # B, heads, C/h, C/h
            squares[images] += square
        return values, self.matrices(products, squares).to(pixels.dtype)

    def _at_once(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Do the same without strips, for a GPU."""
        height = pixels.shape[1]
        both, values = self._parts(pixels, Rows(0, height, height))
        if not sums_low_precision(both):
            return values, self.matrices(*products_and_squares(both, self.attention.heads))
        return values, self.from_gram(gram_matrix(both), pixels.dtype)

    def from_gram(self, gram: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the matrices (B, C in, C out) of a `gram_matrix` of q and k (B, 2C, 2C)."""
        attention = self.attention

        def twin() -> Tensor:
            return self.matrices(*split_gram(gram, attention.heads)).to(dtype)

        nested = attention.ties == "lowest" and list(attention.kept) == sorted(attention.kept)
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

    def _parts(self, pixels: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
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


class _FusedPrompts(_Folded):
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
        self._keep("gate_in", torch.cat([_matrix(conv) for conv in first], 1).t(), dtype)
        self._keep("gate_in_bias", torch.cat([cast(Tensor, conv.bias) for conv in first]), dtype)
        matrices = [_matrix(conv) for conv in last]
        gate_out = torch.block_diag(*matrices)  # type: ignore[no-untyped-call]
        self._keep("gate_out", gate_out.t(), dtype)
        self._keep("gate_out_bias", torch.cat([cast(Tensor, conv.bias) for conv in last]), dtype)
        offsets = [attention.value.bias for attention in self.attentions]
        self._keep("offsets", torch.stack(list[Tensor](offsets)), dtype)
        self.term = term
        self.after = after

    def of(self, prompts: Tensor, dtype: torch.dtype) -> Prompts:
        """Return what prompts (B, P, base_dim) add to their images' pixels."""
        share = torch.ones_like(prompts[:, 0, 0])
        shares = [share] * prompts.shape[1]
        if self.term.direction is not None:
            share = self.term.chromatic_share(prompts)
            shares = [share, 1 - share]
        values = [
            F.linear(prompt.to(dtype), attention.value.weight)
            for attention, prompt in zip(self.attentions, prompts.unbind(1), strict=True)
        ]
        return Prompts(
            self.gate_in,
            self.gate_in_bias,
            self.gate_out,
            self.gate_out_bias,
            self.offsets,
            torch.stack(values, 1),
            torch.stack(shares, 1).to(dtype),
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


class _FusedHalf(_Folded):
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
        self.attention = _StripwiseAttention(block.norm1, block.attention)
        self.attention_bias = block.attention.project.bias
        self.prompts = None
        if block.prompt_term is not None:
            after = block.prompt_position != "attention"
            self.prompts = _FusedPrompts(block.prompt_term, after=after)
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
            attended = _project(values, matrices)
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
        state = _pointwise(pixels_of(x), self.entry).relu_()
        for step, step_weights in zip(self.steps, weights.unbind(1), strict=True):
            state = step(state, step_weights)
        return maps_of(state)


class _FusedStep(_Folded):
    """`CompensatorStep`: each operation ends in one matrix, scaled by its weight."""

    margin = 6  # rows needed above and below those computed: two filters of 7x7, or one dilated
    merges: Tensor  # 8, C, C
    inner: Tensor  # 4, C, C: the matrices within the separable operations
    taps: Tensor  # see `rainmer.kernels.mixing`

    def __init__(self, step: CompensatorStep) -> None:
        super().__init__()
        dtype = step.merge.weight.dtype
        merges = list(_matrix(step.merge).chunk(len(step.operations)))
        self.operations = nn.ModuleList()
        for i, operation in enumerate(step.operations):
            if isinstance(operation, Separable):
                merges[i] = _matrix(operation.pointwise2) @ merges[i]
                if operation.depthwise2.kernel_size == (1, 1):
                    merges[i] = _diagonal(operation.depthwise2) @ merges[i]
                self.operations.append(_FusedSeparable(operation))
            elif isinstance(operation, Dilated):
                merges[i] = _matrix(operation.pointwise) @ merges[i]
                conv = operation.depthwise
                self.operations.append(Filters(conv.weight, dilation=conv.dilation[0]))
            else:
                self.operations.append(_Average())
        self._keep("merges", torch.stack(merges), dtype)
        operations = list(self.operations)
        separable = cast("list[_FusedSeparable]", operations[:4])
        self._keep("inner", torch.stack([part.matrix.t() for part in separable]), dtype)
        filters = [part.first for part in separable[1:]] + [part.last for part in separable[1:]]
        taps = [cast(Filters, part).taps.flatten(0, 1) for part in (*filters, *operations[4:7])]
        self._keep("taps", torch.cat([*taps, torch.ones_like(taps[0][:9])]), dtype)

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
                total = _project(operation(pixels, seen, rows), matrix, total)
            assert total is not None
            strip = images, rows.in_image
            torch.add(total.relu_(), state[strip], out=result[strip])
        return result


def _diagonal(conv: nn.Conv2d) -> Tensor:
    """Return a depthwise convolution of size 1 as a matrix."""
    return conv.weight.flatten().double().diag()


class _FusedSeparable(_Folded):
    """`Separable` up to its last 1x1 convolution."""

    matrix: Tensor
    first: Filters | None
    last: Filters | None

    def __init__(self, operation: Separable) -> None:
        super().__init__()
        dtype = operation.pointwise1.weight.dtype
        matrix = _matrix(operation.pointwise1)
        pointwise = operation.depthwise1.kernel_size == (1, 1)
        if pointwise:
            matrix = _diagonal(operation.depthwise1) @ matrix
        self._keep("matrix", matrix.t(), dtype)
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
