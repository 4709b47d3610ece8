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
from rainmer.rain.randomness import image_key, uniform
from rainmer.rain.road import wet_road
from rainmer.rain.spray import spray_clouds
from rainmer.rain.streaks import StreakMaps, draw_streaks
from rainmer.rain.values import Values
from rainmer.rain.windscreen import Windscreen, wet_windscreen

__all__ = ["Rain", "RainRenderer", "Rendering", "render_mixed"]

_TINT = 0.25  # largest tint of additive streaks: cameras are not neutral
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


class Rain(NamedTuple):
    """The rain of one image of a batch.

    Attributes:
        config: The kind of rain.
        key: Random key of the image; see `image_key`.
        frame_width: Longer side in pixels of the frame that the image is a part of.
    """

    config: RainConfig
    key: int
    frame_width: int


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
        width = frame_width or max(clean.shape[-2:])
        rain = [Rain(self.config, image_key(self.seed, name), width) for name in names]
        return render_mixed(clean, rain, depth_m=depth_m, time_s=time_s)


@torch.no_grad()
def render_mixed(
    clean: Tensor,
    rain: Sequence[Rain],
    *,
    depth_m: Tensor | Sequence[Tensor | None] | None = None,
    time_s: float | Tensor = 0.0,
) -> Rendering:
    """Render rain of several kinds into a batch: each image gets what it would get alone.

    Args:
        clean: (B, 3, H, W), floating point, RGB, 0..1.
        rain: The rain of each image; the kinds are of one structure (`RainConfig.structure`).
        depth_m: Depth of the scenes (B, 1, H, W) in metres, or a map (1, H, W) of each; None:
            guessed as configured.
        time_s: Time of the exposure in a video, a scalar or (B,); drops move with it.

    Raises:
        ImageError: A shape does not fit, there is no image, or the kinds differ in structure.
    """
    maps = [None] * len(rain) if depth_m is None else list(depth_m)
    _check(clean, len(rain), maps)
    if len({own.config.structure for own in rain}) != 1:
        raise ImageError("expected one or more kinds of rain of one structure for a batch")
    keys = torch.tensor([own.key for own in rain], device=clean.device)
    times = torch.as_tensor(time_s, dtype=torch.float32, device=clean.device).expand(len(clean))
    style = rain[0].config.style
    if style == "layers":  # all of which changes with every frame
        keys = _at(keys, times)
    values = Values([own.config for own in rain], keys, [own.frame_width for own in rain], times)
    if style == "layers":
        return _render_layers(clean, values)
    if style == "additive":
        return _render_additive(clean, values)
    return _render_physical(clean, maps, values)


def _render_physical(clean: Tensor, maps: Sequence[Tensor | None], values: Values) -> Rendering:
    size_hw = clean.shape[-2], clean.shape[-1]
    depth_m, ground = _place(maps, values, size_hw)
    scene, clean = _scene(clean, depth_m, values)
    wet = values.having("wet_road")
    if wet is not None:
        dry, road = wet.of(scene), Ground(*map(wet.of, ground))
        mirrored = _glaring(dry, wet, _MIRRORED)
        shining = wet_road(dry, mirrored, wet.of(depth_m), wet("wet_road"), road)
        scene = wet.put(scene, shining)
    maps = draw_streaks(
        sample_streaks(
            _air(values),
            values.keys,
            size_hw,
            frame_width=values.frame_width,
            time_s=values.times,
        ),
        len(clean),
        size_hw,
        depth_m,
    )
    extinction = extinction_per_m(values.map("rate_mm_h")) + 1e-3 * values.map("mist_per_km")
    thickness = extinction * depth_m
    spray = values.having("spray_per_km")
    if spray is not None:
        plane = Ground(*map(spray.of, ground))
        clouds = spray_clouds(
            plane, spray.of(depth_m), spray.keys, spray.times, frame_widths=spray.frame_widths
        )
        thicker = spray.of(thickness) + 1e-3 * spray.map("spray_per_km") * clouds
        thickness = spray.put(thickness, thicker)
    transmission = torch.exp(-thickness)
    veil, streak_light = _light(scene, maps, values)
    veiled = scene * transmission + (1.0 - transmission) * values.map("veil_light") * veil
    rainy = veiled + maps.opacity * (streak_light - veiled)
    rainy, alpha, drops = _through_glass(rainy, maps.opacity, values)
    target = to_srgb(veiled) if values.kind.target_veil == "keep" else clean
    return Rendering(to_srgb(rainy), target, alpha, transmission, values("rate_mm_h"), drops)


def _through_glass(rainy: Tensor, alpha: Tensor, values: Values) -> tuple[Tensor, Tensor, Tensor]:
    """Return the picture through drops on windscreen and lens, and what rain and drops cover.

    The lens is nearer: its drops show those on the windscreen.
    """
    drops = torch.zeros_like(alpha)
    for field in ("windscreen_drops", "lens_drops"):
        wet = values.having(field)
        if wet is None:
            continue
        behind = wet.of(rainy)
        if field == "lens_drops":
            sizes_px = wet("lens_drop_size") * wet.frame_width.float()
            seen, cover = wet_lens(behind, wet(field), sizes_px, wet.keys, wet.times)
        else:
            lit, glass = _glaring(behind, wet, _REFRACTED), _windscreen(wet)
            seen, cover = wet_windscreen(
                behind, lit, glass, wet.keys, frame_widths=wet.frame_widths
            )
        rainy = wet.put(rainy, seen)
        alpha, drops = (
            wet.put(share, 1.0 - (1.0 - wet.of(share)) * (1.0 - cover)) for share in (alpha, drops)
        )
    return rainy, alpha, drops


def _glaring(linear: Tensor, values: Values, factor: float) -> Tensor:
    """Return a picture with lamps by night brighter than a camera's white by a factor."""
    if values.kind.light == "day":
        return linear
    return linear * (1.0 + factor * lamp_share(linear))


def _air(values: Values) -> Air:
    return Air(
        rate_mm_h=values("rate_mm_h"),
        wind_m_s=values("wind_m_s"),
        camera_m_s=values("camera_m_s"),
        exposure_s=values("exposure_ms") * 1e-3,
        focal=values("focal"),
        focus_m=values("focus_m"),
        aperture_m=values("aperture_mm") * 1e-3,
        min_opacity=values("min_opacity"),
    )


def _place(
    maps: Sequence[Tensor | None], values: Values, size_hw: tuple[int, int]
) -> tuple[Tensor, Ground]:
    """Return the depth (B, 1, H, W) and the ground of maps, guessed where there is no map."""
    ground = Ground(values("horizon"), values("camera_height_m"), values.focal_px)
    given = [depth_m for depth_m in maps if depth_m is not None]
    if not given:
        return _guess_depth(values, size_hw), ground
    depth_m = torch.stack(given)
    if len(given) == len(maps):
        return depth_m, fit_ground(depth_m, ground)
    rows = [row for row, own in enumerate(maps) if own is not None]
    index = torch.tensor(rows, device=depth_m.device)
    fitted = fit_ground(depth_m, Ground(*(part[index] for part in ground)))
    ground = Ground(
        *(whole.index_copy(0, index, part) for whole, part in zip(ground, fitted, strict=True))
    )
    return _guess_depth(values, size_hw).index_copy(0, index, depth_m), ground


def _guess_depth(values: Values, size_hw: tuple[int, int]) -> Tensor:
    if values.kind.depth == "constant":
        return constant_depth(size_hw, values("depth_m"))
    return ground_depth(
        size_hw,
        horizon=values("horizon"),
        camera_height_m=values("camera_height_m"),
        focal_px=values.focal_px,
        far_m=values("far_m"),
    )


def _scene(clean: Tensor, depth_m: Tensor, values: Values) -> tuple[Tensor, Tensor]:
    """Return the dry scene in linear light, and as the picture that is the target."""
    linear = to_linear(clean)
    if values.kind.light == "day" or values.kind.relight == "never":
        return linear, clean
    by_day = torch.ones(len(clean), dtype=torch.bool, device=clean.device)
    if values.kind.relight == "auto":
        by_day = is_day(clean)
    night = Night(
        level=values("night_luminance") / 255.0,
        lamps=values("lamps").round(),
        headlights=values("headlights"),
        horizon=values("horizon"),
        camera_height_m=values("camera_height_m"),
        focal_px=values.focal_px,
    )
    relit = relight(linear, depth_m, night, values.keys)
    relit = add_noise(relit, values("noise"), _at(values.keys, values.times))
    choice = by_day[:, None, None, None]
    return torch.where(choice, relit, linear), torch.where(choice, to_srgb(relit), clean)


def _light(scene: Tensor, maps: StreakMaps, values: Values) -> tuple[Tensor, Tensor]:
    """Return the light of the veil and of streaks, (B, 3, H, W) or (B, 3, 1, 1).

    By day the sky lights both. By night lamps light what is near and in front of them, and the
    vehicle's headlights light near drops.
    """
    brightness = maps.brightness * values.map("brightness")
    local = blur(scene.clamp_max(1.0), max(1, scene.shape[-1] // 8))
    if values.kind.light == "day":
        sky = airlight(scene)
        return sky, brightness * ((1.0 - _LOCAL_LIGHT) * sky + _LOCAL_LIGHT * local)
    lamps = lamp_light(scene)
    headlights = maps.nearness * _beam(scene) * values.map("headlights")
    streaks = (local + lamps) * brightness + headlights * values.map("brightness")
    return local + values.map("glow") * lamps, streaks


def _windscreen(values: Values) -> Windscreen:
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


def _render_additive(clean: Tensor, values: Values) -> Rendering:
    size_hw, keys = (clean.shape[-2], clean.shape[-1]), _at(values.keys, values.times)
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


def _render_layers(clean: Tensor, values: Values) -> Rendering:
    size_hw = clean.shape[-2], clean.shape[-1]
    keys = values.keys
    streaks = noise_layers(values, keys, size_hw, frame_width=values.frame_width)
    streaks = streaks * _tint(keys)
    screened = uniform(keys, 0, zlib.crc32(b"layer_screen")) < values("layer_screen")
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


def _check(clean: Tensor, names: int, maps: Sequence[Tensor | None]) -> None:
    if clean.ndim != 4 or clean.shape[1] != 3 or not clean.is_floating_point():
        raise ImageError(
            "expected frames (B, 3, H, W) of floating point, but got "
            f"{tuple(clean.shape)} of {clean.dtype}"
        )
    if names != len(clean):
        raise ImageError(f"expected {len(clean)} names of images, but got {names}")
    if len(maps) != len(clean):
        raise ImageError(f"expected {len(clean)} depth maps, but got {len(maps)}")
    expected = (1, *clean.shape[-2:])
    for depth_m in maps:
        if depth_m is not None and depth_m.shape != expected:
            raise ImageError(f"expected depth maps {expected}, but got {tuple(depth_m.shape)}")
