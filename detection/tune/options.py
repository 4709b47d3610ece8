"""The options of `python -m detection.tune`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rainmer.cli import make_parser, parse_options
from rainmer.train.options import TrainOptions, add_train_options

__all__ = ["FOLDER", "TrainOptions", "parse"]

FOLDER = Path("runs") / "tune"
_EXAMPLE = """\
  python -m detection.tune --config rainmer-s detector.weights=yolo11n.pt \\
      data.rendered.photos.images=photos"""


def parse(argv: Sequence[str] | None) -> TrainOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m detection.tune",
        "Fine-tune a derainer for a frozen detector: training as by rainmer.train, with a further "
        "loss on what the detector sees. The same command resumes an interrupted run.",
        _EXAMPLE,
    )
    add_train_options(parser, str(FOLDER))
    return parse_options(parser, TrainOptions, argv, intermixed=True)
