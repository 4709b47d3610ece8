"""The networks: Rainmer, the published baselines, and the registry that names them all.

>>> model = build("prenet", iterations=2).eval()
>>> model.name, model.takes_query
('prenet', False)
"""

from __future__ import annotations

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
    "load",
    "network_names",
    "save_weights",
    "shipped_names",
    "weights_fingerprint",
]

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
        WeightsError: The file is missing, damaged, unsafe, or belongs to another network.
    """
    if spec in shipped_names():
        spec = f"{read_weights_file(shipped_weights(spec)).network}:{shipped_weights(spec)}"
    name, separator, path = spec.partition(":")
    if not separator or not path:
        raise SpecError(
            f"{spec!r} does not name weights: expected NAME:FILE, like rainmer:FILE, "
            f"or {' or '.join(shipped_names())}"
        )
    network = _network(name)
    content = read_weights_file(path)
    try:
        if content.network is None:
            model = network.from_official(content.state_dict)
        else:
            model = _restore_saved(network, content)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return model.eval()


def _network(name: str) -> type[Network]:
    if name not in _NETWORKS:
        raise SpecError(f"there is no network {name!r}: {nearest(name, _NETWORKS)}")
    return _NETWORKS[name]


def _restore_saved(network: type[Network], content: WeightsFile) -> Network:
    """Build the network that the metadata of one of our weights files describe."""
    if content.network != network.name:
        raise WeightsError(
            f"the weights are of {content.network}, not {network.name}: use {content.network}:FILE"
        )
    model = network.from_mapping(content.config or {})
    expected = {key: value.shape for key, value in model.state_dict().items()}
    refuse_mismatch(network.name, expected, content.state_dict)
    model.load_state_dict(content.state_dict)
    return model
