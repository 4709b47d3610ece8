"""What a picture does not tell: how far things are."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["constant_depth", "ground_depth"]

_NEAREST_M = 1.0


def ground_depth(
    size_hw: tuple[int, int],
    *,
    horizon: Tensor,
    camera_height_m: Tensor,
    focal_px: Tensor,
    far_m: Tensor,
) -> Tensor:
    """Guess depth: a ground plane below the horizon, z = f h / (v - v0), and a far wall above.

    The two meet smoothly: inverse depths add up as the sides of a right triangle.

    Args:
        size_hw: (height, width) in pixels.
        horizon: Row of the horizon as a fraction of the height (B,).
        camera_height_m: Height of the camera above the ground (B,).
        focal_px: Focal length in pixels (B,).
        far_m: Depth of the wall, and the largest one (B,).

    Returns:
        Metres (B, 1, H, W).
    """
    height, width = size_hw
    rows = torch.arange(height, device=horizon.device) + 0.5
    below = (rows - height * horizon[:, None]).clamp_min(0.0)
    nearness = torch.hypot(below / (focal_px * camera_height_m)[:, None], 1.0 / far_m[:, None])
    depth = nearness.reciprocal().clamp_min(_NEAREST_M)
    return depth[:, None, :, None].expand(-1, 1, height, width)


def constant_depth(size_hw: tuple[int, int], depth_m: Tensor) -> Tensor:
    """Return one depth for each whole image: (B,) to (B, 1, H, W), metres."""
    return depth_m[:, None, None, None].expand(-1, 1, *size_hw)
