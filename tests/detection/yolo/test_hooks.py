import copy
import functools
import logging
import multiprocessing
import pickle
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO, FastSAM

from detection import attach, attached, detach
from detection.yolo import DerainPredictor
from detection.yolo.binding import Settings
from detection.yolo.predictor import bind_predictor
from rainmer import Derainer
from rainmer.errors import RainmerError
from tests.detection.conftest import SHARED, Blur, make_frame, make_yolo
from tests.numerics import same_rows

OPTIONS = {"imgsz": 96, "conf": 0.1, "verbose": False}


def found(yolo, frame=None, **options) -> torch.Tensor:
    frame = make_frame(60, 90)[..., ::-1].copy() if frame is None else frame
    (result,) = yolo.predict(frame, **{**OPTIONS, **options})
    assert len(result) > 10
    return result.boxes.data


def blurred() -> np.ndarray:
    return cv2.blur(make_frame(60, 90)[..., ::-1].copy(), (3, 3))


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return {"rainy": found(make_yolo()), "derained": found(make_yolo(), blurred())}


def test_attached_object_derains_and_a_detached_one_does_not(blur, expected):
    yolo = make_yolo()
    before = dict(yolo.__dict__)
    assert same_rows(found(yolo), expected["rainy"])  # leaves a predictor behind

    assert attach(yolo, blur) is yolo
    assert isinstance(yolo, YOLO)
    assert same_rows(found(yolo), expected["derained"])
    assert same_rows(yolo(blurred()[..., :3], **OPTIONS)[0].boxes.data, found(yolo, blurred()))

    detach(yolo)
    assert type(yolo) is YOLO
    assert same_rows(found(yolo), expected["rainy"])
    assert set(yolo.__dict__) == set(before)
    detach(yolo)


def test_predictor_is_kept_from_call_to_call(blur):
    yolo = attach(make_yolo(), blur)
    found(yolo)
    predictor = yolo.predictor
    found(yolo)

    assert yolo.predictor is predictor


def test_a_second_derainer_replaces_the_first(blur, expected):
    yolo = attach(attach(make_yolo(), lambda frames: [255 - f for f in frames]), blur)

    assert same_rows(found(yolo), expected["derained"])
    detach(yolo)
    assert type(yolo) is YOLO


def test_two_objects_keep_their_own_derainers(blur, expected):
    inverted = attach(make_yolo(), lambda frames: [255 - f for f in frames])
    yolo = attach(make_yolo(), blur)

    assert same_rows(found(yolo), expected["derained"])
    assert same_rows(found(inverted), found(make_yolo(), 255 - make_frame(60, 90)[..., ::-1]))
    assert same_rows(found(yolo), expected["derained"])


def test_context_manager_restores_what_was_before(blur, expected):
    yolo = make_yolo()
    with attached(yolo, blur) as same:
        assert same is yolo
        assert same_rows(found(yolo), expected["derained"])
        with attached(yolo, lambda frames: frames):
            assert same_rows(found(yolo), expected["rainy"])
        assert same_rows(found(yolo), expected["derained"])

    assert same_rows(found(yolo), expected["rainy"])


def test_predictors_of_the_user_derain_too(blur, expected):
    yolo = attach(make_yolo(), blur)
    stock = yolo.task_map["detect"]["predictor"]

    class Mine(stock):
        used = 0

        def postprocess(self, *args, **kwargs):
            type(self).used += 1
            return super().postprocess(*args, **kwargs)

    assert same_rows(found(yolo, predictor=Mine), expected["derained"])
    assert issubclass(type(yolo.predictor), Mine)
    assert yolo.predictor.used == 1
    assert same_rows(found(yolo), expected["derained"])
    own = DerainPredictor.bind(lambda frames: frames)
    assert same_rows(found(yolo, predictor=own), expected["rainy"])
    with pytest.raises(RainmerError, match="predictor class"):
        yolo.predict(blurred(), predictor=lambda **_: None)


def test_copies_derain_with_the_same_derainer(blur, expected):
    yolo = attach(make_yolo(), blur)
    found(yolo)

    for twin in (copy.copy(yolo), copy.deepcopy(yolo)):
        assert same_rows(found(twin), expected["derained"])
        detach(twin)
        assert same_rows(found(twin), expected["rainy"])
    assert same_rows(found(yolo), expected["derained"])


def test_nothing_of_the_derainer_is_saved_or_exported(tmp_path, monkeypatch, blur):
    monkeypatch.chdir(tmp_path)  # where ultralytics writes exports of models without a file
    yolo = attach(make_yolo(), blur)
    found(yolo)

    yolo.save(tmp_path / "saved.pt")
    exported = yolo.export(format="torchscript", imgsz=96, verbose=False)

    for path in (tmp_path / "saved.pt", exported):
        assert b"detection.yolo" not in Path(path).read_bytes()
    saved = YOLO(tmp_path / "saved.pt")
    assert type(saved) is YOLO
    assert "derain" not in saved.predict(blurred(), **OPTIONS)[0].speed
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in yolo.model.modules())


def negative(frames):
    return [255 - frame for frame in frames]


def test_pickles_derain_too(caplog):
    yolo = attach(make_yolo(), negative, draw_on="derained")
    frame = make_frame(60, 90)[..., ::-1].copy()
    derained = found(yolo)

    twin = pickle.loads(pickle.dumps(yolo))

    assert isinstance(twin, YOLO)
    assert same_rows(found(twin), derained)
    assert np.array_equal(twin.predict(frame, **OPTIONS)[0].orig_img, 255 - frame)
    detach(twin)
    assert type(twin) is YOLO
    assert not caplog.records


def test_a_derainer_that_cannot_be_pickled_is_told_once(caplog, expected):
    yolo = attach(make_yolo(), lambda frames: [255 - frame for frame in frames])
    with caplog.at_level(logging.WARNING):
        pickled = [pickle.dumps(yolo) for _ in range(2)]

    [message] = caplog.messages
    assert "will not derain: its derainer cannot be pickled" in message
    assert same_rows(found(pickle.loads(pickled[0])), expected["rainy"])


def send_boxes(yolo, frame, pipe):
    (result,) = yolo.predict(frame, **OPTIONS)
    pipe.send((len(result), "derain" in result.speed))


def black(batch):
    return batch * 0


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_other_processes_derain(start):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {start}")
    yolo, frame = attach(make_yolo(), Derainer(black, device="cpu")), make_frame(300, 300)
    assert len(make_yolo().predict(frame, **OPTIONS)[0]) > 10
    torch.set_num_threads(2)  # more than ultralytics leaves: a fork does not copy them
    count = len(yolo.predict(frame, **OPTIONS)[0])
    context = multiprocessing.get_context(start)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send_boxes, args=(yolo, frame, theirs))
    process.start()
    try:
        assert ours.poll(60), "the process hangs"
        assert ours.recv() == (count, True)
    finally:
        process.kill()
        process.join()


def test_one_model_in_two_threads_keeps_its_times(blur):
    yolo, speeds = attach(make_yolo(), blur), []
    found(yolo)

    def work():
        for _ in range(5):
            speeds.append(yolo.predict(make_frame(40, 40), **OPTIONS)[0].speed)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(speeds) == 10
    assert all("derain" in speed for speed in speeds)


@functools.cache
def yoloe():
    model = YOLO("yoloe-11n-seg.yaml")
    # In place of the embeddings of a text, for which ultralytics would fetch another network.
    model.set_classes(["a", "b"], torch.nn.functional.normalize(torch.randn(1, 2, 512), dim=-1))
    return model


def prompted(**more):
    return {"bboxes": np.array([[10, 10, 60, 60]]), "cls": np.array([0]), **more}


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({}, 1),
        ({"visual_prompts": prompted()}, 1),
        ({"visual_prompts": prompted(), "refer_image": make_frame(60, 90)}, 2),
    ],
)
def test_prompted_detectors_derain(options, calls, blur):
    yolo = attach(copy.deepcopy(yoloe()), blur)
    frame = make_frame(60, 90)[..., ::-1].copy()

    (result,) = yolo.predict(frame, **{**OPTIONS, **options})

    assert type(yolo).__name__ == "YOLOE"
    assert "derain" in result.speed
    assert blur.calls == calls
    detach(yolo)
    assert "derain" not in yolo.predict(frame, **{**OPTIONS, **options})[0].speed


def test_visual_prompts_of_derained_frames_equal_stock_ones(blur):
    frame = make_frame(60, 90)[..., ::-1].copy()
    options = {**OPTIONS, "conf": 0.0001, "visual_prompts": prompted()}
    theirs = copy.deepcopy(yoloe()).predict(cv2.blur(frame, (3, 3)), **options)[0]

    ours = attach(copy.deepcopy(yoloe()), blur).predict(frame, **options)[0]

    assert len(theirs) > 0
    assert same_rows(ours.boxes.data, theirs.boxes.data)


def test_fastsam_derains(tmp_path, blur):
    make_yolo("segment").save(tmp_path / "fast.pt")
    yolo = attach(FastSAM(tmp_path / "fast.pt"), blur)

    (result,) = yolo(make_frame(60, 90), bboxes=[[10, 10, 60, 60]], **OPTIONS)

    assert "derain" in result.speed


@pytest.mark.parametrize("where", ["frame", "network"])
def test_streams_and_tracks(where, tmp_path):
    frames = [np.roll(make_frame(90, 120)[..., ::-1], i, axis=1) for i in range(4)]
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (120, 90))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame))
    writer.release()
    calls = []
    yolo = attach(make_yolo(), lambda frames: calls.append(len(frames)) or frames, where)
    source = tmp_path / "v.avi"

    # Random scores are low: a tracker that starts on such.
    (tmp_path / "tracker.yaml").write_text(
        "{tracker_type: bytetrack, track_high_thresh: 0.1, track_low_thresh: 0.05, "
        "new_track_thresh: 0.1, track_buffer: 30, match_thresh: 0.8, fuse_score: false}"
    )
    options = {**OPTIONS, "tracker": str(tmp_path / "tracker.yaml"), "persist": True}

    results = list(yolo.track(source, stream=True, **options))

    assert calls == [1] * 4
    assert all("derain" in result.speed for result in results)
    assert any(result.boxes.id is not None for result in results)
    first = yolo.predictor.trackers[0]
    yolo.track(frames[0], **options)
    assert yolo.predictor.trackers[0] is first


def test_trackers_see_derained_frames_and_results_show_rainy_ones(blur):
    frame = make_frame(60, 90)[..., ::-1].copy()
    yolo, seen = make_yolo(), []
    yolo.add_callback(
        "on_predict_postprocess_end", lambda p: seen.append(p.results[0].orig_img.copy())
    )

    (result,) = attach(yolo, blur).track(frame, **OPTIONS)

    assert np.array_equal(seen[0], cv2.blur(frame, (3, 3)))
    assert np.array_equal(result.orig_img, frame)


def test_embeddings_are_those_of_the_derained_frame(blur):
    frame = make_frame(60, 90)[..., ::-1].copy()
    theirs = make_yolo().embed(cv2.blur(frame, (3, 3)), imgsz=96, verbose=False)

    ours = attach(make_yolo(), blur).embed(frame, imgsz=96, verbose=False)

    assert same_rows(ours[0][None], theirs[0][None])


def test_other_objects_are_refused(blur):
    with pytest.raises(RainmerError, match=r"takes an ultralytics YOLO object .*, not dict; for"):
        attach({}, blur)


def test_derainers_may_be_networks(expected):
    network = torch.nn.Identity()
    yolo = attach(make_yolo(), network)
    parameters = len(list(yolo.parameters()))

    assert same_rows(found(yolo), expected["rainy"])
    assert len(list(make_yolo().parameters())) == parameters


def test_works_after_training_state_changes(blur):
    yolo = attach(make_yolo(), blur)
    found(yolo)
    yolo.load(make_yolo(seed=1).model)

    assert same_rows(found(yolo), found(make_yolo(seed=1), blurred()))
    assert Blur.name == yolo.predictor.settings.derainer.name


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data folder")
@pytest.mark.parametrize("on_device", [False, True], ids=["stock", "device"])
def test_real_detector_equals_stock_predict_on_derained_files(on_device, tmp_path):
    derainer = Derainer("median", device="cpu")
    rainy = [SHARED / "coco128-rain100h" / "rainy" / f"{i:012d}.jpg" for i in (9, 25, 34)]
    for path in rainy:
        derained = derainer(cv2.imread(str(path))[..., ::-1].copy())
        cv2.imwrite(str(tmp_path / f"{path.stem}.png"), derained[..., ::-1])
    yolo = YOLO(SHARED / "detectors" / "yolov8n-coco.pt")
    base = yolo.task_map["detect"]["predictor"]
    options = {"conf": 0.01, "imgsz": 320, "verbose": False}

    theirs = [yolo.predict(tmp_path / f"{p.stem}.png", **options)[0].boxes.data for p in rainy]
    bound = bind_predictor(base, Settings(derainer, on_device=on_device))
    ours = [yolo.predict(p, predictor=bound, **options)[0].boxes.data for p in rainy]

    assert sum(map(len, theirs)) > 20
    assert all(same_rows(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_derainer_keeps_its_cpu_threads(tmp_path):
    """ultralytics takes threads from the process when it chooses the CPU; derainers need them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = []

    def derain(frames):
        seen.append(torch.get_num_threads())
        return frames

    try:
        yolo = attach(make_yolo("detect"), derain)
        yolo.predict(make_frame(64, 64, 0), imgsz=64, device="cpu", verbose=False)
        assert seen == [2]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Late(Derainer):
    """As on a GPU: the call returns, `check` tells."""

    def __call__(self, frames):
        self._unchecked.finite = torch.tensor(False)
        return frames


@pytest.mark.parametrize("where", ["frame", "network"])
def test_values_that_are_not_finite_stop_the_prediction(where):
    yolo = attach(make_yolo(), Late("none", device="cpu"), where)
    with pytest.raises(RainmerError, match="none gave values that are not finite"):
        yolo.predict(make_frame(60, 90), **OPTIONS)
