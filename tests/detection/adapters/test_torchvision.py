"""Detectors of torchvision: what the library gives, and files that do not fit."""

import numpy as np
import pytest
import torch

from detection.specs import load_detector, load_measured
from rainmer.errors import SpecError, WeightsError
from tests.detection.adapters.conftest import FRAMES, SIZES, assert_same

torchvision = pytest.importorskip("torchvision")
MODEL = "ssdlite320_mobilenet_v3_large"


def spec(file, model=MODEL):
    return f"torchvision:{model}:{file}"


def direct(network, frame, kept):
    """Call the model itself, as its documentation does."""
    image = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        (found,) = network.eval()([image])
    named = [i for i, label in enumerate(found["labels"].tolist()) if label in kept]
    return [found[key][named].numpy() for key in ("boxes", "scores", "labels")]


def test_boxes_are_those_of_the_model_itself(ssdlite):
    detector = load_detector(spec(ssdlite), "cpu", conf=0.01, max_det=400)
    network = torchvision.models.get_model(
        MODEL, weights=None, weights_backbone=None, score_thresh=0.01, detections_per_img=400
    )
    network.load_state_dict(torch.load(ssdlite, weights_only=True))
    assert detector.names[1] == "person"
    assert detector.names[90] == "toothbrush"
    assert len(detector.names) == 80
    for frame, found in zip(FRAMES, detector(FRAMES), strict=True):
        assert_same(found, direct(network, frame, detector.names))


def test_frames_of_any_shape_equal_those_of_a_network_that_keeps_the_ratio(tmp_path):
    """The sides that torchvision rounds are those of its own resizing; BatchNorm or frozen."""
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=3)
    network.transform.min_size, network.transform.max_size = (128,), 128
    network.roi_heads.score_thresh = 0.1
    file = tmp_path / "weights.pth"
    torch.save({"model": network.state_dict(), "epoch": 3}, file)
    (tmp_path / "weights.pth.names").write_text("car\nbus\n")
    detector = load_detector(spec(file, name), "cpu", conf=0.1, imgsz=128)
    assert detector.names == {1: "car", 2: "bus"}
    for frame, found in zip(FRAMES, detector(FRAMES), strict=True):
        assert_same(found, direct(network, frame, detector.names))


def test_measuring_rounds_to_8_bits_and_else_is_the_same(ssdlite):
    harness = load_measured(spec(ssdlite), "cpu")
    plan = harness.plan(SIZES)
    assert [(batch.indices, batch.input_hw) for batch in plan] == [((0, 1, 2), (320, 320))]
    fitted = harness.fit(FRAMES, (320, 320))
    assert {frame.shape for frame in fitted} == {(320, 320, 3)}
    found = harness.detect_fitted(fitted, SIZES, (320, 320))
    alone = harness(FRAMES)
    for ours, theirs, (height, width) in zip(found, alone, SIZES, strict=True):
        assert len(ours) > 100
        assert (ours.boxes_xyxy <= [width, height, width, height]).all()
        np.testing.assert_allclose(ours.scores[:20], theirs.scores[:20], atol=5e-3)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("torchvision:ssdlite320_mobilenet:{}", SpecError, f"did you mean {MODEL}"),
        (f"torchvision:{MODEL}", WeightsError, "needs its weights.*--allow-download"),
        (f"torchvision:{MODEL}:none.pth", WeightsError, r"none\.pth"),
        ("torchvision:ssd300_vgg16:{}", WeightsError, "weights of another model than ssd300"),
        (f"torchvision:{MODEL}:{{}}.nan", WeightsError, r"not finite \(NaN\), in backbone"),
        (f"torchvision:{MODEL}:{{}}.few", WeightsError, "has 4 classes.*few.pth.names"),
        (f"torchvision:{MODEL}:{{}}.odd", WeightsError, "tensors for different numbers"),
        (f"torchvision:{MODEL}:{{}}.pickle", WeightsError, "refused"),
        ("torchvision:", SpecError, "names nothing"),
    ],
)
def test_files_that_do_not_fit_are_named(ssdlite, tmp_path, monkeypatch, given, error, message):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = torch.load(ssdlite, weights_only=True)
    heads = [
        key for key in state if "classification_head" in key and state[key].shape[:1] == (546,)
    ]
    if given.endswith(("nan", "few", "odd", "pickle")):
        kind = given.rpartition(".")[2]
        if kind == "nan":
            state[next(iter(state))][:] = float("nan")
        elif kind in ("few", "odd"):
            for key in heads[: None if kind == "few" else 1]:
                state[key] = state[key][:24]
        if kind == "odd":
            (tmp_path / "odd.pth.names").write_text("a\nb\nc\n")
        given = given.replace("{}." + kind, str(tmp_path / f"{kind}.pth"))
        torch.save(torch.nn.Linear(1, 1) if kind == "pickle" else state, tmp_path / f"{kind}.pth")
    with pytest.raises(error, match=message) as raised:
        load_detector(given.format(ssdlite), "cpu")
    assert "\n" not in str(raised.value)


def test_features_that_are_not_finite_are_no_empty_frame(ssdlite):
    with pytest.raises(SpecError, match="320x320 only"):
        load_detector(spec(ssdlite), "cpu", imgsz=640)
    detector = load_detector(spec(ssdlite), "cpu")
    next(detector._network.backbone.parameters()).mul_(float("inf"))
    with pytest.raises(Exception, match=r"not finite \(NaN\)"):
        detector(FRAMES[:1])
