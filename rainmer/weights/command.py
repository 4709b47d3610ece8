"""What a weights file holds, and its conversion."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rainmer import models
from rainmer.errors import WeightsError
from rainmer.files import file_sha256
from rainmer.models import fitting_networks, is_detector, restore_network
from rainmer.models.weights import (
    WeightsFile,
    read_weights_file,
    save_weights,
    shipped_weights,
    write_tensors,
)
from rainmer.weights.options import WeightsOptions

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a weights file holds.

    Attributes:
        file: Its path.
        sha256: Of its content.
        kind: What the file is, in words.
        network: The network that the weights fit; None: none of this project.
        config: The network's options; None without a network.
        entry: Where in the file the weights are; empty: at the top.
        tensors: Number of tensors.
        values: Number of values in them.
        dtypes: Number of tensors of each type.
        not_finite: Number of values that are NaN or infinite.
        left_out: What else the file holds.
    """

    file: str
    sha256: str
    kind: str
    network: str | None
    config: Mapping[str, Any] | None
    entry: str
    tensors: int
    values: int
    dtypes: Mapping[str, int]
    not_finite: int
    left_out: Sequence[str]

    @property
    def fit(self) -> str:
        """The network in words."""
        if self.network is None:
            return "of no network of this project; others are used as spandrel:FILE"
        return f"{self.network} {json.dumps(self.config)}"

    @property
    def warning(self) -> str:
        """What is wrong with the values, in words; empty if nothing is."""
        return f"; {self.not_finite} values are not finite" if self.not_finite else ""

    def as_mapping(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dataclasses.asdict(self)

    def as_text(self) -> str:
        """Return a line for each field."""
        dtypes = ", ".join(f"{name} ({count})" for name, count in self.dtypes.items())
        lines = {
            "file": self.file,
            "sha256": self.sha256,
            "format": self.kind,
            "taken from": self.entry or "the top",
            "network": self.fit,
            "tensors": f"{self.tensors}, {self.values:,} values, {dtypes}{self.warning}",
            "left out": ", ".join(self.left_out) or "nothing",
        }
        return "\n".join(f"{name:<11} {value}" for name, value in lines.items())


def run(options: WeightsOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: The file cannot be read or written, or its network is not the one named.
    """
    path = Path(options.file)
    if options.file in models.shipped_names():
        path = shipped_weights(options.file)
    if options.out is not None and options.out.suffix != ".safetensors":
        raise WeightsError(f"weights are written as .safetensors, not as {options.out}")
    content = read_weights_file(path)
    network = _network_of(path, content, options.network)
    summary = _summarise(path, content, network)
    if options.out is not None:
        content.log(path)
        _write(options.out, path, content, network)
        print(f"{options.out}: {summary.tensors} tensors, {summary.fit}{summary.warning}")
    else:
        print(json.dumps(summary.as_mapping(), indent=2) if options.json else summary.as_text())


def _network_of(path: Path, content: WeightsFile, name: str | None) -> models.Network | None:
    """Return the network of the given name, or the one that the weights fit, with the weights."""
    if name is not None:
        return restore_network(name, content, path)
    fitting = fitting_networks(content)
    if len(fitting) > 1:
        raise WeightsError(f"{path} fits {' and '.join(fitting)}: choose one with --network")
    return next(iter(fitting.values()), None)


def _write(out: Path, path: Path, content: WeightsFile, network: models.Network | None) -> None:
    if network is not None:
        save_weights(out, network)
        return
    separate = {key: value.clone() for key, value in content.state_dict.items()}
    write_tensors(out, separate, {"source": path.name, "entry": content.found.entry})


def _summarise(path: Path, content: WeightsFile, network: models.Network | None) -> Summary:
    tensors = list(content.state_dict.values())
    return Summary(
        file=str(path),
        sha256=file_sha256(path),
        kind=content.kind + (", of a YOLO detector by its keys" if is_detector(content) else ""),
        network=None if network is None else network.name,
        config=None if network is None else network.config_mapping(),
        entry=content.found.entry,
        tensors=len(tensors),
        values=sum(tensor.numel() for tensor in tensors),
        dtypes=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)),
        not_finite=sum(_not_finite(tensor) for tensor in tensors),
        left_out=list(content.found.left_out),
    )


def _not_finite(tensor: Tensor) -> int:
    return int((~tensor.isfinite()).sum())
