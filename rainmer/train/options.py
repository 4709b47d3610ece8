"""What the commands that train share: options, and the processes that torchrun starts."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from rainmer.cli import add_threads_option, positive_int

__all__ = ["TrainOptions", "add_train_options", "process_group"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of the command; `changes` are texts `key=value`."""

    config: Path
    changes: list[str]
    out: Path | None
    device: str | None
    max_steps: int | None
    minutes: float | None
    quiet: bool

    @property
    def all_changes(self) -> list[str]:
        """The changes of the configuration, those that have an option of their own last."""
        return self.changes + ([] if self.minutes is None else [f"minutes={self.minutes}"])


def add_train_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the options; `folder` is where runs lie without `--out`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML file")
    parser.add_argument(
        "changes", nargs="*", metavar="key=value", help="changes, such as optimiser.lr=1e-4"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"the run's folder; default: {folder}/NAME"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best")
    parser.add_argument(
        "--max-steps", type=positive_int, metavar="N", help="stop after N steps of this call"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="stretch the schedule over M minutes, and end"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_threads_option(parser)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
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
