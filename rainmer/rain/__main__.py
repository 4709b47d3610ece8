"""`python -m rainmer.rain INPUT ... --out DIR --preset night --rate 50`: render rain.

Images become pairs of rainy image and clean target, with masks; with `--boxes` also a set that
`eval.detect` reads. Videos become rainy videos whose drops fall through space.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rainmer.cli import make_parser, non_negative_int, positive_int, run_command
from rainmer.config import read_yaml
from rainmer.device import resolve_device
from rainmer.errors import ConfigError, ImageError, OutputError
from rainmer.files import match_key
from rainmer.frames.inputs import Input, find_inputs, raise_failures, real_path
from rainmer.frames.video import is_video
from rainmer.rain import PRESETS, RainConfig, RainRenderer, rain_config
from rainmer.rain.clips import render_input
from rainmer.rain.stills import render_stills

__all__ = ["main"]

_EXAMPLE = """\
  python -m rainmer.rain photos/ --out rainy-night --preset night --rate 50 --seed 0
  python -m rainmer.rain images/ --out set --preset day-heavy --boxes instances.json
  python -m rainmer.rain drive.mp4 --out wet --preset day --video"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError for what the user can mend."""
    options = _parse(argv)
    renderer = RainRenderer(_config(options), seed=options.seed)
    inputs = _inputs(options)
    device = resolve_device(options.device)
    failures: list[str] = []
    clips = [one for one in inputs if is_video(one.path) or options.video is not None]
    stills = [one for one in inputs if one not in clips]
    if stills:
        render_stills(stills, renderer, options, device, failures)
    for clip in clips:
        try:
            render_input(clip, renderer, options, device, failures)
        except ImageError as error:
            failures.append(str(error))
    raise_failures(failures, len(inputs))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
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
    return parser.parse_args(argv)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not within 0..3600")
    return value


def _config(options: argparse.Namespace) -> RainConfig:
    changes = {} if options.rain is None else read_yaml(options.rain)
    if "preset" in changes:
        raise ConfigError(f"{options.rain}: preset: give it as --preset")
    if options.rate is not None:
        changes["rate_mm_h"] = options.rate
    return rain_config(options.preset, **changes)


def _inputs(options: argparse.Namespace) -> list[Input]:
    """Return the inputs, each once, with results of their own."""
    found: dict[Path, Input] = {}
    for text in options.input:
        if os.path.isdir(text) and real_path(Path(text)) == real_path(options.out):
            raise OutputError(f"--out is the input folder {text} itself: choose another folder")
        for one in find_inputs(text, options.out):
            found.setdefault(real_path(one.path), one)
    by_key: dict[str, Input] = {}
    for one in found.values():
        other = by_key.setdefault(match_key(one.name), one)
        if other is not one:
            raise OutputError(
                f"{other.path} and {one.path} would get results of the same name: "
                "render them into different folders"
            )
    return list(found.values())[: options.limit]


# --- images ---------------------------------------------------------------------------------------


# --- videos ---------------------------------------------------------------------------------------


if __name__ == "__main__":
    run_command(main)
