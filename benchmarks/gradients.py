"""What `benchmarks.gpu` times of the kernels of training: layers, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.kernels import KernelCase
from rainmer.models.layers import (
    ChannelNorm,
    FeatureCompensator,
    MixedScaleFeedForward,
    channel_conv,
    depthwise_conv,
)

__all__ = ["gradient_cases"]


def gradient_cases(
    device: torch.device, batch: int, side: int, dtype: torch.dtype
) -> Iterator[KernelCase]:
    """Yield the cases for maps of crops of a side, at widths of `rainmer-s`.

    Bytes are those of maps that are read or written once, without those of parameters.
    """

    def make(name: str, channels: int, maps: float, layer: nn.Module) -> KernelCase:
        layer.to(device)
        x = torch.rand(batch, side, side, channels, device=device).to(dtype).permute(0, 3, 1, 2)
        inputs = [x.requires_grad_(), *layer.parameters()]

        def call() -> object:
            # As a step does: parameters in float32, and maps in the type of autocast.
            with torch.inference_mode(False), torch.enable_grad():
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    result = layer(x)
                return torch.autograd.grad(result, inputs, result.detach())

        moved = int(maps * x.numel() * x.element_size())
        return KernelCase(f"{name}, with gradients", (batch, side, side, channels), moved, call)

    yield make("feed-forward", 16, 154, MixedScaleFeedForward(16, 2.0))
    yield make("mixture", 16, 179, FeatureCompensator(16, 1))
    yield make("filter 3x3", 96, 6, depthwise_conv(96, 3))
    yield make("filter 5x5", 64, 6, depthwise_conv(64, 5))
    yield make("filter 7x7, dilated", 16, 6, depthwise_conv(16, 7, dilation=2))
    yield make("norm", 32, 5, ChannelNorm(32))
    yield make("product, C to 3 C", 32, 12, channel_conv(32, 96, bias=False))
