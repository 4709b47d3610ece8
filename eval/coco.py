"""mAP by pycocotools' COCOeval, and the matches behind it.

COCOeval matches detections to objects once per row. Its own `accumulate` then gives the numbers of
each condition, and the matches serve the counts, the marks of picture strips, and the bootstrap.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rainmer.data.annotations import Annotation

__all__ = ["ClassMatches", "Evaluation", "GroundTruth", "ImageMatches"]

_STATS = ("mAP", "mAP50", "mAP75", "mAP_small", "mAP_medium", "mAP_large")
_AR_STAT = 8  # COCOeval.stats: average recall at 100 detections
_ALL_AREAS = 0
_MOST_DETECTIONS = -1  # of params.maxDets: 100


@dataclass(frozen=True)
class GroundTruth:
    """The truth that rows are scored against.

    Attributes:
        image_ids: All images, those without objects too.
        categories: Category id to name: only what both the set and the detector know.
        annotations: COCO annotations, ids from 1.
    """

    image_ids: tuple[int, ...]
    categories: Mapping[int, str]
    annotations: tuple[Annotation, ...]

    def to_coco(self) -> dict[str, Any]:
        """Return it as the content of a COCO annotation file."""
        return {
            "images": [{"id": image_id} for image_id in self.image_ids],
            "categories": [{"id": i, "name": name} for i, name in sorted(self.categories.items())],
            "annotations": list(self.annotations),
        }


@dataclass(frozen=True)
class ImageMatches:
    """What became of one image's boxes at a fixed confidence and IoU 0.5.

    `found` and `false` are detections (COCO results), `missed` are annotations.
    """

    found: tuple[Mapping[str, Any], ...]
    false: tuple[Mapping[str, Any], ...]
    missed: tuple[Annotation, ...]


@dataclass(frozen=True)
class ClassMatches:
    """Matches of one class over all images, best score first: what AP is computed from.

    Attributes:
        image_index: (D,) position in `GroundTruth.image_ids` of each detection's image.
        true_positive: (T, D) bool per IoU threshold.
        ignored: (T, D) bool: matched to a crowd, counted neither way.
        objects: (I,) number of objects in each image.
    """

    image_index: npt.NDArray[np.int64]
    true_positive: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]


class Evaluation:
    """One row's detections, matched to the truth.

    Args:
        truth: What they are scored against.
        results: COCO results: dicts of image_id, category_id, bbox (left, top, width, height) and
            score. Those of other categories than the truth's are left out.
    """

    def __init__(self, truth: GroundTruth, results: Iterable[Mapping[str, Any]]) -> None:
        self.truth = truth
        self._results = {
            number: {**result, "id": number, "iscrowd": 0, "area": _area(result["bbox"])}
            for number, result in enumerate(
                (r for r in results if r["category_id"] in truth.categories), start=1
            )
        }
        self._annotations = {a["id"]: a for a in truth.annotations}
        with contextlib.redirect_stdout(io.StringIO()):
            coco = _coco(truth, truth.annotations)
            self._eval = COCOeval(coco, _coco(truth, self._results.values()), "bbox")
            self._eval.params.imgIds = list(truth.image_ids)
            # Categories without objects have no AP; leaving them out changes no number.
            present = sorted({a["category_id"] for a in truth.annotations})
            self._eval.params.catIds = present
            self._eval.evaluate()
        # COCOeval sorts and makes unique what it is given; positions follow its order.
        self.image_ids: tuple[int, ...] = tuple(int(i) for i in self._eval.params.imgIds)
        self._positions = {image_id: n for n, image_id in enumerate(self.image_ids)}
        self.category_ids: tuple[int, ...] = tuple(int(i) for i in self._eval.params.catIds)
        images, areas = len(self.image_ids), len(self._eval.params.areaRng)
        # (category, area, image) of dicts or None
        self._matches = np.empty((len(self.category_ids), areas, images), dtype=object)
        if self._matches.size:
            self._matches.ravel()[:] = self._eval.evalImgs

    def summary(self, image_ids: Iterable[int]) -> dict[str, float | None]:
        """Return mAP, mAP50, mAP75, mAP_small, mAP_medium, mAP_large and AR of some images.

        Fractions 0..1; None where there is no object of the kind.
        """
        stats = self._accumulated(image_ids).stats
        values = {name: float(stats[i]) for i, name in enumerate(_STATS)}
        values["AR"] = float(stats[_AR_STAT])
        return {name: value if value >= 0 else None for name, value in values.items()}

    def per_class(self, image_ids: Iterable[int]) -> list[dict[str, Any]]:
        """Return AP, AP50 and number of boxes of each class in some images, by category id."""
        wanted = frozenset(image_ids)
        precision = self._accumulated(wanted).eval["precision"]
        boxes = dict.fromkeys(self.category_ids, 0)
        for annotation in self.truth.annotations:
            boxes[annotation["category_id"]] += annotation["image_id"] in wanted
        return [
            {
                "class": self.truth.categories[category],
                "boxes": boxes[category],
                "AP": _mean_precision(precision[:, :, k, _ALL_AREAS, _MOST_DETECTIONS]),
                "AP50": _mean_precision(precision[:1, :, k, _ALL_AREAS, _MOST_DETECTIONS]),
            }
            for k, category in enumerate(self.category_ids)
        ]

    def counts(self, image_ids: Iterable[int], conf: float) -> dict[str, int]:
        """Return tp, fp and fn at a fixed confidence and IoU 0.5 over some images."""
        totals = {"tp": 0, "fp": 0, "fn": 0}
        for image_id in image_ids:
            matches = self.image_matches(image_id, conf)
            totals["tp"] += len(matches.found)
            totals["fp"] += len(matches.false)
            totals["fn"] += len(matches.missed)
        return totals

    def image_matches(self, image_id: int, conf: float) -> ImageMatches:
        """Return what was found, falsely found and missed in one image. Crowds do not count.

        COCOeval matches greedily from the best score down, so leaving out what scores below
        `conf` afterwards is the same as leaving it out before.
        """
        position = self._positions[image_id]
        found: list[Mapping[str, Any]] = []
        false: list[Mapping[str, Any]] = []
        missed: list[Annotation] = []
        for match in self._matches[:, _ALL_AREAS, position]:
            if match is None:
                continue
            matched_objects = set()
            for column, number in enumerate(match["dtIds"]):
                result = self._results[number]
                if result["score"] < conf or match["dtIgnore"][0, column]:
                    continue
                partner = int(match["dtMatches"][0, column])
                (found if partner else false).append(result)
                matched_objects.add(partner)
            missed += [
                self._annotations[number]
                for number, ignored in zip(match["gtIds"], match["gtIgnore"], strict=True)
                if not ignored and number not in matched_objects
            ]
        return ImageMatches(tuple(found), tuple(false), tuple(missed))

    def class_matches(self) -> list[ClassMatches]:
        """Return the matches of each class with objects, in the order of `category_ids`."""
        return [self._class_matches(k) for k in range(len(self.category_ids))]

    def _class_matches(self, category: int) -> ClassMatches:
        per_image = self._matches[category, _ALL_AREAS]
        limit = self._eval.params.maxDets[_MOST_DETECTIONS]
        thresholds = len(self._eval.params.iouThrs)
        scores = [np.zeros(0)]
        index = [np.zeros(0, np.int64)]
        true = [np.zeros((thresholds, 0), bool)]
        ignored = [np.zeros((thresholds, 0), bool)]
        objects = np.zeros(len(per_image), np.int64)
        for position, match in enumerate(per_image):
            if match is None:
                continue
            objects[position] = np.count_nonzero(np.asarray(match["gtIgnore"]) == 0)
            scores.append(np.asarray(match["dtScores"][:limit], dtype=np.float64))
            index.append(np.full(len(scores[-1]), position))
            true.append(match["dtMatches"][:, :limit] > 0)
            ignored.append(match["dtIgnore"][:, :limit].astype(bool))
        order = np.argsort(-np.concatenate(scores), kind="mergesort")
        drop = np.concatenate(ignored, axis=1)[:, order]
        return ClassMatches(
            np.concatenate(index)[order],
            np.concatenate(true, axis=1)[:, order] & ~drop,
            drop,
            objects,
        )

    def _accumulated(self, image_ids: Iterable[int]) -> COCOeval:
        """Run COCOeval's accumulation and summary over the matches of some images only."""
        wanted = frozenset(image_ids)
        positions = [n for n, image_id in enumerate(self.image_ids) if image_id in wanted]
        part = copy.copy(self._eval)
        part.params = copy.copy(self._eval.params)
        part.params.imgIds = [self.image_ids[n] for n in positions]
        part._paramsEval = part.params
        part.evalImgs = list(self._matches[:, :, positions].ravel())
        with contextlib.redirect_stdout(io.StringIO()):
            part.accumulate()
            part.summarize()
        return part


def _coco(truth: GroundTruth, annotations: Iterable[Mapping[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {**truth.to_coco(), "annotations": [dict(a) for a in annotations]}
    coco.createIndex()
    return coco


def _area(bbox: Sequence[float]) -> float:
    return float(bbox[2]) * float(bbox[3])


def _mean_precision(precision: npt.NDArray[np.float64]) -> float | None:
    """Average precisions (..., 101 recalls); -1 marks a class without objects."""
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None
