"""Reading box annotations: COCO JSON and YOLO label folders, with every defect written down.

Boxes leave this module as COCO annotations of one form: `bbox` is left, top, width, height in
pixels of the image, ids start at 1, `area` and `iscrowd` are filled.
"""

from __future__ import annotations

import functools
import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rainmer.data.parsing import as_number, as_whole, read_json
from rainmer.errors import DatasetError
from rainmer.files import match_key

__all__ = [
    "Annotation",
    "Annotations",
    "Defects",
    "ImageRecord",
    "clip_to_image",
    "read_coco",
    "read_yolo",
]

Annotation = dict[str, Any]

_EXAMPLES = 3
# Annotators round outwards; only what exceeds the image by more than this is called a defect.
_SLACK_PX = 1.0
# Labels are fractions of the image; what lies a million images away is no position.
_FARTHEST = 1e6


@dataclass
class Defects:
    """What is wrong with a data set, by kind; nothing is left out in silence.

    `errors` are broken things that were skipped; `notes` are things worth knowing.
    """

    errors: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def error(self, kind: str, subject: str) -> None:
        """Record a broken thing, such as kind "unreadable image", subject its file."""
        self.errors.setdefault(kind, []).append(subject)

    def note(self, kind: str, subject: str) -> None:
        """Record a thing worth knowing."""
        self.notes.setdefault(kind, []).append(subject)

    def lines(self) -> list[str]:
        """Return one line a kind: how many, of what, and the first examples."""
        return [*_lines(self.errors), *_lines(self.notes)]

    def error_lines(self) -> list[str]:
        """Return the lines of broken things only."""
        return _lines(self.errors)


def _lines(kinds: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for kind, subjects in kinds.items():
        examples = ", ".join(subjects[:_EXAMPLES])
        more = ", ..." if len(subjects) > _EXAMPLES else ""
        lines.append(f"{kind}: {len(subjects)} ({examples}{more})")
    return lines


@dataclass(frozen=True)
class ImageRecord:
    """What annotations say of one image."""

    image_id: int
    size_hw: tuple[int, int] | None
    """(height, width) as the annotations give it; None where they do not."""
    boxes: list[Annotation]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Annotations:
    """All annotations of a set: categories, and one record for each image by its match key."""

    categories: dict[int, str]
    records: dict[str, ImageRecord]

    def find(self, key: str) -> ImageRecord | None:
        """Return the record of an image by its match key, else by its file name if that is unique.

        Annotations often give bare file names for images in subfolders.
        """
        candidates = self._by_name.get(key.rsplit("/", 1)[-1], [])
        return self.records.get(key) or (candidates[0] if len(candidates) == 1 else None)

    @functools.cached_property
    def _by_name(self) -> dict[str, list[ImageRecord]]:
        by_name: dict[str, list[ImageRecord]] = {}
        for key, record in self.records.items():
            by_name.setdefault(key.rsplit("/", 1)[-1], []).append(record)
        return by_name


def read_coco(path: Path, defects: Defects) -> Annotations:
    """Read a COCO instances file.

    Ids may be whole numbers in any form of JSON, strings too. Annotation ids are given anew from 1:
    COCOeval takes the id 0 for "no match".

    Raises:
        DatasetError: The file is missing or is no COCO JSON, or an image or a category is broken.
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
    found: dict[int, dict[str, Any]] = {}
    for entry in entries:
        number = as_whole(entry["id"])
        if number is None:
            raise DatasetError(
                f"{path}: the id {reprlib.repr(entry['id'])} of {kind} "
                f"{reprlib.repr(entry[label])} is no whole number"
            )
        other = found.setdefault(number, entry)
        if other is not entry:
            raise DatasetError(
                f"{path}: {kind} id {number} is used twice ({other[label]}, {entry[label]})"
            )
    return found


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
    """Return all that is said of an image: its own fields, and those under `attributes`."""
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
    """Return left, top, width, height of a box that covers something; None for anything else."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    numbers = [number for number in map(as_number, bbox) if number is not None]
    if len(numbers) < 4 or numbers[2] <= 0 or numbers[3] <= 0:
        return None
    return numbers if math.isfinite(numbers[2] * numbers[3]) else None


def read_yolo(
    folder: Path,
    names: Mapping[int, str],
    sizes_hw: Mapping[str, tuple[int, int]],
    defects: Defects,
) -> Annotations:
    """Read a folder of YOLO label files (`class x_center y_center width height`, fractions).

    Lines with polygon points instead of a box give the box around the polygon. An image without a
    label file has no objects, as in ultralytics; it is noted.

    Args:
        folder: Holds `<image path>.txt` for each image, in the same subfolders.
        names: Class names by id.
        sizes_hw: (height, width) of each image by match key: which images there are.
        defects: Where defects are recorded.

    Raises:
        DatasetError: The folder does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(f"no folder {folder} of labels")
    files = {
        match_key(path.relative_to(folder).as_posix()): path
        for path in sorted(folder.rglob("*.txt"))
        if path.name != "classes.txt"
    }
    for key in sorted(files.keys() - sizes_hw.keys()):
        defects.note("label file without image", files[key].name)
    records = {}
    for image_id, (key, size_hw) in enumerate(sorted(sizes_hw.items()), start=1):
        if key not in files:
            defects.note("image without label file, taken as empty", key)
            boxes = []
        else:
            boxes = list(_yolo_boxes(files[key], image_id, names, size_hw, defects))
        records[key] = ImageRecord(image_id, size_hw, boxes, {})
    return Annotations(dict(names), records)


def _yolo_boxes(
    path: Path,
    image_id: int,
    names: Mapping[int, str],
    size_hw: tuple[int, int],
    defects: Defects,
) -> Iterator[Annotation]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        defects.error("unreadable label file", path.name)
        return
    height, width = size_hw
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        parsed = _yolo_line(line)
        if parsed is None:
            defects.error("malformed label line", where)
            continue
        category, (left, top, right, bottom) = parsed
        if category not in names:
            defects.error("label of an unknown class", f"{where}: {category}")
            continue
        bbox = [left * width, top * height, (right - left) * width, (bottom - top) * height]
        yield {
            "image_id": image_id,
            "category_id": category,
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
            "iscrowd": 0,
        }


def _yolo_line(line: str) -> tuple[int, tuple[float, float, float, float]] | None:
    """Parse a label line to class and left, top, right, bottom (fractions); None if malformed."""
    try:
        values = [float(text) for text in line.split()]
    except ValueError:
        return None
    if len(values) < 5 or not values[0].is_integer():
        return None
    if not all(abs(value) < _FARTHEST for value in values):  # NaN is not either
        return None
    if len(values) == 5:
        x, y, w, h = values[1:]
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    elif len(values) >= 7 and len(values) % 2:
        xs, ys = values[1::2], values[2::2]
        box = (min(xs), min(ys), max(xs), max(ys))
    else:
        return None
    return (int(values[0]), box) if box[2] > box[0] and box[3] > box[1] else None


def clip_to_image(
    boxes: Sequence[Annotation], size_hw: tuple[int, int], name: str, defects: Defects
) -> list[Annotation]:
    """Cut boxes at the image's borders and drop those outside; more than a pixel is a defect."""
    height, width = size_hw
    kept = []
    for box in boxes:
        left, top, w, h = box["bbox"]
        inside = [max(left, 0.0), max(top, 0.0), min(left + w, width), min(top + h, height)]
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            defects.error("box outside its image, dropped", name)
            continue
        excess = max(-left, -top, left + w - width, top + h - height)
        if excess <= _SLACK_PX:
            kept.append(box)
            continue
        defects.note("box reaching out of its image, cut at the border", name)
        bbox = [inside[0], inside[1], inside[2] - inside[0], inside[3] - inside[1]]
        share = bbox[2] * bbox[3] / (w * h)
        kept.append({**box, "bbox": bbox, "area": box["area"] * share})
    return kept
