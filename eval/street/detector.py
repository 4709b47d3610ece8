"""The embedded detectors: nano YOLOs trained on Rainy Street scenes, one of them also in rain.

Their weights come with this package as safetensors, which run no code when read. ultralytics loads
`.pt` files only, so a `.pt` file is built on first use, in the user's cache folder, from these
weights and ultralytics' description of the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from rainmer.errors import WeightsError
from rainmer.files import default_cache_folder, file_sha256
from rainmer.models.weights import write_tensors, write_torch

__all__ = [
    "EMBEDDED",
    "build_network",
    "detector_file",
    "detector_weights",
    "save_detector",
    "write_checkpoint",
]

EMBEDDED = {
    "street": Path(__file__).with_name("detector.safetensors"),
    "street-rain": Path(__file__).with_name("detector-rain.safetensors"),
}
"""The weights in the package: trained on clean scenes, and then also on rainy ones."""

_INPUT = 640  # long side of its training images, in pixels


def detector_file(text: str) -> str:
    """Return the file of an embedded detector by its name, and any other text as it is.

    Raises:
        WeightsError, OutputError: See `detector_weights`.
    """
    return str(detector_weights(name=text)) if text in EMBEDDED else text


def detector_weights(
    folder: Path | None = None, *, name: str = "street", source: Path | None = None
) -> Path:
    """Return a `.pt` file of an embedded detector that ultralytics loads, built on first use.

    Args:
        folder: Folder of the file; None: the user's cache folder.
        name: Which of `EMBEDDED`; the file is named after it.
        source: Another safetensors file of its weights.

    Raises:
        WeightsError: The weights are missing or damaged.
        OutputError: The folder cannot be written.
    """
    source = source or EMBEDDED[name]
    if not source.is_file():
        raise WeightsError(f"no file {source}; install the package again")
    folder = folder or default_cache_folder().parent / "detector"
    path = folder / file_sha256(source)[:12] / f"{name}-detector.pt"
    if not path.is_file():
        write_checkpoint(_read_network(source), path)
    return path


def _read_network(source: Path) -> Any:  # noqa: ANN401 (a network of ultralytics)
    try:
        with safe_open(source, framework="pt") as file:
            facts = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{source} is damaged: {error}; install the package again") from error
    if not {"architecture", "names"} <= facts.keys():
        raise WeightsError(f"{source} does not say which network it is of")
    network = build_network(facts["architecture"], json.loads(facts["names"]))
    wanted = network.state_dict()
    if wanted.keys() != state.keys():
        odd = sorted(wanted.keys() ^ state.keys())
        raise WeightsError(f"{source} does not fit {facts['architecture']}: {odd[0]}")
    network.load_state_dict({key: value.to(wanted[key].dtype) for key, value in state.items()})
    return network


def build_network(architecture: str, names: list[str]) -> Any:  # noqa: ANN401
    """Build an ultralytics network with random weights.

    Args:
        architecture: Name of a description in ultralytics, such as `yolo11n.yaml`.
        names: Names of its classes.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    description = {**yaml_model_load(architecture), "nc": len(names)}
    network = DetectionModel(description, verbose=False)
    network.names = dict(enumerate(names))
    network.args = get_cfg()  # gains of the losses
    return network


def write_checkpoint(network: Any, path: Path) -> None:  # noqa: ANN401
    """Write a network as a `.pt` file for ultralytics, in half precision.

    Raises:
        OutputError: The file cannot be written.
    """
    import copy

    from ultralytics import __version__

    plain = copy.deepcopy(network).eval()
    options = {"task": "detect", "imgsz": _INPUT, "model": str(plain.yaml.get("yaml_file", ""))}
    plain.args = options  # training used nothing else of ultralytics' configuration
    plain.criterion = None
    for parameter in plain.parameters():
        parameter.requires_grad = False
    content = {"model": plain.half(), "ema": None, "train_args": options, "version": __version__}
    write_torch(path, content)


def save_detector(
    state: Mapping[str, Tensor], path: Path, *, architecture: str, names: list[str],
    facts: Mapping[str, str],
) -> None:  # fmt: skip
    """Write weights as half-precision safetensors, with the arguments of `build_network`.

    Args:
        state: The network's `state_dict()`.
        path: The file.
        architecture: See `build_network`.
        names: Names of its classes.
        facts: How it was trained, as free text.

    Raises:
        OutputError: The file cannot be written.
    """
    halved = {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    }
    metadata = {**facts, "architecture": architecture, "names": json.dumps(names)}
    write_tensors(path, halved, metadata)
