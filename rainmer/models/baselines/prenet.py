"""PReNet: a recurrent network for deraining with few weights.

Ren et al., "Progressive Image Deraining Networks: A Better and Simpler Baseline", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.config import refuse_unknown_options
from rainmer.errors import ConfigError
from rainmer.models.baselines.recurrent import (
    GATES,
    RecurrentNetwork,
    ResidualUnit,
    lstm_step,
)
from rainmer.models.layers import conv3x3

__all__ = ["PReNet"]

_CHANNELS = 3
_WIDTH = 32
_RESIDUAL_UNITS = 5

_AnyPReNet = TypeVar("_AnyPReNet", bound="PReNet")


class PReNet(RecurrentNetwork):
    """The recurrent network: the same layers refine the image in every iteration.

    Without gradients, operations work in place: on a CPU, allocating maps of a frame's size costs
    more than the arithmetic on them.

    Args:
        iterations: Number of iterations; 6 in the published weights.
    """

    name = "prenet"
    size_multiple = 1
    takes_query = False
    branches = {"": ("", _RESIDUAL_UNITS)}  # noqa: RUF012 (declared as ClassVar in the base class)

    def __init__(self, iterations: int = 6) -> None:
        super().__init__()
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ConfigError(f"iterations is {iterations!r}, but must be a whole number above 0")
        self.iterations = iterations
        self.entry = conv3x3(2 * _CHANNELS, _WIDTH, bias=True)
        # One convolution computes the four gates of the LSTM from the input and the hidden state.
        self.gates = conv3x3(2 * _WIDTH, len(GATES) * _WIDTH, bias=True)
        self.residuals = nn.ModuleList(ResidualUnit(_WIDTH) for _ in range(_RESIDUAL_UNITS))
        self.output = conv3x3(_WIDTH, _CHANNELS, bias=True)

    def forward(self, image: Tensor) -> Tensor:
        """Restore rainy images (B, 3, H, W), RGB, 0..1, any H and W; the output is not clamped."""
        image = image.contiguous(memory_format=torch.channels_last)
        restored, hidden, cell = image, None, None
        for _ in range(self.iterations):
            features = self.entry(torch.cat((image, restored), dim=1)).relu_()
            hidden, cell = self._update(features, hidden, cell)
            features = hidden
            for unit in self.residuals:
                features = unit(features)
            restored = self.output(features) + image
        return restored

    def _update(
        self, features: Tensor, hidden: Tensor | None, cell: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run the LSTM: maps (B, 32, H, W) to the next hidden and cell maps."""
        if hidden is None:
            # The hidden state is zero at first: its half of the weights has no effect.
            weight = self.gates.weight[:, :_WIDTH]
            gates = F.conv2d(features, weight, self.gates.bias, padding=1)
        else:
            gates = self.gates(torch.cat((features, hidden), dim=1))
        return lstm_step(gates, cell)

    def config_mapping(self) -> dict[str, Any]:
        """Return the options as plain values."""
        return {"iterations": self.iterations}

    @classmethod
    def from_mapping(cls: type[_AnyPReNet], mapping: Mapping[str, Any]) -> _AnyPReNet:
        """Build the network from plain values; raises ConfigError."""
        refuse_unknown_options("PReNet", mapping, ["iterations"])
        return cls(**mapping)
