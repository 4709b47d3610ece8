"""`python -m detection.tune --config FILE`: fine-tune a derainer for a frozen detector.

The loss of a training run gets a further part: how far the detector sees the restored crops from
the clean ones. The detector itself never changes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from detection.tune.config import EFFICIENTNET, DetectorConfig, read_config
from detection.tune.efficientnet import EfficientNetFeatures
from detection.tune.losses import DetectorLoss
from detection.types import FrozenNetwork
from detection.yolo.features import YoloFeatures
from rainmer.cli import make_parser, parse_options, run_command
from rainmer.device import resolve_device
from rainmer.train.options import TrainOptions, add_train_options, process_group
from rainmer.train.run import train

__all__ = ["main"]

_FOLDER = Path("runs") / "tune"
_EXAMPLE = """\
  python -m detection.tune --config configs/tune/rainmer-s.yaml detector.weights=yolo11n.pt \\
      data.rendered.photos.images=photos"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the configuration, a detector that cannot be used, or data or
            results that cannot be read or written.
    """
    options = _parse(argv)
    config, detector = read_config(options.config, options.all_changes)
    out = options.out or _FOLDER / config.name
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


def _parse(argv: Sequence[str] | None) -> TrainOptions:
    parser = make_parser(
        "python -m detection.tune",
        "Fine-tune a derainer for a frozen detector: training as by rainmer.train, with a further "
        "loss on what the detector sees. The same command resumes an interrupted run.",
        _EXAMPLE,
    )
    add_train_options(parser, str(_FOLDER))
    return parse_options(parser, TrainOptions, argv, intermixed=True)


if __name__ == "__main__":
    run_command(main)
