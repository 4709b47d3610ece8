"""The options of commands that read and write videos."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from rainmer.cli import non_negative_int
from rainmer.frames.video.codecs import CODECS

__all__ = ["VideoOptions", "add_video_options"]


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Options of `add_video_options`."""

    codec: str
    crf: int | None
    hardware_decoding: bool


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of reading and writing videos."""
    group = parser.add_argument_group("videos")
    group.add_argument(
        "--codec",
        choices=CODECS,
        default="auto",
        help="default: h264, but vp9 in .webm and mjpeg in .avi; ffv1 (in .mkv, .avi) is lossless",
    )
    group.add_argument(
        "--crf",
        type=non_negative_int,
        metavar="N",
        help="quality of h264, hevc (0..51), vp9 and av1 (0..63): 0 is best; default: 18, 20, 24, "
        "28, hardly to be told from the source",
    )
    group.add_argument(
        "--hardware-decoding",
        action="store_true",
        help="decode on an NVIDIA GPU if there is one; with the extra nvdec, frames stay there on "
        "their way to a detector (colours may differ by a level or two)",
    )
