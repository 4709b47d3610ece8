"""Published checkpoints: keys, containers, what can be read off them, and what is refused."""

import json

import pytest
import torch

from rainmer.errors import WeightsError
from rainmer.models.baselines.prenet import PReNet
from rainmer.models.rainmer import Rainmer
from rainmer.models.rainmer_config import OFFICIAL_VARIANTS, RainmerConfig
from rainmer.models.rainmer_official import config_from_official
from tests.rainmer.golden import rule_model, shared_golden

TINY = {"dim": 8, "base_dim": 16, "num_blocks": (1, 2, 1, 1)}


def official_weights(variant="detgalpha", **options):
    """Make a state dict with the published keys of a tiny network, and that network."""
    model = rule_model(RainmerConfig.official(variant, **{**TINY, **options}), seed=3)
    state = model.state_dict()
    return {theirs: state[ours] for ours, theirs in model.official_names().items()}, model


def assert_same(a, b):
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(a.eval()(image, image), b.eval()(image, image))


@pytest.mark.parametrize("variant", ["sum", "chralpha", "detgalpha", "detgalpha_resprompt"])
def test_variants_are_told_by_their_keys(variant):
    weights, model = official_weights(variant)
    loaded = Rainmer.from_official(weights)
    assert loaded.config == model.config
    assert_same(loaded, model)


@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"layer_norm": "bias_free"},
        {"sparse_rates": ()},
        {"heads": (2, 4, 8, 2)},
        {"num_blocks": (2, 1, 1, 3)},
        {"ffn_expansion": 3.0},
        {"base_dim": 24},
    ],
    ids=str,
)
def test_options_are_told_by_keys_and_shapes(options):
    weights, model = official_weights(**options)
    assert config_from_official(weights) == model.config


@pytest.mark.parametrize("factor", [1.0, 1.37, 2.0, 2.65, 3.99])
def test_any_expansion_of_the_same_widths_will_do(factor):
    weights, model = official_weights(ffn_expansion=factor)
    assert_same(Rainmer.from_official(weights), model)


def test_expansion_that_cannot_be_told():
    weights, _ = official_weights()
    weights["latent.0.ffn.project_in.weight"] = torch.zeros(100, 64, 1, 1)
    with pytest.raises(WeightsError, match="follow from no ffn_expansion"):
        Rainmer.from_official(weights)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.module."])
def test_wrappers_leave_prefixes(prefix):
    weights, model = official_weights()
    assert_same(Rainmer.from_official({prefix + k: v for k, v in weights.items()}), model)


def test_wrappers_leave_names_in_the_middle():
    weights, model = official_weights()
    wrapped = {
        k.replace("disentangle.", "disentangle.module.").replace(".0.", ".0._orig_mod."): v
        for k, v in weights.items()
    }
    assert wrapped.keys() != weights.keys()
    assert_same(Rainmer.from_official(wrapped), model)


def test_training_checkpoint():
    weights, model = official_weights()
    checkpoint = {"epoch": 3, "model": weights, "optim": {}, "k_optim": {}}
    assert_same(Rainmer.from_official(checkpoint), model)


def test_published_shapes_of_linear_layers():
    """Gates of compensators are 1x1 convolutions in the published backbone, we use linear ones."""
    weights, model = official_weights()
    unsqueezed = {
        k: v[..., None, None] if ".ca_fc." in k and v.ndim == 2 and "disentangle" not in k else v
        for k, v in weights.items()
    }
    assert unsqueezed["refinement.layers.0.ca_fc.0.weight"].ndim == 4
    assert_same(Rainmer.from_official(unsqueezed), model)


def test_momentum_encoder_is_left_out():
    weights, model = official_weights()
    copies = {
        k.replace("encoder_q", "encoder_k"): v + 1 for k, v in weights.items() if "encoder_q" in k
    }
    assert copies
    assert_same(Rainmer.from_official({**weights, **copies}), model)


@pytest.mark.parametrize("variant", ["wochr", "wodetg", "wolocf", "baseline"])
def test_weights_without_effect_are_left_out(variant):
    """The files of these variants have all keys of the variant "sum"."""
    weights, complete = official_weights("sum")
    config = RainmerConfig.official(variant, **TINY)
    loaded = Rainmer.from_official(weights, config)
    assert sum(p.numel() for p in loaded.parameters()) < sum(
        p.numel() for p in complete.parameters()
    )
    own = loaded.state_dict()
    names = loaded.official_names()
    assert all(torch.equal(own[ours], weights[theirs]) for ours, theirs in names.items())


def test_half_precision_files_become_float32():
    weights, _ = official_weights()
    loaded = Rainmer.from_official({k: v.half() for k, v in weights.items()})
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_missing_and_unexpected_keys_are_listed():
    weights, _ = official_weights()
    del weights["reduce_chan_level2.weight"]
    weights["extra.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        Rainmer.from_official(weights)
    message = str(caught.value)
    assert "1 keys missing (reduce_chan_level2.weight)" in message
    assert "1 keys unexpected (extra.weight)" in message


def test_shapes_are_compared():
    weights, model = official_weights()
    weights["output.weight"] = torch.zeros(3, 8, 3, 3)
    with pytest.raises(
        WeightsError, match=r"1 shapes differ \(output.weight is 3x8x3x3 instead of"
    ):
        Rainmer.from_official(weights)
    with pytest.raises(WeightsError, match="shapes differ"):
        model.load_official(weights)


def test_variant_of_another_file_is_refused():
    weights, _ = official_weights("chralpha")
    with pytest.raises(WeightsError) as caught:
        Rainmer.from_official(weights, RainmerConfig.official("detgalpha", **TINY))
    assert "detg_z" in str(caught.value)
    assert "chr_z" in str(caught.value)


def test_weights_of_another_network_are_refused():
    with pytest.raises(WeightsError) as caught:
        Rainmer.from_official(PReNet().state_dict())
    message = str(caught.value)
    assert "keys missing (patch_embed.proj.weight, " in message
    assert "keys unexpected (entry.bias, entry.weight, " in message
    assert "\n" not in message


def test_ambiguous_rates_need_a_configuration():
    weights, model = official_weights(sparse_rates=("1/2", "3/4"))
    with pytest.raises(WeightsError, match="2 sparse rates"):
        Rainmer.from_official(weights)
    assert_same(Rainmer.from_official(weights, model.config), model)


@pytest.mark.parametrize(
    "content", [{"model": 3}, {"epoch": 3}, {"a": [1, 2]}, {3: torch.zeros(1)}, {}], ids=str
)
def test_what_is_no_state_dict_is_refused(content):
    with pytest.raises(WeightsError):
        Rainmer.from_official(content)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("keys", "variants"),
    [
        ("sum", ["sum", "wochr", "wodetg", "wolocf", "baseline"]),
        ("chralpha", ["chralpha"]),
        ("detgalpha", ["detgalpha"]),
        ("detgalpha_resprompt", ["detgalpha_resprompt"]),
    ],
)
def test_key_lists_of_the_published_size(keys, variants):
    shapes = json.loads(shared_golden(f"keys/rainmer_{keys}.json").read_text())
    weights = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    assert config_from_official(weights) == RainmerConfig.official(keys)
    for variant in variants:
        loaded = Rainmer.from_official(weights, RainmerConfig.official(variant))
        assert set(loaded.official_names().values()) <= weights.keys()
    used = set(Rainmer.from_official(weights).official_names().values())
    assert {key for key in weights if "encoder_k" not in key} == used


def test_every_variant_has_distinct_official_names():
    for variant in OFFICIAL_VARIANTS:
        with torch.device("meta"):
            names = Rainmer(RainmerConfig.official(variant, **TINY)).official_names()
        assert len(set(names.values())) == len(names)
