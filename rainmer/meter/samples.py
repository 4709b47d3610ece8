"""Frames with known truth for the meter: dry, hazy, relit, under rendered rain, and really rainy.

Each dry frame is taken as it is and, at a width of 400 pixels, under a few kinds of rain drawn for
it by its name; the renderer knows the truth. Of real rainy frames only that is known. A hash of the
name decides which frames train the head, which measure its errors, and which test it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from rainmer import models
from rainmer.cli import progress_bar
from rainmer.errors import ImageError
from rainmer.frames.arrays import to_batch
from rainmer.frames.images import list_images, read_image
from rainmer.meter.features import (
    LONGER_SIDE,
    encoder_fingerprint,
    encoder_of,
    meter_views,
    view_statistics,
)
from rainmer.meter.options import SampleOptions
from rainmer.models.rainmer import ViewEncoder
from rainmer.models.weights import write_tensors
from rainmer.rain import RainRenderer, Rendering, rain_config
from rainmer.rain.night import is_day

__all__ = [
    "KINDS",
    "SPLITS",
    "Folders",
    "Samples",
    "collect_samples",
    "render_kind",
    "samples_of",
    "split_of",
]

SPLITS = ("train", "errors", "test")
_ENCODER = "rainmer-s"
_VERSION = 3
_UNKNOWN = float("nan")
_SEEN_STREAKS, _SEEN_DROPS = 0.01, 0.005  # shares of the picture from which rain can be seen
_CROPS = 6  # of real rainy frames, which are few
_ANY_RATE = 0.5  # share of renderings whose rate is any, not the preset's
_RATES_MM_H = (1.0, 160.0)
_HAZE: dict[str, Any] = {"rate_mm_h": 0.0, "mist_per_km": (2.0, 30.0), "far_m": (40.0, 300.0)}
_LENS: dict[str, Any] = {"lens_drops": (10.0, 120.0)}
_DARK: dict[str, Any] = {"light": "night", "relight": "never", "veil_light": 0.3}

KINDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{
        name: (name, {})
        for name in (
            *("day", "day-heavy", "drizzle", "windscreen", "spray", "streaks", "layers"),
            *("night", "night-heavy"),
        )
    },
    "lens": ("day", _LENS),
    "haze": ("day", _HAZE),
    "night-lens": ("night", _LENS),
    "night-windscreen": ("windscreen", _DARK),
    "night-haze": ("night", _HAZE),
    "night-dry": ("night", {"rate_mm_h": 0.0}),
}
"""Kinds of pictures: a preset of the renderer, and the fields in which they differ from it."""

_BY_DAY = tuple(kind for kind in KINDS if kind != "night-windscreen")
_BY_NIGHT = (
    *("night", "night-heavy", "night-lens", "night-windscreen", "night-haze"),
    *("layers", "streaks"),
)
_WITHOUT_RATE = ("streaks", "layers")
_RELIT = ("night", "night-heavy", "night-lens", "night-haze", "night-dry")
_WITHOUT_RAIN = ("haze", "night-haze", "night-dry")


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Folders of pictures, searched with their subfolders.

    Attributes:
        photos: Dry photos of any kind; dark ones teach nothing about night.
        day, night: Dry frames of streets.
        rainy: Real rain; files below a folder `night` are of the night.
    """

    photos: Sequence[Path] = ()
    day: Sequence[Path] = ()
    night: Sequence[Path] = ()
    rainy: Sequence[Path] = ()


@dataclass(frozen=True)
class Samples:
    """N frames as the head sees them.

    Attributes:
        statistics: (N, S), see `rainmer.meter.features`.
        truth: (N, 6), values of `QUANTITIES`, NaN where unknown.
        kinds: `dry`, `real`, or a name of `KINDS`, each.
        splits: A name of `SPLITS`, each.
        groups: `photos`, `day`, `night` or `rainy`, each.
    """

    statistics: Tensor
    truth: Tensor
    kinds: list[str]
    splits: list[str]
    groups: list[str]

    def where(self, **wanted: str | Sequence[str]) -> Tensor:
        """Return which frames have one of these values (N,), bool; names are attributes."""
        chosen = torch.ones(len(self.truth), dtype=torch.bool)
        for name, values in wanted.items():
            allowed = {values} if isinstance(values, str) else set(values)
            chosen &= torch.tensor([value in allowed for value in getattr(self, name)])
        return chosen


def split_of(path: Path) -> str:
    """Return the split of a file: of five parts three train, one measures errors, one tests.

    Its name alone decides, so that it has the same split in every folder.
    """
    part = int(hashlib.sha256(path.name.encode()).hexdigest()[:8], 16) % 5
    return SPLITS[2] if part == 0 else SPLITS[1] if part == 1 else SPLITS[0]


def collect_samples(
    folders: Folders,
    encoder: ViewEncoder,
    fingerprint: str,
    *,
    renderings: int = 3,
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[[Sequence[Any]], Iterator[Any]] = iter,
) -> Samples:
    """Render and encode all frames; one pass of about 0.1 s a rendering on one CPU core.

    Args:
        folders: The frames.
        encoder: See `encoder_of`.
        fingerprint: That of the encoder.
        renderings: Kinds of rain for each dry frame.
        seed: Of the rain.
        cache: A file for the result, which is read back if nothing has changed.
        progress: Wraps the files, for a progress bar.

    Raises:
        ImageError: A picture cannot be read, or there is none.
        OutputError: The cache cannot be written.
    """
    files = [
        (group, root, path)
        for group in ("photos", "day", "night", "rainy")
        for root in getattr(folders, group)
        for path in list_images(root)
    ]
    if not files:
        raise ImageError("none of the folders holds an image")
    stamp = [[group, str(path), path.stat().st_size] for group, _, path in files]
    key = json.dumps([_VERSION, fingerprint, renderings, seed, stamp])
    key = hashlib.sha256(key.encode()).hexdigest()
    if cache is not None and (kept := _read(cache, key)) is not None:
        return kept
    rows: list[tuple[Tensor, list[float], str, str, str]] = []
    for group, root, path in progress(files):
        name = f"{root.name}/{path.relative_to(root).as_posix()}"
        for kind, picture, truth in _pictures(group, name, path, renderings, seed):
            statistics = view_statistics(encoder, *meter_views(picture))[0]
            rows.append((statistics, truth, kind, split_of(path), group))
    vectors, truths, *names = map(list, zip(*rows, strict=True))
    samples = Samples(torch.stack(vectors), torch.tensor(truths), *names)
    if cache is not None:
        _write(cache, key, samples)
    return samples


def _pictures(
    group: str, name: str, path: Path, renderings: int, seed: int
) -> Iterator[tuple[str, Tensor, list[float]]]:
    """Yield kinds, pictures (1, 3, H, W) and truths of a file."""
    frame = to_batch([read_image(path)])
    draw = random.Random(f"{seed} {name}")
    if group == "rainy":
        night = float("night" in Path(name).parts)
        truth = [*[_UNKNOWN] * 4, night, 1.0]
        yield "real", frame, truth
        for _ in range(_CROPS):
            yield "real", _crop(frame, draw), truth
        return
    bright = bool(is_day(frame)[0])
    night = {"day": 0.0, "night": 1.0}.get(group, 0.0 if bright else _UNKNOWN)
    truth = [0.0, 0.0, 1.0, 0.0, night, 0.0]
    yield "dry", frame, truth
    yield "dry", _crop(frame, draw), truth
    small = _shrink(frame)
    kinds = _BY_NIGHT if group == "night" else _BY_DAY
    for kind in draw.sample(kinds, min(renderings, len(kinds))):
        rendered = render_kind(kind, small, name, draw, seed=seed)
        yield kind, rendered.rainy, _truth(kind, rendered, night)


def render_kind(
    kind: str,
    frame: Tensor,
    name: str,
    draw: random.Random,
    *,
    seed: int = 0,
    depth_m: Tensor | None = None,
) -> Rendering:
    """Return a frame (1, 3, H, W) under a kind of rain; half of the kinds' rates are any rate.

    Args:
        kind: One of `KINDS`.
        frame: RGB, 0..1.
        name: With the seed it determines the rain.
        draw: Chooses the rate.
        seed: Of the rain.
        depth_m: Depth of the scene (1, 1, H, W) in metres, if it is known.
    """
    preset, changes = KINDS[kind]
    changes = dict(changes)
    if kind not in (*_WITHOUT_RATE, *_WITHOUT_RAIN) and draw.random() < _ANY_RATE:
        low, high = _RATES_MM_H
        changes["rate_mm_h"] = low * (high / low) ** draw.random()
    config = rain_config(preset, **changes)
    return RainRenderer(config, seed=seed)(frame, [f"{kind}/{name}"], depth_m=depth_m)


def _truth(kind: str, rendered: Rendering, night: float) -> list[float]:
    """Return the values of `QUANTITIES` for a rendering of a frame of day (0) or night (1)."""
    drops = float(rendered.drops.mean())
    streaks = 1.0 - (1.0 - rendered.alpha) / (1.0 - rendered.drops).clamp_min(1e-6)
    coverage = max(0.0, float(streaks.mean()))
    light = float(rendered.transmission.mean())
    seen = coverage >= _SEEN_STREAKS or drops >= _SEEN_DROPS
    rain = 0.0 if kind in _WITHOUT_RAIN else 1.0 if seen else _UNKNOWN
    rate = _UNKNOWN if kind in _WITHOUT_RATE else float(rendered.rate_mm_h)
    return [rate, coverage, light, drops, 1.0 if kind in _RELIT else night, rain]


def _shrink(frame: Tensor) -> Tensor:
    height, width = frame.shape[-2:]
    scale = min(1.0, LONGER_SIDE / max(height, width))
    return F.adaptive_avg_pool2d(frame, (round(height * scale), round(width * scale)))


def _crop(frame: Tensor, draw: random.Random) -> Tensor:
    """Return a part of a frame, mirrored half of the time."""
    height, width = frame.shape[-2:]
    share = draw.uniform(0.7, 1.0)
    rows, columns = round(height * share), round(width * share)
    top, left = draw.randint(0, height - rows), draw.randint(0, width - columns)
    part = frame[..., top : top + rows, left : left + columns]
    return part.flip(-1) if draw.random() < 0.5 else part


def _read(cache: Path, key: str) -> Samples | None:
    """Return what a cache holds, if it is of this key."""
    try:
        with safetensors.safe_open(cache, framework="pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("key") != key:
                return None
            lists = json.loads(metadata["lists"])
            return Samples(content.get_tensor("statistics"), content.get_tensor("truth"), *lists)
    except (OSError, safetensors.SafetensorError):
        return None


def _write(cache: Path, key: str, samples: Samples) -> None:
    lists = json.dumps([samples.kinds, samples.splits, samples.groups])
    tensors = {"statistics": samples.statistics, "truth": samples.truth}
    write_tensors(cache, tensors, {"key": key, "lists": lists})


def samples_of(options: SampleOptions) -> Samples:
    """Render and encode what the options name; see `collect_samples`."""
    network = models.load(_ENCODER)

    def progress(files: Sequence[Any]) -> Iterator[Any]:
        return iter(progress_bar(len(files), quiet=options.quiet, items=files))

    wrap: Callable[[Sequence[Any]], Iterator[Any]] = progress
    return collect_samples(
        Folders(photos=options.photos, day=options.day, night=options.night, rainy=options.rainy),
        encoder_of(network),
        encoder_fingerprint(network),
        renderings=options.renderings,
        seed=options.seed,
        cache=options.cache,
        progress=wrap,
    )
