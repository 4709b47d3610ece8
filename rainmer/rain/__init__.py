"""Rendering rain, by day and by night, with a severity in mm/h; see docs/rain.md."""

from rainmer.rain.config import PRESETS, RainConfig, rain_config
from rainmer.rain.renderer import RainRenderer, Rendering

__all__ = ["PRESETS", "RainConfig", "RainRenderer", "Rendering", "rain_config"]
