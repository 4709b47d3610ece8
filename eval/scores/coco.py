"""mAP by pycocotools' COCOeval, and the matches behind it.

COCOeval matches detections to objects once per row. Its own `accumulate` then gives the numbers of
each condition, and the matches serve the counts, the marks of picture strips, and the bootstrap.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rainmer.data.annotations.records import Annotation

__all__ = [
    "AREAS",
    "ClassMatches",
    "ClassScore",
    "Counts",
    "Evaluation",
    "GradedDetections",
    "GroundTruth",
    "ImageMatches",
]

FloatArray = npt.NDArray[np.float64]

AREAS = ("all", "small", "medium", "large")
"""COCO's area ranges: small is below 32x32 pixels, large above 96x96."""

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
    """How the boxes of one image were matched, at a fixed confidence and IoU 0.5.

    `found`, `false` and `ignored` (they lie on crowds) are detections: COCO results with an `id`
    that numbers the row's results from 1. `found_objects`, in the order of `found`, and `missed`
    are annotations.
    """

    found: tuple[Mapping[str, Any], ...]
    false: tuple[Mapping[str, Any], ...]
    missed: tuple[Annotation, ...]
    found_objects: tuple[Annotation, ...]
    ignored: tuple[Mapping[str, Any], ...]


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


@dataclass(frozen=True)
class GradedDetections:
    """All detections of all classes at IoU 0.5, those on crowds left out.

    Attributes:
        image_index: (D,) position in `Evaluation.image_ids` of each detection's image.
        scores: (D,) confidences, 0..1.
        correct: (D,) bool: whether it finds an object.
        objects: (I,) number of objects in each image.
    """

    image_index: npt.NDArray[np.int64]
    scores: FloatArray
    correct: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassScore:
    """AP of one class in some images, as fractions 0..1; None without objects.

    Attributes:
        name: The class.
        boxes: Number of its objects.
        ap: AP over IoU 0.50 to 0.95.
        ap50: AP at IoU 0.50.
    """

    name: str
    boxes: int
    ap: float | None
    ap50: float | None


@dataclass(frozen=True)
class Counts:
    """Detections and objects of some images at a fixed confidence and IoU 0.5.

    Attributes:
        tp: Objects found.
        fp: False detections.
        fn: Objects missed.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    @property
    def precision(self) -> float | None:
        """Share of the detections that are correct, 0..1; None without detections."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """Share of the objects that are found, 0..1; None without objects."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None


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
        self._objects: dict[tuple[int, int], list[Annotation]] = {}
        for annotation in truth.annotations:
            self._objects.setdefault(_pair(annotation), []).append(annotation)
        # Categories without objects have no AP; leaving them out changes no number.
        present = sorted({a["category_id"] for a in truth.annotations})
        self._eval = _matched(truth, self._results.values(), present)
        # COCOeval sorts and makes unique what it is given; positions follow its order.
        self.image_ids: tuple[int, ...] = tuple(int(i) for i in self._eval.params.imgIds)
        self._positions = {image_id: n for n, image_id in enumerate(self.image_ids)}
        self.category_ids: tuple[int, ...] = tuple(int(i) for i in self._eval.params.catIds)
        self._matches = _match_table(self._eval)
        self._scores: dict[frozenset[int], _Scores] = {}

    def summary(self, image_ids: Iterable[int]) -> dict[str, float | None]:
        """Return mAP, mAP50, mAP75, mAP_small, mAP_medium, mAP_large and AR of some images.

        Fractions 0..1; None where there is no object of the kind.
        """
        stats = self._scores_of(frozenset(image_ids)).stats
        values = {name: float(stats[i]) for i, name in enumerate(_STATS)}
        values["AR"] = float(stats[_AR_STAT])
        return {name: value if value >= 0 else None for name, value in values.items()}

    def per_class(self, image_ids: Iterable[int]) -> list[ClassScore]:
        """Return the scores of each class in some images, by category id."""
        wanted = frozenset(image_ids)
        precision = self._scores_of(wanted).precision[:, :, _ALL_AREAS]
        boxes = dict.fromkeys(self.category_ids, 0)
        for annotation in self.truth.annotations:
            boxes[annotation["category_id"]] += annotation["image_id"] in wanted
        return [
            ClassScore(
                name=self.truth.categories[category],
                boxes=boxes[category],
                ap=_defined(precision[:, k].mean()),
                ap50=_defined(precision[0, k]),
            )
            for k, category in enumerate(self.category_ids)
        ]

    def ap50(self, image_ids: Iterable[int]) -> FloatArray:
        """Return AP at IoU 0.5 in some images, fractions 0..1, by class and area.

        Returns:
            (K, 4): classes as `category_ids`, areas as `AREAS`; NaN where there is no object.
        """
        precision: FloatArray = self._scores_of(frozenset(image_ids)).precision[0].copy()
        return precision

    def corrected_ap50(
        self,
        results: Iterable[Mapping[str, Any]],
        removed: Collection[int],
        groups: Sequence[Iterable[int]],
    ) -> list[FloatArray]:
        """Compute AP at IoU 0.5 of a corrected version of this row.

        Matches of a class in an image where nothing was corrected are kept; COCOeval matches the
        others again.

        Args:
            results: Detections of `image_matches`, the same objects or corrected copies, in order
                of their `id`. Those left out do not count.
            removed: Ids of objects that do not count.
            groups: Image ids of each group of images to score.

        Returns:
            For each group (K, 4), as `ap50`.
        """
        by_pair: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
        changed = {_pair(self._annotations[number]) for number in removed}
        kept = set()
        for result in results:
            by_pair.setdefault(_pair(result), []).append(result)
            if result is self._results[result["id"]]:
                kept.add(result["id"])
            else:
                changed.add(_pair(result))
        changed |= {_pair(result) for n, result in self._results.items() if n not in kept}
        part = _at_half_iou(self._eval)
        table = self._half_iou_matches.copy()
        for k, category in enumerate(self.category_ids):
            images = sorted(image_id for image_id, other in changed if other == category)
            if images:
                objects = [a for i in images for a in self._objects.get((i, category), ())]
                truth = GroundTruth(
                    tuple(images),
                    self.truth.categories,
                    tuple(a for a in objects if a["id"] not in removed),
                )
                detections = [r for i in images for r in by_pair.get((i, category), ())]
                again = _matched(truth, _with_areas(detections), [category], only_ap50=True)
                table[k][:, [self._positions[i] for i in images]] = _match_table(again)[0]
        return [_mean_precision(_accumulated(part, table, frozenset(g)))[0] for g in groups]

    @cached_property
    def _half_iou_matches(self) -> npt.NDArray[np.object_]:
        """The table of matches at IoU 0.5 alone."""
        table = np.empty_like(self._matches)
        for place, match in np.ndenumerate(self._matches):
            if match is not None:
                at_half = {key: match[key][:1] for key in ("dtMatches", "dtIgnore")}
                table[place] = {**match, **at_half}
        return table

    def counts(self, image_ids: Iterable[int], conf: float) -> Counts:
        """Count detections and objects of some images at a fixed confidence and IoU 0.5."""
        matches = [self.image_matches(image_id, conf) for image_id in image_ids]
        return Counts(
            tp=sum(len(image.found) for image in matches),
            fp=sum(len(image.false) for image in matches),
            fn=sum(len(image.missed) for image in matches),
        )

    def image_matches(self, image_id: int, conf: float) -> ImageMatches:
        """Return the found, false and missed boxes of one image. Crowds do not count.

        COCOeval matches greedily from the best score down, so leaving out what scores below
        `conf` afterwards is the same as leaving it out before.
        """
        position = self._positions[image_id]
        found: list[Mapping[str, Any]] = []
        false: list[Mapping[str, Any]] = []
        ignored: list[Mapping[str, Any]] = []
        found_objects: list[Annotation] = []
        missed: list[Annotation] = []
        for match in self._matches[:, _ALL_AREAS, position]:
            if match is None:
                continue
            matched_objects = set()
            for column, number in enumerate(match["dtIds"]):
                result = self._results[number]
                if result["score"] < conf:
                    continue
                partner = int(match["dtMatches"][0, column])
                if match["dtIgnore"][0, column]:
                    ignored.append(result)
                elif partner:
                    found.append(result)
                    found_objects.append(self._annotations[partner])
                    matched_objects.add(partner)
                else:
                    false.append(result)
            missed += [
                self._annotations[number]
                for number, is_crowd in zip(match["gtIds"], match["gtIgnore"], strict=True)
                if not is_crowd and number not in matched_objects
            ]
        return ImageMatches(
            tuple(found), tuple(false), tuple(missed), tuple(found_objects), tuple(ignored)
        )

    def graded(self) -> GradedDetections:
        """Return every detection with its score, correct or false as in `image_matches`."""
        index, scores, correct = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, bool)]
        objects = np.zeros(len(self.image_ids), np.int64)
        for (_, position), match in np.ndenumerate(self._matches[:, _ALL_AREAS]):
            if match is not None:
                objects[position] += np.count_nonzero(np.asarray(match["gtIgnore"]) == 0)
                counts = ~match["dtIgnore"][0].astype(bool)
                scores.append(np.asarray(match["dtScores"], dtype=np.float64)[counts])
                correct.append(match["dtMatches"][0][counts] > 0)
                index.append(np.full(len(scores[-1]), position))
        return GradedDetections(
            np.concatenate(index), np.concatenate(scores), np.concatenate(correct), objects
        )

    def class_matches(self) -> list[ClassMatches]:
        """Return the matches of each class with objects, in the order of `category_ids`.

        They are collected at the first call only.
        """
        return self._all_class_matches

    @cached_property
    def _all_class_matches(self) -> list[ClassMatches]:
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

    def _scores_of(self, image_ids: frozenset[int]) -> _Scores:
        """Return the scores of some images, accumulated at the first call only."""
        if image_ids not in self._scores:
            part = _accumulated(self._eval, self._matches, image_ids)
            with contextlib.redirect_stdout(io.StringIO()):
                part.summarize()
            self._scores[image_ids] = _Scores(part.stats, _mean_precision(part))
        return self._scores[image_ids]


@dataclass(frozen=True)
class _Scores:
    """COCOeval's numbers for some images.

    Attributes:
        stats: (12,) of its summary; -1 where undefined.
        precision: (T, K, 4): AP per IoU threshold, class and area at 100 detections; NaN where
            there is no object.
    """

    stats: FloatArray
    precision: FloatArray


def _matched(
    truth: GroundTruth,
    results: Iterable[Mapping[str, Any]],
    category_ids: Sequence[int],
    *,
    only_ap50: bool = False,
) -> COCOeval:
    """Run COCOeval's matching; with `only_ap50` at the one IoU and limit that AP50 needs."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(truth, truth.annotations), _coco(truth, results), "bbox")
        evaluation.params.imgIds = list(truth.image_ids)
        evaluation.params.catIds = list(category_ids)
        if only_ap50:
            evaluation = _at_half_iou(evaluation)
        evaluation.evaluate()
    return evaluation


def _at_half_iou(evaluation: COCOeval) -> COCOeval:
    """Return a copy whose parameters hold the one IoU and limit of detections of AP50."""
    part = copy.copy(evaluation)
    part.params = copy.copy(evaluation.params)
    part.params.iouThrs = evaluation.params.iouThrs[:1]
    part.params.maxDets = evaluation.params.maxDets[_MOST_DETECTIONS:]
    return part


def _match_table(evaluation: COCOeval) -> npt.NDArray[np.object_]:
    """Return COCOeval's matches as (category, area, image) of dicts or None."""
    params = evaluation.params
    table = np.empty((len(params.catIds), len(params.areaRng), len(params.imgIds)), dtype=object)
    if table.size:
        table.ravel()[:] = evaluation.evalImgs
    return table


def _accumulated(
    evaluation: COCOeval, matches: npt.NDArray[np.object_], image_ids: frozenset[int]
) -> COCOeval:
    """Run COCOeval's accumulation over the matches of some images only."""
    positions = [n for n, image_id in enumerate(evaluation.params.imgIds) if image_id in image_ids]
    part = copy.copy(evaluation)
    part.params = copy.copy(evaluation.params)
    part.params.imgIds = [evaluation.params.imgIds[n] for n in positions]
    part._paramsEval = part.params
    part.evalImgs = list(matches[:, :, positions].ravel())
    with contextlib.redirect_stdout(io.StringIO()):
        part.accumulate()
    return part


def _coco(truth: GroundTruth, annotations: Iterable[Mapping[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {**truth.to_coco(), "annotations": [dict(a) for a in annotations]}
    coco.createIndex()
    return coco


def _pair(item: Mapping[str, Any]) -> tuple[int, int]:
    return item["image_id"], item["category_id"]


def _with_areas(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**result, "area": _area(result["bbox"])} for result in results]


def _area(bbox: Sequence[float]) -> float:
    return float(bbox[2]) * float(bbox[3])


def _mean_precision(evaluation: COCOeval) -> FloatArray:
    """Return AP (T, K, areas) at the most detections; COCOeval's -1 becomes NaN."""
    precision: FloatArray = evaluation.eval["precision"][..., _MOST_DETECTIONS].mean(axis=1)
    precision[precision < 0] = np.nan
    return precision


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
