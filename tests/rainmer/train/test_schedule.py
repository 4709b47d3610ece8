import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainmer.errors import ConfigError
from rainmer.train.schedule import Cycle, cyclic_cosine, step_decay
from tests.rainmer.golden import COPIES, read_golden


@pytest.mark.parametrize(
    "run", ["rainmer_resize", "rainmer_resize_alpha", "accumulate1", "stage1_quirk"]
)
def test_rates_equal_the_published_ones(run):
    golden, metadata = read_golden(COPIES / "lr_schedule.safetensors")
    config = metadata["meta"]["configs"][run]
    cycles = [
        Cycle(steps=steps, lowest=lowest, weight=weight)
        for steps, lowest, weight in zip(
            config["periods"], config["eta_mins"], config["restart_weights"], strict=True
        )
    ]
    rates = [
        cyclic_cosine(
            t, config["lr"], cycles, accumulate=config["accumulate"], extra=config["stage1"]
        )
        for t in golden["in/steps"].tolist()
    ]
    assert rates == pytest.approx(golden[f"out/{run}/lr"].tolist(), rel=1e-9)
    assert cyclic_cosine(0, config["lr"], cycles) == pytest.approx(
        golden[f"out/{run}/initial"].item(), rel=1e-9
    )


@given(st.integers(1, 400), st.integers(1, 50), st.integers(1, 350))
def test_rates_stay_between_the_lowest_and_the_highest(iteration, first, second):
    cycles = [Cycle(steps=first, lowest=1e-4), Cycle(steps=second, lowest=1e-6)]
    if iteration > first + second:
        with pytest.raises(ConfigError, match="add a cycle"):
            cyclic_cosine(iteration, 3e-4, cycles)
    else:
        assert 1e-6 - 1e-12 <= cyclic_cosine(iteration, 3e-4, cycles) <= 3e-4


def test_the_end_of_a_cycle_belongs_to_it():
    cycles = [Cycle(steps=10, lowest=1e-4), Cycle(steps=10, lowest=0.0)]
    assert cyclic_cosine(10, 1.0, cycles) == pytest.approx(1e-4)
    assert cyclic_cosine(11, 1.0, cycles) > 0.9


def test_a_cycle_has_steps():
    with pytest.raises(ConfigError, match="0 steps"):
        Cycle(steps=0, lowest=0.0)


def test_steps_fall_after_their_milestones():
    rates = [step_decay(t, 1.0, [2, 3], 0.1, accumulate=2) for t in range(1, 9)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
