"""Configurations of DeepStream and Triton against the model that they are for."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detection.export.describing import (
    NET_SCALE,
    TRITON_BACKENDS,
    Model,
    read_model,
    triton_type,
)
from rainmer.errors import ConfigError, RainmerError
from rainmer.export.sessions import Port

__all__ = ["check_files"]

_TOKEN = re.compile(r'\s*(?:#[^\n]*|("[^"\n]*")|([\w.+-]+)|([\[\]{}:,]))')
_SCALE_ERROR = 1e-6


def check_files(model: Path, configs: Sequence[Path]) -> Iterator[str]:
    """Check configurations, and say of each that it fits.

    Args:
        model: A file of `python -m detection.export`.
        configs: `config.pbtxt` of Triton, `config_infer_primary.txt` of DeepStream.

    Raises:
        ConfigError: One does not fit; every fault is named.
        WeightsError: The model is another file.
    """
    known = read_model(model)
    for config in configs:
        check = _CHECKS.get(config.suffix)
        if check is None:
            raise ConfigError(f"{config} is neither a .pbtxt of Triton nor a .txt of DeepStream")
        try:
            text = config.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"cannot read {config}: {error}") from error
        faults = list(check(config, text, known))
        if faults:
            raise ConfigError(f"{config} does not fit {model}: {'; '.join(faults)}")
        yield f"{config} fits {model}"


def _differing(pairs: Mapping[str, tuple[object, object]]) -> Iterator[str]:
    for key, (given, wanted) in pairs.items():
        if given != wanted:
            yield f"{key} is {'missing' if given is None else given}, the model has {wanted}"


def _check_deepstream(config: Path, text: str, model: Model) -> Iterator[str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
        given = dict(parser["property"])
    except (configparser.Error, KeyError) as error:
        raise ConfigError(f"{config} is no configuration of nvinfer: {error}") from error
    batch, *dims = model.inputs[0].shape
    key = "onnx-file" if model.format == "onnx" else "model-engine-file"
    wanted: dict[str, object] = {
        key: model.path.name,
        "batch-size": batch,
        "infer-dims": ";".join(map(str, dims)),
        "num-detected-classes": len(model.names),
        "output-blob-names": model.outputs[0].name,
        "network-mode": 2 if model.metadata.get("precision") == "fp16" else 0,
        "model-color-format": 0,
        "maintain-aspect-ratio": 1,
        "symmetric-padding": 1,
    }
    pairs = {name: (given.get(name), str(value)) for name, value in wanted.items()}
    if given.get(key) is not None:
        pairs[key] = (Path(given[key]).name, pairs[key][1])
    yield from _differing(pairs)
    if model.inputs[0].type == "uint8":
        yield "nvinfer gives floats, the model takes uint8"
    try:
        scale = float(given.get("net-scale-factor", "1"))
    except ValueError:
        scale = 0.0
    if abs(scale - NET_SCALE) > _SCALE_ERROR:
        yield f"net-scale-factor must be 1/255, {NET_SCALE:.10f}"
    yield from _check_labels(config.parent / given.get("labelfile-path", "labels.txt"), model)


def _check_labels(file: Path, model: Model) -> Iterator[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        yield f"labelfile-path {file.name} cannot be read"
        return
    names = model.names
    if lines != [names[label] for label in sorted(names)]:
        yield f"{file.name} has other classes than the model"


def _check_triton(config: Path, text: str, model: Model) -> Iterator[str]:
    given = _parse(config, text)
    single = {key: values[-1] for key, values in given.items()}
    backend = TRITON_BACKENDS[model.format]
    platform = {"onnx": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}.get(model.format)
    if single.get("backend", backend) != backend or single.get("platform", platform) != platform:
        yield f"the backend must be {backend}"
    filename = single.get("default_model_filename")
    if filename is not None and filename != model.path.name:
        yield f"default_model_filename is {filename}, the model is {model.path.name}"
    if int(single.get("max_batch_size", 0)):
        yield "max_batch_size must be 0: the batch is part of the shapes"
    for kind, ports in (("input", model.inputs), ("output", model.outputs)):
        yield from _check_ports(kind, given.get(kind, []), ports, all_needed=kind == "input")


def _check_ports(
    kind: str, given: list[dict[str, Any]], ports: Sequence[Port], *, all_needed: bool
) -> Iterator[str]:
    known = {port.name: port for port in ports}
    named = {item.get("name", ["?"])[-1]: item for item in given}
    for name in sorted(named.keys() - known.keys()):
        yield f"the model has no {kind} {name}, but {', '.join(known)}"
    for name, port in known.items():
        item = named.get(name)
        if item is None:
            if all_needed or not named:
                yield f"the {kind} {name} is missing"
            continue
        dims = [int(side) for side in item.get("dims", [])]
        yield from _differing(
            {
                f"data_type of {name}": (item.get("data_type", [None])[-1], triton_type(port)),
                f"dims of {name}": (dims, list(port.shape)),
            }
        )


def _parse(config: Path, text: str) -> dict[str, list[Any]]:
    """Read protobuf's text form: every field is a list of its values.

    Raises:
        ConfigError: It is not that form.
    """
    tokens = []
    place = 0
    text = text.rstrip()
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            line = text.count("\n", 0, place) + 1
            raise ConfigError(f"{config} is no text of protobuf: line {line} cannot be read")
        place = found.end()
        tokens += [group for group in found.groups() if group is not None]
    try:
        return _fields(iter([*tokens, "}"]))
    except (StopIteration, RecursionError, RainmerError) as error:
        raise ConfigError(f"{config} is no text of protobuf: brackets do not close") from error


def _fields(tokens: Iterator[str]) -> dict[str, list[Any]]:
    fields: dict[str, list[Any]] = {}
    while (key := next(tokens)) != "}":
        value = next(tokens)
        if value == ":":
            value = next(tokens)
        fields.setdefault(key, []).extend(_values(value, tokens))
        if key == ",":
            raise ConfigError("a comma between fields")
    return fields


def _values(first: str, tokens: Iterator[str]) -> list[Any]:
    if first == "{":
        return [_fields(tokens)]
    if first != "[":
        return [first.strip('"')]
    values = []
    while (token := next(tokens)) != "]":
        if token != ",":
            values += _values(token, tokens)
    return values


_CHECKS: dict[str, Callable[[Path, str, Model], Iterator[str]]] = {
    ".pbtxt": _check_triton,
    ".txt": _check_deepstream,
}
