"""Specs of detectors: which library they load, and that ultralytics is not needed for the rest."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detection.classes import COCO_80, COCO_91
from detection.names import KINDS, detector_name, split_spec
from detection.specs import derained_inside, load_detector, load_measured
from detection.yolo.harness import ValidationHarness
from rainmer.errors import RainmerError, SpecError
from rainmer.frames.images import write_image
from tests.detection.adapters.conftest import FRAMES, SIZES, assert_alike, assert_same, ssdlite  # noqa: F401
from tests.detection.conftest import make_frame, make_yolo

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = (
    "import runpy, sys\nsys.modules.update(dict.fromkeys(['ultralytics', 'transformers']))\n"
    "import eval.detect.run, eval.footage.run, eval.gate.command, eval.relation.run\n"
    "sys.argv = sys.argv[1:]\nrunpy.run_module(sys.argv[0], run_name='__main__')"
)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("yolo11n.pt", ("", "yolo11n.pt")),
        (r"C:\nets\yolo11n.pt", ("", r"C:\nets\yolo11n.pt")),
        (r"onnx-yolo:C:\nets\a.onnx", ("onnx-yolo", r"C:\nets\a.onnx")),
        (r"torchvision:ssd300_vgg16:C:\a\b.pth", ("torchvision", r"ssd300_vgg16:C:\a\b.pth")),
        ("https://example.org/a.pt", ("", "https://example.org/a.pt")),
    ],
)  # fmt: skip
def test_paths_of_all_systems_are_told_from_kinds(spec, parts):
    assert split_spec(spec) == parts
    assert ":" not in detector_name(spec)
    assert "\\" not in detector_name(spec) or not parts[0]


def test_a_file_whose_name_has_a_colon_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("hf:a.pt").write_text("")
    assert split_spec("hf:a.pt") == ("", "hf:a.pt")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvison:ssd300_vgg16:a.pth", r"unknown kind of detector 'torchvison'.*torchvision:\?"),
        ("tensorflow:a.pb", "unknown kind of detector 'tensorflow'.*expected one of"),
        ("none.pt", r"no file none\.pt with detector weights"),
        ("D:/none.pt", r"no file D:/none\.pt with detector weights"),
        ("hf:", "hf: names nothing"),
        ("hf:none", "no folder none"),
        ("python:nowhere:Thing", "No module named 'nowhere'"),
    ],
)
def test_mistakes_end_in_one_line(spec, message):
    for load in (load_detector, load_measured):
        with pytest.raises(RainmerError, match=message) as raised:
            load(spec, "cpu")
        assert "\n" not in str(raised.value)


def test_numbers_of_coco_have_the_names_of_torchvision():
    pytest.importorskip("torchvision")
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights as Weights

    categories = Weights.COCO_V1.meta["categories"]
    assert {n: categories[n] for n in COCO_91} == COCO_91
    assert len(COCO_91) == len(COCO_80) == len(categories) - 1 - categories.count("N/A")


def test_every_kind_has_a_loader():
    for kind in KINDS:
        with pytest.raises(RainmerError, match="none"):
            load_detector(f"{kind}:none:none", "cpu")


def test_a_missing_package_names_its_extra(monkeypatch, tmp_path):
    (tmp_path / "a.onnx").write_text("")
    for package in ("transformers", "onnxruntime", "torchvision", "ultralytics"):
        monkeypatch.setitem(sys.modules, package, None)
    for name in list(sys.modules):
        if name.startswith(("detection.yolo.adapter", "torchvision.")):
            monkeypatch.delitem(sys.modules, name)
    for spec, message in (
        ("hf:none", r"transformers: pip install 'rainmer\[transformers\]'"),
        (f"onnx-yolo:{tmp_path / 'a.onnx'}", r"onnxruntime: pip install 'rainmer\[onnx\]'"),
        ("torchvision:ssd300_vgg16:a", "pip install torchvision"),
        ("a.pt", r"ultralytics \(AGPL-3\.0\): pip install ultralytics, or name another"),
    ):
        with pytest.raises(SpecError, match=message):
            load_detector(spec, "cpu")


def test_the_toolkit_detects_without_ultralytics(ssdlite, tmp_path):  # noqa: F811
    """In a process where it cannot be imported, nor other libraries that nobody asks for."""
    write_image(tmp_path / "in" / "a.png", make_frame(48, 64))
    spec = f"torchvision:ssdlite320_mobilenet_v3_large:{ssdlite}"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "detection", str(tmp_path / "in"), "--derain", "median",
         "--detector", spec, "--conf", "0.01", "--out", str(tmp_path / "out"), "--save",
         "--where", "network", "--device", "cpu", "--quiet"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "boxes" in done.stdout
    assert (tmp_path / "out" / "images" / "a.png").is_file()


def test_deraining_inside_is_between_resizing_and_detecting(ssdlite, blur):  # noqa: F811
    spec = f"torchvision:ssdlite320_mobilenet_v3_large:{ssdlite}"
    harness = load_measured(spec, "cpu")
    inside = derained_inside(load_detector(spec, "cpu", conf=0.001), blur)
    wanted = harness.detect_fitted(blur(harness.fit(FRAMES, (320, 320))), SIZES, (320, 320))
    for ours, theirs in zip(inside(FRAMES), wanted, strict=True):
        assert_same(ours, (theirs.boxes_xyxy, theirs.scores, theirs.labels))
    kept = int(wanted[0].labels[0])
    inside.classes = [kept]
    assert {label for found in inside(FRAMES) for label in found.labels.tolist()} == {kept}


# --- kin of YOLO in ultralytics -------------------------------------------------------------------


@pytest.fixture(scope="module")
def kin(tmp_path_factory):
    """Random weights of RT-DETR, YOLO-World and YOLOE, saved by ultralytics."""
    from ultralytics import RTDETR, YOLO

    folder = tmp_path_factory.mktemp("kin")
    torch.manual_seed(0)
    RTDETR("yolov8n-rtdetr.yaml").save(folder / "rtdetr.pt")
    YOLO("yolov8n-worldv2.yaml").save(folder / "world.pt")
    yoloe = YOLO("yoloe-11n.yaml")
    yoloe.save(folder / "unprompted.pt")
    yoloe.model.set_classes(["car", "bus"], torch.randn(1, 2, 512))
    yoloe.save(folder / "yoloe.pt")
    return folder


def test_rtdetr_is_measured_as_its_own_predictor_sees_it(kin):
    """It stretches frames and suppresses nothing, in `predict` and in `val` alike."""
    harness = ValidationHarness(str(kin / "rtdetr.pt"), imgsz=96)
    detector = load_detector(str(kin / "rtdetr.pt"), "cpu", conf=0.001, imgsz=96)
    (batch,) = harness.plan(SIZES)
    assert batch.input_hw == (96, 96)
    assert harness.protocol["NMS"].startswith("none")
    for measured, found in zip(harness.detect(FRAMES, (96, 96)), detector(FRAMES), strict=True):
        assert_alike(measured, found)


@pytest.mark.parametrize("name", ["world", "yoloe"])
def test_yoloe_and_yolo_world_attach(kin, name, blur):
    harness = load_measured(str(kin / f"{name}.pt"), "cpu", imgsz=96)
    assert len(harness.detect(FRAMES, (96, 96))) == 3
    detector = load_detector(str(kin / f"{name}.pt"), "cpu", conf=1e-5, imgsz=96)
    if name == "yoloe":
        assert (harness.names, detector.device) == ({0: "car", 1: "bus"}, None)
    assert len(derained_inside(detector, blur)(FRAMES)) == 3
    assert blur.calls > 0


def test_a_yoloe_without_classes_is_refused(kin):
    with pytest.raises(RainmerError, match=r"YOLOE without classes.*set_classes"):
        load_detector(str(kin / "unprompted.pt"), "cpu")


@pytest.mark.slow
def test_an_export_of_yolo_is_the_network_itself(tmp_path):
    """By onnxruntime and our own NMS, without ultralytics, in rectangles of any size."""
    pytest.importorskip("onnxruntime")
    from ultralytics import YOLO

    make_yolo().save(tmp_path / "tiny.pt")
    YOLO(tmp_path / "tiny.pt").export(format="onnx", imgsz=96, dynamic=True, simplify=False)
    native = ValidationHarness(str(tmp_path / "tiny.pt"), imgsz=96)
    exported = load_measured(f"onnx-yolo:{tmp_path / 'tiny.onnx'}", "cpu")
    assert (exported.imgsz, exported.names) == (96, native.names)
    assert exported.plan(SIZES) == native.plan(SIZES)
    for batch in native.plan(SIZES):
        frames, sizes = ([part[i] for i in batch.indices] for part in (FRAMES, SIZES))
        fitted = native.fit(frames, batch.input_hw)
        ours, theirs = (h.detect_fitted(fitted, sizes, batch.input_hw) for h in (exported, native))
        for one, other in zip(ours, theirs, strict=True):
            assert_alike(one.select(one.scores > 0.05), other.select(other.scores > 0.05))
