"""Rainmer: a sparse transformer for deraining, steered by learned views of the rain.

"Learning multi-view representations for comprehensive image deraining and beyond", ACM MM 2024.
Section numbers refer to the model specification. One class with options covers
the published network and all its ablations: see `RainmerConfig`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rainmer.errors import ImageError
from rainmer.frames.tiling import pad_to_multiple
from rainmer.models.blocks import TransformerBlock
from rainmer.models.checkpoints import bare_weights
from rainmer.models.fused import FusedCompensator, FusedTransformerBlock
from rainmer.models.layers import (
    LEAKY_SLOPE,
    Downsample,
    FeatureCompensator,
    SqueezeResidual,
    Upsample,
    channel_conv,
    conv3x3,
    global_average,
)
from rainmer.models.network import Network, translate_official
from rainmer.models.rainmer_config import RainmerConfig
from rainmer.models.rainmer_official import config_from_official, official_name

__all__ = [
    "QUERY_SIZE_HW",
    "Rainmer",
    "SparseUNet",
    "ViewEncoder",
    "check_image",
    "prompts_of_maps",
]

QUERY_SIZE_HW = (128, 128)
"""Size of the query image: the whole frame, its aspect ratio ignored."""

_CHANNELS = 3
_DOWNSAMPLING = 8  # of the bottleneck, relative to the first level
_MOMENTUM_ENCODER = "disentangle.encoder_k."

_AnySparseUNet = TypeVar("_AnySparseUNet", bound="SparseUNet")
_AnyRainmer = TypeVar("_AnyRainmer", bound="Rainmer")


class ViewEncoder(nn.Module):
    """Encoder of the views of an image: a location map, and a map per prompting view (2.6).

    Args:
        config: The network's options. The location map is `dim` wide, the view maps `base_dim`;
            each prompting view has a head, in the order of the prompts.
    """

    def __init__(self, config: RainmerConfig) -> None:
        super().__init__()
        self.stride = config.entry_stride
        self.embedding = conv3x3(_CHANNELS * self.stride**2, config.dim, bias=True)
        self.compensator = FeatureCompensator(config.dim, config.compensator_steps)
        self.heads = nn.ModuleDict(
            {view: _view_head(config.dim, config.base_dim) for view in config.prompt_views}
        )

    def location(self, image: Tensor) -> Tensor:
        """Return the location map (B, dim, H/s, W/s) of an image (B, 3, H, W), s: entry stride."""
        return cast(Tensor, self.compensator(_embed(self.embedding, image, self.stride)))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return maps (B, base_dim, H/s, W/s) of an image (B, 3, H, W), by name of the view.

        The global average of a map is the view's contrastive feature, the average scaled to unit
        length its prompt; the detail view is the degradation map at a lower resolution.
        """
        location = self.location(image)
        return {view: head(location) for view, head in self.heads.items()}


def _view_head(dim: int, base_dim: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(dim, base_dim, bias=True), nn.LeakyReLU(LEAKY_SLOPE), SqueezeResidual(base_dim)
    )


def prompts_of_maps(maps: Mapping[str, Tensor]) -> Tensor:
    """Turn the maps of an encoder (B, C, H, W) into unit-length prompts (B, P, C), float32."""
    averages = torch.stack([global_average(view_map) for view_map in maps.values()], dim=1)
    return F.normalize(averages.to(torch.promote_types(averages.dtype, torch.float32)), dim=-1)


class LocationChannelInteraction(nn.Module):
    """Fuse the location map into the features of the first level (section 2.7)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.location_hidden = conv3x3(dim, dim, bias=True)
        self.location_out = conv3x3(dim, dim, bias=True)
        self.channel_hidden = nn.Linear(dim, dim)
        self.channel_out = nn.Linear(dim, dim)

    def forward(self, location: Tensor, features: Tensor) -> Tensor:
        """Fuse two maps (B, dim, H, W) to one."""
        hidden = F.leaky_relu(self.location_hidden(location), LEAKY_SLOPE)
        pixels = self._mean_of_location_out(hidden)
        pooled = F.leaky_relu(self.channel_hidden(global_average(features)), LEAKY_SLOPE)
        channels: Tensor = self.channel_out(pooled)[:, :, None, None]
        return (pixels * features).sigmoid() * location + (channels * location).sigmoid() * features

    def _mean_of_location_out(self, hidden: Tensor) -> Tensor:
        """Return the mean over the channels of `location_out`, by averaging its weights."""
        weight = self.location_out.weight.mean(0, keepdim=True)
        bias = cast(Tensor, self.location_out.bias).mean(0, keepdim=True)
        return F.conv2d(hidden, weight, bias, padding=1)


class SparseUNet(Network):
    """The U-shape of sparse transformer blocks, which Rainmer shares with DRSformer (section 3)."""

    checkpointing = False
    """Whether training recomputes the blocks' activations instead of storing them."""

    def _build(self, config: RainmerConfig) -> None:
        """Make the layers, in the order of the published networks."""
        self.stride = config.entry_stride
        self.size_multiple = _DOWNSAMPLING * self.stride
        width1, width2, width3, width4 = config.widths
        entry_channels = _CHANNELS * self.stride**2
        self.embedding = conv3x3(entry_channels, width1, bias=False)
        self.compensator = FeatureCompensator(width1, config.compensator_steps)
        self.encoder1 = _level(config, 0, width1)
        self.down1 = Downsample(width1)
        self.encoder2 = _level(config, 1, width2)
        self.down2 = Downsample(width2)
        self.encoder3 = _level(config, 2, width3)
        self.down3 = Downsample(width3)
        self.bottleneck = _level(config, 3, width4)
        self.up3 = Upsample(width4)
        self.reduce3 = channel_conv(width4, width3, bias=config.bias)
        self.decoder3 = _level(config, 2, width3, prompted=True)
        self.up2 = Upsample(width3)
        self.reduce2 = channel_conv(width3, width2, bias=config.bias)
        self.decoder2 = _level(config, 1, width2, prompted=True)
        self.up1 = Upsample(width2)
        # The last decoder level is as wide as both its inputs together: nothing is reduced.
        self.decoder1 = _level(config, 0, width2, prompted=True)
        self.refinement = FeatureCompensator(width2, config.compensator_steps)
        self.output = conv3x3(width2, entry_channels, bias=config.bias)

    def fuse(self: _AnySparseUNet) -> _AnySparseUNet:
        """Return a copy for inference only: the same function up to rounding, faster and smaller.

        Consecutive linear maps are merged (`rainmer.models.fused`), so its weights have other names
        and shapes. It is on the same device, has no gradients, and cannot be trained or saved. A
        network that is already fused is returned unchanged.
        """
        if self.fused:
            return self
        fused = copy.deepcopy(self).eval().requires_grad_(False)
        fused.fused = True
        for module in list(fused.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, TransformerBlock):
                    module.register_module(name, FusedTransformerBlock(child))
                elif isinstance(child, FeatureCompensator):
                    module.register_module(name, FusedCompensator(child))
        return fused

    def _interact(self, image: Tensor, features: Tensor) -> Tensor:
        """Return the features (B, dim, H/s, W/s) that enter the first level."""
        return features

    def _restore(self, image: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Run the U-shape, also in training; both sides must be multiples of `size_multiple`."""
        image = _channels_last(image)
        features = self.compensator(_embed(self.embedding, image, self.stride))
        level1 = self._run(self.encoder1, self._interact(image, features))
        level2 = self._run(self.encoder2, self.down1(level1))
        level3 = self._run(self.encoder3, self.down2(level2))
        features = self._run(self.bottleneck, self.down3(level3))
        features = self.reduce3(torch.cat((self.up3(features), level3), dim=1))
        features = self._run(self.decoder3, features, prompts)
        features = self.reduce2(torch.cat((self.up2(features), level2), dim=1))
        features = self._run(self.decoder2, features, prompts)
        features = torch.cat((self.up1(features), level1), dim=1)
        features = self._run(self.decoder1, features, prompts)
        return _leave(self.output(self.refinement(features)), self.stride) + image

    def _run(self, blocks: nn.ModuleList, x: Tensor, prompts: Tensor | None = None) -> Tensor:
        for block in blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, prompts, use_reentrant=False)
            else:
                x = block(x, prompts)
        return x


def _level(
    config: RainmerConfig, level: int, width: int, *, prompted: bool = False
) -> nn.ModuleList:
    heads, count = config.heads[level], config.num_blocks[level]
    return nn.ModuleList(
        TransformerBlock(width, heads, config, prompted=prompted) for _ in range(count)
    )


class Rainmer(SparseUNet):
    """The network of sections 1 to 4.

    The momentum encoder of contrastive training is not part of it: the training loop holds one, and
    the copy in published checkpoints is ignored.

    Args:
        config: The options; default: the published size of the variant "sum".

    Example:
        >>> model = Rainmer(RainmerConfig(dim=8, base_dim=16, num_blocks=(1, 1, 1, 1))).eval()
        >>> model(torch.rand(1, 3, 21, 33)).shape
        torch.Size([1, 3, 21, 33])
    """

    name = "rainmer"
    takes_query = True

    encoder: ViewEncoder | None
    interaction: LocationChannelInteraction | None

    def __init__(self, config: RainmerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RainmerConfig()
        self._build(config)
        needs_encoder = config.spatial_channel or bool(config.prompt_views)
        self.encoder = ViewEncoder(config) if needs_encoder else None
        self.interaction = (
            LocationChannelInteraction(config.dim) if config.spatial_channel else None
        )

    def forward(
        self, image: Tensor, query: Tensor | None = None, *, prompts: Tensor | None = None
    ) -> Tensor:
        """Restore images.

        Args:
            image: Rainy images or tiles (B, 3, H, W), RGB, 0..1, any H and W. Sides are padded to
                `size_multiple` at the bottom and right, by reflection, and cropped again.
            query: The whole frames, resized to about 128x128: (B, 3, h, w), or one for all,
                (1, 3, h, w). Default: `image` resized, which is right when `image` is the frame.
            prompts: Result of `prompts`, used in place of the query: (B or 1, P, base_dim).
                P = 0 restores without prompts.

        Returns:
            Restored images (B, 3, H, W), not clamped to 0..1.

        Raises:
            ImageError: The shapes do not match.
        """
        check_image("image", image)
        if prompts is None:
            prompts = self.prompts(self.default_query(image) if query is None else query)
        elif query is not None:
            raise ImageError("give either a query or its prompts, not both")
        self._check_prompts(prompts, image)
        padded = pad_to_multiple(image, self.size_multiple)
        restored = self._restore(padded, prompts)
        return restored[..., : image.shape[2], : image.shape[3]]

    @staticmethod
    def default_query(image: Tensor) -> Tensor:
        """Resize images (B, 3, H, W) to the query size: bilinear, without antialiasing."""
        return F.interpolate(image, QUERY_SIZE_HW, mode="bilinear", align_corners=False)

    def prompts(self, query: Tensor) -> Tensor:
        """Compute the prompts of a query.

        Args:
            query: Whole frames resized to about 128x128: (B, 3, h, w), RGB, 0..1.

        Returns:
            Unit-length vectors (B, P, base_dim), chromatic first; P is 0 without prompting views.
        """
        check_image("query", query)
        if self.encoder is None or not self.config.prompt_views:
            return query.new_zeros(query.shape[0], 0, self.config.base_dim)
        return prompts_of_maps(self.encoder(_channels_last(query)))

    def _check_prompts(self, prompts: Tensor, image: Tensor) -> None:
        counts = {0, len(self.config.prompt_views)}
        batches = {1, image.shape[0]}
        if (
            prompts.ndim != 3
            or prompts.shape[0] not in batches
            or prompts.shape[1] not in counts
            or prompts.shape[2] != self.config.base_dim
        ):
            raise ImageError(
                f"prompts of shape {tuple(prompts.shape)} do not fit {image.shape[0]} images: "
                f"expected ({' or '.join(map(str, sorted(batches)))}, "
                f"{' or '.join(map(str, sorted(counts)))}, {self.config.base_dim})"
            )

    def _interact(self, image: Tensor, features: Tensor) -> Tensor:
        if self.interaction is None or self.encoder is None:
            return features
        return cast(Tensor, self.interaction(self.encoder.location(image), features))

    def config_mapping(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return self.config.to_mapping()

    @classmethod
    def from_mapping(cls: type[_AnyRainmer], mapping: Mapping[str, Any]) -> _AnyRainmer:
        """Build the network from the fields of `RainmerConfig`; raises ConfigError."""
        return cls(RainmerConfig.from_mapping(mapping))

    @classmethod
    def from_official(
        cls: type[_AnyRainmer],
        state_dict: Mapping[str, Any],
        config: RainmerConfig | None = None,
    ) -> _AnyRainmer:
        """Build the network with the weights of a published checkpoint.

        Args:
            state_dict: A state dict, or a training checkpoint that has one inside.
            config: The options. By default they are inferred from the keys and shapes. Options that
                cannot be inferred get the values of the variant that the keys show: "sum" (whose
                ablations "wochr", "wodetg", "wolocf" and "baseline" have the same kind of keys),
                "chralpha", "detgalpha" or "detgalpha_resprompt".

        Raises:
            WeightsError: The keys or shapes belong to another network or configuration.
        """
        weights = bare_weights(state_dict)
        with torch.device("meta"):  # refuse a wrong file before allocating memory
            model = cls(config or config_from_official(weights))
        translated = model._translate_official(weights)
        model.to_empty(device="cpu").load_state_dict(translated)
        return model

    def load_official(self, state_dict: Mapping[str, Any]) -> None:
        """Load the weights of a published checkpoint of the same configuration.

        Weights that have no effect in this configuration (section 7) and the momentum encoder are
        accepted and left out.

        Raises:
            WeightsError: Keys are missing or unexpected, or shapes differ.
        """
        self.load_state_dict(self._translate_official(bare_weights(state_dict)))

    def _translate_official(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Check published weights and convert them to our keys and shapes."""
        weights = {k: v for k, v in weights.items() if not k.startswith(_MOMENTUM_ENCODER)}
        names = self.official_names()
        surplus = weights.keys() - set(names.values())
        ignorable = self._names_without_effect() if surplus else ()
        return translate_official(self, names, weights, ignorable)

    def official_names(self) -> dict[str, str]:
        """Return the published key of every weight, by our key."""
        return {name: official_name(name, self.config) for name in self.state_dict()}

    def _names_without_effect(self) -> set[str]:
        """Return the published keys of a network with all views and the fusion."""
        complete = dataclasses.replace(
            self.config, views=("chromatic", "degradation", "detail"), spatial_channel=True
        )
        with torch.device("meta"):
            return set(Rainmer(complete).official_names().values())


def _embed(embedding: nn.Module, image: Tensor, stride: int) -> Tensor:
    """Turn an image into features, in the dtype of the weights."""
    image = image.to(next(embedding.parameters()).dtype)
    entering = image if stride == 1 else _channels_last(F.pixel_unshuffle(image, stride))
    return cast(Tensor, embedding(entering))


def _leave(correction: Tensor, stride: int) -> Tensor:
    return correction if stride == 1 else F.pixel_shuffle(correction, stride)


def _channels_last(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)


def check_image(role: str, image: Tensor) -> None:
    """Raise ImageError unless the shape is (B, 3, H, W)."""
    if image.ndim != 4 or image.shape[1] != _CHANNELS:
        raise ImageError(f"the {role} has shape {tuple(image.shape)}, expected (B, 3, H, W)")
