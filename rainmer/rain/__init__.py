"""Rendering rain, by day and by night, with a severity in mm/h; see docs/rain.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from rainmer.rain.config import PRESETS, RainConfig, rain_config
    from rainmer.rain.renderer import RainRenderer, Rendering

__all__ = ["PRESETS", "RainConfig", "RainRenderer", "Rendering", "rain_config"]

__getattr__ = lazy_names(
    __name__,
    {
        "rainmer.rain.config": "PRESETS RainConfig rain_config",
        "rainmer.rain.renderer": "RainRenderer Rendering",
    },
)
