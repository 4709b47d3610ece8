import threading
import time

import numpy as np
import pytest

from detection import Detections, Pipeline
from detection.pipeline import prefetch
from rainmer.errors import ImageError, RainmerError
from tests.detection.conftest import Blur, make_frame


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


def test_prefetch_reads_ahead_but_not_further():
    read = []
    items = prefetch((read.append(i) or i for i in range(100)), ahead=3)

    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(read) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)

    assert len(read) == 5  # one given, three waiting, one in hand
    items.close()


def test_prefetch_thread_ends_when_nobody_wants_more():
    before = threading.active_count()
    items = prefetch(iter(range(10**9)), ahead=2)
    next(items)
    items.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)

    assert threading.active_count() == before


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
