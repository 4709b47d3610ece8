"""Rainmer as a plain reading of its specification, for comparison: same weights, nothing merged.

Maps stay in the default memory order, every operation of the specification is a torch operation,
and every intermediate result is a tensor. `plain` replaces only the forward functions, so the
parameters, and a training step on them, are those of the network itself.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.models.attention import SparseChannelAttention
from rainmer.models.blocks import PromptAttention
from rainmer.models.layers import (
    LEAKY_SLOPE,
    ChannelNorm,
    CompensatorStep,
    Dilated,
    FeatureCompensator,
    MixedScaleFeedForward,
)
from rainmer.models.rainmer import LocationChannelInteraction, SparseUNet

__all__ = ["plain"]

_Network = TypeVar("_Network", bound=SparseUNet)

_NORM_EPSILON = 1e-5


def plain(network: _Network) -> _Network:
    """Return a copy of a network in the default memory order that computes step by step."""
    copied = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for name, module in copied.named_modules():
        if name.endswith("embedding"):  # the network passes channels-last maps to these
            module.__class__ = _Entry
        else:
            module.__class__ = _PLAIN.get(type(module), type(module))
    return copied


class _Entry(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous())


class _Norm(ChannelNorm):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = x.var(1, correction=0, keepdim=True)
        weight = self.weight[:, None, None]
        if self.bias is None:
            return x / torch.sqrt(variance + _NORM_EPSILON) * weight
        centred = (x - mean) / torch.sqrt(variance + _NORM_EPSILON)
        return centred * weight + self.bias[:, None, None]


class _Attention(SparseChannelAttention):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = (
            part.reshape(batch, self.heads, channels // self.heads, -1)
            for part in self.qkv_depthwise(self.qkv(x)).chunk(3, dim=1)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = q @ k.transpose(-2, -1) * self.temperature
        if self.rate_weights is None:
            out = scores.softmax(-1) @ v
        else:
            out = torch.zeros_like(v)
            for count, share in zip(self.kept, self.rate_weights, strict=True):
                order = scores.sort(dim=-1, descending=True, stable=True).indices
                mask = torch.zeros_like(scores).scatter(-1, order[..., :count], 1.0)
                masked = torch.where(mask > 0, scores, torch.full_like(scores, -torch.inf))
                scores = masked.softmax(-1)
                out = out + share * (scores @ v)
        merged = out.reshape(batch, channels, height, width)
        weight = self.project.weight[:, :, None, None]
        return F.conv2d(merged, weight, self.project.bias)


class _FeedForward(MixedScaleFeedForward):
    def forward(self, x: Tensor) -> Tensor:
        expanded = self.expand(x)
        fine1, fine2 = self.depthwise3(expanded).relu().chunk(2, dim=1)
        coarse1, coarse2 = self.depthwise5(expanded).relu().chunk(2, dim=1)
        mixed3 = self.pair3(torch.cat((fine1, coarse1), dim=1)).relu()
        mixed5 = self.pair5(torch.cat((fine2, coarse2), dim=1)).relu()
        return self.reduce(torch.cat((mixed3, mixed5), dim=1))


class _Compensator(FeatureCompensator):
    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x.mean((2, 3))).view(len(x), len(self.steps), -1).softmax(-1)
        state = self.entry(x).relu()
        for step, step_weights in zip(self.steps, weights.unbind(1), strict=True):
            state = step(state, step_weights)
        return state


class _Step(CompensatorStep):
    def forward(self, state: Tensor, weights: Tensor) -> Tensor:
        branches = [
            operation(state) * weights[:, i, None, None, None]
            for i, operation in enumerate(self.operations)
        ]
        return (self.merge(torch.cat(branches, dim=1)).relu() + state).relu()


class _Dilated(Dilated):
    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class _Prompt(PromptAttention):
    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        spread = self.gate(x) * prompt[:, :, None, None]
        value = F.linear(spread.permute(0, 2, 3, 1), self.value.weight, self.value.bias)
        return F.silu(value.permute(0, 3, 1, 2))


class _Interaction(LocationChannelInteraction):
    def forward(self, location: Tensor, features: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.location_hidden(location), LEAKY_SLOPE)
        pixels = self.location_out(hidden).mean(1, keepdim=True)
        pooled = F.leaky_relu(self.channel_hidden(features.mean((2, 3))), LEAKY_SLOPE)
        channels = self.channel_out(pooled)[:, :, None, None]
        return (pixels * features).sigmoid() * location + (channels * location).sigmoid() * features


_PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    ChannelNorm: _Norm,
    SparseChannelAttention: _Attention,
    MixedScaleFeedForward: _FeedForward,
    FeatureCompensator: _Compensator,
    CompensatorStep: _Step,
    Dilated: _Dilated,
    PromptAttention: _Prompt,
    LocationChannelInteraction: _Interaction,
}
