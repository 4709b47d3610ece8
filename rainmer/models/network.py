"""What all networks have in common, and how their checkpoints are checked."""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from rainmer.config import from_mapping, to_mapping
from rainmer.errors import WeightsError
from rainmer.models.checkpoints import bare_weights

__all__ = [
    "ConfiguredNetwork",
    "Network",
    "RenamedNetwork",
    "count_modules",
    "refuse_mismatch",
    "rename",
    "translate_official",
]

_LISTED = 3

_AnyConfigured = TypeVar("_AnyConfigured", bound="ConfiguredNetwork")


class Network(nn.Module, abc.ABC):
    """A network that maps images (B, 3, H, W), RGB, 0..1, any H and W, to derained ones.

    Outputs are not clamped to 0..1: the stage does that, and losses need the unclamped values.
    """

    name: ClassVar[str]
    """What specs and weights files call the network."""
    size_multiple: int
    """The network pads to multiples of this; tiles of such sizes waste nothing."""
    takes_query: ClassVar[bool]
    """Whether the network is steered by a second, small image of the whole frame."""
    fused = False
    """Whether this was returned by `fuse`, which some networks have: for inference only."""

    @abc.abstractmethod
    def config_mapping(self) -> dict[str, Any]:
        """Return the configuration as plain values, from which `from_mapping` builds it again."""

    @classmethod
    @abc.abstractmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Network:
        """Build the network, with fresh weights, from plain configuration values.

        Raises:
            ConfigError: A field is unknown, of the wrong type, or out of range.
        """

    @classmethod
    @abc.abstractmethod
    def from_official(cls, state_dict: Mapping[str, Any]) -> Network:
        """Build the network that a published checkpoint describes, with its weights.

        Raises:
            WeightsError: The checkpoint belongs to another network.
        """


class ConfiguredNetwork(Network):
    """A network whose options are a frozen dataclass.

    Args:
        config: The options, an instance of `config_class`; default: the published size.
    """

    config_class: ClassVar[type[Any]]
    """The dataclass; its defaults are the published size."""
    config: Any

    def __init__(self, config: Any = None) -> None:  # noqa: ANN401 (of each network's own class)
        super().__init__()
        self.config = self.config_class() if config is None else config

    def config_mapping(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return to_mapping(self.config)

    @classmethod
    def from_mapping(cls: type[_AnyConfigured], mapping: Mapping[str, Any]) -> _AnyConfigured:
        """Build the network from the fields of its configuration; raises ConfigError."""
        return cls(from_mapping(cls.config_class, mapping, cls.name))


class RenamedNetwork(ConfiguredNetwork):
    """A network whose published checkpoints hold our weights under other names."""

    @abc.abstractmethod
    def _official_name(self, name: str) -> str:
        """Return the published key of one of our weights."""

    def official_names(self) -> dict[str, str]:
        """Return the published key of every weight, statistics included, by our key."""
        return {name: self._official_name(name) for name in self.state_dict()}

    def load_official(self, state_dict: Mapping[str, Any]) -> None:
        """Load the weights of a published checkpoint of the same configuration.

        Raises:
            WeightsError: Keys are missing or unexpected, or shapes differ.
        """
        weights = bare_weights(state_dict)
        self.load_state_dict(translate_official(self, self.official_names(), weights))


def rename(name: str, patterns: Iterable[tuple[str, str]]) -> str:
    r"""Apply patterns and their replacements to a key, one after the other.

    >>> rename("encoder1.0.norm1.weight", [(r"^encoder(\d)", r"encoder_level\1"), ("norm", "ln")])
    'encoder_level1.0.ln1.weight'
    """
    for pattern, replacement in patterns:
        name = re.sub(pattern, replacement, name)
    return name


def count_modules(weights: Mapping[str, Tensor], pattern: str) -> int:
    """Count the keys that match `pattern` with 0, 1, 2, ... in place of its `{}`.

    Example:
        >>> count_modules({"level.0.bias": torch.zeros(1)}, "level.{}.bias")
        1
    """
    count = 0
    while pattern.format(count) in weights:
        count += 1
    return count


def refuse_mismatch(
    network: str,
    expected: Mapping[str, torch.Size],
    given: Mapping[str, Tensor],
    ignorable: Iterable[str] = (),
) -> None:
    """Check that a state dict has exactly the keys and shapes of a network.

    Dimensions of size 1 are ignored when shapes are compared: a 1x1 convolution and a linear layer
    hold the same numbers.

    Args:
        network: The network's name, for the error message.
        expected: The network's shapes by key.
        given: The state dict.
        ignorable: Keys that the state dict may hold in addition.

    Raises:
        WeightsError: Something differs; lists the first missing and unexpected keys and differing
            shapes, and counts them.
    """
    missing = [key for key in expected if key not in given]
    unexpected = sorted(given.keys() - expected.keys() - set(ignorable))
    shapes = [
        f"{key} is {_shape(given[key].shape)} instead of {_shape(shape)}"
        for key, shape in expected.items()
        if key in given and not _same_shape(given[key].shape, shape)
    ]
    problems = [
        f"{len(entries)} {kind} ({_first(entries)})"
        for kind, entries in (
            ("keys missing", missing),
            ("keys unexpected", unexpected),
            ("shapes differ", shapes),
        )
        if entries
    ]
    if problems:
        raise WeightsError(f"the weights do not fit {network}: {'; '.join(problems)}")


def translate_official(
    network: Network,
    names: Mapping[str, str],
    weights: Mapping[str, Tensor],
    ignorable: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Check published weights and convert them to the keys and shapes of one of our networks.

    Args:
        network: The network that the weights are for.
        names: The published key of every weight, by ours.
        weights: The published weights under bare keys.
        ignorable: Published keys that may be present and are left out.

    Raises:
        WeightsError: Keys are missing or unexpected, or shapes differ.
    """
    ours = network.state_dict()
    expected = {official: ours[name].shape for name, official in names.items()}
    refuse_mismatch(network.name, expected, weights, ignorable)
    return {name: weights[key].reshape(ours[name].shape) for name, key in names.items()}


def _same_shape(a: torch.Size, b: torch.Size) -> bool:
    return [size for size in a if size != 1] == [size for size in b if size != 1]


def _shape(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _first(entries: list[str]) -> str:
    return ", ".join(entries[:_LISTED]) + (", ..." if len(entries) > _LISTED else "")
