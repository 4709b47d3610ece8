"""The networks: Rainmer, the published baselines, and the registry that names them all.

>>> model = build("prenet", iterations=2).eval()
>>> model.name, model.takes_query
('prenet', False)
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from rainmer.config import nearest
from rainmer.errors import SpecError, WeightsError
from rainmer.models.baselines import (
    BRN,
    IDT,
    AirNet,
    BRNConfig,
    DRSformer,
    DRSformerConfig,
    EfficientDeRain,
    IDTConfig,
    PReNet,
    PromptIR,
    RCDNet,
    RCDNetConfig,
)
from rainmer.models.checkpoints import bare_weights
from rainmer.models.network import Network, refuse_mismatch
from rainmer.models.rainmer import Rainmer, SparseUNet
from rainmer.models.rainmer_config import RainmerConfig
from rainmer.models.weights import (
    WeightsFile,
    read_weights_file,
    save_weights,
    shipped_names,
    shipped_weights,
    weights_fingerprint,
)

__all__ = [
    "BRN",
    "IDT",
    "BRNConfig",
    "DRSformer",
    "DRSformerConfig",
    "IDTConfig",
    "Network",
    "PReNet",
    "RCDNet",
    "RCDNetConfig",
    "Rainmer",
    "RainmerConfig",
    "SparseUNet",
    "build",
    "fitting_networks",
    "is_detector",
    "load",
    "network_names",
    "restore_network",
    "save_weights",
    "shipped_names",
    "weights_fingerprint",
]

_DETECTOR_KEY = re.compile(r"(module\.)*(model\.)+\d+\.")
"""Names of weights in YOLO detectors, which number their layers."""

_NETWORKS: dict[str, type[Network]] = {
    network.name: network
    for network in (
        AirNet,
        BRN,
        DRSformer,
        EfficientDeRain,
        IDT,
        PReNet,
        PromptIR,
        Rainmer,
        RCDNet,
    )
}


def network_names() -> list[str]:
    """Return the names of all networks, sorted."""
    return sorted(_NETWORKS)


def build(name: str, **config: Any) -> Network:  # noqa: ANN401
    """Build a network with fresh weights.

    Args:
        name: One of `network_names()`.
        **config: The network's options, as plain values; omitted ones keep their defaults.

    Raises:
        SpecError: There is no network of that name.
        ConfigError: An option is unknown, of the wrong type, or out of range.
    """
    return _network(name).from_mapping(config)


def load(spec: str) -> Network:
    """Load a network with its weights, ready for inference (eval mode, on the CPU).

    Args:
        spec: A name of `shipped_names()`, or `NAME:FILE` with a name of `network_names()`. The
            file comes from this project or is a published checkpoint, whose options are inferred
            from its keys and shapes. Options that cannot be inferred get the defaults of
            the network's `from_official`: for such an ablation, call that with a configuration.

    Raises:
        SpecError: The spec has another form, or there is no network of that name.
        WeightsError: The file is missing, damaged, of another network, or has its tensors inside
            objects that only code of the file can make.
    """
    if spec in shipped_names():
        spec = f"{read_weights_file(shipped_weights(spec)).network}:{shipped_weights(spec)}"
    name, separator, path = spec.partition(":")
    if not separator or not path:
        raise SpecError(
            f"{spec!r} does not name weights: expected NAME:FILE, like rainmer:FILE, "
            f"or {' or '.join(shipped_names())}"
        )
    _network(name)  # a wrong name is told before the file is read
    content = read_weights_file(path)
    content.log(path)
    return restore_network(name, content, path)


def restore_network(name: str, content: WeightsFile, path: str | os.PathLike[str]) -> Network:
    """Build a network with the weights of a file, ready for inference.

    Args:
        name: One of `network_names()`.
        content: What `read_weights_file` returned.
        path: The file, for error messages.

    Raises:
        SpecError: There is no network of that name.
        WeightsError: The weights belong to another network.
    """
    try:
        return _restore(_network(name), content).eval()
    except WeightsError as error:
        hint = "; by its keys it is a YOLO detector, for --detector" if is_detector(content) else ""
        raise WeightsError(f"{path}: {error}{hint}") from error


def is_detector(content: WeightsFile) -> bool:
    """Tell whether a file's weights have the names of those of a YOLO detector."""
    return all(_DETECTOR_KEY.match(key) for key in content.state_dict)


def fitting_networks(content: WeightsFile) -> dict[str, Network]:
    """Build every network that a file's weights fit, by name: one, if any.

    Raises:
        WeightsError: The file is one of ours, but damaged.
    """
    if content.network is not None:
        return {content.network: _restore(_network(content.network), content)}
    fitting = {}
    for name, network in _NETWORKS.items():
        with contextlib.suppress(WeightsError):
            fitting[name] = network.from_official(content.state_dict)
    return fitting


def _network(name: str) -> type[Network]:
    if name not in _NETWORKS:
        raise SpecError(f"there is no network {name!r}: {nearest(name, _NETWORKS)}")
    return _NETWORKS[name]


def _restore(network: type[Network], content: WeightsFile) -> Network:
    """Build a network with a file's weights, by the configuration that the file has, if it does."""
    if content.network is None:
        return network.from_official(content.state_dict)
    if content.network != network.name:
        raise WeightsError(
            f"the weights are of {content.network}, not {network.name}: use {content.network}:FILE"
        )
    model = network.from_mapping(content.config or {})
    weights = bare_weights(content.state_dict)
    expected = {key: value.shape for key, value in model.state_dict().items()}
    refuse_mismatch(network.name, expected, weights)
    model.load_state_dict(weights)
    return model
