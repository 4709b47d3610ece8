"""What deraining changed in the detections: objects found and lost, false alarms gained and lost.

All at a fixed confidence and IoU 0.5, object by object: two rows can find equally many objects,
but different ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eval.scores.coco import AREAS, Evaluation, ImageMatches
from eval.scores.errors import EVERY, FOREGROUND_IOU, Result, area_name, box_overlaps, find_errors
from rainmer.data.annotations.records import Annotation

__all__ = [
    "ChangeCount",
    "ImageChange",
    "best_pairs",
    "compare_images",
    "compare_rows",
    "rank_changes",
    "tabulate_changes",
]

FloatArray = npt.NDArray[np.float64]

_COUNTS = ("found", "lost", "background_gained", "background_removed")


@dataclass(frozen=True)
class ImageChange:
    """What changed in one image from one row to another.

    Attributes:
        image_id: The image.
        found: Objects found after, not before.
        lost: Objects found before, not after.
        background_gained: Background detections after without a partner before: one of the same
            class with IoU 0.5 or more.
        background_removed: Background detections before without a partner after.
        false: False detections of all kinds after, minus those before.
    """

    image_id: int
    found: tuple[Annotation, ...]
    lost: tuple[Annotation, ...]
    background_gained: tuple[Result, ...]
    background_removed: tuple[Result, ...]
    false: int

    @property
    def gain(self) -> int:
        """Objects found minus objects lost."""
        return len(self.found) - len(self.lost)


def compare_images(image_id: int, before: ImageMatches, after: ImageMatches) -> ImageChange:
    """Compare what two rows made of one image, both at the same confidence."""
    had = {item["id"] for item in before.found_objects}
    has = {item["id"] for item in after.found_objects}
    removed, gained = _unpaired(_background(before), _background(after))
    return ImageChange(
        image_id=image_id,
        found=tuple(item for item in after.found_objects if item["id"] not in had),
        lost=tuple(item for item in before.found_objects if item["id"] not in has),
        background_gained=gained,
        background_removed=removed,
        false=len(after.false) - len(before.false),
    )


def _background(matches: ImageMatches) -> list[Result]:
    errors = find_errors(matches)
    return [e.detection for e in errors if e.kind == "background" and e.detection is not None]


def _unpaired(
    before: Sequence[Result], after: Sequence[Result]
) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
    """Pair detections of one class, the largest overlap first, and return those left over."""
    overlaps = box_overlaps(before, after)
    for row, detection in enumerate(before):
        for column, other in enumerate(after):
            if detection["category_id"] != other["category_id"]:
                overlaps[row, column] = 0.0
    pairs = best_pairs(overlaps)
    rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
    return (
        tuple(item for n, item in enumerate(before) if n not in rows),
        tuple(item for n, item in enumerate(after) if n not in columns),
    )


def best_pairs(overlaps: FloatArray) -> list[tuple[int, int]]:
    """Pair rows with columns one to one, the largest overlap first, none below IoU 0.5.

    >>> best_pairs(np.array([[0.9, 0.8], [0.7, 0.1]]))
    [(0, 0)]
    """
    pairs: list[tuple[int, int]] = []
    rows, columns = set(range(overlaps.shape[0])), set(range(overlaps.shape[1]))
    for place in np.argsort(-overlaps, axis=None, kind="stable").tolist():
        row, column = divmod(place, overlaps.shape[1])
        if overlaps[row, column] < FOREGROUND_IOU:
            break
        if row in rows and column in columns:
            rows.remove(row)
            columns.remove(column)
            pairs.append((row, column))
    return pairs


def compare_rows(before: Evaluation, after: Evaluation, conf: float) -> list[ImageChange]:
    """Compare two rows image by image.

    Args:
        before: The reference, as a rule the rainy row.
        after: Another row with the same truth.
        conf: Confidence from which detections count, 0..1.

    Returns:
        A change for every image, unchanged ones too, by image id.
    """
    return [
        compare_images(i, before.image_matches(i, conf), after.image_matches(i, conf))
        for i in before.image_ids
    ]


def rank_changes(changes: Iterable[ImageChange]) -> list[ImageChange]:
    """Order changes from the best improvement to the worst regression.

    They are sorted by objects gained, then by fewer false detections gained, then by image id. The
    worst regressions are at the end of the list, read backwards.
    """
    return sorted(changes, key=lambda change: (-change.gain, change.false, change.image_id))


@dataclass(frozen=True, kw_only=True)
class ChangeCount:
    """Changes in some images; see `ImageChange`.

    Attributes:
        condition: Which images.
        class_name: Of which class; `EVERY` of all.
        size: One of `eval.scores.coco.AREAS`: of objects that of their annotation, of background
            detections their own.
        found, lost: Numbers of objects.
        background_gained, background_removed: Numbers of detections.
    """

    condition: str
    class_name: str
    size: str
    found: int
    lost: int
    background_gained: int
    background_removed: int


def tabulate_changes(
    changes: Iterable[ImageChange],
    conditions: Mapping[str, Collection[int]],
    names: Mapping[int, str],
) -> list[ChangeCount]:
    """Count changes by condition, class and size.

    Args:
        changes: From `compare_rows`.
        conditions: Name of each condition and ids of its images.
        names: Category id to class name.

    Returns:
        By size for all classes together, by class for all sizes.
    """
    changes = list(changes)
    keys = [(EVERY, area) for area in AREAS]
    keys += [(name, EVERY) for _, name in sorted(names.items())]
    rows = []
    for condition, image_ids in conditions.items():
        counts: Counter[tuple[str, str, str]] = Counter()
        for change in changes:
            if change.image_id in image_ids:
                counts += _count(change, names)
        rows += [
            ChangeCount(
                condition=condition,
                class_name=class_name,
                size=size,
                **{kind: counts[class_name, size, kind] for kind in _COUNTS},
            )
            for class_name, size in keys
        ]
    return rows


def _count(change: ImageChange, names: Mapping[int, str]) -> Counter[tuple[str, str, str]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for kind in _COUNTS:
        for item in getattr(change, kind):
            counts[EVERY, EVERY, kind] += 1
            counts[EVERY, area_name(item["area"]), kind] += 1
            counts[names[item["category_id"]], EVERY, kind] += 1
    return counts
