"""Boxes around the masks of COCO JSON: polygons, and run lengths in both forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rainmer.data.annotations.parsing import as_whole, box_around

__all__ = ["box_of_mask"]

# Numbers of up to seven characters with five bits each, the last one without the sixth bit. What
# does not end so makes pycocotools read beyond the text.
_COMPRESSED = re.compile("([P-o]{0,6}[0-O])+")


def box_of_mask(mask: object, size_hw: tuple[int, int] | None) -> list[float] | None:
    """Return left, top, width, height around a segmentation; None if it is malformed or empty.

    Polygons give the box around their points, as COCO's own boxes are made; run lengths that of
    their pixels.

    Args:
        mask: A list of polygons (x, y, x, y, ...), one polygon, or `{"size", "counts"}`.
        size_hw: (height, width) of the image, which run lengths must have; None: not known.
    """
    if isinstance(mask, dict):
        return _of_runs(mask, size_hw)
    if not isinstance(mask, list) or not mask:
        return None
    polygons = mask if all(isinstance(part, list) for part in mask) else [mask]
    if any(len(points) < 6 or len(points) % 2 for points in polygons):
        return None
    xs, ys = ([value for points in polygons for value in points[axis::2]] for axis in (0, 1))
    return box_around(xs, ys)


def _of_runs(mask: Mapping[str, Any], size_hw: tuple[int, int] | None) -> list[float] | None:
    from pycocotools import mask as coco_masks

    size, counts = mask.get("size"), mask.get("counts")
    sides = [as_whole(side) or 0 for side in size] if isinstance(size, list) else []
    if len(sides) != 2 or min(sides) <= 0 or (size_hw is not None and tuple(sides) != size_hw):
        return None
    if sides[0] * sides[1] >= 2**32:  # pycocotools counts pixels with 32 bits
        return None
    if isinstance(counts, list):
        runs = [number for number in map(as_whole, counts) if number is not None and number >= 0]
        if len(runs) < len(counts) or sum(runs) != sides[0] * sides[1]:
            return None
        encoded = coco_masks.frPyObjects({"size": sides, "counts": runs}, *sides)
    elif isinstance(counts, str) and _COMPRESSED.fullmatch(counts):
        encoded = {"size": sides, "counts": counts.encode()}
    else:
        return None
    left, top, width, height = map(float, coco_masks.toBbox(encoded))
    inside = left + width <= sides[1] and top + height <= sides[0]
    return (
        [left, top, width, height] if inside and min(width, height) > 0 <= min(left, top) else None
    )
