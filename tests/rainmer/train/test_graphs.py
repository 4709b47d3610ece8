"""Steps recorded as graphs: here operation by operation, on the CPU."""

import copy

import pytest
import torch

from rainmer.config import from_mapping
from rainmer.errors import ConfigError
from rainmer.train import step as step_module
from rainmer.train.config import TrainConfig
from rainmer.train.finite import named_tensors
from rainmer.train.mixture import Batch
from rainmer.train.step import Trainer
from rainmer.train.warming import made_up_batch, warm_up
from tests.rainmer.train.recording import StepStandIn
from tests.rainmer.train.test_deferred import batch


@pytest.fixture(autouse=True)
def early(monkeypatch):
    """Record the second step of a size."""
    monkeypatch.setattr("rainmer.train.graphs._EAGER_STEPS", 1)


@pytest.fixture
def config(run_mapping):
    run_mapping["stages"][0]["steps"] = 20
    return from_mapping(TrainConfig, run_mapping)


def trainer(config, engine=None):
    torch.manual_seed(0)
    network = config.build_network().to(memory_format=torch.channels_last).train()
    trainer = Trainer(network, config, deferred=True, engine=engine)
    trainer.fill_archives([batch(-i) for i in range(1, 5)])
    return trainer


def large(number):
    """Two crops of 32 pixels."""
    given = batch(number)
    sides = [crops[:2].repeat_interleave(2, 2).repeat_interleave(2, 3) for crops in given[:2]]
    return Batch(*sides, *given[2:])


def bright(number):
    given = batch(number)
    return given._replace(clean=torch.full_like(given.clean, 255))


def state(trainer):
    return {name: value.clone() for name, value in named_tensors(trainer.state_dict())}


def assert_same(trainer, other):
    first, second = state(trainer), state(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


BATCHES = [batch(0), batch(1), bright(2), batch(3), large(4), large(5), batch(6)]


def test_recorded_steps_are_those_of_before(config, losses_of_bright_crops_break):
    engine = StepStandIn()
    recorded, plain = trainer(config, engine), trainer(config)
    results = [[own.step([given]) for given in BATCHES] for own in (recorded, plain)]
    found, expected = (
        own.read(given) for own, given in zip((recorded, plain), results, strict=True)
    )
    assert [str(result) for result in found] == [str(result) for result in expected]
    assert [i for i, result in enumerate(found) if result.skipped] == [2]
    assert engine.recorded == 2
    assert recorded.graphs.replays == len(BATCHES) - 2
    assert_same(recorded, plain)


@pytest.mark.slow
def test_recorded_steps_go_on_from_a_checkpoint(config):
    recorded, whole = trainer(config, StepStandIn()), trainer(config)
    for i in range(2):
        recorded.step([batch(i + 9)])  # this recording is of no use after it has loaded
        whole.step([batch(i)])
    recorded.load_state_dict(copy.deepcopy(whole.state_dict()))
    for i in range(2, 5):
        recorded.step([batch(i)])
        whole.step([batch(i)])
    assert recorded.graphs.replays == 1 + 2
    assert_same(recorded, whole)


def test_several_passes_are_one_recording(run_mapping):
    run_mapping.update(accumulate=2, precision="bf16")
    run_mapping["stages"][0]["steps"] = 20
    config = from_mapping(TrainConfig, run_mapping)
    engine = StepStandIn()
    recorded, plain = trainer(config, engine), trainer(config)
    for i in range(2):
        for own in (recorded, plain):
            own.step([batch(i), batch(i + 20)])
    assert engine.recorded == 1
    assert_same(recorded, plain)


def test_steps_that_cannot_be_recorded_run_as_they_are(config, monkeypatch, caplog):
    recorded, plain = trainer(config, StepStandIn()), trainer(config)
    original = step_module.PIXEL_LOSSES["charbonnier_ssim"]

    def waiting(restored, target):
        restored.detach().mean().item()
        return original(restored, target)

    monkeypatch.setitem(step_module.PIXEL_LOSSES, "charbonnier_ssim", waiting)
    with caplog.at_level("WARNING"):
        for i in range(3):
            for own in (recorded, plain):
                own.step([batch(i)])
    (record,) = caplog.records
    assert record.getMessage().startswith("no CUDA graph of training steps, going on without: ")
    assert recorded.graphs.replays == 0
    assert_same(recorded, plain)


def test_graphs_that_cannot_be_are_refused(run_mapping):
    run_mapping.update(graphs=True)
    with pytest.raises(ConfigError, match="graphs: true needs a CUDA device"):
        trainer(from_mapping(TrainConfig, run_mapping))


def test_warming_up_changes_nothing(config):
    own = trainer(config)
    before = state(own)
    warm_up(own)
    assert all(torch.equal(value, before[name]) for name, value in state(own).items())
    made_up = made_up_batch(config, 2)
    assert [tensor.shape for tensor in made_up[:5]] == [tensor.shape for tensor in batch(0)[:5]]
