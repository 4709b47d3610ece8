"""DRSformer: a U-shaped transformer with sparse attention between channels.

Chen et al., "Learning A Sparse Transformer Network for Effective Image Deraining", CVPR 2023.
Rainmer's backbone is this network; its views, prompts and fusion are what it adds. Section numbers
in the texts are those of Rainmer's model specification.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rainmer.config import nearest, to_mapping
from rainmer.errors import ConfigError, ImageError, WeightsError
from rainmer.models.layers import (
    ChannelNorm,
    Downsample,
    FeatureCompensator,
    MixedScaleFeedForward,
    SparseChannelAttention,
    TopkTies,
    Upsample,
    channel_conv,
    conv3x3,
)
from rainmer.models.network import Network, clean_state_dict, translate_official
from rainmer.models.rainmer_config import LayerNorm, RainmerConfig
from rainmer.models.rainmer_official import backbone_options, official_name
from rainmer.tiling import pad_to_multiple

__all__ = ["DRSformer", "DRSformerConfig"]

_CHANNELS = 3
_DOWNSAMPLING = 8  # of the bottleneck, relative to the first level

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
        topk_ties: Which of equal attention entries are kept: "lowest" index (equal on every device
            and to the published network on CUDA), or "native" as `torch.topk` picks.

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
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        checked = RainmerConfig(**own, views=(), spatial_channel=False)
        for name in own:  # lists have become tuples
            object.__setattr__(self, name, getattr(checked, name))

    @property
    def backbone(self) -> RainmerConfig:
        """The same network as Rainmer's configuration: no views, no fusion."""
        return RainmerConfig(**to_mapping(self), views=(), spatial_channel=False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of levels 1, 2, 3 and of the bottleneck."""
        return self.backbone.widths

    @property
    def rates(self) -> tuple[Fraction, ...]:
        """The sparse rates as exact fractions."""
        return self.backbone.rates


class _Block(nn.Module):
    """Attention and feed-forward with residuals (section 2.9, the encoder's block).

    Args:
        channels: Width of the features.
        heads: Attention heads.
        config: The network's options.
    """

    def __init__(self, channels: int, heads: int, config: DRSformerConfig) -> None:
        super().__init__()
        centred = config.layer_norm == "with_bias"
        self.norm1 = ChannelNorm(channels, bias=centred)
        self.attention = SparseChannelAttention(
            channels, heads, sparse_rates=config.rates, bias=config.bias, ties=config.topk_ties
        )
        self.norm2 = ChannelNorm(channels, bias=centred)
        self.feed_forward = MixedScaleFeedForward(channels, config.ffn_expansion, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = x + self.attention(self.norm1(x))
        return cast(Tensor, x + self.feed_forward(self.norm2(x)))


class DRSformer(Network):
    """The sparse transformer (section 3 without encoder, fusion and prompts).

    Args:
        config: The options; default: the published size.

    Example:
        >>> model = DRSformer(DRSformerConfig(dim=8, num_blocks=(1, 1, 1, 1))).eval()
        >>> model(torch.rand(1, 3, 21, 33)).shape
        torch.Size([1, 3, 21, 33])
    """

    name = "drsformer"
    size_multiple = _DOWNSAMPLING
    takes_query = False

    def __init__(self, config: DRSformerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DRSformerConfig()
        self.checkpointing = False
        """Whether training computes the blocks' activations twice instead of keeping them."""
        width1, width2, width3, width4 = config.widths
        self.embedding = conv3x3(_CHANNELS, width1, bias=False)
        self.compensator = FeatureCompensator(width1)
        self.encoder1 = self._level(0, width1)
        self.down1 = Downsample(width1)
        self.encoder2 = self._level(1, width2)
        self.down2 = Downsample(width2)
        self.encoder3 = self._level(2, width3)
        self.down3 = Downsample(width3)
        self.bottleneck = self._level(3, width4)
        self.up3 = Upsample(width4)
        self.reduce3 = channel_conv(width4, width3, bias=config.bias)
        self.decoder3 = self._level(2, width3)
        self.up2 = Upsample(width3)
        self.reduce2 = channel_conv(width3, width2, bias=config.bias)
        self.decoder2 = self._level(1, width2)
        self.up1 = Upsample(width2)
        # The last decoder level is as wide as both its inputs together: nothing is reduced.
        self.decoder1 = self._level(0, width2)
        self.refinement = FeatureCompensator(width2)
        self.output = conv3x3(width2, _CHANNELS, bias=config.bias)

    def _level(self, level: int, width: int) -> nn.ModuleList:
        heads, count = self.config.heads[level], self.config.num_blocks[level]
        return nn.ModuleList(_Block(width, heads, self.config) for _ in range(count))

    def forward(self, image: Tensor) -> Tensor:
        """Restore rainy images (B, 3, H, W), RGB, 0..1, any H and W; the output is not clamped.

        Sides are padded to multiples of 8 at the bottom and right, by reflection, and cropped.

        Raises:
            ImageError: The shape is another.
        """
        if image.ndim != 4 or image.shape[1] != _CHANNELS:
            raise ImageError(f"the image has shape {tuple(image.shape)}, expected (B, 3, H, W)")
        restored = self._restore(pad_to_multiple(image, _DOWNSAMPLING))
        return restored[..., : image.shape[2], : image.shape[3]]

    def _restore(self, image: Tensor) -> Tensor:
        """Run the U-shape on (B, 3, H, W), sides multiples of 8."""
        image = image.contiguous(memory_format=torch.channels_last)
        features = self.compensator(self.embedding(image))
        level1 = self._run(self.encoder1, features)
        level2 = self._run(self.encoder2, self.down1(level1))
        level3 = self._run(self.encoder3, self.down2(level2))
        features = self._run(self.bottleneck, self.down3(level3))
        features = self.reduce3(torch.cat((self.up3(features), level3), dim=1))
        features = self._run(self.decoder3, features)
        features = self.reduce2(torch.cat((self.up2(features), level2), dim=1))
        features = self._run(self.decoder2, features)
        features = self._run(self.decoder1, torch.cat((self.up1(features), level1), dim=1))
        return cast(Tensor, self.output(self.refinement(features)) + image)

    def _run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        for block in blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x

    def config_mapping(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return to_mapping(self.config)

    @classmethod
    def from_mapping(cls: type[_AnyDRSformer], mapping: Mapping[str, Any]) -> _AnyDRSformer:
        """Build the network from the fields of `DRSformerConfig`; raises ConfigError."""
        fields = {field.name for field in dataclasses.fields(DRSformerConfig)}
        for key in mapping:  # values are checked by the configuration
            if key not in fields:
                raise ConfigError(f"DRSformer has no option {key!r}: {nearest(str(key), fields)}")
        return cls(DRSformerConfig(**mapping))

    @classmethod
    def from_official(
        cls: type[_AnyDRSformer],
        state_dict: Mapping[str, Any],
        config: DRSformerConfig | None = None,
    ) -> _AnyDRSformer:
        """Build the network with the weights of a published checkpoint.

        Args:
            state_dict: A state dict, or a training checkpoint that has one under "model".
            config: The options; by default they are read off the keys and shapes.

        Raises:
            WeightsError: The keys or shapes are of another network or configuration, or do not
                tell an option.
        """
        weights = clean_state_dict(state_dict)
        with torch.device("meta"):  # a wrong file is refused before memory is taken
            model = cls(config or _config_of(weights))
        translated = translate_official(model, model.official_names(), weights)
        model.to_empty(device="cpu").load_state_dict(translated)
        return model

    def load_official(self, state_dict: Mapping[str, Any]) -> None:
        """Load the weights of a published checkpoint of the same configuration.

        Raises:
            WeightsError: Keys are missing or of another network, or shapes differ.
        """
        weights = clean_state_dict(state_dict)
        self.load_state_dict(translate_official(self, self.official_names(), weights))

    def official_names(self) -> dict[str, str]:
        """Return the published key of every weight, by our key."""
        backbone = self.config.backbone
        return {name: official_name(name, backbone) for name in self.state_dict()}


def _config_of(weights: Mapping[str, Tensor]) -> DRSformerConfig:
    """Read the options off published weights; the published size where a key is missing.

    Loading then lists what differs.

    Raises:
        WeightsError: An option cannot be told, or contradicts the others.
    """
    try:
        return DRSformerConfig(**backbone_options(weights))
    except KeyError:
        return DRSformerConfig()
    except (ConfigError, IndexError) as error:
        raise WeightsError(f"the weights do not fit drsformer: {error}") from error
