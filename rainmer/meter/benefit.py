"""When deraining helps a detector, told from the meter's outputs: what a gate decides by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rainmer.errors import WeightsError
from rainmer.meter.head import QUANTITIES

__all__ = ["Benefit"]


@dataclass(frozen=True)
class Benefit:
    """A logistic model: the probability that a frame gains more from deraining than it loses.

    Attributes:
        inputs: The quantities that it takes, as the head puts them out; see `MeterHead`.
        weights: One for each input.
        bias: Added to the weighted sum.
        threshold: The probability from which a gate set to `auto` derains.
        facts: How it was fitted, for people.
    """

    inputs: Sequence[str]
    weights: Sequence[float]
    bias: float
    threshold: float
    facts: Mapping[str, Any]

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the probabilities (B,) of outputs (B, 6) of the head."""
        columns = outputs[:, [QUANTITIES.index(name) for name in self.inputs]]
        return (columns @ torch.tensor(list(self.weights)) + self.bias).sigmoid()

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Benefit:
        """Check and take the fields. Raises WeightsError."""
        try:
            benefit = cls(**mapping)
            if not set(benefit.inputs) <= set(QUANTITIES) or not 0.0 <= benefit.threshold <= 1.0:
                raise ValueError("fields out of range")
            if len(benefit.inputs) != len(benefit.weights):
                raise ValueError("one weight for each input")
        except (TypeError, ValueError) as error:
            raise WeightsError(f"the rain meter's benefit is damaged: {error}") from error
        return benefit
