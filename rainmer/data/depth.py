"""Depth maps in files, and estimates where there is no map."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rainmer.errors import DatasetError, ImageError
from rainmer.files import write_bytes

__all__ = [
    "Ground",
    "constant_depth",
    "find_depth",
    "fit_ground",
    "ground_depth",
    "read_depth",
    "write_depth",
]

_SUFFIXES = (".png", ".npy")

_NEAREST_M = 1.0
_PER_M = 100.0  # PNG files hold centimetres
_MOST_LEVELS = 65535
_GROUND_ROWS, _FEWEST_ROWS = 3, 4  # the lowest third of a frame, if it has that many rows
_GROUND_SHARE = 0.15  # of the farthest pixels of a row: what stands on the ground is nearer
_HEIGHTS_M = (0.2, 20.0)  # of cameras above the ground


def find_depth(folder: Path, name: str) -> Path:
    """Return the depth map of an image by its name without suffix.

    Raises:
        DatasetError: There is none.
    """
    for suffix in _SUFFIXES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    raise DatasetError(f"no depth map of {name} in {folder}: expected {name}.png or {name}.npy")


def read_depth(path: str | os.PathLike[str]) -> npt.NDArray[np.float32]:
    """Read a depth map (H, W), float32, metres.

    A PNG holds centimetres in 16 bits, 0 where depth is unknown (read as far away); a `.npy` file
    holds metres.

    Raises:
        ImageError: The file is missing, damaged, or of another kind.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read the depth map {file}: {error.strerror}") from error
    depth = _from_npy(content, file) if file.suffix == ".npy" else _from_png(content, file)
    if depth.ndim != 2 or depth.size == 0:
        raise ImageError(f"{file}: expected a depth map (H, W), but its shape is {depth.shape}")
    known = np.isfinite(depth) & (depth > 0)
    return np.where(known, depth, _MOST_LEVELS / _PER_M).astype(np.float32)


def _from_npy(content: bytes, file: Path) -> npt.NDArray[np.float32]:
    try:
        depth = np.load(io.BytesIO(content), allow_pickle=False)
        return np.asarray(depth, dtype=np.float32)
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise ImageError(f"{file} is no array of numbers: {error}") from error


def _from_png(content: bytes, file: Path) -> npt.NDArray[np.float32]:
    levels = (
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    )
    if levels is None or levels.dtype != np.uint16:
        raise ImageError(
            f"{file} is no depth map: expected a PNG of one 16-bit channel, centimetres"
        )
    return np.asarray(levels / _PER_M, dtype=np.float32)


def write_depth(path: str | os.PathLike[str], depth_m: npt.NDArray[np.float32]) -> None:
    """Write a depth map (H, W) in metres as a 16-bit PNG of centimetres, cut at 655.35 m.

    Raises:
        OutputError: The file cannot be written.
    """
    levels = np.rint(depth_m * _PER_M).clip(1, _MOST_LEVELS).astype(np.uint16)
    _, content = cv2.imencode(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    write_bytes(path, content.tobytes())


def ground_depth(
    size_hw: tuple[int, int],
    *,
    horizon: Tensor,
    camera_height_m: Tensor,
    focal_px: Tensor,
    far_m: Tensor,
) -> Tensor:
    """Estimate depth: a ground plane below the horizon, z = f h / (v - v0), and a far wall above.

    The two meet smoothly: inverse depths add up as the sides of a right triangle.

    Args:
        size_hw: (height, width) in pixels.
        horizon: Row of the horizon as a fraction of the height (B,).
        camera_height_m: Height of the camera above the ground (B,).
        focal_px: Focal length in pixels (B,).
        far_m: Depth of the wall, the largest depth (B,).

    Returns:
        Metres (B, 1, H, W).
    """
    height, width = size_hw
    rows = torch.arange(height, device=horizon.device) + 0.5
    below = (rows - height * horizon[:, None]).clamp_min(0.0)
    nearness = torch.hypot(below / (focal_px * camera_height_m)[:, None], 1.0 / far_m[:, None])
    depth = nearness.reciprocal().clamp_min(_NEAREST_M)
    return depth[:, None, :, None].expand(-1, 1, height, width)


class Ground(NamedTuple):
    """The ground plane in front of a level camera: tensors (B,)."""

    horizon: Tensor
    """Row of the horizon as a fraction of the height."""
    camera_height_m: Tensor
    """Height of the camera above the ground."""
    focal_px: Tensor


def fit_ground(depth_m: Tensor, guess: Ground) -> Ground:
    """Fit the ground plane to depth maps: on it, 1 / depth grows evenly with the row.

    Args:
        depth_m: (B, 1, H, W), metres.
        guess: Has the focal lengths, and is what is returned where a map shows no ground.
    """
    height, width = depth_m.shape[2:]
    count = height // _GROUND_ROWS
    if count < _FEWEST_ROWS:
        return guess
    nearness = depth_m[:, 0, -count:].reciprocal()
    lowest = nearness.kthvalue(1 + int(_GROUND_SHARE * (width - 1)), dim=2).values
    # In double precision, so that sums of any order, as batches have them, round to the same plane.
    lowest = lowest.double()
    rows = torch.arange(height - count, height, device=depth_m.device) + 0.5
    offset = rows - rows.mean()
    slope = (lowest * offset).sum(1) / offset.square().sum()
    horizon = ((rows.mean() - lowest.mean(1) / slope) / height).float()
    camera_m = (1.0 / (slope * guess.focal_px)).float()
    least, most = _HEIGHTS_M
    fits = (camera_m > least) & (camera_m < most) & (horizon > 0) & (horizon < 1)
    return Ground(
        torch.where(fits, horizon, guess.horizon),
        torch.where(fits, camera_m, guess.camera_height_m),
        guess.focal_px,
    )


def constant_depth(size_hw: tuple[int, int], depth_m: Tensor) -> Tensor:
    """Return one depth for each whole image: (B,) to (B, 1, H, W), metres."""
    return depth_m[:, None, None, None].expand(-1, 1, *size_hw)
