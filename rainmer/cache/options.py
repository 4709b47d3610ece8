"""The options of `python -m rainmer.cache`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rainmer.cli import make_parser

__all__ = ["CacheOptions", "parse"]

_EXAMPLE = """\
  python -m rainmer.cache
  python -m rainmer.cache clear --to 5
  python -m rainmer.cache clear"""


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """The options of the command; `to` in GB."""

    action: Literal["show", "clear"]
    cache: Path | None
    to: float | None


def parse(argv: Sequence[str] | None) -> CacheOptions:
    """Parse a command line. Raises SystemExit, as `rainmer.cli.parse_options` does."""
    parser = make_parser(
        "python -m rainmer.cache",
        "Show or clear the cache: derained frames, rendered sets, drawn scenes and the embedded "
        "detector. All of it is made again when it is needed; clear it while no command uses it.",
        _EXAMPLE,
    )
    parser.add_argument(
        "action", nargs="?", choices=("show", "clear"), default="show", help="default: show"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="another cache of derained frames, as given to other commands",
    )
    parser.add_argument(
        "--to",
        type=_gigabytes,
        metavar="GB",
        help="with clear: remove only derained frames, the least recently used first, until they "
        "take so much",
    )
    options = CacheOptions(**vars(parser.parse_args(argv)))  # nothing is computed: no threads
    if options.to is not None and options.action != "clear":
        parser.error("--to needs clear")
    return options


def _gigabytes(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of GB")
    return value
