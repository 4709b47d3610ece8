"""Bilinear resizing of 8-bit frames on any device, equal bit for bit to OpenCV's.

Detectors are trained and evaluated on images resized by OpenCV's `INTER_LINEAR`. Resizing a frame
that is on the GPU already saves two transfers, but rounding differently would change the
detector's numbers. This follows OpenCV's fixed-point arithmetic: weights of 11 bits, rows first,
then columns, the same intermediate shifts.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

__all__ = ["bilinear_taps", "resize_bilinear"]

_ONE = 1 << 11


def resize_bilinear(batch: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize a uint8 batch exactly as `cv2.resize(..., interpolation=cv2.INTER_LINEAR)` does.

    Args:
        batch: (B, C, H, W), uint8.
        size_hw: Target (height, width).

    Returns:
        (B, C, height, width), uint8, on the same device.

    Raises:
        ValueError: The batch is not uint8 of four dimensions, or a target side is below 1.

    Example:
        >>> resize_bilinear(torch.tensor([[[[0, 100]]]], dtype=torch.uint8), (1, 4)).flatten()
        tensor([  0,  25,  75, 100], dtype=torch.uint8)
    """
    if batch.ndim != 4 or batch.dtype != torch.uint8:
        raise ValueError(f"expected uint8 (B, C, H, W), but got {batch.dtype} {tuple(batch.shape)}")
    if min(size_hw) < 1:
        raise ValueError(f"expected a target of at least 1 x 1, but got {size_hw}")
    height, width = batch.shape[-2:]
    if (height, width) == tuple(size_hw):
        return batch
    if (height, width) == (2 * size_hw[0], 2 * size_hw[1]):
        return _halve(batch)
    taps, weights = _taps(width, size_hw[1], batch.device)
    # Only columns are held at the border by a zero weight; rows are held by repeating the row.
    inside = (taps[0] >= 0) & (taps[0] < width - 1)
    weights = torch.stack([weights[0].where(inside, _ONE), weights[1].where(inside, 0)])
    taps = taps.clamp(0, width - 1)
    # Gathered as bytes, widened after: the frame itself is never copied as integers.
    left, right = (batch[..., tap].to(torch.int32) for tap in taps)
    rows = (left * weights[0] + right * weights[1]) >> 4
    taps, weights = _taps(height, size_hw[0], batch.device)
    taps = taps.clamp(0, height - 1)
    upper = (rows[..., taps[0], :] * weights[0, :, None]) >> 16
    lower = (rows[..., taps[1], :] * weights[1, :, None]) >> 16
    return ((upper + lower + 2) >> 2).to(torch.uint8)


def _taps(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the two source positions of each target position, and their integer weights."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        # A CUDA graph would go on reading what the cache has dropped: it computes them itself.
        return bilinear_taps(source, target, device)
    return _kept_taps(source, target, device)


# Kept per size: building them for every frame would cost two small uploads each time.
@functools.lru_cache(maxsize=64)
def _kept_taps(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    # On the CPU where the device may lack double precision. CUDA loads the kernels for graphs here.
    builder = device if device.type == "cuda" else torch.device("cpu")
    taps, weights = bilinear_taps(source, target, builder)
    return taps.to(device), weights.to(device)


def bilinear_taps(
    source: int | Tensor, target: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `resize_bilinear` reads along an axis.

    Args:
        source: Length of the axis in pixels; in graphs for exporters a float64 tensor ().
        target: Length to resize to.
        device: Device of the result.

    Returns:
        The two source positions of each target position (2, target), int64, from -1 to the length;
        and their weights of 11 bits, int32.
    """
    # The order of roundings is OpenCV's: double for the position, float for its fraction.
    scale = 1.0 / (target / source)
    pixels = torch.arange(target, dtype=torch.float64, device=device)
    position = ((pixels + 0.5) * scale - 0.5).float()
    first = position.floor()
    fraction = position - first
    weights = (torch.stack([1.0 - fraction, fraction]) * _ONE).round().to(torch.int32)
    taps = torch.stack([first, first + 1]).long()
    return taps, weights


def _halve(batch: Tensor) -> Tensor:
    """Average 2 x 2 blocks, as OpenCV does when both sides shrink by exactly two."""
    blocks = batch.to(torch.int32)
    blocks = blocks[..., 0::2, :] + blocks[..., 1::2, :]
    return ((blocks[..., 0::2] + blocks[..., 1::2] + 2) >> 2).to(torch.uint8)
