"""A derainer that several threads share, or that goes to another process."""

import copy
import functools
import multiprocessing
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
import torch

from rainmer import Derainer, models
from rainmer.errors import RainmerError, WeightsError
from rainmer.stage.results import PrecomputedResults, make_derainer


def frame(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def halve(batch):
    return batch * 0.5


class Hesitant(Derainer):
    def check(self):
        time.sleep(0.002)
        super().check()


def in_two_threads(first, second):
    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def caught(derainer, batch, errors, *, times=200):
    for _ in range(times):
        try:
            derainer(batch)
            derainer.check()
        except RainmerError:
            errors.append(batch)


def two_threads_of(derainer, device):
    good = torch.zeros(1, 3, 8, 8, device=device)
    bad = torch.full_like(good, float("nan"))
    errors = {"good": [], "bad": []}
    in_two_threads(
        functools.partial(caught, derainer, good, errors["good"]),
        functools.partial(caught, derainer, bad, errors["bad"]),
    )
    return {name: len(found) for name, found in errors.items()}


def test_an_error_arises_in_the_thread_that_caused_it():
    assert two_threads_of(Hesitant(halve, device="cpu"), "cpu") == {"good": 0, "bad": 200}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_an_error_on_the_gpu_arises_in_the_thread_that_caused_it():
    assert two_threads_of(Hesitant(halve, device="cuda"), "cuda") == {"good": 0, "bad": 200}


def test_results_that_wait_for_a_check_are_those_of_the_thread(monkeypatch):
    """As on a GPU, where a call with tensors returns before it knows."""
    derainer = Derainer(halve, device="cpu")
    finite = {"good": torch.tensor(True), "bad": torch.tensor(False)}
    raised = {"good": 0, "bad": 0}
    barrier = threading.Barrier(2)

    def run(name):
        for _ in range(20):
            derainer._unchecked.finite = finite[name]
            barrier.wait()
            try:
                derainer.check()
            except RainmerError:
                raised[name] += 1
            barrier.wait()
            derainer.check()

    in_two_threads(lambda: run("good"), lambda: run("bad"))
    assert raised == {"good": 0, "bad": 20}


def test_threads_that_run_out_of_memory_together_halve_once():
    barrier, failed = threading.Barrier(2, timeout=10), set()

    def hungry(batch):
        thread = threading.get_ident()
        if thread not in failed:
            failed.add(thread)
            barrier.wait()
            raise MemoryError
        return batch

    derainer = Derainer("none", device="cpu")
    derainer._restorer.function, derainer._restorer.tileable = hungry, True
    in_two_threads(lambda: derainer(frame(100, 200)), lambda: derainer(frame(100, 200)))
    assert derainer._runner._pixel_budget == 10_000


def test_one_result_serves_one_frame_whichever_thread_asks(tmp_path):
    from rainmer.frames.images import write_image

    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, frame(4, 6))
    derainer, errors = make_derainer(f"results:{tmp_path}"), []

    def look_up(folder):
        try:
            derainer([frame(4, 6)], names=[f"{folder}/a.png"])
        except RainmerError as error:
            errors.append(str(error))

    in_two_threads(lambda: look_up("day"), lambda: look_up("night"))
    assert len(errors) == 1
    assert isinstance(pickle.loads(pickle.dumps(derainer)), PrecomputedResults)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("rainmer-s", {"tile": 64, "overlap": 8, "tile_by": "short"}),
        ("blend:0.5:median", {"truncate": True}),
        (halve, {"batch": 3}),
    ],
)
def test_pickles_and_copies_derain_alike(spec, options):
    derainer = Derainer(spec, device="cpu", **options)
    expected = derainer(frame(70, 66))
    for twin in (pickle.loads(pickle.dumps(derainer)), copy.deepcopy(derainer)):
        np.testing.assert_array_equal(twin(frame(70, 66)), expected)
        assert (twin.batch, twin.truncate, twin.device) == (
            derainer.batch,
            derainer.truncate,
            derainer.device,
        )


def test_a_pickle_of_weights_that_have_changed_is_refused(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    models.save_weights(path, models.build("prenet", iterations=1))
    pickled = pickle.dumps(Derainer(f"prenet:{path}", device="cpu"))
    models.save_weights(path, models.build("prenet", iterations=1))
    with pytest.raises(WeightsError, match=r"net\.safetensors has changed since it was pickled"):
        pickle.loads(pickled)


def exits_within(seconds, work):
    """Run work in a fork; tell whether it ended by itself, and well."""
    child = os.fork()
    if not child:
        signal.alarm(seconds)
        try:
            work()
            os._exit(0)
        finally:  # never back into the tests
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
@pytest.mark.parametrize("spec", ["median", torch.nn.Conv2d(3, 3, 3, padding=1)])
def test_a_forked_process_derains(spec):
    derainer = Derainer(spec, device="cpu")
    torch.set_num_threads(2)
    expected = derainer(frame(200, 200))  # leaves threads that a fork does not copy

    def work():
        assert np.abs(derainer(frame(200, 200)).astype(int) - expected).max() <= 1

    assert exits_within(20, work)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_pool_of_forked_processes_derains():
    derainer = Derainer("median", device="cpu")
    torch.set_num_threads(2)
    frames = [frame(200, 200, seed) for seed in range(3)]
    expected = derainer(frames)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for restored, alone in zip(
            pool.map_async(derainer, frames).get(timeout=20), expected, strict=True
        ):
            np.testing.assert_array_equal(restored, alone)
