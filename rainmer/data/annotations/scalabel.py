"""Reading Scalabel JSON, the form of BDD100K's labels in all its releases."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from rainmer.data.annotations.parsing import as_flag, box_of_corners, note_text, read_json
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

__all__ = ["read_scalabel"]

_CORNERS = ("x1", "y1", "x2", "y2")


def read_scalabel(path: Path, defects: Defects) -> Annotations:
    """Read Scalabel frames: a JSON list, a JSON object with `frames`, or a folder of JSON files.

    This covers the releases of BDD100K: `bdd100k_labels_images_SPLIT.json` and `det_SPLIT.json`
    (lists of frames with `labels`), and the first one with a file for each image (`objects` inside
    `frames`). Labels without `box2d` (lanes, drivable areas) are left out and counted. Corners are
    positions (width = x2 - x1). Labels marked `crowd` become crowds; one listed twice counts once.
    Categories get ids from 1 in the order of their names. `attributes` of a frame (weather, scene,
    timeofday) are kept.

    Raises:
        DatasetError: The path is missing or holds no Scalabel frames.
    """
    frames = list(_named_frames(path, defects))
    if not frames:
        raise DatasetError(f"{path} holds no Scalabel frames: a list of {{name, labels}}")
    boxless: Counter[str] = Counter()
    ids = {name: n for n, name in enumerate(sorted(_categories(frames)), start=1)}
    records: dict[str, ImageRecord] = {}
    for image_id, (name, frame) in enumerate(frames, start=1):
        boxes = list(_boxes(frame, name, image_id, ids, boxless, defects))
        attributes = frame.get("attributes")
        if attributes is not None and not isinstance(attributes, dict):
            defects.note("image attributes that are no mapping, ignored", name)
            attributes = None
        record = ImageRecord(image_id, None, boxes, attributes or {})
        if records.setdefault(match_key(name), record) is not record:
            subject = f"{name} with {len(boxes)} boxes"
            defects.error("image listed twice in the annotations", subject)
    for category, count in sorted(boxless.items()):
        defects.note("labels without a box, left out", f"{category}: {count}")
    return Annotations({number: name for name, number in ids.items()}, records)


def _named_frames(path: Path, defects: Defects) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for frame in _frames(path, defects):
        name = frame.get("name") if isinstance(frame, dict) else None
        if not isinstance(name, str) or PurePosixPath(name.replace("\\", "/")).name in ("", ".."):
            defects.error("frame without a file name", reprlib.repr(frame))
        else:
            yield name, frame


def _frames(path: Path, defects: Defects) -> Iterator[Any]:
    if path.is_dir():
        for file in list_files(path, {".json"}):
            try:
                yield from _frames_of(read_json(file))
            except DatasetError as error:
                defects.error("unreadable label file", str(error))
    else:
        yield from _frames_of(read_json(path))


def _frames_of(content: object) -> list[Any]:
    if isinstance(content, list):
        return content
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(frames, list):
        return []
    if "name" not in content:
        return frames
    # One file per image: its objects are inside, and its name has no suffix.
    inner = [entry for frame in frames if isinstance(frame, dict) for entry in _objects_of(frame)]
    return [{**content, "labels": inner}]


def _objects_of(frame: Mapping[str, Any]) -> list[Any]:
    objects = frame.get("objects")
    return objects if isinstance(objects, list) else []


def _labels(frame: Mapping[str, Any]) -> list[Any]:
    labels = frame.get("labels")
    return labels if isinstance(labels, list) else []


def _categories(frames: list[tuple[str, Mapping[str, Any]]]) -> set[str]:
    return {
        label["category"]
        for _, frame in frames
        for label in _labels(frame)
        if isinstance(label, dict)
        and isinstance(label.get("category"), str)
        and label.get("box2d") is not None
    }


def _boxes(
    frame: Mapping[str, Any],
    name: str,
    image_id: int,
    ids: Mapping[str, int],
    boxless: Counter[str],
    defects: Defects,
) -> Iterator[Annotation]:
    if not isinstance(frame.get("labels"), list | None):
        defects.error("labels that are no list", name)
    repeats = Repeats(defects)
    for number, label in enumerate(_labels(frame), start=1):
        where = f"{name}: label {number}"
        category = label.get("category") if isinstance(label, dict) else None
        if not isinstance(category, str):
            defects.error("malformed label", f"{where}: {reprlib.repr(label)}")
            continue
        corners = label.get("box2d")
        if corners is None:
            boxless[category] += 1
            continue
        if not isinstance(corners, dict):
            defects.error("malformed box", f"{where}: {reprlib.repr(corners)}")
            continue
        values = [corners.get(corner) for corner in _CORNERS]
        bbox = box_of_corners(values, where, defects)
        if bbox is None:
            continue
        note_text(values, where, defects)
        crowd = _is_crowd(label, where, defects)
        annotation = box_annotation(image_id, ids[category], bbox, is_crowd=crowd)
        if not repeats.holds(annotation, where):
            yield annotation


def _is_crowd(label: Mapping[str, Any], where: str, defects: Defects) -> bool:
    attributes = label.get("attributes")
    value = attributes.get("crowd") if isinstance(attributes, dict) else None
    flag = as_flag(value)
    if flag is None:
        subject = f"{where}: {reprlib.repr(value)}"
        defects.repair("`crowd` that is neither true nor false, taken as false", subject)
    return bool(flag)
