"""Jobs in batches: each gets its own answer, and only what is alike shares a batch."""

from concurrent.futures import Future, wait

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.serve.batching import Batcher, Job
from detection.serve.changes import compare
from detection.serve.engine import Engine
from detection.serve.metrics import Metrics
from detection.types import Detections
from rainmer import Derainer
from rainmer.errors import RainmerError
from tests.detection.serve.conftest import Bright, lamps


def darken(batch):
    return batch * 0.5


@pytest.fixture(scope="module")
def batcher():
    made = Batcher(Engine(Derainer(darken, device="cpu", batch=4), Bright()), 0.002, Metrics())
    made.start()
    assert made.ready.wait(20)
    yield made
    made.close()


JOBS = st.lists(
    st.tuples(
        st.sampled_from(["derain", "detect", "plain", "compare"]),
        st.sampled_from([(8, 9), (9, 8), (16, 16)]),
        st.integers(16, 255),  # `Bright` fails on sevens, also halved ones
        st.booleans(),
    ),
    max_size=20,
)


@settings(max_examples=20)
@given(JOBS)
def test_each_job_gets_the_answer_of_its_own_frame(batcher, asked):
    jobs = [
        Job(kind, np.full((*size, 3), v, np.uint8), str(i))
        for i, (kind, size, v, _) in enumerate(asked)
    ]
    gone = {
        job.name
        for job, (*_, cancel) in zip(jobs, asked, strict=True)
        if cancel and job.done.cancel()
    }
    done = [batcher.submit(job) for job in jobs]
    for job, future in zip(jobs, done, strict=True):
        if job.name in gone:
            assert future.cancelled()
            continue
        answer = future.result(20)
        assert answer.processed.name == job.name
        halved = np.full_like(job.frame, np.rint(job.frame[0, 0, 0] / 2 + 1e-6))
        expected = job.frame if job.kind == "plain" else halved
        assert np.abs(answer.processed.derained.astype(int) - expected).max() <= 1
        np.testing.assert_array_equal(answer.processed.frame, job.frame)
        assert (answer.in_rainy is not None) == (job.kind == "compare")


def test_frames_that_wait_run_together(batcher):
    detector = batcher._engine.detector
    detector.go.clear()
    first = batcher.submit(Job("detect", lamps()))
    while not first.running():
        pass
    detector.batches.clear()
    done = [batcher.submit(Job("detect", lamps(seed=i))) for i in range(6)]
    done.append(batcher.submit(Job("detect", lamps((40, 64)))))
    detector.go.set()
    assert wait([first, *done], 20).not_done == set()
    assert detector.batches == [1, 4, 2, 1]


def test_what_waits_is_computed_at_the_end_and_nothing_after_it():
    detector = Bright()
    made = Batcher(Engine(Derainer("none", device="cpu"), detector), 5.0, Metrics())
    made.start()
    done = made.submit(Job("detect", lamps()))
    made.close()
    assert len(done.result(0).processed.detections) > 0
    with pytest.raises(RainmerError, match="shutting down"):
        made.submit(Job("detect", lamps()))


def test_networks_that_cannot_be_used():
    made = Batcher(Engine(Derainer(lambda batch: batch / 0, device="cpu"), Bright()), 0, Metrics())
    done = made.submit(Job("detect", lamps()))
    made.start()
    with pytest.raises(RainmerError, match="not finite"):
        done.result(20)
    assert "not finite" in str(made.failure)
    assert not made.ready.is_set()
    made.close()


def test_a_gate_that_lets_a_frame_through_saves_the_second_detection():
    detector = Bright()
    engine = Engine(Derainer("gate:1:median", device="cpu"), detector)
    (answer,) = engine("compare", [lamps()], [""], [None])
    assert not answer.processed.decision.derain
    assert answer.in_rainy is answer.processed.detections
    assert detector.batches == [1]


BOXES = st.lists(
    st.tuples(*[st.integers(0, most) for most in (9, 9, 4, 4, 1)]),
    max_size=8,
)


def detections(boxes):
    corners = [[x, y, x + w, y + h] for x, y, w, h, _ in boxes]
    scores = [0.9 - 0.01 * i for i in range(len(boxes))]
    return Detections(corners, scores, [box[4] for box in boxes])


@given(BOXES, BOXES)
def test_found_and_lost_are_what_has_no_partner(before, after):
    rainy, derained = detections(before), detections(after)
    found, lost = compare(rainy, derained)
    assert (len(found), len(lost)) == (len(after), len(before))
    assert len(after) - found.sum() == len(before) - lost.sum()
    same = compare(rainy, rainy)
    areas = np.array([w * h for _, _, w, h, _ in before], bool)
    assert not same.found[areas].any() or not areas.any()


def test_futures_of_jobs_are_their_own():
    assert isinstance(Job("derain", lamps()).done, Future)
    assert Job("derain", lamps()).done is not Job("derain", lamps()).done
