"""The options of `python -m eval.street`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.cli import make_parser, non_negative_int, parse_options, positive_int

__all__ = ["StreetOptions", "parse"]

_EXAMPLE = "  python -m eval.street --out street --scenes 480 --first 20000"


@dataclass(frozen=True, kw_only=True)
class StreetOptions:
    """The options of the command."""

    out: Path
    scenes: int
    first: int
    processes: int | None
    quiet: bool


def parse(argv: Sequence[str] | None) -> StreetOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m eval.street",
        "Draw training scenes of Rainy Street, none of the test split: DIR/day and DIR/night get "
        "images/, depth/, labels/ and instances.json; DIR/street.yaml is the set for ultralytics.",
        _EXAMPLE,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where they go")
    parser.add_argument(
        "--scenes", type=positive_int, default=480, metavar="N", help="how many; default: 480"
    )
    parser.add_argument(
        "--first",
        type=non_negative_int,
        default=20_000,
        metavar="I",
        help="index of the first; default: 20000, beyond those of the embedded detector",
    )
    parser.add_argument(
        "--processes",
        type=positive_int,
        metavar="N",
        help="default: one for each usable CPU",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parse_options(parser, StreetOptions, argv)
