"""A training run, from the options of the command."""

from __future__ import annotations

import logging
from pathlib import Path

from rainmer.device import resolve_device
from rainmer.train.config import read_config
from rainmer.train.options import TrainOptions
from rainmer.train.processes import process_group
from rainmer.train.run import train

__all__ = ["run"]


def run(options: TrainOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the configuration, or data or results that cannot be read or
            written.
    """
    config = read_config(options.config, options.all_changes)
    out = options.out or Path("runs") / "train" / config.name
    with process_group(resolve_device(options.device)) as device:
        weights = train(
            config, out, device=device, quiet=options.quiet, max_steps=options.max_steps
        )
    logging.getLogger(__name__).info("weights: %s", weights)
