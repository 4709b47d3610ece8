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

__all__ = ["linear", "over_pixels"]

_TILE = 128  # a matrix product computes such a square of its result at a time
_BLOCKS = 256  # squares that keep a large GPU busy
_LEAST_PIXELS = 512  # of a part, for the gradient of a matrix


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
            over_pixels(grad.flatten(0, 2)[None], pixels.flatten(0, 2)[None], least=_LEAST_PIXELS)[
                0
            ].to(matrix_type),
            None if summed is None else summed.to(bias_type),
        )


def over_pixels(a: Tensor, b: Tensor, *, least: int) -> Tensor:
    """Multiply (B, N, D) with (B, N, C) over the pixels: (B, D, C), float32.

    The pixels are cut into parts, for otherwise a GPU would work on B small results only; the parts
    are views where the pixels lie side by side, and are summed in float32.

    Args:
        a: (B, N, D).
        b: (B, N, C).
        least: Fewest pixels of a part: below it the partial results weigh more than the pixels.
    """
    batch, count, rows = a.shape
    columns = b.shape[2]
    tiles = batch * -(-rows // _TILE) * -(-columns // _TILE)
    most = max(1, min(count // least, _BLOCKS // tiles))
    parts = next(n for n in range(most, 0, -1) if count % n == 0)
    cut_a, cut_b = (part.reshape(batch * parts, -1, part.shape[2]) for part in (a, b))
    found = _multiply(cut_a.transpose(1, 2), cut_b)
    return found.view(batch, parts, rows, columns).sum(1)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Multiply batches of matrices with sums and results in float32."""
    if a.dtype == torch.float32 or a.device.type == "cpu":  # no float32 results of others there
        return torch.bmm(a.float(), b.float())
    return torch.bmm(a, b, out_dtype=torch.float32)
