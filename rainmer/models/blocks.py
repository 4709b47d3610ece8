"""The transformer block, and the layers that bring prompts into it."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.models.attention import SparseChannelAttention
from rainmer.models.layers import ChannelNorm, MixedScaleFeedForward, channel_conv
from rainmer.models.rainmer_config import RainmerConfig

__all__ = ["PromptAttention", "PromptTerm", "TransformerBlock"]


class PromptAttention(nn.Module):
    """Spread a prompt over the pixels by a learned gate (section 2.8)."""

    def __init__(self, channels: int, base_dim: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            channel_conv(channels, channels, bias=True),
            nn.GELU(),
            channel_conv(channels, 1, bias=True),
            nn.Sigmoid(),
        )
        self.value = nn.Linear(base_dim, channels)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        """Map features (B, C, H, W) and a prompt (B or 1, base_dim) to (B, C, H, W)."""
        # Gate times prompt has rank one at every pixel, so the projection acts on the prompt alone.
        value = F.linear(prompt.to(x.dtype), self.value.weight)[:, :, None, None]
        return F.silu(self.gate(x) * value + self.value.bias[:, None, None])


class PromptTerm(nn.Module):
    """What the prompts add to a decoder block (sections 2.9 and 4)."""

    direction: nn.Parameter | None

    def __init__(self, channels: int, config: RainmerConfig) -> None:
        super().__init__()
        self.gate_view = config.prompt_gate
        self.attentions = nn.ModuleList(
            PromptAttention(channels, config.base_dim) for _ in config.prompt_views
        )
        if self.gate_view == "sum":
            self.register_parameter("direction", None)
        else:
            self.direction = nn.Parameter(torch.ones(config.base_dim))

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Map features (B, C, H, W) and prompts (B or 1, P, base_dim) to (B, C, H, W)."""
        terms: list[Tensor] = [
            attention(x, prompt)
            for attention, prompt in zip(self.attentions, prompts.unbind(1), strict=True)
        ]
        if self.direction is None:
            return terms[0] if len(terms) == 1 else terms[0] + terms[1]
        chromatic, degradation = terms
        share = self.chromatic_share(prompts).to(x.dtype)[:, None, None, None]
        return share * chromatic + (1 - share) * degradation

    def chromatic_share(self, prompts: Tensor) -> Tensor:
        """Return the weight of the chromatic term, a cosine: (B or 1,). Prompts get no gradient.

        Only for two prompts with a gate other than "sum".
        """
        chromatic, degradation = prompts.detach().unbind(1)
        unit = F.normalize(cast(Tensor, self.direction).to(prompts.dtype), dim=0)
        if self.gate_view == "chromatic":
            return (1 + (chromatic * unit).sum(-1)) / 2
        # As published, this cosine is not mapped to 0..1: the shares may be negative or above 1.
        return 1 - (degradation * unit).sum(-1)


class TransformerBlock(nn.Module):
    """Attention and feed-forward with residuals; in the decoder with a prompt term (2.9).

    Args:
        channels: Width of the features.
        heads: Attention heads.
        config: The network's options.
        prompted: Whether the block has a prompt term, if the network has prompts.
    """

    prompt_term: PromptTerm | None

    def __init__(
        self, channels: int, heads: int, config: RainmerConfig, *, prompted: bool = False
    ) -> None:
        super().__init__()
        centred = config.layer_norm == "with_bias"
        self.prompt_position = config.prompt_position
        self.norm1 = ChannelNorm(channels, bias=centred)
        self.attention = SparseChannelAttention(
            channels,
            heads,
            sparse_rates=config.rates,
            bias=config.bias,
            ties=config.topk_ties,
        )
        self.norm2 = ChannelNorm(channels, bias=centred)
        self.feed_forward = MixedScaleFeedForward(channels, config.ffn_expansion, bias=config.bias)
        self.prompt_term = (
            PromptTerm(channels, config) if prompted and config.prompt_views else None
        )

    def forward(self, x: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), with prompts (B or 1, P, base_dim) in the decoder, to (B, C, H, W)."""
        attended = self.attention(self.norm1(x))
        if self.prompt_term is None or prompts is None or not prompts.shape[1]:
            x = x + attended
        elif self.prompt_position == "attention":
            x = x + attended + self.prompt_term(attended, prompts)
        else:
            x = x + attended
            x = x + self.prompt_term(x, prompts)
        return cast(Tensor, x + self.feed_forward(self.norm2(x)))
