"""Exported files as functions: what they declare about their input and output, and how they run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rainmer.errors import WeightsError
from rainmer.export.sessions import Port, Session
from rainmer.frames.arrays import quantize
from rainmer.stage.rules import InputRules

__all__ = ["UNKNOWN_MULTIPLE", "ExportedFunction"]

UNKNOWN_MULTIPLE = 8
"""Free sides are declared without the multiple they need; U-shaped restorers want 8."""

_TYPES = ("float32", "float16", "float64", "uint8")
_NCHW, _NHWC = (0, 1, 2, 3), (0, 3, 1, 2)  # where batch, channels, rows and columns are
_FREE = (None, None, None, None)


class _Declared(NamedTuple):
    """An input or output: its name, its type, and (B, C, H, W), None where free."""

    name: str
    type: str
    axes: tuple[int, ...]
    shape: tuple[int | None, ...]


class ExportedFunction:
    """A file with its runtime as a function (B, 3, H, W), 0..1.

    On CUDA frames stay on the device where the runtime can; else they pass through CPU memory.

    Args:
        session: The file, opened.
        path: Its file.

    Attributes:
        rules: Which input the file declares.

    Raises:
        WeightsError: The file declares something else than one image in and one of its size out.
    """

    def __init__(self, session: Session, path: Path) -> None:
        inputs = session.inputs
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
        # Our own files pad inside, so that the query sees the frame and nothing else.
        self.is_ours = "multiple" in session.metadata
        self.rules = InputRules(1 if self.is_ours else UNKNOWN_MULTIPLE, (height, width), batch)
        self._output = self._choose_output(session.outputs)
        self._scale = 255.0 if self._output.type == "uint8" else 1.0
        if not self.is_ours and self._input.type == "uint8" and self._white() > 2.0:
            self._scale = 255.0  # floats of the same range as the levels that went in

    def _choose_output(self, outputs: Sequence[Port]) -> _Declared:
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
        """Run the file.

        Raises:
            RuntimeError: The runtime failed; its text in one line.
        """
        kind = self._input.type
        values = quantize(batch) if kind == "uint8" else batch.to(getattr(torch, kind))
        values = values.permute(*(int(axis) for axis in np.argsort(self._input.axes))).contiguous()
        restored = self._session.run_on_device(values, self._output.name)
        if restored is None:
            [array] = self._session.run(values.cpu().numpy(), [self._output.name])
            restored = torch.from_numpy(np.ascontiguousarray(array)).to(batch.device)
        if restored.ndim == 4:
            axes = self._output.axes
            if self._output.shape[1] is None:  # undeclared: by what came out
                fits = tuple(restored.shape[axis] for axis in _NHWC) == tuple(batch.shape)
                axes = _NHWC if fits else _NCHW
            restored = restored.permute(axes)
        return restored if self._scale == 1.0 else restored.float().div(self._scale)


def _read(item: Port) -> _Declared | None:
    """Read what a file tells about an input or output; None if it is no batch of RGB images.

    With free channels, they are taken to be the first axis after the batch.
    """
    if len(item.shape) != 4:
        return None
    sizes = [size if isinstance(size, int) and size > 0 else None for size in item.shape]
    axes = _NHWC if sizes[3] == 3 and sizes[1] != 3 else _NCHW
    ordered = tuple(sizes[axis] for axis in axes)
    return _Declared(item.name, item.type, axes, ordered) if ordered[1] in (3, None) else None
