"""The options of `python -m rainmer.data.layouts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rainmer.cli import make_parser, parse_options
from rainmer.data.layouts.table import Mode

__all__ = ["CheckOptions", "parse"]

_EXAMPLE = """\
  python -m rainmer.data.layouts list
  python -m rainmer.data.layouts check synrain:/data gt-rain:/data gtav-balance:/data
  python -m rainmer.data.layouts check raindrop:/data --mode test --sizes
  python -m rainmer.data.layouts check folders:my-pairs --json"""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of `check`; `sets` as NAME:ROOT."""

    sets: list[str]
    mode: Mode | None
    sizes: bool
    json: bool
    quiet: bool


def parse(argv: Sequence[str] | None) -> CheckOptions | None:
    """Return the options of `check`; None for `list`."""
    parser = make_parser(
        "python -m rainmer.data.layouts",
        "List the layouts of training and test sets, and check copies of them.",
        _EXAMPLE,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="all layouts: files below ROOT, published counts, aliases")
    command = commands.add_parser("check", help="count pairs, name what is missing")
    command.add_argument(
        "sets", nargs="+", metavar="NAME:ROOT", help="layout (see list), folder of the data"
    )
    command.add_argument(
        "--mode", choices=("train", "test"), help="for names that mean a training and a test set"
    )
    command.add_argument(
        "--sizes", action="store_true", help="compare sizes of rainy and clean images too"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    return parse_options(parser, _layouts_options, argv)


def _layouts_options(command: str, **values: Any) -> CheckOptions | None:  # noqa: ANN401 (argparse's)
    return CheckOptions(**values) if command == "check" else None
