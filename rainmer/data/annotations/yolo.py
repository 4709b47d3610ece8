"""Annotations as YOLO labels: one text file for each image."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.data.annotations.parsing import as_number
from rainmer.data.annotations.records import (
    Annotation,
    Annotations,
    ImageRecord,
    Repeats,
    box_annotation,
)
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError
from rainmer.files import match_key
from rainmer.folders import list_files

__all__ = ["read_yolo"]


# Labels are fractions of the image; a coordinate of a million images is not a position.
_FARTHEST = 1e6


@dataclass(frozen=True)
class _Line:
    """A line: its place, its class, and a box (4 numbers) or a polygon (6 and more)."""

    where: str
    category: int
    values: Sequence[float]


def read_yolo(
    folder: Path,
    names: Mapping[int, str],
    sizes_hw: Mapping[str, tuple[int, int]],
    defects: Defects,
    *,
    keypoint_numbers: int = 0,
) -> Annotations:
    """Read a folder of YOLO label files (`class x_center y_center width height`, fractions).

    Lines with polygon points instead of a box give the box around the polygon. An image without a
    label file has no objects, as in ultralytics, which is noted in `defects`. Lines that repeat an
    earlier one are dropped, as there. Unlike there, a line that cannot be read is left out alone,
    not with its image.

    Args:
        folder: Holds `<image path>.txt` for each image, in the same subfolders.
        names: Class names by id.
        sizes_hw: (height, width) of all images by match key.
        defects: Where defects are recorded.
        keypoint_numbers: How many numbers of keypoints follow a box (`kpt_shape` of ultralytics).

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
            lines = _lines(files[key], keypoint_numbers, defects)
            boxes = list(_boxes(lines, image_id, names, size_hw, defects))
        records[key] = ImageRecord(image_id, size_hw, boxes, {})
    return Annotations(dict(names), records)


def _lines(path: Path, keypoint_numbers: int, defects: Defects) -> Iterator[_Line]:
    """Yield the lines that can be read."""
    try:
        texts = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        defects.error("unreadable label file", f"{path.name}: {error.strerror}")
        return
    except UnicodeDecodeError:
        defects.error("unreadable label file", f"{path.name}: it is no UTF-8 text")
        return
    for number, text in enumerate(texts, start=1):
        where = f"{path.name}:{number}"
        words = text.split()
        if len(words) == 5 + keypoint_numbers:
            words = words[:5]
        if not words:
            continue
        if reason := _mistake(words):
            defects.error("malformed label line", f"{where}: {reason}")
            continue
        category, *values = (value for word in words if (value := as_number(word)) is not None)
        yield _Line(where, int(category), values)


def _mistake(words: Sequence[str]) -> str:
    """Return what is wrong with the words of a line; empty if nothing is."""
    values = [as_number(word) for word in words]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"{reprlib.repr(words[values.index(None)])} is no number"
    if len(known) == 6:
        return "6 numbers, as in files of predictions"
    if len(known) < 5 or len(known) % 2 == 0:
        return f"{len(known)} numbers; a box has 5, a polygon 7, 9, ..."
    if not known[0].is_integer():
        return f"the class {words[0]} is no whole number"
    if max(map(abs, known)) >= _FARTHEST:
        return "numbers that are no fractions of the image"
    left, top, right, bottom = _corners(known[1:])
    return "" if right > left and bottom > top else "a box that covers nothing"


def _corners(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of a box or around a polygon, in fractions."""
    if len(values) == 4:
        x, y, w, h = values
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _boxes(
    lines: Iterable[_Line],
    image_id: int,
    names: Mapping[int, str],
    size_hw: tuple[int, int],
    defects: Defects,
) -> Iterator[Annotation]:
    height, width = size_hw
    repeats = Repeats(defects)
    for line in lines:
        if line.category not in names:
            defects.error("label of an unknown class", f"{line.where}: {line.category}")
            continue
        left, top, right, bottom = _corners(line.values)
        bbox = [left * width, top * height, (right - left) * width, (bottom - top) * height]
        annotation = box_annotation(image_id, line.category, bbox)
        if not repeats.holds(annotation, line.where, line.values):
            yield annotation
