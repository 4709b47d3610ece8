"""The options of Rainmer, and the published variants as rows of one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

from rainmer.config import check_integer, nearest, refuse_unknown_options, to_mapping
from rainmer.errors import ConfigError
from rainmer.models.attention import TopkTies, kept_entries
from rainmer.models.layers import COMPENSATOR_STEPS

__all__ = [
    "OFFICIAL_VARIANTS",
    "LayerNorm",
    "PromptGate",
    "PromptPosition",
    "RainmerConfig",
    "View",
]

View = Literal["chromatic", "degradation", "detail"]
PromptGate = Literal["sum", "chromatic", "degradation"]
PromptPosition = Literal["attention", "residual"]
LayerNorm = Literal["with_bias", "bias_free"]

_LEVELS = 4
_SMALLEST_BASE_DIM = 16
_ENTRY_STRIDES = (1, 2, 4)

OFFICIAL_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "sum": {},
    "chralpha": {"prompt_gate": "chromatic"},
    "detgalpha": {"prompt_gate": "degradation"},
    "detgalpha_resprompt": {"prompt_gate": "degradation", "prompt_position": "residual"},
    "wochr": {"views": ("degradation", "detail")},
    "wodetg": {"views": ("chromatic",)},
    "wolocf": {"spatial_channel": False},
    "baseline": {"views": (), "spatial_channel": False},
}
"""Options in which each published file differs from the defaults (specification, section 4)."""


@dataclass(frozen=True, kw_only=True)
class RainmerConfig:
    """The options of Rainmer; the defaults are the published size of the variant "sum".

    Attributes:
        dim: Width of level 1; even. Levels 2, 3 and the bottleneck are 2, 4 and 8 times as wide.
        base_dim: Width of the representations (prompts), at least 16.
        num_blocks: Transformer blocks at levels 1, 2, 3 and in the bottleneck. Decoder levels have
            as many as their encoder level.
        heads: Attention heads at levels 1, 2, 3 and in the bottleneck; each divides the width.
        ffn_expansion: Hidden width of the feed-forward nets as a multiple of the width.
        bias: Whether the transformer's convolutions have biases.
        layer_norm: "with_bias", or "bias_free" (not centred, no shift).
        sparse_rates: Shares of the attention entries that are kept, one after the other, as
            fractions in strings ("1/2", "0.5"); empty: dense attention.
        views: Which views of the rain the encoder represents. "chromatic" and "degradation" each
            prompt the decoder; "detail" is trained together with "degradation". Empty: no prompts.
        prompt_gate: How two prompts are weighted: both fully ("sum"), or against each other by
            learned similarity with the "chromatic" or the "degradation" prompt.
        prompt_position: Whether the prompt term is computed from the attention's output, or from
            the features after the attention's residual.
        spatial_channel: Whether the location map is fused into the first level.
        topk_ties: Which of equal attention entries are kept: "lowest" index (the same on every
            device, and as the official network on CUDA), or "native": what `torch.topk` picks.
        entry_stride: The network works at 1/entry_stride of the resolution: images enter by
            pixel-unshuffle and leave by pixel-shuffle. 1, as published, or a power of two; each
            doubling divides the cost by about four.
        compensator_steps: Steps of the two feature compensators and of the encoder's, 1 to 4;
            published: 4.

    Raises:
        ConfigError: A value is of the wrong type or out of range, or two contradict each other.
    """

    dim: int = 48
    base_dim: int = 128
    num_blocks: tuple[int, ...] = (4, 6, 6, 8)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    ffn_expansion: float = 2.66
    bias: bool = False
    layer_norm: LayerNorm = "with_bias"
    sparse_rates: tuple[str, ...] = ("1/2", "2/3", "3/4", "4/5")
    views: tuple[View, ...] = ("chromatic", "degradation", "detail")
    prompt_gate: PromptGate = "sum"
    prompt_position: PromptPosition = "attention"
    spatial_channel: bool = True
    topk_ties: TopkTies = "lowest"
    entry_stride: int = 1
    compensator_steps: int = 4

    def __post_init__(self) -> None:
        check_integer("dim", self.dim, 2)
        if self.dim % 2:
            raise ConfigError(f"dim is {self.dim}, but must be even: downsampling halves it")
        check_integer("base_dim", self.base_dim, _SMALLEST_BASE_DIM)
        for field in ("num_blocks", "heads"):
            self._set(field, _integer_per_level(field, getattr(self, field)))
        self._set("ffn_expansion", _expansion(self.ffn_expansion, self.dim))
        for field in ("bias", "spatial_channel"):
            _check_flag(field, getattr(self, field))
        _check_choice("layer_norm", self.layer_norm, get_args(LayerNorm))
        _check_choice("prompt_gate", self.prompt_gate, get_args(PromptGate))
        _check_choice("prompt_position", self.prompt_position, get_args(PromptPosition))
        _check_choice("topk_ties", self.topk_ties, get_args(TopkTies))
        if self.entry_stride not in _ENTRY_STRIDES:
            choices = ", ".join(map(str, _ENTRY_STRIDES))
            raise ConfigError(
                f"entry_stride is {self.entry_stride!r}, but must be one of {choices}"
            )
        check_integer("compensator_steps", self.compensator_steps, 1)
        if self.compensator_steps > COMPENSATOR_STEPS:
            raise ConfigError(
                f"compensator_steps is {self.compensator_steps}, "
                f"but must be at most {COMPENSATOR_STEPS}"
            )
        self._set("sparse_rates", _rates(self.sparse_rates))
        self._set("views", _views(self.views))
        self._check_heads()
        self._check_prompts()

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)  # the way to normalise a field of a frozen class

    def _check_heads(self) -> None:
        for heads, width in zip(self.heads, self.widths, strict=True):
            if width % heads:
                raise ConfigError(
                    f"heads is {list(self.heads)}, but {heads} does not divide the width {width} "
                    f"of its level (widths: {list(self.widths)})"
                )
            for rate in self.rates:
                if kept_entries(width // heads, rate) < 1:
                    raise ConfigError(
                        f"sparse_rates has {rate}, which keeps no entry of the "
                        f"{width // heads} channels per head at width {width} with {heads} heads: "
                        "use fewer heads, a larger dim or larger rates"
                    )

    def _check_prompts(self) -> None:
        if "detail" in self.views and "degradation" not in self.views:
            raise ConfigError(
                f"views is {list(self.views)}, but 'detail' is a part of the degradation view: "
                "add 'degradation' or drop 'detail'"
            )
        if self.prompt_gate != "sum" and len(self.prompt_views) < 2:
            raise ConfigError(
                f"prompt_gate is {self.prompt_gate!r}, which weighs the chromatic against the "
                f"degradation prompt, but views is {list(self.views)}: use 'sum', or both views"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of levels 1, 2, 3 and of the bottleneck."""
        return tuple(self.dim * 2**level for level in range(_LEVELS))

    @property
    def rates(self) -> tuple[Fraction, ...]:
        """The sparse rates as exact fractions."""
        return tuple(Fraction(rate) for rate in self.sparse_rates)

    @property
    def prompt_views(self) -> tuple[View, ...]:
        """The views that prompt the decoder, in the order of the prompts."""
        return tuple(view for view in self.views if view != "detail")

    @classmethod
    def official(cls, variant: str, **overrides: Any) -> RainmerConfig:  # noqa: ANN401
        """Return the configuration of a published variant, with some fields changed.

        Args:
            variant: A key of `OFFICIAL_VARIANTS`.
            **overrides: Fields of the configuration.

        Raises:
            ConfigError: There is no such variant, or a field is wrong.

        Example:
            >>> RainmerConfig.official("chralpha", dim=8).prompt_gate
            'chromatic'
        """
        if variant not in OFFICIAL_VARIANTS:
            choices = nearest(variant, OFFICIAL_VARIANTS)
            raise ConfigError(f"no official variant of Rainmer is called {variant!r}: {choices}")
        return cls.from_mapping({**OFFICIAL_VARIANTS[variant], **overrides})

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> RainmerConfig:
        """Build a configuration from plain values (YAML, JSON); omitted fields keep their defaults.

        Raises:
            ConfigError: A key is unknown (the message suggests the closest field), or a value is
                wrong.
        """
        # Values are checked by the constructor, for code that calls it directly too.
        names = (field.name for field in dataclasses.fields(cls))
        refuse_unknown_options("Rainmer", mapping, names)
        return cls(**mapping)

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields as plain values for YAML or JSON; the inverse of `from_mapping`."""
        return to_mapping(self)


def _check_flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{field} is {value!r}, but must be true or false")


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{field} is {value!r}, but must be one of {', '.join(choices)}")


def _integer_per_level(field: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or len(values) != _LEVELS:
        raise ConfigError(f"{field} is {values!r}, but must be a list of {_LEVELS} whole numbers")
    for level, value in enumerate(values):
        check_integer(f"{field}[{level}]", value, 1)
    return tuple(values)


def _expansion(value: object, dim: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"ffn_expansion is {value!r}, but must be a number")
    if not 1 / dim <= value < float("inf"):
        raise ConfigError(f"ffn_expansion is {value}, but must be at least 1/dim (1/{dim})")
    return float(value)


def _rates(values: object) -> tuple[str, ...]:
    if values is None:  # the published files write null for dense attention
        return ()
    if not isinstance(values, list | tuple):
        raise ConfigError(f"sparse_rates is {values!r}, but must be a list like ['1/2', '2/3']")
    for value in values:
        if not isinstance(value, str) or not _is_share(value):
            raise ConfigError(
                f"sparse_rates has {value!r}, but each must be a fraction above 0 and at most 1, "
                "in quotes, like '1/2'"
            )
    return tuple(values)


def _is_share(text: str) -> bool:
    try:
        return 0 < Fraction(text) <= 1
    except (ValueError, ZeroDivisionError):
        return False


def _views(values: object) -> tuple[str, ...]:
    known = get_args(View)
    if values is None:
        return ()
    if not isinstance(values, list | tuple):
        raise ConfigError(f"views is {values!r}, but must be a list of {', '.join(known)}")
    for value in values:
        if value not in known:
            raise ConfigError(f"views has {value!r}: {nearest(str(value), known)}")
    if len(set(values)) < len(values):
        raise ConfigError(f"views is {list(values)}, but names one twice")
    return tuple(view for view in known if view in values)  # their order has no effect
