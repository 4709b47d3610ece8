"""The rain meter: frames in, readings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rainmer import models
from rainmer.device import resolve_device
from rainmer.errors import ImageError, WeightsError
from rainmer.frames.arrays import Frame, stack_in_order, upload
from rainmer.meter.benefit import Benefit
from rainmer.meter.features import encoder_fingerprint, encoder_of, meter_views, view_statistics
from rainmer.meter.head import QUANTITIES, SHIPPED, MeterHead, MeterWeights
from rainmer.models import Network

__all__ = ["RainMeter", "Reading", "place"]

Frames = Sequence[Frame] | Sequence[Tensor] | Tensor
"""Arrays (H, W, 3) or tensors (3, H, W) of any sizes, or (B, 3, H, W): RGB, uint8 or 0..1."""

_ENCODER = "rainmer-s"
_AT_ONCE = 32  # queries of one call of the encoder


@dataclass(frozen=True)
class Reading:
    """What the meter reads in one frame.

    Attributes:
        rate_mm_h: Rain rate in mm/h, as the renderer of this toolkit would have drawn it.
        coverage: Share of the picture that streaks cover, 0..1.
        transmission: Share of the scene's light that comes through mist and spray, 0..1.
        drops: Share of the picture that drops on the glass cover, 0..1.
        night: Probability that it is night.
        rain: Probability that it rains.
        benefit: How much deraining is expected to help a detector, 0..1; see `Benefit`. None: the
            meter's weights do not tell.
        intervals: For each of these but the benefit, the range in which the truth was for 8 of 10
            frames of such a reading that were held out; for probabilities, plus and minus the mean
            absolute error.
    """

    rate_mm_h: float
    coverage: float
    transmission: float
    drops: float
    night: float
    rain: float
    benefit: float | None
    intervals: Mapping[str, tuple[float, float]]

    def as_mapping(self) -> dict[str, Any]:
        """Return plain rounded values: the numbers, and `intervals` by name."""
        values = {name: getattr(self, name) for name in (*QUANTITIES, "benefit")}
        rounded = {name: None if v is None else _rounded(v) for name, v in values.items()}
        intervals = {name: [*map(_rounded, pair)] for name, pair in self.intervals.items()}
        return {**rounded, "intervals": intervals}


class RainMeter:
    """Reads rain in frames: rate, streaks, veil, drops on the glass, night, each with its error.

    A perceptron of at most 50,000 parameters on statistics of the maps that the encoder of
    `rainmer-s` makes of a 128-pixel query, and of thin lines in the middle of the frame. It knows
    rendered rain exactly and real rain only as rain: on real frames the rate is what rendered rain
    of that look would have.

    Args:
        weights: The file of the head; None: the shipped one.
        network: The network whose encoder it is trained on; None: the shipped `rainmer-s`.
        device: See `rainmer.Derainer`.

    Raises:
        WeightsError: A file cannot be used, or the encoder is another than the head's.

    Example:
        >>> meter = RainMeter(device="cpu")
        >>> reading = meter(torch.zeros(1, 3, 90, 160))[0]
        >>> reading.night > 0.5 and reading.rate_mm_h >= 0.0
        True
    """

    def __init__(
        self,
        weights: Path | MeterWeights | None = None,
        *,
        network: Network | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.weights = (
            weights if isinstance(weights, MeterWeights) else MeterWeights.load(weights or SHIPPED)
        )
        network = network or models.load(_ENCODER)
        if encoder_fingerprint(network) != self.weights.encoder:
            raise WeightsError(
                "the rain meter was trained on another encoder than this network's: train its head "
                "with python -m rainmer.meter.train"
            )
        self.device = resolve_device(device)
        self.encoder = encoder_of(network).to(self.device)
        self._head = self.weights.head.to(self.device)
        fitted = self.weights.benefit
        self.benefit = None if fitted is None else Benefit.from_mapping(fitted)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change whenever a reading may."""
        return self.weights.fingerprint

    def __call__(self, frames: Frames) -> list[Reading]:
        """Read frames of any sizes; a batch is as good as each frame alone.

        Raises:
            ImageError: A frame has another shape.
        """
        return self.readings(self.outputs(frames))

    def outputs(self, frames: Frames) -> Tensor:
        """Return what the head puts out (B, 6), float32, on the CPU; see `MeterHead`.

        Raises:
            ImageError: A frame has another shape.
        """
        if not len(frames):
            return torch.empty(0, len(QUANTITIES))
        # Their memory order stays: averages of another one round differently.
        views = [meter_views(stack_in_order([place(f, self.device)])) for f in frames]
        batches = (torch.split(torch.cat(parts), _AT_ONCE) for parts in zip(*views, strict=True))
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            parts = [
                self._head(view_statistics(self.encoder, query, window))
                for query, window in zip(*batches, strict=True)
            ]
        return torch.cat(parts).float().cpu()

    def readings(self, outputs: Tensor) -> list[Reading]:
        """Turn outputs (B, 6) of the head into readings."""
        benefits = [None] * len(outputs) if self.benefit is None else self.benefit(outputs).tolist()
        rows = MeterHead.decode(outputs).tolist()
        errors = self.weights.errors
        return [_reading(row, benefit, errors) for row, benefit in zip(rows, benefits, strict=True)]

    @property
    def threshold(self) -> float:
        """The benefit from which deraining does more good than harm.

        Raises:
            WeightsError: It was not fitted.
        """
        if self.benefit is None:
            raise WeightsError(
                "this rain meter knows no threshold for a gate: python -m eval.gate fits it"
            )
        return self.benefit.threshold


def place(frame: Frame | Tensor, device: torch.device) -> Tensor:
    """Return a frame as a tensor (3, H, W) on a device; an array is uploaded.

    Raises:
        ImageError: It has another shape.
    """
    is_tensor = isinstance(frame, Tensor)
    if frame.ndim != 3 or frame.shape[0 if is_tensor else 2] != 3 or 0 in frame.shape:
        raise ImageError(f"expected an RGB frame, but got the shape {tuple(frame.shape)}")
    return frame.to(device) if isinstance(frame, Tensor) else upload([frame], device)[0]


def _reading(
    row: Sequence[float],
    benefit: float | None,
    errors: Mapping[str, Mapping[str, Sequence[float]]],
) -> Reading:
    values = dict(zip(QUANTITIES, row, strict=True))
    intervals = {
        name: _interval(name, value, errors[name])
        for name, value in values.items()
        if name in errors
    }
    return Reading(**values, benefit=benefit, intervals=intervals)


def _interval(name: str, value: float, error: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    bin_index = sum(value >= edge for edge in error["edges"])
    low, high = value + error["low"][bin_index], value + error["high"][bin_index]
    most = 1e9 if name == "rate_mm_h" else 1.0
    return max(0.0, low), min(most, high)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
