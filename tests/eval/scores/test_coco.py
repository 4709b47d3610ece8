"""mAP is pycocotools'; the matches behind it must give the same numbers."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.scores.bootstrap import (
    average_precisions,
    class_precisions,
    class_recalls,
    difference_interval,
    draw_weights,
)
from eval.scores.coco import ClassScore, Counts, Evaluation, GroundTruth
from eval.scores.means import mean_over_classes


def random_case(seed, images=12, classes=4, crowd=0.05):
    """Objects, and detections that are shifted objects and inventions, many of equal score."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image_id in range(images):
        for _ in range(rng.integers(0, 6)):
            left, top, width, height = (float(v) for v in rng.uniform(5, 120, 4))
            label = int(rng.integers(0, classes))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": int(rng.random() < crowd),
                }
            )
            for _ in range(rng.integers(0, 3)):
                noise = rng.normal(0, 6, 2)
                box = [left + noise[0], top + noise[1], width, height]
                score = round(float(rng.random()), 1)
                results.append(
                    {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
                )
        for _ in range(rng.integers(0, 8)):
            box = [float(v) for v in rng.uniform(5, 120, 4)]
            label = int(rng.integers(0, classes + 1))
            score = round(float(rng.random()), 1)
            results.append(
                {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            )
    truth = GroundTruth(
        tuple(range(images)), {i: f"class {i}" for i in range(classes)}, tuple(annotations)
    )
    return truth, results


def pycocotools_stats(truth, results, image_ids):
    """Plain use of the library, as its documentation shows."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth.to_coco()
        coco.createIndex()
        known = [r for r in results if r["category_id"] in truth.categories]
        evaluation = COCOeval(coco, coco.loadRes(known), "bbox")
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_equals_pycocotools_on_all_and_on_some_images(seed):
    truth, results = random_case(seed)
    if not truth.annotations or not any(r["category_id"] in truth.categories for r in results):
        return
    evaluation = Evaluation(truth, results)
    some = [i for i in truth.image_ids if i % 3]
    for image_ids in (truth.image_ids, some):
        stats = pycocotools_stats(truth, results, image_ids)
        ours = evaluation.summary(image_ids)
        values = [
            ours[name]
            for name in ("mAP", "mAP50", "mAP75", "mAP_small", "mAP_medium", "mAP_large", "AR")
        ]
        theirs = [v if v >= 0 else None for v in [*stats[:6], stats[8]]]
        assert values == pytest.approx(theirs, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_matches_give_the_same_map(seed):
    truth, results = random_case(seed)
    if not any(not a["iscrowd"] for a in truth.annotations):
        return
    evaluation = Evaluation(truth, results)
    some = np.array([float(i % 3 > 0) for i in evaluation.image_ids])
    weights = np.stack([np.ones_like(some), some])
    whole, part = average_precisions(evaluation.class_matches(), weights)
    assert whole == pytest.approx(evaluation.summary(truth.image_ids)["mAP"], abs=1e-12)
    expected = evaluation.summary([i for i in truth.image_ids if i % 3])["mAP"]
    assert np.isnan(part) if expected is None else part == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_matches_give_the_same_ap_and_recall_of_each_class(seed):
    truth, results = random_case(seed)
    if not any(not a["iscrowd"] for a in truth.annotations):
        return
    evaluation = Evaluation(truth, results)
    classes = evaluation.class_matches()
    weights = np.ones((1, len(evaluation.image_ids)))
    expected = [score.ap for score in evaluation.per_class(truth.image_ids)]
    ours = class_precisions(classes, weights)[0]
    assert [None if np.isnan(ap) else pytest.approx(ap, abs=1e-12) for ap in ours] == expected
    recall = mean_over_classes(class_recalls(classes, weights))[0]
    assert recall == pytest.approx(evaluation.summary(truth.image_ids)["AR"], abs=1e-12)


def test_an_image_that_counts_twice_equals_two_such_images():
    truth, results = random_case(3, images=5, crowd=0)
    double = GroundTruth(
        tuple(range(10)),
        truth.categories,
        tuple(
            {**a, "image_id": a["image_id"] + shift, "id": a["id"] + 1000 * (shift > 0)}
            for shift in (0, 5)
            for a in truth.annotations
        ),
    )
    results = [{**r, "score": r["score"] + i / 1e4} for i, r in enumerate(results)]
    doubled = [{**r, "image_id": r["image_id"] + s} for s in (0, 5) for r in results]
    classes = Evaluation(truth, results).class_matches()
    weighted = average_precisions(classes, np.full((1, 5), 2.0))[0]
    assert weighted == pytest.approx(
        Evaluation(double, doubled).summary(range(10))["mAP"], abs=0.02
    )


def test_no_detections_at_all():
    truth, _ = random_case(1)
    evaluation = Evaluation(truth, [])
    assert evaluation.summary(truth.image_ids)["mAP"] == 0.0
    objects = sum(not a["iscrowd"] for a in truth.annotations)
    assert evaluation.counts(truth.image_ids, 0.25) == Counts(tp=0, fp=0, fn=objects)


def test_counts_and_marks_of_a_hand_made_image():
    truth = GroundTruth(
        (7,),
        {1: "car"},
        (
            {
                "id": 1,
                "image_id": 7,
                "category_id": 1,
                "bbox": [0, 0, 10, 10],
                "area": 100,
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 1,
                "bbox": [50, 0, 10, 10],
                "area": 100,
                "iscrowd": 0,
            },
        ),
    )
    results = [
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 9], "score": 0.9},  # found
        {"image_id": 7, "category_id": 1, "bbox": [0, 1, 10, 9], "score": 0.8},  # duplicate
        {"image_id": 7, "category_id": 1, "bbox": [50, 0, 10, 10], "score": 0.2},  # too unsure
        {"image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 10], "score": 0.9},  # unknown class
    ]
    evaluation = Evaluation(truth, results)
    assert evaluation.counts([7], 0.25) == Counts(tp=1, fp=1, fn=1)
    matches = evaluation.image_matches(7, 0.25)
    assert [r["score"] for r in matches.found] == [0.9]
    assert [r["score"] for r in matches.false] == [0.8]
    assert [a["id"] for a in matches.missed] == [2]
    assert evaluation.counts([7], 0.1) == Counts(tp=2, fp=1, fn=0)
    assert evaluation.per_class([7]) == [
        ClassScore(
            name="car",
            boxes=2,
            ap=pytest.approx(5 / 6, abs=0.08),
            ap50=pytest.approx(5 / 6, abs=0.01),
        )
    ]


def test_weights_draw_as_many_images_as_there_are():
    weights = draw_weights(9, 50, seed=3)
    assert (weights.sum(axis=1) == 9).all()
    np.testing.assert_array_equal(weights, draw_weights(9, 50, seed=3))
    assert (weights != draw_weights(9, 50, seed=4)).any()


def test_interval_of_equal_rows_is_zero_and_of_a_better_row_positive():
    truth, results = random_case(5, images=30)
    rainy = [r for i, r in enumerate(results) if i % 2]
    weights = draw_weights(30, 400, seed=0)
    few = average_precisions(Evaluation(truth, rainy).class_matches(), weights)
    perfect = [
        {k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for a in truth.annotations
    ]
    all_found = average_precisions(Evaluation(truth, perfect).class_matches(), weights)
    assert difference_interval(few, few) == (0.0, 0.0)
    low, high = difference_interval(all_found, few)
    assert 0 < low < high <= 1
    assert difference_interval(few[:1], few[:1]) is None
