"""The configuration of rendered rain, and its calibrated presets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rainmer.config import from_mapping, nearest
from rainmer.errors import ConfigError

__all__ = ["MAX_RATE_MM_H", "PRESETS", "RANGES", "RainConfig", "Range", "rain_config"]

Range = float | tuple[float, float]
"""A number, or (smallest, largest): each image then gets a uniform random value between them."""

MAX_LAYERS = 8
"""Most layers of one image, see `rainmer.rain.layers`."""

MAX_RATE_MM_H = 300.0
"""Largest rain rate. Cloudbursts reach 100 to 200 mm/h, as far as the drop-size law is known."""

_LIMITS: dict[str, tuple[float, float]] = {
    "rate_mm_h": (0.0, MAX_RATE_MM_H),
    "wind_m_s": (-40.0, 40.0),
    "camera_m_s": (0.0, 70.0),
    "exposure_ms": (0.05, 200.0),
    "focal": (0.2, 20.0),
    "focus_m": (0.1, math.inf),
    "aperture_mm": (0.0, 100.0),
    "brightness": (0.0, 20.0),
    "min_opacity": (0.002, 0.5),
    "mist_per_km": (0.0, 500.0),
    "spray_per_km": (0.0, 1000.0),
    "veil_light": (0.0, 2.0),
    "horizon": (-1.0, 2.0),
    "camera_height_m": (0.1, 100.0),
    "depth_m": (0.1, math.inf),
    "far_m": (1.0, math.inf),
    "lens_drops": (0.0, 400.0),
    "lens_drop_size": (0.001, 0.2),
    "wet_road": (0.0, 1.0),
    "windscreen_drops": (0.0, 4000.0),
    "windscreen_drop_mm": (0.2, 10.0),
    "windscreen_m": (0.05, 3.0),
    "night_luminance": (2.0, 120.0),
    "lamps": (0.0, 30.0),
    "headlights": (0.0, 20.0),
    "glow": (0.0, 20.0),
    "noise": (0.0, 1.0),
    "additive_density": (0.0, 1.0),
    "additive_strength": (0.0, 5.0),
    "additive_length": (0.001, 1.0),
    "additive_width_px": (0.5, 20.0),
    "layers": (1.0, MAX_LAYERS),
    "layer_density": (0.0005, 1.0),
    "layer_strength": (0.0, 5.0),
    "layer_length": (0.001, 1.0),
    "layer_width_px": (0.5, 20.0),
    "layer_slant_deg": (-90.0, 90.0),
    "layer_most": (0.0, 1.0),
    "layer_floor": (0.0, 1.0),
    "layer_screen": (0.0, 1.0),
}
RANGES = tuple(_LIMITS)
"""The fields that are numbers, of which each image may have its own."""


@dataclass(frozen=True, kw_only=True)
class RainConfig:
    """How rain is rendered. Fields of type `Range` may vary from image to image."""

    style: Literal["physical", "additive", "layers"] = "physical"
    """`physical`: drops in space; `additive`: the white streaks of early synthetic sets; `layers`:
    motion-blurred noise, as benchmarks such as Rain100H were drawn."""
    light: Literal["day", "night"] = "day"
    """`night`: day images are relit, and streaks are lit by lamps instead of the sky."""

    # Drops in the air.
    rate_mm_h: Range = (20.0, 60.0)
    """Rain rate in mm/h: the number, size and speed of drops and the veil follow from it."""
    wind_m_s: Range = (-2.0, 2.0)
    """Wind across the view in m/s, to the right."""
    camera_m_s: Range = 0.0
    """Forward speed of the camera in m/s: streaks then point away from its direction."""

    # Camera.
    exposure_ms: Range = (3.0, 8.0)
    """Exposure time in ms: longer makes streaks longer and fainter."""
    focal: Range = (0.9, 1.4)
    """Focal length in longer sides of the frame (1.0: a field of view of 53 degrees)."""
    focus_m: Range = 15.0
    """Distance in focus in metres; nearer drops blur."""
    aperture_mm: Range = 1.5
    """Diameter of the lens opening in mm; 0: everything is sharp."""
    brightness: Range = 1.0
    """Factor on the light of streaks; 1.0: as bright as the surroundings seen through a drop."""
    min_opacity: float = 0.012
    """Smallest opacity of a streak that is drawn, at a frame width of 640 pixels."""

    # Veil.
    mist_per_km: Range = 0.0
    """Extinction of mist or spray in 1/km, added to that of the rain itself."""
    spray_per_km: Range = 0.0
    """Extinction at the road of the turbulent spray that tyres raise, in 1/km; 0: none. It thins
    out with the height and is part of the veil."""
    veil_light: Range = 0.9
    """Brightness of the veil, relative to the brightest part of the scene."""
    target_veil: Literal["remove", "keep"] = "remove"
    """Whether the clean target keeps veil and halos (`keep`: only streaks and drops are rain)."""

    # Depth, where no depth map is given.
    depth: Literal["ground", "constant"] = "ground"
    """`ground`: a ground plane below the horizon and a far wall above; `constant`: `depth_m`."""
    horizon: Range = (0.35, 0.5)
    """Row of the horizon, as a fraction of the height from the top."""
    camera_height_m: Range = 1.5
    """Height of the camera above the ground in metres."""
    depth_m: Range = 25.0
    """Depth of everything, with `depth: constant`, in metres."""
    far_m: Range = 120.0
    """Depth at and above the horizon in metres, with `depth: ground`."""

    # The road.
    wet_road: Range = 0.0
    """Share of the road under a film of water, which darkens it and mirrors what is beyond; 0: dry.
    It needs a depth map: without one, all below the horizon counts as road."""

    # Drops on the windscreen, near the focus; `aperture_mm` and `focus_m` blur them.
    windscreen_drops: Range = 0.0
    """Number of drops on the windscreen in a whole frame of 16:9; 0: none."""
    windscreen_drop_mm: Range = (1.5, 6.0)
    """Contact diameter of the largest of them in mm."""
    windscreen_m: Range = (0.3, 0.8)
    """Distance of the windscreen from the camera in metres."""

    # Drops on the lens, far out of focus.
    lens_drops: Range = 0.0
    """Number of drops on the glass; 0: none."""
    lens_drop_size: Range = (0.012, 0.03)
    """Radius of the largest of them, in longer sides of the frame."""

    # Night.
    relight: Literal["auto", "always", "never"] = "auto"
    """Whether to relight the image as night; `auto`: unless it is dark already."""
    night_luminance: Range = (14.0, 40.0)
    """Mean level of a relit image, 0..255."""
    lamps: Range = (2.0, 7.0)
    """Number of lamps added when relighting."""
    headlights: Range = (0.3, 1.5)
    """Strength of the vehicle's headlights, which near drops reflect; 0: none."""
    glow: Range = 1.0
    """Strength of halos around lamps; 0: none."""
    noise: Range = (0.002, 0.008)
    """Sensor noise of relit images, the same in rainy image and target; fraction of full scale."""

    # Additive style.
    additive_density: Range = (0.01, 0.05)
    """Share of pixels that seed a streak."""
    additive_strength: Range = (0.5, 1.1)
    """Factor on the brightness of streaks."""
    additive_length: Range = (0.02, 0.10)
    """Mean length of an image's streaks, in longer sides of the frame."""
    additive_width_px: Range = (1.0, 3.5)
    """Mean width of an image's streaks in pixels; frames wider than 640 pixels have wider ones."""

    # Layers of noise, each with random density, strength, length, width and slant.
    layers: Range = (1.0, 5.0)
    """Number of layers that are summed, rounded."""
    layer_density: Range = (0.002, 0.1)
    """Share of pixels that seed a streak; log-uniform."""
    layer_strength: Range = (0.25, 1.1)
    """Brightness of a layer's bright streaks; log-uniform."""
    layer_length: Range = (0.025, 0.2)
    """Length of streaks in longer sides of the frame; log-uniform."""
    layer_width_px: Range = (1.0, 2.2)
    """Width of streaks in pixels; frames wider than 640 pixels have wider ones."""
    layer_slant_deg: Range = (-25.0, 25.0)
    """Angle of streaks to the vertical in degrees."""
    layer_most: Range = (0.15, 0.35)
    """Maximum mean light that layers add, 0..1: stronger sums are dimmed."""
    layer_floor: Range = (0.0, 0.08)
    """Uniform light added to the whole image, 0..1."""
    layer_screen: float = 0.25
    """Share of images whose streaks are screened, 1 - (1 - image)(1 - streaks), not added."""

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            low, high = self.limits(name)
            if not (math.isfinite(low) and math.isfinite(high)) or low > high:
                raise ConfigError(
                    f"rain.{name}: {getattr(self, name)!r} is no range; give a number, "
                    "or the least and the largest"
                )
            if low < least or high > most:
                raise ConfigError(
                    f"rain.{name}: {getattr(self, name)!r} is not within {least:g}..{most:g}"
                )

    @property
    def structure(self) -> tuple[str, ...]:
        """What must be equal in kinds of rain that are rendered together; fields may differ."""
        if self.style != "physical":
            return (self.style,)
        return (self.style, self.light, self.relight, self.depth, self.target_veil)

    def limits(self, name: str) -> tuple[float, float]:
        """Return the smallest and largest value of a field; equal if it is a single number."""
        value = getattr(self, name)
        return tuple(map(float, value)) if isinstance(value, tuple) else (float(value),) * 2  # type: ignore[return-value]


_DAY: dict[str, Any] = {
    "rate_mm_h": (25.0, 75.0),
    "focal": (1.1, 1.7),
    "exposure_ms": (2.5, 6.0),
    "brightness": (1.5, 3.0),
    "veil_light": 0.8,
    "min_opacity": 0.02,
    "far_m": (15.0, 45.0),
}
_NIGHT: dict[str, Any] = {
    "light": "night",
    "rate_mm_h": (20.0, 60.0),
    "exposure_ms": (5.0, 12.0),
    "brightness": (1.5, 3.5),
    "veil_light": 0.3,
    "glow": (0.2, 0.6),
    "headlights": (0.1, 0.5),
    "min_opacity": 0.02,
    "far_m": (30.0, 60.0),
}
_HEAVY: dict[str, Any] = {"rate_mm_h": (80.0, 160.0)}
PRESETS: dict[str, RainConfig] = {
    "day": RainConfig(**_DAY),
    "day-heavy": RainConfig(**{**_DAY, **_HEAVY, "mist_per_km": (1.0, 5.0)}),
    "night": RainConfig(**_NIGHT),
    "night-heavy": RainConfig(**{**_NIGHT, **_HEAVY, "headlights": (0.3, 1.2)}),
    "windscreen": RainConfig(
        **{
            **_DAY,
            "rate_mm_h": (2.0, 15.0),
            "aperture_mm": (0.2, 0.9),
            "windscreen_drops": (60.0, 900.0),
        }
    ),
    "spray": RainConfig(
        **{
            **_DAY,
            "rate_mm_h": (10.0, 50.0),
            "far_m": (40.0, 120.0),
            "spray_per_km": (5.0, 40.0),
        }
    ),
    "drizzle": RainConfig(**{**_DAY, "rate_mm_h": (2.0, 6.0), "mist_per_km": (1.0, 4.0)}),
    "streaks": RainConfig(
        style="additive", additive_density=(0.2, 0.8), additive_strength=(0.2, 0.45)
    ),
    "layers": RainConfig(style="layers"),
}
"""The calibrated kinds of rain, by name; see docs/rain.md."""


def rain_config(preset: str, **changes: Any) -> RainConfig:  # noqa: ANN401 (fields of RainConfig)
    """Return a preset, with some fields changed.

    Raises:
        ConfigError: There is no such preset or field, or a value is out of range.

    Example:
        >>> rain_config("night", rate_mm_h=50.0).rate_mm_h
        50.0
    """
    if preset not in PRESETS:
        raise ConfigError(f"no rain preset {preset!r}; {nearest(preset, PRESETS)}")
    checked: Mapping[str, Any] = {**dataclasses.asdict(PRESETS[preset]), **changes}
    return from_mapping(RainConfig, checked, "rain")
