"""Box annotations, whatever format they were read from.

Boxes are COCO annotations: `bbox` is left, top, width, height in pixels of the image, ids start at
1, `area` and `iscrowd` are present.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rainmer.data.defects import Defects
from rainmer.errors import DatasetError

__all__ = [
    "Annotation",
    "Annotations",
    "ImageRecord",
    "Repeats",
    "box_annotation",
    "clip_to_image",
]

Annotation = dict[str, Any]

# Annotators round outwards; only boxes that exceed the image by more than this are defects.
_SLACK_PX = 1.0


def box_annotation(
    image_id: int, category_id: int, bbox: list[float], *, is_crowd: bool = False
) -> Annotation:
    """Return a COCO annotation, still without its id; its area is the box's."""
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": int(is_crowd),
    }


class Repeats:
    """Finds objects of one image that are listed twice.

    Equal means: the same class, the same crowd flag, and the same numbers to the 24 bits of a
    float32, in which ultralytics compares label lines. Objects given as polygons are told apart by
    these; distinct polygons may have the same box.
    """

    def __init__(self, defects: Defects) -> None:
        self._defects = defects
        self._seen: set[tuple[float, ...]] = set()

    def holds(self, annotation: Annotation, where: str, points: Sequence[float] = ()) -> bool:
        """Return whether the object came before, and record it as dropped if so.

        Args:
            annotation: The object.
            where: Its place, for the record.
            points: What to compare; default: its box.
        """
        numbers = array("f", points or annotation["bbox"])
        key = (annotation["category_id"], annotation["iscrowd"], *numbers)
        if key in self._seen:
            self._defects.repair("object listed twice, the first counts", where)
            return True
        self._seen.add(key)
        return False


@dataclass(frozen=True)
class ImageRecord:
    """The annotations of one image."""

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

        Annotations often give bare file names for images in subfolders, or more folders (or a web
        address) before them. Of several with one name, that whose path ends in the key is taken.
        """
        if key in self.records:
            return self.records[key]
        candidates = self._by_name.get(key.rsplit("/", 1)[-1], {})
        if len(candidates) > 1:
            candidates = {path: r for path, r in candidates.items() if path.endswith(f"/{key}")}
        return next(iter(candidates.values())) if len(candidates) == 1 else None

    def match(self, keys: Iterable[str], defects: Defects) -> dict[str, ImageRecord]:
        """Find the records of images; see `find`.

        Args:
            keys: Match keys of the images.
            defects: A note is added for each image without record and each record without image.

        Raises:
            DatasetError: Several images match one record.
        """
        matched = {}
        for key in keys:
            record = self.find(key)
            if record is None:
                defects.note("image that the annotations do not list, left out", key)
            else:
                matched[key] = record
        used = {record.image_id for record in matched.values()}
        if len(used) < len(matched):
            raise DatasetError(
                "several images match one entry of the annotations by name; use paths"
            )
        for key, record in self.records.items():
            if record.image_id not in used:
                defects.note("annotated image without file", key)
        return matched

    @functools.cached_property
    def _by_name(self) -> dict[str, dict[str, ImageRecord]]:
        by_name: dict[str, dict[str, ImageRecord]] = {}
        for key, record in self.records.items():
            by_name.setdefault(key.rsplit("/", 1)[-1], {})[key] = record
        return by_name


def clip_to_image(
    boxes: Sequence[Annotation], size_hw: tuple[int, int], name: str, defects: Defects
) -> list[Annotation]:
    """Cut boxes at the image's borders and drop those outside; up to a pixel they may exceed it."""
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
        defects.repair("box reaching out of its image, cut at the border", name)
        bbox = [inside[0], inside[1], inside[2] - inside[0], inside[3] - inside[1]]
        share = bbox[2] * bbox[3] / (w * h)
        kept.append({**box, "bbox": bbox, "area": box["area"] * share})
    return kept
