"""A number with its interval."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Score"]


@dataclass(frozen=True)
class Score:
    """A number with the ends of its 95 % interval, each None where it is undefined.

    Attributes:
        value: The number, in the unit of its field (fractions 0..1 for mAP, dB for PSNR).
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def has_interval(self) -> bool:
        """Whether both ends are defined."""
        return self.low is not None and self.high is not None
