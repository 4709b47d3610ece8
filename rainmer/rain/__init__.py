"""Rendering rain, by day and by night, with a severity in mm/h; see docs/rain.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from rainmer.rain.config import PRESETS, RainConfig, rain_config
    from rainmer.rain.renderer import Rain, RainRenderer, Rendering, render_mixed

__all__ = [
    "PRESETS",
    "Rain",
    "RainConfig",
    "RainRenderer",
    "Rendering",
    "rain_config",
    "render_mixed",
]

__getattr__ = lazy_names(
    __name__,
    {
        "rainmer.rain.config": "PRESETS RainConfig rain_config",
        "rainmer.rain.renderer": "Rain RainRenderer Rendering render_mixed",
    },
)
