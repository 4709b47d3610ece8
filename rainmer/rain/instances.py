"""Boxes of rendered images as a COCO data set, with the share of each object that rain hides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rainmer.data.annotations.records import ImageRecord
from rainmer.rain.folder import RenderedImage

__all__ = ["RenderedScene", "rendered_instances"]


class RenderedScene(NamedTuple):
    """A rendered image with the annotations of its clean image.

    `fields` is its COCO entry, with at least `file_name`.
    """

    image: RenderedImage
    record: ImageRecord
    size_hw: tuple[int, int]
    fields: Mapping[str, Any]


def rendered_instances(
    scenes: Sequence[RenderedScene], categories: Mapping[int, str]
) -> dict[str, Any]:
    """Return a COCO data set; the scenes are numbered from 1.

    Each box gets `rain_occlusion`, the mean share of its pixels that streaks and drops cover, and
    `rain_transmission`, the mean share of light that comes through the veil, both 0..1, so that
    invisible objects can be left out. The boxes of the jobs must have the same order.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, record, (height, width), fields) in enumerate(scenes, start=1):
        rain = {"rate_mm_h": image.rate_mm_h, "rain_alpha": image.alpha}
        attributes = {**record.attributes.get("attributes", {}), **fields.get("attributes", {})}
        images.append(
            {
                **fields,
                "id": number,
                "height": height,
                "width": width,
                "attributes": {**attributes, **rain},
            }
        )
        shares = zip(record.boxes, image.occlusion, image.box_transmission, strict=True)
        for box, occlusion, transmission in shares:
            identity = {"id": len(annotations) + 1, "image_id": number}
            seen = {"rain_occlusion": occlusion, "rain_transmission": transmission}
            annotations.append({**box, **identity, **seen})
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in sorted(categories.items())],
    }
