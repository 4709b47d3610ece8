"""Light by day and by night, in linear units: 1 is a well-lit white wall."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eval.street.draw.camera import Floats

__all__ = ["Glow", "Lamp", "Lighting", "Singles", "day_light", "night_light"]

Singles = npt.NDArray[np.float32]


class Glow(NamedTuple):
    """A visible point of light with a halo.

    Attributes:
        position: (3,), metres.
        colour: (3,), linear.
        strength: Factor on the colour.
    """

    position: Floats
    colour: Floats
    strength: float


class Lamp(NamedTuple):
    """A light source that lights the things around it.

    Attributes:
        position: (3,), metres.
        direction: (3,), unit vector, the direction of its strongest light.
        colour: (3,), linear: the light on a surface 1 m away.
        focus: Exponent of the cosine to `direction`; 0 shines equally in all directions.
    """

    position: Floats
    direction: Floats
    colour: Floats
    focus: float


@dataclass
class Lighting:
    """Everything that lights a scene.

    Attributes:
        sun: (3,), unit vector towards the sun.
        sun_rgb: (3,), the sun's light on a surface that faces it.
        sky_rgb: (3,), light from above, which glossy surfaces also reflect.
        bounce_rgb: (3,), light from below.
        haze_rgb: (3,), the colour that distant objects fade to.
        haze: Share of the light lost per metre.
        zenith_rgb: (3,), the sky overhead.
        horizon_rgb: (3,), the sky above the houses.
        clouds: Clouded share of the sky, 0..1.
        lamps: Street lamps, headlights and lit windows.
    """

    sun: Floats
    sun_rgb: Floats
    sky_rgb: Floats
    bounce_rgb: Floats
    haze_rgb: Floats
    haze: float
    zenith_rgb: Floats
    horizon_rgb: Floats
    clouds: float
    lamps: list[Lamp] = field(default_factory=list)

    def on(self, points: Floats, normals: Floats, sunlit: Floats | Singles) -> Singles:
        """Return the light that falls on surfaces, lamps included.

        Args:
            points: (n, 3), metres.
            normals: (n, 3), unit vectors.
            sunlit: (n,), share of the sun that reaches each point, 0..1.
        """
        normal = normals.astype(np.float32)
        light = self.without_lamps(normal, sunlit.astype(np.float32))
        if self.lamps:
            light += self.from_lamps(points.astype(np.float32), normal)
        return light

    def without_lamps(self, normals: Singles, sunlit: Floats | Singles) -> Singles:
        """Return the light of sun and sky, (n, 3), for normals (n, 3) and sunlit shares (n,)."""
        up = (0.5 + 0.5 * normals[:, 1])[:, None]
        facing = np.clip(normals @ self.sun.astype(np.float32), 0, None) * sunlit
        light = up * self.sky_rgb.astype(np.float32) + (1 - up) * self.bounce_rgb.astype(np.float32)
        light += facing[:, None] * self.sun_rgb.astype(np.float32)
        return np.asarray(light, dtype=np.float32)

    def from_lamps(self, points: Singles, normals: Singles) -> Singles:
        """Return the light of the lamps, (n, 3)."""
        light = np.zeros((3, len(points)), np.float32)
        x, y, z = np.ascontiguousarray(points.T)
        a, b, c = np.ascontiguousarray(normals.T)
        for lamp in self.lamps:
            dx, dy, dz = (np.float32(p) - q for p, q in zip(lamp.position, (x, y, z), strict=True))
            square = dx * dx + dy * dy + dz * dz + np.float32(0.3)
            inverse = 1 / np.sqrt(square)
            # Surfaces that barely face away get some light, as from a large lamp.
            facing = np.clip(((dx * a + dy * b + dz * c) * inverse + 0.15) / 1.15, 0, None)
            if lamp.focus:
                u, v, w = (np.float32(-d) for d in lamp.direction)
                cosine = np.clip((dx * u + dy * v + dz * w) * inverse, 0, None)
                facing *= cosine if lamp.focus == 1 else cosine ** np.float32(lamp.focus)
            facing /= square
            for channel in range(3):
                light[channel] += facing * np.float32(lamp.colour[channel])
        return np.ascontiguousarray(light.T)

    def reflected(self, points: Floats, normals: Floats, eye: Floats) -> Singles:
        """Return the light that glossy surfaces reflect, with the Fresnel factor, (n, 3)."""
        sight = points - eye
        sight = sight / np.linalg.norm(sight, axis=1, keepdims=True)
        cosine = np.abs((sight * normals).sum(axis=1))
        mirrored = sight - 2 * (sight * normals).sum(axis=1, keepdims=True) * normals
        share = np.clip(0.5 + 1.6 * mirrored[:, 1], 0, 1)[:, None]
        seen = share * self.sky_rgb * 0.9 + (1 - share) * self.bounce_rgb * 0.5
        glint = np.clip(mirrored @ self.sun, 0, 1)[:, None] ** 40
        fresnel = (0.05 + 0.95 * (1 - cosine) ** 4)[:, None]
        return np.asarray(fresnel * (seen + 2.0 * glint * self.sun_rgb), dtype=np.float32)


def day_light(rng: np.random.Generator) -> Lighting:
    """Choose a time of day and the weather: clear, broken clouds or overcast."""
    weather = str(rng.choice(["clear", "broken", "overcast"], p=[0.4, 0.3, 0.3]))
    elevation = math.radians(rng.uniform(18, 58))
    azimuth = rng.uniform(0, 2 * math.pi)
    flat = math.cos(elevation)
    sun = np.array([flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)])
    low = float(np.clip((math.radians(38) - elevation) / math.radians(22), 0, 1))
    warmth = np.array([1.0, 0.93 - 0.13 * low, 0.82 - 0.3 * low])
    blue, grey = np.array([0.62, 0.78, 1.0]), np.array([0.9, 0.95, 1.0])
    if weather == "overcast":
        sun_rgb, sky, clouds = warmth * 0.12, grey * 1.15, 1.0
        zenith, horizon = grey * rng.uniform(0.7, 0.95), grey * rng.uniform(1.0, 1.2)
    else:
        clouds = 0.25 if weather == "clear" else 0.62
        sun_rgb = warmth * (2.6 - 0.7 * low)
        sky = (blue * (1 - clouds) + grey * clouds) * 0.62
        zenith = np.array([0.16, 0.34, 0.74]) * rng.uniform(0.85, 1.2)
        horizon = np.array([0.72, 0.86, 1.0]) * (1 - low) + np.array([1.05, 0.9, 0.76]) * low
    haze = float(rng.uniform(0.0008, 0.004))
    return Lighting(
        sun=sun, sun_rgb=sun_rgb, sky_rgb=sky, bounce_rgb=0.22 * (sky + sun_rgb * sun[1]),
        haze_rgb=horizon * 0.82, haze=haze, zenith_rgb=zenith, horizon_rgb=horizon, clouds=clouds,
    )  # fmt: skip


def night_light(rng: np.random.Generator) -> Lighting:
    """Choose how dark the night is; furniture and vehicles add their lamps."""
    level = float(rng.uniform(0.6, 1.4))
    dusk = np.array([0.02, 0.028, 0.05]) * level
    orange = np.array([0.075, 0.055, 0.042]) * level
    return Lighting(
        sun=np.array([0.0, 1.0, 0.0]), sun_rgb=np.zeros(3), sky_rgb=dusk * 0.85,
        bounce_rgb=orange * 0.3, haze_rgb=orange * 0.5, haze=float(rng.uniform(0.001, 0.004)),
        zenith_rgb=dusk * 0.35, horizon_rgb=orange * 0.9, clouds=float(rng.uniform(0.1, 0.7)),
    )  # fmt: skip
