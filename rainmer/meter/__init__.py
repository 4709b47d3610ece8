"""The rain meter: rate, streaks, veil, drops on the glass and night, read from one query image.

`RainMeter` reads frames; `python -m rainmer.meter` prints and plots; `rainmer.meter.train` trains.
"""

from rainmer.meter.meter import RainMeter, Reading

__all__ = ["RainMeter", "Reading"]
