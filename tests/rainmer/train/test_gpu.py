"""Training on a CUDA device."""

import pytest
import torch

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
