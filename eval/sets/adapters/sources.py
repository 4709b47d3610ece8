"""Annotations in any of the forms that the toolkit reads, told apart by their content."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rainmer.data.annotations.coco import read_coco
from rainmer.data.annotations.parsing import read_json
from rainmer.data.annotations.records import Annotations
from rainmer.data.annotations.scalabel import read_scalabel
from rainmer.data.annotations.voc import read_voc, voc_files
from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

__all__ = ["merge", "read_any"]


def read_any(path: Path, defects: Defects) -> Annotations:
    """Read a COCO or Scalabel JSON file, or a folder of VOC XML or Scalabel JSON files.

    Raises:
        DatasetError: The path is missing or holds nothing of that kind.
    """
    if path.is_dir():
        files = voc_files(path)
        if files:
            return read_voc(files, defects)
        if not any(path.rglob("*.json")):
            raise DatasetError(f"{path} holds neither XML nor JSON annotations")
        return read_scalabel(path, defects)
    if _starts_a_list(path):  # these are large: BDD100K's training labels have a gigabyte
        return read_scalabel(path, defects)
    content = read_json(path)
    if isinstance(content, dict) and "frames" in content:
        return read_scalabel(path, defects)
    return read_coco(path, defects)


def _starts_a_list(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except OSError as error:
        raise DatasetError(f"cannot read the annotations {path}: {error.strerror}") from error


def merge(parts: list[Annotations]) -> Annotations:
    """Put annotations of several files together: categories by name, ids given anew from 1.

    Of records with one key the first stays.
    """
    names = sorted({name for part in parts for name in part.categories.values()})
    ids = {name: number for number, name in enumerate(names, start=1)}
    merged = Annotations({number: name for name, number in ids.items()}, {})
    for part in parts:
        for key, record in part.records.items():
            boxes = [
                {**box, "category_id": ids[part.categories[box["category_id"]]]}
                for box in record.boxes
            ]
            number = len(merged.records) + 1
            merged.records.setdefault(
                key, dataclasses.replace(record, image_id=number, boxes=boxes)
            )
    return merged
