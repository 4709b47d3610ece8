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
# With more horizontal padding, oneDNN falls back to a slow depthwise kernel on CPUs with AVX2.
_WIDEST_PADDING = 4
_SEPARABLE_KERNELS = (1, 3, 5, 7)
_DILATED_KERNELS = (3, 5, 7)


def conv3x3(channels_in: int, channels_out: int, *, bias: bool) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)


def channel_conv(channels_in: int, channels_out: int, *, bias: bool) -> nn.Conv2d:
    """Make a 1x1 convolution: the same linear map of the channels at every pixel."""
    return nn.Conv2d(channels_in, channels_out, 1, bias=bias)


def depthwise_conv(
    channels: int, kernel: int, *, dilation: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Make a convolution with one k x k filter per channel that keeps the size (odd k)."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(
        channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=bias
    )


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: int = 1,
    pad_rows: bool = True,
) -> Tensor:
    """Convolve every channel of (B, C, H, W) with its own filter (C, 1, k, k), keeping the size.

    With `pad_rows=False` the result lacks `dilation * (k // 2)` rows at the top and the bottom.
    """
    padding = dilation * (weight.shape[-1] // 2)
    on_cpu = x.device.type == "cpu"
    beyond = max(padding - _WIDEST_PADDING, 0) if on_cpu else 0
    if on_cpu and torch.is_grad_enabled() and pad_rows and bias is None:
        slow = beyond and _divides(x, dilation)
        if slow or (dilation > 1 and _in_bfloat16(x)):
            return _depthwise_by_phases(x, weight, dilation)
    if beyond:
        x = F.pad(x, (beyond, beyond))
    return F.conv2d(
        x,
        weight,
        bias,
        padding=(padding if pad_rows else 0, padding - beyond),
        dilation=dilation,
        groups=len(weight),
    )


def _divides(x: Tensor, dilation: int) -> bool:
    return x.shape[2] % dilation == 0 and x.shape[3] % dilation == 0


def _in_bfloat16(x: Tensor) -> bool:
    """Whether a convolution of x runs in bfloat16 on the CPU.

    There oneDNN's gradient of dilated depthwise weights is wrong on CPUs with AVX512-BF16: it holds
    memory that was never written (docs/training.md).
    """
    autocast = torch.is_autocast_enabled("cpu")
    return (torch.get_autocast_dtype("cpu") if autocast else x.dtype) == torch.bfloat16


def _depthwise_by_phases(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Convolve with dilation n as n * n undilated convolutions, each of every n-th pixel.

    The sums are the same, and CPUs have a fast kernel for the gradients too, and a right one in
    bfloat16.
    """
    if not _divides(x, dilation):
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % dilation, 0, -height % dilation))
        return _depthwise_by_phases(padded, weight, dilation)[:, :, :height, :width]
    batch, channels, height, width = x.shape
    rows, columns = height // dilation, width // dilation
    pixels = x.permute(0, 2, 3, 1).reshape(batch, rows, dilation, columns, dilation, channels)
    # (B, h, n, w, n, C) to (n * n * B, h, w, C): one map for each offset.
    phases = pixels.permute(2, 4, 0, 1, 3, 5).reshape(-1, rows, columns, channels)
    filtered = F.conv2d(
        phases.permute(0, 3, 1, 2), weight, padding=weight.shape[-1] // 2, groups=channels
    ).permute(0, 2, 3, 1)
    filtered = filtered.reshape(dilation, dilation, batch, rows, columns, channels)
    # (n, n, B, h, w, C) back to (B, h, n, w, n, C), then (B, H, W, C).
    pixels = filtered.permute(2, 3, 0, 4, 1, 5).reshape(batch, height, width, channels)
    return pixels.permute(0, 3, 1, 2)  # B, C, H, W


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
        pixels = float32_at_least(x.permute(0, 2, 3, 1))  # B, H, W, C
        weight = self.weight.to(pixels.dtype)
        if self.bias is not None:
            bias = self.bias.to(pixels.dtype)
            normed = F.layer_norm(pixels, weight.shape, weight, bias, NORM_EPSILON)
        else:
            variance = pixels.var(-1, correction=0, keepdim=True)
            normed = pixels * torch.rsqrt(variance + NORM_EPSILON) * weight
        return normed.to(x.dtype).permute(0, 3, 1, 2)  # B, C, H, W


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
        expanded = self.expand(x)
        fine1, fine2 = self.depthwise3(expanded).relu_().chunk(2, dim=1)
        coarse1, coarse2 = self.depthwise5(expanded).relu_().chunk(2, dim=1)
        mixed3 = _convolve_pairs(self.pair3, torch.cat((fine1, coarse1), dim=1)).relu_()
        mixed5 = _convolve_pairs(self.pair5, torch.cat((fine2, coarse2), dim=1)).relu_()
        return cast(Tensor, self.reduce(torch.cat((mixed3, mixed5), dim=1)))


def _pair_conv(channels: int, kernel: int, *, bias: bool) -> nn.Conv2d:
    """Make a convolution whose output channel j sees the input channels 2j and 2j + 1."""
    return nn.Conv2d(
        2 * channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias
    )


def _convolve_pairs(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Run a pair convolution as a depthwise one and a sum: backends run these faster."""
    weight = conv.weight.flatten(0, 1).unsqueeze(1)  # 2C, 1, k, k
    products = F.conv2d(x, weight, padding=conv.padding, groups=len(weight))
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
        state = self.entry(x).relu_()
        for step, step_weights in zip(self.steps, weights.unbind(1), strict=True):
            state = step(state, step_weights)
        return cast(Tensor, state)


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
        branches = torch.cat([operation(state) for operation in self.operations], dim=1)
        # The weights scale the merging matrix, which is far smaller than the branches.
        merge = self.merge.weight.view(state.shape[1], self.operation_count, -1)  # C, 8, C
        scaled = (merge * weights[:, None, :, None]).flatten(2)  # B, C, 8C
        # The published step has another ReLU around the sum, but the sum cannot be negative.
        return per_image_projection(branches, scaled).relu() + state


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
