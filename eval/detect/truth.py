"""What rows are scored against: the set's boxes in the detector's classes, or pseudo-labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.scores.coco import GroundTruth
from eval.sets import DetectionSet
from rainmer.errors import DatasetError

__all__ = [
    "CategoryMatch",
    "common_categories",
    "match_categories",
    "pseudo_truth",
    "set_truth",
]


@dataclass(frozen=True)
class CategoryMatch:
    """How the classes of a detector and of a set correspond.

    Attributes:
        label_to_category: Detector label to the set's category id.
        merged: Set category to the category that stands for it, where the detector has one class
            for several categories.
        names: Category id to the detector's name of it.
        unmatched: Names of set categories that the detector does not know.
        unused: Number of detector classes that the set does not know.
    """

    label_to_category: Mapping[int, int]
    merged: Mapping[int, int]
    names: Mapping[int, str]
    unmatched: tuple[str, ...]
    unused: int


def match_categories(
    categories: Mapping[int, str], detector_names: Mapping[int, str], aliases: Mapping[str, str]
) -> CategoryMatch:
    """Match categories by name; case, spaces, hyphens and underscores do not count.

    Args:
        categories: The set's categories by id.
        detector_names: The detector's classes by label.
        aliases: The set's names that the detector calls differently.

    Raises:
        DatasetError: No category matches, or an alias names no class of the detector.

    Example:
        >>> match = match_categories({7: "Traffic_Light"}, {0: "traffic light"}, {})
        >>> dict(match.label_to_category)
        {0: 7}
    """
    labels = {_plain(name): label for label, name in detector_names.items()}
    renamed = {_plain(name): _plain(target) for name, target in aliases.items()}
    for alias, target in aliases.items():
        if _plain(target) not in labels:
            raise DatasetError(f"alias {alias!r}: the detector has no class {target!r}")
    label_to_category: dict[int, int] = {}
    merged: dict[int, int] = {}
    unmatched = []
    for category, name in sorted(categories.items()):
        label = labels.get(renamed.get(_plain(name), _plain(name)))
        if label is None:
            unmatched.append(name)
        else:
            merged[category] = label_to_category.setdefault(label, category)
    if not label_to_category:
        raise DatasetError(
            "no category of the set is known to the detector: the set has "
            f"{_some(categories.values())}, the detector {_some(detector_names.values())}"
        )
    return CategoryMatch(
        label_to_category,
        merged,
        {category: detector_names[label] for label, category in label_to_category.items()},
        tuple(unmatched),
        len(detector_names) - len(label_to_category),
    )


def set_truth(data: DetectionSet, match: CategoryMatch) -> GroundTruth:
    """Return the set's boxes in matched categories. Raises DatasetError if there are none."""
    assert data.annotations is not None
    boxes = tuple(
        {**box, "category_id": match.merged[box["category_id"]]}
        for box in data.annotations
        if box["category_id"] in match.merged
    )
    if not boxes:
        reasons = "".join(f"; {line}" for line in data.defects.error_lines())
        raise DatasetError(
            f"{data.name}: none of its {len(data.annotations)} boxes is of a category that the "
            f"detector knows{reasons}"
        )
    return GroundTruth(_image_ids(data), match.names, boxes)


def common_categories(truths: Sequence[GroundTruth]) -> dict[int, str]:
    """Return the categories that have the same objects in all truths of a set, at least one.

    Detectors of other classes have other truths, and where a detector has one class for two
    categories, both are its objects. Only what they have in common can be compared. Images that one
    of the truths lacks do not count.

    Returns:
        Category id to the name that the first truth has for it.
    """
    images = frozenset.intersection(*(frozenset(truth.image_ids) for truth in truths))
    objects = [_objects(truth, images) for truth in truths]
    return {
        category: name
        for category, name in sorted(truths[0].categories.items())
        if objects[0].get(category)
        and all(other.get(category) == objects[0][category] for other in objects)
    }


def _objects(truth: GroundTruth, images: frozenset[int]) -> dict[int, set[int]]:
    """Return the ids of each category's objects in some images."""
    objects: dict[int, set[int]] = {}
    for annotation in truth.annotations:
        if annotation["image_id"] in images:
            objects.setdefault(annotation["category_id"], set()).add(annotation["id"])
    return objects


def pseudo_truth(
    data: DetectionSet,
    clean_results: Iterable[Mapping[str, Any]],
    names: Mapping[int, str],
    conf: float,
) -> GroundTruth:
    """Take confident detections on the clean images as the truth (the paper's protocol).

    Scores then measure agreement with what the detector finds on the clean image, not accuracy;
    the clean row is the ceiling by construction.

    Raises:
        DatasetError: Nothing was detected on the clean images with this confidence.
    """
    boxes = tuple(
        {
            "id": number,
            "image_id": result["image_id"],
            "category_id": result["category_id"],
            "bbox": list(result["bbox"]),
            "area": result["bbox"][2] * result["bbox"][3],
            "iscrowd": 0,
        }
        for number, result in enumerate((r for r in clean_results if r["score"] >= conf), start=1)
    )
    if not boxes:
        raise DatasetError(
            f"{data.name}: no detection of confidence {conf} on the clean images to serve as truth"
        )
    return GroundTruth(_image_ids(data), dict(names), boxes)


def _image_ids(data: DetectionSet) -> tuple[int, ...]:
    return tuple(sample.image_id for sample in data.samples)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    if not listed:
        return "no categories"
    return ", ".join(listed[:4]) + (", ..." if len(listed) > 4 else "")
