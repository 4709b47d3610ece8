"""Networks whose published checkpoints differ from ours only in the names of the weights."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from rainmer.errors import ConfigError
from rainmer.models.checkpoints import bare_weights
from rainmer.models.network import RenamedNetwork, rename, translate_official

__all__ = ["PublishedNetwork", "check_counts"]

_AnyPublished = TypeVar("_AnyPublished", bound="PublishedNetwork")


class PublishedNetwork(RenamedNetwork):
    """A network with a table of the published names of its weights."""

    renames: ClassVar[Sequence[tuple[str, str]]]
    """Patterns and replacements that turn our keys into the published ones, applied in order."""
    without_effect: ClassVar[str]
    """Pattern of published keys that no output depends on: accepted and left out."""

    @classmethod
    @abc.abstractmethod
    def options_of(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Read the options off published keys and shapes.

        Raises:
            LookupError: A key is missing, or a shape has too few dimensions.
        """

    @classmethod
    def from_official(
        cls: type[_AnyPublished],
        state_dict: Mapping[str, Any],
        config: Any = None,  # noqa: ANN401
    ) -> _AnyPublished:
        """Build the network with the weights of a published checkpoint.

        Args:
            state_dict: A state dict, or a training checkpoint that has one inside.
            config: The options; by default they are read off the keys and shapes.

        Raises:
            WeightsError: The keys or shapes belong to another network or configuration.
        """
        weights = bare_weights(state_dict)
        with torch.device("meta"):  # refuse a wrong file before allocating memory
            model = cls(config or cls._config_of(weights))
        translated = model._translate(weights)
        model.to_empty(device="cpu").load_state_dict(translated)
        return model

    def load_official(self, state_dict: Mapping[str, Any]) -> None:
        """Load the weights of a published checkpoint of the same configuration.

        Raises:
            WeightsError: Keys are missing or unexpected, or shapes differ.
        """
        self.load_state_dict(self._translate(bare_weights(state_dict)))

    def _official_name(self, name: str) -> str:
        return rename(name, self.renames)

    @classmethod
    def _config_of(cls, weights: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
        """Infer the options from the weights; return the published size where that fails.

        Loading then lists the differences.
        """
        try:
            return cls.config_class(**cls.options_of(weights))
        except (LookupError, ConfigError):
            return cls.config_class()

    def _translate(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Check published weights and convert them to our keys and shapes."""
        ignorable = [key for key in weights if re.fullmatch(self.without_effect, key)]
        return translate_official(self, self.official_names(), weights, ignorable)


def check_counts(config: Any) -> None:  # noqa: ANN401 (any dataclass)
    """Check that all whole numbers in the fields of a configuration are above 0.

    Raises:
        ConfigError: A value is 0 or negative, or not a number; names the field.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ConfigError(f"{field.name} is {value!r}, but must hold numbers")
            if not number > 0:
                raise ConfigError(f"{field.name} is {value!r}, but must be above 0")
