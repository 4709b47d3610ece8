"""BDD100K: real driving scenes with weather and time of day.

F. Yu et al., BDD100K: A Diverse Driving Dataset for Heterogeneous Multitask Learning, CVPR 2020.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from eval.sets.adapters.assembling import Draft, Gathered, assemble, merge
from eval.sets.adapters.files import find_folder, keep_allowed, one_per_stem, plain_stem
from eval.sets.model import AdaptedSet, AdapterOptions, Rules
from rainmer.data.annotations.records import Annotations, ImageRecord
from rainmer.data.annotations.scalabel import read_scalabel
from rainmer.data.defects import Defects
from rainmer.data.layouts.tree import subfolder
from rainmer.errors import DatasetError
from rainmer.folders import list_files
from rainmer.frames.images import list_images

__all__ = ["ANY", "read_bdd100k"]

ANY = "any"
"""The weather that stands for all."""

_LABELS = re.compile(r"(?:(det)|bdd100k_labels_images)_(train|val)\.json", re.IGNORECASE)
_TIMES = {"daytime": "day", "night": "night", "dawn/dusk": "dawn-dusk"}
_REMARK = (
    "the tags for weather and time of day are noisy: many frames tagged rainy are only overcast or "
    "wet, some tagged daytime are night; check by eye and keep what holds with --allow-list"
)


def read_bdd100k(root: Path, options: AdapterOptions) -> AdaptedSet:
    """Read frames with the tagged weather, or, with an allow-list, those it names."""
    defects = Defects()
    images = options.images or _image_folder(root)
    if not images.is_dir():
        raise DatasetError(f"no folder {images} of images")
    paths = one_per_stem(list_images(images), "image", defects)
    paths = keep_allowed(paths, options.allow_list, defects)
    annotations, split_of = _annotations(root, options, defects)
    drafts = []
    for key, record in annotations.records.items():
        if not _is_wanted(key, record, options, paths, defects):
            continue
        path = paths.get(plain_stem(f"{key}.x"))
        if path is None:
            defects.note("annotated image without file", key)
            continue
        drafts.append(Draft(path, record, attributes=_attributes(key, record, split_of[key])))
    gathered = Gathered(
        name="bdd100k",
        rainy_base=images,
        drafts=drafts,
        categories=annotations.categories,
        rules=_rules(drafts),
        remarks=(_REMARK,),
    )
    return assemble(gathered, defects)


def _image_folder(root: Path) -> Path:
    images = find_folder(root, "images")
    return (subfolder(images, "100k") or images) if images is not None else root


def _annotations(
    root: Path, options: AdapterOptions, defects: Defects
) -> tuple[Annotations, dict[str, str]]:
    """Return all frames, and the split of each by key."""
    parts: list[Annotations] = []
    split_of: dict[str, str] = {}
    for split, path in _label_files(root, options, defects):
        part = read_scalabel(path, defects)
        parts.append(part)
        for key in part.records:
            if split_of.setdefault(key, split) != split:
                defects.note("image in several splits, the first counts", key)
    return merge(parts), split_of


def _label_files(
    root: Path, options: AdapterOptions, defects: Defects
) -> Iterator[tuple[str, Path]]:
    if options.annotations is not None and not options.annotations.is_dir():
        match = _LABELS.fullmatch(options.annotations.name)
        yield (match[2].lower() if match else options.split or "unknown"), options.annotations
        return
    files: dict[str, dict[bool, Path]] = {}
    for path in list_files(options.annotations or root, {".json"}):
        if match := _LABELS.fullmatch(path.name):
            files.setdefault(match[2].lower(), {}).setdefault(match[1] is not None, path)
    splits = [split for split in sorted(files) if options.split in (None, split)]
    if not splits:
        raise DatasetError(
            f"{options.annotations or root}: no bdd100k_labels_images_{options.split or 'SPLIT'}"
            f".json or det_{options.split or 'SPLIT'}.json; say where with --annotations"
        )
    for split in splits:
        if len(files[split]) == 2:
            defects.note(
                "older labels beside those of 2020, which are taken", files[split][False].name
            )
        yield split, files[split].get(True) or files[split][False]


def _is_wanted(
    key: str,
    record: ImageRecord,
    options: AdapterOptions,
    paths: dict[str, Path],
    defects: Defects,
) -> bool:
    weather = record.attributes.get("weather")
    fits = ANY in options.weather or weather in options.weather
    if options.allow_list is not None:
        listed = plain_stem(f"{key}.x") in paths
        if listed and not fits:
            defects.note(f"image on the allow-list tagged {weather}, kept", key)
        return listed
    if weather is None and not fits:
        defects.note("image without a tag for weather, left out", key)
    return fits


def _attributes(key: str, record: ImageRecord, split: str) -> dict[str, str]:
    tags = {
        name: str(record.attributes[name])
        for name in ("weather", "timeofday", "scene")
        if record.attributes.get(name) is not None
    }
    return {"domain": "real", "split": split, "scene_id": key, "source_id": key, **tags}


def _rules(drafts: list[Draft]) -> Rules:
    """Return a condition for each weather and time of day, such as `rainy-night`."""
    tags = {(d.attributes.get("weather"), d.attributes.get("timeofday")) for d in drafts}
    return {
        f"{weather}-{_TIMES[time]}": {"weather": weather, "timeofday": time}
        for weather, time in sorted(tags, key=str)
        if weather is not None and time in _TIMES
    }
