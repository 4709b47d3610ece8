"""Products of pixels with a matrix by cuBLAS, with a gradient of the matrix in float32.

That gradient is a product over all pixels, with a result of a few thousand values: it is cut into
parts of the pixels, or else few multiprocessors would work on it, and added up in float32. torch's
own is rounded to the type of the pixels, and may have sums of parts that are.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["linear"]

_TILE = 128  # a matrix product computes such a square of its result at a time
_BLOCKS = 256  # squares that keep a large GPU busy
_LEAST_PIXELS = 512  # of a part: below it the partial results weigh more than the pixels


def linear(pixels: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply pixels by a matrix, as `torch.nn.functional.linear` does.

    Bytes: C + D (read, written), and for the gradients 2 (C + D): each of the two products reads
    one map of either width, or writes it. cuDNN's 1x1 convolution: the same.

    Args:
        pixels: (B, H, W, C); their type is that of the product.
        matrix: (D, C), of any type, which its gradient has.
        bias: (D,), likewise.

    Returns:
        (B, H, W, D).
    """
    if torch.is_grad_enabled():
        return cast(Tensor, _Linear.apply(pixels, matrix, bias))
    return F.linear(
        pixels, matrix.to(pixels.dtype), None if bias is None else bias.to(pixels.dtype)
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's, to be given attributes)
        pixels: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        own = matrix.to(pixels.dtype)
        ctx.save_for_backward(pixels, own)
        ctx.types = matrix.dtype, None if bias is None else bias.dtype
        with torch.autocast(pixels.device.type, enabled=False):
            return F.linear(pixels, own, None if bias is None else bias.to(pixels.dtype))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 (see above)
        grad: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        pixels, matrix = ctx.saved_tensors
        matrix_type, bias_type = ctx.types
        summed = None if bias_type is None else grad.sum((0, 1, 2), dtype=torch.float32)
        return (
            grad @ matrix,
            _over_pixels(grad.flatten(0, 2), pixels.flatten(0, 2)).to(matrix_type),
            None if summed is None else summed.to(bias_type),
        )


def _over_pixels(grad: Tensor, pixels: Tensor) -> Tensor:
    """Multiply (N, D) with (N, C) over the pixels: (D, C), float32."""
    tiles = -(-grad.shape[1] // _TILE) * -(-pixels.shape[1] // _TILE)
    most = max(1, min(len(grad) // _LEAST_PIXELS, _BLOCKS // tiles))
    parts = next(n for n in range(most, 0, -1) if len(grad) % n == 0)
    rows = grad.reshape(parts, -1, grad.shape[1])
    return _multiply(rows.transpose(1, 2), pixels.reshape(parts, -1, pixels.shape[1])).sum(0)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Multiply batches of matrices with sums and results in float32."""
    if a.dtype == torch.float32 or not a.is_cuda:
        return torch.bmm(a.float(), b.float())
    return torch.bmm(a, b, out_dtype=torch.float32)
