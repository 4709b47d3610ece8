"""`python -m rainmer.train --config FILE [key=value ...]`: train a derainer on mixed data."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from rainmer.cli import add_threads_option, make_parser, positive_int, run_command
from rainmer.device import resolve_device
from rainmer.train.config import read_config
from rainmer.train.run import train

__all__ = ["main"]

_EXAMPLE = """\
  python -m rainmer.train --config configs/train/own-photos.yaml data.rendered.photos.images=photos
  python -m rainmer.train --config configs/train/rainmer.yaml --out runs/train/paper
  torchrun --nproc-per-node 4 -m rainmer.train --config configs/train/rainmer.yaml"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError for what the user can mend."""
    options = _parse(argv)
    config = read_config(options.config, options.changes)
    out = options.out or Path("runs") / "train" / config.name
    distributed = "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1
    device = resolve_device(options.device)
    if distributed:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        weights = train(
            config, out, device=device, quiet=options.quiet, max_steps=options.max_steps
        )
    finally:
        if distributed:
            dist.destroy_process_group()
    logging.getLogger(__name__).info("weights: %s", weights)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m rainmer.train",
        "Train a derainer on mixed data. The same command goes on where an interrupted one "
        "stopped. torchrun starts it on several GPUs and machines.",
        _EXAMPLE,
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML file")
    parser.add_argument(
        "changes", nargs="*", metavar="key=value", help="changes, such as optimiser.lr=1e-4"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder; default: runs/train/NAME"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best")
    parser.add_argument(
        "--max-steps", type=positive_int, metavar="N", help="stop after N steps of this call"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_threads_option(parser)
    return parser.parse_intermixed_args(argv)  # changes may stand anywhere


if __name__ == "__main__":
    run_command(main)
