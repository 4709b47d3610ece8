"""The options of `python -m rainmer.train`, which all commands that train share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.cli import add_threads_option, make_parser, parse_options, positive_int

__all__ = ["TrainOptions", "add_train_options", "parse"]

_EXAMPLE = """\
  python -m rainmer.train --config own-photos data.rendered.photos.images=photos
  python -m rainmer.train --config own-photos --minutes 60
  python -m rainmer.train --config rainmer --out runs/train/paper
  torchrun --nproc-per-node 4 -m rainmer.train --config rainmer"""


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
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="NAME",
        help="a configuration of the package, such as rainmer-s, or a YAML file",
    )
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


def parse(argv: Sequence[str] | None) -> TrainOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m rainmer.train",
        "Train a derainer on mixed data. The same command resumes where an interrupted one "
        "stopped. torchrun starts it on several GPUs and machines.",
        _EXAMPLE,
    )
    add_train_options(parser, "runs/train")
    return parse_options(parser, TrainOptions, argv, intermixed=True)
