"""The options of `python -m eval.detect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.cli import (
    DetectorOptions,
    RunOptions,
    add_detector_options,
    add_run_options,
)
from eval.rows.names import CONTROL
from rainmer.cli import (
    StageOptions,
    add_stage_options,
    fraction,
    make_parser,
    parse_options,
)
from rainmer.stage.names import DEFAULT_DERAINER, SPEC_HELP

if TYPE_CHECKING:
    from detection.types import Where

__all__ = ["DetectOptions", "parse"]

_EXAMPLE = """\
  python -m eval.detect --derain prenet:prenet-rain100h.pth --data set.yaml --detector yolov8n.pt
  python -m eval.detect --derain                  # the embedded set and detector
  python -m eval.detect --derain --detector yolov8n.pt rain=runs/detect/train/weights/best.pt"""


@dataclass(frozen=True, kw_only=True)
class DetectOptions(DetectorOptions, RunOptions, StageOptions):
    """The options of the command; see its help."""

    derain: list[str] | None
    data: str | None
    detector: list[str] | None
    conf: float
    equal_false_alarms: bool
    no_control: bool
    union: bool
    where: list[Where]
    no_breakdown: bool


def parse(argv: Sequence[str] | None) -> DetectOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m eval.detect",
        "Measure whether deraining helps a detector: mAP on rainy, derained and clean images.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--derain",
        nargs="*",
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; LABEL=SPEC names one, {{set}} in it is the "
        f"set's name; alone: {DEFAULT_DERAINER}",
    )
    parser.add_argument(
        "--data",
        metavar="SET",
        help="set file, YOLO's data.yaml, COCO file, or their folder; default: embedded scenes",
    )
    add_detector_options(parser, several=True)
    parser.add_argument(
        "--conf", type=fraction, default=0.25, help="confidence of the TP/FP/FN counts"
    )
    parser.add_argument(
        "--equal-false-alarms",
        action="store_true",
        help="also write each row's predictions from the confidence on at which it has no more "
        "false detections than the rainy images have at --conf",
    )
    parser.add_argument(
        "--no-control", action="store_true", help=f"leave the control ({CONTROL}) out"
    )
    parser.add_argument(
        "--union",
        action="store_true",
        help="add a row for each derainer: detections of rainy and derained images together",
    )
    parser.add_argument(
        "--where",
        nargs="+",
        choices=("frame", "network"),
        default=["frame"],
        help="where to derain: frame, at native size, before the letterbox; network, behind it, at "
        "the detector's resolution (cheaper); both compares them",
    )
    parser.add_argument(
        "--no-breakdown",
        action="store_true",
        help="leave out errors by kind, and where deraining helps",
    )
    add_run_options(parser, out="runs/detect/SET-DETECTOR", limit="images")
    add_stage_options(parser, precision="fp32")
    return parse_options(parser, DetectOptions, argv)
