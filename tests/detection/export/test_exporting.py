"""Files: written, compared, read by other programs, and refused where they cannot be right."""

import dataclasses
import re
import sys

import numpy as np
import pytest
import torch
from ultralytics import YOLO

from detection.export import GraphRequest, export_pipeline, exporting
from detection.export.checking import check_files
from detection.export.command import run
from detection.export.comparing import BOUNDS, Bound, compare, detections_of
from detection.export.describing import describe
from detection.export.graph import Suppression
from detection.export.options import parse
from detection.types import Detections
from detection.yolo.adapter import YoloDetector
from rainmer.errors import ConfigError, OutputError, RainmerError, SpecError, WeightsError
from tests.detection.conftest import make_frame, make_yolo

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

NAMES = {0: "car", 1: "person"}


@pytest.fixture(scope="module")
def letterboxed(small, wanted):
    """A file for DeepStream and `YOLO(FILE)`."""
    path = small / "letterboxed.onnx"
    options = {"size_hw": (64, 96), "frame_hw": (50, 96), "input": "letterboxed"}
    request = wanted(**options, nms=True, conf=0.1)
    return path, export_pipeline(request, path)


def test_the_command_writes_frames_in_boxes_out(small, wanted, capsys):
    path = small / "frames.onnx"
    words = ["--derain", wanted().derain, "--detector", wanted().detector, "--nms", "--conf", "0.1"]
    words += ["--size", "80x124", "--imgsz", "96", "--layout", "nhwc", "--out", str(path)]
    run(parse([*words, "--describe", "triton"]))
    printed = capsys.readouterr().out
    assert re.search(r"[1-9]\d* detections in 3 frames", printed)
    session = onnxruntime.InferenceSession(path)
    frame = make_frame(80, 124)
    count, boxes, scores, labels = session.run(None, {"frames": frame[None]})
    assert boxes.shape[1] == scores.shape[1] <= 300
    assert (scores[0, : count[0]] > 0.1).all()
    assert not scores[0, count[0] :].any()
    assert labels.dtype == np.int32
    assert next(check_files(path, [small / "config.pbtxt"])).endswith(f"fits {path}")
    with pytest.raises(OutputError, match="exists already"):
        run(parse(words))


def test_ultralytics_reads_the_letterboxed_file(letterboxed):
    path, done = letterboxed
    assert done.comparison.detections > 0
    yolo = YOLO(str(path), task="detect")
    [result] = yolo.predict(make_frame(50, 96), conf=0.1, verbose=False)
    assert len(yolo.names) == 3
    assert len(result.boxes) > 0


def test_deepstream_is_told_what_the_model_is(letterboxed, tmp_path):
    path, _ = letterboxed
    files = describe(path, "deepstream", overwrite=True)
    config = files[0]
    assert list(check_files(path, [config])) == [f"{config} fits {path}"]
    text = config.read_text()
    assert "infer-dims=3;64;96\n" in text
    assert "output-blob-names=predictions\n" in text
    config.write_text(text.replace("3;64;96", "3;640;640").replace("batch-size=1", "batch-size=2"))
    with pytest.raises(ConfigError, match=r"batch-size is 2, .*infer-dims is 3;640;640, the model"):
        list(check_files(path, [config]))
    with pytest.raises(OutputError, match="exists already"):
        describe(path, "deepstream")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("TYPE_FP32 dims: [ 1, 3", "TYPE_UINT8 dims: [ 1, 3", "data_type of frames is TYPE_UINT8"),
        ("[ 1, 3, 64, 96 ]", "[ 1, 3, 640, 640 ]", r"dims of frames is \[1, 3, 640, 640\]"),
        ('"predictions"', '"boxes"', "the model has no output boxes, but predictions"),
        ("max_batch_size: 0", "max_batch_size: 8", "max_batch_size must be 0"),
        ('"onnxruntime"', '"tensorrt"', "the backend must be onnxruntime"),
        ("output [", "output [ [", "brackets do not close"),
        ("output [", "output ( [", "line 10 cannot be read"),
    ],
)
def test_faults_of_tritons_configuration_are_named(letterboxed, tmp_path, old, new, told):
    path, _ = letterboxed
    [config] = describe(path, "triton", overwrite=True)
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=told):
        list(check_files(path, [config]))


def test_a_file_that_differs_is_deleted_and_what_differs_is_named(wanted, tmp_path, monkeypatch):
    monkeypatch.setitem(BOUNDS, "fp32", Bound(-1.0, 0.0))  # nothing is that equal
    path = tmp_path / "off.onnx"
    with pytest.raises(RainmerError, match=r"not kept: .* px and .*: frame 1: .* is off by"):
        export_pipeline(wanted(derain="none", conf=0.1, nms=True), path)
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_are_named():
    outputs = {"boxes": np.zeros((1, 4, 4), np.float32), "scores": np.full((1, 4, 2), np.nan)}
    with pytest.raises(RainmerError, match="output scores holds values that are not finite"):
        detections_of(outputs, Suppression(0.25, 0.7, 9), end_to_end=False, frame_hw=(8, 8))


def test_comparing_names_what_is_missing_moved_and_too_many():
    def one(box, score=0.9, label=0):
        return Detections([box], [score], [label])

    bound = BOUNDS["fp32"]
    found = [one([0, 0, 9, 9]), one([0, 0, 9, 9.6]), one([0, 0, 9, 9], 0.2505), Detections()]
    wanted = [
        one([0, 0, 9, 9], label=1),
        one([0, 0, 9, 9]),
        Detections(),
        one([0, 0, 9, 9], 0.2502),
    ]
    result = compare(found, wanted, NAMES, conf=0.25, bound=bound)
    assert result.faults == [
        "frame 1: person 0.90 at 0,0 is missing",
        "frame 1: car 0.90 at 0,0 is too many",
        "frame 2: car 0.90 at 0,0 is off by 0.6 px, its score by 0",
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"opset": 3}, "no opset 3"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"size_hw": None}, "frames need a size"),
        ({"frame_hw": (9, 9)}, "frame_hw is for input letterboxed"),
        ({"input": "letterboxed", "layout": "nhwc"}, "leave out layout"),
        ({"input": "letterboxed", "gate": "auto"}, "leave out gate"),
        ({"derain": "none", "gate": "auto"}, "gate without a derainer"),
    ],
)
def test_requests_that_do_not_fit_together(wanted, options, told):
    with pytest.raises(ConfigError, match=told):
        wanted(**options)


def test_what_cannot_be_exported(wanted, tmp_path, small, monkeypatch):
    out = tmp_path / "x.onnx"
    with pytest.raises(ConfigError, match=r"100 px is no multiple of .* 32: give 96 or 128"):
        export_pipeline(wanted(imgsz=100), out)
    with pytest.raises(ConfigError, match="70 px is no multiple"):
        export_pipeline(wanted(size_hw=(64, 70), input="letterboxed"), out)
    with pytest.raises(SpecError, match="only networks with weights"):
        export_pipeline(wanted(derain="median"), out)
    with pytest.raises(SpecError, match=r"ends in \.xml"):
        export_pipeline(wanted(format="openvino"), out)
    with pytest.raises(OutputError, match="exists already"):
        export_pipeline(wanted(), _file(tmp_path))
    request = wanted(nms=True)
    with pytest.raises(WeightsError, match="ends in OBB"):
        exporting.build_graph(request, YoloDetector(make_yolo("obb"), device="cpu"))
    weights = torch.load(small / "small.pt", weights_only=False)
    weights["model"].model[0].conv.weight.data[0, 0, 0, 0] = 1e5
    torch.save(weights, small / "large.pt")
    half = dataclasses.replace(request, detector=str(small / "large.pt"), precision="fp16")
    with pytest.raises(WeightsError, match=r"forbid half precision: .*weight holds inf"):
        export_pipeline(half, out)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(SpecError, match=r"pip install 'rainmer\[tensorrt\]'"):
        export_pipeline(wanted(format="tensorrt"), tmp_path / "x.engine")


def _file(folder):
    path = folder / "there.onnx"
    path.write_text("")
    return path


def test_a_full_disk_leaves_nothing(wanted, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_format", full)
    with pytest.raises(OutputError, match=r"cannot write .*x\.onnx: No space left"):
        export_pipeline(wanted(), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_mistakes_of_the_command_line(capsys):
    for words, told in (
        (["--detector", "x.pt"], "--out FILE"),
        (["--check", "x.onnx"], "needs the file of a model"),
        (["--detector", "x.pt", "--out", "x.onnx", "--size", "640"], "HEIGHTxWIDTH"),
    ):
        with pytest.raises(SystemExit):
            parse(words)
        assert told in capsys.readouterr().err


def test_request_defaults_are_the_commands():
    options = parse(["--detector", "x.pt", "--out", "x.onnx"])
    request = GraphRequest(derain="rainmer-s", detector="x.pt")
    for name in ("format", "imgsz", "batch", "input", "nms", "conf", "iou", "max_det", "gate"):
        assert getattr(options, name) == getattr(request, name)
