"""What the kernel of `rainmer.kernels.attending` needs to know of prompts."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Prompts"]


class Prompts(NamedTuple):
    """P prompts, as they are added to the pixels of a block (`rainmer.models.blocks.PromptTerm`).

    Attributes:
        gate_in: First matrices of the gates, one below the other (P * C, C).
        gate_in_bias: (P * C,).
        gate_out: Last rows of the gates, block-diagonal (P, P * C).
        gate_out_bias: (P,).
        offsets: Biases of the values (P, C).
        values: Values of each image's prompts (B, P, C).
        shares: Weights of their terms (B, P).
        after: Whether gates see the sum with the residual instead of the attention's result.
    """

    gate_in: Tensor
    gate_in_bias: Tensor
    gate_out: Tensor
    gate_out_bias: Tensor
    offsets: Tensor
    values: Tensor
    shares: Tensor
    after: bool
