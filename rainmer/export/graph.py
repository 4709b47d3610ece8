"""The stage as one module for exporters: frames in, derained frames out, nothing around it.

`DerainGraph` holds what `rainmer.Derainer` does around a network: conversion, padding, the query,
the crop and the quantisation. No shape in it depends on data.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rainmer import models
from rainmer.errors import RainmerError
from rainmer.export.layers import exportable
from rainmer.export.request import Layout
from rainmer.frames.arrays import unit_range
from rainmer.frames.resize import bilinear_taps
from rainmer.frames.tiling import pad_to_multiple
from rainmer.models.rainmer import QUERY_SIZE_HW, SparseUNet

__all__ = ["DerainGraph", "Query"]


class DerainGraph(nn.Module):
    """A network with all that the stage does around it, as `rainmer.Derainer` on whole frames.

    uint8 frames become uint8 frames, of at most one level of difference to the stage; frames of
    floats 0..1 become float32 ones, clamped to 0..1.

    Args:
        network: A network of `rainmer.models`, which is copied.
        size_hw: The only (height, width) of the frames, in pixels: padding and the query then have
            constant positions. None: any from `size_multiple` on, found out in the graph.
        layout: Order of the frames' axes: `nchw` (B, 3, H, W) or `nhwc` (B, H, W, 3).
        dtype: What the network computes in. Norms, averages, logits and softmax are float32.

    Attributes:
        size_multiple: Sides that the network computes on are multiples of it, in pixels.

    Example:
        >>> graph = DerainGraph(models.build("prenet", iterations=1), size_hw=(24, 40))
        >>> graph(torch.zeros(2, 3, 24, 40, dtype=torch.uint8)).shape
        torch.Size([2, 3, 24, 40])
    """

    def __init__(
        self,
        network: models.Network,
        *,
        size_hw: tuple[int, int] | None = None,
        layout: Layout = "nchw",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if size_hw is not None and min(size_hw) < 1:
            raise RainmerError(f"a size must be at least 1x1, but is {size_hw[1]}x{size_hw[0]}")
        self.size_hw = size_hw
        self.size_multiple = network.size_multiple
        self.layout = layout
        self.dtype = dtype
        self.network = _copied(network).eval().requires_grad_(False).to(dtype)
        self.query = Query(size_hw) if isinstance(network, models.Rainmer) else None

    def forward(self, frames: Tensor) -> Tensor:
        """Derain frames of the layout, uint8 or floats 0..1; the result has their shape."""
        batch = frames.permute(0, 3, 1, 2) if self.layout == "nhwc" else frames
        restored = self.derain(unit_range(batch))
        if frames.dtype == torch.uint8:
            restored = restored.mul(255.0).round().to(torch.uint8)
        return restored.permute(0, 2, 3, 1) if self.layout == "nhwc" else restored

    def derain(self, batch: Tensor) -> Tensor:
        """Derain float32 (B, 3, H, W), RGB, 0..1: the same, clamped to 0..1."""
        padded = self._pad(batch)
        if self.query is not None:
            assert isinstance(self.network, models.Rainmer)
            prompts = self.network.prompts(self.query(batch))
            restored = self.network._restore(padded, prompts)
        elif isinstance(self.network, SparseUNet):
            restored = self.network._restore(padded)
        else:
            restored = self.network(padded.to(self.dtype))
        restored = restored[..., : batch.shape[2], : batch.shape[3]]
        return restored.float().clamp(0.0, 1.0)

    def _pad(self, batch: Tensor) -> Tensor:
        """Pad to multiples at the bottom and right by reflection, as the stage does."""
        if self.size_hw is not None:
            return pad_to_multiple(batch, self.size_multiple)
        for axis in (2, 3):
            side = batch.shape[axis]
            multiple = self.size_multiple
            places = torch.arange((side + multiple - 1) // multiple * multiple)
            batch = batch.index_select(axis, torch.minimum(places, 2 * (side - 1) - places))
        return batch


def _copied(network: models.Network) -> models.Network:
    """Return a copy for exporters: fused, where the network can be."""
    if isinstance(network, SparseUNet):
        return exportable(network.fuse())
    return copy.deepcopy(network)


class Query(nn.Module):
    """`rainmer.stage.restorers.make_query` in the operations of graphs: the same bits.

    Args:
        size_hw: Size of the frames; None: found out in the graph.
    """

    def __init__(self, size_hw: tuple[int, int] | None) -> None:
        super().__init__()
        self.fixed = size_hw is not None
        if size_hw is not None:
            for name, source, target in zip(
                ("rows", "columns"), size_hw, QUERY_SIZE_HW, strict=True
            ):
                places, weights = _places_and_weights(source, target)
                self.register_buffer(f"{name}_places", places, persistent=False)
                self.register_buffer(f"{name}_weights", weights, persistent=False)

    def forward(self, batch: Tensor) -> Tensor:
        """Shrink (B, 3, H, W), 0..1, to (B, 3, 128, 128), 0..1, on 8-bit levels."""
        height, width = QUERY_SIZE_HW
        rows, row_weights = self._taps("rows", batch, 2)
        columns, column_weights = self._taps("columns", batch, 3)
        # Gathered first, rounded after: only what the query sees is rounded to levels.
        seen = batch.index_select(2, rows).index_select(3, columns)  # B, 3, 2h, 2w
        levels = seen.clamp(0.0, 1.0).mul(255.0).round().to(torch.int32)
        wide = levels * column_weights
        narrow = torch.div(wide[..., :width] + wide[..., width:], 16, rounding_mode="floor")
        tall = torch.div(narrow * row_weights[:, None], 65536, rounding_mode="floor")
        both = tall[..., :height, :] + tall[..., height:, :] + 2
        return torch.div(both, 4, rounding_mode="floor").float().div(255.0)

    def _taps(self, name: str, batch: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        if self.fixed:
            return getattr(self, f"{name}_places"), getattr(self, f"{name}_weights")
        # Counted, as a shape is no tensor for exporters.
        line = batch[0, 0, :, 0] if axis == 2 else batch[0, 0, 0, :]
        length = torch.ones_like(line, dtype=torch.float64).sum()
        return _places_and_weights(length, QUERY_SIZE_HW[axis - 2])


def _places_and_weights(source: int | Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Return source positions (2 * target,), the upper or left ones first, and their weights."""
    taps, weights = bilinear_taps(source, target)
    last = torch.as_tensor(source - 1)
    inside = taps.flatten().clamp(min=0)
    return torch.minimum(inside, last.to(torch.int64)), weights.flatten()
