"""Reading rainy detection sets: from a YAML file to checked images, boxes and conditions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import reprlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from eval.sets.config import ConditionRule, SetConfig, class_names, read_config
from eval.sets.finding import find_set
from eval.sets.model import ALL, AdaptedSet, DetectionSet, Sample
from eval.sets.rendered import (
    RainSpec,
    Scene,
    preset_conditions,
    render_scenes,
    write_listing,
)
from eval.sets.writing import write_set
from rainmer.config import path_in
from rainmer.data.annotations.coco import read_coco
from rainmer.data.annotations.records import Annotation, Annotations, ImageRecord, clip_to_image
from rainmer.data.annotations.yolo import read_yolo
from rainmer.data.defects import Defects
from rainmer.data.layouts.pairing import images_by_key, pair_by_key
from rainmer.errors import ConfigError, DatasetError, ImageError
from rainmer.files import fits_pattern, match_key
from rainmer.frames.images import image_size_hw

__all__ = ["load_set"]


def load_set(
    path: str | os.PathLike[str], *, rendered: Path | None = None, quiet: bool = True
) -> DetectionSet:
    """Read a set, pair its images, and check all but their pixels.

    Only the headers of images are read. Broken images and pairs are left out and recorded in the
    set's defects.

    Args:
        path: The set's YAML file, or another form that `eval.sets.finding.find_set` knows.
        rendered: Where rain that the set asks for is rendered; None: the user's cache folder.
        quiet: Show no progress of the rendering.

    Raises:
        ConfigError: The YAML has an unknown key, a wrong type, or a combination that cannot be.
        DatasetError: A folder or file is missing, or nothing usable is left.
    """
    file = find_set(Path(path))
    if isinstance(file, AdaptedSet):
        return _load_adapted(file, Path(path))
    config = read_config(file)
    if config.rain is not None:
        return _load_rendered(config, config.rain, file, rendered, quiet)
    return _load(config, file)


def _load_adapted(adapted: AdaptedSet, path: Path) -> DetectionSet:
    """Load a set that was read in another form, under the name of its file or folder."""
    parts = path.resolve().with_suffix("").parts
    usual = ("data", "instances", "annotations")
    name = next((part for part in reversed(parts) if part.lower() not in usual), "")
    name = re.sub(r"[^\w .-]", "_", name).strip(" .") or adapted.name
    with tempfile.TemporaryDirectory() as folder:
        file = write_set(
            adapted, folder, re.sub(r"[^\w .-]", "_", name).strip(" .") or adapted.name
        )
        # Absolute: the set's fingerprint must not depend on where its file lies.
        config = dataclasses.replace(read_config(file), rainy=str(adapted.rainy_base.resolve()))
        data = _load(config, file)
    data.defects.extend(adapted.defects)
    return data


def _load_rendered(
    config: SetConfig, rain: RainSpec, file: Path, folder: Path | None, quiet: bool
) -> DetectionSet:
    """Render the rainy images that are not there yet, and read the set that results."""
    assert config.clean is not None
    base = file.parent
    defects = Defects()
    clean_base = path_in(base, config.clean)
    clean = _images(clean_base, "clean", defects)
    sizes = _checked_sizes({key: (path, None) for key, path in clean.items()}, clean_base, defects)
    annotations = _read_annotations(config, file, sizes, None, defects)
    records = _match_records(annotations, clean, sizes, defects)
    scenes = [
        Scene(path.relative_to(clean_base).as_posix(), path, records[key], sizes[key])
        for key, path in sorted(
            clean.items(), key=lambda item: item[1].relative_to(clean_base).as_posix()
        )
        if key in records
    ]
    depth = None if rain.depth is None else path_in(base, rain.depth)
    rendered = render_scenes(rain, scenes, clean_base, depth, folder, defects, quiet=quiet)
    listing = write_listing(rendered, annotations.categories)
    plain = dataclasses.replace(
        config,
        rain=None,
        rainy=".",
        clean=".",
        scenes=listing.name,
        annotations=None if config.annotations is None else listing.name,
        names=None,
        conditions=config.conditions or preset_conditions(rendered),
    )
    data = _load(plain, listing)
    data.defects.extend(defects)
    return data


def _load(config: SetConfig, file: Path) -> DetectionSet:
    assert config.rainy is not None
    base = path_in(file.parent, config.rainy)
    defects = Defects()
    scenes = None if config.scenes is None else path_in(file.parent, config.scenes)
    listing = None if scenes is None else read_coco(scenes, defects)
    keys, pairs = _pairs(config, file.parent, listing, defects)
    sizes = _checked_sizes(pairs, base, defects)
    annotations = _read_annotations(config, file, sizes, listing, defects)
    records = _match_records(annotations, keys, sizes, defects)
    if not records:
        reasons = "; ".join(defects.lines()) or "it holds no image"
        raise DatasetError(f"{file}: nothing to evaluate: {reasons}")
    by_key = {
        key: Sample(
            name=pairs[key][0].relative_to(base).as_posix(),
            rainy=pairs[key][0],
            clean=pairs[key][1],
            image_id=record.image_id,
            size_hw=sizes[key],
        )
        for key, record in records.items()
    }
    samples = tuple(sorted(by_key.values(), key=lambda sample: sample.name))
    boxes = [
        box
        for key, sample in by_key.items()
        for box in clip_to_image(records[key].boxes, sample.size_hw, sample.name, defects)
    ]
    for number, box in enumerate(boxes, start=1):
        box["id"] = number
    return DetectionSet(
        name=config.name,
        samples=samples,
        categories=annotations.categories,
        annotations=tuple(boxes) if config.annotations is not None else None,
        aliases=config.aliases,
        conditions=_conditions(config, file, samples, records.values(), defects),
        defects=defects,
        fingerprint=_fingerprint(config, samples, boxes),
    )


def _pairs(
    config: SetConfig, base: Path, listing: Annotations | None, defects: Defects
) -> tuple[Iterable[str], dict[str, tuple[Path, Path | None]]]:
    """Return the keys of all rainy images, and those with their partners by key.

    They are the listed ones, or those of the folders.
    """
    assert config.rainy is not None
    rainy_base = path_in(base, config.rainy)
    clean_base = path_in(base, config.clean) if config.clean is not None else None
    if listing is not None:
        rainy, clean = _listed_files(listing, rainy_base, clean_base, defects)
    else:
        rainy = _images(rainy_base, "rainy", defects)
        clean = _images(clean_base, "clean", defects) if clean_base is not None else None
    return rainy, pair_by_key(rainy, clean, defects, bases=(rainy_base, clean_base))


def _images(folder: Path, role: str, defects: Defects) -> dict[str, Path]:
    images = images_by_key(folder, role, defects)
    if not images:
        raise DatasetError(f"{folder} holds no image")
    return images


def _listed_files(
    listing: Annotations, rainy_base: Path, clean_base: Path | None, defects: Defects
) -> tuple[dict[str, Path], dict[str, Path] | None]:
    """Return the listed rainy images, and the clean one of each, by key.

    The list is a COCO file, for layouts other than two folders with equal file names. Each image
    may have `rainy_file` (default: `file_name`) and `clean_file`, relative to the set's folders;
    several rainy images may name one clean image. Other files of the folders do not count.

    The key is that of the image's `file_name` in the list. A scene whose rainy or clean file is
    missing or lies outside its folder, or whose rainy file is listed twice, is an error and left
    out.
    """
    rainy: dict[str, Path] = {}
    clean: dict[str, Path] = {}
    seen: set[str] = set()
    for key, record in listing.records.items():
        name = _safe_name(record.attributes.get("rainy_file", record.attributes["file_name"]))
        # Not Path.is_file, which raises for names that are too long.
        if name is None or not os.path.isfile(rainy_base / name):
            defects.error("listed rainy image without file, skipped", name or key)
            continue
        if name in seen:
            defects.error("rainy image listed twice, the first counts", name)
            continue
        seen.add(name)
        rainy[key] = rainy_base / name
        partner = record.attributes.get("clean_file")
        if clean_base is None or partner is None:
            continue
        clean_name = _safe_name(partner)
        if clean_name is None or not os.path.isfile(clean_base / clean_name):
            defects.error("listed clean image without file", reprlib.repr(partner))
            continue
        clean[key] = clean_base / clean_name
    return rainy, clean if clean_base is not None else None


def _safe_name(value: object) -> str | None:
    """Return a path that stays in its folder, with forward slashes; None for anything else."""
    if not isinstance(value, str):
        return None
    path = PurePosixPath(value.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name:
        return None
    if re.fullmatch("[A-Za-z]:", path.parts[0]):  # a drive of Windows
        return None
    return path.as_posix()


def _checked_sizes(
    pairs: Mapping[str, tuple[Path, Path | None]], base: Path, defects: Defects
) -> dict[str, tuple[int, int]]:
    """Return (height, width) by key of pairs with readable headers and equal sizes.

    Args:
        pairs: Rainy images with their clean partners by key.
        base: Folder of the rainy images, which messages leave out.
        defects: An error is added for every other pair.
    """
    sizes = {}
    for key, (rainy, clean) in pairs.items():
        name = rainy.relative_to(base).as_posix()
        try:
            size = image_size_hw(rainy)
            clean_size = image_size_hw(clean) if clean is not None else size
        except ImageError as error:
            defects.error("unreadable image, skipped", name)
            defects.note("why images are unreadable", str(error))
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
        return listing if config.annotations else _without_boxes(listing, sizes, defects)
    if config.annotations is None:
        records = {
            key: ImageRecord(number, size, [], {})
            for number, (key, size) in enumerate(sorted(sizes.items()), start=1)
        }
        return Annotations({}, records)
    path = path_in(file.parent, config.annotations)
    if path.suffix.lower() == ".json":
        return read_coco(path, defects)
    if config.names is None:
        raise ConfigError(f"{file}: names: missing; YOLO labels have only class numbers")
    names = class_names(config.names, file)
    return read_yolo(path, names, sizes, defects)


def _without_boxes(listing: Annotations, keys: Iterable[str], defects: Defects) -> Annotations:
    """Return the listed images without boxes, for a set whose truth are pseudo-labels."""
    records = {key: listing.records[key] for key in keys}
    boxes = sum(len(record.boxes) for record in records.values())
    if boxes:
        defects.note("boxes in the list of scenes, ignored: `annotations` is null", str(boxes))
    return Annotations({}, {k: dataclasses.replace(r, boxes=[]) for k, r in records.items()})


def _match_records(
    annotations: Annotations,
    keys: Iterable[str],
    sizes: Mapping[str, tuple[int, int]],
    defects: Defects,
) -> dict[str, ImageRecord]:
    """Return the record of each image by key; those of another size are errors and left out.

    Args:
        annotations: All records.
        keys: Keys of all images that have a file, even if it cannot be used.
        sizes: (height, width) of the images that can.
        defects: Where defects are recorded.
    """
    records = {}
    for key, record in annotations.match(keys, defects).items():
        if key not in sizes:
            continue
        if record.size_hw in (None, sizes[key]):
            records[key] = record
        else:
            defects.error("image of another size than its annotation says, skipped", key)
    return records


def _conditions(
    config: SetConfig,
    file: Path,
    samples: Sequence[Sample],
    records: Iterable[ImageRecord],
    defects: Defects,
) -> dict[str, frozenset[int]]:
    attributes = {record.image_id: record.attributes for record in records}
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
        return fits_pattern(sample.name, rule)
    if isinstance(rule, list):
        names = {match_key(name) for name in rule}
        return match_key(sample.name) in names or match_key(Path(sample.name).name) in names
    return all(
        str(attributes.get(name)) in ([values] if isinstance(values, str) else values)
        for name, values in rule.items()
    )


def _fingerprint(config: SetConfig, samples: Sequence[Sample], boxes: Sequence[Annotation]) -> str:
    """Return a digest that changes when a file, a box or the configuration does."""
    files = [
        (sample.name, sample.image_id, *_stat(sample.rainy), *_stat(sample.clean))
        for sample in samples
    ]
    content = json.dumps([dataclasses.asdict(config), files, boxes], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _stat(path: Path | None) -> tuple[int, int]:
    if path is None:
        return (0, 0)
    status = path.stat()
    return (status.st_size, status.st_mtime_ns)
