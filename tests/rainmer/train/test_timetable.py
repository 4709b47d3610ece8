"""Runs limited by time, by a clock that the steps move."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainmer.config import from_mapping
from rainmer.errors import ConfigError
from rainmer.files import read_lines
from rainmer.train import run as run_module
from rainmer.train.checkpoint import read_checkpoint
from rainmer.train.config import Stage, TrainConfig
from rainmer.train.run import CHECKPOINT, train
from rainmer.train.step import Trainer
from rainmer.train.timetable import Timetable
from tests.rainmer.train.test_run import losses, same, weights


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    """A clock that a step moves by a second and a validation by three."""
    clock = Clock()

    def moving(function, seconds):
        def moved(*arguments, **options):
            clock.seconds += seconds
            return function(*arguments, **options)

        return moved

    monkeypatch.setattr(Trainer, "step", moving(Trainer.step, 1.0))
    monkeypatch.setattr(run_module, "validate", moving(run_module.validate, 3.0))
    return clock


def timed(mapping, out, clock, **options):
    return train(from_mapping(TrainConfig, mapping), out, quiet=True, now=clock, **options)


def rows(out, name="lr"):
    return [line for line in read_lines(out / "log.jsonl") if name in line]


def test_a_run_of_minutes_passes_all_stages_and_ends_in_time_with_low_rates(
    tmp_path, run_mapping, clock
):
    run_mapping.update(minutes=0.15, save_every=1000)  # 9 steps of a second
    run_mapping["optimiser"] = {"lr": 0.001, "lowest": 1e-6}
    out = tmp_path / "run"
    started, crops, saved = clock(), [], []
    step, write = Trainer.step, run_module.write_checkpoint

    def stepping(trainer, batches):
        crops.append(batches[0].rainy.shape[-1])
        return step(trainer, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", stepping)
        patch.setattr(
            run_module,
            "write_checkpoint",
            lambda path, s: saved.append(s["step"]) or write(path, s),
        )
        timed(run_mapping, out, clock)
    assert saved == [1, 6, 9]  # to learn how long it takes, and after each stage
    assert clock() - started == pytest.approx(9, abs=1)
    assert crops == [16] * 6 + [32] * 3  # as four of six steps
    rates = [row["lr"] for row in rows(out)]
    assert rates[0] > 0.9e-3
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-6, rel=0.1)
    assert rows(out)[-1]["minutes"] == pytest.approx(0.15, abs=0.02)
    assert read_checkpoint(out / CHECKPOINT)["step"] == len(rates)
    timed(run_mapping, out, clock)  # over: nothing is trained any more
    assert len(rows(out)) == len(rates)


def test_a_run_of_minutes_goes_on_exactly(tmp_path, run_mapping, clock):
    run_mapping["minutes"] = 0.1
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    timed(run_mapping, whole, clock)
    for steps in (1, 3, None):
        clock.seconds += 500  # between two calls no time of the run passes
        timed(run_mapping, parts, clock, max_steps=steps)
    assert losses(whole) == losses(parts)
    assert same(weights(whole), weights(parts))


def test_time_for_the_last_validation_is_kept_free(tmp_path, run_mapping, clock):
    run_mapping["validation"] = {"pairs": run_mapping["data"]["pairs"], "every": 1000, "limit": 1}
    run_mapping["minutes"] = 0.2
    started = clock()
    timed(run_mapping, tmp_path / "run", clock)
    assert clock() - started <= 12
    validated = rows(tmp_path / "run", "psnr/columns")
    assert [row["step"] for row in validated] == [0, 5]  # 3 s, 5 steps, 3 s and a margin
    run_mapping["minutes"] = 0.1
    with pytest.raises(ConfigError, match=r"minutes is 0\.1, but 3 s were over .*limit$"):
        timed(run_mapping, tmp_path / "short", clock)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 10**6))
def test_shares_of_time_are_shares_of_steps(steps, millionths):
    stages = tuple(Stage(steps=n) for n in steps)
    config = SimpleNamespace(stages=stages, steps=sum(steps), minutes=1.0)
    table = Timetable(config, Clock())
    table.share = millionths / 10**6
    before = sum(steps[: table.stage_index])
    assert before <= table.position <= before + steps[table.stage_index]
    assert not table.over


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_minutes_are_above_0(run_mapping, minutes):
    with pytest.raises(ConfigError, match=r"minutes is .* must be above 0"):
        from_mapping(TrainConfig, {**run_mapping, "minutes": float(minutes)})


def test_a_checkpoint_of_before_tells_its_samples(run_mapping):
    table = Timetable(from_mapping(TrainConfig, run_mapping), Clock())
    table.load_state_dict({"step": 5, "seconds": 7.0})
    assert (table.sample, table.stage_index, table.elapsed_s) == (10, 1, 7.0)


@pytest.mark.curves
def test_the_first_save_has_no_curves_yet(tmp_path, run_mapping, clock):
    run_mapping.update(minutes=0.1, save_every=1000, log_every=4)
    run_mapping.pop("validation", None)
    timed(run_mapping, tmp_path / "run", clock)
    assert (tmp_path / "run" / "curves.png").stat().st_size > 5000
