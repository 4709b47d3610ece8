"""The options of `python -m rainmer.meter`, and those that training and checking share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rainmer.cli import (
    add_threads_option,
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
)

__all__ = ["MeterOptions", "SampleOptions", "add_sample_options", "parse"]

_EXAMPLE = """\
  python -m rainmer.meter frames/ drive.mp4
  python -m rainmer.meter drive.mp4 --every 25 --out meter --figure svg"""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Options of `add_sample_options`."""

    photos: list[Path]
    day: list[Path]
    night: list[Path]
    rainy: list[Path]
    renderings: int
    seed: int
    cache: Path | None
    quiet: bool


def add_sample_options(parser: argparse.ArgumentParser) -> None:
    """Add the folders of frames and how rain is rendered on them."""
    for name, text in (
        ("photos", "dry photos of any kind"),
        ("day", "dry frames of streets by day"),
        ("night", "dry frames of streets by night"),
        ("rainy", "frames of real rain; those below a folder `night` are of the night"),
    ):
        parser.add_argument(f"--{name}", type=Path, nargs="+", default=[], metavar="DIR", help=text)
    parser.add_argument(
        "--renderings", type=positive_int, default=3, metavar="N", help="for each dry frame; 3"
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the rain; default: 0")
    parser.add_argument(
        "--cache", type=Path, metavar="FILE", help="keeps what was rendered, as .safetensors"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_threads_option(parser)


@dataclass(frozen=True, kw_only=True)
class MeterOptions:
    """The command line, option by option; `--help` explains them."""

    input: list[str]
    out: Path | None
    figure: Literal["png", "svg"]
    every: int
    limit: int | None
    weights: Path | None
    device: str | None
    json: bool
    quiet: bool


def parse(argv: Sequence[str] | None) -> MeterOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m rainmer.meter",
        "Measure rain in images and videos: rate, share of the picture under streaks and under "
        "drops, transmission of the veil, and the probabilities of night and of rain.",
        _EXAMPLE,
    )
    parser.add_argument("input", nargs="+", metavar="FRAMES", help="image, video, folder or glob")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write plots and CSV files")
    parser.add_argument("--figure", choices=("png", "svg"), default="png", help="kind of plots")
    parser.add_argument(
        "--every", type=positive_int, default=1, metavar="N", help="each Nth frame of videos"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N files")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of rainmer.meter.train")
    parser.add_argument("--device", help="cpu, cuda, ...; default: the best")
    parser.add_argument("--json", action="store_true", help="print every frame as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_threads_option(parser)
    return parse_options(parser, MeterOptions, argv)
