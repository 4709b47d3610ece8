"""Networks from other projects: exported files, and weights that spandrel recognises.

Each is a function of a float batch (B, 3, H, W), RGB, 0..1. The libraries that run them are
optional and imported here, inside the functions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rainmer.errors import SpecError, WeightsError, first_sentence
from rainmer.models.weights import load_state_dict_file

__all__ = ["EXPORTED", "Exported"]

_UNKNOWN_MULTIPLE = 8
"""Exported files do not say which sides they accept; U-shaped restorers want multiples of 8."""


class Exported(NamedTuple):
    """A network to call.

    Attributes:
        function: Restores (B, 3, H, W); a module, if it has weights to move.
        name: For reports.
        size_multiple: Both sides of the input must be multiples of it.
    """

    function: Callable[[Tensor], Tensor]
    name: str
    size_multiple: int


def _torchscript(path: Path) -> Exported:
    """Load a TorchScript file. Raises WeightsError."""
    _check_file(path)
    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise WeightsError(f"{path} is not a TorchScript file: {reason}") from error
    return Exported(module, path.stem, _UNKNOWN_MULTIPLE)


def _onnx(path: Path) -> Exported:
    """Load an ONNX file with onnxruntime. Raises WeightsError or SpecError."""
    _check_file(path)
    runtime = _optional("onnxruntime", "onnx")
    providers = [
        name
        for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if name in runtime.get_available_providers()
    ]
    try:
        session = runtime.InferenceSession(str(path), providers=providers)
    except Exception as error:
        reason = first_sentence(str(error))
        raise WeightsError(f"{path} is not an ONNX file that can be run: {reason}") from error
    return Exported(_OnnxFunction(session, path), path.stem, _UNKNOWN_MULTIPLE)


class _OnnxFunction:
    """An onnxruntime session as a function; frames pass through CPU memory."""

    def __init__(self, session: Any, path: Path) -> None:  # noqa: ANN401 (an optional package's)
        inputs = session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = ", ".join(str(item.shape) for item in inputs)
            raise WeightsError(f"{path}: expected one input (B, 3, H, W), but it has {shapes}")
        self._session = session
        self._name = inputs[0].name
        self._half = inputs[0].type == "tensor(float16)"

    def __call__(self, batch: Tensor) -> Tensor:
        values = (batch.half() if self._half else batch.float()).contiguous().cpu().numpy()
        restored = self._session.run(None, {self._name: values})[0]
        return torch.from_numpy(restored).to(batch.device)


def _spandrel(path: Path) -> Exported:
    """Load weights of any restorer that spandrel recognises. Raises WeightsError or SpecError."""
    spandrel = _optional("spandrel", "spandrel")
    weights = load_state_dict_file(path)
    try:
        descriptor = spandrel.ModelLoader().load_from_state_dict(dict(weights))
    except Exception as error:
        reason = first_sentence(str(error)) or type(error).__name__
        raise WeightsError(
            f"{path}: spandrel does not recognise these weights: {reason}"
        ) from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise WeightsError(f"{path} holds {descriptor.architecture.name}, which takes a mask too")
    if descriptor.scale != 1 or {descriptor.input_channels, descriptor.output_channels} != {3}:
        raise WeightsError(
            f"{path} holds {descriptor.architecture.name}, {descriptor.input_channels} to "
            f"{descriptor.output_channels} channels at scale {descriptor.scale}: not a restorer of "
            "RGB images"
        )
    multiple = max(1, descriptor.size_requirements.multiple_of)
    return Exported(_SpandrelModule(descriptor), path.stem, multiple)


class _SpandrelModule(nn.Module):
    """A spandrel descriptor as a module, which pads to the sizes its network needs."""

    def __init__(self, descriptor: Any) -> None:  # noqa: ANN401 (an optional package's)
        super().__init__()
        self.network = descriptor.model.eval().requires_grad_(False)
        self._descriptor = descriptor

    def forward(self, batch: Tensor) -> Tensor:
        restored: Tensor = self._descriptor(batch)
        return restored


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"no file {path}")


def _optional(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SpecError(
            f"{extra}: needs the package {module}: pip install 'rainmer[{extra}]'"
        ) from error


EXPORTED: Mapping[str, Callable[[Path], Exported]] = {
    "torchscript": _torchscript,
    "onnx": _onnx,
    "spandrel": _spandrel,
}
"""Loaders by the kind of the spec."""
