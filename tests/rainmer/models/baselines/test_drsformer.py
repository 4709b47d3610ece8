"""DRSformer equals the published network; what all have in common is in test_baselines.py."""

import dataclasses
import json

import pytest
import torch

from rainmer.errors import ConfigError, ImageError, WeightsError
from rainmer.models.baselines.drsformer import DRSformer, DRSformerConfig
from rainmer.models.rainmer import Rainmer
from rainmer.models.rainmer_config import RainmerConfig
from tests.numerics import GOLDEN, assert_same_sum
from tests.rainmer.golden import (
    COPIES,
    official_shapes,
    read_golden,
    rule_weights,
    shared_golden,
    stored_weights,
)

TOLERANCE = GOLDEN
SEED = 32
TINY = DRSformerConfig(dim=4, num_blocks=(1, 1, 1, 1), heads=(1, 1, 2, 4))
TIES = pytest.mark.parametrize(("ties", "suffix"), [("lowest", "_lowtie"), ("native", "")])


def difference(a, b):
    return (a - b).abs().max().item()


def rule_weights_of(config):
    # The stored weights are those of the rule, rounded to float16.
    shapes = official_shapes(DRSformer(config))
    return {k: v.half().float() for k, v in rule_weights(shapes, SEED).items()}


@TIES
def test_equals_the_published_network(ties, suffix):
    golden, _ = read_golden(COPIES / "baselines/drsformer.safetensors")
    config = dataclasses.replace(TINY, topk_ties=ties)
    model = DRSformer.from_official(rule_weights_of(config), config).eval()
    with torch.no_grad():
        assert difference(model(golden["in/x"]), golden[f"out/y{suffix}"]) < TOLERANCE


@pytest.mark.shared_data
@TIES
def test_equals_the_published_network_with_stored_weights(ties, suffix):
    golden, metadata = read_golden(shared_golden("baselines/drsformer.safetensors"))
    config = dataclasses.replace(TINY, topk_ties=ties)
    model = DRSformer.from_official(stored_weights(*metadata["weights"]), config).eval()
    with torch.no_grad():
        assert difference(model(golden["in/x"]), golden[f"out/y{suffix}"]) < TOLERANCE


@pytest.mark.shared_data
def test_published_size():
    name = "baselines/drsformer_native_ruleweights.safetensors"
    golden, metadata = read_golden(shared_golden(name))
    shapes = json.loads(shared_golden("keys/drsformer.json").read_text())
    model = DRSformer.from_official(rule_weights(shapes, metadata["meta"]["rule_seed"])).eval()
    assert model.config == DRSformerConfig()
    assert sorted(model.official_names().values()) == sorted(shapes)
    assert sum(p.numel() for p in model.parameters()) == 33_655_424
    with torch.no_grad():
        assert difference(model(golden["in/x"]), golden["out/y_lowtie"]) < TOLERANCE


def test_is_the_backbone_of_rainmer():
    """Rainmer without views and fusion is the same network, down to the keys."""
    model = DRSformer(TINY).eval()
    rainmer = Rainmer(model.config.backbone).eval()
    rainmer.load_state_dict(model.state_dict())
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(image), rainmer(image))


@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"layer_norm": "bias_free"},
        {"sparse_rates": ()},
        {"num_blocks": (2, 1, 1, 3)},
    ],
    ids=str,
)
def test_options_are_told_by_keys_and_shapes(options):
    config = dataclasses.replace(TINY, **options)
    model = DRSformer.from_official(rule_weights_of(config))
    assert model.config == config


def test_defaults_are_those_of_rainmer():
    rainmer = RainmerConfig()
    for field in dataclasses.fields(DRSformerConfig):
        assert getattr(DRSformerConfig(), field.name) == getattr(rainmer, field.name)


def test_checkpointing_changes_no_gradient():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    gradients = []
    for checkpointing in (False, True):
        model = DRSformer.from_official(rule_weights_of(TINY)).train()
        model.checkpointing = checkpointing
        model(image).square().mean().backward()
        gradients.append(model.embedding.weight.grad)
    assert_same_sum(*gradients, depth=100)


def test_checkpoints_of_rainmer_are_refused():
    rainmer = Rainmer(RainmerConfig(dim=8, base_dim=16, num_blocks=(1, 1, 1, 1)))
    weights = rule_weights(official_shapes(rainmer), SEED)
    with pytest.raises(WeightsError, match=r"do not fit drsformer: .* keys unexpected"):
        DRSformer.from_official(weights)


def test_other_shapes_are_refused():
    with pytest.raises(ImageError, match=r"expected \(B, 3, H, W\)"):
        DRSformer(TINY)(torch.rand(1, 4, 16, 16))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim": 7}, "must be even"),
        ({"heads": [1, 2, 4, 5]}, "does not divide"),
        ({"sparse_rates": ["2"]}, "sparse_rates has '2'"),
        ({"views": []}, "no option 'views'"),
    ],
    ids=str,
)
def test_wrong_options(options, words):
    with pytest.raises(ConfigError, match=words):
        DRSformer.from_mapping(options)
