"""The rain meter and the gate's decision in the operations of graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detection.export.resize import Resize
from rainmer.export.layers import exportable
from rainmer.meter import RainMeter
from rainmer.meter.features import LONGER_SIDE, view_statistics, window_places
from rainmer.meter.head import QUANTITIES
from rainmer.models.rainmer import QUERY_SIZE_HW

__all__ = ["RainGate"]


class RainGate(nn.Module):
    """What `rainmer.stage.gate.Gate` decides for single frames of one size.

    Args:
        meter: The rain meter, which knows a benefit.
        threshold: The benefit from which a frame is derained.
        frame_hw: (height, width) of the frames in pixels.
    """

    def __init__(self, meter: RainMeter, threshold: float, frame_hw: tuple[int, int]) -> None:
        super().__init__()
        assert meter.benefit is not None
        self.threshold = threshold
        self.encoder = exportable(copy.deepcopy(cast(Any, meter.encoder)))
        self.head = copy.deepcopy(meter.weights.head).cpu()
        longer = max(frame_hw)
        small_hw = frame_hw
        self.shrinks = longer > LONGER_SIDE
        if self.shrinks:
            height, width = (max(1, round(side * LONGER_SIDE / longer)) for side in frame_hw)
            small_hw = (height, width)
            self.register_buffer("rows", _averages(frame_hw[0], height))
            self.register_buffer("columns", _averages(frame_hw[1], width).t().contiguous())
        self.query = Resize(small_hw, QUERY_SIZE_HW)
        rows, columns = window_places(small_hw)
        self.register_buffer("window_rows", rows)
        self.register_buffer("window_columns", columns)
        self.inputs = [QUANTITIES.index(name) for name in meter.benefit.inputs]
        self.register_buffer("weights", torch.tensor(list(meter.benefit.weights)))
        self.bias = meter.benefit.bias

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Read uint8 frames (B, 3, H, W): the benefit (B,), 0..1, and whether to derain (B,)."""
        levels = frames.float()
        if self.shrinks:
            levels = (self.rows @ levels @ self.columns).round()  # type: ignore[operator]
        query = self.query(levels).float().div(255.0)
        window = levels.index_select(2, cast(Tensor, self.window_rows))
        window = window.index_select(3, cast(Tensor, self.window_columns))
        window = window.mean(1, keepdim=True).div(255.0)
        with _PoolingByProducts():
            statistics = view_statistics(cast(Any, self.encoder), query, window)
        outputs = self.head(statistics)
        chosen = torch.stack([outputs[:, i] for i in self.inputs], 1)
        benefit = (chosen @ cast(Tensor, self.weights) + self.bias).sigmoid()
        return benefit, benefit >= self.threshold


class _PoolingByProducts(TorchFunctionMode):
    """Averages over uneven parts as products with matrices: ONNX has no such pooling.

    PyTorch would write every pixel of a part as an operation of its own.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (torch's)
        if func is not F.adaptive_avg_pool2d:
            return func(*args, **(kwargs or {}))
        maps, (rows, columns) = args
        height, width = maps.shape[2:]
        return _averages(height, rows) @ maps @ _averages(width, columns).t()


def _averages(source: int, target: int) -> Tensor:
    """Return the matrix (target, source) of averages over `target` parts, as torch cuts them."""
    matrix = torch.zeros(target, source)
    for i in range(target):
        first, end = i * source // target, -((-(i + 1) * source) // target)
        matrix[i, first:end] = 1.0 / (end - first)
    return matrix
