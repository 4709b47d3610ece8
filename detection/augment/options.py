"""The options of `python -m detection.augment`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rainmer.cli import make_parser, parse_options
from rainmer.rain import PRESETS

__all__ = ["FOLDER", "AugmentOptions", "parse"]

FOLDER = Path("runs") / "augment"
_RAIN = ("day:1", "night:1", "none:2")
_EXAMPLE = """\
  python -m detection.augment train --data street.yaml --model yolo11n.pt \\
      --rain day:1 night:1 none:2 epochs=20 imgsz=640 batch=16"""


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


def parse(argv: Sequence[str] | None) -> AugmentOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
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
        "--out", type=Path, metavar="DIR", help=f"the run's folder; default: {FOLDER}/DATA"
    )
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="let ultralytics fetch weights, data and fonts that are missing",
    )
