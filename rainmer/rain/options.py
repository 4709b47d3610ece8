"""The options of `python -m rainmer.rain`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.cli import make_parser, non_negative_int, parse_options, positive_int
from rainmer.frames.video.options import VideoOptions, add_video_options
from rainmer.rain import PRESETS

__all__ = ["RainOptions", "parse"]

_EXAMPLE = """\
  python -m rainmer.rain photos/ --out rainy-night --preset night --rate 50 --seed 0
  python -m rainmer.rain images/ --out set --preset day-heavy --boxes instances.json
  python -m rainmer.rain drive.mp4 --out wet --preset day --video"""


@dataclass(frozen=True, kw_only=True)
class RainOptions(VideoOptions):
    """Options of the command. `video`: seconds of a clip made of each image; None: no clips."""

    input: list[str]
    out: Path
    preset: str
    rate: float | None
    rain: Path | None
    seed: int
    boxes: Path | None
    names: list[str] | None
    depth: Path | None
    video: float | None
    fps: float
    limit: int | None
    device: str | None
    batch: int
    quiet: bool


def parse(argv: Sequence[str] | None) -> RainOptions:
    """Parse the command line.

    Raises:
        SystemExit: It is wrong (code 2), or asks for help (code 0).
    """
    parser = make_parser(
        "python -m rainmer.rain",
        "Render rain on clean images and videos. DIR gets rainy/, clean/ (the targets; night "
        "presets relight day images) and alpha/ (how much of each pixel rain covers).",
        _EXAMPLE,
    )
    parser.add_argument(
        "input", nargs="+", metavar="IMAGES", help="image, video, folder, or a glob in quotes"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    parser.add_argument("--preset", default="day", help=f"{', '.join(PRESETS)}; default: day")
    parser.add_argument(
        "--rate", type=float, metavar="MM_H", help="rain rate in mm/h; default: the preset's range"
    )
    parser.add_argument(
        "--rain", type=Path, metavar="YAML", help="fields of RainConfig that differ from the preset"
    )
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="another seed, other rain; default: 0"
    )
    parser.add_argument(
        "--boxes", type=Path, metavar="FILE", help="COCO JSON, or a folder of YOLO labels"
    )
    parser.add_argument("--names", nargs="+", metavar="CLASS", help="class names of YOLO labels")
    parser.add_argument(
        "--depth", type=Path, metavar="DIR", help="depth maps: .png of 16 bits in cm, .npy in m"
    )
    parser.add_argument(
        "--video",
        nargs="?",
        const=2.0,
        type=_seconds,
        metavar="SECONDS",
        help="make a clip of each image, of so many seconds (default: 2); videos always are",
    )
    parser.add_argument(
        "--fps", type=_seconds, default=25.0, help="frames per second of clips; default: 25"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N inputs")
    parser.add_argument("--device", help="cpu, cuda, ...; default: the best")
    parser.add_argument(
        "--batch", type=positive_int, default=4, metavar="N", help="images of one size at once"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_video_options(parser)
    return parse_options(parser, RainOptions, argv)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not within 0..3600")
    return value
