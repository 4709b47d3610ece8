"""Writers of the formats: a module in, a file out. Their packages are imported where needed."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import Tensor, nn

from rainmer.errors import RainmerError, first_line
from rainmer.export.request import ExportRequest
from rainmer.export.sessions import ENGINE_HEADER, PREFIX
from rainmer.extras import import_extra

__all__ = ["INPUT", "METADATA_FILE", "OUTPUT", "Calibration", "example", "quiet", "write_format"]

INPUT, OUTPUT = "frames", "derained"
"""Names of the input and the output in the files."""
METADATA_FILE = "rainmer.json"
"""The metadata in a TorchScript file."""

Calibration = Callable[[], Iterable[npt.NDArray[Any]]]
"""Makes the inputs that a quantiser sees."""

_NEWEST_TRACED = 20  # opset
_TRACED_HW = (96, 128)  # of graphs of any size
_WORKSPACE = 4 << 30


def example(request: ExportRequest, size_hw: tuple[int, int] = _TRACED_HW) -> Tensor:
    """Return black frames of the shape that is asked for."""
    shape = request.shape(batch=request.batch or 2, size_hw=request.size_hw or size_hw)
    return torch.zeros(shape, dtype=getattr(torch, request.frames))


def write_format(
    module: nn.Module,
    request: ExportRequest,
    path: Path,
    metadata: Mapping[str, str],
    *,
    calibration: Calibration,
    outputs: tuple[str, ...] = (OUTPUT,),
) -> None:
    """Write a module to a file.

    Args:
        module: Frames in, `outputs` out; in eval mode, on the CPU.
        request: What is asked for.
        path: The file, whose suffix is the format's.
        metadata: What the file shall tell about itself.
        calibration: For int8.
        outputs: Names of the module's outputs.

    Raises:
        SpecError: A package is missing; the line names the extra that brings it.
        RainmerError: The format or its package cannot do it.
    """
    if request.format == "torchscript":
        _write_torchscript(module, request, path, metadata)
        return
    proto = _onnx_model(module, request, metadata, outputs)
    if request.format == "openvino":
        _write_openvino(proto, request, path, metadata, calibration)
        return
    if request.precision == "int8":
        proto = _quantised(proto, calibration)
    if request.format == "tensorrt":
        _write_tensorrt(proto, path, metadata)
        return
    import_extra("onnx", "onnx", "an ONNX export").save(proto, path)


def _write_torchscript(
    module: nn.Module, request: ExportRequest, path: Path, metadata: Mapping[str, str]
) -> None:
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(module, example(request), check_trace=False)  # type: ignore[no-untyped-call]
        traced.save(str(path), _extra_files={METADATA_FILE: json.dumps(dict(metadata))})


def _onnx_model(
    module: nn.Module,
    request: ExportRequest,
    metadata: Mapping[str, str],
    outputs: tuple[str, ...],
) -> Any:  # noqa: ANN401 (an optional package's)
    """Make the ONNX model, which the other formats are made of, too.

    Raises:
        RainmerError: torch cannot export the network so.
    """
    needed_by = f"an export to {request.format}"
    onnx = import_extra("onnx", "onnx", needed_by)
    import_extra("onnxscript", "onnx", needed_by)
    try:
        with quiet():
            proto = _exported(module, request, outputs)
    except Exception as error:
        fixed = "" if request.size_hw else "; a fixed --size may work"
        cause = error.__cause__ or error
        raise RainmerError(f"torch cannot export it: {first_line(cause)}{fixed}") from error
    versions = {item.domain: item.version for item in proto.opset_import}
    if versions[""] != request.opset:
        raise RainmerError(
            f"torch wrote opset {versions['']} instead of {request.opset}: leave out --opset"
        )
    for node in proto.graph.node:
        node.ClearField("metadata_props")  # lines of the code, with the paths of this machine
    onnx.helper.set_model_props(proto, {f"{PREFIX}{key}": value for key, value in metadata.items()})
    return proto


def _exported(module: nn.Module, request: ExportRequest, outputs: tuple[str, ...]) -> Any:  # noqa: ANN401
    """Return the ONNX model, by tracing where torch still can: seconds instead of minutes.

    What is traced and what torch.export makes compute the same, equally fast.
    """
    import onnx

    frames, names = example(request), list(outputs)
    if request.opset <= _NEWEST_TRACED:
        with contextlib.suppress(Exception):  # told by the exporter below, if it is no better
            content = io.BytesIO()
            torch.onnx.export(
                module,
                (frames,),
                cast(str, content),  # of this exporter also a stream
                dynamo=False,
                input_names=[INPUT],
                output_names=names,
                opset_version=request.opset,
                dynamic_axes={name: _free_axes(request) for name in (INPUT, OUTPUT)},
            )
            return onnx.load_from_string(content.getvalue())
    axes = {
        axis: torch.export.Dim(name, min=1 if name == "batch" else 2)
        for axis, name in _free_axes(request).items()
    }
    program = torch.onnx.export(
        module,
        (frames,),
        dynamo=True,
        input_names=[INPUT],
        output_names=names,
        opset_version=request.opset,
        dynamic_shapes=(axes,),
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _free_axes(request: ExportRequest) -> dict[int, str]:
    """Return the names of the axes whose length is free."""
    names = ["batch"] if request.batch is None else []
    names += ["height", "width"] if request.size_hw is None else []
    order = "batch channels height width" if request.layout == "nchw" else "batch height width"
    return {axis: name for axis, name in enumerate(order.split()) if name in names}


def _write_openvino(
    proto: Any,  # noqa: ANN401 (an optional package's)
    request: ExportRequest,
    path: Path,
    metadata: Mapping[str, str],
    calibration: Calibration,
) -> None:
    openvino = import_extra("openvino", "openvino", "an export to openvino")
    onnx_file = path.with_suffix(".onnx")
    try:
        onnx_file.write_bytes(proto.SerializeToString())
        model = openvino.convert_model(onnx_file)
    finally:
        onnx_file.unlink(missing_ok=True)
    if request.precision == "int8":
        model = _quantised(model, calibration)
    model.set_rt_info(json.dumps(dict(metadata)), ["rainmer", "metadata"])
    openvino.save_model(model, path, compress_to_fp16=request.precision == "fp16")


def _quantised(model: Any, calibration: Calibration) -> Any:  # noqa: ANN401
    """Quantise an ONNX or OpenVINO model by NNCF, softmax and gates left in floats."""
    nncf = import_extra("nncf", "int8", "int8")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    samples = list(calibration())
    name = INPUT
    with quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(samples, lambda values: {name: values}),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(
                types=["MatMul", "Gemm"] if hasattr(model, "graph") else ["MatMul"], validate=False
            ),
        )


def _write_tensorrt(
    proto: Any,  # noqa: ANN401 (an optional package's)
    path: Path,
    metadata: Mapping[str, str],
) -> None:
    """Build an engine for the GPU of this machine, in the types that the graph says.

    Raises:
        RainmerError: TensorRT cannot read the graph, or build the engine.
    """
    tensorrt = import_extra("tensorrt", "tensorrt", "an export to tensorrt")
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    # Otherwise it would choose types by speed, half precision for logits and norms too.
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(proto.SerializeToString()):
        raise RainmerError(f"TensorRT cannot read the graph: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, _WORKSPACE)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RainmerError("TensorRT could not build the engine: its log says why")
    header = json.dumps(dict(metadata)).encode()
    path.write_bytes(len(header).to_bytes(ENGINE_HEADER, "little") + header + bytes(engine))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters tell about themselves off the terminal."""
    names = ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
