"""The training forward, its losses, gradients and the momentum encoder, as published."""

import pytest
import torch

from rainmer.models import Rainmer
from rainmer.train.contrast import ContrastiveRainmer
from rainmer.train.losses import PIXEL_LOSSES, contrast_losses
from rainmer.train.negatives import Contrast
from rainmer.train.step import is_encoder
from tests.numerics import assert_same_sum
from tests.rainmer.golden import COPIES, config_of, fill, read_golden, shared_golden

SEED = 9
WEIGHT = 0.1


def tiny_training_model(config):
    """Build the tiny network with the stored weights, which follow the rule."""
    model = ContrastiveRainmer(Rainmer(config))
    network = model.network
    own = network.state_dict()
    official = network.official_names()
    network.load_state_dict({n: fill(k, tuple(own[n].shape), SEED) for n, k in official.items()})
    momentum = {}
    for name, key in official.items():
        if is_encoder(name):
            key_of_copy = key.replace("encoder_q", "encoder_k")
            momentum[name.removeprefix("encoder.")] = fill(
                key_of_copy, tuple(own[name].shape), SEED
            )
    model.momentum_encoder.load_state_dict(momentum)
    return model


def golden_file(variant):
    if variant == "chralpha":
        return COPIES / "training" / "chralpha.safetensors"
    return shared_golden(f"training/{variant}.safetensors")


@pytest.fixture(scope="module", params=["chralpha", "detgalpha"])
def case(request):
    golden, metadata = read_golden(golden_file(request.param))
    config = config_of(metadata["meta"]["config"], topk_ties="lowest")
    model = tiny_training_model(config)
    order = metadata["meta"]["atom_order"]
    contrast = Contrast(
        {view: golden[f"in/k/{view}"] for view in order},
        {view: golden[f"in/neg/{view}"] for view in order},
    )
    output = model(golden["in/x"], golden["in/q"], contrast)
    pixel = PIXEL_LOSSES["charbonnier_ssim"](output.restored, golden["in/target"])
    views = contrast_losses(output.logits)
    total = pixel.total + WEIGHT * views.total()
    total.backward()
    return golden, model, output, pixel, views, total


def close(own, expected, depth=20):
    assert_same_sum(own.reshape(expected.shape), expected, depth=depth)


def test_logits(case):
    golden, _, output, *_ = case
    for view, logits in output.logits.items():
        close(logits, golden[f"out/logits/{view}"])


def test_losses(case):
    golden, _, output, pixel, views, total = case
    close(output.restored, golden["lowtie/y"], depth=80)
    close(views.chromatic, golden["lowtie/loss/chr"])
    close(views.degradation, golden["lowtie/loss/deg"])
    close(pixel.parts["charbonnier"], golden["lowtie/loss/charbonnier"])
    close(pixel.parts["ssim_term"], golden["lowtie/loss/ssim_term"])
    close(pixel.total, golden["lowtie/loss/pixel"])
    close(total, golden["lowtie/loss/total"])


def test_gradients(case):
    golden, model, *_ = case
    network = model.network
    names = {key: name for name, key in network.official_names().items()}
    parameters = dict(network.named_parameters())
    compared = [key for key in golden if key.startswith("lowtie/grad/")]
    assert len(compared) >= 4
    for key in compared:
        own = parameters[names[key.removeprefix("lowtie/grad/")]].grad
        expected = golden[key]
        # Gradients pass every layer twice, and small ones are differences of large ones.
        scale = expected.abs().max().item()
        torch.testing.assert_close(own.reshape(expected.shape), expected, rtol=0, atol=1e-3 * scale)


def test_gradient_norms(case):
    golden, model, *_ = case
    for kind, of_encoder in (("base", False), ("knowledge", True)):
        squares = [
            p.grad.square().sum()
            for name, p in model.network.named_parameters()
            if is_encoder(name) == of_encoder and p.grad is not None
        ]
        norm = torch.stack(squares).sum().sqrt()
        torch.testing.assert_close(norm, golden[f"lowtie/grad_norm_{kind}"], rtol=1e-3, atol=0)


def test_the_momentum_encoder_moves_in_the_forward_pass_and_gets_no_gradient(case):
    golden, model, *_ = case
    names = {key: name for name, key in model.network.official_names().items()}
    own = dict(model.momentum_encoder.named_parameters())
    stored = [key for key in golden if key.startswith("out/encoder_k_after/")]
    assert stored
    for key in stored:
        official = key.removeprefix("out/encoder_k_after/").replace("encoder_k", "encoder_q")
        close(own[names[official].removeprefix("encoder.")], golden[key])
    assert all(p.grad is None for p in own.values())
