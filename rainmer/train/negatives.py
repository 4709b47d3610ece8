"""Positives and negatives of the views, and the archives that negatives are chosen from.

Source: sections 2.2 and 1.1 of the training protocol of Rainmer (ACM MM 2024). All images are
(..., 3, S, S), RGB, 0..1, S the side of the query.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Archives",
    "Contrast",
    "chromatic_negatives",
    "degradation_negatives",
    "draw_flips",
    "flip",
    "make_contrast",
    "mean_colour",
    "rain_signature",
    "select_most_different",
]

_SPECTRUM_SIDE = 32
_OFFSET = 1e-5


class Contrast(NamedTuple):
    """Inputs of the momentum encoder, by view.

    Attributes:
        positives: (B, 3, S, S) each.
        negatives: (B, N, 3, S, S) each.
    """

    positives: dict[str, Tensor]
    negatives: dict[str, Tensor]


def mean_colour(query: Tensor) -> Tensor:
    """Return the mean RGB of images: (B, 3, S, S) to (B, 3)."""
    return query.mean((2, 3))


def rain_signature(rain: Tensor) -> Tensor:
    """Return the singular values of rain layers (B, 3, S, S), shrunk to 32x32: (B, 3, 32)."""
    small = F.interpolate(rain, (_SPECTRUM_SIDE, _SPECTRUM_SIDE), mode="nearest")
    values: Tensor = torch.linalg.svdvals(small.float())
    return values


def select_most_different(current: Tensor, archive: Tensor, count: int) -> Tensor:
    """Return the indices (B, count) of the archive's most different entries, most different first.

    Args:
        current: Descriptions of the samples (B, ...).
        archive: Descriptions of the entries (N, ...), of the same trailing shape.
        count: Number of entries to select.
    """
    distances = (current[:, None] - archive[None]).abs().flatten(2).sum(-1)
    return distances.topk(count, dim=1).indices


def chromatic_negatives(query: Tensor, colours: Tensor) -> Tensor:
    """Give queries the mean colours of other images: (B, 3, S, S), (B, N, 3) to (B, N, 3, S, S)."""
    factors = (_OFFSET + colours) / (_OFFSET + mean_colour(query)[:, None])
    return (factors[..., None, None] * query[:, None]).clamp(0, 1)


def degradation_negatives(clean: Tensor, rain: Tensor) -> Tensor:
    """Add rain layers of other images: (B, 3, S, S), (B, N, 3, S, S) to (B, N, 3, S, S)."""
    return (rain + clean[:, None]).clamp(0, 1)


class Archives:
    """Ring buffers of the mean colours, rain layers and rain signatures of earlier batches.

    Args:
        views: The views that need entries.
        size: Number of entries.
        side: Side S of the rain layers in pixels.
        device: Device of the buffers.
    """

    def __init__(
        self, views: Sequence[str], size: int, side: int, device: torch.device | str = "cpu"
    ) -> None:
        self.size = size
        self.position = 0
        self.colours: Tensor | None = None
        self.rain: Tensor | None = None
        self.signatures: Tensor | None = None
        if "chromatic" in views:
            self.colours = torch.zeros(size, 3, device=device)
        if "degradation" in views:
            self.rain = torch.zeros(size, 3, side, side, device=device)
            self.signatures = torch.zeros(size, 3, _SPECTRUM_SIDE, device=device)

    def add(self, query: Tensor, clean: Tensor) -> None:
        """Store a batch in the next slot."""
        signature = None if self.rain is None else rain_signature((query - clean).clamp(0, 1))
        self.store(self.next_slot(len(query)).to(query.device), query, clean, signature)

    def next_slot(self, batch: int) -> Tensor:
        """Take the next slot; return the indices of its entries.

        Slots are as long as a batch, or the archive if that is smaller; a remainder stays zero.
        """
        length = min(batch, self.size)
        slot = self.position % (self.size // length)
        self.position += 1
        return torch.arange(slot * length, (slot + 1) * length)

    @torch.no_grad()
    def store(
        self, entries: Tensor, query: Tensor, clean: Tensor, signature: Tensor | None
    ) -> None:
        """Store a batch in a slot.

        Args:
            entries: The indices of its entries, on the device.
            query: (B, 3, S, S).
            clean: (B, 3, S, S).
            signature: The rain's (B, 3, 32), if there is a degradation view.
        """
        query, clean = query[: len(entries)], clean[: len(entries)]
        if self.colours is not None:
            self.colours.index_copy_(0, entries, mean_colour(query))
        if self.rain is not None and self.signatures is not None:
            assert signature is not None
            self.rain.index_copy_(0, entries, (query - clean).clamp(0, 1))
            self.signatures.index_copy_(0, entries, signature[: len(entries)])

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return the content, for `load_state_dict`."""
        tensors = {"colours": self.colours, "rain": self.rain, "signatures": self.signatures}
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return {"position": self.position, **kept}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Restore what `state_dict` returned."""
        position = state["position"]
        assert isinstance(position, int)
        self.position = position
        for name in ("colours", "rain", "signatures"):
            own, stored = getattr(self, name), state.get(name)
            if own is not None and isinstance(stored, Tensor):
                own.copy_(stored)


@torch.no_grad()
def make_contrast(
    query: Tensor,
    clean: Tensor,
    detail_negatives: Tensor,
    archives: Archives,
    views: Sequence[str],
    signature: Tensor | None = None,
    flips: Tensor | None = None,
) -> Contrast:
    """Make the positives and negatives of a batch. Flips apply to all samples alike.

    Args:
        query: Whole rainy images at query size (B, 3, S, S).
        clean: Their targets.
        detail_negatives: Blurred clean pictures (B, N, 3, S, S).
        archives: Colours and rain of earlier batches; not changed.
        views: The views.
        signature: The signature (B, 3, 32) of the rain, if there is a degradation view.
        flips: What `draw_flips` gives, on the device; None: nothing is flipped.
    """
    turns = itertools.repeat(None) if flips is None else iter(flips)
    count = detail_negatives.shape[1]
    positives: dict[str, Tensor] = {}
    negatives: dict[str, Tensor] = {}
    if "detail" in views:
        positives["detail"] = query
        negatives["detail"] = detail_negatives
    if "chromatic" in views:
        assert archives.colours is not None
        chosen = select_most_different(mean_colour(query), archives.colours, count)
        positives["chromatic"] = flip(clean, next(turns))
        recoloured = chromatic_negatives(query, archives.colours[chosen])
        negatives["chromatic"] = flip(recoloured, next(turns))
    if "degradation" in views:
        assert archives.rain is not None
        assert archives.signatures is not None
        assert signature is not None
        chosen = select_most_different(signature, archives.signatures, count)
        positives["degradation"] = flip(query, next(turns))
        rained = degradation_negatives(clean, archives.rain[chosen])
        negatives["degradation"] = flip(rained, next(turns))
    return Contrast(positives, negatives)


def draw_flips(views: Sequence[str], chance: random.Random) -> Tensor:
    """Draw how the positives and negatives of each view but "detail" are flipped (2 V, 2), bool.

    They are drawn in the order of the published loop: chromatic, degradation, and of each the
    positives first; horizontally, then vertically, each with probability 1/2.
    """
    rows = 2 * sum(view != "detail" for view in views)
    return torch.tensor([[chance.random() < 0.5 for _ in range(2)] for _ in range(rows)])


def flip(images: Tensor, turn: Tensor | None) -> Tensor:
    """Flip all images horizontally, vertically, or both, as (2,) bool says on their device."""
    if turn is None:
        return images
    for axis, chosen in zip((-1, -2), turn, strict=True):
        images = torch.where(chosen, images.flip(axis), images)
    return images


def gather(batch: Tensor) -> Tensor:
    """Collect the parts of a batch from all processes, in the order of their ranks."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return batch
    parts = [torch.empty_like(batch) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, batch.contiguous())
    return torch.cat(parts)
