"""Reading Cityscapes' polygon files as boxes: the smallest box around each polygon."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rainmer.data.annotations.parsing import (
    as_flag,
    as_number,
    as_whole,
    box_around,
    note_text,
    read_json,
)
from rainmer.data.annotations.records import Annotation, ImageRecord, Repeats, box_annotation
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

__all__ = ["read_polygons"]

_GROUP = "group"


def read_polygons(
    path: Path, ids: Mapping[str, int], other: Counter[str], defects: Defects
) -> ImageRecord:
    """Read a `*_gtFine_polygons.json` file.

    A label such as `cargroup` is a crowd of cars, ignored in scoring. Labels that are not in
    `ids` (road, sky, ...) are left out and counted in `other`.

    Args:
        path: The file.
        ids: Category ids by label.
        other: Counts labels that are left out.
        defects: Where defects are recorded.

    Raises:
        DatasetError: The file cannot be read or is not a polygon file.
    """
    content = read_json(path)
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(objects, list):
        raise DatasetError(f"{path} is no polygon file of Cityscapes: it lacks `objects`")
    height, width = (as_whole(content.get(key)) or 0 for key in ("imgHeight", "imgWidth"))
    if height <= 0 or width <= 0:
        raise DatasetError(f"{path}: imgHeight and imgWidth must be positive whole numbers")
    boxes = list(_boxes(objects, path.name, ids, other, defects))
    return ImageRecord(1, (height, width), boxes, {})


def _boxes(
    objects: list[Any],
    file: str,
    ids: Mapping[str, int],
    other: Counter[str],
    defects: Defects,
) -> Iterator[Annotation]:
    repeats = Repeats(defects)
    for number, item in enumerate(objects, start=1):
        where = f"{file}: object {number}"
        label = item.get("label") if isinstance(item, dict) else None
        if not isinstance(label, str):
            defects.error("malformed object", f"{where}: {reprlib.repr(item)}")
            continue
        if as_flag(item.get("deleted")):
            defects.note("polygon marked as deleted, left out", f"{where}: {label}")
            continue
        single = label.removesuffix(_GROUP)
        if single not in ids:
            other[label] += 1
            continue
        points = _points(item.get("polygon"))
        bbox = box_around(points[::2], points[1::2])
        if bbox is None:
            defects.error("malformed polygon", f"{where}: {label}")
            continue
        note_text(points, where, defects)
        annotation = box_annotation(1, ids[single], bbox, is_crowd=single != label)
        numbers = [number for number in map(as_number, points) if number is not None]
        if not repeats.holds(annotation, where, numbers):
            yield annotation


def _points(polygon: object) -> list[object]:
    """Return x, y, x, y, ... of a list of points; empty if it is none."""
    if not isinstance(polygon, list):
        return []
    if any(not isinstance(point, list) or len(point) != 2 for point in polygon):
        return []
    return [value for point in polygon for value in point]
