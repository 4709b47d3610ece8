"""Exported files, opened by their runtimes: one array or tensor in, arrays or tensors out.

The runtimes are optional packages, imported inside the functions that need them.
"""

from __future__ import annotations

import abc
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rainmer.errors import WeightsError, first_sentence
from rainmer.extras import import_extra

__all__ = ["ENGINE_HEADER", "OPENERS", "PREFIX", "Port", "Session", "open_onnx", "open_openvino"]

PREFIX = "rainmer."
"""Of the keys of our metadata in ONNX files."""
ENGINE_HEADER = 4
"""Bytes in front of a TensorRT engine: the length of the JSON that follows, little-endian."""

Array = npt.NDArray[Any]

_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}
_COMPILED = 8  # shapes of a model that are kept
_OPENVINO_TYPES = {"f32": "float32", "f16": "float16", "f64": "float64", "u8": "uint8"}


class Port(NamedTuple):
    """An input or output of a file: its name, numpy's name of its type, and its shape.

    Free axes have names, or no valid size.
    """

    name: str
    type: str
    shape: Sequence[int | str | None]


class Session(abc.ABC):
    """A file with its runtime; several threads may share it.

    Attributes:
        inputs: What it takes.
        outputs: What it gives.
        metadata: What the exporter wrote about it, by key; empty for files of others.
    """

    inputs: Sequence[Port]
    outputs: Sequence[Port]
    metadata: Mapping[str, str]

    @abc.abstractmethod
    def run(self, values: Array, names: Sequence[str]) -> list[Array]:
        """Run the file on the values of its only input; return the outputs of these names.

        Raises:
            RuntimeError: The runtime failed; its text in one line.
        """

    def run_on_device(self, values: Tensor, name: str) -> Tensor | None:
        """Run the file on a CUDA tensor, without leaving its device.

        Returns:
            The output of that name, of the input's shape; None where the file runs elsewhere.
        """
        return None


def open_onnx(path: Path) -> Session:
    """Open an ONNX file with onnxruntime. Raises WeightsError or SpecError."""
    runtime = import_extra("onnxruntime", "onnx", "onnx:")
    known = runtime.get_available_providers()
    providers = [
        name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in known
    ]
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and told by the stage
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return _OnnxSession(runtime.InferenceSession(str(path), options, providers=providers))
    except Exception as error:
        reason = first_sentence(str(error))
        raise WeightsError(f"{path} is not an ONNX file that can be run: {reason}") from error


class _OnnxSession(Session):
    def __init__(self, session: Any) -> None:  # noqa: ANN401 (an optional package's)
        self._session = session
        self.inputs = [_onnx_port(item) for item in session.get_inputs()]
        self.outputs = [_onnx_port(item) for item in session.get_outputs()]
        self.metadata = {
            key.removeprefix(PREFIX): value
            for key, value in session.get_modelmeta().custom_metadata_map.items()
            if key.startswith(PREFIX)
        }
        self._on_cuda = "CUDAExecutionProvider" in session.get_providers()

    def run(self, values: Array, names: Sequence[str]) -> list[Array]:
        try:
            return [
                np.asarray(value)
                for value in self._session.run(list(names), {self.inputs[0].name: values})
            ]
        except Exception as error:
            text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
            raise RuntimeError(" ".join(text.split())) from error

    def run_on_device(self, values: Tensor, name: str) -> Tensor | None:
        index = values.device.index or 0
        if not (self._on_cuda and values.is_cuda and index == 0):
            return None
        values = values.contiguous()
        types = {port.name: np.dtype(port.type) for port in (*self.inputs, *self.outputs)}
        restored = torch.empty(
            values.shape, dtype=getattr(torch, types[name].name), device=values.device
        )
        binding = self._session.io_binding()
        for bind, port, tensor in (
            (binding.bind_input, self.inputs[0].name, values),
            (binding.bind_output, name, restored),
        ):
            bind(port, "cuda", index, types[port], tuple(tensor.shape), tensor.data_ptr())
        # onnxruntime computes on a stream of its own.
        torch.cuda.current_stream(values.device).synchronize()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return restored


def _onnx_port(item: Any) -> Port:  # noqa: ANN401 (an optional package's)
    return Port(item.name, _ONNX_TYPES.get(item.type, item.type), list(item.shape or ()))


def open_openvino(path: Path, *, half: bool | None = None) -> Session:
    """Open an OpenVINO model (`.xml`, with its `.bin` beside it) on the CPU.

    Args:
        path: The file.
        half: Whether to compute in bfloat16; default: what the file says, else float32.

    Raises:
        WeightsError: It cannot be read.
        SpecError: OpenVINO is not installed.
    """
    openvino = import_extra("openvino", "openvino", "openvino:")
    core = openvino.Core()
    try:
        model = core.read_model(path)
        metadata = _openvino_metadata(model)
        if half is None:
            half = metadata.get("precision") == "bf16"
        options = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Otherwise CPUs that have bfloat16 compute in it whatever the file says.
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        return _OpenVinoSession(core, model, options, metadata)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} is not an OpenVINO model that can be run: {_openvino_reason(error)}"
        ) from error


def _openvino_reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception")]
    return first_sentence(lines[-1] if lines else type(error).__name__)


def _openvino_metadata(model: Any) -> dict[str, str]:  # noqa: ANN401 (an optional package's)
    if not model.has_rt_info(["rainmer", "metadata"]):
        return {}
    found: dict[str, str] = json.loads(model.get_rt_info(["rainmer", "metadata"]).astype(str))
    return found


class _OpenVinoSession(Session):
    """A model, compiled for each shape that arrives: what is known beforehand runs faster."""

    def __init__(
        self,
        core: Any,  # noqa: ANN401 (an optional package's)
        model: Any,  # noqa: ANN401
        options: dict[str, Any],
        metadata: dict[str, str],
    ) -> None:
        self._core, self._model, self._options = core, model, options
        self.metadata = metadata
        self.inputs = [_openvino_port(item) for item in model.inputs]
        self.outputs = [_openvino_port(item) for item in model.outputs]
        self._places = {port.name: i for i, port in enumerate(self.outputs)}
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()  # a request serves one thread
        if not model.is_dynamic():
            self._compiled_for(tuple(model.inputs[0].shape))

    def _compiled_for(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401
        with self._lock:
            if shape not in self._compiled:
                model = self._model
                if model.is_dynamic():
                    model = model.clone()
                    model.reshape(list(shape))
                compiled = self._core.compile_model(model, "CPU", self._options)
                while len(self._compiled) >= _COMPILED:
                    self._compiled.pop(next(iter(self._compiled)))
                self._compiled[shape] = compiled
            return self._compiled[shape]

    def run(self, values: Array, names: Sequence[str]) -> list[Array]:
        compiled = self._compiled_for(values.shape)
        if getattr(self._local, "compiled", None) is not compiled:
            self._local.compiled, self._local.request = compiled, compiled.create_infer_request()
        request = self._local.request
        try:
            request.infer({0: values}, share_inputs=True)
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(_openvino_reason(error)) from error
        # Copied: the next call overwrites the request's memory.
        return [request.get_output_tensor(self._places[name]).data.copy() for name in names]


def _openvino_port(item: Any) -> Port:  # noqa: ANN401 (an optional package's)
    kind = item.element_type.get_type_name()
    shape = [None if side.is_dynamic else side.get_length() for side in item.partial_shape]
    return Port(item.any_name, _OPENVINO_TYPES.get(kind, kind), shape)


def open_tensorrt(path: Path) -> Session:
    """Open a TensorRT engine, with the JSON in front of it that exports write, on the first GPU.

    Raises:
        WeightsError: It cannot be read, or was built by another version or for another GPU.
        SpecError: TensorRT is not installed.
    """
    tensorrt = import_extra("tensorrt", "tensorrt", "tensorrt:")
    content = path.read_bytes()
    length = int.from_bytes(content[:ENGINE_HEADER], "little")
    try:
        metadata = json.loads(content[ENGINE_HEADER : ENGINE_HEADER + length])
        content = content[ENGINE_HEADER + length :]
    except ValueError:  # an engine of somebody else
        metadata = {}
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise WeightsError(
            f"{path} is no TensorRT engine for this GPU and TensorRT {tensorrt.__version__}: "
            "export it again on this machine"
        )
    return _TensorRtSession(tensorrt, engine, metadata)


class _TensorRtSession(Session):
    """An engine; every thread has a context of its own."""

    def __init__(self, tensorrt: Any, engine: Any, metadata: dict[str, str]) -> None:  # noqa: ANN401
        self._engine, self.metadata = engine, metadata
        ports: dict[bool, list[Port]] = {True: [], False: []}
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            kind = np.dtype(tensorrt.nptype(engine.get_tensor_dtype(name))).name
            is_input = engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
            ports[is_input].append(Port(name, kind, list(engine.get_tensor_shape(name))))
        self.inputs, self.outputs = ports[True], ports[False]
        self._local = threading.local()

    def run(self, values: Array, names: Sequence[str]) -> list[Array]:
        results = self._run(torch.from_numpy(values).cuda())
        return [results[name].cpu().numpy() for name in names]

    def run_on_device(self, values: Tensor, name: str) -> Tensor | None:
        return self._run(values)[name] if values.is_cuda else None

    def _run(self, values: Tensor) -> dict[str, Tensor]:
        if not hasattr(self._local, "context"):
            self._local.context = self._engine.create_execution_context()
        context = self._local.context
        values = values.contiguous()
        results = {
            port.name: torch.empty(
                [int(side or 0) for side in port.shape],
                dtype=getattr(torch, port.type),
                device=values.device,
            )
            for port in self.outputs
        }
        for name, tensor in {self.inputs[0].name: values, **results}.items():
            context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream(values.device)
        if not context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT could not run the engine")
        stream.synchronize()
        return results


OPENERS: Mapping[str, Callable[[Path], Session]] = {
    "onnx": open_onnx,
    "openvino": open_openvino,
    "tensorrt": open_tensorrt,
}
"""How the file of each format is opened; TorchScript's is a module of torch."""
