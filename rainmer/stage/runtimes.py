"""Networks of `rainmer.models` run by another runtime than PyTorch: `Derainer(runtime=...)`."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from rainmer import models
from rainmer.errors import RainmerError, SpecError
from rainmer.export.kept import kept_export
from rainmer.export.request import ExportFormat, ExportRequest
from rainmer.export.sessions import open_onnx, open_openvino
from rainmer.extras import import_extra
from rainmer.models.rainmer import SparseUNet
from rainmer.stage.exported_function import ExportedFunction
from rainmer.stage.restorers import ForeignRestorer, NetworkRestorer, Restorer, digest
from rainmer.stage.rules import InputRules

__all__ = ["Runtime", "with_runtime"]

Runtime = Literal["torch", "auto", "openvino", "onnx"]
"""What runs networks: `auto` takes OpenVINO on CPUs where it is installed."""

_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}


def with_runtime(restorer: Restorer, runtime: Runtime, device: torch.device) -> Restorer:
    """Return the restorer that runs a network by a runtime, or the same one for `torch`.

    Raises:
        RainmerError: There is no such runtime.
        SpecError: It is not installed, or cannot run this restorer, or not on this device.
    """
    if runtime not in get_args(Runtime):
        raise RainmerError(f"runtime must be {', '.join(get_args(Runtime))}, but is {runtime!r}")
    can = isinstance(restorer, NetworkRestorer) and isinstance(restorer.network, SparseUNet)
    if runtime == "auto":
        fits = can and device.type == "cpu" and importlib.util.find_spec("openvino") is not None
        runtime = "openvino" if fits else "torch"
    if runtime == "torch":
        return restorer
    if not (isinstance(restorer, NetworkRestorer) and can):
        raise SpecError(
            f"runtime {runtime} runs rainmer and drsformer networks, not {restorer.source}: "
            "leave it out, or export the network and use the file"
        )
    if device.type != "cpu":
        raise SpecError(f"runtime {runtime} computes on CPUs, not on {device}: use device cpu")
    return _RuntimeRestorer(restorer, runtime)


class _RuntimeRestorer(ForeignRestorer):
    """A network whose export for any size is made once and kept; see `kept_export`.

    Args:
        restorer: The network.
        runtime: `openvino` or `onnx`.
    """

    def __init__(self, restorer: NetworkRestorer, runtime: str) -> None:
        package = import_extra(_PACKAGES[runtime], runtime, f"runtime {runtime}")
        super().__init__(
            _unprepared,
            restorer.name,
            source=restorer.source,
            fingerprint=digest(
                runtime, package.__version__, models.weights_fingerprint(restorer.network)
            ),
            tileable=True,
        )
        self.takes_bf16 = runtime == "openvino"
        self._runtime, self._network = runtime, restorer.network

    def prepare(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
        tile: int | None = None,
    ) -> None:
        """Export the network if that has not been done before, and open the file."""
        takes = (torch.float32, torch.bfloat16) if self.takes_bf16 else (torch.float32,)
        if dtype not in takes:
            raise SpecError(f"runtime {self._runtime} computes in fp32, not in {dtype}")
        form: ExportFormat = "openvino" if self.takes_bf16 else "onnx"
        # One file for all sizes, and for levels and floats.
        request = ExportRequest(format=form, size_hw=None, batch=None, frames="float32")
        half = dtype == torch.bfloat16
        opened = functools.partial(open_openvino, half=half) if self.takes_bf16 else open_onnx
        path: Path = kept_export(self._network, self.name, request)
        self.function = ExportedFunction(opened(path), path)
        self.rules = InputRules()


def _unprepared(batch: Tensor) -> Tensor:
    raise AssertionError("prepare opens the file")
