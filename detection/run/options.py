"""The options of `python -m detection`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detection.names import DETECTOR_HELP
from rainmer.cli import (
    StageOptions,
    add_gate_option,
    add_stage_options,
    fraction,
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
)
from rainmer.frames.levels import Stretch, add_stretch_option
from rainmer.frames.video.options import VideoOptions, add_video_options
from rainmer.stage.names import add_derain_option

__all__ = [
    "DetectionOptions",
    "DetectorOptions",
    "LiveOptions",
    "add_detector_options",
    "add_live_options",
    "parse",
]

_EXAMPLE = """\
  python -m detection rainy/ --derain median --detector yolo11n.pt --save --side-by-side
  python -m detection drive.mp4 --derain prenet:prenet.pth --detector yolo11n.pt --save --conf 0.4
  python -m detection left.mp4 right.mp4 --detector yolo11n.pt --save
  python -m detection 0 --derain median --detector yolo11n.pt --limit 500
  python -m detection rtsp://user:password@10.0.0.7/stream1 --detector yolo11n.pt --timeout 5"""


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """How live sources are read.

    Attributes:
        max_latency: Frames that have waited longer are dropped if a newer one is there, in s.
        timeout: How long a connection may take, and how long no picture may come, in s.
        reconnect: How many attempts in a row may bring no picture.
        frozen: How long the picture may stay the same before a new connection is made, in s; 0:
            for ever.
        first_pause: Pause before the first attempt, in s; each further one doubles it, up to 30 s.
    """

    max_latency: float = 1.0
    timeout: float = 10.0
    reconnect: int = 10
    frozen: float = 60.0
    first_pause: float = 0.5


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """What detects, and how; see `detection.specs.load_detector`.

    Attributes:
        detector: A spec.
        allow_download: Whether published weights may be fetched.
        conf: Lowest score of a detection, 0..1.
        iou: Overlap above which the weaker of two boxes is dropped; None: the detector's own.
        imgsz: Longer side of its input in pixels; None: its own.
        max_det: Maximum number of detections per frame.
    """

    detector: str
    allow_download: bool
    conf: float
    iou: float | None
    imgsz: int | None
    max_det: int

    @property
    def detector_options(self) -> dict[str, Any]:
        """Arguments of `load_detector` by name, apart from spec, device and batch."""
        names = ("conf", "iou", "imgsz", "max_det", "allow_download")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class DetectionOptions(StageOptions, VideoOptions, LiveOptions, DetectorOptions):
    """The command line, option by option; `--help` explains them."""

    source: list[str]
    derain: str
    gate: Literal["auto"] | float | None
    out: Path | None
    save: bool
    show: bool
    track: bool
    side_by_side: bool
    classes: list[str] | None
    where: Literal["frame", "network"]
    stretch: Stretch | None
    limit: int | None
    streams: int
    quiet: bool


def parse(argv: Sequence[str] | None) -> DetectionOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m detection",
        "Derain images, videos, a camera or a stream, and detect objects in them.",
        _EXAMPLE,
    )
    what = "images, folders, globs, videos, camera number, stream address"
    parser.add_argument("source", nargs="+", help=what)
    add_derain_option(parser)
    add_gate_option(parser)
    add_detector_options(parser)
    _add_result_options(parser)
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="names or numbers to keep")
    parser.add_argument(
        "--where",
        choices=("frame", "network"),
        default="frame",
        help="derain at native size, or at the detector's size (cheaper)",
    )
    add_stretch_option(parser)
    parser.add_argument("--limit", type=positive_int, metavar="N", help="most frames per source")
    parser.add_argument(
        "--streams",
        type=positive_int,
        default=4,
        metavar="N",
        help="videos read at once, their frames in common batches; default: 4 (live: all)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_live_options(parser)
    add_video_options(parser)
    add_stage_options(parser)
    options = parse_options(parser, DetectionOptions, argv)
    if options.side_by_side and not (options.save or options.show):
        parser.error("--side-by-side needs --save or --show")
    if options.side_by_side and options.where == "network":
        parser.error("--side-by-side needs --where frame: no derained frame of native size exists")
    return options


def _add_result_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/detection/<name>")
    parser.add_argument("--save", action="store_true", help="write annotated images or videos")
    parser.add_argument(
        "--show", action="store_true", help="show annotated frames in a window; q ends the run"
    )
    parser.add_argument(
        "--track",
        action="store_true",
        help="number the objects of videos and streams (ByteTrack); needs the extra track",
    )
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="with --save or --show: rainy and derained, each with what the detector finds in it",
    )


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `DetectorOptions`."""
    parser.add_argument(
        "--detector",
        required=True,
        metavar="SPEC",
        help=f"what detects: {DETECTOR_HELP}",
    )
    parser.add_argument("--allow-download", action="store_true", help="fetch missing weights")
    parser.add_argument("--conf", type=fraction, default=0.25, help="lowest score, 0..1")
    parser.add_argument(
        "--iou",
        type=fraction,
        help="overlap of boxes above which the weaker one is dropped; default: 0.7 for YOLOs, "
        "otherwise the network's own",
    )
    parser.add_argument(
        "--imgsz",
        type=positive_int,
        metavar="PX",
        help="longer side of the detector's input; default: 640 for YOLOs, otherwise the "
        "network's own",
    )
    parser.add_argument("--max-det", type=positive_int, default=300, metavar="N")


def add_live_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `LiveOptions`."""
    group = parser.add_argument_group("cameras and streams")
    group.add_argument(
        "--max-latency",
        type=_seconds,
        default=LiveOptions.max_latency,
        metavar="S",
        help="drop frames that have waited longer for their turn; default: %(default)g",
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=LiveOptions.timeout,
        metavar="S",
        help="longest wait for a connection, and for the next picture; default: %(default)g",
    )
    group.add_argument(
        "--reconnect",
        type=non_negative_int,
        default=LiveOptions.reconnect,
        metavar="N",
        help="attempts in a row, with growing pauses, before giving up; default: %(default)s",
    )
    group.add_argument(
        "--frozen",
        type=lambda text: 0.0 if text == "0" else _seconds(text),
        default=LiveOptions.frozen,
        metavar="S",
        help="reconnect after so long without any change of the picture; 0: never; "
        "default: %(default)g",
    )


def _seconds(text: str) -> float:
    """Parse a time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value
