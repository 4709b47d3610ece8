"""`python -m rainmer.rain.looks FOLDER ...`: what sets of rainy pictures look like, side by side.

Real rainy pictures have no clean target, so these numbers need the picture alone: medians over
each folder of contrast, haze, edges near the road, and small specks such as drops and streaks.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from rainmer.cli import make_parser, parse_options, positive_int, run_command, set_threads
from rainmer.errors import ImageError
from rainmer.frames.arrays import Frame
from rainmer.frames.images import list_images, read_image

__all__ = ["Looks", "main", "measure_looks"]

_LONGER_SIDE = 640  # pictures are compared at one size
_DARK_PATCH = 15
_ROAD = (0.50, 0.75)  # rows near the road, where spray is; below it may be the vehicle itself
_SPECK = 13  # pixels: what a median over this many removes is a speck
_LABELS = {
    "luminance": "luminance (0..255)",
    "contrast": "RMS contrast",
    "dark_channel": "dark channel",
    "road_gradient": "gradient near the road",
    "specks": "specks above it",
}
_EXAMPLE = "  python -m rainmer.rain.looks real/ wet-day/rainy wet-spray/rainy"


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Properties of one picture, at a longer side of 640 pixels; levels are 0..255.

    Attributes:
        luminance: Mean level.
        contrast: Standard deviation of the level over its mean.
        dark_channel: Mean of the least channel within 15 pixels (He et al., 2009): haze raises it.
        road_gradient: Mean length of the level's gradient in the third quarter of the rows.
        specks: Mean of what a median over 13 x 13 pixels takes away in the upper half.
    """

    luminance: float
    contrast: float
    dark_channel: float
    road_gradient: float
    specks: float


@dataclass(frozen=True, kw_only=True)
class LooksOptions:
    """Options of the command."""

    folders: list[Path]
    limit: int | None
    quiet: bool


def measure_looks(frame: Frame) -> Looks:
    """Return the properties of a frame (H, W, 3), RGB."""
    height, width = frame.shape[:2]
    scale = _LONGER_SIDE / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    picture = cv2.resize(frame, size_wh, interpolation=cv2.INTER_AREA)
    level = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    patch = np.ones((_DARK_PATCH, _DARK_PATCH), np.uint8)
    dark = cv2.erode(np.ascontiguousarray(picture.min(axis=2)), patch)
    first, last = (int(share * len(level)) for share in _ROAD)
    road = level[first : max(first + 1, last)].astype(np.float32)
    across, down = (cv2.Sobel(road, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    upper = level[: max(1, len(level) // 2)]
    specks = cv2.absdiff(upper, cv2.medianBlur(upper, _SPECK))
    return Looks(
        luminance=float(level.mean()),
        contrast=float(level.std() / max(1.0, level.mean())),
        dark_channel=float(dark.mean()),
        road_gradient=float(np.hypot(across, down).mean()),
        specks=float(specks.mean()),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError if pictures cannot be read."""
    options = _parse(argv)
    set_threads()
    print("| folder | pictures | " + " | ".join(_LABELS.values()) + " |")
    print("| --- | ---: |" + " ---: |" * len(_LABELS))
    for folder in options.folders:
        paths = list_images(folder)[: options.limit]
        if not paths:
            raise ImageError(f"{folder} holds no image")
        reading = tqdm(paths, desc=folder.name, unit="image", disable=options.quiet)
        rows = [asdict(measure_looks(read_image(path))) for path in reading]
        medians = [f"{statistics.median(row[name] for row in rows):.3g}" for name in _LABELS]
        print(f"| {folder} | {len(rows)} | " + " | ".join(medians) + " |", flush=True)


def _parse(argv: Sequence[str] | None) -> LooksOptions:
    parser = make_parser(
        "python -m rainmer.rain.looks",
        "Compare sets of rainy pictures that have no clean targets: medians of each folder.",
        _EXAMPLE,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="pictures")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="the first N of each")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parse_options(parser, LooksOptions, argv)


if __name__ == "__main__":
    run_command(main)
