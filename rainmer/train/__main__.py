"""`python -m rainmer.train --config FILE [key=value ...]`: train a derainer on mixed data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rainmer.cli import make_parser, parse_options, run_command
from rainmer.device import resolve_device
from rainmer.train.config import read_config
from rainmer.train.options import TrainOptions, add_train_options, process_group
from rainmer.train.run import train

__all__ = ["main"]

_EXAMPLE = """\
  python -m rainmer.train --config configs/train/own-photos.yaml data.rendered.photos.images=photos
  python -m rainmer.train --config configs/train/own-photos.yaml --minutes 60
  python -m rainmer.train --config configs/train/rainmer.yaml --out runs/train/paper
  torchrun --nproc-per-node 4 -m rainmer.train --config configs/train/rainmer.yaml"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the configuration, or data or results that cannot be read or
            written.
    """
    options = _parse(argv)
    config = read_config(options.config, options.all_changes)
    out = options.out or Path("runs") / "train" / config.name
    with process_group(resolve_device(options.device)) as device:
        weights = train(
            config, out, device=device, quiet=options.quiet, max_steps=options.max_steps
        )
    logging.getLogger(__name__).info("weights: %s", weights)


def _parse(argv: Sequence[str] | None) -> TrainOptions:
    parser = make_parser(
        "python -m rainmer.train",
        "Train a derainer on mixed data. The same command resumes where an interrupted one "
        "stopped. torchrun starts it on several GPUs and machines.",
        _EXAMPLE,
    )
    add_train_options(parser, "runs/train")
    return parse_options(parser, TrainOptions, argv, intermixed=True)


if __name__ == "__main__":
    run_command(main)
