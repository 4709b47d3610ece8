"""What the meter sees of a frame: statistics of the maps that an encoder makes of a query.

Each map tells something else about rain. Means say what kind of picture it is: light, haze, night.
Spread and maxima grow with streaks, which are few and bright. Differences across columns grow with
streaks much more than differences down the rows, because rain falls: their ratio tells rain from
texture, and how long streaks are tells the rate. Means of the upper, middle and lower third tell
a veil, which thickens to the horizon, from a flat picture. Unit-length prompts add the direction of
the view, which the encoder learned to tell rain by.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer.errors import WeightsError
from rainmer.frames.arrays import quantize
from rainmer.frames.resize import resize_bilinear
from rainmer.models import Network, Rainmer
from rainmer.models.rainmer import QUERY_SIZE_HW, ViewEncoder, prompts_of_maps

__all__ = ["LONGER_SIDE", "encoder_fingerprint", "encoder_of", "meter_query", "view_statistics"]

LONGER_SIDE = 400
"""Frames are shrunk to this longer side first: the meter sees every camera at one resolution."""


def encoder_of(network: Network) -> ViewEncoder:
    """Return the fused encoder of a network, for inference, on the network's device.

    Raises:
        WeightsError: The network has no views.
    """
    encoder = network.fuse().encoder if isinstance(network, Rainmer) else None
    if encoder is None or not encoder.heads:
        raise WeightsError(f"{network.name} has no views to measure rain by: use rainmer-s")
    return encoder


def encoder_fingerprint(network: Network) -> str:
    """Return the SHA-256 of a network's encoder (64 hexadecimal digits): its options and weights.

    Raises:
        WeightsError: The network has no encoder.
    """
    if not isinstance(network, Rainmer) or network.encoder is None or network.fused:
        raise WeightsError(f"{network.name} has no views to measure rain by: use rainmer-s")
    found = hashlib.sha256(f"{network.encoder.stride} {list(network.encoder.heads)}".encode())
    for key, tensor in sorted(network.encoder.state_dict().items()):
        found.update(f"{key} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def meter_query(batch: Tensor) -> Tensor:
    """Shrink frames (B, 3, H, W), RGB, 0..1 or uint8, to queries (B, 3, 128, 128), 0..1.

    Frames larger than `LONGER_SIDE` are averaged down to it, so that a thin streak in a large frame
    looks as it does in a small one. What remains is the query of the derainer: bilinear on 8-bit
    levels.
    """
    levels = batch if batch.dtype == torch.uint8 else quantize(batch)
    height, width = levels.shape[-2:]
    longer = max(height, width)
    if longer > LONGER_SIDE:
        rows, columns = (max(1, round(side * LONGER_SIDE / longer)) for side in (height, width))
        levels = quantize(F.adaptive_avg_pool2d(levels.float().div(255.0), (rows, columns)))
    return resize_bilinear(levels, QUERY_SIZE_HW).float().div(255.0)


@torch.no_grad()
def view_statistics(encoder: ViewEncoder, query: Tensor) -> Tensor:
    """Return the statistics (B, N), float32, of queries (B, 3, h, w), 0..1.

    For each channel of the location map, the view maps, and the query with its darkest channel:
    mean, standard deviation, maximum, mean absolute difference across and down, and the means of
    three bands of rows; then the prompts.
    """
    location = encoder.location(query)
    maps = {view: head(location) for view, head in encoder.heads.items()}
    small = F.interpolate(query, location.shape[-2:], mode="bilinear", align_corners=False)
    seen = torch.cat([location, *maps.values(), small, small.amin(1, keepdim=True)], 1).float()
    parts = [
        seen.mean((2, 3)),
        seen.std((2, 3)),
        seen.amax((2, 3)),
        seen.diff(dim=3).abs().mean((2, 3)),
        seen.diff(dim=2).abs().mean((2, 3)),
        F.adaptive_avg_pool2d(seen, (3, 1)).flatten(1),
        prompts_of_maps(maps).flatten(1),
    ]
    return torch.cat(parts, dim=1)
