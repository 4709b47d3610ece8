"""A class with a handful of boxes must not decide a result unseen."""

import dataclasses

import numpy as np
import pytest

from eval.detect.measures import measure
from eval.detect.model import ClassRow, TableRow
from eval.detect.verdicts import decisive_classes
from eval.rows.run import RowSpec
from eval.scores.coco import Evaluation, GroundTruth
from eval.scores.score import Score

# Classes, boxes and changes of AP of a comparison on 97 real photos: without motorcycle a gain.
REAL = {
    "person": (60, 0.014),
    "car": (420, 0.002),
    "bus": (24, 0.012),
    "truck": (45, 0.009),
    "motorcycle": (3, -0.066),
}


def rows_of(classes):
    change = float(np.mean([delta for _, delta in classes.values()]))
    row = TableRow(
        image_set="real",
        condition="all",
        input="derained",
        derainer="rainmer-s",
        change=Score(change, change - 0.01, change + 0.01),
        change_by_boxes=Score(0.004, -0.001, 0.009),
    )
    members = [
        ClassRow(
            condition="all",
            input="derained",
            derainer="rainmer-s",
            class_name=name,
            boxes=boxes,
            change=Score(delta),
        )
        for name, (boxes, delta) in classes.items()
    ]
    return row, members


def test_a_class_with_three_boxes_that_turns_the_sign_is_named():
    row, classes = rows_of(REAL)
    (sentence,) = decisive_classes([row], classes)
    assert sentence == (
        "rainmer-s: the change of mAP, -0.6 points over 5 classes, depends on one class with 3 "
        "boxes, motorcycle (-6.6); without it +0.9, weighted by boxes +0.4 points [-0.1, 0.9]."
    )


@pytest.mark.parametrize(
    "classes",
    [
        pytest.param(REAL | {"motorcycle": (30, -0.066)}, id="enough boxes"),
        pytest.param(REAL | {"motorcycle": (3, 0.011)}, id="like the others"),
        pytest.param({"motorcycle": (3, -0.066)}, id="the only class"),
        pytest.param(REAL | {"motorcycle": (3, -0.037)}, id="no change in all"),
    ],
)
def test_nothing_is_said_where_no_tiny_class_decides(classes):
    row, members = rows_of(classes)
    assert decisive_classes([row], members) == []


def test_controls_are_not_judged():
    row, classes = rows_of(REAL)
    control = dataclasses.replace(row, derainer="median")
    members = [dataclasses.replace(one, derainer="median") for one in classes]
    assert decisive_classes([control], members) == []


def boxes(image_id, category_id, count, start):
    return [
        {
            "id": start + n,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [20.0 * n, 0.0, 10.0, 10.0],
            "area": 100.0,
            "iscrowd": 0,
        }
        for n in range(count)
    ]


def test_each_mean_weighs_the_classes_as_it_says():
    """All 12 cars are found; of 2 bicycles, derained, none."""
    annotations = [*boxes(1, 1, 6, 1), *boxes(2, 1, 6, 7), *boxes(1, 2, 1, 13), *boxes(2, 2, 1, 14)]
    truth = GroundTruth((1, 2), {1: "car", 2: "bicycle"}, tuple(annotations))
    found = [{**a, "score": 0.9} for a in annotations]
    rainy, derained = RowSpec("rainy"), RowSpec("clean")
    rows = {
        rainy: Evaluation(truth, found),
        derained: Evaluation(truth, [d for d in found if d["category_id"] == 1]),
    }
    measures = measure(rows, frozenset({1, 2}), resamples=20, seed=0)
    assert measures.mean_ap.values[derained] == pytest.approx(0.5)
    assert measures.by_boxes.values[derained] == pytest.approx(12 / 14)
    assert measures.common.values[derained] == pytest.approx(1.0)
    assert measures.mean_ar.values[derained] == pytest.approx(0.5)
    change = measures.by_boxes.change(derained, rainy)
    assert change.value == pytest.approx(-2 / 14)
    assert change.low == pytest.approx(-2 / 14)
    assert measures.common.change(derained, rainy) == Score(0.0, 0.0, 0.0)
    assert measures.per_class[1].change(derained, rainy).value == pytest.approx(-1.0)
    few = measure(rows, frozenset({1}), resamples=0, seed=0)
    assert few.common.values[derained] is None
    assert few.mean_ap.change(derained, rainy) == Score(pytest.approx(-0.5))
