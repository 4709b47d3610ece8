import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detection.yolo import DerainPredictor
from detection.yolo.binding import Settings
from detection.yolo.letterbox import place
from detection.yolo.predictor import bind_predictor
from rainmer.errors import ImageError, RainmerError
from tests.detection.conftest import Blur, make_frame, make_yolo
from tests.numerics import same_rows

OPTIONS = {"imgsz": 128, "conf": 0.1, "verbose": False}
TASKS = ("detect", "segment", "pose", "obb")


def bgr_frames(*sizes: tuple[int, int]) -> list[np.ndarray]:
    return [make_frame(*size, seed=i)[..., ::-1].copy() for i, size in enumerate(sizes)]


def data_of(result) -> torch.Tensor:
    """Everything numerical that a result holds, one row per detection."""
    boxes = result.obb if result.boxes is None else result.boxes
    parts = [boxes.data.flatten(1)]
    if result.keypoints is not None:
        parts.append(result.keypoints.data.flatten(1))
    if result.masks is not None:
        parts.append(result.masks.data.float().mean((1, 2))[:, None])
    return torch.cat(parts, dim=1)


def assert_same_results(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    assert sum(len(result) for result in theirs) > 10
    for mine, other in zip(ours, theirs, strict=True):
        assert same_rows(data_of(mine), data_of(other))


@pytest.mark.parametrize("on_device", [False, True], ids=["stock", "device"])
@pytest.mark.parametrize("task", TASKS)
def test_equals_stock_predict_on_derained_frames(task, on_device):
    yolo, blur = make_yolo(task), Blur()
    base = yolo.task_map[task]["predictor"]
    frames = bgr_frames((90, 120), (90, 120), (70, 60))
    bound = bind_predictor(base, Settings(blur, on_device=on_device))

    rainy = yolo.predict(frames, **OPTIONS)
    theirs = yolo.predict([cv2.blur(f, (3, 3)) for f in frames], **OPTIONS)
    ours = yolo.predict(frames, predictor=bound, **OPTIONS)

    assert_same_results(ours, theirs)
    assert any(not same_rows(data_of(a), data_of(b)) for a, b in zip(rainy, theirs, strict=True))


@pytest.mark.parametrize("sizes", [[(90, 120)], [(37, 128)] * 2, [(90, 120), (120, 90)]])
@pytest.mark.parametrize("rect", [True, False])
def test_device_path_prepares_what_the_stock_path_prepares(sizes, rect):
    yolo, blur = make_yolo(), Blur()
    frames = bgr_frames(*sizes)
    prepared = []
    for on_device in (False, True):
        bound = bind_predictor(
            yolo.task_map["detect"]["predictor"], Settings(blur, on_device=on_device)
        )
        yolo.predict(frames, predictor=bound, rect=rect, **OPTIONS)
        prepared.append(yolo.predictor.preprocess(frames))

    assert prepared[0].dtype == prepared[1].dtype
    assert torch.equal(*prepared)


def test_network_mode_derains_the_content_and_not_the_padding():
    yolo, blur = make_yolo(), Blur()
    frames = bgr_frames((90, 120), (60, 128))
    yolo.predict(frames, **OPTIONS)
    expected = yolo.predictor.preprocess(frames)
    for i, frame in enumerate(frames):
        rows, columns = place(frame.shape[:2], (128, 128)).content
        expected[i, :, rows, columns] = blur(expected[i : i + 1, :, rows, columns])[0]
    yolo.predict(frames, predictor=DerainPredictor.bind(blur, where="network"), **OPTIONS)

    prepared = yolo.predictor.preprocess(frames)

    assert torch.equal(prepared, expected)
    assert (prepared == 114 / 255).any()


@pytest.mark.parametrize("where", ["frame", "network"])
def test_tensors_are_derained_as_they_are_given(where):
    yolo, blur = make_yolo(), Blur()
    rainy = torch.from_numpy(make_frame(96, 128)).permute(2, 0, 1)[None].float() / 255

    ours = yolo.predict(rainy, predictor=DerainPredictor.bind(blur, where=where), **OPTIONS)
    theirs = make_yolo().predict(blur(rainy), **OPTIONS)

    assert_same_results(ours, theirs)
    assert np.array_equal(ours[0].orig_img[..., ::-1], make_frame(96, 128))


def test_every_kind_of_source_is_derained(tmp_path, blur):
    frame = make_frame(90, 120)
    bgr = frame[..., ::-1].copy()
    cv2.imwrite(str(tmp_path / "a.png"), bgr)
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (120, 90)
    )
    for _ in range(3):
        writer.write(bgr)
    writer.release()
    derained = make_yolo().predict(cv2.blur(bgr, (3, 3)), **OPTIONS)
    yolo, bound = make_yolo(), DerainPredictor.bind(blur)
    sources = [
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        str(tmp_path / "*.png"),
        bgr,
        Image.fromarray(frame),
        [str(tmp_path / "a.png")],
    ]

    for source in sources:
        assert_same_results(yolo.predict(source, predictor=bound, **OPTIONS), derained)

    video = list(yolo.predict(tmp_path / "clip.avi", predictor=bound, stream=True, **OPTIONS))
    assert len(video) == 3
    assert "derain" in video[0].speed
    assert blur.calls == len(sources) + 3


def test_same_class_so_that_the_predictor_is_kept(blur):
    yolo = make_yolo()
    for _ in range(3):
        yolo.predict(bgr_frames((64, 64)), predictor=DerainPredictor.bind(blur), **OPTIONS)
        first = yolo.predictor
        yolo.predict(bgr_frames((64, 64)), predictor=DerainPredictor.bind(blur), **OPTIONS)
        assert yolo.predictor is first

    assert DerainPredictor.bind(blur, where="network") is not DerainPredictor.bind(blur)
    assert DerainPredictor.bind(Blur()) is not DerainPredictor.bind(blur)


@pytest.mark.parametrize("on_device", [False, True], ids=["stock", "device"])
@pytest.mark.parametrize("draw_on", ["rainy", "derained"])
def test_results_show_the_frame_that_is_asked_for(draw_on, on_device, blur):
    yolo, frames = make_yolo(), bgr_frames((90, 120), (70, 60))
    base = yolo.task_map["detect"]["predictor"]
    bound = bind_predictor(base, Settings(blur, draw_on=draw_on, on_device=on_device))

    results = yolo.predict(frames, predictor=bound, **OPTIONS)

    for result, frame in zip(results, frames, strict=True):
        shown = frame if draw_on == "rainy" else cv2.blur(frame, (3, 3))
        assert np.array_equal(result.orig_img, shown)


def test_time_is_split_from_preprocess(blur):
    yolo = make_yolo()

    (result,) = yolo.predict(bgr_frames((64, 64)), predictor=DerainPredictor.bind(blur), **OPTIONS)

    assert set(result.speed) == {"derain", "preprocess", "inference", "postprocess"}
    assert result.speed["derain"] > 0
    assert yolo.predictor.speed["derain"] == pytest.approx(result.speed["derain"])


def test_gradients_are_off_inside_the_derainer():
    seen = []

    def derain(frames):
        seen.append(torch.is_inference_mode_enabled())
        return frames

    yolo = make_yolo()
    yolo.predict(bgr_frames((64, 64)), predictor=DerainPredictor.bind(derain), **OPTIONS)
    with torch.enable_grad(), torch.inference_mode(mode=False):
        yolo.predictor.preprocess(bgr_frames((64, 64)))

    assert seen == [True, True]


def test_names_are_passed_to_derainers_that_need_them(tmp_path):
    class Precomputed:
        needs_names = True
        name = "precomputed"

        def __call__(self, frames, names):
            self.names = names
            return frames

    derainer = Precomputed()
    cv2.imwrite(str(tmp_path / "a.b.png"), make_frame(64, 64))

    make_yolo().predict(tmp_path / "a.b.png", predictor=DerainPredictor.bind(derainer), **OPTIONS)

    assert derainer.names == ["a.b.png"]


def test_classifier_derains_frames_and_refuses_network_mode(blur):
    yolo, frame = make_yolo("classify"), make_frame(90, 120)[..., ::-1].copy()
    options = {"imgsz": 64, "verbose": False}

    theirs = yolo.predict(cv2.blur(frame, (3, 3)), **options)
    ours = yolo.predict(frame, predictor=DerainPredictor.bind(blur, "classify"), **options)

    assert same_rows(ours[0].probs.data[None], theirs[0].probs.data[None])
    with pytest.raises(RainmerError, match="use where='frame'"):
        yolo.predict(frame, predictor=DerainPredictor.bind(blur, "classify", "network"), **options)


def test_frames_of_other_types_are_refused(blur):
    yolo = make_yolo()

    with pytest.raises(ImageError, match="8-bit colour"):
        yolo.predict(
            np.zeros((64, 64, 3), np.float32), predictor=DerainPredictor.bind(blur), **OPTIONS
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "depths"}, "no task 'depths'"),
        ({"where": "pixels"}, "where must be one of frame, network"),
        ({"where": "network", "draw_on": "derained"}, "needs where='frame'"),
        ({"draw_on": "clean"}, "draw_on must be one of rainy, derained"),
    ],
)
def test_bad_options_are_named(arguments, message, blur):
    with pytest.raises(RainmerError, match=message):
        DerainPredictor.bind(blur, **arguments)


def test_specs_are_no_derainers():
    with pytest.raises(RainmerError, match=r"rainmer\.Derainer"):
        DerainPredictor.bind("median")
