"""The options of `python -m rainmer.align`: a dataclass for each command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from rainmer.cli import make_parser, non_negative_int, parse_options, positive_int
from rainmer.cpus import usable_cpus
from rainmer.data.layouts.rules import PairingRule

__all__ = [
    "DEFAULT_EDGES",
    "HASH_BITS",
    "AlignOptions",
    "BalanceOptions",
    "CropOptions",
    "Entropy",
    "Keep",
    "LeaksOptions",
    "MeasureOptions",
    "PlotOptions",
    "parse",
]

Keep = Literal["heaviest", "scarcest"]
"""Which bin is kept whole: the densest rain, as published, or the bin with the fewest pairs."""

Entropy = Literal["sum", "mean"]
"""Which entropy of a set: the sum, as published, which grows with the set, or the mean."""

DEFAULT_EDGES = (0.04, 0.08)
"""Upper edges of all bins of rain density but the last, which has none: A, B and C as published."""

HASH_BITS = 64
"""Of the fingerprints of images that `leaks` compares."""

_OUT = Path("runs/align")
_MOST_THREADS = 8
_SETS_HELP = "ROOT, NAME:ROOT (with rainy|input|rain and clean|gt|target|norain below, or a tree "
_SETS_HELP += "of GT-Rain), or NAME:RAINY:CLEAN"
_EXAMPLE = """\
  python -m rainmer.align crop GTAV-NightRain --out crops --size 512
  python -m rainmer.align crop --rainy wet --clean dry --out crops
  python -m rainmer.align measure crops GT-Rain:GT-RAIN_train --out measured
  python -m rainmer.align balance measured/crops.csv --out GTAV-balance/train --seed 0 --link
  python -m rainmer.align plot measured/crops.json --published --out plots --format png
  python -m rainmer.align leaks GTAV-balance/train GTAV-balance/test --threshold 8"""


@dataclass(frozen=True, kw_only=True)
class CropOptions:
    """Options of `crop`: `root` with `split`, or `rainy` with `clean` and `pairing`."""

    root: list[Path]
    split: str
    rainy: Path | None
    clean: Path | None
    out: Path
    size: int
    limit: int | None
    pairing: PairingRule
    threads: int
    quiet: bool


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """Options of `measure`."""

    sets: list[str]
    out: Path
    pairing: PairingRule
    threads: int
    quiet: bool


@dataclass(frozen=True, kw_only=True)
class BalanceOptions:
    """Options of `balance`; `bins` are upper edges, see `bin_shares`."""

    table: Path
    out: Path
    reference: list[Path]
    bins: list[float]
    keep: Keep
    seed: int
    link: bool
    quiet: bool


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Options of `plot`."""

    files: list[Path]
    published: bool
    out: Path
    format: Literal["svg", "png"]
    entropy: Entropy


@dataclass(frozen=True, kw_only=True)
class LeaksOptions:
    """Options of `leaks`; `threshold` in bits, see `leaks_between`."""

    train: str
    tests: list[str]
    threshold: int
    out: Path
    show: int
    pairing: PairingRule
    threads: int
    quiet: bool


AlignOptions = CropOptions | MeasureOptions | BalanceOptions | PlotOptions | LeaksOptions

_OPTIONS: dict[str, type[AlignOptions]] = {
    "crop": CropOptions,
    "measure": MeasureOptions,
    "balance": BalanceOptions,
    "plot": PlotOptions,
    "leaks": LeaksOptions,
}


def parse(argv: Sequence[str] | None) -> AlignOptions:
    """Parse the command line into the options of the command that it names.

    Raises:
        SystemExit: It is wrong (code 2), or asks for help (code 0).
    """
    parser = make_parser(
        "python -m rainmer.align",
        "Bring sets of pairs of rainy and clean images in line before they are mixed.",
        _EXAMPLE,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_crop(commands.add_parser("crop", help="cut pairs into squares, as GTAV-NightRain"))
    _add_measure(commands.add_parser("measure", help="rain density and properties of sets"))
    _add_balance(commands.add_parser("balance", help="draw pairs by the rain density of others"))
    _add_plot(commands.add_parser("plot", help="radar of properties, histogram of rain density"))
    _add_leaks(commands.add_parser("leaks", help="images that are in two sets, or twice in one"))
    return parse_options(parser, _align_options, argv)


def _align_options(command: str, **values: Any) -> AlignOptions:  # noqa: ANN401 (argparse's)
    return _OPTIONS[command](**values)


def _add_crop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "root", nargs="*", type=Path, metavar="ROOT", help="GTAV-NightRain: holds set1, set2, ..."
    )
    parser.add_argument("--split", default="train", help="of GTAV-NightRain; default: train")
    parser.add_argument("--rainy", type=Path, metavar="DIR", help="rainy images of another set")
    parser.add_argument("--clean", type=Path, metavar="DIR", help="their clean partners")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets rainy/ and gt/"
    )
    parser.add_argument(
        "--size", type=positive_int, default=512, metavar="PX", help="side; default: 512"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N pairs")
    _add_pairing(parser)
    _add_common(parser)


def _add_measure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sets", nargs="+", metavar="SET", help=_SETS_HELP)
    parser.add_argument(
        "--out", type=Path, default=_OUT, metavar="DIR", help=f"tables; default: {_OUT}"
    )
    _add_pairing(parser)
    _add_common(parser)


def _add_balance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, metavar="CSV", help="the set, as measured")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="rainy/ and gt/")
    parser.add_argument(
        "--reference",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="measured sets (.csv or .json) whose shares count; default: SynRain and GT-Rain, "
        "as published",
    )
    parser.add_argument(
        "--bins",
        nargs="+",
        type=float,
        default=list(DEFAULT_EDGES),
        metavar="EDGE",
        help="upper edges of the bins but the last; default: 0.04 0.08",
    )
    parser.add_argument(
        "--keep",
        choices=get_args(Keep),
        default="heaviest",
        help="the bin that is kept whole: of the densest rain (as published), or the one that "
        "lacks most",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the draw; default: 0")
    parser.add_argument("--link", action="store_true", help="hard links instead of copies")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="measured sets (.json or .csv)"
    )
    parser.add_argument(
        "--published", action="store_true", help="add SynRain, GT-Rain and GTAV-balance"
    )
    parser.add_argument(
        "--out", type=Path, default=_OUT, metavar="DIR", help=f"figures; default: {_OUT}"
    )
    parser.add_argument("--format", choices=("svg", "png"), default="svg", help="default: svg")
    parser.add_argument(
        "--entropy",
        choices=get_args(Entropy),
        default="sum",
        help="of whole sets, as published, or of their images; default: sum",
    )


def _add_leaks(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find images of TRAIN in each TEST, and images twice in any of them. Clean images are "
        "compared where both sets have them. Exit code 0: none found, 1: some, 2: a mistake or "
        "broken images."
    )
    parser.add_argument("train", metavar="TRAIN", help=_SETS_HELP + ", or a folder of images")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="the same")
    parser.add_argument(
        "--threshold",
        type=_bits,
        default=8,
        metavar="BITS",
        help="bits of 64 in which near duplicates may differ; default: 8",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=_OUT / "leaks.csv",
        metavar="CSV",
        help=f"default: {_OUT / 'leaks.csv'}",
    )
    parser.add_argument(
        "--show", type=non_negative_int, default=20, metavar="N", help="pairs printed; default: 20"
    )
    _add_pairing(parser)
    _add_common(parser)


def _add_pairing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pairing",
        choices=get_args(PairingRule),
        default="auto",
        help="a clean image has the rainy one's name, or without its second part between _, or "
        "only its first; default: what fits, in this order",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=min(_MOST_THREADS, usable_cpus()),
        metavar="N",
        help="images at a time",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _bits(text: str) -> int:
    bits = non_negative_int(text)
    if bits >= HASH_BITS // 2:
        raise argparse.ArgumentTypeError(f"{text} is not below {HASH_BITS // 2}: all would match")
    return bits
