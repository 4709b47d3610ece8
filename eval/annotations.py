"""Reading box annotations: COCO JSON and YOLO label folders, with every defect written down.

Boxes leave this module as COCO annotations of one form: `bbox` is left, top, width, height in
pixels of the image, ids start at 1, `area` and `iscrowd` are filled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rainmer.errors import DatasetError

__all__ = [
    "Annotation",
    "Annotations",
    "Defects",
    "ImageRecord",
    "clip_to_image",
    "match_key",
    "read_coco",
    "read_yolo",
]

Annotation = dict[str, Any]

_EXAMPLES = 3
# Annotators round outwards; only what exceeds the image by more than this is called a defect.
_SLACK_PX = 1.0


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


def match_key(path: str | PurePosixPath) -> str:
    """Return what pairs files of one scene: the relative path without suffix, case folded."""
    return str(PurePosixPath(str(path).replace("\\", "/")).with_suffix("")).casefold()


def read_coco(path: Path, defects: Defects) -> Annotations:
    """Read a COCO instances file.

    Annotation ids are given anew from 1: COCOeval takes the id 0 for "no match".

    Raises:
        DatasetError: The file is missing or is no COCO JSON.
    """
    content = _load_json(path)
    categories = {int(c["id"]): str(c["name"]) for c in content["categories"]}
    boxes: dict[int, list[Annotation]] = {int(image["id"]): [] for image in content["images"]}
    for annotation in content["annotations"]:
        checked = _check_annotation(annotation, categories, boxes, defects)
        if checked is not None:
            boxes[checked["image_id"]].append(checked)
    records = {}
    for image in content["images"]:
        key = match_key(image["file_name"])
        if key in records:
            defects.error("image listed twice in the annotations", image["file_name"])
            continue
        size = (image.get("height"), image.get("width"))
        records[key] = ImageRecord(
            int(image["id"]),
            (int(size[0]), int(size[1])) if size[0] and size[1] else None,
            boxes[int(image["id"])],
            {**image, **(image.get("attributes") or {})},
        )
    return Annotations(categories, records)


def _load_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"cannot read the annotations {path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not valid JSON: {error}") from error
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


def _check_annotation(
    annotation: object,
    categories: Mapping[int, str],
    image_ids: Mapping[int, object],
    defects: Defects,
) -> Annotation | None:
    if not isinstance(annotation, dict):
        defects.error("malformed annotation", repr(annotation)[:40])
        return None
    name = f"annotation {annotation.get('id')}"
    if annotation.get("image_id") not in image_ids:
        defects.note("annotation of an image that is not listed", name)
        return None
    if annotation.get("category_id") not in categories:
        defects.error(
            "annotation of an unknown category", f"{name}: {annotation.get('category_id')}"
        )
        return None
    bbox = annotation.get("bbox")
    if not _is_box(bbox):
        defects.error("malformed box", f"{name}: {bbox}")
        return None
    assert isinstance(bbox, list)
    width, height = float(bbox[2]), float(bbox[3])
    return {
        "image_id": int(annotation["image_id"]),
        "category_id": int(annotation["category_id"]),
        "bbox": [float(value) for value in bbox],
        "area": float(annotation.get("area") or width * height),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }


def _is_box(bbox: object) -> bool:
    return (
        isinstance(bbox, list)
        and len(bbox) == 4
        and all(isinstance(v, int | float) and math.isfinite(v) for v in bbox)
        and bbox[2] > 0
        and bbox[3] > 0
    )


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
        lines = path.read_text(encoding="utf-8").splitlines()
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
    if not all(map(math.isfinite, values)) or len(values) < 5 or not values[0].is_integer():
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
