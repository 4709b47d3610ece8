"""Stateless random numbers: functions of an image's key, an index and a purpose.

With a stateful generator, a picture would depend on the batch it is rendered in. A hash of
(key, index, stream) does not, costs a few integer operations for a whole batch, and gives the same
numbers on every device.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

__all__ = ["expand", "image_key", "normal", "rough_normal", "uniform"]

_MASK = 0xFFFFFFFF
_BYTES_DEVIATION = math.sqrt(4 * (256**2 - 1) / 12)  # of the sum of four uniform bytes


def image_key(seed: int, name: str) -> int:
    """Return the 32-bit key of an image, from the seed and the image's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")


def expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Number the items of owners: return the owner of each item, and its index within the owner.

    Example:
        >>> expand(torch.tensor([2, 0, 1]))
        (tensor([0, 0, 2]), tensor([0, 1, 0]))
    """
    owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    starts = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner), device=counts.device) - starts[owner]


def uniform(
    keys: Tensor, index: Tensor | int, stream: Tensor | int, owner: Tensor | None = None
) -> Tensor:
    """Return float32 numbers of [0, 1), multiples of 2^-24.

    Args:
        keys: int64, 32-bit values, any shape.
        index: Which number, broadcast to `keys`.
        stream: What the number is for; streams are independent.
        owner: Whose key each number belongs to, as `expand` gives it; None: one for each key.
    """
    seeds = _mix(stream + _mix(keys))
    if owner is not None:
        seeds = seeds[owner]
    return (_mix(index + seeds) >> 8).float() * 2.0**-24


def normal(keys: Tensor, index: Tensor | int, stream: int, owner: Tensor | None = None) -> Tensor:
    """Return standard normal float32 numbers (Box and Muller); uses `stream` and `stream + 1`."""
    radius = (-2.0 * torch.log1p(-uniform(keys, index, stream, owner))).sqrt()
    return radius * torch.cos(2.0 * math.pi * uniform(keys, index, stream + 1, owner))


def rough_normal(keys: Tensor, index: Tensor | int, stream: int) -> Tensor:
    """Return about normal float32 numbers of at most 3.5: sums of a hash's four bytes."""
    value = _mix(index + _mix(stream + _mix(keys)))
    total = (value & 255) + ((value >> 8) & 255) + ((value >> 16) & 255) + (value >> 24)
    return (total - 510).float() / _BYTES_DEVIATION


def _mix(value: Tensor) -> Tensor:
    """Scramble 32 bits: two rounds of multiply and shift with constants of low bias."""
    value = value & _MASK
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & _MASK
    value = ((value ^ (value >> 15)) * 0x846CA68B) & _MASK
    return value ^ (value >> 16)
