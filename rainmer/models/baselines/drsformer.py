"""DRSformer: a U-shaped transformer with sparse attention between channels.

Chen et al., "Learning A Sparse Transformer Network for Effective Image Deraining", CVPR 2023.
Rainmer's backbone is this network; its views, prompts and fusion are what it adds. Section numbers
refer to Rainmer's model specification.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from rainmer.config import refuse_unknown_options, to_mapping
from rainmer.errors import ConfigError, WeightsError
from rainmer.frames.tiling import pad_to_multiple
from rainmer.models.attention import TopkTies
from rainmer.models.checkpoints import bare_weights
from rainmer.models.network import RenamedNetwork, translate_official
from rainmer.models.rainmer import SparseUNet, check_image
from rainmer.models.rainmer_config import LayerNorm, RainmerConfig
from rainmer.models.rainmer_official import backbone_options, official_name

__all__ = ["DRSformer", "DRSformerConfig"]

_AnyDRSformer = TypeVar("_AnyDRSformer", bound="DRSformer")


@dataclass(frozen=True, kw_only=True)
class DRSformerConfig:
    """The options of DRSformer, as in `RainmerConfig`; the defaults are the published size.

    Attributes:
        dim: Width of level 1; even. Levels 2, 3 and the bottleneck are 2, 4 and 8 times as wide.
        num_blocks: Transformer blocks at levels 1, 2, 3 and in the bottleneck. Decoder levels have
            as many as their encoder level.
        heads: Attention heads at levels 1, 2, 3 and in the bottleneck; each divides the width.
        ffn_expansion: Hidden width of the feed-forward nets as a multiple of the width.
        bias: Whether the transformer's convolutions have biases.
        layer_norm: "with_bias", or "bias_free" (not centred, no shift).
        sparse_rates: Shares of the attention entries that are kept, one after the other, as
            fractions in strings; empty: dense attention.
        topk_ties: Which of equal attention entries are kept: "lowest" index (the same on every
            device, and as the published network on CUDA), or "native": what `torch.topk` picks.

    Raises:
        ConfigError: A value is of the wrong type or out of range, or two contradict each other.
    """

    dim: int = 48
    num_blocks: tuple[int, ...] = (4, 6, 6, 8)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    ffn_expansion: float = 2.66
    bias: bool = False
    layer_norm: LayerNorm = "with_bias"
    sparse_rates: tuple[str, ...] = ("1/2", "2/3", "3/4", "4/5")
    topk_ties: TopkTies = "lowest"

    def __post_init__(self) -> None:
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        checked = RainmerConfig(**options, views=(), spatial_channel=False)
        for name in options:  # with lists turned into tuples
            object.__setattr__(self, name, getattr(checked, name))

    @functools.cached_property
    def backbone(self) -> RainmerConfig:
        """The same network as a configuration of Rainmer without views and fusion."""
        return RainmerConfig(**to_mapping(self), views=(), spatial_channel=False)


class DRSformer(SparseUNet, RenamedNetwork):
    """The sparse transformer (section 3 without encoder, fusion and prompts).

    Args:
        config: The options; default: the published size.

    Example:
        >>> model = DRSformer(DRSformerConfig(dim=8, num_blocks=(1, 1, 1, 1))).eval()
        >>> model(torch.rand(1, 3, 21, 33)).shape
        torch.Size([1, 3, 21, 33])
    """

    name = "drsformer"
    takes_query = False
    config_class = DRSformerConfig
    config: DRSformerConfig

    def __init__(self, config: DRSformerConfig | None = None) -> None:
        super().__init__(config)
        self._build(self.config.backbone)

    def forward(self, image: Tensor) -> Tensor:
        """Restore rainy images (B, 3, H, W), RGB, 0..1, any H and W; the output is not clamped.

        Sides are padded to multiples of 8 at the bottom and right, by reflection, and cropped.

        Raises:
            ImageError: The shape is not (B, 3, H, W).
        """
        check_image("image", image)
        restored = self._restore(pad_to_multiple(image, self.size_multiple))
        return restored[..., : image.shape[2], : image.shape[3]]

    @classmethod
    def from_mapping(cls: type[_AnyDRSformer], mapping: Mapping[str, Any]) -> _AnyDRSformer:
        """Build the network from the fields of `DRSformerConfig`; raises ConfigError."""
        # Values are checked by the configuration.
        names = (field.name for field in dataclasses.fields(DRSformerConfig))
        refuse_unknown_options("DRSformer", mapping, names)
        return cls(DRSformerConfig(**mapping))

    @classmethod
    def from_official(
        cls: type[_AnyDRSformer],
        state_dict: Mapping[str, Any],
        config: DRSformerConfig | None = None,
    ) -> _AnyDRSformer:
        """Build the network with the weights of a published checkpoint.

        Args:
            state_dict: A state dict, or a training checkpoint that has one inside.
            config: The options; by default they are read off the keys and shapes.

        Raises:
            WeightsError: The keys or shapes belong to another network or configuration, or an
                option cannot be inferred from them.
        """
        weights = bare_weights(state_dict)
        with torch.device("meta"):  # refuse a wrong file before allocating memory
            model = cls(config or _config_of(weights))
        translated = translate_official(model, model.official_names(), weights)
        model.to_empty(device="cpu").load_state_dict(translated)
        return model

    def _official_name(self, name: str) -> str:
        return official_name(name, self.config.backbone)


def _config_of(weights: Mapping[str, Tensor]) -> DRSformerConfig:
    """Read the options off published weights; the published size where a key is missing.

    Loading then lists the differences.

    Raises:
        WeightsError: An option cannot be inferred, or contradicts the others.
    """
    try:
        return DRSformerConfig(**backbone_options(weights))
    except KeyError:
        return DRSformerConfig()
    except (ConfigError, IndexError) as error:
        raise WeightsError(f"the weights do not fit drsformer: {error}") from error
