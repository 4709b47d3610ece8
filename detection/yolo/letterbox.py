"""Letterboxing of uint8 batches on any device, equal bit for bit to ultralytics' on the CPU.

Resizing and padding with OpenCV would cost two transfers for a frame that is on the GPU already.
This module does not need ultralytics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rainmer.frames.resize import resize_bilinear

__all__ = ["PAD_VALUE", "Placement", "letterbox", "place"]

PAD_VALUE = 114
"""The grey that ultralytics pads with, 0..255."""


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the detector's input.

    Attributes:
        size_hw: (height, width) of the resized frame.
        top: Rows of padding above it.
        left: Columns of padding left of it.
        canvas_hw: (height, width) of the whole input.
    """

    size_hw: tuple[int, int]
    top: int
    left: int
    canvas_hw: tuple[int, int]

    @property
    def content(self) -> tuple[slice, slice]:
        """Rows and columns of the frame in the input, without the padding."""
        height, width = self.size_hw
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def place(
    frame_hw: tuple[int, int],
    target_hw: tuple[int, int],
    *,
    auto: bool = False,
    stretch: bool = False,
    scaleup: bool = True,
    center: bool = True,
    stride: int = 32,
) -> Placement:
    """Compute where ultralytics' letterbox places a frame.

    Args:
        frame_hw: (height, width) of the frame.
        target_hw: (height, width) to fit it into.
        auto: Pad only up to the next multiple of `stride` (ultralytics' `rect`).
        stretch: Fill the target without keeping the aspect ratio (RT-DETR); `auto` wins over it.
        scaleup: Whether to enlarge frames smaller than the target.
        center: Pad on both sides, not only below and on the right.
        stride: The detector's stride in pixels.

    Example:
        >>> place((720, 1280), (640, 640), auto=True)
        Placement(size_hw=(360, 640), top=12, left=0, canvas_hw=(384, 640))
    """
    scale = min(target_hw[0] / frame_hw[0], target_hw[1] / frame_hw[1])
    if not scaleup:
        scale = min(scale, 1.0)
    size_hw = (max(round(frame_hw[0] * scale), 1), max(round(frame_hw[1] * scale), 1))
    if stretch and not auto:
        return Placement(target_hw, 0, 0, target_hw)
    top, bottom = _paddings(target_hw[0] - size_hw[0], stride if auto else None, center)
    left, right = _paddings(target_hw[1] - size_hw[1], stride if auto else None, center)
    return Placement(size_hw, top, left, (size_hw[0] + top + bottom, size_hw[1] + left + right))


def _paddings(space: int, stride: int | None, center: bool) -> tuple[int, int]:
    """Split `space` pixels of padding into before and after."""
    space = space % stride if stride else space
    if not center:
        return 0, space
    # An odd pixel goes below or to the right.
    return space // 2, space - space // 2


def letterbox(batch: Tensor, placement: Placement) -> Tensor:
    """Resize and pad frames of one size.

    Args:
        batch: (B, C, H, W), uint8.
        placement: From `place`, for frames of this size.

    Returns:
        (B, C, *placement.canvas_hw), uint8, on the same device.
    """
    resized = resize_bilinear(batch, placement.size_hw)
    if placement.size_hw == placement.canvas_hw:
        return resized
    canvas = torch.full(
        (*batch.shape[:2], *placement.canvas_hw), PAD_VALUE, dtype=torch.uint8, device=batch.device
    )
    rows, columns = placement.content
    canvas[:, :, rows, columns] = resized
    return canvas
