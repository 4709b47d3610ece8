"""More than 8 bits: thermal, scientific and other deep images become 8-bit levels."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from rainmer.errors import ImageError

if TYPE_CHECKING:
    from rainmer.frames.arrays import Frame

__all__ = ["Stretch", "add_stretch_option", "note_once", "parse_stretch", "to_eight_bits"]

Stretch = tuple[float, float]
"""Two percentiles of an image's values, 0..100; what lies between them becomes 0..255."""

_DEFAULT_STRETCH: Stretch = (1.0, 99.0)
_FEW_LEVELS = 128

_logger = logging.getLogger(__name__)
_noted: set[tuple[str, str]] = set()


def to_eight_bits(deep: npt.NDArray[Any], source: str, stretch: Stretch | None = None) -> Frame:
    """Map the values of an image of more than 8 bits to 0..255.

    Without `stretch`, 16 bits lose the lower byte, as in OpenCV and ultralytics, and floating-point
    values of 0..1 are scaled. What is lost is logged, once for each folder. Values that are not
    numbers become 0.

    Args:
        deep: The image (H, W, C): uint16, floating-point, or other integers.
        source: Its name in messages.
        stretch: The percentiles that become 0 and 255, over all channels.

    Raises:
        ImageError: The values have no range of their own, and `stretch` is not given.
    """
    values = deep[np.isfinite(deep)]
    if deep.size > values.size:
        note_once(source, "nan", f"{deep.size - values.size} values are no numbers: taken as black")
    if not values.size:
        return np.zeros(deep.shape, np.uint8)
    if stretch is not None:
        return _scaled(deep, *np.percentile(values, stretch))
    low, high = values.min(), values.max()
    if deep.dtype == np.uint16:
        levels = int(high >> 8) - int(low >> 8) + 1
        if levels < min(_FEW_LEVELS, int(high) - int(low) + 1):
            note_once(
                source,
                "depth",
                f"16 bits of {low}..{high} become {levels} levels of 8 bits; --stretch keeps more",
            )
        return cast("Frame", np.right_shift(deep, 8).astype(np.uint8))
    outside = np.count_nonzero((values < 0) | (values > 1))
    if deep.dtype.kind != "f" or outside > values.size / 2:
        raise ImageError(
            f"{source} has values of {low:g}..{high:g} ({deep.dtype}), which are no levels of "
            "brightness: read it with --stretch, which maps percentiles to black and white"
        )
    if outside:
        note_once(source, "range", f"values of {low:g}..{high:g} are cut to 0..1; see --stretch")
    return _scaled(deep, 0.0, 1.0)


def _scaled(deep: npt.NDArray[Any], low: float, high: float) -> Frame:
    unit = (deep.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    levels = np.rint(np.nan_to_num(unit, nan=0.0).clip(0.0, 1.0) * 255.0)
    return cast("Frame", levels.astype(np.uint8))


def note_once(source: str, kind: str, text: str) -> None:
    """Log a note on an image, unless the same kind was noted on another one of its folder."""
    key = (os.path.dirname(source), kind)
    if key not in _noted:
        _noted.add(key)
        _logger.warning("%s: %s (said once for this folder)", source, text)


def add_stretch_option(parser: argparse.ArgumentParser) -> None:
    """Add `--stretch`, which gives `read_image` its percentiles."""
    low, high = _DEFAULT_STRETCH
    parser.add_argument(
        "--stretch",
        type=parse_stretch,
        nargs="?",
        const=_DEFAULT_STRETCH,
        metavar="LOW,HIGH",
        help="thermal and other images of more than 8 bits: percentiles that become black and "
        f"white; without numbers {low:g},{high:g}; default: the upper 8 bits",
    )


def parse_stretch(text: str) -> Stretch:
    """Parse `LOW,HIGH`, two percentiles, for argparse.

    >>> parse_stretch("0.5,99.5")
    (0.5, 99.5)
    """
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not 0 <= low < high <= 100:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no pair of percentiles LOW,HIGH such as 1,99; "
            "without numbers, write --stretch behind the inputs"
        )
    return low, high
