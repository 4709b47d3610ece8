"""Layers that the networks share: convolutions, norm, feed-forward, compensator.

Feature maps are (B, C, H, W). The layers give the same numbers in any memory order, but are written
for channels-last, where a map is a matrix of pixels by channels without a copy. Section numbers
refer to the model specification of Rainmer. Sparse attention (`rainmer.models.attention`),
feed-forward and compensator come from DRSformer (Chen et al., CVPR 2023).
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer import kernels
from rainmer.kernels import training as trained
from rainmer.kernels.products import linear
from rainmer.models.convolutions import (
    channel_conv,
    conv3x3,
    depthwise,
    depthwise_conv,
    maps_of,
    pixels_for_kernels,
    taps_of,
)

__all__ = [
    "COMPENSATOR_STEPS",
    "LEAKY_SLOPE",
    "NORM_EPSILON",
    "ChannelNorm",
    "CompensatorStep",
    "Dilated",
    "Downsample",
    "FeatureCompensator",
    "MixedScaleFeedForward",
    "Separable",
    "SqueezeResidual",
    "Upsample",
    "autocast_off",
    "channel_conv",
    "conv3x3",
    "depthwise",
    "depthwise_conv",
    "float32_at_least",
    "global_average",
    "per_image_projection",
]

LEAKY_SLOPE = 0.1
COMPENSATOR_STEPS = 4
"""Published number of steps of a feature compensator."""
NORM_EPSILON = 1e-5
"""Added to the variance by norms."""

_SQUEEZE_REDUCTION = 16
_SEPARABLE_KERNELS = (1, 3, 5, 7)
_DILATED_KERNELS = (3, 5, 7)


def global_average(x: Tensor) -> Tensor:
    """Average over the pixels: (B, C, H, W) to (B, C)."""
    return x.mean((2, 3))


def per_image_projection(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear map of the channels that differs from image to image.

    Args:
        x: Features (B, C, H, W).
        weight: Matrices (B, D, C).
        bias: Vector (D,), or None.

    Returns:
        Features (B, D, H, W), in channels-last memory order.
    """
    batch, _, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # B, HW, C: a view when channels are last
    projected = pixels @ weight.to(x.dtype).transpose(1, 2)
    if bias is not None:
        projected = projected + bias.to(projected.dtype)
    return projected.view(batch, height, width, -1).permute(0, 3, 1, 2)  # B, D, H, W


def float32_at_least(x: Tensor) -> Tensor:
    """Convert half-precision tensors to float32; float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def autocast_off(device: torch.device) -> AbstractContextManager[object]:
    """Keep matrix products in their own precision inside an autocast region."""
    if device.type == "meta":  # has no autocast to switch off
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, computed in float32 (section 2.1).

    With bias: `(x - mean) / sqrt(var + 1e-5) * weight + bias`. Without it the numerator is not
    centred either: `x / sqrt(var + 1e-5) * weight`; the mean is used in the variance only.

    Args:
        channels: Width of the features.
        bias: Whether to centre and shift.
    """

    bias: nn.Parameter | None

    def __init__(self, channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        if bias:
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); the result is in channels-last memory order."""
        norm = trained.channel_norm if kernels.fits(x) else trained.normed
        return maps_of(norm(x.permute(0, 2, 3, 1), self.weight, self.bias, NORM_EPSILON))


class MixedScaleFeedForward(nn.Module):
    """Feed-forward net with two kernel sizes that exchange halves (section 2.3).

    Args:
        channels: Width of the features.
        expansion: Hidden width as a multiple of `channels`, rounded down.
        bias: Whether the convolutions have biases.
    """

    def __init__(self, channels: int, expansion: float, *, bias: bool = False) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.expand = channel_conv(channels, 2 * hidden, bias=bias)
        self.depthwise3 = depthwise_conv(2 * hidden, 3, bias=bias)
        self.depthwise5 = depthwise_conv(2 * hidden, 5, bias=bias)
        self.pair3 = _pair_conv(hidden, 3, bias=bias)
        self.pair5 = _pair_conv(hidden, 5, bias=bias)
        self.reduce = channel_conv(2 * hidden, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        pixels = pixels_for_kernels(x)
        if pixels is not None and self.reduce.in_channels % 4 == 0:
            return self._by_kernels(pixels)
        expanded = self.expand(x)
        fine1, fine2 = _rectified(self.depthwise3(expanded)).chunk(2, dim=1)
        coarse1, coarse2 = _rectified(self.depthwise5(expanded)).chunk(2, dim=1)
        mixed3 = _convolve_pairs(self.pair3, torch.cat((fine1, coarse1), dim=1)).relu_()
        mixed5 = _convolve_pairs(self.pair5, torch.cat((fine2, coarse2), dim=1)).relu_()
        return cast(Tensor, self.reduce(torch.cat((mixed3, mixed5), dim=1)))

    def _by_kernels(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, H, W, C) to maps; the hidden width is even.

        The channels of a pair lie in two halves (`_apart`), so that nothing is concatenated. Bytes,
        for a hidden width of H: 14 H without the 1x1 convolutions, and 48 H for the gradients.
        torch: 46 H and 92 H.
        """
        convs = (self.depthwise3, self.depthwise5)
        pairs = (self.pair3, self.pair5)
        bias = self.expand.bias
        matrix = _apart(self.expand.weight.flatten(1))
        expanded = linear(pixels, matrix, None if bias is None else _apart(bias))
        fine, coarse = trained.filters(
            expanded,
            [_apart_taps(conv.weight) for conv in convs],
            [_apart(conv.bias) for conv in convs if conv.bias is not None],
            relu=True,
        )
        mixed = trained.pair_sums(
            fine,
            coarse,
            [_apart_taps(conv.weight) for conv in pairs],
            [conv.bias for conv in pairs if conv.bias is not None],
        )
        return maps_of(linear(mixed, self.reduce.weight.flatten(1), self.reduce.bias))


def _apart(values: Tensor) -> Tensor:
    """Put the even rows of each half of (2 H, ...) before the odd ones."""
    halves = values.reshape(2, -1, 2, *values.shape[1:])  # half, pair, place in the pair
    return halves.transpose(1, 2).flatten(0, 2)


def _apart_taps(weight: Tensor) -> Tensor:
    """Return depthwise or pair filters of 2 H channels so, as (k, k, 2 H)."""
    filters = weight.reshape(2, -1, 2, *weight.shape[2:])
    return filters.permute(3, 4, 0, 2, 1).flatten(2)


def _rectified(x: Tensor) -> Tensor:
    """Take the ReLU in place; not of what kernels gave, a view, which autograd would copy."""
    return x.relu() if kernels.fits(x) else x.relu_()


def _pair_conv(channels: int, kernel: int, *, bias: bool) -> nn.Conv2d:
    """Make a convolution whose output channel j sees the input channels 2j and 2j + 1."""
    return nn.Conv2d(
        2 * channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias
    )


def _convolve_pairs(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Run a pair convolution as a depthwise one and a sum: backends run these faster."""
    weight = conv.weight.flatten(0, 1).unsqueeze(1)  # 2C, 1, k, k
    products = depthwise(x, weight)
    summed = products[:, 0::2] + products[:, 1::2]
    return summed if conv.bias is None else summed + conv.bias[:, None, None]


class FeatureCompensator(nn.Module):
    """Mixture of eight operations in several steps, weighted per image (section 2.4, "MEFC").

    Args:
        channels: Width of the features.
        steps: How many steps.
    """

    def __init__(self, channels: int, steps: int = COMPENSATOR_STEPS) -> None:
        super().__init__()
        self.steps = nn.ModuleList(CompensatorStep(channels) for _ in range(steps))
        weights = steps * CompensatorStep.operation_count
        self.gate = nn.Sequential(
            nn.Linear(channels, 2 * weights), nn.ReLU(), nn.Linear(2 * weights, weights)
        )
        self.entry = channel_conv(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; the result is not negative."""
        gate = float32_at_least(self.gate(global_average(x)))
        weights = gate.view(x.shape[0], len(self.steps), -1).softmax(-1)
        state = _rectified(self.entry(x))
        for step, step_weights in zip(self.steps, weights.unbind(1), strict=True):
            state = step(state, step_weights)
        return state


class CompensatorStep(nn.Module):
    """One step: all operations on one state, weighted, merged and added to it."""

    operation_count = len(_SEPARABLE_KERNELS) + len(_DILATED_KERNELS) + 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(
            [
                *(Separable(channels, kernel) for kernel in _SEPARABLE_KERNELS),
                *(Dilated(channels, kernel) for kernel in _DILATED_KERNELS),
                # Padding does not count in the average.
                nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
            ]
        )
        self.merge = channel_conv(self.operation_count * channels, channels, bias=False)

    def forward(self, state: Tensor, weights: Tensor) -> Tensor:
        """Map a state (B, C, H, W) >= 0 and weights (B, 8) to the next state >= 0."""
        pixels = pixels_for_kernels(state)
        if pixels is not None:
            return self._by_kernels(pixels, weights)
        branches = torch.cat([operation(state) for operation in self.operations], dim=1)
        # The weights scale the merging matrix, which is far smaller than the branches.
        merge = self.merge.weight.view(state.shape[1], self.operation_count, -1)  # C, 8, C
        scaled = (merge * weights[:, None, :, None]).flatten(2)  # B, C, 8C
        # The published step has another ReLU around the sum, but the sum cannot be negative.
        return per_image_projection(branches, scaled).relu() + state

    def _by_kernels(self, pixels: Tensor, weights: Tensor) -> Tensor:
        """Step from pixels (B, H, W, C) to maps.

        Each operation ends in a matrix, which joins the merging one, and the filters of side 1 are
        factors of matrices. Bytes in maps: 66, and 101 for the gradients. torch: 84 and 147.
        """
        point, *wide = cast("list[Separable]", list(self.operations[: len(_SEPARABLE_KERNELS)]))
        dilated = cast("list[Dilated]", list(self.operations[len(_SEPARABLE_KERNELS) : -1]))
        filtered = trained.filters(
            pixels,
            [taps_of(o.depthwise1.weight) for o in wide]
            + [taps_of(o.depthwise.weight) for o in dilated],
            dilations=[1] * len(wide) + [int(o.depthwise.dilation[0]) for o in dilated],
        )
        branches = [linear(pixels, _matrix(point.pointwise1) * _factors(point.depthwise1)).relu_()]
        for separable, part in zip(wide, filtered[: len(wide)], strict=True):
            hidden = linear(part, _matrix(separable.pointwise1)).relu_()
            branches += trained.filters(hidden, [taps_of(separable.depthwise2.weight)])
        branches += filtered[len(wide) :]
        branches.append(self.operations[-1](maps_of(pixels)).permute(0, 2, 3, 1))
        joined = torch.cat(branches, dim=-1)
        merged = per_image_projection(maps_of(joined), self._merged(point, wide, dilated, weights))
        return merged.relu() + maps_of(pixels)

    def _merged(
        self, point: Separable, wide: list[Separable], dilated: list[Dilated], weights: Tensor
    ) -> Tensor:
        """Return the matrices (B, C, 8 C) that end the operations and merge them."""
        count = self.merge.out_channels
        inner = [_matrix(point.pointwise2) * _factors(point.depthwise2)]
        inner += [_matrix(operation.pointwise2) for operation in wide]
        inner += [_matrix(operation.pointwise) for operation in dilated]
        last = self.merge.weight.view(count, self.operation_count, count).transpose(0, 1)  # 8, C, C
        with autocast_off(weights.device):
            ends = torch.cat((last[:-1] @ torch.stack(inner), last[-1:]))
            scaled = weights[:, :, None, None] * ends  # B, 8, C out, C in
        return scaled.transpose(1, 2).flatten(2)


def _matrix(conv: nn.Conv2d) -> Tensor:
    return conv.weight.flatten(1)  # C out, C in


def _factors(conv: nn.Conv2d) -> Tensor:
    return conv.weight.flatten()  # of the channels that a filter of side 1 scales


class Separable(nn.Module):
    """Depthwise, 1x1, ReLU, depthwise, 1x1."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise1 = depthwise_conv(channels, kernel)
        self.pointwise1 = channel_conv(channels, channels, bias=False)
        self.depthwise2 = depthwise_conv(channels, kernel)
        self.pointwise2 = channel_conv(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        hidden = self.pointwise1(self.depthwise1(x)).relu_()
        return cast(Tensor, self.pointwise2(self.depthwise2(hidden)))


class Dilated(nn.Module):
    """Depthwise with dilation 2, 1x1."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = depthwise_conv(channels, kernel, dilation=2)
        self.pointwise = channel_conv(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        filtered = depthwise(x, self.depthwise.weight, dilation=self.depthwise.dilation[0])
        return cast(Tensor, self.pointwise(filtered))


class Downsample(nn.Module):
    """Halve both sides and double the channels: 3x3 convolution, then pixel-unshuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 2C, H/2, W/2)."""
        return F.pixel_unshuffle(self.conv(x), 2)


class Upsample(nn.Module):
    """Double both sides and halve the channels: 3x3 convolution, then pixel-shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C/2, 2H, 2W)."""
        return F.pixel_shuffle(self.conv(x), 2)


class SqueezeResidual(nn.Module):
    """Residual block with squeeze-and-excitation after both convolutions (section 2.6).

    Args:
        channels: Width of the features, at least 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels, bias=True)
        self.squeeze1 = _SqueezeExcitation(channels)
        self.conv2 = conv3x3(channels, channels, bias=True)
        self.squeeze2 = _SqueezeExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        hidden = F.leaky_relu(self.squeeze1(self.conv1(x)), LEAKY_SLOPE)
        return F.leaky_relu(self.squeeze2(self.conv2(hidden)) + x, LEAKY_SLOPE)


class _SqueezeExcitation(nn.Module):
    """Scale every channel by a gate computed from the averages of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels // _SQUEEZE_REDUCTION, bias=False)
        self.expand = nn.Linear(channels // _SQUEEZE_REDUCTION, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        gate: Tensor = self.expand(self.reduce(global_average(x)).relu()).sigmoid()
        return x * gate[:, :, None, None]
