"""Shared by the recurrent networks PReNet and BRN: their blocks, and their published weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from rainmer.models.checkpoints import bare_weights
from rainmer.models.layers import conv3x3
from rainmer.models.network import Network, refuse_mismatch

__all__ = ["GATES", "RecurrentNetwork", "ResidualUnit", "lstm_step"]

GATES = "ifog"
"""Order of the gates in the stacked convolution: the three with a sigmoid first."""

_KINDS = ("weight", "bias")

_AnyRecurrent = TypeVar("_AnyRecurrent", bound="RecurrentNetwork")


def lstm_step(gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
    """Update the state of a convolutional LSTM: `c = f c + i g`, `h = o tanh(c)`.

    Args:
        gates: The gates (B, 4C, H, W) before activation, in the order of `GATES`. Overwritten when
            no gradient is recorded: allocating maps costs more than the arithmetic.
        cell: The cell map (B, C, H, W); None: zero, as before the first iteration.

    Returns:
        The next hidden map and the next cell map, (B, C, H, W) each.
    """
    width = gates.shape[1] // len(GATES)
    logistic, candidate = gates[:, :-width], gates[:, -width:]
    if gates.requires_grad:
        logistic, candidate = logistic.sigmoid(), candidate.tanh()
    else:
        logistic, candidate = logistic.sigmoid_(), candidate.tanh_()
    write, forget, read = logistic.chunk(len(GATES) - 1, dim=1)
    cell = write * candidate if cell is None else (forget * cell).addcmul_(write, candidate)
    squashed = cell.tanh()
    return (read * squashed if squashed.requires_grad else squashed.mul_(read)), cell


class ResidualUnit(nn.Module):
    """Two convolutions, each followed by a ReLU, with a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels, bias=True)
        self.conv2 = conv3x3(channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        branch: Tensor = self.conv2(self.conv1(x).relu_()).relu_()
        return (branch + x if branch.requires_grad else branch.add_(x)).relu_()


class RecurrentNetwork(Network):
    """A network of recurrent branches, each an LSTM with residual units.

    Published checkpoints hold the four gates of an LSTM as separate convolutions; here they are
    stacked into one.
    """

    branches: ClassVar[Mapping[str, tuple[str, int]]]
    """By prefix of our keys: the suffix of published layer names, and the number of units."""

    @classmethod
    def from_official(cls: type[_AnyRecurrent], state_dict: Mapping[str, Any]) -> _AnyRecurrent:
        """Build the network of default size with published weights; raises WeightsError."""
        model = cls()
        model.load_official(state_dict)
        return model

    def load_official(self, state_dict: Mapping[str, Any]) -> None:
        """Load published weights.

        Raises:
            WeightsError: Keys are missing or unexpected, or shapes differ.
        """
        weights = bare_weights(state_dict)
        refuse_mismatch(self.name, self.official_shapes(), weights)
        ours = {name: weights[official] for name, official in self._official_names().items()}
        for name, parts in self._official_gates():
            ours[name] = torch.cat([weights[part] for part in parts])
        self.load_state_dict(ours)

    def official_shapes(self) -> dict[str, torch.Size]:
        """Return the keys and shapes of published weights."""
        ours = self.state_dict()
        shapes = {official: ours[name].shape for name, official in self._official_names().items()}
        for name, parts in self._official_gates():
            for part, gate in zip(parts, ours[name].chunk(len(parts)), strict=True):
                shapes[part] = gate.shape
        return shapes

    def _official_names(self) -> dict[str, str]:
        """Return the published key by our key, for all layers but the gates."""
        layers = {}
        for prefix, (suffix, units) in self.branches.items():
            layers[f"{prefix}entry"] = f"conv0{suffix}.0"
            layers[f"{prefix}output"] = f"conv{suffix}.0"
            for unit in range(units):
                layers[f"{prefix}residuals.{unit}.conv1"] = f"res_conv{unit + 1}{suffix}.0"
                layers[f"{prefix}residuals.{unit}.conv2"] = f"res_conv{unit + 1}{suffix}.2"
        return {f"{ours}.{kind}": f"{layers[ours]}.{kind}" for ours in layers for kind in _KINDS}

    def _official_gates(self) -> Iterator[tuple[str, list[str]]]:
        """Yield our key of stacked gates, and the published keys of its parts in their order."""
        for prefix, (suffix, _) in self.branches.items():
            for kind in _KINDS:
                yield f"{prefix}gates.{kind}", [f"conv_{gate}{suffix}.0.{kind}" for gate in GATES]
