"""Reading and writing weights files without running code from them, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rainmer.errors import LOAD_ERRORS, OutputError, WeightsError, first_sentence
from rainmer.files import atomic_write
from rainmer.folders import list_files
from rainmer.models.baselines.prenet import PReNet
from rainmer.models.checkpoints import Checkpoint, bare_weights, find_weights
from rainmer.models.network import Network
from rainmer.models.rainmer_config import RainmerConfig
from rainmer.models.unpickling import Unread, is_zip, read_inert

__all__ = [
    "RUN_FORMAT",
    "WeightsFile",
    "load_state_dict_file",
    "read_weights_file",
    "save_weights",
    "shipped_names",
    "shipped_weights",
    "weights_fingerprint",
    "write_tensors",
    "write_torch",
]

_log = logging.getLogger(__name__)

_FOLDER = Path(__file__).resolve().parents[1] / "weights"  # where the shipped files are
_SUFFIX = ".safetensors"
_FORMAT = "rainmer"
_FORMAT_VERSION = "1"
RUN_FORMAT = "rainmer-training"
"""The format of `last.pt`, the checkpoint of a training run."""
_PICKLE_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".bin", ".pkl")
_DETECTOR_MODULES = ("ultralytics.", "models.yolo.", "models.common.", "yolov5.")
_RAINMER_PARTS = frozenset({"embedding", "bottleneck", "refinement"})
"""Names of modules in our Rainmer that no published checkpoint uses."""


@dataclass(frozen=True)
class WeightsFile:
    """The weights in a file.

    Attributes:
        found: The tensors, as the file names them, where they were, and what else was there.
        kind: What the file is, in words.
        network: Name of the network; None for a published checkpoint.
        config: Its configuration as plain values; None for a published checkpoint.
    """

    found: Checkpoint
    kind: str
    network: str | None = None
    config: Mapping[str, Any] | None = None

    @property
    def state_dict(self) -> Mapping[str, Tensor]:
        """The tensors by key."""
        return self.found.weights

    def log(self, path: str | os.PathLike[str]) -> None:
        """Log what was taken from the file and what was not, if it is more than a state dict."""
        if self.found.path or self.found.left_out:
            _log.info("%s: %s", path, self.found.described())


def read_weights_file(path: str | os.PathLike[str]) -> WeightsFile:
    """Read a weights file, written by this project or published, onto the CPU.

    Averaged weights are preferred.

    Args:
        path: `.safetensors`, or a file of `torch.save` (`.pth`, `.pt`, `.tar`, `.ckpt`, `.bin`,
            `.pkl`), from which no code is run.

    Raises:
        WeightsError: The file is missing, empty, damaged, or of another kind; its tensors are
            inside objects that only code of the file can make; or it holds one of our networks
            without its configuration.
    """
    file = Path(path)
    _check_readable(file)
    suffix = file.suffix.lower()
    if suffix == _SUFFIX:
        return _read_safetensors(file)
    if suffix in _PICKLE_SUFFIXES:
        content, kind = _read_pickle(file)
        return _interpret_plain(file, content, kind)
    raise WeightsError(
        f"{file} is no weights file by its name: expected .safetensors, "
        f"{', '.join(_PICKLE_SUFFIXES)}"
    )


def load_state_dict_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return the tensors of a weights file by key, and log what was taken.

    Raises:
        WeightsError: As `read_weights_file`.
    """
    content = read_weights_file(path)
    content.log(path)
    return content.state_dict


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
    write_tensors(Path(path), model.state_dict(), metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors to a safetensors file, all or nothing. Raises OutputError."""
    contiguous = {key: value.contiguous() for key, value in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            safetensors.torch.save_file(contiguous, temporary, dict(metadata))
        except safetensors.SafetensorError as error:  # for instance a full disk
            raise OutputError(f"cannot write {path}: {first_sentence(str(error))}") from error


def write_torch(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of `torch.save`, all or nothing. Raises OutputError."""
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what it raises on a full disk
            if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
                raise
            reason = first_sentence(str(error))
            raise OutputError(f"cannot write {path}: {reason}; is the disk full?") from error


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
        return _interpret_plain(file, tensors, "safetensors")
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
        return WeightsFile(
            Checkpoint(tensors),
            "safetensors of this project",
            metadata["network"],
            dict(config),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the metadata of the weights {file} are damaged: {error}") from error


def _interpret_plain(file: Path, content: Mapping[Any, Any], kind: str) -> WeightsFile:
    """Find the weights, and tell our networks', saved without metadata, from published ones."""
    try:
        found = find_weights(content)
        keys = bare_weights(found.weights).keys()
    except WeightsError as error:
        raise WeightsError(f"{file}: {error}") from error
    network, config = None, None
    if content.get("format") == RUN_FORMAT:
        network, config = _run_network(file, content)
        kind = "checkpoint of a training run of this project"
    elif keys == _prenet_keys():
        network, config = PReNet.name, {}
    elif {key.partition(".")[0] for key in keys} >= _RAINMER_PARTS:
        raise WeightsError(
            f"{file} is a state dict of this project's Rainmer, which does not tell its "
            "configuration: save the network with rainmer.models.save_weights instead"
        )
    return WeightsFile(found, kind, network, config)


def _run_network(file: Path, content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the network of a training run's checkpoint, and its options."""
    try:
        config = content["config"]
        options = dict(config["model"])
        if config["variant"] is not None:
            options = RainmerConfig.official(config["variant"], **options).to_mapping()
        return str(config["network"]), options
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{file} is the checkpoint of a training run, but does not tell its network: use "
            f"last.safetensors beside it ({error})"
        ) from error


def _prenet_keys() -> Set[str]:
    with torch.device("meta"):
        return PReNet().state_dict().keys()


def _read_pickle(file: Path) -> tuple[Mapping[Any, Any], str]:
    """Return the content of a file of torch.save, and how it was read."""
    try:
        kind = "torch, zip" if is_zip(file) else "torch, before 1.6"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about files that torch did not write
            content = torch.load(file, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        content = _read_refused(file, error)
        kind += ", with other objects that were not read"
    _refuse_detector(file, content)
    if isinstance(content, Unread):
        raise WeightsError(
            f"{file} is refused: it is a pickled {content.origin}, which only the code of its "
            "project can read: there, save its state_dict() alone, and use that"
        )
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file} holds a {type(content).__name__}, not a state dict")
    return content, kind


def _read_refused(file: Path, refusal: Exception) -> Any:  # noqa: ANN401
    """Read what torch refuses for the objects beside its tensors, without making these."""
    if isinstance(refusal, OSError | RuntimeError):  # damaged, not refused
        raise WeightsError(_explain(file, refusal)) from refusal
    try:
        return read_inert(file)
    except WeightsError:
        raise
    except (*LOAD_ERRORS, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(_explain(file, error)) from error


def _explain(file: Path, error: Exception) -> str:
    """Explain in one line why a file cannot be read; torch advises loading files unsafely."""
    if isinstance(error, PermissionError):
        return f"cannot read the weights {file}: {error.strerror}"
    if "TorchScript" in str(error):
        return f"{file} is a TorchScript program, not weights: use torchscript:{file}"
    if type(error) is RuntimeError:
        return f"the weights {file} are damaged: {first_sentence(str(error))}"
    # Errors of the unpickler describe its internals: bytes, stacks, seeks.
    return f"{file} holds no weights: damaged, or a file of another kind"


def _refuse_detector(file: Path, content: Any) -> None:  # noqa: ANN401
    """Refuse a checkpoint of ultralytics or YOLOv5, which is a pickled detector."""
    parts = content.values() if isinstance(content, Mapping) else [content]
    for part in parts:
        if isinstance(part, Unread) and part.origin.startswith(_DETECTOR_MODULES):
            raise WeightsError(
                f"{file} is a detector ({part.origin}), not a derainer: give it as --detector"
            )


def shipped_names() -> list[str]:
    """Return the names of the weights that come with the package, sorted; each is a spec.

    Example:
        >>> shipped_names()
        ['rainmer-s', 'rainmer-s-restore']
    """
    return sorted(path.name.removesuffix(_SUFFIX) for path in list_files(_FOLDER, {_SUFFIX}))


def shipped_weights(name: str) -> Path:
    """Return the path of shipped weights by a name of `shipped_names()`."""
    return _FOLDER / f"{name}{_SUFFIX}"
