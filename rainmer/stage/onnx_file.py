"""ONNX files: what they declare about their input and output, and how they are run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rainmer.errors import WeightsError
from rainmer.frames.arrays import quantize
from rainmer.stage.rules import InputRules

__all__ = ["UNKNOWN_MULTIPLE", "OnnxFunction"]

UNKNOWN_MULTIPLE = 8
"""Free sides are declared without the multiple they need; U-shaped restorers want 8."""

_TYPES: dict[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_NCHW, _NHWC = (0, 1, 2, 3), (0, 3, 1, 2)  # where batch, channels, rows and columns are
_FREE = (None, None, None, None)


class _Declared(NamedTuple):
    """An input or output: its name, its type, and (B, C, H, W), None where free."""

    name: str
    type: str
    axes: tuple[int, ...]
    shape: tuple[int | None, ...]


class OnnxFunction:
    """An onnxruntime session as a function (B, 3, H, W), 0..1; frames pass through CPU memory.

    Args:
        session: An `onnxruntime.InferenceSession`.
        path: Its file.

    Attributes:
        rules: Which input the file declares.

    Raises:
        WeightsError: The file declares something else than one image in and one of its size out.
    """

    def __init__(self, session: Any, path: Path) -> None:  # noqa: ANN401 (an optional package's)
        inputs = session.get_inputs()
        declared = [_read(item) for item in inputs]
        if len(declared) != 1 or declared[0] is None:
            given = ", ".join(f"{item.name} {item.shape}" for item in inputs)
            raise WeightsError(
                f"{path} is no derainer: expected one input of RGB images, (B, 3, H, W) or "
                f"(B, H, W, 3), but it has {given}"
            )
        self._path, self._session, self._input = path, session, declared[0]
        if self._input.type not in _TYPES:
            raise WeightsError(f"{path} takes {self._input.type}: expected floats or uint8")
        batch, _, height, width = self._input.shape
        self.rules = InputRules(UNKNOWN_MULTIPLE, (height, width), batch)
        self._output = self._choose_output(session.get_outputs())
        self._scale = 255.0 if self._output.type == "tensor(uint8)" else 1.0
        if self._input.type == "tensor(uint8)" and self._white() > 2.0:
            self._scale = 255.0  # floats of the same range as the levels that went in

    def _choose_output(self, outputs: Sequence[Any]) -> _Declared:
        """Return the first output that can be the restored images."""
        for item in outputs:
            output = _read(item) if item.shape else _Declared(item.name, item.type, _NCHW, _FREE)
            if output is not None and all(
                None in pair or pair[0] == pair[1]
                for pair in zip(output.shape, self._input.shape, strict=True)
            ):
                return output
        given = ", ".join(f"{item.name} {item.shape}" for item in outputs)
        raise WeightsError(
            f"{self._path} is no derainer: expected an output of its input's size, "
            f"{self._input.shape}, but it has {given}"
        )

    def _white(self) -> float:
        """Return the largest value that the network makes of a white image."""
        batch, _, height, width = self._input.shape
        try:
            return float(self(torch.ones(batch or 1, 3, height or 64, width or 64)).max())
        except RuntimeError as error:
            raise WeightsError(f"{self._path} fails on a white image: {error}") from error

    def __call__(self, batch: Tensor) -> Tensor:
        """Run the session.

        Raises:
            RuntimeError: onnxruntime failed; its text in one line.
        """
        is_levels = self._input.type == "tensor(uint8)"
        values = (quantize(batch) if is_levels else batch.float()).cpu().numpy()
        values = values.transpose(np.argsort(self._input.axes)).astype(_TYPES[self._input.type])
        try:
            [restored] = self._session.run(
                [self._output.name], {self._input.name: np.ascontiguousarray(values)}
            )
        except Exception as error:
            text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
            raise RuntimeError(" ".join(text.split())) from error
        return self._to_batch(np.asarray(restored), batch)

    def _to_batch(self, restored: npt.NDArray[Any], batch: Tensor) -> Tensor:
        if restored.ndim == 4:
            axes = self._output.axes
            if self._output.shape[1] is None:  # undeclared: by what came out
                fits = tuple(restored.shape[axis] for axis in _NHWC) == tuple(batch.shape)
                axes = _NHWC if fits else _NCHW
            restored = restored.transpose(axes)
        tensor = torch.from_numpy(np.ascontiguousarray(restored)).to(batch.device)
        return tensor if self._scale == 1.0 else tensor.float().div(self._scale)


def _read(item: Any) -> _Declared | None:  # noqa: ANN401 (an optional package's)
    """Read what onnxruntime tells about an input or output; None if it is no batch of RGB images.

    With free channels, they are taken to be the first axis after the batch.
    """
    shape = item.shape or ()
    if len(shape) != 4:
        return None
    # Free axes have names, or no valid size.
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    axes = _NHWC if sizes[3] == 3 and sizes[1] != 3 else _NCHW
    ordered = tuple(sizes[axis] for axis in axes)
    return _Declared(item.name, item.type, axes, ordered) if ordered[1] in (3, None) else None
