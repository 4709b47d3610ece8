"""The network of a run: its first weights, and what is called in a step."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rainmer import models
from rainmer.errors import ConfigError
from rainmer.train.config import TrainConfig
from rainmer.train.contrast import ContrastiveRainmer, TrainingOutput
from rainmer.train.negatives import Contrast

__all__ = ["first_network", "trained_views", "training_module"]


class _Plain(nn.Module):
    """A network without views, called as `ContrastiveRainmer` is."""

    def __init__(self, network: models.Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, image: Tensor, query: Tensor | None = None, contrast: Contrast | None = None
    ) -> TrainingOutput:
        return TrainingOutput(self.network(image), {})


class _OwnLoss(nn.Module):
    """The network's own loss, of rainy and clean crops (B, 3, H, W), 0..1."""

    def __init__(self, network: models.Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, clean: Tensor) -> Tensor:
        loss: Tensor = self.network.training_loss(image, clean)  # type: ignore[operator]
        return loss


def first_network(config: TrainConfig) -> models.Network:
    """Seed all generators, and return the network with its first weights, on the CPU.

    Samples do not depend on the generators.

    Raises:
        ConfigError: The weights are of another configuration.
        WeightsError: They cannot be read.
    """
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    network = config.build_network()
    if config.init is not None:
        shipped = config.init in models.shipped_names()
        start = models.load(config.init if shipped else f"{config.network}:{config.init}")
        if start.config_mapping() != network.config_mapping():
            raise ConfigError(f"init: {config.init} is of another configuration than model")
        network = start
    if isinstance(network, models.SparseUNet):
        network.checkpointing = config.checkpointing
    return network


def trained_views(network: models.Network, config: TrainConfig) -> Sequence[str]:
    """Return the views that a run compares."""
    if isinstance(network, models.Rainmer) and config.contrast_weight and config.prompted:
        return network.config.views
    return ()


def training_module(network: models.Network, config: TrainConfig) -> nn.Module:
    """Wrap a network as it is called in a step."""
    if isinstance(network, models.Rainmer):
        return ContrastiveRainmer(network, contrastive=bool(trained_views(network, config)))
    return (_OwnLoss if config.pixel_loss == "own" else _Plain)(network)
