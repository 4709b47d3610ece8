"""Equality with the published code, whose numbers are stored in the golden files."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from rainmer.models.layers import global_average
from rainmer.models.rainmer import Rainmer
from rainmer.models.rainmer_config import OFFICIAL_VARIANTS, RainmerConfig
from tests.numerics import GOLDEN
from tests.rainmer.golden import COPIES, config_of, read_golden, rule_model, shared_golden

TOLERANCE = GOLDEN
TINY_SEED = 9
FULL_SIZE_SEED = 0


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


def difference(a, b):
    return (a - b).abs().max().item()


# Without the development folder: weights are made by the rule, not stored.


@pytest.fixture(scope="module")
def bias_free():
    return read_golden(COPIES / "rainmer_tiny" / "chralpha_biasfree_ruleweights.safetensors")


@pytest.fixture(scope="module")
def alternative_rates():
    return read_golden(COPIES / "rainmer_tiny" / "detgalpha_altrates.safetensors")


def test_bias_and_bias_free_norm(bias_free):
    tensors, metadata = bias_free
    model = rule_model(config_of(metadata["meta"]["config"]), metadata["meta"]["rule_seed"])
    assert difference(model(tensors["in/x"], tensors["in/q"]), tensors["out/y_lowtie"]) < TOLERANCE


@pytest.mark.parametrize(
    ("output", "rates"), [("single_half", ["1/2"]), ("dense", None)], ids=["one rate", "dense"]
)
def test_other_sparse_rates(alternative_rates, output, rates):
    tensors, metadata = alternative_rates
    config = config_of(metadata["meta"]["config"], sparse_rates=rates)
    model = rule_model(config, TINY_SEED)
    own = model.state_dict()
    # The stored output has the first entries of four weights, not one weight by the rule.
    four = rule_model(config_of(metadata["meta"]["config"]), TINY_SEED).state_dict()
    own.update({key: four[key][: len(own[key])] for key in own if key.endswith("rate_weights")})
    model.load_state_dict(own)
    restored = model(tensors["in/x"], tensors["in/q"])
    assert difference(restored, tensors[f"out/{output}"]) < TOLERANCE


# With the development folder: all variants, with stored weights.


def stored_weights(metadata):
    weights = {}
    for name in metadata["weights"]:
        weights.update(load_file(shared_golden(name)))
    if metadata["meta"]["config"]["variant"] == "detgalpha_resprompt":
        replaced = (".attn.chr_promptAttn.", ".attn.detg_promptAttn.")
        weights = {k: v for k, v in weights.items() if not any(part in k for part in replaced)}
    return weights


def tiny_case(variant):
    tensors, metadata = read_golden(shared_golden(f"rainmer_tiny/{variant}.safetensors"))
    return tensors, stored_weights(metadata), metadata["meta"]["config"]


@pytest.mark.shared_data
@pytest.mark.parametrize("variant", OFFICIAL_VARIANTS)
@pytest.mark.parametrize(("ties", "suffix"), [("lowest", "_lowtie"), ("native", "")])
def test_variants(variant, ties, suffix):
    tensors, weights, official = tiny_case(variant)
    model = Rainmer.from_official(weights, config_of(official, topk_ties=ties)).eval()
    single = model(tensors["in/x"], tensors["in/q"])
    batch = model(tensors["in/xb"], tensors["in/qb"])
    assert difference(single, tensors[f"out/y{suffix}"]) < TOLERANCE
    assert difference(batch, tensors[f"out/yb{suffix}"]) < TOLERANCE


@pytest.mark.shared_data
@pytest.mark.parametrize("variant", OFFICIAL_VARIANTS)
def test_one_query_for_a_batch(variant):
    tensors, weights, official = tiny_case(variant)
    model = Rainmer.from_official(weights, config_of(official, topk_ties="native")).eval()
    restored = model(tensors["in/xb"], tensors["in/qb"][:1])
    assert difference(restored, tensors["out/yb_query0"]) < TOLERANCE


@pytest.mark.shared_data
@pytest.mark.parametrize("variant", OFFICIAL_VARIANTS)
def test_without_prompts(variant):
    """The published training forward without prompts fuses the location map in every variant."""
    tensors, weights, official = tiny_case(variant)
    config = config_of(official, topk_ties="native", spatial_channel=True)
    model = Rainmer.from_official(weights, config).eval()
    none = torch.zeros(1, 0, config.base_dim)
    restored = model(tensors["in/x"], prompts=none)
    assert difference(restored, tensors["out/y_forward_noprompt"]) < TOLERANCE


OUR_MODULES = {
    "patch_embed": "embedding",
    "encoder_level0": "compensator",
    "location": "encoder.compensator",
    "fused": "interaction",
    "down1_2": "down1",
    "down2_3": "down2",
    "down3_4": "down3",
    "encoder_level1": "encoder1.0",
    "encoder_level2": "encoder2.0",
    "encoder_level3": "encoder3.0",
    "latent": "bottleneck.1",
    "up4_3": "up3",
    "up3_2": "up2",
    "up2_1": "up1",
    "reduce_chan_level3": "reduce3",
    "reduce_chan_level2": "reduce2",
    "decoder_level3": "decoder3.0",
    "decoder_level2": "decoder2.0",
    "decoder_level1": "decoder1.0",
    "refinement": "refinement",
    "output": "output",
    "encoder_level1.0.norm1": "encoder1.0.norm1",
    "encoder_level1.0.norm2": "encoder1.0.norm2",
    "encoder_level1.0.attn": "encoder1.0.attention",
    "encoder_level1.0.ffn": "encoder1.0.feed_forward",
    "decoder_level3.0.norm1": "decoder3.0.norm1",
    "decoder_level3.0.attn.project_out": "decoder3.0.attention",
    "decoder_level3.0.ffn": "decoder3.0.feed_forward",
}
for place in ("decoder_level3.0", "decoder_level3.0.attn"):
    for index, branch in enumerate(("chr", "detg")):
        OUR_MODULES[f"{place}.{branch}_promptAttn"] = f"decoder3.0.prompt_term.attentions.{index}"
        OUR_MODULES[f"{place}.{branch}_promptAttn.classifier"] = (
            f"decoder3.0.prompt_term.attentions.{index}.gate"
        )


def record_outputs(model: nn.Module, names: list[str]) -> dict[str, torch.Tensor]:
    recorded = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: recorded.__setitem__(name, output)
        )
    return recorded


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("variant", "least"),
    [("sum", 30), ("detgalpha_resprompt", 12), ("chralpha", 8), ("wochr", 6), ("wolocf", 8)],
)
def test_intermediates(variant, least):
    tensors, weights, official = tiny_case(variant)
    model = Rainmer.from_official(weights, config_of(official, topk_ties="native")).eval()
    stored = {name[4:] for name in tensors if name.startswith("mid/")} & OUR_MODULES.keys()
    assert len(stored) >= least
    prompts = model.prompts(tensors["in/q"])
    recorded = record_outputs(model, [OUR_MODULES[name] for name in stored])
    model(tensors["in/x"], prompts=prompts)
    for name in stored:
        assert difference(recorded[OUR_MODULES[name]], tensors[f"mid/{name}"]) < TOLERANCE, name


@pytest.mark.shared_data
@pytest.mark.parametrize(("query", "folder"), [("q", "query"), ("qb", "query_b")])
def test_query_encoder(query, folder):
    tensors, weights, official = tiny_case("sum")
    model = Rainmer.from_official(weights, config_of(official)).eval()
    stored = {
        name.rpartition("/")[2]: value
        for name, value in tensors.items()
        if name.startswith(f"mid/{folder}/")
    }
    maps = model.encoder(tensors[f"in/{query}"])
    detail = F.avg_pool2d(maps["degradation"], 8)
    prompts = model.prompts(tensors[f"in/{query}"])
    assert difference(detail, stored["pool_detail"]) < TOLERANCE
    for index, view in enumerate(("chromatic", "degradation")):
        pooled = global_average(maps[view])
        assert difference(pooled, stored[f"pool_{view}"].flatten(1)) < TOLERANCE
        assert difference(prompts[:, index], stored[f"z_{view}"].flatten(1)) < TOLERANCE


@pytest.mark.shared_data
def test_two_rates_with_native_ties(alternative_rates):
    tensors, metadata = alternative_rates
    rates = metadata["meta"]["rates"]["two_rates"]
    weights = stored_weights(metadata)
    weights = {k: v[:2] if k.endswith(".attns") else v for k, v in weights.items()}
    config = config_of(metadata["meta"]["config"], sparse_rates=rates, topk_ties="native")
    model = Rainmer.from_official(weights, config).eval()
    restored = model(tensors["in/x"], tensors["in/q"])
    assert difference(restored, tensors["out/two_rates"]) < TOLERANCE


@pytest.mark.shared_data
@pytest.mark.parametrize("variant", ["chralpha", "detgalpha"])
@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("y_lowtie", {}),
        ("y", {"topk_ties": "native"}),
        ("y_single_half", {"sparse_rates": ["1/2"]}),
        ("y_dense", {"sparse_rates": []}),
    ],
)
def test_published_size(variant, output, options):
    tensors, _ = read_golden(shared_golden(f"fullsize/{variant}.safetensors"))
    model = rule_model(RainmerConfig.official(variant, **options), FULL_SIZE_SEED)
    restored = model(tensors["in/x"], tensors["in/q"])
    assert difference(restored, tensors[f"out/{output}"]) < TOLERANCE
