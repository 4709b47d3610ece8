"""Convolutions of the networks, by `rainmer.kernels` where they take the maps.

Maps are (B, C, H, W) in any memory order; channels-last needs no copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer import kernels
from rainmer.kernels import training as trained
from rainmer.kernels.products import linear

__all__ = [
    "channel_conv",
    "conv3x3",
    "depthwise",
    "depthwise_conv",
    "maps_of",
    "pixels_for_kernels",
    "taps_of",
]

# With more horizontal padding, oneDNN falls back to a slow depthwise kernel on CPUs with AVX2.
_WIDEST_PADDING = 4


def conv3x3(channels_in: int, channels_out: int, *, bias: bool) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)


def channel_conv(channels_in: int, channels_out: int, *, bias: bool) -> nn.Conv2d:
    """Make a 1x1 convolution: the same linear map of the channels at every pixel."""
    return _ChannelConv(channels_in, channels_out, 1, bias=bias)


class _ChannelConv(nn.Conv2d):
    """A 1x1 convolution, where there are kernels a product of matrices."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = pixels_for_kernels(x)
        if pixels is None:
            return super().forward(x)
        return maps_of(linear(pixels, self.weight.flatten(1), self.bias))


def depthwise_conv(
    channels: int, kernel: int, *, dilation: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Make a convolution with one k x k filter per channel that keeps the size (odd k)."""
    padding = dilation * (kernel // 2)
    return _DepthwiseConv(
        channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=bias
    )


class _DepthwiseConv(nn.Conv2d):
    """A filter per channel, by kernels where there are."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = pixels_for_kernels(x)
        if pixels is None:
            return super().forward(x)
        return _by_kernels(pixels, self.weight, self.bias, int(self.dilation[0]))


def pixels_for_kernels(x: Tensor) -> Tensor | None:
    """Return maps (B, C, H, W) as pixels (B, H, W, C) of autocast's type if kernels take them."""
    if not kernels.fits(x):
        return None
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    return x.permute(0, 2, 3, 1)


def maps_of(pixels: Tensor) -> Tensor:
    """Return pixels (B, H, W, C) as maps (B, C, H, W)."""
    return pixels.permute(0, 3, 1, 2)


def taps_of(weight: Tensor) -> Tensor:
    """Return depthwise filters (C, 1, k, k) in the order of the kernels, (k, k, C)."""
    return weight[:, 0].permute(1, 2, 0).contiguous()


def _by_kernels(pixels: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    biases = [] if bias is None else [bias]
    return maps_of(trained.filters(pixels, [taps_of(weight)], biases, dilations=[dilation])[0])


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
    pixels = pixels_for_kernels(x) if pad_rows else None
    if pixels is not None:
        return _by_kernels(pixels, weight, bias, dilation)
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
