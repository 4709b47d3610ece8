"""Properties of pairs of rainy and clean images, by which Rainmer's authors compare data sets.

Source: the alignment study of Rainmer (ACM MM 2024); the numbers agree with its published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from rainmer.frames.arrays import Frame

__all__ = [
    "PUBLISHED",
    "Band",
    "PairProperties",
    "measure_pair",
    "rain_density",
]

_Float = TypeVar("_Float", np.float32, np.float64)

_MASK_LEVEL = 8  # largest channel difference, 0..255, from which a pixel counts as rain
_BINS = 16
_COUNT_OFFSET = 1e-5
_DENSITY_OFFSET = 1e-3
_LUMA_BGR = (0.256789, 0.504129, 0.097906)  # applied to blue, green, red, as published


@dataclass(frozen=True)
class PairProperties:
    """Properties of one pair; levels are 0..255.

    Attributes:
        clean_entropy: Mean over channels of the Shannon entropy in bits of a 16-bin histogram.
        rainy_entropy: The same for the rainy image.
        density: Mean over pixels of max|x - y| / (max x + max y), maxima over channels.
        gradient: Mean vertical gradient of the residual x - y where there is rain; None where there
            is none.
        clean_luminance: Mean level.
        rainy_luminance: Mean level.
        colourfulness: Mean standard deviation over channels of the residual where there is rain
            (the authors' "non-monochromaticity"); None where there is none.
        psnr_db: PSNR of the rainy against the clean image, on the authors' grey value.
    """

    clean_entropy: float
    rainy_entropy: float
    density: float
    gradient: float | None
    clean_luminance: float
    rainy_luminance: float
    colourfulness: float | None
    psnr_db: float

    @property
    def luminance_change(self) -> float:
        """Mean level of rainy minus clean."""
        return self.rainy_luminance - self.clean_luminance


class Band(NamedTuple):
    """Range of most pairs of a published set: 5th percentile, median and 95th percentile."""

    low: float
    median: float
    high: float


def _around(mean: float) -> Band:
    """Return half to twice a mean, for properties published without percentiles."""
    return Band(mean / 2.0, mean, mean * 2.0)


PUBLISHED: Mapping[str, Mapping[str, Band]] = {
    "SynRain": {
        "clean_luminance": Band(68, 108, 146),
        "luminance_change": _around(20.5),
        "density": Band(0.044, 0.116, 0.273),
        "gradient": Band(3.1, 5.8, 10.1),
        "colourfulness": Band(0.7, 1.9, 6.1),
        "psnr_db": Band(12.2, 21.3, 29.1),
    },
    "GT-Rain": {
        "clean_luminance": Band(49, 92, 136),
        "luminance_change": _around(7.8),
        "density": Band(0.043, 0.138, 0.260),
        "gradient": Band(3.9, 8.5, 18.3),
        "colourfulness": Band(1.8, 3.7, 10.8),
        "psnr_db": Band(15.8, 23.3, 31.0),
    },
    "GTAV-balance": {
        "clean_luminance": Band(9, 24, 54),
        "luminance_change": _around(1.3),
        "density": Band(0.042, 0.096, 0.170),
        "gradient": Band(2.8, 8.3, 18.6),
        "colourfulness": Band(1.5, 4.6, 10.4),
        "psnr_db": Band(25.8, 32.9, 43.0),
    },
}
"""Properties of the sets that Rainmer trains on: 13,711, 26,124 and 12,321 pairs.

Only the mean of the luminance change is known: its band is half to twice the mean.
"""


def measure_pair(rainy: Frame, clean: Frame) -> PairProperties:
    """Measure one pair of frames (H, W, 3), uint8, RGB.

    Equal images have infinite PSNR, and None for properties that need rain.
    """
    x, y = rainy.astype(np.float32), clean.astype(np.float32)
    difference = x - y
    largest = _channel_max(np.abs(difference))
    mask = largest > _MASK_LEVEL
    gradient = _mean_or_none(np.abs(np.diff(difference, axis=0))[mask[1:]])
    colourfulness = _mean_or_none(difference[mask].std(axis=1)) if mask.any() else None
    return PairProperties(
        clean_entropy=_entropy(clean),
        rainy_entropy=_entropy(rainy),
        density=float((largest / (_channel_max(x) + _channel_max(y) + _DENSITY_OFFSET)).mean()),
        gradient=gradient,
        clean_luminance=float(y.mean()),
        rainy_luminance=float(x.mean()),
        colourfulness=colourfulness,
        psnr_db=_psnr(difference),
    )


def rain_density(rainy: Frame, clean: Frame) -> float:
    """Return the rain density of a pair, 0..1, on values of 0..1 as the balancing rule uses it."""
    x, y = rainy / 255.0, clean / 255.0
    largest = _channel_max(np.abs(x - y))
    return float((largest / (_channel_max(x) + _channel_max(y) + _DENSITY_OFFSET)).mean())


def _channel_max(image: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    """Return the maximum over the last axis; NumPy is slow at reducing such a short axis."""
    return np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])


def _mean_or_none(values: npt.NDArray[np.float32]) -> float | None:
    """Return the mean, and None for no values or zero, which the authors leave out."""
    mean = float(values.mean(dtype=np.float64)) if values.size else 0.0
    return mean or None


def _entropy(frame: Frame) -> float:
    entropies = []
    for channel in range(frame.shape[2]):
        # Counting levels first and binning those 256 counts is faster than binning every pixel.
        levels = np.bincount(frame[..., channel].ravel(), minlength=256)
        counts, _ = np.histogram(np.arange(256), bins=_BINS, range=(0, 255), weights=levels)
        shares = (counts + _COUNT_OFFSET) / (counts + _COUNT_OFFSET).sum()
        entropies.append(-(shares * np.log2(shares)).sum())
    return float(np.mean(entropies))


def _psnr(difference: npt.NDArray[np.float32]) -> float:
    grey = difference[..., ::-1] @ np.asarray(_LUMA_BGR, np.float32)
    error = float(np.square(grey / 255.0).mean(dtype=np.float64))
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))
