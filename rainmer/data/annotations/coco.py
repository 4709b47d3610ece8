"""Annotations in COCO JSON."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from rainmer.data.annotations.parsing import as_number, as_whole, read_json
from rainmer.data.annotations.records import Annotation, Annotations, ImageRecord
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError
from rainmer.files import match_key

__all__ = ["read_coco"]


def read_coco(path: Path, defects: Defects) -> Annotations:
    """Read a COCO instances file.

    Ids may be whole numbers in any JSON form, including strings. Annotations are renumbered from 1:
    COCOeval takes the id 0 for "no match".

    Raises:
        DatasetError: The file is missing or not COCO JSON, or an image or a category is broken.
    """
    content = _load_json(path)
    images = _by_id(path, "image", content["images"], "file_name")
    categories = _by_id(path, "category", content["categories"], "name")
    boxes: dict[int, list[Annotation]] = {image_id: [] for image_id in images}
    for annotation in content["annotations"]:
        checked = _check_annotation(annotation, categories, boxes, defects)
        if checked is not None:
            boxes[checked["image_id"]].append(checked)
    records: dict[str, ImageRecord] = {}
    for image_id, image in images.items():
        where = f"{path}: image {image_id}"
        name = _file_name(image, where)
        record = ImageRecord(
            image_id, _size_hw(image, where), boxes[image_id], _attributes(image, name, defects)
        )
        if records.setdefault(match_key(name), record) is not record:
            defects.error("image listed twice in the annotations", name)
    return Annotations({key: str(entry["name"]) for key, entry in categories.items()}, records)


def _load_json(path: Path) -> dict[str, Any]:
    content: Any = read_json(path)
    missing = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]
    if missing:
        raise DatasetError(f"{path} is no COCO annotation file: it lacks {', '.join(missing)}")
    for key, needed in (("images", ("id", "file_name")), ("categories", ("id", "name"))):
        for entry in content[key]:
            if not isinstance(entry, dict) or any(name not in entry for name in needed):
                raise DatasetError(f"{path}: an entry of {key} lacks {' or '.join(needed)}")
    assert isinstance(content, dict)
    return content


def _by_id(
    path: Path, kind: str, entries: Iterable[dict[str, Any]], label: str
) -> dict[int, dict[str, Any]]:
    """Return the images or the categories by id; an entry's `label` names it in errors."""
    by_id: dict[int, dict[str, Any]] = {}
    for entry in entries:
        number = as_whole(entry["id"])
        if number is None:
            raise DatasetError(
                f"{path}: the id {reprlib.repr(entry['id'])} of {kind} "
                f"{reprlib.repr(entry[label])} is no whole number"
            )
        other = by_id.setdefault(number, entry)
        if other is not entry:
            raise DatasetError(
                f"{path}: {kind} id {number} is used twice ({other[label]}, {entry[label]})"
            )
    return by_id


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


def _check_annotation(
    annotation: object,
    categories: Mapping[int, object],
    image_ids: Mapping[int, object],
    defects: Defects,
) -> Annotation | None:
    if not isinstance(annotation, dict):
        defects.error("malformed annotation", reprlib.repr(annotation))
        return None
    name = f"annotation {reprlib.repr(annotation.get('id'))}"
    image_id, category_id = (as_whole(annotation.get(key)) for key in ("image_id", "category_id"))
    crowd = annotation.get("iscrowd")
    if image_id is None or category_id is None or crowd not in (None, 0, 1):
        fields = {key: annotation.get(key) for key in ("image_id", "category_id", "iscrowd")}
        defects.error("malformed annotation", f"{name}: {reprlib.repr(fields)}")
        return None
    if image_id not in image_ids:
        defects.note("annotation of an image that is not listed", name)
        return None
    if category_id not in categories:
        defects.error("annotation of an unknown category", f"{name}: {category_id}")
        return None
    bbox = _box(annotation.get("bbox"))
    if bbox is None:
        defects.error("malformed box", f"{name}: {reprlib.repr(annotation.get('bbox'))}")
        return None
    area = as_number(annotation.get("area")) or 0.0
    if area <= 0 and annotation.get("area") is not None:
        defects.note("annotation area that is no positive number, computed from the box", name)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": area if area > 0 else bbox[2] * bbox[3],
        "iscrowd": int(crowd or 0),
    }


def _box(bbox: object) -> list[float] | None:
    """Return left, top, width, height of a valid box of positive area; None for anything else."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    numbers = [number for number in map(as_number, bbox) if number is not None]
    if len(numbers) < 4 or numbers[2] <= 0 or numbers[3] <= 0:
        return None
    return numbers if math.isfinite(numbers[2] * numbers[3]) else None
