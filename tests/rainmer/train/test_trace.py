"""Six forward passes, three steps, of the published training loop."""

import pytest
import torch

from rainmer.models import Rainmer
from rainmer.train.config import DataConfig, OptimiserConfig, Stage, TrainConfig
from rainmer.train.mixture import Batch
from rainmer.train.negatives import mean_colour, rain_signature, select_most_different
from rainmer.train.schedule import Cycle
from rainmer.train.step import Trainer
from tests.numerics import rounding
from tests.rainmer.golden import config_of, read_golden, shared_golden
from tests.rainmer.train.test_contrast_golden import tiny_training_model

BATCH = 4


def trace_config(model_config):
    return TrainConfig(
        name="trace",
        model=model_config.to_mapping(),
        data=DataConfig(query=24, negatives=2),
        stages=(Stage(steps=6, crop=24, batch=BATCH),),
        accumulate=2,
        optimiser=OptimiserConfig(
            cycles=(Cycle(steps=2, lowest=1e-4), Cycle(steps=4, lowest=1e-6))
        ),
    )


@pytest.fixture(scope="module")
def golden():
    return read_golden(shared_golden("training/trace_chralpha.safetensors"))


def part(golden, name, index):
    return golden[f"in/{name}_u8"][index * BATCH : (index + 1) * BATCH]


def trace_batch(golden, index):
    return Batch(
        part(golden, "input", index),
        part(golden, "target", index),
        part(golden, "resize_inp", index),
        part(golden, "resize_tar", index),
        part(golden, "blur", index),
    )


def archive_batch(golden, index):
    empty = torch.empty(BATCH, 0, 3, 24, 24, dtype=torch.uint8)
    queries = part(golden, "resize_inp", index), part(golden, "resize_tar", index)
    return Batch(*queries, *queries, empty)


def test_the_loop_equals_the_published_one(golden):
    tensors, metadata = golden
    config = config_of(metadata["meta"]["config"], topk_ties="native")
    model = tiny_training_model(config)
    network: Rainmer = model.network
    trainer = Trainer(network, trace_config(config), flips=False)
    trainer.model.momentum_encoder.load_state_dict(model.momentum_encoder.state_dict())
    trainer.fill_archives(archive_batch(tensors, i) for i in range(64))
    names = {key: name for name, key in network.official_names().items()}
    snapshots = {2: "step2", 6: "step6"}
    for step in range(3):
        batches = [trace_batch(tensors, 2 * step + i) for i in range(2)]
        check_selections(trainer, tensors, batches[0], 2 * step)
        result = trainer.step(batches)
        for name, key in (
            ("charbonnier", "charbonnier"),
            ("ssim_term", "ssim_term"),
            ("chromatic", "chr"),
            ("degradation", "deg"),
        ):
            expected = tensors[f"out/loss/{key}"][2 * step : 2 * step + 2].mean().item()
            assert result.losses[name] == pytest.approx(expected, rel=rounding(depth=100)), (
                step,
                name,
            )
        assert result.lr == pytest.approx(tensors["out/lr"][2 * step + 1].item(), rel=1e-9)
        if trainer.iteration in snapshots:
            compare(trainer, names, tensors, snapshots[trainer.iteration])


def check_selections(trainer, tensors, batch, iteration):
    """Compare the archive entries that the first batch of a step is set against."""
    query, clean = batch.query / 255, batch.query_clean / 255
    chosen = select_most_different(mean_colour(query), trainer.archives.colours, 2)
    assert torch.equal(chosen, tensors["out/idx_chr"][iteration])
    signature = rain_signature((query - clean).clamp(0, 1))
    chosen = select_most_different(signature, trainer.archives.signatures, 2)
    assert torch.equal(chosen, tensors["out/idx_deg"][iteration])


def compare(trainer, names, tensors, snapshot):
    parameters = dict(trainer.network.named_parameters())
    momentum = dict(trainer.model.momentum_encoder.named_parameters())
    for key in (key for key in tensors if key.startswith(f"out/{snapshot}/")):
        official = key.removeprefix(f"out/{snapshot}/")
        if "encoder_k" in official:
            name = names[official.replace("encoder_k", "encoder_q")]
            own = momentum[name.removeprefix("encoder.")]
        else:
            own = parameters[names[official]]
        difference = (own.reshape(tensors[key].shape) - tensors[key]).abs().max().item()
        assert difference < 2e-5, (key, difference)
