import time

import numpy as np
import pytest
import torch

from detection import Detections, Pipeline, StreamError, YoloDetector
from rainmer import Derainer
from rainmer.errors import ImageError, RainmerError
from tests.detection.conftest import Blur, make_frame, make_yolo, table_of
from tests.numerics import same_rows


class Mean:
    """A detector that finds one box per frame, its label the frame's mean."""

    name = "mean"
    names: dict[int, str] = {}  # noqa: RUF012

    def __init__(self):
        self.batches = []

    def __call__(self, frames):
        self.batches.append(len(frames))
        return [Detections([[0, 0, 1, 1]], [1.0], [int(frame.mean())]) for frame in frames]


def darken(frames):
    return [frame // 2 for frame in frames]


def flat(value: int) -> np.ndarray:
    return np.full((8, 10, 3), value, np.uint8)


def labels(found) -> list[int]:
    return [int(detections.labels[0]) for detections in found]


def test_detects_in_derained_frames():
    pipeline = Pipeline(darken, Mean())

    assert labels(pipeline([flat(100), flat(50)])) == [50, 25]
    assert pipeline([]) == []


def test_run_keeps_order_names_and_both_frames():
    detector = Mean()
    source = ((f"frame{i}", flat(2 * i)) for i in range(5))

    results = list(Pipeline(darken, detector).run(source, batch=2))

    assert [r.name for r in results] == [f"frame{i}" for i in range(5)]
    assert [int(r.frame[0, 0, 0]) for r in results] == [0, 2, 4, 6, 8]
    assert [int(r.derained[0, 0, 0]) for r in results] == [0, 1, 2, 3, 4]
    assert labels(r.detections for r in results) == [0, 1, 2, 3, 4]
    assert detector.batches == [2, 2, 1]
    assert all(r.derain_ms >= 0 and r.detect_ms >= 0 for r in results)


def test_unnamed_frames_are_counted():
    results = Pipeline(darken, Mean()).run([flat(0), flat(1)])

    assert [r.name for r in results] == ["0", "1"]


def test_time_is_that_of_each_step():
    def slow(frames):
        time.sleep(0.05)
        return frames

    (result,) = Pipeline(slow, Mean()).run([flat(0)])

    assert result.derain_ms >= 50 > result.detect_ms


def test_errors_of_the_source_arrive_after_the_frames_before_it():
    def source():
        yield flat(0)
        raise ImageError("no more")

    results = Pipeline(darken, Mean()).run(source(), batch=1)

    next(results)
    with pytest.raises(ImageError, match="no more"):
        next(results)


def test_batch_below_one_is_refused():
    with pytest.raises(RainmerError, match="batch must be at least 1"):
        list(Pipeline(darken, Mean()).run([], batch=0))


def test_names_reach_derainers_that_need_them():
    class Precomputed:
        needs_names = True

        def __call__(self, frames, names):
            self.names = names
            return frames

    derainer = Precomputed()
    Pipeline(derainer, Mean())([flat(0), flat(1)], names=["a.png", "b.png"])

    assert derainer.names == ["a.png", "b.png"]


def test_mixed_sizes():
    pipeline = Pipeline(Blur(), Mean())

    assert len(pipeline([make_frame(9, 12), make_frame(20, 5)])) == 2


def collect(results) -> dict[str, list]:
    streams: dict[str, list] = {}
    for name, processed in results:
        streams.setdefault(name, []).append(processed)
    return streams


def test_streams_share_batches_and_come_apart_again():
    detector = Mean()
    sources = {"left": [flat(2), flat(4), flat(6)], "right": [flat(20), flat(40)]}

    streams = collect(Pipeline(darken, detector).run_streams(sources, batch=4))

    assert detector.batches == [4, 1]
    for results, expected in ((streams["left"], [1, 2, 3]), (streams["right"], [10, 20])):
        assert results.pop() is None  # the end
        assert [r.name for r in results] == [str(i) for i in range(len(expected))]
        assert labels(r.detections for r in results) == expected


def test_sizes_that_differ_and_change():
    sources = {
        "changing": [make_frame(*size, seed=1) for size in ((9, 12), (9, 12), (20, 6), (9, 12))],
        "other": [make_frame(16, 16, seed=i) for i in range(4)],
    }
    derainer = Derainer("median", device="cpu")

    streams = collect(Pipeline(derainer, Mean()).run_streams(sources, batch=3))

    for name, frames in sources.items():
        for result, frame in zip(streams[name][:-1], frames, strict=True):
            assert np.array_equal(result.frame, frame)
            assert np.array_equal(result.derained, derainer(frame))


def test_a_stream_that_fails_is_told_at_the_end():
    def broken():
        yield flat(8)
        raise ImageError("no signal")

    got = []
    with pytest.raises(StreamError, match=r"^1 of the streams failed: b: no signal$") as caught:
        got.extend(
            Pipeline(darken, Mean()).run_streams({"b": broken(), "a": [flat(2)] * 4}, batch=2)
        )

    assert isinstance(caught.value.errors["b"], ImageError)
    assert {name: len(results) for name, results in collect(got).items()} == {"b": 2, "a": 5}


def test_an_interruption_of_a_stream_interrupts_all():
    def interrupted():
        yield flat(8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Pipeline(darken, Mean()).run_streams({"a": interrupted(), "b": [flat(2)] * 4}))


def test_live_streams_do_not_wait_for_a_batch():
    detector = Mean()

    def camera():
        for i in range(3):
            while len(detector.batches) < i:  # the next frame comes once the last was detected
                time.sleep(0.001)
            yield flat(2 * i)

    results = list(Pipeline(darken, detector).run(camera(), batch=8, live=True))

    assert detector.batches == [1, 1, 1]
    assert labels(r.detections for r in results) == [0, 1, 2]


@pytest.fixture(scope="module")
def yolo_detector():
    return YoloDetector(make_yolo(), device="cpu", imgsz=96, conf=0.1, batch=2)


MIXED = [(60, 90), (60, 90), (40, 96), (60, 90), (192, 128)]


@pytest.mark.parametrize("download", [False, True])
def test_device_path_equals_the_array_path(download, yolo_detector):
    frames = [make_frame(*size, seed=i) for i, size in enumerate(MIXED)]
    before = [frame.copy() for frame in frames]
    derainer = Derainer("median", device="cpu", batch=2)

    arrays = Pipeline(derainer, yolo_detector, on_device=False).process(frames)
    device = Pipeline(derainer, yolo_detector, on_device=True).process(frames, download=download)

    assert sum(len(one.detections) for one in arrays) > 50
    for one, other, frame in zip(arrays, device, before, strict=True):
        assert same_rows(table_of(one.detections), table_of(other.detections))
        assert np.array_equal(one.derained, other.derained)
        assert np.array_equal(other.frame, frame)
        assert other.stage_ms["upload"] > 0
        assert other.stage_ms["letterbox"] > 0


def test_frames_on_a_device_stay_there_until_they_are_read(yolo_detector, monkeypatch):
    arrays = [make_frame(*size, seed=i) for i, size in enumerate(MIXED)]
    frames = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    derainer = Derainer("median", device="cpu", batch=2)
    expected = Pipeline(derainer, yolo_detector, on_device=True).process(arrays)
    seen, detect = [], yolo_detector.detect_batch
    monkeypatch.setattr(yolo_detector, "detect_batch", lambda b: seen.append(b) or detect(b))

    def crossing(*_arguments):
        raise AssertionError("frames went through the host")

    with monkeypatch.context() as patch:
        for name in ("upload", "download"):
            patch.setattr(f"detection.pipeline.{name}", crossing)
            patch.setattr(f"rainmer.stage.derainer.{name}", crossing)
        results = Pipeline(derainer, yolo_detector, on_device=True).process(frames)

    assert [(tuple(b.shape), b.dtype) for b in seen] == [
        ((2, 3, 60, 90), torch.uint8),
        ((1, 3, 60, 90), torch.uint8),
        ((1, 3, 40, 96), torch.uint8),
        ((1, 3, 192, 128), torch.uint8),
    ]
    for one, other, array in zip(results, expected, arrays, strict=True):
        assert same_rows(table_of(one.detections), table_of(other.detections))
        assert one.size_hw == array.shape[:2]
        assert np.array_equal(one.frame, array)
        assert np.array_equal(one.derained, other.derained)


def test_frames_on_a_device_become_arrays_for_those_who_need_them():
    frames = [torch.from_numpy(flat(value)).permute(2, 0, 1) for value in (100, 50)]

    results = Pipeline(darken, Mean()).process(frames)

    assert labels(result.detections for result in results) == [50, 25]
    assert np.array_equal(results[0].frame, flat(100))


def test_device_path_notices_values_that_are_not_finite(yolo_detector):
    derainer = Derainer(lambda batch: batch * float("nan"), device="cpu")

    with pytest.raises(RainmerError, match="not finite"):
        Pipeline(derainer, yolo_detector, on_device=True)([make_frame(60, 90)])


def test_who_only_speaks_arrays_cannot_stay_on_the_device(yolo_detector):
    for derainer, detector in ((Blur(), yolo_detector), (Derainer("none", device="cpu"), Mean())):
        with pytest.raises(RainmerError, match="on_device needs"):
            Pipeline(derainer, detector, on_device=True)
        assert len(Pipeline(derainer, detector)([make_frame(60, 90)])) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_path_on_cuda():
    frames = [make_frame(*size, seed=i) for i, size in enumerate(MIXED)]
    derainer = Derainer("median", device="cuda", batch=2)
    detector = YoloDetector(make_yolo(), device="cuda:0", imgsz=96, conf=0.1, batch=2)

    arrays = Pipeline(derainer, detector, on_device=False).process(frames)
    for _ in range(3):  # the second time records, the third replays
        device = Pipeline(derainer, detector).process(frames, download=True)

    for one, other in zip(arrays, device, strict=True):
        assert len(one.detections) == len(other.detections) > 0
        assert np.allclose(one.detections.boxes_xyxy, other.detections.boxes_xyxy, atol=0.02)
        assert np.array_equal(one.derained, other.derained)
        assert other.stage_ms["upload"] > 0
