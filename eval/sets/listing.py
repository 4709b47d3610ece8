"""Sets that list their scenes, for layouts that no pair of folders with equal names describes.

The list is a COCO file. Each image may say `rainy_file` (default: `file_name`) and `clean_file`,
relative to the set's folders `rainy` and `clean`. Several rainy images may name one clean image.
What else lies in the folders does not count.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rainmer.data.annotations.records import Annotations
from rainmer.data.defects import Defects

__all__ = ["listed_files", "without_boxes"]

Files = dict[str, tuple[str, Path]]


def listed_files(
    listing: Annotations, rainy: Path, clean: Path | None, defects: Defects
) -> tuple[Files, Files | None]:
    """Return (relative path, path) of each listed rainy image, and of its clean one, by key.

    The key is that of the image's `file_name` in the list. A rainy file that is missing, is listed
    twice, or lies outside its folder is an error and left out; for a clean file, its scene will be.
    """
    rainy_files: Files = {}
    clean_files: Files = {}
    seen: set[str] = set()
    for key, record in listing.records.items():
        name = _name(record.attributes.get("rainy_file", record.attributes["file_name"]))
        if name is None or not (rainy / name).is_file():
            defects.error("listed rainy image without file, skipped", name or key)
            continue
        if name in seen:
            defects.error("rainy image listed twice, the first counts", name)
            continue
        seen.add(name)
        rainy_files[key] = (name, rainy / name)
        partner = record.attributes.get("clean_file")
        if clean is None or partner is None:
            continue
        clean_name = _name(partner)
        if clean_name is None or not (clean / clean_name).is_file():
            defects.error("listed clean image without file", reprlib.repr(partner))
            continue
        clean_files[key] = (clean_name, clean / clean_name)
    return rainy_files, clean_files if clean is not None else None


def _name(value: object) -> str | None:
    """Return a path that stays in its folder, with forward slashes; None for anything else."""
    if not isinstance(value, str):
        return None
    path = PurePosixPath(value.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name:
        return None
    if re.fullmatch("[A-Za-z]:", path.parts[0]):  # a drive of Windows
        return None
    return path.as_posix()


def without_boxes(listing: Annotations, keys: Iterable[str], defects: Defects) -> Annotations:
    """Return the listed images without boxes, for a set whose truth is made later."""
    records = {key: listing.records[key] for key in keys}
    boxes = sum(len(record.boxes) for record in records.values())
    if boxes:
        defects.note("boxes in the list of scenes, ignored: `annotations` is null", str(boxes))
    return Annotations({}, {k: dataclasses.replace(r, boxes=[]) for k, r in records.items()})
