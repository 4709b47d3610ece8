"""Reading and writing weights files without running code from them, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rainmer.errors import LOAD_ERRORS, WeightsError, first_sentence
from rainmer.files import atomic_write
from rainmer.folders import list_files
from rainmer.models.baselines.prenet import PReNet
from rainmer.models.network import Network

__all__ = [
    "WeightsFile",
    "load_state_dict_file",
    "read_weights_file",
    "save_weights",
    "shipped_names",
    "shipped_weights",
    "weights_fingerprint",
]

_FOLDER = Path(__file__).resolve().parents[1] / "weights"  # where the shipped files are
_SUFFIX = ".safetensors"
_FORMAT = "rainmer"
_FORMAT_VERSION = "1"
_PICKLE_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt")
_RAINMER_PARTS = frozenset({"embedding", "bottleneck", "refinement"})
"""Names of modules in our Rainmer that no published checkpoint uses."""


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        state_dict: Tensors by key; for a training checkpoint, entries that contain them.
        network: Name of the network; None for a published checkpoint.
        config: Its configuration as plain values; None for a published checkpoint.
    """

    state_dict: Mapping[str, Any]
    network: str | None = None
    config: Mapping[str, Any] | None = None


def read_weights_file(path: str | os.PathLike[str]) -> WeightsFile:
    """Read a weights file, written by this project or published, onto the CPU.

    Args:
        path: `.safetensors`, or a pickle of tensors (`.pth`, `.pt`, `.tar`, `.ckpt`).

    Raises:
        WeightsError: The file is missing, empty, damaged, of another kind, or a pickle that would
            run code; or it holds one of our networks without its configuration.
    """
    file = Path(path)
    _check_readable(file)
    if file.suffix == _SUFFIX:
        return _read_safetensors(file)
    if file.suffix in _PICKLE_SUFFIXES:
        return _interpret_plain(file, _read_pickle(file))
    raise WeightsError(
        f"{file} is no weights file by its name: expected .safetensors, "
        f"{', '.join(_PICKLE_SUFFIXES)}"
    )


def load_state_dict_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return the tensors of a weights file by key; see `read_weights_file`.

    Raises:
        WeightsError: As `read_weights_file`.
    """
    return read_weights_file(path).state_dict


def save_weights(path: str | os.PathLike[str], model: Network) -> None:
    """Write a network to a safetensors file atomically, its name and options in the metadata.

    Args:
        path: Ends in `.safetensors`.
        model: The network; its configuration goes into the metadata.

    Raises:
        WeightsError: The name does not end in `.safetensors`, or the network is fused.
        OutputError: The file cannot be written.
    """
    if model.fused:
        raise WeightsError("a fused network cannot be saved: save the one that it was made from")
    if Path(path).suffix != _SUFFIX:
        raise WeightsError(f"weights are written as .safetensors, not as {path}")
    metadata = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "network": model.name,
        "config": json.dumps(model.config_mapping()),
    }
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    with atomic_write(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata)


def weights_fingerprint(model: Network) -> str:
    """Return the SHA-256 of everything that determines results: name, options and weights.

    It does not depend on the device, the memory order, or where the weights came from.
    """
    digest = hashlib.sha256()
    config = json.dumps(model.config_mapping(), sort_keys=True)
    digest.update(f"{model.name}\n{config}\n".encode())
    for key, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{key} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_readable(file: Path) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise WeightsError(f"cannot read the weights {file}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise WeightsError(f"cannot read the weights {file}: {error}") from error
    if file.is_dir():
        raise WeightsError(f"{file} is a folder, not a weights file")
    if not size:
        raise WeightsError(f"the weights {file} are empty (0 bytes): copy the file again")


def _read_safetensors(file: Path) -> WeightsFile:
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            metadata: dict[str, str] = content.metadata() or {}
            names: list[str] = list(content.keys())
            tensors: dict[str, Tensor] = {name: content.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(
            f"the weights {file} are damaged, or not safetensors: {first_sentence(str(error))}"
        ) from error
    if metadata.get("format") != _FORMAT:
        return _interpret_plain(file, tensors)
    return _interpret_metadata(file, metadata, tensors)


def _interpret_metadata(
    file: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> WeightsFile:
    version = metadata.get("format_version")
    if version != _FORMAT_VERSION:
        raise WeightsError(
            f"the weights {file} have format version {version}, but this version of the toolkit "
            f"reads {_FORMAT_VERSION}: update it"
        )
    try:
        config = json.loads(metadata["config"])
        return WeightsFile(tensors, network=metadata["network"], config=dict(config))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the metadata of the weights {file} are damaged: {error}") from error


def _interpret_plain(file: Path, content: Mapping[str, Any]) -> WeightsFile:
    """Distinguish our networks' state dicts, saved without metadata, from published checkpoints."""
    keys = content.keys()
    if keys == _prenet_keys():
        return WeightsFile(content, network=PReNet.name, config={})
    if {key.partition(".")[0] for key in keys} >= _RAINMER_PARTS:
        raise WeightsError(
            f"{file} is a state dict of this project's Rainmer, which does not tell its "
            "configuration: save the network with rainmer.models.save_weights instead"
        )
    return WeightsFile(content)


def _prenet_keys() -> Set[str]:
    with torch.device("meta"):
        return PReNet().state_dict().keys()


def _read_pickle(file: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about files that torch did not write
            content = torch.load(file, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise WeightsError(_explain(file, error)) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file} holds a {type(content).__name__}, not a state dict")
    unnamed = next((key for key in content if not isinstance(key, str)), None)
    if unnamed is not None:
        raise WeightsError(f"{file} is no state dict: {unnamed!r} is not the name of a weight")
    return content


def _explain(file: Path, error: Exception) -> str:
    """Explain in one line why torch.load failed; its messages advise loading files unsafely."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code:
        return (
            f"{file} is refused: it is a pickle that calls {code[1]} when opened, and may run any "
            "code. Where you trust it, save its tensors as .safetensors and use that"
        )
    if isinstance(error, PermissionError):
        return f"cannot read the weights {file}: {error.strerror}"
    if type(error) is RuntimeError:
        return f"the weights {file} are damaged: {first_sentence(str(error))}"
    # Errors of the unpickler describe its internals: bytes, stacks, seeks.
    return f"{file} holds no weights: damaged, or a file of another kind"


def shipped_names() -> list[str]:
    """Return the names of the weights that come with the package, sorted; each is a spec.

    Example:
        >>> shipped_names()
        ['rainmer-s', 'rainmer-s-restore']
    """
    return [path.name.removesuffix(_SUFFIX) for path in list_files(_FOLDER, {_SUFFIX})]


def shipped_weights(name: str) -> Path:
    """Return the path of shipped weights by a name of `shipped_names()`."""
    return _FOLDER / f"{name}{_SUFFIX}"
