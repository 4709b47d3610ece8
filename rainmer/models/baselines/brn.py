"""BRN: two recurrent branches, for the rain and for the background, that see each other's state.

Ren et al., "Single Image Deraining Using Bilateral Recurrent Network", IEEE Transactions on Image
Processing 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rainmer.config import check_integer
from rainmer.models.baselines.recurrent import (
    GATES,
    RecurrentNetwork,
    ResidualUnit,
    lstm_step,
)
from rainmer.models.layers import conv3x3
from rainmer.models.network import ConfiguredNetwork

__all__ = ["BRN", "BRNConfig"]

_CHANNELS = 3
_WIDTH = 32
_RAIN_UNITS = 3
_BACKGROUND_UNITS = 5


@dataclass(frozen=True, kw_only=True)
class BRNConfig:
    """The option of BRN.

    Attributes:
        iterations: Number of iterations of both branches; 8 in the published weights.

    Raises:
        ConfigError: It is not a positive whole number.
    """

    iterations: int = 8

    def __post_init__(self) -> None:
        check_integer("iterations", self.iterations, 1)


class _State(NamedTuple):
    """What a branch passes to its next iteration; `cell` is None before the first one."""

    image: Tensor  # B, 3, H, W
    hidden: Tensor  # B, 32, H, W
    cell: Tensor | None  # B, 32, H, W


class _Branch(nn.Module):
    """An LSTM over convolutional features, and residual units from its state to an image.

    Args:
        images: Number of input images.
        units: Number of residual units.
    """

    def __init__(self, images: int, units: int) -> None:
        super().__init__()
        self.entry = conv3x3(images * _CHANNELS, _WIDTH, bias=True)
        # Features and both branches' hidden states give the four gates by one convolution.
        self.gates = conv3x3(3 * _WIDTH, len(GATES) * _WIDTH, bias=True)
        self.residuals = nn.ModuleList(ResidualUnit(_WIDTH) for _ in range(units))
        self.output = conv3x3(_WIDTH, _CHANNELS, bias=True)

    def forward(self, images: tuple[Tensor, ...], state: _State, other_hidden: Tensor) -> _State:
        """Run one iteration on images (B, 3, H, W) and the other branch's (B, 32, H, W)."""
        features = self.entry(torch.cat(images, dim=1)).relu_()
        gates = self.gates(torch.cat((features, state.hidden, other_hidden), dim=1))
        hidden, cell = lstm_step(gates, state.cell)
        features = hidden
        for unit in self.residuals:
            features = unit(features)
        return _State(self.output(features), hidden, cell)


class BRN(RecurrentNetwork, ConfiguredNetwork):
    """The bilateral recurrent network (section 2 of the baselines' specification).

    The rain branch runs first in each iteration; its new image and state steer the background
    branch, whose state steers the rain branch of the next one.

    Args:
        config: The option; default: 8 iterations.

    Example:
        >>> model = BRN(BRNConfig(iterations=2)).eval()
        >>> model(torch.rand(1, 3, 7, 13)).shape
        torch.Size([1, 3, 7, 13])
    """

    name = "brn"
    size_multiple = 1
    takes_query = False
    config_class = BRNConfig
    branches = {  # noqa: RUF012 (declared as ClassVar in the base class)
        "rain.": ("_r", _RAIN_UNITS),
        "background.": ("", _BACKGROUND_UNITS),
    }
    config: BRNConfig

    def __init__(self, config: BRNConfig | None = None) -> None:
        super().__init__(config)
        self.rain = _Branch(2, _RAIN_UNITS)
        self.background = _Branch(3, _BACKGROUND_UNITS)

    def forward(self, image: Tensor) -> Tensor:
        """Restore rainy images (B, 3, H, W), RGB, 0..1, any H and W; the output is not clamped."""
        image = image.contiguous(memory_format=torch.channels_last)
        batch, _, height, width = image.shape
        zero = image.new_zeros(batch, _WIDTH, height, width)
        rain = background = _State(image, zero, None)
        for _ in range(self.config.iterations):
            rain = self.rain((image, rain.image), rain, background.hidden)
            images = (image, background.image, rain.image)
            background = self.background(images, background, rain.hidden)
        return background.image
