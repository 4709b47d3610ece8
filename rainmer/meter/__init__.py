"""The rain meter: rate, streaks, veil, drops on the glass and night, read from single frames.

`RainMeter` reads frames; `python -m rainmer.meter` prints and plots; `rainmer.meter.train` trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from rainmer.meter.meter import RainMeter, Reading

__all__ = ["RainMeter", "Reading"]

__getattr__ = lazy_names(
    __name__,
    {
        "rainmer.meter.meter": "RainMeter Reading",
    },
)
