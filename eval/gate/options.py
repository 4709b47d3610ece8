"""The options of `python -m eval.gate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.names import DETECTOR_HELP
from rainmer.cli import (
    add_threads_option,
    fraction,
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
)
from rainmer.stage.names import DEFAULT_DERAINER

__all__ = ["GateOptions", "parse"]

_EXAMPLE = """\
  python -m eval.street --out street --scenes 200 --first 30000
  python -m eval.gate measure street/day street/night --out trials.jsonl
  python -m eval.gate fit trials.jsonl --out meter.safetensors"""


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """The command line; `--help` explains it."""

    verb: str
    input: list[Path]
    out: Path
    derain: str
    detector: str | None
    images: int
    dry: list[Path]
    seed: int
    weights: Path | None
    harm: float
    keep: float
    device: str | None
    quiet: bool


def parse(argv: Sequence[str] | None) -> GateOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m eval.gate",
        "Fit when deraining helps a detector, and the threshold of the gate.",
        _EXAMPLE,
    )
    parser.add_argument("verb", choices=("measure", "fit"), help="what to do")
    parser.add_argument(
        "input", type=Path, nargs="+", help="measure: folders of scenes or pictures; fit: records"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="records (added to), or weights"
    )
    parser.add_argument("--derain", default=DEFAULT_DERAINER, metavar="SPEC", help="the derainer")
    parser.add_argument(
        "--detector", metavar="SPEC", help=f"{DETECTOR_HELP}; default: the embedded one"
    )
    parser.add_argument(
        "--images", type=positive_int, default=75, metavar="N", help="of each folder; default: 75"
    )
    parser.add_argument(
        "--dry",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="fit: further dry frames, which count as if deraining changed nothing",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the rain; default: 0")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="rain meter; default: shipped")
    parser.add_argument(
        "--harm",
        type=fraction,
        default=0.1,
        help="most frames that may lose more than they gain, by the bound; default: 0.1",
    )
    parser.add_argument(
        "--keep", type=fraction, default=0.95, help="share of the gain to keep; default: 0.95"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; default: the best")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_threads_option(parser)
    return parse_options(parser, GateOptions, argv)
