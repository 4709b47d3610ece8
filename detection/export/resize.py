"""OpenCV's bilinear resizing of levels in the operations of graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rainmer.frames.resize import bilinear_taps

__all__ = ["Resize"]


class Resize(nn.Module):
    """`rainmer.frames.resize.resize_bilinear` in the operations of graphs: the same levels.

    Args:
        source_hw: (height, width) of what comes in, in pixels.
        target_hw: Of what comes out.
    """

    def __init__(self, source_hw: tuple[int, int], target_hw: tuple[int, int]) -> None:
        super().__init__()
        self.same = source_hw == target_hw
        self.halved = source_hw == (2 * target_hw[0], 2 * target_hw[1])
        for name, source, target in zip(("row", "column"), source_hw, target_hw, strict=True):
            taps, weights = bilinear_taps(source, target)
            for i, side in enumerate(("first", "second")):
                self.register_buffer(f"{name}_{side}", taps[i].clamp(0, source - 1))
                # One row or column of zeros and ones less to read: rows weigh (N, 1).
                shaped = weights[i][:, None] if name == "row" else weights[i]
                self.register_buffer(f"{name}_{side}_weight", shaped.contiguous())

    def forward(self, levels: Tensor) -> Tensor:
        """Resize levels (B, C, H, W), uint8 or whole floats 0..255, to int32 of the target."""
        if self.same:
            return levels.to(torch.int32)
        if self.halved:
            blocks = levels.to(torch.int32)
            blocks = blocks[:, :, 0::2] + blocks[:, :, 1::2]
            return _shifted(blocks[..., 0::2] + blocks[..., 1::2] + 2, 2)
        parts = [
            levels.index_select(3, getattr(self, f"column_{side}")).to(torch.int32)
            * getattr(self, f"column_{side}_weight")
            for side in ("first", "second")
        ]
        rows = _shifted(parts[0] + parts[1], 4)
        parts = [
            _shifted(
                rows.index_select(2, getattr(self, f"row_{side}"))
                * getattr(self, f"row_{side}_weight"),
                16,
            )
            for side in ("first", "second")
        ]
        return _shifted(parts[0] + parts[1] + 2, 2)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shift int32 values >= 0 to the right: ONNX shifts unsigned ones only."""
    return torch.div(values, 1 << bits, rounding_mode="floor")
