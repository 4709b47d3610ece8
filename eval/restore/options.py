"""The options of `python -m eval.restore`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from eval.cli import (
    RunOptions,
    add_run_options,
)
from eval.rows.names import PLACEHOLDER
from rainmer.cli import (
    StageOptions,
    add_stage_options,
    make_parser,
    parse_options,
)
from rainmer.stage.names import SPEC_HELP

if TYPE_CHECKING:
    from rainmer.metrics import Convention

__all__ = ["CONVENTIONS", "METRICS", "PAPER_OVERLAP", "PAPER_TILE", "RestoreOptions", "parse"]

PAPER_TILE = 512

PAPER_OVERLAP = 0

CONVENTIONS: tuple[Convention, ...] = ("matlab", "matlab_double", "official", "rgb")
_DEFAULT_CONVENTIONS = ["official", "matlab"]

METRICS = ("lpips", "dists", "vif", "fsim", "gmsd", "brisque")
"""The keys of `eval.restore.metrics.METRICS`."""


_EXAMPLE = """\
  python -m eval.restore --derain prenet:prenet-rain100h.pth --sets rain100H:/data
  python -m eval.restore --derain rainmer:main.pth results:restormer/ --protocol paper \\
      --sets rain100L:/data rain100H:/data test100:/data mine=folders:pairs/
  python -m rainmer.data.layouts list             # the names of sets"""


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(RunOptions, StageOptions):
    """The options of the command."""

    derain: list[str]
    sets: list[str]
    conventions: list[Convention]
    metrics: list[str]
    allow_download: bool
    protocol: Literal["stage", "paper"]
    allow_missing: bool
    truncate: bool


def parse(argv: Sequence[str] | None) -> RestoreOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m eval.restore",
        "Measure how close derained images are to the clean ones: PSNR and SSIM on test sets.",
        _EXAMPLE,
    )
    _add_options(parser)
    add_run_options(parser, out="runs/restore/SETS", limit="images of each set")
    add_stage_options(parser, precision="fp32")
    if parser.parse_known_args(argv)[0].protocol == "paper":
        parser.set_defaults(tile=PAPER_TILE, overlap=PAPER_OVERLAP)
    options = parse_options(parser, RestoreOptions, argv)
    if options.protocol == "paper" and options.truncate:
        parser.error("--truncate is of 8-bit frames, but --protocol paper scores unrounded ones")
    return replace(options, conventions=list(dict.fromkeys(options.conventions)))


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that are specific to this command."""
    parser.add_argument(
        "--derain",
        nargs="+",
        required=True,
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; LABEL=SPEC names one, {PLACEHOLDER} in it is the "
        "set's label; results of several sets lie in FOLDER/LABEL",
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        required=True,
        metavar="[LABEL=]NAME:ROOT",
        help="test sets: name of a layout (folders: two folders of pairs), folder of the data",
    )
    parser.add_argument(
        "--conventions",
        nargs="+",
        choices=CONVENTIONS,
        default=_DEFAULT_CONVENTIONS,
        metavar="NAME",
        help=f"of {', '.join(CONVENTIONS)}; the first is the main one; "
        f"default: {' '.join(_DEFAULT_CONVENTIONS)}",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=[],
        metavar="NAME",
        help=f"more metrics, of {', '.join(METRICS)}; needs pip install 'rainmer[metrics]'",
    )
    parser.add_argument(
        "--allow-download", action="store_true", help="fetch the weights that --metrics needs"
    )
    parser.add_argument(
        "--protocol",
        choices=("stage", "paper"),
        default="stage",
        help="stage: as the stage derains, scored as 8-bit files; paper: as the paper's code, "
        f"tiles of {PAPER_TILE} where both sides are longer, no overlap, not rounded",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="take results: that lack images; their rows say so",
    )
    parser.add_argument(
        "--truncate",
        action="store_true",
        help="round derained frames down to 8 bits, as published numbers of PReNet are",
    )
