"""Annotations as YOLO labels: one text file for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rainmer.data.annotations.records import Annotation, Annotations, ImageRecord, box_annotation
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError
from rainmer.files import match_key
from rainmer.folders import list_files

__all__ = ["read_yolo"]


# Labels are fractions of the image; a coordinate of a million images is not a position.
_FARTHEST = 1e6


def read_yolo(
    folder: Path,
    names: Mapping[int, str],
    sizes_hw: Mapping[str, tuple[int, int]],
    defects: Defects,
) -> Annotations:
    """Read a folder of YOLO label files (`class x_center y_center width height`, fractions).

    Lines with polygon points instead of a box give the box around the polygon. An image without a
    label file has no objects, as in ultralytics, which is noted in `defects`.

    Args:
        folder: Holds `<image path>.txt` for each image, in the same subfolders.
        names: Class names by id.
        sizes_hw: (height, width) of all images by match key.
        defects: Where defects are recorded.

    Raises:
        DatasetError: The folder does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(f"no folder {folder} of labels")
    files = {
        match_key(path.relative_to(folder).as_posix()): path
        for path in list_files(folder, {".txt"})
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
        yield box_annotation(image_id, category, bbox)


def _yolo_line(line: str) -> tuple[int, tuple[float, float, float, float]] | None:
    """Parse a label line to class and left, top, right, bottom (fractions); None if malformed."""
    try:
        values = [float(text) for text in line.split()]
    except ValueError:
        return None
    if len(values) < 5 or not values[0].is_integer():
        return None
    if not all(abs(value) < _FARTHEST for value in values):  # also false for NaN
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
