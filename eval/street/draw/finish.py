"""From linear light to a picture: haze, glow, exposure, tone curve, blur and noise."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from eval.street.draw.camera import Camera
from eval.street.draw.light import Glow, Lighting, Singles
from rainmer.frames.arrays import Frame

__all__ = ["add_glows", "add_haze", "develop"]


def add_haze(picture: Singles, depth_m: Singles, light: Lighting, sky_m: float) -> Singles:
    """Fade linear RGB (H, W, 3) with distance; the sky, at `sky_m`, already includes haze."""
    clear = np.exp(-depth_m * np.float32(light.haze))
    clear[depth_m >= sky_m] = 1.0
    clear = clear[..., None]
    return np.asarray(picture * clear + light.haze_rgb.astype(np.float32) * (1 - clear))


def add_glows(picture: Singles, depth_m: Singles, camera: Camera, glows: Sequence[Glow]) -> None:
    """Add glows that nothing hides to linear RGB (H, W, 3), in place.

    Args:
        picture: Linear RGB.
        depth_m: (H, W), metres.
        camera: Projects their positions.
        glows: Points of light.
    """
    height, width = depth_m.shape
    for position, colour, strength in glows:
        view = camera.to_view(position)
        if view[2] < 1:
            continue
        x, y = camera.to_pixels(view)
        column, row = int(x), int(y)
        if not (0 <= column < width and 0 <= row < height) or depth_m[row, column] < view[2] - 0.8:
            continue
        spread = (0.16 * camera.focal / view[2]) ** 0.7 + 0.012 * width / 10
        reach = int(spread * 7) + 2
        top, left = max(row - reach, 0), max(column - reach, 0)
        ys = np.arange(top, min(row + reach + 1, height), dtype=np.float32)[:, None] - np.float32(y)
        xs = np.arange(left, min(column + reach + 1, width), dtype=np.float32)[None] - np.float32(x)
        square = (xs * xs + ys * ys) / np.float32(spread * spread)
        edge = np.clip(1 - square / 49, 0, 1) ** 2
        spot = (np.exp(-square) + 0.14 / (1 + square) * edge) * np.float32(strength)
        area = picture[top : top + len(ys), left : left + xs.shape[1]]
        area += spot[..., None] * colour.astype(np.float32)


def develop(rng: np.random.Generator, picture: Singles, night: bool) -> Frame:
    """Expose linear RGB (H, W, 3) like a small camera.

    Args:
        rng: Chooses exposure, vignette, blur and noise.
        picture: Linear RGB; changed in place.
        night: Expose darker, with more noise and more glow around lights.
    """
    _bloom(picture, 0.12 if night else 0.03)
    height, width = picture.shape[:2]
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None]
    picture *= (1 - np.float32(rng.uniform(0.05, 0.18)) * (xs * xs + ys * ys))[..., None]
    target = float(rng.uniform(26, 42) if night else rng.uniform(100, 128))
    picture *= np.float32(_exposure(picture[::8, ::8], target))
    picture *= (1 + rng.normal(0, 0.025, 3)).astype(np.float32)
    blur = float(rng.uniform(0.3, 0.6))
    picture = cv2.GaussianBlur(picture, (0, 0), blur)
    levels = _tone(picture)
    grain = rng.standard_normal((height, width, 3), dtype=np.float32)
    strength = rng.uniform(1.2, 2.6) if night else rng.uniform(0.7, 1.8)
    levels += grain * np.float32(strength) * (1.15 - levels / 255)
    return np.asarray(np.clip(np.rint(levels), 0, 255), dtype=np.uint8)


def _bloom(picture: Singles, share: float) -> None:
    """Spread a share of the light around bright spots, as a lens does; in place."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    near = cv2.GaussianBlur(small, (0, 0), 1.2 * width / 640)
    wide = cv2.GaussianBlur(small, (0, 0), 7.0 * width / 640)
    mixed = 0.6 * near + 0.4 * wide
    picture *= np.float32(1 - share)
    picture += np.float32(share) * cv2.resize(
        mixed, (width, height), interpolation=cv2.INTER_LINEAR
    )


def _tone(picture: Singles) -> Singles:
    """Turn linear RGB into levels 0..255: a filmic tone curve, then the display's gamma."""
    bent = picture * (picture * np.float32(2.4) + np.float32(0.06))
    bent /= picture * (picture * np.float32(2.3) + np.float32(0.6)) + np.float32(0.12)
    return np.asarray(np.clip(bent, 0, 1) ** np.float32(1 / 2.2) * 255, dtype=np.float32)


def _exposure(sample: Singles, target: float) -> float:
    """Return the factor that gives a sample (h, w, 3) the mean level `target`, by bisection."""
    low, high = 1e-2, 60.0
    for _ in range(12):
        middle = (low * high) ** 0.5
        if float(_tone(sample * np.float32(middle)).mean()) < target:
            low = middle
        else:
            high = middle
    return float((low * high) ** 0.5)
