"""Steps whose results stay on the device, as on a GPU: here the device is the CPU."""

import copy
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rainmer.config import from_mapping
from rainmer.errors import RainmerError
from rainmer.train import run as run_module
from rainmer.train import step as step_module
from rainmer.train.config import TrainConfig
from rainmer.train.finite import named_tensors
from rainmer.train.mixture import Batch
from rainmer.train.step import PendingResult, Trainer
from tests.rainmer.train.test_run import losses, run

READS = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.masked_select")


class Reads(TorchDispatchMode):
    """Notes the operations that wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if str(function).startswith(READS):
            self.seen.append(str(function))
        return function(*arguments, **(options or {}))


@pytest.fixture
def config(run_mapping):
    return from_mapping(TrainConfig, run_mapping)


def trainer(config, *, deferred):
    torch.manual_seed(0)
    network = config.build_network().to(memory_format=torch.channels_last).train()
    trainer = Trainer(network, config, deferred=deferred)
    trainer.fill_archives([batch(-i) for i in range(1, 5)])
    return trainer


def batch(number):
    generator = torch.Generator().manual_seed(number)

    def images(*shape):
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    query = (2, 3, 32, 32)
    return Batch(
        images(4, 3, 16, 16), images(4, 3, 16, 16), images(*query), images(*query),
        images(2, 2, 3, 32, 32),
    )  # fmt: skip


def flat(state):
    return {k: v.clone() for k, v in named_tensors(state) if "momentum" not in k}


def test_results_read_later_are_those_read_at_once(config):
    now, later = (trainer(config, deferred=deferred) for deferred in (False, True))
    expected = [now.step([batch(i)]) for i in range(4)]
    pending = [later.step([batch(i)]) for i in range(4)]
    assert all(isinstance(result, PendingResult) for result in pending)
    for result, other in zip(later.read(pending), expected, strict=True):
        assert result.losses == pytest.approx(other.losses, rel=1e-3)
        assert result.grad_norm == pytest.approx(other.grad_norm, rel=1e-2)
        assert (result.lr, result.skipped, result.broken) == (other.lr, False, None)
    for key, value in now.average.weights.items():
        assert (later.average.weights[key] - value).abs().mean() < 1e-3, key
    assert later.average.state_dict()["updates"] == 4


def test_nothing_is_read_during_a_step(config, monkeypatch):
    own = trainer(config, deferred=True)
    pending = [own.step([batch(0)])]

    def forbidden(tensor, *arguments):
        raise AssertionError("a tensor was read during a step")

    with Reads() as reads, monkeypatch.context() as patch:
        for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__float__", "__int__"):
            patch.setattr(torch.Tensor, name, forbidden)
        pending.append(own.step([batch(1)]))
    assert reads.seen == []
    assert len(own.read(pending)) == 2


def test_a_step_that_is_not_finite_changes_nothing_and_is_named(config, monkeypatch, caplog):
    own = trainer(config, deferred=True)
    results = [own.step([batch(0)])]
    before = flat({**own.state_dict(), "archives": {}})
    original = step_module.PIXEL_LOSSES["charbonnier_ssim"]

    def broken(restored, target):
        loss = original(restored, target)
        return loss._replace(total=loss.total * float("nan"))

    with monkeypatch.context() as patch:
        patch.setitem(step_module.PIXEL_LOSSES, "charbonnier_ssim", broken)
        results.append(own.step([batch(1)]))
    name, parameter = list(own.network.named_parameters())[-1]
    handle = parameter.register_hook(lambda gradient: gradient * float("inf"))
    results.append(own.step([batch(2)]))
    handle.remove()
    after = flat({**own.state_dict(), "archives": {}})
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    results.append(own.step([batch(3)]))
    with caplog.at_level("WARNING"):
        read = own.read(results)
    assert [result.skipped for result in read] == [False, True, True, False]
    assert [record.getMessage() for record in caplog.records] == [
        "step skipped: not finite: total",
        f"step skipped: the gradient of {name} is not finite",
    ]
    assert own.average.state_dict()["updates"] == 2


@pytest.mark.parametrize("deferred", [False, True])
def test_either_goes_on_from_the_other(config, deferred):
    first, second = trainer(config, deferred=not deferred), trainer(config, deferred=deferred)
    first.step([batch(0)])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    results = [own.read([own.step([batch(1)])])[0] for own in (first, second)]
    assert results[0].losses == pytest.approx(results[1].losses, rel=1e-4)
    assert bool(second.optimisers[0].param_groups[0]["fused"]) is deferred


def test_a_run_reads_results_where_it_logs_or_saves(tmp_path, run_mapping, monkeypatch):
    monkeypatch.setattr(run_module, "Trainer", partial(Trainer, deferred=True))
    original, counts = Trainer.read, []

    def read(own, results):
        counts.append(len(results))
        return original(own, results)

    monkeypatch.setattr(Trainer, "read", read)
    run_mapping.update(log_every=4, save_every=5)
    run(run_mapping, tmp_path / "run")
    assert counts == [4, 1, 1]  # the log, the checkpoint, the end
    assert losses(tmp_path / "run").keys() == {4, 6}


def test_a_run_that_stays_not_finite_ends_at_the_next_reading(tmp_path, run_mapping, monkeypatch):
    monkeypatch.setattr(run_module, "Trainer", partial(Trainer, deferred=True))
    original = step_module.PIXEL_LOSSES["charbonnier_ssim"]

    def broken(restored, target):
        loss = original(restored, target)
        return loss._replace(total=loss.total * float("nan"))

    monkeypatch.setitem(step_module.PIXEL_LOSSES, "charbonnier_ssim", broken)
    run_mapping.update(max_skipped=2, log_every=3)
    with pytest.raises(RainmerError, match=r"not finite in 2 steps in a row, up to step 2: lower"):
        run(run_mapping, tmp_path / "run")
