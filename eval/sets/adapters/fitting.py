"""Moving boxes from the pixels that were annotated to those of the image as it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rainmer.data.annotations.records import Annotation, ImageRecord
from rainmer.data.defects import Defects
from rainmer.frames.images import image_orientation

__all__ = [
    "Fit",
    "fit_exactly",
    "fit_stretched",
    "fit_uniformly",
    "scale_boxes",
    "turn_boxes",
    "turning_fit",
]

Fit = Callable[[Path, ImageRecord, tuple[int, int], Defects], list[Annotation] | None]
"""Image file, its record, its size as read: boxes in its pixels; None (an error is recorded)."""

_ASPECT_SLACK = 0.02
_SWAPS_SIDES = frozenset({5, 6, 7, 8})
_OF_TURN = {0: 1, 90: 6, 180: 3, 270: 8}


def fit_exactly(
    path: Path, record: ImageRecord, size_hw: tuple[int, int], defects: Defects
) -> list[Annotation] | None:
    """Take the boxes as they are if the image has its annotated size, or if none is stated."""
    if record.size_hw in (None, size_hw):
        return record.boxes
    _wrong_size(path, record, size_hw, defects)
    return None


def fit_uniformly(
    path: Path, record: ImageRecord, size_hw: tuple[int, int], defects: Defects
) -> list[Annotation] | None:
    """Scale boxes to an image that was resized in proportion after it was annotated."""
    if record.size_hw is None:
        return record.boxes
    y_scale, x_scale = (new / old for new, old in zip(size_hw, record.size_hw, strict=True))
    # Rounding to whole pixels moves the shorter side by up to one.
    slack = 1.0 / min(*size_hw, *record.size_hw)
    if abs(x_scale / y_scale - 1.0) > max(_ASPECT_SLACK, slack):
        _wrong_size(path, record, size_hw, defects)
        return None
    return scale_boxes(record.boxes, y_scale, x_scale)


def fit_stretched(
    path: Path, record: ImageRecord, size_hw: tuple[int, int], defects: Defects
) -> list[Annotation] | None:
    """Scale boxes to an image that was annotated at another size, in any proportion."""
    if record.size_hw is None:
        return record.boxes
    (height, width), (old_height, old_width) = size_hw, record.size_hw
    if (height > width) != (old_height > old_width):
        _wrong_size(path, record, size_hw, defects)
        return None
    y_scale, x_scale = height / old_height, width / old_width
    if size_hw != record.size_hw:
        defects.note(
            "boxes scaled from the size in the XML to that of the image",
            f"{path.name}: {old_width}x{old_height} to {width}x{height}",
        )
    return scale_boxes(record.boxes, y_scale, x_scale)


def turning_fit(turns: dict[str, int]) -> Fit:
    """Return a fit for sets annotated on images that were shown without their EXIF orientation.

    The annotated size decides. If it is that of the stored pixels, the annotator ignored the
    orientation, and boxes are turned; if it is that of the image as shown, they stay. Where both
    sizes are equal (orientations 2 to 4, squares), the former is assumed, and noted. An image
    without an orientation whose annotated sides are swapped was turned by 90 degrees in a direction
    that no size tells: it needs an entry in `turns`.

    Args:
        turns: Clockwise degrees from the labels to the image as it is read, by name in lower case
            without suffix. An entry overrides everything else.
    """

    def fit(
        path: Path, record: ImageRecord, size_hw: tuple[int, int], defects: Defects
    ) -> list[Annotation] | None:
        orientation = image_orientation(path)
        if (degrees := turns.get(path.stem.casefold())) is not None:
            orientation = _OF_TURN[degrees]
        swapped = (size_hw[1], size_hw[0])
        stored_hw = swapped if orientation in _SWAPS_SIDES else size_hw
        labelled_hw = record.size_hw or stored_hw
        if record.size_hw is None:
            defects.note("annotation without image size, taken as labelled as stored", path.name)
        if degrees is not None and labelled_hw != stored_hw:
            _wrong_size(path, record, size_hw, defects)
            return None
        if labelled_hw == stored_hw:
            if orientation == 1:
                return record.boxes
            ambiguous = stored_hw == size_hw and degrees is None
            kind = "boxes turned by the EXIF orientation" if degrees is None else "boxes turned"
            guess = ", assumed: the size does not tell" if ambiguous else ""
            defects.note(f"{kind}{guess}", f"{path.name}: orientation {orientation}")
            return turn_boxes(record.boxes, stored_hw, orientation)
        if labelled_hw == size_hw:
            return record.boxes
        if labelled_hw == swapped:
            defects.error(
                "labels turned by 90 degrees against their image, direction unknown, skipped "
                "(say it with --turns)",
                path.name,
            )
            return None
        _wrong_size(path, record, size_hw, defects)
        return None

    return fit


def _wrong_size(
    path: Path, record: ImageRecord, size_hw: tuple[int, int], defects: Defects
) -> None:
    assert record.size_hw is not None
    height, width = record.size_hw
    defects.error(
        "image of another size than its annotation says, skipped",
        f"{path.name}: {size_hw[1]}x{size_hw[0]}, annotated {width}x{height}",
    )


def scale_boxes(boxes: Sequence[Annotation], y_scale: float, x_scale: float) -> list[Annotation]:
    """Scale boxes and their areas.

    Example:
        >>> scale_boxes([{"bbox": [1, 2, 3, 4], "area": 12.0}], 10, 2)
        [{'bbox': [2, 20, 6, 40], 'area': 240.0}]
    """
    scales = (x_scale, y_scale, x_scale, y_scale)
    return [
        {
            **box,
            "bbox": [v * s for v, s in zip(box["bbox"], scales, strict=True)],
            "area": box["area"] * x_scale * y_scale,
        }
        for box in boxes
    ]


def turn_boxes(
    boxes: Sequence[Annotation], stored_hw: tuple[int, int], orientation: int
) -> list[Annotation]:
    """Move boxes from the pixels as stored to those shown under an EXIF orientation.

    The orientation says at which corner of the picture the first stored pixel lies (EXIF 2.3, tag
    0x0112): 3 is half a turn, 6 a quarter clockwise, 8 a quarter counter-clockwise, and 2, 4, 5, 7
    are mirrored.

    Args:
        boxes: COCO annotations in the stored pixels.
        stored_hw: (height, width) as stored.
        orientation: 1..8.

    Example:
        >>> turn_boxes([{"bbox": [0, 0, 3, 1]}], (10, 20), 6)
        [{'bbox': [9, 0, 1, 3]}]
    """
    return [{**box, "bbox": _turned(box["bbox"], stored_hw, orientation)} for box in boxes]


def _turned(bbox: Sequence[float], stored_hw: tuple[int, int], orientation: int) -> list[float]:
    left, top, width, height = bbox
    if orientation in (2, 3, 7, 8):
        left = stored_hw[1] - left - width
    if orientation in (3, 4, 6, 7):
        top = stored_hw[0] - top - height
    if orientation in _SWAPS_SIDES:
        return [top, left, height, width]
    return [left, top, width, height]
