"""The kernels as functions that torch can differentiate, each with a PyTorch twin.

Maps are pixels (B, H, W, C) in any floating type that `dispatch.fits`; parameters may have another
one (with autocast: float32), and their gradients have theirs. What a kernel's gradient needs is
saved as autograd saves it, so that activations can be computed again (checkpointing).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rainmer.kernels import dispatch

__all__ = ["ChannelNorms", "Filters", "PairSums", "channel_norm", "filters", "normed", "pair_sums"]

_ROWS = torch.contiguous_format


class _Operation(Protocol):
    """What is computed, with its options; inputs are the maps, then the parameters."""

    @property
    def relu(self) -> bool:
        """Whether the results went through a ReLU, so that their gradients need them."""

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the results by kernels."""

    def gradients(
        self, inputs: Sequence[Tensor], results: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """Compute the gradients of all inputs by kernels."""

    def twin(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the results by torch."""


class _Kernels(torch.autograd.Function):
    """An operation by kernels, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's, to be given attributes)
        operation: _Operation,
        *inputs: Tensor,
    ) -> tuple[Tensor, ...]:
        """Compute the results and keep what the gradients need."""
        results = operation.run(inputs)
        ctx.operation, ctx.count = operation, len(inputs)
        ctx.save_for_backward(*inputs, *(results if operation.relu else ()))
        return results

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 (see above)
        *grads: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """Compute the gradients, by the twin if a kernel fails."""
        operation: _Operation = ctx.operation
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        inputs, results = saved[: ctx.count], saved[ctx.count :]
        found = dispatch._choose(
            grads[0],
            lambda: operation.gradients(inputs, results, [_side_by_side(grad) for grad in grads]),
            lambda: _gradients_of_twin(operation, inputs, grads),
        )
        return None, *(grad.to(own.dtype) for grad, own in zip(found, inputs, strict=True))


def _apply(operation: _Operation, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return dispatch._choose(
        inputs[0],
        lambda: cast("tuple[Tensor, ...]", _Kernels.apply(operation, *inputs)),
        lambda: operation.twin(inputs),
    )


def _gradients_of_twin(
    operation: _Operation, inputs: Sequence[Tensor], grads: Sequence[Tensor]
) -> Sequence[Tensor]:
    own = [tensor.detach().requires_grad_() for tensor in inputs]
    with torch.enable_grad():
        return torch.autograd.grad(operation.twin(own), own, list(grads))


def _side_by_side(pixels: Tensor) -> Tensor:
    """Return pixels whose channels are neighbours in memory, as the kernels read them."""
    return pixels if pixels.stride(-1) == 1 else pixels.contiguous()


@dataclass(frozen=True)
class ChannelNorms:
    """Norm over the channels; inputs: pixels, gain (C,), and shift (C,) if they are centred."""

    epsilon: float
    relu: bool = False

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `_Operation`."""
        from rainmer.kernels import norm

        pixels, gain, *shift = inputs
        return (norm.channel_norm(pixels, gain, shift[0] if shift else None, self.epsilon),)

    def gradients(
        self, inputs: Sequence[Tensor], results: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """See `_Operation`."""
        from rainmer.kernels import gradients

        pixels, gain, *shift = inputs
        found = gradients.norm_gradients(pixels, gain, grads[0], self.epsilon, centred=bool(shift))
        return found[: len(inputs)]

    def twin(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `_Operation`."""
        pixels, gain, *shift = inputs
        return (normed(pixels, gain, shift[0] if shift else None, self.epsilon),)


@dataclass(frozen=True)
class Filters:
    """Depthwise filters, one after the other on the same pixels.

    Inputs: pixels, filters (k, k, C), and biases (C,) of each if there are any.
    """

    dilations: Sequence[int]
    relu: bool

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `_Operation`."""
        from rainmer.kernels import filters

        pixels = _side_by_side(inputs[0])
        return tuple(
            filters.depthwise(pixels, taps, bias, dilation=dilation, relu=self.relu)
            for taps, bias, dilation in self._each(inputs)
        )

    def gradients(
        self, inputs: Sequence[Tensor], results: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """See `_Operation`."""
        from rainmer.kernels import gradients

        pixels = _side_by_side(inputs[0])
        out = torch.empty_like(pixels, memory_format=_ROWS)
        if self.relu:
            grads = [_after_relu(*both) for both in zip(grads, results, strict=True)]
        taps_found, biases_found = [], []
        for i, ((taps, bias, dilation), grad) in enumerate(
            zip(self._each(inputs), grads, strict=True)
        ):
            gradients.spread(grad, taps, out, dilation=dilation, added=i > 0)
            taps_found.append(
                gradients.tap_gradients(pixels, grad, side=taps.shape[0], dilation=dilation)
            )
            biases_found += [] if bias is None else [_summed(grad)]
        return out, *taps_found, *biases_found

    def twin(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `_Operation`."""
        found = [
            _filtered(inputs[0], taps, bias, dilation)
            for taps, bias, dilation in self._each(inputs)
        ]
        return tuple(result.relu() for result in found) if self.relu else tuple(found)

    def _each(self, inputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor | None, int]]:
        count = len(self.dilations)
        taps = inputs[1 : 1 + count]
        biases: Sequence[Tensor | None] = inputs[1 + count :] or [None] * count
        return list(zip(taps, biases, self.dilations, strict=True))


def _after_relu(grad: Tensor, result: Tensor) -> Tensor:
    """Return the gradient before a ReLU."""
    passed: Tensor = torch.ops.aten.threshold_backward(grad, result, 0)
    return _side_by_side(passed)


def _summed(grad: Tensor) -> Tensor:
    return grad.sum((0, 1, 2), dtype=torch.float32)


class _Quarter(NamedTuple):
    """The filters of one map that go into one result of `PairSums`."""

    pixels: Tensor  # B, H, W, N: a half of the map
    taps: Tensor  # k, k, N
    bias: Tensor | None  # D
    source: int
    part: slice  # the half within the map
    sums: slice  # where the sums lie in the results


@dataclass(frozen=True)
class PairSums:
    """Filters of pairs of channels, added up, then the ReLU; the halves of two maps change places.

    A map has two halves of N channels: the first one goes into the first result, the second one
    into the second. In a half channels j and D + j are a pair, for D = N / 2. A result holds the D
    sums of the first map and then those of the second; the two results lie side by side.

    Inputs: two maps (B, H, W, 2 N); filters (k, k, 2 N) of each result, the first N for its half of
    the first map; and biases (N,) of each result if there are any.
    """

    relu: bool = True

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `_Operation`."""
        from rainmer.kernels import filters

        out = torch.empty_like(inputs[0], memory_format=_ROWS)
        for quarter in _quarters(inputs):
            pixels, taps, bias, *_ = quarter
            second = taps.shape[-1] // 2
            into = out[..., quarter.sums]
            filters.pair_sums(pixels, taps, bias, into, first=0, second=second, relu=True)
        return (out,)

    def gradients(
        self, inputs: Sequence[Tensor], results: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """See `_Operation`."""
        from rainmer.kernels import gradients

        maps = [torch.empty_like(pixels, memory_format=_ROWS) for pixels in inputs[:2]]
        grad = _after_relu(grads[0], results[0])
        found = []
        for pixels, taps, _, source, part, sums in _quarters(inputs):
            second, own = taps.shape[-1] // 2, grad[..., sums]
            gradients.spread(own, taps, maps[source][..., part], second=second, added=False)
            found.append(gradients.tap_gradients(pixels, own, side=taps.shape[0], second=second))
        pairs = [torch.cat(found[i : i + 2], -1) for i in (0, 2)]
        biases = _summed(grad).chunk(2) if len(inputs) > 4 else ()
        return *maps, *pairs, *biases

    def twin(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `_Operation`."""
        sums = []
        for quarter in _quarters(inputs):
            first, second = _filtered(quarter.pixels, quarter.taps, None, 1).chunk(2, -1)
            bias = quarter.bias
            total = first + second if bias is None else first + second + bias.to(first.dtype)
            sums.append(total.relu())
        return (torch.cat(sums, -1),)


def _quarters(inputs: Sequence[Tensor]) -> list[_Quarter]:
    """Return what `PairSums` filters, in the order of the sums."""
    width = inputs[2].shape[-1] // 2
    found = []
    for result, source in itertools.product(range(2), repeat=2):
        part = slice(result * width, (result + 1) * width)
        own = slice(source * width // 2, (source + 1) * width // 2)  # among the sums of a result
        found.append(
            _Quarter(
                _side_by_side(inputs[source])[..., part],
                inputs[2 + result][..., source * width : (source + 1) * width],
                inputs[4 + result][own] if len(inputs) > 4 else None,
                source,
                part,
                slice(result * width + own.start, result * width + own.stop),
            )
        )
    return found


def _filtered(pixels: Tensor, taps: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Filter pixels by torch, with zeros around them."""
    side, _, count = taps.shape
    out = F.conv2d(
        pixels.permute(0, 3, 1, 2),
        taps.to(pixels.dtype).permute(2, 0, 1).unsqueeze(1),
        None if bias is None else bias.to(pixels.dtype),
        padding=dilation * (side // 2),
        dilation=dilation,
        groups=count,
    )
    return out.permute(0, 2, 3, 1)


def normed(pixels: Tensor, gain: Tensor, shift: Tensor | None, epsilon: float) -> Tensor:
    """Normalise the channels of each pixel by torch, in float32 or float64."""
    exact = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
    gain = gain.to(exact.dtype)
    if shift is not None:
        found = F.layer_norm(exact, gain.shape, gain, shift.to(exact.dtype), epsilon)
    else:
        variance = exact.var(-1, correction=0, keepdim=True)
        found = exact * torch.rsqrt(variance + epsilon) * gain
    return found.to(pixels.dtype)


def channel_norm(pixels: Tensor, gain: Tensor, shift: Tensor | None, epsilon: float) -> Tensor:
    """Normalise the channels of each pixel; see `ChannelNorms`."""
    inputs = [pixels, gain] if shift is None else [pixels, gain, shift]
    return _apply(ChannelNorms(epsilon), inputs)[0]


def filters(
    pixels: Tensor,
    taps: Sequence[Tensor],
    biases: Sequence[Tensor] = (),
    *,
    dilations: Sequence[int] | None = None,
    relu: bool = False,
) -> tuple[Tensor, ...]:
    """Filter pixels by each of several depthwise filters; see `Filters`."""
    dilations = tuple(dilations or [1] * len(taps))
    return _apply(Filters(dilations, relu), [pixels, *taps, *biases])


def pair_sums(
    first: Tensor, second: Tensor, taps: Sequence[Tensor], biases: Sequence[Tensor] = ()
) -> Tensor:
    """Filter and add up pairs of channels of two maps; see `PairSums`."""
    return _apply(PairSums(), [first, second, *taps, *biases])[0]
