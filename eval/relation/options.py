"""The options of `python -m eval.relation`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.cli import (
    DetectorOptions,
    RunOptions,
    add_detector_options,
    add_run_options,
)
from eval.report.tables import CONTROLS
from eval.rows.names import PLACEHOLDER
from rainmer.cli import (
    StageOptions,
    add_stage_options,
    fraction,
    make_parser,
    parse_options,
)
from rainmer.stage.names import DEFAULT_DERAINER, SPEC_HELP

__all__ = ["RelationOptions", "parse"]

_EXAMPLE = """\
  python -m eval.relation --derain rainmer-s prenet:prenet-rain100h.pth \\
      --sets day.yaml night.yaml --detector yolov8n.pt
  python -m eval.relation --derain results:theirs/restormer/{set} results:theirs/mprnet/{set} \\
      --sets test100.yaml test1200.yaml --detector yolov8n.pt --labeller yolo11x.pt"""


@dataclass(frozen=True, kw_only=True)
class RelationOptions(StageOptions, DetectorOptions, RunOptions):
    """The options of the command."""

    derain: list[str] | None
    detector: str | None
    sets: list[str] | None
    labeller: str | None
    conf: float
    no_control: bool


def parse(argv: Sequence[str] | None) -> RelationOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m eval.relation",
        "Relate what derainers gain in PSNR and SSIM to what a detector gains in mAP.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--derain",
        nargs="*",
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; LABEL=SPEC names one, {PLACEHOLDER} in it is the "
        f"set's name; alone: {DEFAULT_DERAINER}",
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="YAML",
        help="rainy detection sets with clean images, with or without boxes; default: the "
        "embedded street scenes",
    )
    add_detector_options(parser)
    parser.add_argument(
        "--labeller",
        metavar="WEIGHTS",
        help="another, stronger detector that makes the pseudo-labels of sets without boxes; "
        "default: the detector itself, as in the paper",
    )
    parser.add_argument(
        "--conf", type=fraction, default=0.25, help="confidence of the F1 of single images"
    )
    parser.add_argument(
        "--no-control",
        action="store_true",
        help=f"leave the controls ({', '.join(CONTROLS)}) out",
    )
    add_run_options(
        parser, out="runs/relation/SETS-DETECTOR", limit="images a set", printed="metrics.json"
    )
    add_stage_options(parser, precision="fp32")
    return parse_options(parser, RelationOptions, argv)
