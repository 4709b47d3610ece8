"""The renderer: clean frames in, rainy frames with their targets and masks out."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rainmer.data.depth import Ground, constant_depth, fit_ground, ground_depth
from rainmer.errors import ImageError
from rainmer.rain.additive import additive_streaks
from rainmer.rain.config import RainConfig
from rainmer.rain.drops import Air, extinction_per_m, sample_streaks
from rainmer.rain.layers import noise_layers
from rainmer.rain.lens import wet_lens
from rainmer.rain.light import airlight, blur, lamp_light, lamp_share, to_linear, to_srgb
from rainmer.rain.night import Night, add_noise, is_day, relight
from rainmer.rain.randomness import image_keys, uniform
from rainmer.rain.road import wet_road
from rainmer.rain.spray import spray_clouds
from rainmer.rain.streaks import StreakMaps, draw_streaks
from rainmer.rain.windscreen import Windscreen, wet_windscreen

__all__ = ["RainRenderer", "Rendering"]

_TINT = 0.25  # largest tint of additive streaks: cameras are not neutral
_OVER_LOGARITHM = frozenset({"layer_density", "layer_strength", "layer_length"})
# How much brighter than a camera's white lamps are: seen tiny in drops, and mirrored by roads.
_REFRACTED, _MIRRORED = 60.0, 5.0
_LOCAL_LIGHT = 0.35  # share of the light of a drop that comes from the scene right behind it


class Rendering(NamedTuple):
    """A rendered batch, float tensors.

    Attributes:
        rainy: (B, 3, H, W), RGB, 0..1.
        clean: The target: the given frames, at night relit, with the veil if it is kept.
        alpha: Share of each pixel covered by streaks and drops on glass (B, 1, H, W), 0..1.
        transmission: Share of the scene's light that passes veil and spray (B, 1, H, W), 0..1.
        rate_mm_h: Rain rate of each image (B,).
        drops: Share of each pixel covered by drops on glass alone (B, 1, H, W), 0..1.
    """

    rainy: Tensor
    clean: Tensor
    alpha: Tensor
    transmission: Tensor
    rate_mm_h: Tensor
    drops: Tensor


class RainRenderer:
    """Renders rain into clean frames in linear light; deterministic for a seed and a name.

    Everything is computed per batch on the frames' device. The rain of an image depends on the
    seed and its name alone, not on the other images of the batch.

    Args:
        config: The kind of rain; see `rain_config` for the presets.
        seed: Random seed of the rain.

    Example:
        >>> from rainmer.rain import RainRenderer, rain_config
        >>> renderer = RainRenderer(rain_config("day", rate_mm_h=50.0), seed=0)
        >>> rendering = renderer(torch.full((1, 3, 48, 64), 0.25), ["street.png"])
        >>> rendering.rainy.shape, bool(rendering.alpha.max() > 0)
        (torch.Size([1, 3, 48, 64]), True)
    """

    def __init__(self, config: RainConfig, *, seed: int = 0) -> None:
        self.config = config
        self.seed = seed

    @torch.no_grad()
    def __call__(
        self,
        clean: Tensor,
        names: Sequence[str],
        *,
        depth_m: Tensor | None = None,
        frame_width: int | None = None,
        time_s: float | Tensor = 0.0,
    ) -> Rendering:
        """Render rain into a batch.

        Args:
            clean: (B, 3, H, W), floating point, RGB, 0..1.
            names: A name for each image; together with the seed it determines everything random.
            depth_m: Depth of the scene (B, 1, H, W) in metres; None: guessed as configured.
            frame_width: Longer side in pixels of the whole frames, if the images are crops of them.
            time_s: Time of the exposure in a video, a scalar or (B,); drops move with it.

        Raises:
            ImageError: A shape does not fit.
        """
        _check(clean, names, depth_m)
        keys = image_keys(self.seed, names, clean.device)
        size_hw = clean.shape[-2], clean.shape[-1]
        width = frame_width or max(size_hw)
        values = _Draw(self.config, keys, width)
        times = torch.as_tensor(time_s, dtype=torch.float32, device=clean.device).expand(len(clean))
        if self.config.style == "additive":
            return _render_additive(clean, values, _at(keys, times))
        if self.config.style == "layers":
            return _render_layers(clean, self.config, _at(keys, times), width)
        ground = Ground(values("horizon"), values("camera_height_m"), values.focal_px)
        if depth_m is not None:
            ground = fit_ground(depth_m, ground)
        else:
            depth_m = self._guess_depth(values, size_hw)
        scene, clean = self._scene(clean, depth_m, values, keys, times)
        if self.config.limits("wet_road")[1] > 0:
            mirrored = self._glaring(scene, _MIRRORED)
            scene = wet_road(scene, mirrored, depth_m, values("wet_road"), ground)
        maps = draw_streaks(
            sample_streaks(self._air(values), keys, size_hw, frame_width=width, time_s=times),
            len(clean),
            size_hw,
            depth_m,
        )
        extinction = extinction_per_m(values.map("rate_mm_h")) + 1e-3 * values.map("mist_per_km")
        thickness = extinction * depth_m
        if self.config.limits("spray_per_km")[1] > 0:
            clouds = spray_clouds(ground, depth_m, keys, times, frame_width=width)
            thickness = thickness + 1e-3 * values.map("spray_per_km") * clouds
        transmission = torch.exp(-thickness)
        veil, streak_light = self._light(scene, maps, values)
        veiled = scene * transmission + (1.0 - transmission) * values.map("veil_light") * veil
        rainy = veiled + maps.opacity * (streak_light - veiled)
        rainy, alpha, drops = self._through_glass(rainy, maps.opacity, values, keys, times)
        target = to_srgb(veiled) if self.config.target_veil == "keep" else clean
        return Rendering(to_srgb(rainy), target, alpha, transmission, values("rate_mm_h"), drops)

    def _through_glass(
        self, rainy: Tensor, alpha: Tensor, values: _Draw, keys: Tensor, times: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the picture through drops on windscreen and lens, and what rain and drops cover.

        The lens is nearer: its drops show those on the windscreen.
        """
        width, drops = values.frame_width, torch.zeros_like(alpha)
        if self.config.limits("windscreen_drops")[1] > 0:
            lit, glass = self._glaring(rainy, _REFRACTED), _windscreen(values)
            rainy, cover = wet_windscreen(rainy, lit, glass, keys, frame_width=width)
            alpha, drops = (1.0 - (1.0 - share) * (1.0 - cover) for share in (alpha, drops))
        if self.config.limits("lens_drops")[1] > 0:
            sizes_px = values("lens_drop_size") * width
            rainy, cover = wet_lens(rainy, values("lens_drops"), sizes_px, keys, times)
            alpha, drops = (1.0 - (1.0 - share) * (1.0 - cover) for share in (alpha, drops))
        return rainy, alpha, drops

    def _glaring(self, linear: Tensor, factor: float) -> Tensor:
        """Return a picture with lamps by night brighter than a camera's white by a factor."""
        if self.config.light == "day":
            return linear
        return linear * (1.0 + factor * lamp_share(linear))

    def _air(self, values: _Draw) -> Air:
        return Air(
            rate_mm_h=values("rate_mm_h"),
            wind_m_s=values("wind_m_s"),
            camera_m_s=values("camera_m_s"),
            exposure_s=values("exposure_ms") * 1e-3,
            focal=values("focal"),
            focus_m=values("focus_m"),
            aperture_m=values("aperture_mm") * 1e-3,
            min_opacity=self.config.min_opacity,
        )

    def _guess_depth(self, values: _Draw, size_hw: tuple[int, int]) -> Tensor:
        if self.config.depth == "constant":
            return constant_depth(size_hw, values("depth_m"))
        return ground_depth(
            size_hw,
            horizon=values("horizon"),
            camera_height_m=values("camera_height_m"),
            focal_px=values.focal_px,
            far_m=values("far_m"),
        )

    def _scene(
        self, clean: Tensor, depth_m: Tensor, values: _Draw, keys: Tensor, times: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the dry scene in linear light, and as the picture that is the target."""
        linear = to_linear(clean)
        if self.config.light == "day" or self.config.relight == "never":
            return linear, clean
        by_day = torch.ones(len(clean), dtype=torch.bool, device=clean.device)
        if self.config.relight == "auto":
            by_day = is_day(clean)
        night = Night(
            level=values("night_luminance") / 255.0,
            lamps=values("lamps").round(),
            headlights=values("headlights"),
            horizon=values("horizon"),
            camera_height_m=values("camera_height_m"),
            focal_px=values.focal_px,
        )
        relit = relight(linear, depth_m, night, keys)
        relit = add_noise(relit, values("noise"), _at(keys, times))
        choice = by_day[:, None, None, None]
        return torch.where(choice, relit, linear), torch.where(choice, to_srgb(relit), clean)

    def _light(self, scene: Tensor, maps: StreakMaps, values: _Draw) -> tuple[Tensor, Tensor]:
        """Return the light of the veil and of streaks, (B, 3, H, W) or (B, 3, 1, 1).

        By day the sky lights both. By night lamps light what is near and in front of them, and the
        vehicle's headlights light near drops.
        """
        brightness = maps.brightness * values.map("brightness")
        local = blur(scene.clamp_max(1.0), max(1, scene.shape[-1] // 8))
        if self.config.light == "day":
            sky = airlight(scene)
            return sky, brightness * ((1.0 - _LOCAL_LIGHT) * sky + _LOCAL_LIGHT * local)
        lamps = lamp_light(scene)
        headlights = maps.nearness * _beam(scene) * values.map("headlights")
        streaks = (local + lamps) * brightness + headlights * values.map("brightness")
        return local + values.map("glow") * lamps, streaks


class _Draw:
    """The values of a configuration's fields for each image of a batch."""

    def __init__(self, config: RainConfig, keys: Tensor, frame_width: int) -> None:
        self.frame_width = frame_width
        self._config = config
        self._keys = keys

    @property
    def focal_px(self) -> Tensor:
        """Focal length in pixels (B,)."""
        return self("focal") * self.frame_width

    def __call__(self, name: str, index: int = 0) -> Tensor:
        """Return the values of a field (B,); other indices are other values of it."""
        low, high = self._config.limits(name)
        share = uniform(self._keys, index, zlib.crc32(name.encode()))
        if name in _OVER_LOGARITHM:
            return low * (high / low) ** share
        return low + (high - low) * share

    def map(self, name: str) -> Tensor:
        """Return the values of a field as (B, 1, 1, 1)."""
        return self(name)[:, None, None, None]


def _windscreen(values: _Draw) -> Windscreen:
    distance, focal_px = values("windscreen_m"), values.focal_px
    defocus = (1.0 / distance - 1.0 / values("focus_m")).abs()
    return Windscreen(
        drops=values("windscreen_drops"),
        largest_mm=values("windscreen_drop_mm"),
        distance_m=distance,
        focal_px=focal_px,
        blur_px=1e-3 * values("aperture_mm") * focal_px * defocus,
    )


def _beam(scene: Tensor) -> Tensor:
    """Return where the headlights reach drops (1, 3, H, W): around and below the centre."""
    height, width = scene.shape[-2:]
    rows = (torch.arange(height, device=scene.device) + 0.5) / height - 0.62
    columns = (torch.arange(width, device=scene.device) + 0.5) / width - 0.5
    shape = torch.exp(-(rows[:, None] / 0.4).square() - (columns / 0.5).square())
    return shape * torch.tensor((1.0, 0.93, 0.82), device=scene.device)[:, None, None]


def _at(keys: Tensor, times: Tensor) -> Tensor:
    """Return keys for randomness that changes with every frame of a video, unlike drops."""
    return keys + (times * 1e4).round().long()


def _render_additive(clean: Tensor, values: _Draw, keys: Tensor) -> Rendering:
    size_hw = clean.shape[-2], clean.shape[-1]
    streaks = additive_streaks(
        density=values("additive_density"),
        strength=values("additive_strength"),
        length=values("additive_length"),
        width_px=values("additive_width_px"),
        keys=keys,
        size_hw=size_hw,
        frame_width=values.frame_width,
    )
    maps = draw_streaks(streaks, len(clean), size_hw)
    rainy = (clean + maps.opacity * _tint(keys)).clamp_max(1.0)
    none = torch.zeros_like(maps.opacity)
    return Rendering(rainy, clean, maps.opacity, none + 1.0, values("rate_mm_h"), none)


def _render_layers(clean: Tensor, config: RainConfig, keys: Tensor, frame_width: int) -> Rendering:
    draw = _Draw(config, keys, frame_width)
    streaks = noise_layers(draw, keys, (clean.shape[-2], clean.shape[-1]), frame_width=frame_width)
    streaks = streaks * _tint(keys)
    screened = uniform(keys, 0, zlib.crc32(b"layer_screen")) < config.layer_screen
    light = torch.where(screened[:, None, None, None], streaks * (1.0 - clean), streaks)
    rainy = (clean + light).clamp(0.0, 1.0)
    alpha = streaks.amax(1, keepdim=True).clamp_max(1.0)
    nothing = torch.zeros(len(clean), device=clean.device)
    none = torch.zeros_like(alpha)
    return Rendering(rainy, clean, alpha, none + 1.0, nothing, none)


def _tint(keys: Tensor) -> Tensor:
    """Return the colour of white streaks (B, 3, 1, 1)."""
    channel = torch.arange(3, device=keys.device)
    return 1.0 - _TINT * uniform(keys[:, None], channel, zlib.crc32(b"tint"))[:, :, None, None]


def _check(clean: Tensor, names: Sequence[str], depth_m: Tensor | None) -> None:
    if clean.ndim != 4 or clean.shape[1] != 3 or not clean.is_floating_point():
        raise ImageError(
            "expected frames (B, 3, H, W) of floating point, but got "
            f"{tuple(clean.shape)} of {clean.dtype}"
        )
    if len(names) != len(clean):
        raise ImageError(f"expected {len(clean)} names of images, but got {len(names)}")
    expected = (len(clean), 1, *clean.shape[-2:])
    if depth_m is not None and depth_m.shape != expected:
        raise ImageError(f"expected depth {expected}, but got {tuple(depth_m.shape)}")
