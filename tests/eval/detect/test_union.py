"""The union of two rows by class-wise NMS."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.detect.union import class_wise_nms, unite_runs
from eval.rows.run import ImageResult


def box(left, score, label=0, width=10.0):
    return [float(left), 0.0, width, 10.0, score, label]


def test_of_two_boxes_of_one_thing_the_better_one_stays():
    boxes = [box(0, 0.5), box(1, 0.9), box(40, 0.1)]  # IoU 9 / 11
    assert class_wise_nms(boxes, 0.7, 300) == [boxes[1], boxes[2]]


def test_classes_do_not_suppress_each_other():
    boxes = [box(0, 0.9, 0), box(0, 0.5, 1)]
    assert class_wise_nms(boxes, 0.7, 300) == boxes


def test_an_overlap_of_just_the_threshold_stays():
    boxes = [box(0, 0.9), box(0, 0.5, width=5.0)]
    assert class_wise_nms(boxes, 0.5, 300) == boxes
    assert class_wise_nms(boxes, 0.499, 300) == boxes[:1]


def test_what_is_suppressed_suppresses_nothing():
    boxes = [box(0, 0.9), box(4, 0.8), box(8, 0.7)]  # neighbours have IoU 6 / 14, ends 2 / 18
    assert class_wise_nms(boxes, 0.3, 300) == [boxes[0], boxes[2]]


def test_among_equals_the_first_stays_and_the_limit_counts_all_classes():
    boxes = [box(0, 0.5), box(0, 0.5, width=9.0), box(40, 0.5, 1), box(80, 0.4)]
    assert class_wise_nms(boxes, 0.7, 2) == [boxes[0], boxes[2]]
    assert class_wise_nms([], 0.7, 300) == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(5, 40), st.integers(0, 2), st.integers(1, 1000)),
        max_size=30,
        unique_by=lambda item: item[3],
    )
)
def test_equals_the_nms_of_the_detector(items):
    from ultralytics.utils.nms import TorchNMS

    boxes = [box(left, score / 1000, label, float(width)) for left, width, label, score in items]
    tensor = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 6)
    xyxy = torch.cat([tensor[:, :2], tensor[:, :2] + tensor[:, 2:4]], dim=1)
    shifted = xyxy + 1000.0 * tensor[:, 5:]
    kept = TorchNMS.nms(shifted, tensor[:, 4], 0.6183) if boxes else []
    assert class_wise_nms(boxes, 0.6183, 300) == [boxes[int(i)] for i in kept]


def test_runs_unite_image_by_image():
    rainy = {
        1: ImageResult(1, [box(0, 0.9)], detect_ms=5.0, scores={"psnr": 20.0}),
        2: ImageResult(2, error="torn"),
        3: ImageResult(3, [], detect_ms=5.0),
    }
    derained = {
        1: ImageResult(1, [box(0, 0.8), box(40, 0.3)], derain_ms=7.0, detect_ms=6.0),
        2: ImageResult(2, []),
        3: ImageResult(3, [box(0, 0.2)], derain_ms=None, detect_ms=6.0),
    }
    united = unite_runs(rainy, derained, iou_threshold=0.7, max_det=300)
    assert united[1] == ImageResult(
        1, [box(0, 0.9), box(40, 0.3)], derain_ms=7.0, detect_ms=pytest.approx(11.0)
    )
    assert united[2].error == "torn"
    assert united[3].boxes == [box(0, 0.2)]
    assert united[3].derain_ms is None
