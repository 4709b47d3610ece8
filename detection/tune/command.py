"""Training of a derainer for a frozen detector."""

from __future__ import annotations

import logging

import torch

from detection.tune.config import EFFICIENTNET, DetectorConfig, read_config
from detection.tune.efficientnet import EfficientNetFeatures
from detection.tune.losses import DetectorLoss
from detection.tune.options import FOLDER
from detection.types import FrozenNetwork
from detection.yolo.features import YoloFeatures
from rainmer.device import resolve_device
from rainmer.train.options import TrainOptions
from rainmer.train.processes import process_group
from rainmer.train.run import train

__all__ = ["run"]


def run(options: TrainOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the configuration, a detector that cannot be used, or data or
            results that cannot be read or written.
    """
    config, detector = read_config(options.config, options.all_changes)
    out = options.out or FOLDER / config.name
    with process_group(resolve_device(options.device)) as device:
        weights = train(
            config,
            out,
            device=device,
            quiet=options.quiet,
            max_steps=options.max_steps,
            extra_loss=DetectorLoss(_network(detector, device), detector),
        )
    logging.getLogger(__name__).info("weights: %s", weights)


def _network(config: DetectorConfig, device: torch.device) -> FrozenNetwork:
    if config.weights == EFFICIENTNET:
        return EfficientNetFeatures(device, config.layers)
    return YoloFeatures(config.weights, device, config.layers)
