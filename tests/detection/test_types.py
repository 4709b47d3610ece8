import numpy as np
import pytest
import torch

from detection import Detections
from detection.types import call_derainer
from rainmer.errors import RainmerError


def test_empty_keeps_its_shape():
    empty = Detections([], [], [])

    assert empty.boxes_xyxy.shape == (0, 4)
    assert len(empty) == 0
    assert len(Detections().select(np.zeros(0, bool))) == 0


def test_types_are_fixed():
    detections = Detections([[0, 1, 2, 3]], [0.5], [7.0])

    assert detections.boxes_xyxy.dtype == np.float32
    assert detections.scores.dtype == np.float32
    assert detections.labels.dtype == np.int64


def test_select_keeps_rows_together():
    detections = Detections([[0, 0, 1, 1], [2, 2, 3, 3]], [0.1, 0.9], [4, 5])

    chosen = detections.select(detections.scores > 0.5)

    assert chosen.boxes_xyxy.tolist() == [[2, 2, 3, 3]]
    assert chosen.labels.tolist() == [5]


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "message"),
    [
        ([[0, 0, 1]], [0.5], [1], r"expected boxes \(N, 4\)"),
        ([[0, 0, 1, 1]], [0.5, 0.4], [1], "expected 1 scores and labels"),
        ([[0, 0, 1, np.nan]], [0.5], [1], "finite"),
        ([[0, 0, 1, 1]], [0.5], [-1], "labels start at 0"),
    ],
)
def test_what_does_not_fit_is_refused(boxes, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        Detections(boxes, scores, labels)


@pytest.mark.parametrize(
    ("derain", "frames"),
    [
        (lambda frames: [f[:-1] for f in frames], [np.zeros((4, 6, 3), np.uint8)]),
        (lambda frames: [f / 255 for f in frames], [np.zeros((4, 6, 3), np.uint8)]),
        (lambda frames: frames[:1], [np.zeros((4, 6, 3), np.uint8)] * 2),
        (lambda frames: None, [np.zeros((4, 6, 3), np.uint8)]),
        (lambda frames: frames.float(), torch.zeros(1, 3, 4, 6, dtype=torch.uint8)),
    ],
    ids=["smaller", "float", "fewer", "nothing", "tensor of another type"],
)
def test_derainers_that_break_their_promise_are_named(derain, frames):
    with pytest.raises(RainmerError, match="same kind, size and type"):
        call_derainer(derain, frames, ["a", "b"])
