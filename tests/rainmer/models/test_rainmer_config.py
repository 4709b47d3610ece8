import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer.errors import ConfigError
from rainmer.models.rainmer_config import OFFICIAL_VARIANTS, RainmerConfig


def test_defaults_are_the_published_size():
    config = RainmerConfig()
    assert config.widths == (48, 96, 192, 384)
    assert [str(rate) for rate in config.rates] == ["1/2", "2/3", "3/4", "4/5"]
    assert config.prompt_views == ("chromatic", "degradation")


def test_variants_differ_from_each_other():
    configs = {RainmerConfig.official(variant) for variant in OFFICIAL_VARIANTS}
    assert len(configs) == len(OFFICIAL_VARIANTS) == 8


def test_overrides_win_over_the_variant():
    config = RainmerConfig.official("wolocf", spatial_channel=True, dim=8)
    assert config == RainmerConfig(dim=8)


def test_lists_and_the_order_of_views_do_not_matter():
    config = RainmerConfig(views=["detail", "degradation", "chromatic"], heads=[1, 2, 4, 8])
    assert config == RainmerConfig()
    assert hash(config) == hash(RainmerConfig())


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RainmerConfig().dim = 8


@settings(deadline=None)
@given(
    dim=st.integers(8, 64).map(lambda n: 8 * n),
    variant=st.sampled_from(sorted(OFFICIAL_VARIANTS)),
    bias=st.booleans(),
    rates=st.sampled_from([(), ("1/2",), ("0.5", "3/4"), ("1",)]),
)
def test_mapping_round_trip(dim, variant, bias, rates):
    config = RainmerConfig.official(variant, dim=dim, bias=bias, sparse_rates=rates)
    through_json = json.loads(json.dumps(config.to_mapping()))
    assert RainmerConfig.from_mapping(through_json) == config


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dim": 0}, "dim is 0, but must be at least 2"),
        ({"dim": 7}, "dim is 7, but must be even"),
        ({"dim": 48.0}, "dim is 48.0, but must be a whole number"),
        ({"dim": True}, "dim is True, but must be a whole number"),
        ({"base_dim": 8}, "base_dim is 8, but must be at least 16"),
        ({"num_blocks": (1, 2, 3)}, "num_blocks is (1, 2, 3), but must be a list of 4"),
        ({"num_blocks": (1, 2, 3, 0)}, "num_blocks[3] is 0"),
        ({"heads": 4}, "heads is 4, but must be a list of 4"),
        ({"heads": (1, 5, 4, 8)}, "5 does not divide the width 96"),
        ({"heads": (48, 2, 4, 8)}, "sparse_rates has 1/2, which keeps no entry"),
        ({"ffn_expansion": "2.66"}, "ffn_expansion is '2.66', but must be a number"),
        ({"ffn_expansion": 0.0}, "ffn_expansion is 0.0"),
        ({"ffn_expansion": float("inf")}, "ffn_expansion is inf"),
        ({"ffn_expansion": float("nan")}, "ffn_expansion is nan"),
        ({"bias": 1}, "bias is 1, but must be true or false"),
        ({"layer_norm": "WithBias"}, "one of with_bias, bias_free"),
        ({"sparse_rates": "1/2"}, "sparse_rates is '1/2', but must be a list"),
        ({"sparse_rates": [0.5]}, "sparse_rates has 0.5"),
        ({"sparse_rates": ["3/2"]}, "sparse_rates has '3/2'"),
        ({"sparse_rates": ["0"]}, "sparse_rates has '0'"),
        ({"sparse_rates": ["1/0"]}, "sparse_rates has '1/0'"),
        ({"sparse_rates": ["half"]}, "sparse_rates has 'half'"),
        ({"views": "chromatic"}, "views is 'chromatic', but must be a list"),
        ({"views": ["chromatik"]}, "views has 'chromatik': did you mean 'chromatic'?"),
        ({"views": ["chromatic"] * 2}, "names one twice"),
        ({"views": ["detail"]}, "add 'degradation'"),
        ({"prompt_gate": "alpha"}, "one of sum, chromatic, degradation"),
        ({"prompt_gate": "chromatic", "views": ["chromatic"]}, "use 'sum', or both views"),
        ({"prompt_position": 1}, "one of attention, residual"),
        ({"spatial_channel": None}, "spatial_channel is None"),
        ({"topk_ties": "first"}, "one of lowest, native"),
        ({"sparse_rate": ["1/2"]}, "no option 'sparse_rate': did you mean 'sparse_rates'?"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_named(fields, words):
    with pytest.raises(ConfigError) as caught:
        RainmerConfig.from_mapping(fields)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_variant_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'detgalpha'"):
        RainmerConfig.official("detgalfa")


def test_null_rates_are_dense_attention():
    assert RainmerConfig(sparse_rates=None).sparse_rates == ()
