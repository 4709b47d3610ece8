"""What the fused blocks share: products with pixels, norms within products, merged weights.

A map is pixels (B, H, W, C).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer import kernels
from rainmer.models.convolutions import maps_of
from rainmer.models.layers import NORM_EPSILON, ChannelNorm

__all__ = ["Folded", "Normed", "matrix_of", "norm_of", "pointwise", "project"]


def project(pixels: Tensor, matrices: Tensor, total: Tensor | None = None) -> Tensor:
    """Multiply the pixels (B, H, W, C) of each image by its matrix (B, C, D).

    The products are added in place to a contiguous `total` (B, H, W, D), if given.
    """
    flat = pixels.flatten(1, 2)  # B, HW, C
    if total is None:
        return torch.bmm(flat, matrices).view(*pixels.shape[:3], -1)
    total.flatten(1, 2).baddbmm_(flat, matrices)
    return total


def pointwise(pixels: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a 1x1 convolution to pixels (B, H, W, C): (B, H, W, D)."""
    return F.linear(pixels, conv.weight.flatten(1), conv.bias)


def norm_of(norm: ChannelNorm, pixels: Tensor) -> Tensor:
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
        self.pixels = pixels if self.within else norm_of(norm, pixels)

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
            twin=lambda: F.linear(norm_of(norm, pixels), matrix, bias),
        )


def matrix_of(conv: nn.Conv2d) -> Tensor:
    """Return the weights of a 1x1 convolution as a float64 matrix (in, out)."""
    return conv.weight.flatten(1).t().double()


class Folded(nn.Module):
    """A module without parameters, whose merged weights are buffers."""

    def keep(self, name: str, value: Tensor | None, dtype: torch.dtype) -> None:
        """Register a merged weight as a buffer; None where the layers have none."""
        self.register_buffer(name, None if value is None else value.detach().to(dtype).contiguous())
