"""The graph's parts against the parts of the Python pipeline."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.utils import nms

from detection.export.exporting import build_graph
from detection.export.gate import RainGate
from detection.export.graph import FrameBoxes, Letterbox, Suppression
from detection.export.resize import Resize
from detection.pipeline import Pipeline
from detection.yolo.adapter import YoloDetector
from detection.yolo.letterbox import letterbox, place
from rainmer import Derainer
from rainmer.meter import RainMeter
from tests.detection.conftest import make_frame, make_yolo

SIDES = st.integers(1, 70)


@given(source=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES), seed=st.integers(0, 9))
@settings(max_examples=40)
def test_resizing_gives_the_levels_of_opencv(source, target, seed):
    frame = np.random.default_rng(seed).integers(0, 256, (*source, 3), dtype=np.uint8)
    wanted = cv2.resize(frame, target[::-1], interpolation=cv2.INTER_LINEAR)
    levels = Resize(source, target)(torch.from_numpy(frame).permute(2, 0, 1)[None])
    assert np.array_equal(levels[0].permute(1, 2, 0).numpy(), wanted)


@pytest.mark.parametrize("size_hw", [(72, 128), (128, 72), (64, 64), (37, 91), (128, 128)])
def test_the_letterbox_is_the_pipelines(size_hw):
    frame = torch.from_numpy(make_frame(*size_hw)).permute(2, 0, 1)[None]
    placement = place(size_hw, (64, 64), auto=True)
    wanted = letterbox(frame, placement).float() / 255
    assert torch.equal(Letterbox(size_hw, placement)(frame), wanted)


def test_boxes_lie_in_the_frame():
    placement = place((100, 200), (64, 64), auto=True)
    left, top = placement.left, placement.top
    boxes = torch.tensor([[[left, top, left + 64, top + 32], [-9.0, -9.0, 99.0, 99.0]]])
    assert FrameBoxes((100, 200), placement)(boxes).tolist() == [[[0.0, 0.0, 200.0, 100.0]] * 2]


@given(
    seed=st.integers(0, 99), iou=st.sampled_from([0.3, 0.7]), conf=st.sampled_from([0.01, 0.5, 1.0])
)
@settings(max_examples=25)
def test_suppression_chooses_as_ultralytics_does(seed, iou, conf):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(2, 90, 2, generator=generator) * 60
    sides = torch.rand(2, 90, 2, generator=generator) * 40 + 2
    scores = torch.rand(2, 90, 3, generator=generator)
    raw = torch.cat((centres, sides, scores), 2).transpose(1, 2)
    wanted = nms.non_max_suppression(raw.clone(), conf, iou, max_det=20, nc=3)
    boxes = torch.cat((centres - sides / 2, centres + sides / 2), 2)
    found, best, labels = Suppression(conf, iou, 20)(boxes, scores)
    for i, rows in enumerate(wanted):
        count = int((best[i] > 0).sum())
        assert count == len(rows)
        assert torch.allclose(found[i, :count], rows[:, :4], atol=1e-4)
        assert torch.equal(best[i, :count], rows[:, 4])
        assert torch.equal(labels[i, :count].float(), rows[:, 5])
        assert not found[i, count:].any()


@pytest.mark.parametrize("size_hw", [(90, 160), (300, 420), (540, 960)])
def test_the_gate_reads_what_the_meter_reads(size_hw):
    meter = RainMeter(device="cpu")
    frame = make_frame(*size_hw)
    gate = RainGate(meter, 0.5, size_hw)
    with torch.no_grad():
        benefit, needed = gate(torch.from_numpy(frame).permute(2, 0, 1)[None])
    wanted = meter([frame])[0].benefit
    assert benefit.item() == pytest.approx(wanted, abs=1e-4)
    assert needed.item() == (wanted >= 0.5)


def detected(outputs):
    found, boxes, scores, labels = (values[0] for values in outputs[:4])
    return boxes[:found], scores[:found], labels[:found]


@pytest.mark.parametrize("options", [{"nms": True}, {"nms": True, "layout": "nhwc"}, {}])
def test_the_graph_detects_what_the_pipeline_detects(wanted, options):
    request = wanted(**options)
    detector = YoloDetector(request.detector, device="cpu", imgsz=96)
    graph = build_graph(request, detector)
    frame = make_frame(80, 124, seed=3)
    with torch.no_grad():
        batch = torch.from_numpy(frame)[None]
        outputs = graph(batch if request.layout == "nhwc" else batch.permute(0, 3, 1, 2))
    if not request.nms:
        boxes, scores, labels = Suppression(request.conf, request.iou, 300)(*outputs)
        outputs = ((scores > 0).sum(1), boxes, scores, labels)
    [theirs] = Pipeline(Derainer(request.derain, device="cpu", precision="fp32"), detector)([frame])
    boxes, scores, labels = detected(outputs)
    assert len(theirs) == len(boxes) > 3
    assert np.abs(boxes.numpy() - theirs.boxes_xyxy).max() < 0.5
    assert np.abs(scores.numpy() - theirs.scores).max() < 1e-3
    assert np.array_equal(labels.numpy(), theirs.labels)


def test_segmenters_become_graphs_of_their_boxes(wanted):
    request = wanted(derain="none", nms=True)
    detector = YoloDetector(make_yolo("segment"), device="cpu", imgsz=96)
    frame = make_frame(80, 124, seed=3)
    with torch.no_grad():
        outputs = build_graph(request, detector)(torch.from_numpy(frame).permute(2, 0, 1)[None])
    [theirs] = detector([frame])
    boxes = detected(outputs)[0]
    assert len(theirs) == len(boxes) > 0
    assert np.abs(boxes.numpy() - theirs.boxes_xyxy).max() < 0.5
