"""RCDNet: a rain convolutional dictionary, unfolded proximal gradient steps as a network.

Wang et al., "A Model-driven Deep Neural Network for Single Image Rain Removal", CVPR 2020. Rain is
a sum of a few streak kernels (the dictionary), each convolved with a map of where it falls; stages
refine the maps and the background in turn. Section 3 of the baselines' specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.config import check_integer
from rainmer.models.checkpoints import bare_weights
from rainmer.models.layers import conv3x3
from rainmer.models.network import RenamedNetwork

__all__ = ["RCDNet", "RCDNetConfig", "RainDecomposition", "rcdnet_loss"]

_CHANNELS = 3
_MAPS = 32
_KERNEL_FILE = Path(__file__).with_name("rcdnet_kernels.safetensors")
"""The published initial dictionary, 32 x 9 x 9: streaks of many lengths, widths and angles."""
_KERNEL_PADDING = 4
_SCALE = 10.0
"""Kernels and step sizes are stored this many times larger than they are used."""
_LEVELS = 255.0
_STAGE_WEIGHT = 0.1

_AnyRCDNet = TypeVar("_AnyRCDNet", bound="RCDNet")


@dataclass(frozen=True, kw_only=True)
class RCDNetConfig:
    """The options of RCDNet; the defaults are the published size.

    Attributes:
        stages: Unfolded iterations.
        extra_channels: Channels that the background has besides its three colours.
        blocks: Residual blocks of each proximal network.

    Raises:
        ConfigError: A value is not a positive whole number.
    """

    stages: int = 17
    extra_channels: int = 32
    blocks: int = 4

    def __post_init__(self) -> None:
        for field in ("stages", "extra_channels", "blocks"):
            check_integer(field, getattr(self, field), 1)


class RainDecomposition(NamedTuple):
    """The parts of an image; values 0..255, tensors (B, 3, H, W).

    Attributes:
        entry: The background before the first stage.
        backgrounds: The background after each stage, and the final one: stages + 1 tensors.
        rain_layers: The rain that each stage removes: one tensor per stage.
    """

    entry: Tensor
    backgrounds: list[Tensor]
    rain_layers: list[Tensor]


class _ResidualBlock(nn.Module):
    """Two convolutions with batch norm and a skip connection, then a ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels, bias=True)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, bias=True)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        branch: Tensor = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (x + branch).relu()


class _BackgroundNet(nn.Module):
    """Learned proximal operator of the background: residual blocks."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_ResidualBlock(channels) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        for block in self.blocks:
            x = block(x)
        return x


class _MapNet(_BackgroundNet):
    """Learned proximal operator of the rain maps: residual blocks, then a soft threshold.

    The maps are not negative, so one side of the threshold is enough.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__(channels, blocks)
        self.threshold = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return (super().forward(x) - self.threshold).relu()


class RCDNet(RenamedNetwork):
    """The unfolded network. It works on values 0..255 inside; images are 0..1 as everywhere.

    In training its batch norms use, and update, the statistics of the batch.

    Args:
        config: The options; default: the published size, 17 stages.

    Attributes:
        entry_dictionary: Kernels (3, 32, 9, 9) that give the first maps.
        dictionary: Kernels (3, 32, 9, 9) of the rain in all stages. The published code lets both
            share memory on the CPU, by accident; here they are independent, as on a GPU.

    Example:
        >>> model = RCDNet(RCDNetConfig(stages=2, extra_channels=3, blocks=1)).eval()
        >>> model(torch.rand(1, 3, 7, 13)).shape
        torch.Size([1, 3, 7, 13])
    """

    name = "rcdnet"
    size_multiple = 1
    takes_query = False
    config_class = RCDNetConfig
    config: RCDNetConfig

    def __init__(self, config: RCDNetConfig | None = None) -> None:
        super().__init__(config)
        config = self.config
        extra = config.extra_channels
        width = _CHANNELS + extra
        self.entry_dictionary = nn.Parameter(_initial_dictionary())
        self.dictionary = nn.Parameter(_initial_dictionary())
        # The first maps come from the excess over the entry background, above this threshold.
        self.entry_threshold = nn.Parameter(torch.ones(1))
        self.extra_filters = nn.Parameter(torch.full((extra, _CHANNELS, 3, 3), 1 / 9))
        # Step sizes; the first stage has no earlier maps to step from.
        self.map_steps = nn.Parameter(torch.ones(config.stages - 1))
        self.background_steps = nn.Parameter(torch.full((config.stages,), 5.0))
        self.entry_net = _BackgroundNet(width, config.blocks)
        self.map_nets = nn.ModuleList(_MapNet(_MAPS, config.blocks) for _ in range(config.stages))
        self.background_nets = nn.ModuleList(
            _BackgroundNet(width, config.blocks) for _ in range(config.stages)
        )
        self.exit_net = _BackgroundNet(width, config.blocks)

    def forward(self, image: Tensor) -> Tensor:
        """Restore rainy images (B, 3, H, W), RGB, 0..1, any H and W; the output is not clamped."""
        return self.decompose(image * _LEVELS).backgrounds[-1] / _LEVELS

    def training_loss(self, rainy: Tensor, clean: Tensor) -> Tensor:
        """Return the published loss of rainy and clean images (B, 3, H, W), 0..1: a scalar."""
        rainy, clean = rainy * _LEVELS, clean * _LEVELS
        return rcdnet_loss(self.decompose(rainy), rainy, clean)

    def decompose(self, rainy: Tensor) -> RainDecomposition:
        """Decompose rainy images (B, 3, H, W), values 0..255, into background and rain."""
        rainy = rainy.contiguous(memory_format=torch.channels_last)
        extra = F.conv2d(rainy, self.extra_filters, padding=1)
        state = self.entry_net(torch.cat((rainy, extra), dim=1))
        entry = background = state[:, :_CHANNELS]
        excess = (rainy - background - self.entry_threshold).relu()
        maps = _correlate(excess, self.entry_dictionary)
        decomposition = RainDecomposition(entry, [], [])
        for stage in range(self.config.stages):
            if stage:
                residual = decomposition.rain_layers[-1] - (rainy - background)
                step = self.map_steps[stage - 1] / _SCALE
                maps = maps - step * _correlate(residual, self.dictionary)
            maps = self.map_nets[stage](maps)
            rain = F.conv2d(maps, self.dictionary / _SCALE, padding=_KERNEL_PADDING)
            step = self.background_steps[stage] / _SCALE
            mixed = (1 - step) * background + step * (rainy - rain)
            state = torch.cat((mixed, state[:, _CHANNELS:]), dim=1)
            state = self.background_nets[stage](state)
            background = state[:, :_CHANNELS]
            decomposition.backgrounds.append(background)
            decomposition.rain_layers.append(rain)
        decomposition.backgrounds.append(self.exit_net(state)[:, :_CHANNELS])
        return decomposition

    @classmethod
    def from_official(cls: type[_AnyRCDNet], state_dict: Mapping[str, Any]) -> _AnyRCDNet:
        """Build the network of a published checkpoint; its options are read off the shapes.

        Raises:
            WeightsError: The keys or shapes belong to another network.
        """
        model = cls(_config_of(bare_weights(state_dict)))
        model.load_official(state_dict)
        return model

    def _official_name(self, name: str) -> str:
        return ".".join(_OWN_PARTS.get(part, part) for part in name.split("."))


def rcdnet_loss(decomposition: RainDecomposition, rainy: Tensor, clean: Tensor) -> Tensor:
    """Return the published training loss: squared errors of all backgrounds and rain layers.

    `0.1 mse(b0, y) + 0.1 sum_s mse(b_s, y) + mse(b_end, y)` for the backgrounds, and
    `0.1 sum_s mse(r_s, x - y) + 0.9 mse(r_S, x - y)` for the rain, of rainy x and clean y.

    Args:
        decomposition: Result of `RCDNet.decompose` for `rainy`.
        rainy: Rainy images (B, 3, H, W), values 0..255.
        clean: Clean images of the same shape and range.

    Returns:
        A scalar.
    """
    *stages, final = decomposition.backgrounds
    rain = rainy - clean
    backgrounds = torch.stack([F.mse_loss(b, clean) for b in (decomposition.entry, *stages)])
    layers = torch.stack([F.mse_loss(layer, rain) for layer in decomposition.rain_layers])
    staged = _STAGE_WEIGHT * (backgrounds.sum() + layers.sum())
    return staged + F.mse_loss(final, clean) + (1 - _STAGE_WEIGHT) * layers[-1]


def _correlate(images: Tensor, kernels: Tensor) -> Tensor:
    """Correlate (B, 3, H, W) with kernels (3, 32, 9, 9): the transpose of generating rain."""
    return F.conv_transpose2d(images, kernels / _SCALE, padding=_KERNEL_PADDING)


def _initial_dictionary() -> Tensor:
    """Read the published initial dictionary: the same 32 kernels for the three colours."""
    kernels: Tensor = safetensors.torch.load_file(_KERNEL_FILE)["kernels"]
    return kernels.expand(_CHANNELS, -1, -1, -1).clone()


_OWN_PARTS = {
    "entry_dictionary": "c0",
    "dictionary": "c",
    "entry_threshold": "tau",
    "extra_filters": "cz",
    "map_steps": "m_step",
    "background_steps": "b_step",
    "entry_net": "proxNet_B_0",
    "map_nets": "proxNet_M_S",
    "background_nets": "proxNet_B_S",
    "exit_net": "proxNet_B_L",
    "threshold": "tau",
    "blocks": "layer",
    "conv1": "0",
    "norm1": "1",
    "conv2": "3",
    "norm2": "4",
}
"""Published names for parts of our keys; other parts are the same."""


def _config_of(weights: Mapping[str, Tensor]) -> RCDNetConfig:
    """Read the options off published weights; the published size where a key is missing.

    Loading then lists the differences.
    """
    try:
        extra_channels = weights["cz"].shape[0]
        stages = weights["b_step"].shape[0]
    except (KeyError, IndexError):
        return RCDNetConfig()
    blocks = 0
    while f"proxNet_B_0.layer.{blocks}.0.weight" in weights:
        blocks += 1
    if not (extra_channels and stages and blocks):
        return RCDNetConfig()
    return RCDNetConfig(stages=stages, extra_channels=extra_channels, blocks=blocks)
