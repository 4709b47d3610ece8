"""Wet roads: darker, and mirrors of what stands beyond, smeared out upwards and downwards.

A film of water darkens asphalt (light is scattered within the wet surface and absorbed there,
Twomey, Bohren and Mergenthaler, 1986) and reflects by Fresnel's law, most at grazing angles. What
a place of the road mirrors lies in its own column of the frame: the ray that it reflects is
followed ahead until it meets what the depth map shows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer.data.depth import Ground

__all__ = ["wet_road"]

_ALBEDO = 0.6  # of wet asphalt, relative to dry; by eye
_NORMAL_REFLECTANCE = 0.02  # of water
_GLOSS = 0.5  # share of the mirrored light that a rough road keeps together; by eye
_ROAD_M = (0.15, 0.30)  # what is lower is road, what is higher is not
_STEPS = 24  # places along a reflected ray
_SMEARS = 24  # frames are this many smears high


def wet_road(
    scene: Tensor, mirrored: Tensor, depth_m: Tensor, wetness: Tensor, ground: Ground
) -> Tensor:
    """Return the scene with a wet road, linear light.

    Args:
        scene: (B, 3, H, W), linear light.
        mirrored: What the road mirrors (B, 3, H, W), linear light; lamps may exceed 1.
        depth_m: (B, 1, H, W); without a map of the scene, all below the horizon counts as road.
        wetness: Share of the road's surface under a film of water (B,), 0..1.
        ground: The plane of the road.
    """
    height = scene.shape[2]
    rows = (torch.arange(height, device=scene.device) + 0.5)[:, None]
    horizon, camera_m, focal_px = (values[:, None, None, None] for values in ground)
    fall = (rows - height * horizon) / focal_px  # per metre ahead (B, 1, H, 1)
    raised = camera_m - fall * depth_m
    low, high = _ROAD_M
    share = (
        wetness[:, None, None, None] * ((high - raised) / (high - low)).clamp(0.0, 1.0) * (fall > 0)
    )
    down = fall.clamp_min(0.0)
    grazing = 1.0 - down / (1.0 + down.square()).sqrt()  # 1 - cosine of the angle of incidence
    reflectance = _NORMAL_REFLECTANCE + (1.0 - _NORMAL_REFLECTANCE) * grazing**5
    image = _smear(_mirror(mirrored, depth_m, down, ground), max(1, height // _SMEARS))
    wet = _ALBEDO * (1.0 - reflectance) * scene + _GLOSS * reflectance * image
    return scene + share * (wet - scene)


def _mirror(mirrored: Tensor, depth_m: Tensor, down: Tensor, ground: Ground) -> Tensor:
    """Return what each pixel's reflected ray meets (B, 3, H, W), as if all were road.

    A ray that meets the road at 1 / down camera heights has, seen from the camera, risen to
    `up` where its depth is 2 / (down + up) of them.
    """
    height = depth_m.shape[2]
    horizon, camera_m, focal_px = (values[:, None, None, None] for values in ground)
    met = torch.zeros_like(depth_m, dtype=torch.bool)
    found = torch.zeros_like(depth_m, dtype=torch.long)
    for step in range(1, _STEPS + 1):
        up = down * (1.0 - 2.0 * step / _STEPS)
        depth = 2.0 * camera_m / (down + up).clamp_min(1e-6)
        row = (up * focal_px + height * horizon).long().clamp(0, height - 1).expand_as(found)
        meets = depth_m.gather(2, row) <= depth
        found = torch.where(met, found, row)
        met = met | (meets & (step > 1))
    return mirrored.gather(2, found.expand(-1, 3, -1, -1))


def _smear(image: Tensor, reach: int) -> Tensor:
    """Blur along columns by about `reach` pixels, and a little along rows."""
    for _ in range(2):
        padded = F.pad(image, (1, 1, reach, reach), mode="replicate")
        image = F.avg_pool2d(padded, (2 * reach + 1, 3), stride=1)
    return image
