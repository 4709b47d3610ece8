"""Rainy detection sets: what a set's YAML says, matched with what is on the disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.sets.config import ConditionRule, SetConfig, read_config
from eval.sets.listing import listed_files, without_boxes
from eval.sets.model import ALL, DetectionSet, Sample
from eval.sets.rendered import (
    RainSpec,
    Scene,
    preset_conditions,
    render_scenes,
    write_listing,
)
from rainmer.data.annotations.coco import read_coco
from rainmer.data.annotations.records import Annotation, Annotations, ImageRecord, clip_to_image
from rainmer.data.annotations.yolo import read_yolo
from rainmer.data.defects import Defects
from rainmer.errors import ConfigError, DatasetError, ImageError
from rainmer.files import fits_pattern, match_key
from rainmer.frames.images import image_size_hw, list_images

__all__ = ["load_set"]


def load_set(
    path: str | os.PathLike[str], *, rendered: Path | None = None, quiet: bool = True
) -> DetectionSet:
    """Read a set's YAML, match its files, and check everything that can be checked cheaply.

    Image headers are read, pixels are not. Broken images and pairs are left out and recorded in
    the set's defects.

    Args:
        path: The YAML file.
        rendered: Where rain that the set asks for is rendered; None: the user's cache folder.
        quiet: Show no progress of that.

    Raises:
        ConfigError: The YAML has an unknown key, a wrong type, or a combination that cannot be.
        DatasetError: A folder or file is missing, or nothing usable is left.
    """
    file = Path(path)
    config = read_config(file)
    if config.rain is not None:
        return _load_rendered(config, config.rain, file, rendered, quiet)
    return _load(config, file)


def _load_rendered(
    config: SetConfig, rain: RainSpec, file: Path, folder: Path | None, quiet: bool
) -> DetectionSet:
    """Render the rainy images, unless they are, and read the set that results."""
    assert config.clean is not None
    base = file.parent
    defects = Defects()
    clean = _images_by_key(base / config.clean, "clean", defects)
    sizes = _checked_sizes(clean, None, defects)
    annotations = _read_annotations(config, file, sizes, None, defects)
    matched = _match_records(annotations, sizes, defects)
    scenes = [
        Scene(*clean[key], record, size)
        for key, (record, size) in sorted(matched.items(), key=lambda item: clean[item[0]][0])
    ]
    depth = None if rain.depth is None else base / rain.depth
    made = render_scenes(rain, scenes, base / config.clean, depth, folder, defects, quiet=quiet)
    listing = write_listing(made, annotations.categories)
    plain = dataclasses.replace(
        config,
        rain=None,
        rainy=".",
        clean=".",
        scenes=listing.name,
        annotations=None if config.annotations is None else listing.name,
        names=None,
        conditions=config.conditions or preset_conditions(made),
    )
    data = _load(plain, listing)
    for kinds, own in ((data.defects.errors, defects.errors), (data.defects.notes, defects.notes)):
        for kind, subjects in own.items():
            kinds.setdefault(kind, []).extend(subjects)
    return data


def _load(config: SetConfig, file: Path) -> DetectionSet:
    base = file.parent
    defects = Defects()
    listing = read_coco(base / config.scenes, defects) if config.scenes is not None else None
    rainy, clean = _files(config, base, listing, defects)
    sizes = _checked_sizes(rainy, clean, defects)
    annotations = _read_annotations(config, file, sizes, listing, defects)
    matched = _match_records(annotations, sizes, defects)
    if not matched:
        reasons = "; ".join(defects.lines()) or "it holds no image"
        raise DatasetError(f"{file}: nothing to evaluate: {reasons}")
    samples = tuple(
        Sample(
            rainy[key][0], record.image_id, rainy[key][1], clean[key][1] if clean else None, size
        )
        for key, (record, size) in sorted(matched.items(), key=lambda item: rainy[item[0]][0])
    )
    boxes = [
        box
        for key, (record, size) in matched.items()
        for box in clip_to_image(record.boxes, size, rainy[key][0], defects)
    ]
    for number, box in enumerate(boxes, start=1):
        box["id"] = number
    return DetectionSet(
        name=config.name,
        samples=samples,
        categories=annotations.categories,
        annotations=tuple(boxes) if config.annotations is not None else None,
        aliases=config.aliases,
        conditions=_conditions(config, file, samples, matched, defects),
        defects=defects,
        fingerprint=_fingerprint(config, samples, boxes),
    )


def _files(
    config: SetConfig, base: Path, listing: Annotations | None, defects: Defects
) -> tuple[dict[str, tuple[str, Path]], dict[str, tuple[str, Path]] | None]:
    """Return the rainy and the clean images by key: those listed, or those in the folders."""
    assert config.rainy is not None
    clean = base / config.clean if config.clean is not None else None
    if listing is not None:
        return listed_files(listing, base / config.rainy, clean, defects)
    rainy = _images_by_key(base / config.rainy, "rainy", defects)
    return rainy, _images_by_key(clean, "clean", defects) if clean is not None else None


def _images_by_key(folder: Path, role: str, defects: Defects) -> dict[str, tuple[str, Path]]:
    """Return (relative path, path) of each image of a folder by match key."""
    if not folder.is_dir():
        raise DatasetError(f"no folder {folder} of {role} images")
    found: dict[str, tuple[str, Path]] = {}
    for path in list_images(folder):
        name = path.relative_to(folder).as_posix()
        key = match_key(name)
        if key in found:
            defects.error(f"{role} images that differ only in suffix or case, left out", name)
            continue
        found[key] = (name, path)
    if not found:
        raise DatasetError(f"{folder} holds no image")
    return found


def _checked_sizes(
    rainy: Mapping[str, tuple[str, Path]],
    clean: Mapping[str, tuple[str, Path]] | None,
    defects: Defects,
) -> dict[str, tuple[int, int]]:
    """Return (height, width) of every usable scene: readable headers, pairs of one size."""
    if clean is not None:
        for key in sorted(clean.keys() - rainy.keys()):
            defects.note("clean image without rainy partner", clean[key][0])
    sizes = {}
    for key, (name, path) in rainy.items():
        if clean is not None and key not in clean:
            defects.error("rainy image without clean partner, skipped", name)
            continue
        try:
            size = image_size_hw(path)
            clean_size = image_size_hw(clean[key][1]) if clean is not None else size
        except ImageError:
            defects.error("unreadable image, skipped", name)
            continue
        if clean_size != size:
            defects.error(
                "rainy and clean image of different size, skipped",
                f"{name}: {size[1]}x{size[0]} and {clean_size[1]}x{clean_size[0]}",
            )
            continue
        sizes[key] = size
    return sizes


def _read_annotations(
    config: SetConfig,
    file: Path,
    sizes: Mapping[str, tuple[int, int]],
    listing: Annotations | None,
    defects: Defects,
) -> Annotations:
    if listing is not None and config.annotations in (None, config.scenes):
        return listing if config.annotations else without_boxes(listing, sizes, defects)
    if config.annotations is None:
        records = {
            key: ImageRecord(number, size, [], {})
            for number, (key, size) in enumerate(sorted(sizes.items()), start=1)
        }
        return Annotations({}, records)
    path = file.parent / config.annotations
    if path.suffix.lower() == ".json":
        return read_coco(path, defects)
    if config.names is None:
        raise ConfigError(f"{file}: names: missing; YOLO labels have only class numbers")
    try:
        names = (
            {int(key): name for key, name in config.names.items()}
            if isinstance(config.names, dict)
            else dict(enumerate(config.names))
        )
    except ValueError as error:
        raise ConfigError(f"{file}: names: expected class numbers as keys: {error}") from error
    return read_yolo(path, names, sizes, defects)


def _match_records(
    annotations: Annotations, sizes: Mapping[str, tuple[int, int]], defects: Defects
) -> dict[str, tuple[ImageRecord, tuple[int, int]]]:
    """Give each image its record: by relative path, else by file name where that is unique."""
    matched = {}
    for key, size in sizes.items():
        found = annotations.find(key)
        if found is None:
            defects.note("image that the annotations do not list, left out", key)
        elif found.size_hw not in (None, size):
            defects.error("image of another size than its annotation says, skipped", key)
        else:
            matched[key] = (found, size)
    used = {record.image_id for record, _ in matched.values()}
    if len(used) < len(matched):
        raise DatasetError("several images match one entry of the annotations by name; use paths")
    for key, record in annotations.records.items():
        if record.image_id not in used and key not in sizes:
            defects.note("annotated image without file", key)
    return matched


def _conditions(
    config: SetConfig,
    file: Path,
    samples: Sequence[Sample],
    matched: Mapping[str, tuple[ImageRecord, tuple[int, int]]],
    defects: Defects,
) -> dict[str, frozenset[int]]:
    attributes = {record.image_id: record.attributes for record, _ in matched.values()}
    conditions = {ALL: frozenset(sample.image_id for sample in samples)}
    for name, rule in config.conditions.items():
        if name == ALL:
            raise ConfigError(f"{file}: conditions.{ALL}: this name is taken by the whole set")
        ids = frozenset(s.image_id for s in samples if _belongs(s, rule, attributes[s.image_id]))
        if ids:
            conditions[name] = ids
        else:
            defects.note("condition that no image belongs to", name)
    return conditions


def _belongs(sample: Sample, rule: ConditionRule, attributes: Mapping[str, Any]) -> bool:
    if isinstance(rule, str):
        return fits_pattern(sample.key, rule)
    if isinstance(rule, list):
        names = {match_key(name) for name in rule}
        return match_key(sample.key) in names or match_key(Path(sample.key).name) in names
    return all(
        str(attributes.get(name)) in ([values] if isinstance(values, str) else values)
        for name, values in rule.items()
    )


def _fingerprint(config: SetConfig, samples: Sequence[Sample], boxes: Sequence[Annotation]) -> str:
    """Return a digest that changes when a file, a box or the configuration does."""
    files = [
        (sample.key, sample.image_id, *_stat(sample.rainy), *_stat(sample.clean))
        for sample in samples
    ]
    content = json.dumps([dataclasses.asdict(config), files, boxes], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _stat(path: Path | None) -> tuple[int, int]:
    if path is None:
        return (0, 0)
    status = path.stat()
    return (status.st_size, status.st_mtime_ns)
