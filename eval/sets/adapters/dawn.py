"""DAWN: a thousand photos from the web in fog, rain, sand and snow.

M. A. Kenk and M. Hassaballah, DAWN: Vehicle Detection in Adverse Weather Nature, 2020.
"""

from __future__ import annotations

from pathlib import Path

from eval.sets.adapters.assembling import Draft, Gathered, assemble, conditions_of, merge
from eval.sets.adapters.classes import DAWN_IDS
from eval.sets.adapters.files import files_in, find_folder, keep_allowed, one_per_stem
from eval.sets.model import AdaptedSet, AdapterOptions
from rainmer.config import nearest
from rainmer.data.annotations.records import Annotations
from rainmer.data.annotations.voc import read_voc, voc_files
from rainmer.data.annotations.yolo import read_yolo
from rainmer.data.defects import Defects
from rainmer.data.layouts.tree import subfolder
from rainmer.errors import ConfigError, DatasetError, ImageError
from rainmer.frames.images import image_size_hw, list_images

__all__ = ["read_dawn"]

WEATHERS = ("fog", "rain", "sand", "snow")


def read_dawn(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read the folders of the wanted weathers, with YOLO or PASCAL VOC labels."""
    for weather in options.weather:
        if weather not in WEATHERS:
            raise ConfigError(f"dawn has no weather {weather!r}; {nearest(weather, WEATHERS)}")
    if options.annotations is not None and len(options.weather) > 1:
        raise ConfigError("dawn: --annotations is one folder of labels; give one --weather with it")
    defects = Defects()
    by_key: dict[str, tuple[str, Path]] = {}
    parts = []
    for weather in options.weather:
        folder = find_folder(root, weather)
        if folder is None:
            raise DatasetError(f"{root}: no folder {weather.capitalize()} in it")
        images, annotations = _one_weather(folder, options, defects)
        parts.append(_with_prefix(annotations, weather))
        by_key |= {f"{weather}/{stem}": (weather, path) for stem, path in images.items()}
    allowed = keep_allowed(
        {k: path for k, (_, path) in by_key.items()}, options.allow_list, defects
    )
    merged = merge(parts)
    drafts = [
        Draft(allowed[key], record, attributes=_attributes(*by_key[key]))
        for key, record in merged.records.items()
        if key in allowed
    ]
    gathered = Gathered(
        name="dawn",
        rainy_base=root,
        drafts=drafts,
        categories=merged.categories,
        rules=conditions_of("weather", drafts) if len(options.weather) > 1 else {},
    )
    return assemble(gathered, defects)


def _one_weather(
    folder: Path, options: AdapterOptions, defects: Defects
) -> tuple[dict[str, Path], Annotations]:
    images = one_per_stem(list_images(folder), "image", defects)
    labels = options.annotations or _label_folder(folder)
    if files_in(labels, ".txt"):
        sizes = {}
        for stem, path in images.items():
            try:
                sizes[stem] = image_size_hw(path)
            except ImageError as error:
                defects.error("unreadable image, skipped", str(error))
        return images, read_yolo(labels, DAWN_IDS, sizes, defects)
    files = one_per_stem(voc_files(labels).values(), "XML file", defects)
    for stem in sorted(files.keys() - images.keys()):
        defects.note("label file without image", files[stem].name)
    for stem in sorted(images.keys() - files.keys()):
        defects.note("image without label file, left out", images[stem].name)
    return images, read_voc({s: path for s, path in files.items() if s in images}, defects)


def _label_folder(folder: Path) -> Path:
    """Return `Rain_YOLO_darknet`, else `Rain_PASCAL_VOC`, in the folder or in its twin inside."""
    inside = subfolder(folder, folder.name)
    for ending in ("_yolo_darknet", "_pascal_voc"):
        for parent in [folder, *([inside] if inside else [])]:
            labels = subfolder(parent, f"{folder.name}{ending}")
            if labels is not None:
                return labels
    raise DatasetError(
        f"{folder}: no {folder.name}_YOLO_darknet or {folder.name}_PASCAL_VOC in it; "
        "say where the labels are with --annotations"
    )


def _with_prefix(annotations: Annotations, weather: str) -> Annotations:
    """Weathers name their files alike; the weather keeps them apart."""
    records = {f"{weather}/{key}": record for key, record in annotations.records.items()}
    return Annotations(annotations.categories, records)


def _attributes(weather: str, path: Path) -> dict[str, str]:
    return {
        "domain": "real",
        "weather": weather,
        "scene_id": f"{weather}/{path.stem}",
        "source_id": path.name,
    }
