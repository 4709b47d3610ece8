"""`python -m rainmer.train --config FILE [key=value ...]`: train a derainer on mixed data."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from rainmer.cli import (
    add_threads_option,
    make_parser,
    parse_options,
    positive_int,
    run_command,
)
from rainmer.device import resolve_device
from rainmer.train.config import read_config
from rainmer.train.run import train

__all__ = ["main"]

_EXAMPLE = """\
  python -m rainmer.train --config configs/train/own-photos.yaml data.rendered.photos.images=photos
  python -m rainmer.train --config configs/train/rainmer.yaml --out runs/train/paper
  torchrun --nproc-per-node 4 -m rainmer.train --config configs/train/rainmer.yaml"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of the command; `changes` are texts `key=value`."""

    config: Path
    changes: list[str]
    out: Path | None
    device: str | None
    max_steps: int | None
    quiet: bool


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the configuration, or data or results that cannot be read or
            written.
    """
    options = _parse(argv)
    config = read_config(options.config, options.changes)
    out = options.out or Path("runs") / "train" / config.name
    with _process_group(resolve_device(options.device)) as device:
        weights = train(
            config, out, device=device, quiet=options.quiet, max_steps=options.max_steps
        )
    logging.getLogger(__name__).info("weights: %s", weights)


@contextlib.contextmanager
def _process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if any, and give the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _parse(argv: Sequence[str] | None) -> TrainOptions:
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
    return parse_options(parser, TrainOptions, argv, intermixed=True)


if __name__ == "__main__":
    run_command(main)
