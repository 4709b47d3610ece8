"""Annotations in COCO JSON."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rainmer.data.annotations.masks import box_of_mask
from rainmer.data.annotations.parsing import (
    as_flag,
    as_number,
    as_whole,
    covers,
    note_text,
    read_json,
)
from rainmer.data.annotations.records import Annotation, Annotations, ImageRecord, Repeats
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError
from rainmer.files import match_key

__all__ = ["read_coco"]

_NEEDED = {"images": ("id", "file_name"), "categories": ("id", "name")}


@dataclass(frozen=True)
class _Image:
    """An image with the boxes found so far."""

    image_id: int
    name: str
    size_hw: tuple[int, int] | None
    boxes: list[Annotation]
    repeats: Repeats


def read_coco(path: Path, defects: Defects) -> Annotations:
    """Read a COCO instances file.

    Ids may be whole numbers in any JSON form, including strings, or other text such as file stems,
    which is numbered. Annotations are renumbered from 1: COCOeval takes the id 0 for "no match".
    An annotation without a box gets the one around its segmentation. One that repeats another (same
    image, class and box) is dropped, as ultralytics does with label lines.

    Raises:
        DatasetError: The file is missing or not COCO JSON, or an image or a category is broken.
    """
    content = _load_json(path)
    entries = _by_id(path, "image", content["images"], "file_name", defects)
    images: dict[int | str, _Image] = {}
    for (key, entry), number in zip(entries.items(), _numbers(entries), strict=True):
        where = f"{path}: image {reprlib.repr(key)}"
        name = _file_name(entry, where)
        size_hw = _size_hw(entry, where)
        images[key] = _Image(number, name, size_hw, [], Repeats(defects))
    named = _by_id(path, "category", content["categories"], "name", defects)
    categories = dict(zip(named, _numbers(named), strict=True))
    _read_annotations(content["annotations"], images, categories, defects)
    records: dict[str, ImageRecord] = {}
    for key, image in images.items():
        attributes = _attributes(entries[key], image.name, defects)
        record = ImageRecord(image.image_id, image.size_hw, image.boxes, attributes)
        if records.setdefault(match_key(image.name), record) is not record:
            subject = f"{image.name} with {len(image.boxes)} boxes"
            defects.error("image listed twice in the annotations", subject)
    names = {categories[key]: str(entry["name"]) for key, entry in named.items()}
    return Annotations(names, records)


def _load_json(path: Path) -> dict[str, Any]:
    content: Any = read_json(path)
    missing = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if missing:
        raise DatasetError(
            f"{path} is no COCO annotation file: it lacks {', '.join(missing)} (each a list)"
        )
    for key, needed in _NEEDED.items():
        for entry in content[key]:
            if not isinstance(entry, dict) or any(name not in entry for name in needed):
                raise DatasetError(f"{path}: an entry of {key} lacks {' or '.join(needed)}")
    assert isinstance(content, dict)
    return content


def _by_id(
    path: Path, kind: str, entries: Iterable[dict[str, Any]], label: str, defects: Defects
) -> dict[int | str, dict[str, Any]]:
    """Return the images or the categories by id; an entry's `label` names it in errors."""
    by_id: dict[int | str, dict[str, Any]] = {}
    for entry in entries:
        key = _id_key(entry["id"])
        if key is None:
            raise DatasetError(
                f"{path}: the id {reprlib.repr(entry['id'])} of {kind} "
                f"{reprlib.repr(entry[label])} is neither a whole number nor text"
            )
        other = by_id.setdefault(key, entry)
        if other is entry:
            numbers = (entry.get(field) for field in ("id", "height", "width"))
            note_text(numbers, f"{kind} {reprlib.repr(entry[label])}", defects)
            if isinstance(key, str):
                defects.repair(f"id of {kind} that is text, numbered", key)
        elif other[label] == entry[label]:
            defects.repair(f"{kind} listed twice under one id, the first counts", str(entry[label]))
        else:
            raise DatasetError(
                f"{path}: {kind} id {reprlib.repr(key)} is used twice "
                f"({reprlib.repr(other[label])}, {reprlib.repr(entry[label])})"
            )
    return by_id


def _id_key(value: object) -> int | str | None:
    """Return what ids are compared by: a whole number, or text that is none; None for the rest."""
    number = as_whole(value)
    return value if number is None and isinstance(value, str) and value else number


def _numbers(keys: Iterable[int | str]) -> list[int]:
    """Return a number for each id: itself, or for text the next one that is free."""
    numbers: list[int] = []
    free = 1 + max((key for key in keys if isinstance(key, int)), default=0)
    for key in keys:
        numbers.append(free if isinstance(key, str) else key)
        free += isinstance(key, str)
    return numbers


def _file_name(image: Mapping[str, Any], where: str) -> str:
    name = image["file_name"]
    if not isinstance(name, str) or PurePosixPath(name.replace("\\", "/")).name in ("", ".."):
        raise DatasetError(f"{where} has the file name {reprlib.repr(name)}, which names no file")
    return name


def _size_hw(image: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    """Return (height, width), or None where one of them is absent or null."""
    height, width = image.get("height"), image.get("width")
    sides = [as_whole(side) or 0 for side in (height, width) if side is not None]
    if any(side <= 0 for side in sides):
        raise DatasetError(
            f"{where} has the height {reprlib.repr(height)} and the width {reprlib.repr(width)}; "
            "they must be positive whole numbers, or null"
        )
    return (sides[0], sides[1]) if len(sides) == 2 else None


def _attributes(image: Mapping[str, Any], name: str, defects: Defects) -> dict[str, Any]:
    """Return all attributes of an image: its own fields, and those under `attributes`."""
    attributes = image.get("attributes") or {}
    if not isinstance(attributes, dict):
        defects.note("image attributes that are no mapping, ignored", name)
        attributes = {}
    return {**image, **attributes}


def _read_annotations(
    entries: Iterable[object],
    images: Mapping[int | str, _Image],
    categories: Mapping[int | str, int],
    defects: Defects,
) -> None:
    """Add the box of each annotation to its image."""
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            subject = f"annotation number {number}: {reprlib.repr(entry)}"
            defects.error("malformed annotation", subject)
            continue
        where = f"annotation {reprlib.repr(entry.get('id', f'number {number}'))}"
        image_key, category_key = (_id_key(entry.get(key)) for key in ("image_id", "category_id"))
        if image_key is None or category_key is None or as_flag(entry.get("iscrowd")) is None:
            fields = {key: entry.get(key) for key in ("image_id", "category_id", "iscrowd")}
            defects.error("malformed annotation", f"{where}: {reprlib.repr(fields)}")
        elif image_key not in images:
            defects.note("annotation of an image that is not listed", where)
        elif category_key not in categories:
            subject = f"{where}: {reprlib.repr(category_key)}"
            defects.error("annotation of an unknown category", subject)
        else:
            image = images[image_key]
            box = _annotation(entry, image, categories[category_key], where, defects)
            if box is not None and not image.repeats.holds(box, where):
                image.boxes.append(box)


def _annotation(
    entry: Mapping[str, Any], image: _Image, category_id: int, where: str, defects: Defects
) -> Annotation | None:
    """Return the annotation in our form; None, and an error, where it has no box."""
    bbox = _box(entry, image, where, defects)
    if bbox is None:
        return None
    area = as_number(entry.get("area")) or 0.0
    if area <= 0 and entry.get("area") is not None:
        defects.repair("annotation area that is no positive number, computed from the box", where)
    fields = (entry.get(key) for key in ("image_id", "category_id", "area", "iscrowd"))
    note_text([*fields, *(entry.get("bbox") or ())], where, defects)
    return {
        "image_id": image.image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": area if area > 0 else bbox[2] * bbox[3],
        "iscrowd": int(bool(as_flag(entry.get("iscrowd")))),
    }


def _box(
    entry: Mapping[str, Any], image: _Image, where: str, defects: Defects
) -> list[float] | None:
    """Return left, top, width, height: as given, else around the segmentation."""
    given, mask = entry.get("bbox"), entry.get("segmentation")
    if given in (None, []) and mask:
        bbox = box_of_mask(mask, image.size_hw)
        if bbox is not None:
            defects.repair("annotation without a box, taken from its segmentation", where)
            return bbox
        defects.error("malformed segmentation of an annotation without a box", where)
        return None
    numbers = [as_number(value) for value in given] if isinstance(given, list) else []
    match numbers:
        case [float(left), float(top), float(width), float(height)] if covers(width, height):
            return [left, top, width, height]
    defects.error("malformed box", f"{where}: {reprlib.repr(given)}")
    return None
