"""The options of `python -m eval.footage`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from detection.names import DETECTOR_HELP
from eval.cli import RunOptions, add_run_options
from rainmer.cli import (
    StageOptions,
    add_stage_options,
    fraction,
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
    positive_number,
)
from rainmer.frames.levels import Stretch, add_stretch_option
from rainmer.frames.video import DEFAULT_FPS
from rainmer.stage.names import DEFAULT_DERAINER, SPEC_HELP

__all__ = ["FootageOptions", "parse"]

_EXAMPLE = """\
  python -m eval.footage drive.mp4 --derain rainmer-s --detector yolo11n.pt
  python -m eval.footage frames/ --fps 10 --derain rainmer-s median --detector yolo11n.pt
  python -m eval.footage drive.mp4 --detector yolo11n.pt --teacher yolo11x.pt --label-next 50"""


@dataclass(frozen=True, kw_only=True)
class FootageOptions(RunOptions, StageOptions):
    """The options of the command; see its help."""

    source: list[str]
    derain: list[str] | None
    detector: str
    allow_download: bool
    imgsz: int | None
    conf: float
    teacher: str | None
    teacher_conf: float
    every: int
    fps: float
    stills: bool
    block: float
    clip: float
    label_next: int
    stretch: Stretch | None


def parse(argv: Sequence[str] | None) -> FootageOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m eval.footage",
        "Say what can be said about deraining on footage that has no labels and no clean frames.",
        _EXAMPLE,
    )
    parser.add_argument("source", nargs="+", help="videos, folders of frames, images, globs")
    parser.add_argument(
        "--derain",
        nargs="*",
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; LABEL=SPEC names one; default: "
        f"{DEFAULT_DERAINER}. Clip and frames to label are about the first",
    )
    parser.add_argument(
        "--detector",
        metavar="SPEC",
        default="street",
        help=f"{DETECTOR_HELP}; "
        "street and street-rain are the embedded ones, which know drawn streets; default: street",
    )
    parser.add_argument(
        "--allow-download", action="store_true", help="fetch published detector weights by name"
    )
    parser.add_argument(
        "--imgsz", type=positive_int, metavar="PX",
        help="longer side of the detector's input; default: 640 for YOLOs, otherwise the "
        "network's own",
    )  # fmt: skip
    parser.add_argument(
        "--conf", type=_confidence, default=0.25, help="lowest confidence that counts, above 0"
    )
    parser.add_argument(
        "--teacher", metavar="SPEC", help="a larger detector whose detections serve as labels"
    )
    parser.add_argument(
        "--teacher-conf", type=fraction, default=0.5, help="lowest confidence of these labels"
    )
    _add_footage_options(parser)
    add_run_options(
        parser, out="runs/footage/NAME-DETECTOR", limit="frames of each video, and of all images",
        printed="metrics.json",
    )  # fmt: skip
    add_stage_options(parser, precision="fp32")
    return parse_options(parser, FootageOptions, argv)


def _add_footage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--every", type=positive_int, default=1, metavar="N", help="only each N-th frame"
    )
    parser.add_argument(
        "--fps",
        type=positive_number,
        default=DEFAULT_FPS,
        help="frames per second of folders of frames; default: %(default)g",
    )
    parser.add_argument(
        "--stills",
        action="store_true",
        help="images are no frames of a video: follow nothing from one to the next",
    )
    parser.add_argument(
        "--block",
        type=positive_number,
        default=1.0,
        metavar="S",
        help="seconds of frames that the bootstrap draws together; default: %(default)g",
    )
    parser.add_argument(
        "--clip",
        type=lambda text: 0.0 if text == "0" else positive_number(text),
        default=4.0,
        metavar="S",
        help="seconds of the side-by-side clip; 0: none; default: %(default)g",
    )
    parser.add_argument(
        "--label-next",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="write the N most informative frames to label, with proposals",
    )
    add_stretch_option(parser)


def _confidence(text: str) -> float:
    """Parse a confidence above 0."""
    if fraction(text) == 0:
        raise argparse.ArgumentTypeError("0 would count everything; give a number above 0")
    return fraction(text)
