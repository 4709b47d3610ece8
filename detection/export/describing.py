"""Configurations for DeepStream and Triton, written from the model itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rainmer.errors import OutputError, WeightsError
from rainmer.export.request import SUFFIXES
from rainmer.export.sessions import OPENERS, Port
from rainmer.files import write_text

__all__ = [
    "NET_SCALE",
    "TRITON_BACKENDS",
    "Model",
    "describe",
    "read_model",
    "triton_type",
]

TRITON_BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}
_PARSER = "NvDsInferParseYolo"
"""Of the public library DeepStream-Yolo, which reads rows of box, score, label."""
NET_SCALE = 1.0 / 255.0

_TRITON_TYPES = {
    "uint8": "TYPE_UINT8",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "tensor(int32)": "TYPE_INT32",
    "i32": "TYPE_INT32",
    "int32": "TYPE_INT32",
    "tensor(bool)": "TYPE_BOOL",
    "boolean": "TYPE_BOOL",
    "bool": "TYPE_BOOL",
}


class Model(NamedTuple):
    """What a file says about itself."""

    path: Path
    format: str
    inputs: list[Port]
    outputs: list[Port]
    metadata: Mapping[str, str]

    @property
    def names(self) -> dict[int, str]:
        """The classes, label to name."""
        return {int(label): name for label, name in json.loads(self.metadata["names"]).items()}


def read_model(path: Path) -> Model:
    """Open a file of `python -m detection.export`.

    Raises:
        WeightsError: It is another file, or cannot be run here.
        SpecError: Its runtime is not installed.
    """
    kinds = {suffix: kind for kind, suffix in SUFFIXES.items() if kind in OPENERS}
    kind = kinds.get(path.suffix.lower())
    if kind is None or not path.is_file():
        raise WeightsError(f"{path} is no model of detection.export: expected {', '.join(kinds)}")
    session = OPENERS[kind](path)
    if "names" not in session.metadata:
        raise WeightsError(f"{path} was not written by detection.export: it names no classes")
    return Model(path, kind, [*session.inputs], [*session.outputs], session.metadata)


def describe(path: Path, kind: str, *, overwrite: bool = False) -> list[Path]:
    """Write the configuration of a model beside it.

    Args:
        path: A file of `export_pipeline`.
        kind: `deepstream`: `config_infer_primary.txt` and `labels.txt`; `triton`: `config.pbtxt`.
        overwrite: Whether to replace files of these names.

    Returns:
        The files.

    Raises:
        WeightsError: The model is not of a kind that can be described so.
        OutputError: A file exists, or cannot be written.
    """
    model = read_model(path)
    texts = _deepstream(model) if kind == "deepstream" else {"config.pbtxt": _triton(model)}
    files = {path.with_name(name): text for name, text in texts.items()}
    for file in files:
        if file.exists() and not overwrite:
            raise OutputError(f"{file} exists already: move it, or give --overwrite")
    for file, text in files.items():
        write_text(file, text)
    return list(files)


def triton_type(port: Port) -> str:
    """Return Triton's name of a port's type."""
    return _TRITON_TYPES.get(port.type, port.type)


def _triton(model: Model) -> str:
    lines = [
        "# Put it into MODELS/NAME, the model into MODELS/NAME/1; NAME is the one below.",
        f'name: "{model.path.stem}"',
        f'backend: "{TRITON_BACKENDS[model.format]}"',
        f'default_model_filename: "{model.path.name}"',
        "# The batch is part of the shapes.",
        "max_batch_size: 0",
        *_triton_ports("input", model.inputs),
        *_triton_ports("output", model.outputs),
    ]
    return "\n".join(lines) + "\n"


def _triton_ports(kind: str, ports: list[Port]) -> Iterator[str]:
    yield f"{kind} ["
    for i, port in enumerate(ports):
        dims = ", ".join(map(str, port.shape))
        comma = "," if i + 1 < len(ports) else ""
        yield f'  {{ name: "{port.name}" data_type: {triton_type(port)} dims: [ {dims} ] }}{comma}'
    yield "]"


def _deepstream(model: Model) -> dict[str, str]:
    """Return the texts of nvinfer's configuration by file name."""
    [given], [found] = model.inputs[:1], model.outputs[:1]
    if model.metadata.get("input") != "letterboxed" or found.shape[-1] != 6:
        raise WeightsError(
            f"{model.path} does not suit DeepStream: nvinfer letterboxes frames itself and gives "
            "floats, its parser wants rows of box, score, label: export with --input letterboxed "
            "--nms"
        )
    if model.format == "openvino":
        raise WeightsError(f"{model.path} does not suit DeepStream: give --format onnx or tensorrt")
    batch, *dims = given.shape
    key = "onnx-file" if model.format == "onnx" else "model-engine-file"
    names = model.names
    properties = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "process-mode": 1,
        "network-type": 0,
        key: model.path.name,
        "labelfile-path": "labels.txt",
        "batch-size": batch,
        "network-mode": 2 if model.metadata["precision"] == "fp16" else 0,
        "num-detected-classes": len(names),
        "infer-dims": ";".join(map(str, dims)),
        "output-blob-names": found.name,
        "net-scale-factor": f"{NET_SCALE:.16f}",
        "model-color-format": 0,
        "maintain-aspect-ratio": 1,
        "symmetric-padding": 1,
        "cluster-mode": 4,
        "parse-bbox-func-name": _PARSER,
        "custom-lib-path": "nvdsinfer_custom_impl_Yolo/libnvdsinfer_custom_impl_Yolo.so",
    }
    lines = ["[property]", *(f"{key}={value}" for key, value in properties.items())]
    lines += ["", "[class-attrs-all]", f"pre-cluster-threshold={model.metadata['conf']}"]
    return {
        "config_infer_primary.txt": "\n".join(lines) + "\n",
        "labels.txt": "".join(f"{names[label]}\n" for label in sorted(names)),
    }
