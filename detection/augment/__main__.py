"""`python -m detection.augment train --data FILE --model FILE`: train a detector on rain.

The honest competitor of a derainer: ultralytics' own training, with rain rendered on its images.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detection.yolo.training import parse_arguments, train_on_rain
from rainmer.cli import make_parser, parse_options, run_command
from rainmer.errors import ConfigError
from rainmer.rain import PRESETS

__all__ = ["main"]

_FOLDER = Path("runs") / "augment"
_RAIN = ("day:1", "night:1", "none:2")
_EXAMPLE = """\
  python -m detection.augment train --data street.yaml --model yolo11n.pt \\
      --rain day:1 night:1 none:2 epochs=20 imgsz=640 batch=16"""
_ARGUMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """Options of the command; `arguments` are texts `key=value` for ultralytics."""

    verb: Literal["train"]
    arguments: list[str]
    data: str
    model: str
    rain: list[str]
    rain_val: bool
    out: Path | None
    allow_download: bool


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the options, weights or data that cannot be trained with, or
            results that cannot be written.
    """
    options = _parse(argv)
    # `--rain` takes all words that follow it.
    kinds = [text for text in options.rain if not _ARGUMENT.match(text)]
    arguments = [text for text in options.rain if text not in kinds] + options.arguments
    best = train_on_rain(
        options.model,
        options.data,
        _weights(kinds),
        options.out or _FOLDER / Path(options.data).stem,
        parse_arguments(arguments),
        rain_val=options.rain_val,
        allow_download=options.allow_download,
    )
    logging.getLogger(__name__).info("weights: %s", best)


def _weights(texts: Sequence[str]) -> dict[str, float]:
    """Parse kinds of rain `KIND:WEIGHT`.

    Raises:
        ConfigError: One has no weight, or comes twice.
    """
    weights: dict[str, float] = {}
    for text in texts:
        kind, _, weight = text.rpartition(":")
        if kind in weights:
            raise ConfigError(f"--rain: {kind} is given twice")
        try:
            weights[kind] = float(weight)
        except ValueError as error:
            raise ConfigError(f"--rain: {text!r} is no KIND:WEIGHT, such as day:1") from error
    return weights


def _parse(argv: Sequence[str] | None) -> AugmentOptions:
    parser = make_parser(
        "python -m detection.augment",
        "Train a detector on rain: ultralytics' training, with rain rendered on the images as they "
        "are loaded. The same command resumes an interrupted run.",
        _EXAMPLE,
    )
    _add_options(parser)
    return parse_options(parser, AugmentOptions, argv, intermixed=True)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("train",), help="what to do")
    parser.add_argument(
        "arguments", nargs="*", metavar="key=value", help="ultralytics' arguments, as epochs=20"
    )
    parser.add_argument("--data", required=True, metavar="FILE", help="ultralytics' YAML of a set")
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="detector to start from: .pt, of AGPL-3.0"
    )
    parser.add_argument(
        "--rain",
        nargs="+",
        default=list(_RAIN),
        metavar="KIND:WEIGHT",
        help=f"how often which rain comes: {', '.join(PRESETS)}, a .yaml file of fields, or none "
        f"(dry images); default: {' '.join(_RAIN)}",
    )
    parser.add_argument("--rain-val", action="store_true", help="rain on validation images too")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"the run's folder; default: {_FOLDER}/DATA"
    )
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="let ultralytics fetch weights, data and fonts that are missing",
    )


if __name__ == "__main__":
    run_command(main)
