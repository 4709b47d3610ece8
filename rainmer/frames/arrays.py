"""All conversions between uint8 arrays and float tensors.

Inside the toolkit a batch of frames is a float tensor (B, 3, H, W), RGB, values 0..1. At the edges
a frame is a uint8 array (H, W, 3), RGB. BGR exists only in calls of OpenCV and ultralytics, and is
converted here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rainmer.errors import ImageError

__all__ = [
    "Download",
    "Frame",
    "download",
    "quantize",
    "reverse_channels",
    "stack_in_order",
    "to_batch",
    "to_frames",
    "unit_range",
    "upload",
]

Frame = npt.NDArray[np.uint8]
"""One picture: uint8, (H, W, 3), RGB."""


def reverse_channels(image: Frame) -> Frame:
    """Turn RGB into BGR, or back: (H, W, 3) to a contiguous array of the same shape."""
    return cast(Frame, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def to_batch(frames: Sequence[Frame], device: torch.device | str = "cpu") -> Tensor:
    """Stack frames of one size into a float batch on a device.

    The uint8 values are uploaded and converted there: a quarter of the bytes of a float upload.

    Args:
        frames: Arrays (H, W, 3), uint8, RGB, all of the same size.
        device: Device of the batch.

    Returns:
        Float tensor (B, 3, H, W), RGB, 0..1, in channels-last memory order.

    Raises:
        ImageError: A frame is not (H, W, 3) uint8.
    """
    for frame in frames:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ImageError(
                f"expected a frame (H, W, 3) of uint8, but got {frame.shape} of {frame.dtype}"
            )
    return unit_range(upload(frames, device))


def upload(frames: Sequence[npt.NDArray[Any]], device: torch.device | str = "cpu") -> Tensor:
    """Stack arrays (H, W, C) of one size and type as (B, C, H, W) on a device, values untouched.

    The result is in channels-last memory order: nothing is moved on the device.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2)
    # Stacked into pinned memory, which the GPU copies while the CPU goes on.
    dtype = torch.from_numpy(np.empty(0, frames[0].dtype)).dtype
    pinned = torch.empty((len(frames), *frames[0].shape), dtype=dtype, pin_memory=True)
    # By numpy, on this thread: torch's team of threads waits for its slowest, and beside a thread
    # that decodes eight frames of 1280x720 took it 8 to 100 ms (two cores), and numpy 3.5 ms.
    for row, frame in zip(pinned.numpy(), frames, strict=True):
        np.copyto(row, frame)
    return pinned.to(device, non_blocking=True).permute(0, 3, 1, 2)


def stack_in_order(frames: Sequence[Tensor]) -> Tensor:
    """Stack uploaded frames (C, H, W) of one size as `upload` stacks arrays, channels last.

    A single one is not copied and keeps its memory order.
    """
    rows = [frame.permute(1, 2, 0) for frame in frames]
    return (rows[0][None] if len(rows) == 1 else torch.stack(rows)).permute(0, 3, 1, 2)


def download(batch: Tensor) -> list[npt.NDArray[Any]]:
    """Bring (B, C, H, W) of any type back as arrays (H, W, C), values untouched."""
    rows = batch.permute(0, 2, 3, 1).contiguous()
    if rows.device.type != "cuda":
        return list(rows.cpu().numpy())
    # By way of pinned memory, which is reused, to an array per frame: the system gives a large
    # array for all of them its memory page by page, which took 35 of 38 ms for eight 1080p frames.
    pinned = _to_pinned(rows)
    torch.cuda.current_stream(rows.device).synchronize()
    return [row.copy() for row in pinned.numpy()]


class Download:
    """A download in progress, on CUDA in parallel with whatever the GPU does next.

    Args:
        batch: (B, C, H, W) of any type. It may be deleted, but must not be written to until
            `frames` has been called.

    Example:
        >>> Download(torch.zeros(2, 3, 4, 6, dtype=torch.uint8)).frames()[1].shape
        (4, 6, 3)
    """

    def __init__(self, batch: Tensor) -> None:
        self._done: torch.cuda.Event | None = None
        if batch.device.type != "cuda":
            self._rows = batch.permute(0, 2, 3, 1).contiguous().cpu()
            return
        stream = _copy_stream(batch.device)
        stream.wait_stream(torch.cuda.current_stream(batch.device))
        with torch.cuda.stream(stream):
            rows = batch.permute(0, 2, 3, 1).contiguous()
            self._rows = _to_pinned(rows)
            self._done = stream.record_event()
        # Otherwise its memory could be reused for the next batch while it is still read.
        batch.record_stream(stream)

    def frames(self) -> list[npt.NDArray[Any]]:
        """Wait for the download and return arrays (H, W, C), values untouched."""
        if self._done is not None:
            self._done.synchronize()
        return list(self._rows.numpy())


def _to_pinned(rows: Tensor) -> Tensor:
    """Begin to copy from a GPU to pinned memory, on the current stream."""
    pinned = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    return pinned.copy_(rows, non_blocking=True)


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def unit_range(batch: Tensor) -> Tensor:
    """Turn uint8 levels into float32 of 0..1; floating-point values are only cast to float32."""
    return batch.float().div(255.0) if batch.dtype == torch.uint8 else batch.float()


def to_frames(batch: Tensor) -> list[Frame]:
    """Bring a float batch (B, 3, H, W), RGB, 0..1, back as uint8 frames (H, W, 3).

    Values are clamped and rounded on the batch's device, so a quarter of the bytes comes down.
    """
    return download(quantize(batch))


def quantize(batch: Tensor, *, truncate: bool = False) -> Tensor:
    """Round a float batch of range 0..1 to uint8 levels on its device (clamped, half to even).

    With `truncate` it rounds down, as NumPy's conversion does.
    """
    levels = batch.float().clamp(0.0, 1.0).mul(255.0)
    return (levels if truncate else levels.round_()).to(torch.uint8)
