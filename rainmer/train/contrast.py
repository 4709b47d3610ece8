"""Contrastive training of the views: a momentum copy of the encoder, and the logits.

Source: sections 2.6 and 3.3 of the model specification of Rainmer (after MoCo, He et al. 2020).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer.models.layers import global_average
from rainmer.models.rainmer import Rainmer, ViewEncoder, prompts_of_maps
from rainmer.train.negatives import Contrast

__all__ = ["ContrastiveRainmer", "TrainingOutput", "momentum_update", "view_features"]

_MOMENTUM = 0.999
_DETAIL_POOL = 8


class TrainingOutput(NamedTuple):
    """What a training forward returns.

    Attributes:
        restored: (B, 3, H, W), not clamped.
        logits: For each view (B, 1 + N): similarity with the positive, then with the negatives.
    """

    restored: Tensor
    logits: dict[str, Tensor]


class ContrastiveRainmer(nn.Module):
    """A Rainmer with the momentum copy of its encoder, as training runs it.

    Args:
        network: The network to train.
        momentum: Share of its weights that the copy keeps at each forward pass.
        contrastive: Whether views are compared; otherwise there is no copy.
    """

    def __init__(
        self, network: Rainmer, *, momentum: float = _MOMENTUM, contrastive: bool = True
    ) -> None:
        super().__init__()
        self.network = network
        self.momentum = momentum
        self.momentum_encoder: ViewEncoder | None = None
        if contrastive and network.config.views:
            self.momentum_encoder = copy.deepcopy(network.encoder)
            assert self.momentum_encoder is not None
            self.momentum_encoder.requires_grad_(False)

    def forward(
        self, image: Tensor, query: Tensor | None = None, contrast: Contrast | None = None
    ) -> TrainingOutput:
        """Restore crops, and compare the views of their frames.

        With a contrast, the momentum encoder is updated before it encodes the keys.

        Args:
            image: Rainy crops (B, 3, H, W), RGB, 0..1; sides are multiples of the network's.
            query: The whole frames at query size (Q, 3, S, S); B is a multiple of Q, crops of one
                frame come one after the other. None: no prompts.
            contrast: Positives and negatives of the Q frames; None: no logits.
        """
        network = self.network
        if query is None or network.encoder is None:
            prompts = image.new_zeros(len(image), 0, network.config.base_dim)
            return TrainingOutput(network(image, prompts=prompts), {})
        maps = network.encoder(query.contiguous(memory_format=torch.channels_last))
        logits = {} if contrast is None else self._logits(maps, contrast)
        prompts = prompts_of_maps(maps).repeat_interleave(len(image) // len(query), dim=0)
        return TrainingOutput(network(image, prompts=prompts), logits)

    def _logits(self, maps: Mapping[str, Tensor], contrast: Contrast) -> dict[str, Tensor]:
        features = view_features(maps, list(contrast.positives))
        keys = self._encode_keys(contrast)
        return {view: _similarities(feature, *keys[view]) for view, feature in features.items()}

    @torch.no_grad()
    def _encode_keys(self, contrast: Contrast) -> dict[str, tuple[Tensor, Tensor]]:
        """Return each view's features of its positives (B, C, h, w) and negatives (B, N, ...)."""
        assert self.momentum_encoder is not None
        assert self.network.encoder is not None
        momentum_update(self.momentum_encoder, self.network.encoder, self.momentum)
        views = list(contrast.positives)
        groups = [contrast.positives[view][:, None] for view in views]
        groups += [contrast.negatives[view] for view in views]
        images = torch.cat([group.flatten(0, 1) for group in groups])
        maps = self.momentum_encoder(images.contiguous(memory_format=torch.channels_last))
        features = view_features(maps, views)
        sizes = [group.shape[0] * group.shape[1] for group in groups]
        keys = {}
        for i, view in enumerate(views):
            parts = torch.split(features[view], sizes)
            positive, negative = parts[i], parts[len(views) + i]
            keys[view] = (
                positive,
                negative.view(*contrast.negatives[view].shape[:2], *negative.shape[1:]),
            )
        return keys


@torch.no_grad()
def momentum_update(copy_: nn.Module, source: nn.Module, momentum: float) -> None:
    """Move every parameter of the copy towards the source: k <- m k + (1 - m) q."""
    targets: list[Tensor] = list(copy_.parameters())
    sources: list[Tensor] = list(source.parameters())
    torch._foreach_mul_(targets, momentum)
    torch._foreach_add_(targets, sources, alpha=1 - momentum)


def view_features(maps: Mapping[str, Tensor], views: list[str]) -> dict[str, Tensor]:
    """Return the contrastive features (B, C, h, w) of the views; h = w = 1 but for detail."""
    features = {}
    for view in views:
        if view == "detail":
            features[view] = F.avg_pool2d(maps["degradation"], _DETAIL_POOL)
        else:
            features[view] = global_average(maps[view])[:, :, None, None]
    return features


def _similarities(query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """Return mean cosines over positions: (B, C, h, w) with itself and (B, N, C, h, w)."""
    keys = torch.cat((positive[:, None], negatives), dim=1)
    query, keys = (F.normalize(features.float(), dim=-3) for features in (query, keys))
    return (query[:, None] * keys).sum(-3).mean((-2, -1))
