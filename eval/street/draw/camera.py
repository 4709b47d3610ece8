"""A pinhole camera above a street.

World axes: x to the right, y up, z along the street, in metres; the ground is the plane y = 0 and
the camera stands at z = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Camera", "Floats"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Args:
        x: Metres right of the middle of the road.
        height: Metres above the ground.
        yaw: Radians to the right of the street's direction.
        pitch: Radians downwards.
        roll: Radians clockwise.
        focal: In pixels.
        size_hw: Height and width of the picture in pixels.
    """

    x: float
    height: float
    yaw: float
    pitch: float
    roll: float
    focal: float
    size_hw: tuple[int, int]
    axes: Floats = field(init=False, repr=False)
    """(3, 3): rows are the camera's right, down and forward in world axes."""

    def __post_init__(self) -> None:
        sin_y, cos_y = math.sin(self.yaw), math.cos(self.yaw)
        sin_p, cos_p = math.sin(self.pitch), math.cos(self.pitch)
        right = np.array([cos_y, 0.0, -sin_y])
        down = np.array([-sin_y * sin_p, -cos_p, -cos_y * sin_p])
        forward = np.array([sin_y * cos_p, -sin_p, cos_y * cos_p])
        sin_r, cos_r = math.sin(self.roll), math.cos(self.roll)
        turned = [cos_r * right + sin_r * down, cos_r * down - sin_r * right, forward]
        object.__setattr__(self, "axes", np.stack(turned))

    @property
    def position(self) -> Floats:
        """The centre of projection, (3,), metres."""
        return np.array([self.x, self.height, 0.0])

    def to_view(self, points: Floats) -> Floats:
        """Turn world points (..., 3) into camera axes: right, down, forward, metres."""
        return np.asarray((points - self.position) @ self.axes.T)

    def to_pixels(self, view: Floats, scale: float = 1.0) -> Floats:
        """Project points (..., 3) in camera axes, forward > 0, to pixels (..., 2) of x and y.

        Args:
            view: From `to_view`.
            scale: Pixels of the canvas per pixel of the picture.
        """
        height, width = self.size_hw
        flat = view[..., :2] / view[..., 2:] * self.focal
        return np.asarray((flat + np.array([width / 2, height / 2])) * scale)

    def rays(self, step: int = 1) -> npt.NDArray[np.float32]:
        """Return world vectors (H/step, W/step, 3) through pixel centres, each 1 m deep."""
        height, width = self.size_hw
        xs = (np.arange(0, width, step, dtype=np.float32) + step / 2 - width / 2) / self.focal
        ys = (np.arange(0, height, step, dtype=np.float32) + step / 2 - height / 2) / self.focal
        right, down, forward = self.axes.astype(np.float32)
        lines = ys.astype(np.float32)[:, None] * down + forward
        return np.asarray(xs.astype(np.float32)[None, :, None] * right + lines[:, None])
