"""The options of `python -m rainmer.derain`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rainmer.cli import (
    StageOptions,
    add_gate_option,
    add_stage_options,
    make_parser,
    parse_options,
    positive_int,
)
from rainmer.frames.formats import WRITABLE_SUFFIXES
from rainmer.frames.levels import Stretch, add_stretch_option
from rainmer.frames.video.options import VideoOptions, add_video_options
from rainmer.stage.names import add_derain_option

__all__ = ["DerainOptions", "parse"]

_EXAMPLE = """\
  python -m rainmer.derain rainy/ drive.mp4 --out derained
  python -m rainmer.derain 'shots/**/*.jpg' --out derained --derain median --side-by-side"""


@dataclass(frozen=True, kw_only=True)
class DerainOptions(StageOptions, VideoOptions):
    """The command line, option by option; `--help` explains them."""

    input: list[str]
    out: Path
    derain: str
    gate: Literal["auto"] | float | None
    suffix: str | None
    stretch: Stretch | None
    side_by_side: bool
    overwrite: bool
    limit: int | None
    quiet: bool


def parse(argv: Sequence[str] | None) -> DerainOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m rainmer.derain",
        "Derain images, folders (with their subfolders) and videos. Results keep the size, the "
        "name and the folder structure of their inputs (where a codec needs even sides, an odd one "
        "gets its last row or column twice). Videos keep the times of their frames, "
        "their sound and their subtitles; a video type without an encoder becomes .mp4.",
        _EXAMPLE,
    )
    parser.add_argument(
        "input", nargs="+", metavar="INPUT", help="image, video, folder, or a glob in quotes"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    add_derain_option(parser)
    add_gate_option(parser)
    parser.add_argument(
        "--suffix",
        type=_image_suffix,
        help="type of the results of images; default: the input's, and png for what is read but "
        "not written, such as HEIC, AVIF and GIF",
    )
    add_stretch_option(parser)
    parser.add_argument(
        "--side-by-side", action="store_true", help="write rainy and derained next to each other"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace all existing files of these names"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N files")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_video_options(parser)
    add_stage_options(parser)
    return parse_options(parser, DerainOptions, argv)


def _image_suffix(text: str) -> str:
    suffix = f".{text.lower().lstrip('.')}"
    if suffix not in WRITABLE_SUFFIXES:
        known = ", ".join(sorted(WRITABLE_SUFFIXES))
        raise argparse.ArgumentTypeError(f"{text!r} is no image type to write: use one of {known}")
    return suffix
