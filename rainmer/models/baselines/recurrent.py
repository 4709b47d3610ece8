"""Blocks that the recurrent networks share: PReNet and BRN."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rainmer.models.layers import conv3x3

__all__ = ["GATES", "ResidualUnit", "lstm_step", "stack_gates"]

GATES = "ifog"
"""Order of the gates in the stacked convolution: the three with a logistic function first."""


def lstm_step(gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
    """Update the state of a convolutional LSTM: `c = f c + i g`, `h = o tanh(c)`.

    Args:
        gates: The gates (B, 4C, H, W) before their functions, in the order of `GATES`. Overwritten
            where no gradient is wanted: fresh memory for maps costs more than the arithmetic.
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


def stack_gates(weights: Mapping[str, Tensor], suffix: str = "") -> dict[str, Tensor]:
    """Stack the four convolutions of a published LSTM: "weight" (4C, D, 3, 3) and "bias" (4C,).

    Args:
        weights: Published weights.
        suffix: What the keys of this LSTM have after the name of the gate.
    """
    return {
        kind: torch.cat([weights[f"conv_{gate}{suffix}.0.{kind}"] for gate in GATES])
        for kind in ("weight", "bias")
    }


class ResidualUnit(nn.Module):
    """Two convolutions, each followed by a ReLU, around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels, bias=True)
        self.conv2 = conv3x3(channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        branch: Tensor = self.conv2(self.conv1(x).relu_()).relu_()
        return (branch + x if branch.requires_grad else branch.add_(x)).relu_()
