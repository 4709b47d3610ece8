"""Training on a CUDA device."""

import contextlib

import pytest
import torch

from rainmer.config import from_mapping
from rainmer.train import step as step_module
from rainmer.train.config import TrainConfig
from rainmer.train.loader import Loader
from rainmer.train.mixture import Mixture, SampleShape
from rainmer.train.sources import RainChoice, RenderedConfig, RenderedSource
from rainmer.train.step import PendingResult, Trainer
from tests.rainmer.train.test_deferred import batch
from tests.rainmer.train.test_graphs import bright, large
from tests.rainmer.train.test_run import losses, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_device_trains_as_the_cpu_does(tmp_path, run_mapping):
    run(run_mapping, tmp_path / "cpu")
    run(run_mapping, tmp_path / "cuda", device="cuda")
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=5e-3)


@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_trains(tmp_path, run_mapping, compiled):
    run_mapping.update(precision="bf16", compile=compiled)
    run(run_mapping, tmp_path / "run", device="cuda")
    assert len(losses(tmp_path / "run")) == 6


def test_a_run_goes_on_exactly_on_the_device(tmp_path, run_mapping):
    run(run_mapping, tmp_path / "whole", device="cuda")
    for _ in range(2):
        run(run_mapping, tmp_path / "parts", device="cuda", max_steps=3)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)


def test_processes_feed_the_device_the_same_samples(tmp_path, run_mapping):
    run(run_mapping, tmp_path / "threads", device="cuda")
    run_mapping["data"]["processes"] = 2
    run(run_mapping, tmp_path / "processes", device="cuda")
    expected = losses(tmp_path / "threads")
    assert losses(tmp_path / "processes") == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("processes", [0, 2])
def test_the_device_renders_its_samples(tmp_path, run_mapping, photos, processes):
    run_mapping["data"]["rendered"] = {
        "photos": {
            "images": str(photos),
            "rain": {name: {} for name in ("day", "night", "streaks", "layers", "none")},
            "window": 40,
            "frame_width": [400, 900],
        }
    }
    run(run_mapping, tmp_path / "loader", device="cuda")
    run_mapping["data"].update(rendering="device", rendering_ahead=6, processes=processes)
    for _ in range(2):
        run(run_mapping, tmp_path / "device", device="cuda", max_steps=3)
    assert losses(tmp_path / "device") == pytest.approx(losses(tmp_path / "loader"), rel=2e-2)


def test_batches_rendered_ahead_are_complete_for_every_stream(photos):
    """Each is compared on a stream that has waited for nothing, while more are made."""
    rain = {"day": RainChoice(), "layers": RainChoice()}
    config = RenderedConfig(images=str(photos), rain=rain, window=40)
    mixture = Mixture([RenderedSource("photos", config)], seed=0)
    shape = SampleShape(16, crops=2, query=32, negatives=2)
    numbers = [range(4 * i, 4 * i + 4) for i in range(24)]
    expected = list(Loader(mixture, threads=0).batches(numbers, shape))
    device = torch.device("cuda")
    loader = Loader(mixture, threads=2, pin=True, renders_on=device, windows=16)
    with contextlib.closing(loader):
        for batch, other in zip(loader.batches(numbers, shape), expected, strict=True):
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                copies = [tensor.to("cpu", non_blocking=True) for tensor in batch[:5]]
            stream.synchronize()
            for own, wanted in zip(copies, other[:5], strict=True):
                assert ((own.int() - wanted.int()).abs() > 1).float().mean() < 2e-2


def test_a_step_waits_for_nothing_and_skips_on_the_device(run_mapping, monkeypatch):
    run_mapping["contrast_weight"] = 0.0  # the singular values of the rain wait for cuSOLVER
    config = from_mapping(TrainConfig, run_mapping)
    network = config.build_network().to("cuda", memory_format=torch.channels_last).train()
    trainer = Trainer(network, config)
    results = [trainer.step([batch(i)]) for i in range(2)]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    original = step_module.PIXEL_LOSSES["charbonnier_ssim"]

    def broken(restored, target):
        loss = original(restored, target)
        return loss._replace(total=loss.total * float("nan"))

    monkeypatch.setitem(step_module.PIXEL_LOSSES, "charbonnier_ssim", broken)
    torch.cuda.set_sync_debug_mode("error")
    try:
        results.append(trainer.step([batch(2)]))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(isinstance(result, PendingResult) for result in results)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert [result.skipped for result in trainer.read(results)] == [False, False, True]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_steps_are_those_of_before(run_mapping, precision, losses_of_bright_crops_break):
    run_mapping["stages"][0]["steps"] = 20
    batches = [*map(batch, range(5)), bright(5), *map(large, range(6, 11)), batch(11)]
    results, averages = {}, {}
    for graphs in (True, False):
        run_mapping.update(graphs=graphs, precision=precision)
        config = from_mapping(TrainConfig, run_mapping)
        torch.manual_seed(0)
        network = config.build_network().to("cuda", memory_format=torch.channels_last).train()
        trainer = Trainer(network, config)
        trainer.fill_archives(map(batch, range(-4, 0)))
        results[graphs] = trainer.read([trainer.step([given]) for given in batches])
        averages[graphs] = trainer.average.weights
        assert trainer.graphs.replays == (len(batches) - 2 * 3 if graphs else 0)
    tolerance = 1e-3 if precision == "fp32" else 2e-2
    for result, other in zip(results[True], results[False], strict=True):
        assert result.losses == pytest.approx(other.losses, rel=tolerance, nan_ok=True)
        assert (result.skipped, result.broken, result.lr) == (other.skipped, None, other.lr)
    assert [result.skipped for result in results[True]].count(True) == 1
    for name, value in averages[True].items():
        assert (value - averages[False][name]).abs().mean() < 1e-3, name
