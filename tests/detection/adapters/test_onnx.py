"""Detectors in ONNX files: layouts of outputs, names of classes, and files that do not fit."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detection.adapters.onnx_yolo import placed
from detection.specs import load_detector, load_measured
from detection.types import Detections
from detection.yolo.rectangles import Rectangles, stack
from rainmer.errors import RainmerError
from tests.detection.adapters.conftest import FRAMES, SIZES, assert_same, onnx_detector

pytest.importorskip("onnxruntime")
NAMES = {"names": "{0: 'car', 1: 'bus', 2: 'dog'}"}
# Center, size in pixels of the input (64 x 64): a car, the same car again, and a bus.
BOXES = np.array([[20, 30, 16, 12], [21, 30, 16, 12], [44, 32, 20, 40.0]])
SCORES = np.array([[0.9, 0.01, 0], [0.6, 0, 0.3], [0, 0.8, 0]])


def v8():
    return np.pad(np.concatenate([BOXES, SCORES], axis=1).T, ((0, 0), (0, 97)))


def v5():
    rows = np.concatenate([BOXES, np.full((3, 1), 0.5), SCORES * 2], axis=1)
    return np.pad(rows, ((0, 97), (0, 0)))


def v10():
    corners = np.concatenate([BOXES[:, :2] - BOXES[:, 2:] / 2, BOXES[:, :2] + BOXES[:, 2:] / 2], 1)
    return np.concatenate([corners, SCORES.max(1)[:, None], SCORES.argmax(1)[:, None]], axis=1)


def square(spec, **options):
    """Detect in a square frame twice the size of the input."""
    detector = load_detector(spec, "cpu", **options)
    return detector, detector([np.zeros((128, 128, 3), np.uint8)])[0]


@pytest.mark.parametrize(
    ("kind", "rows"),
    [("yolo", v8()), ("yolov8", v8()), ("yolo", v5()), ("yolov5", v5())],
)
def test_what_overlaps_is_suppressed_by_class(tmp_path, kind, rows):
    file = onnx_detector(tmp_path / "a.onnx", {"output0": rows}, metadata=NAMES)
    detector, found = square(f"onnx-{kind}:{file}")
    assert (detector.names, detector.imgsz) == ({0: "car", 1: "bus", 2: "dog"}, 64)
    scale = 2
    wanted = np.array([[12, 24, 28, 36], [34, 12, 54, 52], [13, 24, 29, 36]]) * scale
    np.testing.assert_allclose(found.boxes_xyxy, wanted, atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.3], atol=1e-6)
    assert found.labels.tolist() == [0, 1, 2]
    detector.classes = [1]
    (only,) = detector([np.zeros((128, 128, 3), np.uint8)])
    assert only.labels.tolist() == [1]


def test_a_head_that_chooses_itself_is_left_alone(tmp_path):
    file = onnx_detector(tmp_path / "a.onnx", {"output0": v10()}, metadata=NAMES)
    detector, found = square(f"onnx-yolo:{file}")
    assert detector.iou is None
    assert found.labels.tolist() == [0, 1, 0]


def test_boxes_return_through_the_letterbox(tmp_path):
    """A frame twice as wide as high lies in the middle of its input."""
    file = onnx_detector(tmp_path / "a.onnx", {"output0": v10()}, metadata=NAMES)
    (found,) = load_detector(f"onnx-yolo:{file}", "cpu")([np.zeros((64, 128, 3), np.uint8)])
    np.testing.assert_allclose(found.boxes_xyxy[0], [24, 16, 56, 40], atol=1e-3)
    assert found.boxes_xyxy[1].tolist() == [68, 0, 108, 64]  # clipped to the frame


@pytest.mark.parametrize("softmax", [False, True])
def test_logits_and_boxes_are_read(tmp_path, softmax):
    logits = np.log(np.pad(SCORES, ((0, 0), (0, int(softmax))), constant_values=0.05) + 1e-6)
    outputs = {"logits": logits if softmax else logits - np.log1p(-np.exp(logits)),
               "pred_boxes": BOXES / 64}  # fmt: skip
    file = onnx_detector(tmp_path / "a.onnx", outputs, metadata=NAMES)
    kind = "onnx-detr-softmax" if softmax else "onnx-detr"
    _, found = square(f"{kind}:{file}")
    shares = SCORES / (SCORES.sum(axis=1, keepdims=True) + 0.05) if softmax else SCORES
    order = np.argsort(-shares.max(axis=1))
    wanted = np.array([[12, 24, 28, 36], [13, 24, 29, 36], [34, 12, 54, 52]]) * 2
    np.testing.assert_allclose(found.boxes_xyxy, wanted[order], atol=1e-3)
    np.testing.assert_allclose(found.scores, shares.max(axis=1)[order], atol=1e-4)
    assert found.labels.tolist() == SCORES.argmax(axis=1)[order].tolist()
    other = "onnx-detr" if softmax else "onnx-detr-softmax"
    with pytest.raises(RainmerError, match=f"3 classes go up to number 2: say {kind}:"):
        load_detector(f"{other}:{file}", "cpu")


def test_a_detr_of_transformers_gives_in_a_file_what_it_gives_itself(tmp_path, detr):
    """With its configuration beside the file."""
    transformers = pytest.importorskip("transformers")
    network = transformers.AutoModelForObjectDetection.from_pretrained(
        detr, attn_implementation="eager"
    )

    class Exported(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            outputs = self.network(pixel_values=images)
            return outputs.logits, outputs.pred_boxes

    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text((detr / name).read_text())
    torch.onnx.export(
        Exported(), (torch.rand(1, 3, 64, 96),), tmp_path / "model.onnx", dynamo=False,
        output_names=["logits", "pred_boxes"],
    )  # fmt: skip
    harness = load_measured(f"onnx-detr-softmax:{tmp_path / 'model.onnx'}", "cpu")
    native = load_measured(f"hf:{detr}", "cpu")
    frame = np.ascontiguousarray(np.resize(FRAMES[0], (64, 96, 3)))  # needs no resizing
    ours, theirs = (h.detect_fitted([frame], [SIZES[0]], (64, 96))[0] for h in (harness, native))
    assert_same(ours, (theirs.boxes_xyxy, theirs.scores, theirs.labels))


def decode(outputs, input_hw):
    assert input_hw == (64, 64)
    return [(rows[:, :4], rows[:, 4], rows[:, 5]) for rows in outputs["mine"]]


def test_other_outputs_have_a_decoder(tmp_path):
    file = onnx_detector(tmp_path / "a:b.onnx", {"mine": v10()}, metadata=NAMES)
    spec = f"onnx:{file}:python:{__name__}:decode"
    detector, found = square(spec)
    assert detector.name == "a:b"
    assert found.labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.boxes_xyxy[0], [24, 48, 56, 72], atol=1e-3)


@pytest.mark.parametrize(
    ("spec", "outputs", "more", "message"),
    [
        ("onnx-yolo:none.onnx", None, {}, "no file none.onnx"),
        ("onnx-yolo:{}", {"a": np.zeros((5, 5))}, {}, "not that of a YOLO"),
        ("onnx-yolov10:{}", {"a": v8()}, {}, "not that of a YOLOv10"),
        ("onnx-yolov5:{}", {"a": v8()}, {}, "not that of a YOLOv5"),
        ("onnx-yolo:{}", {"a": v8(), "b": BOXES}, {}, "as a DETR: say onnx-detr:"),
        ("onnx-yolo:{}", {"a": np.zeros((7, 90))}, {"metadata": {}}, "does not name its 3 classes"),
        ("onnx-yolo:{}", {"a": v8() * np.nan}, {}, "not finite"),
        ("onnx-yolo:{}", {"a": v8()}, {"inputs": ["b", 1, 64, 64]}, "expected an input of RGB"),
        ("onnx-yolo:{}", {"a": v10()}, {"metadata": NAMES | {"task": "obb"}}, "no upright boxes"),
        (
            "onnx-yolo:{}",
            {"a": v10()},
            {"metadata": NAMES | {"head": "RTDETRDecoder"}},
            "is an RT-DETR: say onnx-detr:",
        ),
        ("onnx-detr:{}", {"a": v8()}, {}, "not those of a DETR.*for a YOLO say onnx-yolo:"),
        ("onnx:{}", {"a": v8()}, {}, "does not say what its outputs mean: onnx-yolo:"),
        ("onnx:{}:python:nowhere:decode", {"a": v8()}, {}, "No module named 'nowhere'"),
        ("onnx:{}:python:json:dumps", {"a": v8()}, {"metadata": {}}, "names no classes"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, spec, outputs, more, message):
    options = {"metadata": NAMES, **more}
    file = tmp_path / "file.onnx"
    if outputs is not None:
        onnx_detector(file, outputs, **options)
    with pytest.raises(RainmerError, match=message) as raised:
        square(spec.format(file))
    assert "\n" not in str(raised.value)


def test_what_is_no_onnx_file_and_sizes_that_are_fixed(tmp_path):
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(RainmerError, match=r"text\.onnx is not an ONNX file that can be run"):
        load_detector(f"onnx-detr:{tmp_path / 'text.onnx'}", "cpu")
    file = onnx_detector(tmp_path / "a.onnx", {"output0": v8()}, metadata=NAMES)
    with pytest.raises(RainmerError, match="64 px only: leave out --imgsz 640"):
        load_detector(f"onnx-yolo:{file}", "cpu", imgsz=640)


class Finder:
    """A detector of one's own: the brightest pixel."""

    names = ["dark", "bright"]  # noqa: RUF012
    fingerprint = "1"

    def __call__(self, frames):
        return [Detections([[0, 0, *frame.shape[1::-1]]], [0.5], [1]) for frame in frames]


class Halves(Finder):
    def size_hw(self, frame_hw):
        return frame_hw[0] // 2, frame_hw[1] // 2


def wrong(frames):
    return [([1, 2, 3], [1], [1])] * len(frames)


wrong.names = {0: "thing"}


def test_a_callable_is_a_detector():
    for kind in ("Finder", "Halves"):
        detector = load_measured(f"python:{__name__}:{kind}", "cpu")
        found = detector(FRAMES)
        assert [f.boxes_xyxy[0].tolist() for f in found] == [[0, 0, w, h] for h, w in SIZES]
        assert detector.fingerprint == load_measured(f"python:{__name__}:{kind}", "cpu").fingerprint
    assert detector.fit(FRAMES[:1], detector.input_hw(SIZES[0]))[0].shape == (30, 45, 3)
    with pytest.raises(RainmerError, match=r"must return Detections, or boxes \(N, 4\)"):
        load_detector(f"python:{__name__}:wrong", "cpu")(FRAMES)
    with pytest.raises(RainmerError, match="names no classes"):
        load_detector("python:json:dumps", "cpu")


def test_names_beside_a_file(tmp_path):
    file = onnx_detector(tmp_path / "a.onnx", {"output0": v8()}, metadata={})
    (tmp_path / "a.onnx.names").write_text("x\ny\nz\n")
    assert load_detector(f"onnx-yolo:{file}", "cpu").names == {0: "x", 1: "y", 2: "z"}
    (tmp_path / "a.onnx.names").write_text("x\n")
    with pytest.raises(RainmerError, match="names 1 classes, but"):
        load_detector(f"onnx-yolo:{file}", "cpu")
    (tmp_path / "a.onnx.names").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "p", "1": "q", "2": "r"}}))
    assert load_detector(f"onnx-yolo:{file}", "cpu").names == {0: "p", 1: "q", 2: "r"}


@given(st.integers(8, 400), st.integers(8, 400), st.sampled_from([64, 96]), st.booleans())
def test_a_fitted_frame_lies_where_the_letterbox_puts_it(height, width, imgsz, square):
    """Whatever its shape: from the fitted frame alone the place in the input is known."""
    inputs = Rectangles(imgsz, 32, 2, square=square)
    frame = np.zeros((height, width, 3), np.uint8)
    (batch,) = inputs.plan([(height, width)])
    place = inputs.place((height, width), batch.input_hw)
    fitted = inputs.fit(frame, batch.input_hw)
    assert placed(fitted, batch.input_hw) == place
    rows, columns = place.content
    assert 0 <= rows.start < rows.stop <= batch.input_hw[0]
    assert 0 <= columns.start < columns.stop <= batch.input_hw[1]
    assert stack([fitted], [place], 2).shape == (2, *batch.input_hw, 3)
