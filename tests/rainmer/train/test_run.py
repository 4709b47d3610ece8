"""Whole runs: exact resumption, several processes, and what goes wrong."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rainmer import models
from rainmer.config import from_mapping
from rainmer.errors import ConfigError, DatasetError, OutputError, RainmerError, WeightsError
from rainmer.files import read_lines
from rainmer.frames.images import write_image
from rainmer.models import rainmer as rainmer_module
from rainmer.train import step as step_module
from rainmer.train.checkpoint import read_checkpoint, write_checkpoint
from rainmer.train.config import TrainConfig
from rainmer.train.run import CHECKPOINT, train
from tests.numerics import assert_same_sum, rounding
from tests.rainmer.train.conftest import TINY

REPOSITORY = Path(__file__).resolve().parents[3]


def run(mapping, out, **options):
    return train(from_mapping(TrainConfig, mapping), out, quiet=True, **options)


def losses(out):
    return {
        line["step"]: line["total"] for line in read_lines(out / "log.jsonl") if "total" in line
    }


def weights(out):
    return models.load(f"rainmer:{out / 'last.safetensors'}").state_dict()


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.curves
def test_a_run_leaves_weights_log_curves_and_a_checkpoint(tmp_path, run_mapping):
    out = tmp_path / "run"
    assert run(run_mapping, out) == out / "last.safetensors"
    rows = list(csv.DictReader((out / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"total", "charbonnier", "chromatic", "degradation", "lr"} <= rows[0].keys()
    assert float(rows[0]["lr"]) == pytest.approx(0.0005, rel=0.1)  # half way up
    assert (out / "curves.png").stat().st_size > 5000
    assert models.load(f"rainmer:{out / 'last.safetensors'}").config.dim == 8


def test_a_run_goes_on_exactly(tmp_path, run_mapping):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(run_mapping, whole)
    for steps in (1, 3, 2):  # across a stage, and from checkpoints of its own
        run(run_mapping, parts, max_steps=steps)
    assert losses(whole) == losses(parts)
    assert same(weights(whole), weights(parts))


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, run_mapping):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(run_mapping, whole)
    config = from_mapping(TrainConfig, run_mapping)
    taken = []

    class KillError(Exception):
        pass

    original = step_module.Trainer.step

    def dying(self, batches):
        taken.append(1)
        if len(taken) == 5:
            raise KillError
        return original(self, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module.Trainer, "step", dying)
        with pytest.raises(KillError):
            train(config, killed, quiet=True)
    assert read_checkpoint(killed / CHECKPOINT)["step"] == 4  # the end of a stage
    run(run_mapping, killed)
    assert losses(whole) == losses(killed)
    assert same(weights(whole), weights(killed))


@pytest.mark.parametrize("flushed", [False, True])
def test_the_callers_denormals_are_as_before(tmp_path, run_mapping, flushed):
    torch.set_flush_denormal(flushed)
    run(run_mapping, tmp_path / "run", max_steps=1)
    smallest = sys.float_info.min
    assert (smallest / 2 == 0.0) is flushed


@pytest.mark.slow
def test_threads_do_not_change_what_is_trained(tmp_path, run_mapping):
    run(run_mapping, tmp_path / "none")
    run_mapping["data"]["threads"] = 3
    run(run_mapping, tmp_path / "three")
    assert losses(tmp_path / "none") == losses(tmp_path / "three")


@pytest.mark.slow
@pytest.mark.parametrize("rendering", ["loader", "device"])
def test_two_processes_train_as_one(tmp_path, config_file, run_mapping, rendering):
    run(run_mapping, tmp_path / "one")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29631"]
    common = ["-m", "rainmer.train", "--config", str(config_file), "--quiet", "--device", "cpu"]
    command = [sys.executable, *launcher, *common, "--out", str(tmp_path / "two")]
    command.append(f"data.rendering={rendering}")
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys() == {1, 2, 3, 4, 5, 6}
    # Sums over a batch are in another order, and Adam turns that into more at every step.
    assert two[1] == pytest.approx(one[1], rel=rounding(depth=100))
    assert two == pytest.approx(one, rel=2e-3)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in first.items():
        assert (second[key] - value).abs().mean().item() < 1e-3, key


def test_processes_must_share_a_batch_evenly(tmp_path, run_mapping, monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    with pytest.raises(ConfigError, match="which 3 processes cannot share"):
        run(run_mapping, tmp_path / "run")


def test_another_configuration_is_refused_with_the_differing_keys(tmp_path, run_mapping):
    run(run_mapping, tmp_path / "run", max_steps=1)
    run_mapping["optimiser"]["lr"] = 0.5
    run_mapping["stages"][0]["crop"] = 32
    with pytest.raises(ConfigError, match=r"differs in optimiser\.lr, stages\.0\.crop"):
        run(run_mapping, tmp_path / "run")


def test_how_often_to_save_may_differ(tmp_path, run_mapping):
    run(run_mapping, tmp_path / "run", max_steps=1)
    run_mapping["save_every"] = 1
    run(run_mapping, tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 6


def test_a_run_from_before_photos_were_held_out_resumes(tmp_path, run_mapping):
    out = tmp_path / "run"
    run(run_mapping, out, max_steps=1)
    stored = read_checkpoint(out / CHECKPOINT)
    del stored["config"]["validation"]["share"]
    write_checkpoint(out / CHECKPOINT, stored)
    run(run_mapping, out, max_steps=1)
    assert read_checkpoint(out / CHECKPOINT)["step"] == 2
    with pytest.raises(ConfigError, match=r"differs in validation\.share:"):
        run({**run_mapping, "validation": {"share": 0.1}}, out)


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, run_mapping):
    original = step_module.PIXEL_LOSSES["charbonnier_ssim"]
    calls = []

    def sometimes(restored, target):
        calls.append(1)
        loss = original(restored, target)
        return loss._replace(total=loss.total * float("nan")) if len(calls) == 2 else loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(step_module.PIXEL_LOSSES, "charbonnier_ssim", sometimes)
        run(run_mapping, tmp_path / "run")
    lines = [line for line in read_lines(tmp_path / "run" / "log.jsonl") if "skipped" in line]
    assert [line["skipped"] for line in lines] == [0, 1, 1, 1, 1, 1]
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


def test_a_gradient_of_the_encoder_that_is_not_finite_is_skipped_and_named(
    tmp_path, run_mapping, caplog
):
    original = step_module.Trainer._update

    def broken(trainer):
        if trainer.iteration == 3:
            names = [name for name, _ in trainer.network.named_parameters()]
            encoder = trainer.network.get_parameter(next(filter(step_module.is_encoder, names)))
            encoder.grad.fill_(float("nan"))
        return original(trainer)

    with pytest.MonkeyPatch.context() as patch, caplog.at_level("WARNING"):
        patch.setattr(step_module.Trainer, "_update", broken)
        run(run_mapping, tmp_path / "run")
    lines = [line for line in read_lines(tmp_path / "run" / "log.jsonl") if "skipped" in line]
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 1, 1]
    assert re.search(r"the gradient of encoder\.\S+ is not finite", caplog.text)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())
    state = read_checkpoint(tmp_path / "run" / CHECKPOINT)["trainer"]["model"]
    assert all(torch.isfinite(value).all() for value in state.values())


PLACES = {
    "model.network": lambda trainer: trainer.network.state_dict(),
    "model.momentum_encoder": lambda trainer: trainer.model.momentum_encoder.state_dict(),
    "optimisers.1.state": lambda trainer: next(iter(trainer.optimisers[1].state.values())),
    "archives": lambda trainer: {"colours": trainer.archives.colours},
    "average": lambda trainer: trainer.average.weights,
}


def test_nothing_that_is_not_finite_replaces_a_good_file(tmp_path, run_mapping):
    run_mapping["validation"] = {"pairs": run_mapping["data"]["pairs"], "every": 2, "limit": 1}
    run_mapping.update(save_every=1, keep_every=2)
    out = tmp_path / "run"
    run(run_mapping, out, max_steps=1)
    kept = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    original = step_module.Trainer.step

    def broken(trainer, batches):
        result = original(trainer, batches)
        for place, tensors in PLACES.items():
            tensor = next(t for t in tensors(trainer).values() if t.ndim)
            before = tensor.detach().clone()
            tensor.data.fill_(float("inf"))
            assert trainer.broken_value().startswith(f"{place}.")
            if place != "average":
                tensor.data.copy_(before)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module.Trainer, "step", broken)
        with pytest.raises(
            RainmerError, match=r"^average\S+ is not finite at step 2.*of step 1, is .*last\.pt"
        ):
            run(run_mapping, out)
    assert read_checkpoint(out / CHECKPOINT)["step"] == 1
    assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == kept


def test_a_step_that_breaks_a_weight_ends_the_run_at_once(tmp_path, run_mapping):
    run_mapping["optimiser"] = {"lr": 1e30, "warmup": 0, "weight_decay": 1e10}
    with pytest.raises(
        RainmerError,
        match=r"^the weight \S+ is not finite after step 1: .*no checkpoint is in .*run",
    ):
        run(run_mapping, tmp_path / "run")
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_a_skipped_step_leaves_the_statistics_of_batch_norms(tmp_path, run_mapping):
    run_mapping.update(network="rcdnet", variant=None, pixel_loss="own", save_every=1)
    run_mapping["model"] = {"stages": 1, "extra_channels": 1, "blocks": 1}
    original = models.RCDNet.training_loss
    calls = []

    def sometimes(network, rainy, clean):
        calls.append(1)
        return original(network, rainy * (float("nan") if len(calls) == 2 else 1.0), clean)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.RCDNet, "training_loss", sometimes)
        run(run_mapping, tmp_path / "run", max_steps=3)
    state = read_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert state["skipped"] == 1
    counts = [v for k, v in state["trainer"]["model"].items() if k.endswith("batches_tracked")]
    assert {int(count) for count in counts} == {2}


def test_a_run_does_not_go_on_from_what_is_not_finite(tmp_path, run_mapping):
    out = tmp_path / "run"
    run(run_mapping, out, max_steps=1)
    state = read_checkpoint(out / CHECKPOINT)
    next(iter(state["trainer"]["model"].values())).fill_(float("nan"))
    write_checkpoint(out / CHECKPOINT, state)
    with pytest.raises(WeightsError, match=r"last\.pt: model\S+ is not finite: delete it"):
        run(run_mapping, out)
    network = models.load(f"rainmer:{out / 'last.safetensors'}")
    network.embedding.weight.data[0] = float("inf")
    models.save_weights(tmp_path / "w.safetensors", network)
    run_mapping["init"] = str(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"init: .*w\.safetensors: model\S+ is not finite"):
        run(run_mapping, tmp_path / "other")


def test_a_validation_that_is_not_finite_keeps_the_best(tmp_path, run_mapping, caplog):
    run_mapping["validation"] = {"pairs": run_mapping["data"]["pairs"], "every": 1, "limit": 1}
    out = tmp_path / "run"
    run(run_mapping, out, max_steps=1)
    before = (out / "best.safetensors").read_bytes()
    original = models.Rainmer.forward

    def broken(network, *arguments, **options):
        restored = original(network, *arguments, **options)
        return restored if network.training else restored * float("nan")

    with pytest.MonkeyPatch.context() as patch, caplog.at_level("WARNING"):
        patch.setattr(models.Rainmer, "forward", broken)
        run(run_mapping, out, max_steps=1)
    assert "step 2: restored images are not finite; best.safetensors stays" in caplog.text
    assert (out / "best.safetensors").read_bytes() == before


def test_weights_of_a_run_are_read_from_its_checkpoint(tmp_path, run_mapping, caplog):
    for ema in (0.9, 0.0):
        run_mapping["ema"] = ema
        out = tmp_path / f"run {ema}"
        run(run_mapping, out, max_steps=1)
        with caplog.at_level("INFO"):
            loaded = models.load(f"rainmer:{out / CHECKPOINT}")
        own = models.load(f"rainmer:{out / 'last.safetensors'}")
        assert models.weights_fingerprint(loaded) == models.weights_fingerprint(own)
    entries = re.findall(r"last\.pt: took \d+ tensors of its entry '(\S+)'; left out", caplog.text)
    assert entries == ["trainer.average.weights", "trainer.model"]


def test_a_loss_that_stays_not_finite_ends_the_run(tmp_path, run_mapping):
    run_mapping.update(max_skipped=2, optimiser={"lr": 1e30, "clip": None})
    with pytest.raises(RainmerError, match=r"not finite in 2 steps in a row.*lower optimiser\.lr"):
        run(run_mapping, tmp_path / "run")


def test_unreadable_images_are_left_out_and_named(tmp_path, run_mapping, pairs, caplog):
    run_mapping["data"]["max_unreadable"] = 0.2
    (pairs / "input" / "3.png").write_bytes(b"no image")
    with caplog.at_level("WARNING"):
        run(run_mapping, tmp_path / "run")
    assert "1 images could not be read" in caplog.text
    assert "3.png" in caplog.text
    assert len(losses(tmp_path / "run")) == 6


def test_too_many_unreadable_images_end_the_run(tmp_path, run_mapping, pairs):
    for i in range(5):
        (pairs / "input" / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="cannot be trained on, more than 1%"):
        run(run_mapping, tmp_path / "run")


def test_crops_larger_than_the_images_end_the_run(tmp_path, run_mapping):
    run_mapping["stages"] = [{"steps": 1, "crop": 64, "batch": 2}]
    with pytest.raises(DatasetError, match="56x48 pixels are too few for crops of 64"):
        run(run_mapping, tmp_path / "run")


def test_crops_must_fit_the_network(tmp_path, run_mapping):
    run_mapping["stages"][0]["crop"] = 24
    with pytest.raises(ConfigError, match="must be a multiple of 16"):
        run(run_mapping, tmp_path / "run")


def test_empty_sets_are_refused(tmp_path, run_mapping):
    (tmp_path / "empty" / "input").mkdir(parents=True)
    (tmp_path / "empty" / "target").mkdir()
    run_mapping["data"]["pairs"] = {"nothing": {"root": str(tmp_path / "empty")}}
    with pytest.raises(DatasetError):
        run(run_mapping, tmp_path / "run")


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, run_mapping):
    out = tmp_path / "run"
    run(run_mapping, out, max_steps=3)
    before = (out / CHECKPOINT).read_bytes()

    def full(content, path):
        path.write_bytes(b"half")
        raise RuntimeError(
            "[enforce fail at inline_container.cc] PytorchStreamWriter failed writing"
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OutputError, match="is the disk full"):
            run(run_mapping, out)
    assert (out / CHECKPOINT).read_bytes() == before
    assert not list(out.glob(".last*"))
    run(run_mapping, out)
    assert len(losses(out)) == 6


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_a_damaged_checkpoint_is_named(tmp_path, run_mapping, content):
    out = tmp_path / "run"
    out.mkdir()
    (out / CHECKPOINT).write_bytes(content)
    with pytest.raises(WeightsError, match=r"last\.pt is damaged"):
        run(run_mapping, out)


def session_of(leader):
    """Return whether a process of the session is left, such as one that loads samples."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_an_interruption_saves_the_step_and_the_run_goes_on(tmp_path, config_file, run_mapping):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "rainmer.train", "--config", str(config_file), "--quiet",
               "--out", str(out), "stages.0.steps=400", "data.processes=1",
               "--device", "cpu"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while len(losses(out)) < 5 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert "the same command resumes" in text
    stopped = read_checkpoint(out / CHECKPOINT)["step"]
    assert stopped == max(losses(out)) >= 5
    deadline = time.monotonic() + 30
    while session_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not session_of(process.pid)


def test_validation_measures_the_averaged_weights_and_keeps_the_best(tmp_path, run_mapping, pairs):
    run_mapping["validation"] = {"pairs": {"columns": {"root": str(pairs)}}, "every": 2, "limit": 3}
    out = tmp_path / "run"
    run(run_mapping, out)
    lines = [line for line in read_lines(out / "log.jsonl") if "psnr/columns" in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    best = max(lines, key=lambda line: line["psnr/columns"])
    assert models.load(f"rainmer:{out / 'best.safetensors'}")
    assert read_checkpoint(out / CHECKPOINT)["best"] == pytest.approx(best["psnr/columns"])
    assert len(list((out / "strips").glob("columns-*.jpg"))) == 3


@pytest.mark.slow
def test_training_restores(tmp_path, run_mapping, pairs):
    """A little training removes rain: what the whole is for."""
    run_mapping["stages"] = [{"steps": 60, "crop": 32, "batch": 2}]
    run_mapping["model"] = {**TINY, "entry_stride": 1}
    run_mapping["contrast_weight"] = 0.0
    run_mapping["optimiser"] = {"lr": 0.003, "clip": 1.0}
    run_mapping["save_every"] = 60
    run_mapping["validation"] = {"pairs": {"columns": {"root": str(pairs)}}, "every": 60}
    run(run_mapping, tmp_path / "run")
    scores = [line["psnr/columns"] for line in read_lines(tmp_path / "run" / "log.jsonl")
              if "psnr/columns" in line]  # fmt: skip
    rainy = rainy_psnr(pairs)
    assert scores[-1] > rainy + 3


def rainy_psnr(pairs):
    from rainmer.frames.arrays import to_batch
    from rainmer.frames.images import read_image
    from rainmer.metrics import psnr

    names = [f"{i}.png" for i in range(6)]
    return np.mean([
        psnr(*(to_batch([read_image(pairs / part / name)]) for part in ("input", "target"))).item()
        for name in names
    ])  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "prenet", "variant": None, "model": {"iterations": 2},
         "pixel_loss": "negative_ssim"},
        {"network": "rcdnet", "variant": None, "model": {"stages": 2}, "pixel_loss": "own"},
        {"network": "brn", "variant": None, "model": {"iterations": 2}},
        {"prompted": False},
        {"variant": "wochr"},
        {"variant": "wodetg"},
        {"variant": "baseline"},
        {"accumulate": 2},
        {"checkpointing": True},
        {"precision": "bf16"},
        {"ema": 0.0},
    ],
    ids=lambda changes: "-".join(map(str, next(iter(changes.items())))),
)  # fmt: skip
def test_options_train(tmp_path, run_mapping, changes):
    run_mapping.update(changes)
    run_mapping["stages"] = [{"steps": 2, "crop": 16, "batch": 2}]
    out = tmp_path / "run"
    run(run_mapping, out)
    assert all(np.isfinite(loss) for loss in losses(out).values())


@pytest.mark.slow
def test_checkpointing_changes_nothing_but_memory(tmp_path, run_mapping):
    run(run_mapping, tmp_path / "kept")
    run_mapping["checkpointing"] = True
    run(run_mapping, tmp_path / "recomputed")
    kept, recomputed = losses(tmp_path / "kept"), losses(tmp_path / "recomputed")
    assert kept == pytest.approx(recomputed, rel=rounding(depth=100))


def test_checkpointing_reaches_drsformer(tmp_path, run_mapping):
    sizes = {"dim": 8, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 1, 1]}
    run_mapping.update(network="drsformer", variant=None, model=sizes, checkpointing=True)
    seen = []
    recompute = rainmer_module.checkpoint

    def counting(block, *arguments, **options):
        seen.append(block)
        return recompute(block, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rainmer_module, "checkpoint", counting)
        run(run_mapping, tmp_path / "run", max_steps=1)
    assert len(seen) == 7  # a block at each of three levels down and up, and in the bottleneck


def test_a_run_starts_from_given_weights(tmp_path, run_mapping):
    run(run_mapping, tmp_path / "first")
    run_mapping.update(init=str(tmp_path / "first" / "last.safetensors"), name="second")
    run_mapping["optimiser"] = {"lr": 1e-12, "lowest": 0.0}
    run(run_mapping, tmp_path / "second", max_steps=1)
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    for key, value in first.items():
        assert_same_sum(second[key], value)


def test_photos_are_enough(tmp_path, run_mapping, photos):
    run_mapping["data"].pop("pairs")
    run_mapping["data"]["rendered"] = {
        "photos": {
            "images": str(photos),
            "window": 40,
            "rain": {"day": {}, "none": {"weight": 0.2}},
        }
    }
    run(run_mapping, tmp_path / "run", max_steps=2)
    assert len(losses(tmp_path / "run")) == 2


def test_runs_in_threads_leave_signals_alone(tmp_path, run_mapping):
    worker = threading.Thread(target=run, args=(run_mapping, tmp_path / "run"))
    worker.start()
    worker.join()
    assert len(losses(tmp_path / "run")) == 6


def test_the_configuration_is_kept_beside_the_weights(tmp_path, run_mapping):
    run(run_mapping, tmp_path / "run", max_steps=1)
    again = tmp_path / "run" / "config.yaml"
    from rainmer.train.config import read_config

    assert read_config(again) == from_mapping(TrainConfig, json.loads(json.dumps(run_mapping)))


def test_images_of_another_kind_are_trained_on(tmp_path, run_mapping, pairs):
    write_image(pairs / "input" / "9.png", np.zeros((48, 56, 3), np.uint8))
    write_image(pairs / "target" / "9.jpg", np.zeros((48, 56, 3), np.uint8))
    run(run_mapping, tmp_path / "run", max_steps=3)
    assert len(losses(tmp_path / "run")) == 3
