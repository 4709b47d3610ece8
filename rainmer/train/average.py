"""The moving average of a network's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rainmer import models

__all__ = ["MovingAverage"]


class MovingAverage:
    """Exponential moving average of a network's weights, with faster decay in early steps.

    Args:
        network: The network whose weights it starts from.
        factor: Share of the average that a step keeps; less in the first steps.
    """

    def __init__(self, network: models.Network, factor: float) -> None:
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.factor = factor
        self.updates: int | Tensor = 0

    @torch.no_grad()
    def update(self, network: models.Network) -> None:
        """Update after a step."""
        updates = self.updates = int(self.updates) + 1
        factor = min(self.factor, updates / (updates + 10))
        averages, weights = self._pairs(network)
        torch._foreach_lerp_(averages, weights, 1 - factor)

    @torch.no_grad()
    def update_if(self, network: models.Network, changed: Tensor) -> None:
        """Update where `changed` is 1, do nothing where it is 0; the count stays on the device."""
        if not isinstance(self.updates, Tensor):
            self.updates = torch.full_like(changed, self.updates)
        self.updates += changed
        factor = (self.updates / (self.updates + 10)).clamp(max=self.factor)
        averages, weights = self._pairs(network)
        steps = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(steps, (1 - factor) * changed)
        torch._foreach_add_(averages, steps)

    def _pairs(self, network: models.Network) -> tuple[list[Tensor], list[Tensor]]:
        """Return averages and current values; counters of batch norms are copied."""
        current = network.state_dict()
        averaged = [key for key, value in current.items() if value.is_floating_point()]
        for key in current.keys() - set(averaged):
            self.weights[key].copy_(current[key])
        return [self.weights[key] for key in averaged], [current[key] for key in averaged]

    def state_dict(self) -> dict[str, Any]:
        """Return weights and count, for `load_state_dict`."""
        return {"weights": self.weights, "updates": int(self.updates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.updates = state["updates"]
        for key, value in state["weights"].items():
            self.weights[key].copy_(value)
