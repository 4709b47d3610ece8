"""Loading by processes: the same batches, and what happens when one dies."""

import contextlib
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch

from rainmer.errors import ConfigError, RainmerError
from rainmer.frames.images import write_image
from rainmer.train.config import DataConfig
from rainmer.train.loader import Loader, loader_processes
from rainmer.train.mixture import Mixture, SampleShape
from rainmer.train.sources import RainChoice, RenderedConfig, RenderedSource

SHAPES = (SampleShape(16, crops=2, query=16, negatives=1), SampleShape(24, query=16, classes=2))


@pytest.fixture
def mixture(tmp_path):
    """Three photos of 32 pixels, of which one cannot be read; a rendering serves two visits."""
    for i in range(3):
        write_image(tmp_path / "photos" / f"{i}.png", np.full((32, 32, 3), 60 * i, np.uint8))
    (tmp_path / "photos" / "3.png").write_bytes(b"no image")
    rain = {"day": RainChoice(), "none": RainChoice()}
    config = RenderedConfig(images=str(tmp_path / "photos"), rain=rain, window=28, reuse=2)
    return Mixture([RenderedSource("photos", config)], seed=0)


def read(loader):
    """Read two stages, and leave the first before its end."""
    found = []
    for shape, taken in zip(SHAPES, (3, 5), strict=True):
        numbers = (range(i * 3, i * 3 + 3) for i in range(1000 if taken == 3 else 5))
        with contextlib.closing(loader.batches(numbers, shape)) as batches:
            found += [next(batches) for _ in range(taken)]
            if taken == 5:
                assert next(batches, None) is None
    return found


def test_processes_do_not_change_what_is_loaded(mixture, monkeypatch):
    monkeypatch.setattr("rainmer.train.loader._PART", 2)
    state = torch.get_rng_state()
    results = []
    for options in ({"threads": 0}, {"threads": 2}, {"processes": 2}):
        with contextlib.closing(Loader(mixture, **options)) as loader:
            results.append((read(loader), loader.failures))
    (expected, failures), *others = results
    assert list(failures) == ["image 3 of photos"]
    for batches, own in others:
        assert own == failures
        for batch, other in zip(batches, expected, strict=True):
            torch.testing.assert_close(batch[:5], other[:5], rtol=0, atol=0)
            assert (batch.boxes is None) == (other.boxes is None)
            torch.testing.assert_close(batch.boxes or (), other.boxes or (), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_one_line(mixture, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    with contextlib.closing(Loader(mixture, processes=1)) as loader:
        batches = loader.batches((range(i, i + 1) for i in range(10**6)), SHAPES[1])
        next(batches)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(RainmerError, match=r"has died \(.*: if memory .* lower data") as caught:
            list(batches)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_mistakes_in_processes_are_one_line(mixture):
    with (
        contextlib.closing(Loader(mixture, processes=1)) as loader,
        pytest.raises(RainmerError, match=r"^4 of 4 images cannot be trained on, more than 1%"),
    ):
        list(loader.batches([range(4)], SampleShape(40)))


def test_processes_are_as_many_as_asked_for(monkeypatch):
    monkeypatch.setattr("rainmer.train.loader.usable_cpus", lambda: 16)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert loader_processes(DataConfig(), cpu) == 0
    assert loader_processes(DataConfig(), cuda) == 15
    assert loader_processes(DataConfig(processes=3), cpu) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert loader_processes(DataConfig(), cuda) == 3
    with pytest.raises(ConfigError, match=r"data\.processes is -1"):
        DataConfig(processes=-1)
