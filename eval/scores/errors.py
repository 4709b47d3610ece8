"""Why a row's AP is not 1: its errors by kind, and what each kind costs.

The kinds, thresholds and remedies are those of TIDE (Bolya et al., "TIDE: A General Toolbox for
Identifying Object Detection Errors", ECCV 2020, sections 2.2 and 2.3), upon the matches of
COCOeval. AP before and after a remedy is COCOeval's too.

A false detection is judged by its overlap with the objects of its image, in this order:

- localisation: IoU 0.1 up to 0.5 with an object of its class;
- classification: IoU 0.5 or more with an object of another class;
- duplicate: IoU 0.5 or more with an object of its class that a better detection has found;
- both: IoU 0.1 up to 0.5 with an object of another class;
- background: less than that with every object.

An object is missed if no detection finds it and no localisation or classification error, once
corrected, would. Crowds do not count as objects here, nor what COCOeval ignores on them as errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from pycocotools import mask

from eval.scores.coco import AREAS, Evaluation, FloatArray, ImageMatches
from rainmer.data.annotations.records import Annotation

__all__ = [
    "BACKGROUND_IOU",
    "EVERY",
    "FOREGROUND_IOU",
    "KINDS",
    "Error",
    "ErrorKind",
    "area_name",
    "box_overlaps",
    "break_down",
    "correct",
    "find_errors",
    "repaired_ap50",
]

ErrorKind: TypeAlias = Literal[
    "classification", "localisation", "both", "duplicate", "background", "missed"
]
Result: TypeAlias = Mapping[str, Any]
"""A detection as a COCO result."""

KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1
EVERY = "all"
"""What stands for all classes, or for objects of all sizes."""

_REPAIRED: frozenset[ErrorKind] = frozenset({"classification", "localisation"})
_SMALL, _LARGE = 32.0**2, 96.0**2


@dataclass(frozen=True)
class Error:
    """One false detection, or one missed object.

    Attributes:
        kind: What is wrong.
        detection: The false detection; None for what is missed.
        target: The object that it should have been, repeats, or touches; None on background.
    """

    kind: ErrorKind
    detection: Result | None
    target: Annotation | None

    @property
    def category_id(self) -> int:
        """The class that the error counts for: the detection's, or the missed object's."""
        return int(self._subject["category_id"])

    @property
    def area(self) -> str:
        """One of `AREAS`, by the object if there is one, else by the detection."""
        return area_name((self.target or self._subject)["area"])

    @property
    def _subject(self) -> Mapping[str, Any]:
        subject = self.target if self.detection is None else self.detection
        assert subject is not None
        return subject


def area_name(area: float) -> str:
    """Return the COCO size of an object of an area in square pixels.

    >>> area_name(1023), area_name(1024), area_name(9217)
    ('small', 'medium', 'large')
    """
    if area < _SMALL:
        return "small"
    return "medium" if area <= _LARGE else "large"


def box_overlaps(
    items: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> FloatArray:
    """Return the IoU of the `bbox` (left, top, width, height) of each with each: (N, M)."""
    if not items or not others:
        return np.zeros((len(items), len(others)))
    boxes = ([list(item["bbox"]) for item in group] for group in (items, others))
    overlaps: FloatArray = mask.iou(*boxes, [0] * len(others))
    return overlaps


def find_errors(matches: ImageMatches) -> list[Error]:
    """Judge the false detections and missed objects of one image.

    Args:
        matches: What became of its boxes at some confidence.

    Returns:
        An error for each false detection, in their order, then one for each missed object that no
        localisation or classification error stands for.
    """
    objects = [*matches.found_objects, *matches.missed]
    labels = np.array([item["category_id"] for item in objects], dtype=np.int64)
    overlaps = box_overlaps(matches.false, objects)
    errors = [
        _judge(detection, objects, labels == detection["category_id"], row)
        for detection, row in zip(matches.false, overlaps, strict=True)
    ]
    covered = {e.target["id"] for e in errors if e.target is not None and e.kind in _REPAIRED}
    missed = [item for item in matches.missed if item["id"] not in covered]
    return errors + [Error("missed", None, item) for item in missed]


def _judge(
    detection: Result,
    objects: Sequence[Annotation],
    same_class: npt.NDArray[np.bool_],
    overlaps: FloatArray,
) -> Error:
    """Return the error of a false detection from its IoU (G,) with the objects."""
    same, same_iou = _most(objects, overlaps, same_class)
    other, other_iou = _most(objects, overlaps, ~same_class)
    if BACKGROUND_IOU <= same_iou < FOREGROUND_IOU:
        return Error("localisation", detection, same)
    if other_iou >= FOREGROUND_IOU:
        return Error("classification", detection, other)
    if same_iou >= FOREGROUND_IOU:
        return Error("duplicate", detection, same)
    if other_iou >= BACKGROUND_IOU:
        return Error("both", detection, other)
    return Error("background", detection, None)


def _most(
    objects: Sequence[Annotation], overlaps: FloatArray, chosen: npt.NDArray[np.bool_]
) -> tuple[Annotation | None, float]:
    """Return the chosen object with the largest overlap; None and 0 if nothing is chosen."""
    if not chosen.any():
        return None, 0.0
    index = int(np.argmax(np.where(chosen, overlaps, -1.0)))
    return objects[index], float(overlaps[index])


def correct(
    matches: ImageMatches, errors: Iterable[Error], kinds: Collection[ErrorKind]
) -> tuple[list[Result], frozenset[int]]:
    """Correct the errors of some kinds in one image, as an oracle would.

    Classification errors get the object's class, localisation errors its box. If that makes two
    detections of one object, the better one stays. Other false detections are taken out. Missed
    objects are taken out of the truth: as if they were found with the precision of the others.

    Args:
        matches: The image's boxes at the same confidence as `errors`.
        errors: All of its errors.
        kinds: What to correct.

    Returns:
        The detections left, in the order of the row's results, and the ids of objects taken out.
    """
    chosen = [error for error in errors if error.kind in kinds]
    rivals: dict[int, list[tuple[Result, Error | None]]] = {}
    for found, item in zip(matches.found, matches.found_objects, strict=True):
        rivals[item["id"]] = [(found, None)]
    out = set()
    for error in chosen:
        if error.detection is None:
            continue  # nothing to correct: the object goes
        if error.kind in _REPAIRED and error.target is not None:
            rivals.setdefault(error.target["id"], []).append((error.detection, error))
        else:
            out.add(error.detection["id"])
    corrected: dict[int, Result] = {}
    for candidates in rivals.values():
        best, wrong = min(candidates, key=lambda pair: (-pair[0]["score"], pair[0]["id"]))
        out |= {detection["id"] for detection, _ in candidates} - {best["id"]}
        if wrong is not None:
            corrected[best["id"]] = _correct_one(best, wrong)
    everything = (*matches.found, *matches.false, *matches.ignored)
    left = sorted((d for d in everything if d["id"] not in out), key=lambda d: d["id"])
    missed = {e.target["id"] for e in chosen if e.detection is None and e.target is not None}
    return [corrected.get(d["id"], d) for d in left], frozenset(missed)


def _correct_one(detection: Result, error: Error) -> Result:
    assert error.target is not None
    key = "category_id" if error.kind == "classification" else "bbox"
    return {**detection, key: error.target[key]}


def repaired_ap50(
    evaluation: Evaluation, kinds: Collection[ErrorKind], groups: Sequence[Iterable[int]]
) -> list[FloatArray]:
    """Compute AP at IoU 0.5 of a row whose errors of some kinds are corrected.

    All detections count, down to the detector's lowest confidence, as in the paper.

    Args:
        evaluation: The row.
        kinds: What to correct.
        groups: Image ids of each group of images to score.

    Returns:
        For each group (K, 4), as `Evaluation.ap50`. A class all of whose objects were taken out
        as missed has no AP: NaN.
    """
    matches = {i: evaluation.image_matches(i, 0.0) for i in evaluation.image_ids}
    errors = {i: find_errors(matches[i]) for i in evaluation.image_ids}
    return _repaired(evaluation, matches, errors, kinds, groups)


def _repaired(
    evaluation: Evaluation,
    matches: Mapping[int, ImageMatches],
    errors: Mapping[int, Sequence[Error]],
    kinds: Collection[ErrorKind],
    groups: Sequence[Iterable[int]],
) -> list[FloatArray]:
    if not any(error.kind in kinds for found in errors.values() for error in found):
        return [evaluation.ap50(group) for group in groups]
    results: list[Result] = []
    removed: set[int] = set()
    for image_id, found in errors.items():
        left, missed = correct(matches[image_id], found, kinds)
        results += left
        removed |= missed
    return evaluation.corrected_ap50(results, removed, groups)


@dataclass(frozen=True, kw_only=True)
class ErrorCount:
    """The errors of one kind in some images. AP50 are fractions 0..1.

    Attributes:
        condition: Which images.
        class_name: Of which class; `EVERY` of all.
        size: Of objects of which size, one of `eval.scores.coco.AREAS`.
        kind: The kind of error.
        count: Number of errors, from the confidence of the counts on.
        ap50: AP50 as it is; None where there is no object.
        gain_ap50: What AP50 gains when all errors of this kind alone are corrected, over all
            detections whatever their confidence; None where no object is left.
    """

    condition: str
    class_name: str
    size: str
    kind: ErrorKind
    count: int
    ap50: float | None
    gain_ap50: float | None


def break_down(
    evaluation: Evaluation, conditions: Mapping[str, Collection[int]], conf: float
) -> list[ErrorCount]:
    """Return the errors of a row by condition, class, size and kind.

    Args:
        evaluation: The row.
        conditions: Name of each condition and ids of its images.
        conf: Confidence from which a detection counts in `count`, 0..1.

    Returns:
        By size for all classes together, by class for all sizes.
    """
    ids = evaluation.image_ids
    matches = {i: evaluation.image_matches(i, 0.0) for i in ids}
    errors = {i: find_errors(matches[i]) for i in ids}
    groups = list(conditions.values())
    repaired = {kind: _repaired(evaluation, matches, errors, {kind}, groups) for kind in KINDS}
    counted = {i: find_errors(evaluation.image_matches(i, conf)) for i in ids}
    rows = []
    for position, (name, image_ids) in enumerate(conditions.items()):
        before = _summaries(evaluation, evaluation.ap50(image_ids))
        counts = _count(evaluation, (e for i in image_ids for e in counted[i]))
        after = {kind: _summaries(evaluation, repaired[kind][position]) for kind in KINDS}
        for (class_name, size), level in before.items():
            for kind in KINDS:
                better = after[kind][class_name, size]
                rows.append(
                    ErrorCount(
                        condition=name,
                        class_name=class_name,
                        size=size,
                        kind=kind,
                        count=counts[class_name, size, kind],
                        ap50=level,
                        gain_ap50=None if level is None or better is None else better - level,
                    )
                )
    return rows


def _summaries(evaluation: Evaluation, ap50: FloatArray) -> dict[tuple[str, str], float | None]:
    """Return AP50 by (class, size): means over classes by size, then each class."""
    names = [evaluation.truth.categories[k] for k in evaluation.category_ids]
    values = {(EVERY, area): _mean(ap50[:, n]) for n, area in enumerate(AREAS)}
    return values | {(name, EVERY): _mean(ap50[k, :1]) for k, name in enumerate(names)}


def _mean(values: FloatArray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _count(evaluation: Evaluation, errors: Iterable[Error]) -> Counter[tuple[str, str, ErrorKind]]:
    counts: Counter[tuple[str, str, ErrorKind]] = Counter()
    for error in errors:
        name = evaluation.truth.categories[error.category_id]
        counts.update(
            {(EVERY, EVERY, error.kind): 1, (EVERY, error.area, error.kind): 1},
        )
        counts[name, EVERY, error.kind] += 1
    return counts
