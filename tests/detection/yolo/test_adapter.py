import copy
import pickle
import threading
import types

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils import checks

from detection import YoloDetector, attach, load_yolo
from detection.yolo.adapter import no_automatic_installs
from detection.yolo.binding import Settings
from detection.yolo.predictor import bind_predictor
from rainmer.errors import RainmerError, WeightsError
from tests.detection.conftest import Blur, make_frame, make_yolo, table_of
from tests.numerics import same_rows

OPTIONS = {"imgsz": 96, "conf": 0.1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    make_yolo().save(path)
    return path


def test_loads_a_checkpoint(weights):
    detector = YoloDetector(weights, device="cpu", **OPTIONS)

    assert detector.name == "random"
    assert detector.names[0] == "0"
    assert len(detector([make_frame(60, 90)])[0]) > 10


def test_finds_what_predict_finds():
    frame = make_frame(60, 90)
    (result,) = make_yolo().predict(frame[..., ::-1].copy(), verbose=False, **OPTIONS)

    (found,) = YoloDetector(make_yolo(), **OPTIONS)([frame])

    assert len(found) > 10
    assert same_rows(table_of(found), result.boxes.data)


def test_what_is_found_does_not_depend_on_the_frames_beside_it():
    detector = YoloDetector(make_yolo(), batch=2, **OPTIONS)
    frames = [make_frame(60, 90, 1), make_frame(96, 40, 2), make_frame(60, 90, 3)]

    together = detector(frames)
    alone = [detector([frame])[0] for frame in frames]

    assert sum(len(found) for found in alone) > 10
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert np.allclose(one.boxes_xyxy, other.boxes_xyxy, atol=0.02)


def test_exported_models_derain_too(weights, blur):
    frame = make_frame(60, 90)
    exported = YOLO(weights).export(format="torchscript", imgsz=96, verbose=False)
    (expected,) = YoloDetector(exported, **OPTIONS)([cv2.blur(frame, (3, 3))])

    detector = YoloDetector(exported, **OPTIONS)
    (found,) = YoloDetector(attach(detector.yolo, blur), **OPTIONS)([frame])
    bound = bind_predictor(DetectionPredictor, Settings(blur, on_device=True))
    bgr = frame[..., ::-1].copy()
    (on_device,) = YOLO(exported, task="detect").predict(bgr, predictor=bound, **OPTIONS)

    assert len(expected) > 10
    assert same_rows(found.boxes_xyxy, expected.boxes_xyxy)
    assert same_rows(on_device.boxes.xyxy, expected.boxes_xyxy)


@pytest.mark.parametrize(
    ("task", "classes"),
    [
        ("detect", [3, 5, 7]),
        ("segment", [3, 5, 7]),
        ("pose", [0]),
        ("obb", [3, 5, 7]),
        ("end2end", list(range(40))),
    ],
)
def test_batches_on_the_device_give_what_arrays_give(task, classes):
    frames = [make_frame(60, 90, seed) for seed in range(3)]
    yolo = YOLO("yolo26n.yaml") if task == "end2end" else make_yolo(task)
    conf = 0.0 if task == "end2end" else 0.1
    detector = YoloDetector(yolo, device="cpu", batch=2, imgsz=96, conf=conf, classes=classes)
    batch = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    arrays = YoloDetector(copy.deepcopy(yolo), device="cpu", batch=2, imgsz=96, conf=conf)
    arrays.classes = classes

    assert detector.device == torch.device("cpu")
    for one, other in zip(detector.detect_batch(batch), arrays(frames), strict=True):
        assert len(one) > 0
        assert same_rows(table_of(one), table_of(other))
    assert set(detector.speed) == {"preprocess", "inference", "postprocess"}
    (again,) = detector(frames[:1])  # arrays still work after it
    assert len(again) > 0


def test_with_an_attached_derainer_only_arrays_are_taken(blur):
    detector = YoloDetector(attach(make_yolo(), blur), **OPTIONS)

    assert detector.device is None
    with pytest.raises(RainmerError, match="only takes arrays"):
        detector.detect_batch(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_no_frames_and_nothing_found():
    detector = YoloDetector(make_yolo(), imgsz=64, conf=1.0)

    assert detector([]) == []
    assert detector([make_frame(30, 30)])[0].boxes_xyxy.shape == (0, 4)


def test_classes_are_kept():
    detector = YoloDetector(make_yolo(), classes=[3, 5], **OPTIONS)

    assert set(detector([make_frame(60, 90)])[0].labels) <= {3, 5}


def test_speed_tells_the_time_of_an_attached_derainer():
    detector = YoloDetector(attach(make_yolo(), Blur(), "network"), **OPTIONS)

    detector([make_frame(60, 90), make_frame(60, 90)])

    assert detector.speed["derain"] > 0
    assert detector.speed["inference"] > 0


def test_threads_that_share_a_detector_have_their_own_times():
    detector, speeds = YoloDetector(make_yolo(), **OPTIONS), []
    detector([make_frame(60, 90)])
    before = detector.speed

    def work():
        speeds.append(detector.speed)
        detector.detect_batch(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        speeds.append(detector.speed)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert speeds[0] == {}
    assert set(speeds[1]) == set(before)
    assert detector.speed == before


def test_an_exported_model_that_fails_while_it_runs_is_one_line():
    detector = YoloDetector(make_yolo(), **OPTIONS)

    def fail(*_arguments, **_options):
        raise RuntimeError("[ONNXRuntimeError] : 2 : Got invalid dimensions for input\n index: 2")

    detector.yolo = types.SimpleNamespace(model="net.onnx", predict=fail)
    with pytest.raises(WeightsError, match=r"detector net\.onnx failed: .*invalid .* input$"):
        detector([make_frame(60, 90)])


def test_oriented_boxes_become_upright():
    (found,) = YoloDetector(make_yolo("obb"), **OPTIONS)([make_frame(60, 90)])

    assert len(found) > 10
    assert (found.boxes_xyxy[:, 2:] >= found.boxes_xyxy[:, :2]).all()


def test_classifiers_are_no_detectors():
    with pytest.raises(RainmerError, match="finds no boxes"):
        YoloDetector(make_yolo("classify"))


def test_missing_file_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    for name in ("yolo11n.pt", "yolo11n", "https://example.org/yolo11n.pt"):
        with pytest.raises(RainmerError, match=r"allow_download=True"):
            load_yolo(name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 cut off"])
def test_damaged_checkpoints_are_one_line(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The name of a file that ultralytics publishes: it would delete it and fetch its own.
    (tmp_path / "yolov8n.pt").write_bytes(content)

    with pytest.raises(WeightsError, match=r"cannot load the detector .*yolov8n\.pt"):
        load_yolo("yolov8n.pt")
    assert (tmp_path / "yolov8n.pt").read_bytes() == content


def test_other_files_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "state.pt")
    cv2.imwrite(str(tmp_path / "picture.png"), make_frame(8, 8))
    (tmp_path / "model.yaml").write_text("nc: 1")
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    (tmp_path / "folder.pt").mkdir()
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "layer.pt")

    for name, message in [
        ("state.pt", "cannot load"),
        ("picture.png", "expected .pt"),
        ("model.yaml", "architecture without weights"),
        ("broken.onnx", r"onnx"),
        ("folder.pt", r"cannot load the detector .*folder\.pt: Is a directory$"),
        ("layer.pt", r"layer\.pt holds a Linear, not a detector"),
    ]:
        with pytest.raises(WeightsError, match=message):
            load_yolo(tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 300 + ".pt", "nul\0.pt"])
def test_names_that_cannot_be(name):
    with pytest.raises(RainmerError, match="no file"):
        load_yolo(name)


@pytest.mark.filterwarnings("error")
def test_torch_gives_no_advice(tmp_path, capfd):
    torch.save({"model": torch.zeros(5000)}, tmp_path / "my. model.pt")
    content = bytearray((tmp_path / "my. model.pt").read_bytes())
    content[-250:-150] = b"\xff" * 100
    (tmp_path / "my. model.pt").write_bytes(content)
    (tmp_path / "protocol.pt").write_bytes(pickle.dumps({"model": 1}, protocol=4))

    with pytest.raises(WeightsError, match=r"my\. model\.pt: [^.]*truncated or corrupted$"):
        load_yolo(tmp_path / "my. model.pt")
    with pytest.raises(WeightsError, match=r"cannot load the detector .*protocol\.pt: [^.]*$"):
        load_yolo(tmp_path / "protocol.pt")
    assert "pickle protocol" not in capfd.readouterr().err


def test_installs_are_off_inside_and_as_before_outside(monkeypatch):
    monkeypatch.setattr(checks, "AUTOINSTALL", True)
    monkeypatch.delenv("YOLO_AUTOINSTALL", raising=False)
    with no_automatic_installs():
        assert not checks.AUTOINSTALL
    assert checks.AUTOINSTALL
    monkeypatch.setenv("YOLO_AUTOINSTALL", "true")
    with no_automatic_installs():
        assert checks.AUTOINSTALL
