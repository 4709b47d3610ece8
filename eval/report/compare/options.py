"""The options of `python -m eval.report.compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.cli import make_parser, parse_options

__all__ = ["RunsOptions", "parse"]

_EXAMPLE = """\
  python -m eval.report.compare
  python -m eval.report.compare runs/train --keys optimiser.lr seed
  python -m eval.report.compare --json"""


@dataclass(frozen=True, kw_only=True)
class RunsOptions:
    """Options of the command; without `keys` those that differ are shown."""

    folders: list[Path]
    keys: list[str]
    json: bool


def parse(argv: Sequence[str] | None) -> RunsOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m eval.report.compare",
        "Compare the runs below folders, the newest first: of training by their logs, of "
        "eval.detect, eval.restore and eval.relation by their metrics.json.",
        _EXAMPLE,
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        default=[Path("runs")],
        metavar="FOLDER",
        help="folders with runs at any depth; default: runs",
    )
    parser.add_argument(
        "--keys",
        nargs="+",
        default=[],
        metavar="KEY",
        help="show these keys of the configurations of training runs, such as optimiser.lr; "
        "default: the first ones that differ",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parse_options(parser, RunsOptions, argv)
