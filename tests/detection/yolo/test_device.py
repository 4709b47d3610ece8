"""Batches on the device: the detector as a recorded graph, and the choice among its boxes."""

import copy
import logging
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics import YOLO
from ultralytics.utils import nms, ops

from detection.yolo import selection
from detection.yolo.adapter import YoloDetector
from detection.yolo.letterbox import place
from detection.yolo.selection import Selection
from eval.street.detector import detector_weights
from rainmer.stage.graphs import Graphs
from tests.detection.conftest import make_frame, make_yolo, table_of
from tests.rainmer.stage.recording import Tape

SIZES = [(60, 90), (48, 100), (96, 64)]
MODELS = [
    "embedded",
    "yolo26n",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("yolov8n", "yolov10n")),
]


@pytest.fixture(scope="module", params=MODELS)
def yolo(request):
    return make(request.param)


def make(name):
    if name == "yolov8n":
        return make_yolo()
    torch.manual_seed(0)
    return YOLO(str(detector_weights()) if name == "embedded" else f"{name}.yaml")


def batch_of(count, size_hw, seed=0):
    frames = [make_frame(*size_hw, seed=seed + i) for i in range(count)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def detector_of(yolo, *, recorded, **options):
    """Make a detector that records as on CUDA, or not at all, with many boxes."""
    options = {"device": "cpu", "imgsz": 96, **options_of(yolo), **options}
    nms = options.pop("nms")
    detector = YoloDetector(copy.deepcopy(yolo), graphs=recorded, **options)
    detector._options["nms"] = nms
    assert detector.device is not None  # sets it up
    if recorded:
        detector.yolo.predictor.graphs = Graphs(Tape())
    return detector


def options_of(yolo):
    """Return options that give many boxes, by the head without NMS if there is one."""
    is_double = hasattr(yolo.model.model[-1], "one2one_cv2")
    return {"conf": 0.0, "nms": False} if is_double else {"conf": 0.005, "nms": None}


def calls(detector):
    return detector.yolo.predictor.graphs._engine.calls


def assert_same(detector, eager, batch, least=1):
    found, expected = detector.detect_batch(batch), eager.detect_batch(batch)
    assert len(found) == len(expected) == len(batch)
    assert sum(map(len, expected)) >= least
    for one, other in zip(found, expected, strict=True):
        assert table_of(one).tobytes() == table_of(other).tobytes()


def test_sizes_and_batches_in_turn_give_the_bits_of_the_eager_network(yolo):
    detector, eager = (detector_of(yolo, recorded=on) for on in (True, False))

    for turn in range(3):
        for count, size_hw in zip((1, 2, 3), SIZES, strict=True):
            assert_same(detector, eager, batch_of(count, size_hw, turn))

    assert calls(detector).count("record") == 3
    assert calls(detector).count("replay") == 6
    assert "preprocess" not in detector.speed
    assert "preprocess" in eager.speed


def test_a_recording_survives_what_happens_to_the_head_meanwhile():
    """The head replaces its grid when the size changes, and a graph knows an address only."""
    yolo = make_yolo()
    detector, eager = (detector_of(yolo, recorded=on) for on in (True, False))
    for turn in range(3):
        assert_same(detector, eager, batch_of(2, SIZES[0], turn))

    detector.graphs = False
    assert_same(detector, eager, batch_of(1, SIZES[2]))
    assert_same(detector, eager, batch_of(4, SIZES[0]))
    detector.graphs = True

    assert_same(detector, eager, batch_of(2, SIZES[0], 7))
    assert calls(detector)[-1] == "replay"


@pytest.mark.slow
def test_options_that_change_between_batches_are_followed():
    yolo = make("yolo26n")
    # 420 places, more than the head would keep
    detector, eager = (detector_of(yolo, recorded=on, imgsz=160) for on in (True, False))
    changes = [
        {}, {"conf": 1e-4}, {"max_det": 5}, {"max_det": 310}, {"agnostic_nms": True}, {"iou": 0.3},
    ]  # fmt: skip
    for change in [*changes, {}]:
        for each in (detector, eager):
            each._options.update({"conf": 0.0, "max_det": 300, "agnostic_nms": False, **change})
        for classes in (None, [3, 5, 400, *range(20, 60)]):
            detector.classes = eager.classes = classes
            for turn in range(2):
                assert_same(detector, eager, batch_of(1, SIZES[0], turn), classes is None)
    assert calls(detector).count("replay") >= 14


def test_other_tasks_run_as_they_are():
    yolo = make_yolo("segment")
    detector, eager = (detector_of(yolo, recorded=on, conf=0.1) for on in (True, False))

    for turn in range(3):
        assert_same(detector, eager, batch_of(1, SIZES[0], turn))

    assert calls(detector) == []


def test_what_looks_into_the_network_runs_as_it_is():
    detector = detector_of(make_yolo(), recorded=True)
    seen = []
    head = detector.yolo.predictor.model.model.model[-1]
    hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    for _ in range(3):
        detector.detect_batch(batch_of(1, SIZES[0]))
    assert len(seen) == 3
    assert calls(detector) == []
    hook.remove()


def test_weights_that_move_are_not_read_where_they_were():
    yolo = make_yolo()
    detector, eager = (detector_of(yolo, recorded=on) for on in (True, False))
    for _ in range(3):
        assert_same(detector, eager, batch_of(1, SIZES[0]))
    for each in (detector, eager):
        for parameter in each.yolo.predictor.model.model.parameters():
            parameter.data = parameter.data * 1.01
    for _ in range(3):
        assert_same(detector, eager, batch_of(1, SIZES[0]))
    assert calls(detector).count("record") == 2


def test_threads_share_recordings():
    yolo, errors = make_yolo(), []
    detector, eager = (detector_of(yolo, recorded=on) for on in (True, False))
    expected = {size: eager.detect_batch(batch_of(1, size)) for size in SIZES}

    def work(size):
        try:
            for _ in range(3):
                [found] = detector.detect_batch(batch_of(1, size))
                assert table_of(found).tobytes() == table_of(expected[size][0]).tobytes()
        except BaseException as error:  # noqa: BLE001 (told below)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(size,)) for size in SIZES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    images=st.integers(1, 4),
    places=st.integers(7, 60),
    classes=st.integers(1, 5),
    conf=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    iou=st.sampled_from([0.0, 0.45, 0.7, 1.0]),
    max_det=st.sampled_from([1, 5, 300]),
    agnostic=st.booleans(),
    keep=st.sampled_from([None, [], [0], [1, 3, 77]]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    most=st.sampled_from([10, 30_000]),
)
def test_the_choice_is_that_of_ultralytics(
    seed, images, places, classes, conf, iou, max_det, agnostic, keep, dtype, most
):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.rand(images, 4 + classes, places, generator=generator)
    outputs[:, 4:] = (outputs[:, 4:] * 8).round() / 8  # equal scores are frequent
    outputs[:, :4] *= 64
    outputs = outputs.to(dtype)
    placement = place((50, 90), (64, 64), auto=True)
    own = Selection((50, 90), placement, conf, agnostic, end2end=False)
    allowed = () if keep is None else (selection.allowed_labels(tuple(keep), classes, "cpu"),)

    before, selection._MOST_BOXES = selection._MOST_BOXES, most
    try:
        found = own.choose(own.candidates(outputs, *allowed), iou, max_det)
    finally:
        selection._MOST_BOXES = before
    theirs = nms.non_max_suppression(
        outputs.clone(), conf, iou, keep, agnostic, max_det=max_det, max_nms=most
    )

    for one, other in zip(found, theirs, strict=True):
        ops.scale_boxes(placement.canvas_hw, other[:, :4], (50, 90))
        assert table_of(one).astype(np.float32).tobytes() == other.numpy().tobytes()


class Waits(TorchDispatchMode):
    """Counts the operators whose result's size depends on values: on a GPU each is a wait."""

    NAMES = ("aten::nonzero", "aten::masked_select", "torchvision::nms")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket._qualified_op_name
        masked = name == "aten::index" and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        self.count += masked or name in self.NAMES
        return function(*args, **(kwargs or {}))


def test_a_batch_waits_once_for_each_image_and_once_for_all():
    detector, batch = detector_of(make_yolo(), recorded=False), batch_of(8, SIZES[0])
    detector.detect_batch(batch)
    predictor = detector.yolo.predictor
    with Waits() as ours, torch.inference_mode():
        predictor._predict_batch(batch, graphs=False)
    with Waits() as theirs, torch.inference_mode():
        nms.non_max_suppression(predictor.model(torch.rand(8, 3, 64, 96)), 0.005, 0.7)
    assert (ours.count, theirs.count) == (1 + 8, 3 * 8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("half", [False, True])
def test_graphs_give_the_same_boxes_on_a_gpu(yolo, half, caplog):
    options = options_of(yolo)
    nms = options.pop("nms")
    detector, eager = (
        YoloDetector(copy.deepcopy(yolo), "cuda:0", imgsz=96, graphs=on, **options)
        for on in (True, False)
    )
    for each in (detector, eager):
        each._options.update(nms=nms, quantize=16 if half else None)
    with caplog.at_level(logging.WARNING):
        for turn in range(4):
            for count, size_hw in zip((1, 2, 3), SIZES, strict=True):
                assert_same(detector, eager, batch_of(count, size_hw, turn).cuda())
    assert len(detector.yolo.predictor.graphs) == 3
    assert not caplog.records
