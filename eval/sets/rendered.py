"""Sets whose rain is rendered into clean annotated images, once, and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from rainmer.config import to_mapping
from rainmer.data.annotations.records import Annotation, ImageRecord, clip_to_image
from rainmer.data.defects import Defects
from rainmer.data.depth import find_depth
from rainmer.errors import DatasetError
from rainmer.files import default_cache_folder, fits_pattern, make_folder, write_text
from rainmer.rain import RainRenderer, rain_config
from rainmer.rain.folder import CLEAN, RAINY, RenderJob, render_folder
from rainmer.rain.instances import RenderedScene, rendered_instances

__all__ = [
    "RainSpec",
    "RenderedSet",
    "Scene",
    "preset_conditions",
    "render_scenes",
    "write_listing",
]

_LISTING = "instances.json"
PRESET = "rain_preset"
"""Attribute of the images of a rendered set."""


@dataclass(frozen=True, kw_only=True)
class RainSpec:
    """Rain to render into a set's clean images, as its YAML gives it under `rain`."""

    preset: str | list[str] | dict[str, str] = "day"
    """A preset; several, each for all images; or `preset: glob` for the images that match."""
    seed: int = 0
    """Seed of the rain."""
    rate_mm_h: float | None = None
    """Rain rate in mm/h; null: the preset's range."""
    depth: str | None = None
    """Folder of depth maps with the names of the clean images; null: depth is guessed."""
    options: dict[str, Any] = field(default_factory=dict)
    """Other fields of RainConfig, e.g. `lens_drops: 10`."""


class Scene(NamedTuple):
    """A clean image with its annotations. `name` is its path below the set's folder."""

    name: str
    path: Path
    record: ImageRecord
    size_hw: tuple[int, int]


class RenderedSet(NamedTuple):
    """A rendered set: its folder, its scenes, and the presets of their rain."""

    folder: Path
    scenes: Sequence[RenderedScene]
    presets: Sequence[str]


def render_scenes(
    rain: RainSpec,
    scenes: Sequence[Scene],
    source: Path,
    depth: Path | None,
    folder: Path | None,
    defects: Defects,
    *,
    quiet: bool = True,
) -> RenderedSet:
    """Render rain into scenes on the CPU, so that a set is the same on every machine.

    Images that exist are not rendered again. Boxes are clipped to their image first.

    Args:
        rain: Presets, seed and options of the rain.
        scenes: The clean images.
        source: The folder they are in.
        depth: Folder of their depth maps.
        folder: Where results go; None: a folder of the user's cache, by the set's content.
        defects: Unreadable images and boxes that do not fit are added to it.
        quiet: Show no progress.

    Raises:
        ConfigError: The preset does not exist, or an option does not fit.
        DatasetError: A preset gets no image, or a depth map is missing.
        OutputError: A file cannot be written.
    """
    chosen = _choose(rain, scenes)
    changes = {**rain.options, **({} if rain.rate_mm_h is None else {"rate_mm_h": rain.rate_mm_h})}
    folder = make_folder(folder or _cache_folder(rain, source))
    total = sum(map(len, chosen.values()))
    rendered: list[RenderedScene] = []
    with tqdm(
        total=total, desc="rain", unit="image", disable=quiet, delay=2, file=sys.stderr
    ) as bar:
        for preset, part in chosen.items():
            renderer = RainRenderer(rain_config(preset, **changes), seed=rain.seed)
            records = {_stem(scene): _clipped(scene, defects) for scene in part}
            jobs = [_job(scene, records[_stem(scene)].boxes, depth) for scene in part]
            sizes = {_stem(scene): scene.size_hw for scene in part}
            failures: list[str] = []
            for image in render_folder(jobs, renderer, folder / preset, failures=failures):
                fields = {
                    "file_name": f"{preset}/{image.name}.png" if len(chosen) > 1 else image.name,
                    "rainy_file": f"{preset}/{RAINY}/{image.name}.png",
                    "clean_file": f"{preset}/{CLEAN}/{image.name}.png",
                    "attributes": {PRESET: preset},
                }
                record = records[image.name]
                rendered.append(RenderedScene(image, record, sizes[image.name], fields))
                bar.update()
            for line in failures:
                defects.error("unreadable image, skipped", line)
    return RenderedSet(folder, rendered, list(chosen))


def write_listing(rendered: RenderedSet, categories: Mapping[int, str]) -> Path:
    """Write the COCO file that lists the rendered scenes and their boxes."""
    path = rendered.folder / _LISTING
    write_text(path, json.dumps(rendered_instances(rendered.scenes, categories), indent=1))
    return path


def preset_conditions(
    rendered: RenderedSet,
) -> dict[str, str | list[str] | dict[str, str | list[str]]]:
    """Return a condition for each preset, where there are several."""
    if len(rendered.presets) < 2:
        return {}
    return {preset: {PRESET: preset} for preset in rendered.presets}


def _choose(rain: RainSpec, scenes: Sequence[Scene]) -> dict[str, list[Scene]]:
    """Return which scenes get which preset."""
    if isinstance(rain.preset, dict):
        chosen = {
            preset: [scene for scene in scenes if fits_pattern(scene.name, pattern)]
            for preset, pattern in rain.preset.items()
        }
        for preset, part in chosen.items():
            if not part:
                raise DatasetError(f"rain.preset.{preset}: no image matches {rain.preset[preset]}")
        return chosen
    presets = [rain.preset] if isinstance(rain.preset, str) else list(dict.fromkeys(rain.preset))
    if not presets or not scenes:
        raise DatasetError("rain: there is no preset, or no image, to render")
    return {preset: list(scenes) for preset in presets}


def _clipped(scene: Scene, defects: Defects) -> ImageRecord:
    boxes: list[Annotation] = clip_to_image(scene.record.boxes, scene.size_hw, scene.name, defects)
    return ImageRecord(scene.record.image_id, scene.size_hw, boxes, scene.record.attributes)


def _job(scene: Scene, boxes: Sequence[Annotation], depth: Path | None) -> RenderJob:
    return RenderJob(
        source=scene.path,
        name=_stem(scene),
        depth=None if depth is None else find_depth(depth, _stem(scene)),
        boxes=[tuple(box["bbox"]) for box in boxes],
    )


def _stem(scene: Scene) -> str:
    return Path(scene.name).with_suffix("").as_posix()


def _cache_folder(rain: RainSpec, source: Path) -> Path:
    content = json.dumps([to_mapping(rain), str(source.resolve())], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return default_cache_folder().parent / "rendered" / f"{source.resolve().name}-{digest}"
