"""Properties of the network that hold whatever its weights are."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from rainmer.errors import ImageError
from rainmer.models.rainmer import Rainmer
from rainmer.models.rainmer_config import OFFICIAL_VARIANTS, RainmerConfig
from tests.numerics import rounding
from tests.rainmer.golden import rule_model

TINY = {"dim": 8, "base_dim": 16, "num_blocks": (1, 1, 1, 1), "heads": (1, 2, 4, 8)}
ROUNDING = rounding(depth=80)


def tiny(variant="detgalpha", *, seed=1, **options):
    return rule_model(RainmerConfig.official(variant, **{**TINY, **options}), seed)


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    return tiny().requires_grad_(False)


@pytest.mark.parametrize(
    "size_hw", [(8, 8), (16, 24), (21, 33), (9, 40), (5, 7), (1, 1), (2, 64)], ids=str
)
def test_any_size_is_kept(model, size_hw):
    restored = model(images(1, 3, *size_hw))
    assert restored.shape == (1, 3, *size_hw)
    assert restored.isfinite().all()


def test_padding_is_reflection_at_the_bottom_and_right(model):
    image, query = images(1, 3, 21, 30), images(1, 3, 32, 32, seed=1)
    by_hand = F.pad(image, (0, 2, 0, 3), mode="reflect")
    expected = model(by_hand, query)[..., :21, :30]
    torch.testing.assert_close(model(image, query), expected, rtol=0, atol=ROUNDING)


def test_batch_equals_single(model):
    batch, queries = images(3, 3, 16, 24), images(3, 3, 32, 32, seed=1)
    together = model(batch, queries)
    one_by_one = torch.cat([model(batch[i : i + 1], queries[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=ROUNDING)


def test_input_is_not_modified(model):
    image, query = images(1, 3, 16, 24), images(1, 3, 32, 32, seed=1)
    kept = image.clone(), query.clone()
    model(image, query)
    assert torch.equal(image, kept[0])
    assert torch.equal(query, kept[1])


def test_memory_order_does_not_matter(model):
    image = images(2, 3, 16, 24)
    expected = model(image)
    relaid = tiny().requires_grad_(False).to(memory_format=torch.channels_last)
    ordered = image.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(relaid(ordered), expected, rtol=0, atol=ROUNDING)


def test_training_mode_gives_the_same_numbers(model):
    image = images(1, 3, 16, 24)
    training = tiny().train()
    torch.testing.assert_close(training(image).detach(), model(image), rtol=0, atol=ROUNDING)


def test_default_query_is_the_image_resized(model):
    image = images(1, 3, 40, 56)
    query = F.interpolate(image, (128, 128), mode="bilinear", align_corners=False)
    assert torch.equal(model(image), model(image, query))


def test_prompts_stand_for_the_query(model):
    batch, query = images(3, 3, 16, 24), images(1, 3, 32, 32, seed=1)
    prompts = model.prompts(query)
    assert prompts.shape == (1, 2, TINY["base_dim"])
    torch.testing.assert_close(prompts.norm(dim=-1), torch.ones(1, 2))
    expected = model(batch, query)
    assert torch.equal(model(batch, prompts=prompts), expected)
    repeated = model(batch, prompts=prompts.expand(3, -1, -1))
    torch.testing.assert_close(repeated, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("variant", "count"), [("sum", 2), ("wochr", 1), ("wodetg", 1), ("wolocf", 2), ("baseline", 0)]
)
def test_count_of_prompts(variant, count):
    network = tiny(variant)
    assert network.prompts(images(2, 3, 16, 16)).shape == (2, count, TINY["base_dim"])


def test_query_steers_the_restoration(model):
    image = images(1, 3, 16, 24)
    dark, bright = images(1, 3, 32, 32) * 0.1, images(1, 3, 32, 32)
    assert not torch.allclose(model(image, dark), model(image, bright), atol=ROUNDING)


def test_baseline_has_no_encoder():
    network = tiny("baseline")
    assert network.encoder is None
    image = images(1, 3, 16, 24)
    assert torch.equal(network(image), network(image, images(1, 3, 32, 32, seed=1)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m(images(3, 8, 8)), "image has shape (3, 8, 8)"),
        (lambda m: m(images(1, 4, 8, 8)), "image has shape (1, 4, 8, 8)"),
        (lambda m: m(images(1, 3, 8, 8), images(3, 8, 8)), "query has shape (3, 8, 8)"),
        (lambda m: m(images(3, 3, 8, 8), images(2, 3, 8, 8)), "prompts of shape (2, 2, 16)"),
        (lambda m: m(images(1, 3, 8, 8), prompts=images(1, 1, 16)), "prompts of shape (1, 1, 16)"),
        (lambda m: m(images(1, 3, 8, 8), prompts=images(1, 2, 8)), "prompts of shape (1, 2, 8)"),
        (
            lambda m: m(images(1, 3, 8, 8), images(1, 3, 8, 8), prompts=images(1, 2, 16)),
            "not both",
        ),
    ],
    ids=["rank", "channels", "query", "batch of queries", "count", "width", "both"],
)
def test_wrong_shapes_are_refused(model, call, words):
    with pytest.raises(ImageError) as caught:
        call(model)
    assert words in str(caught.value)


CHANGES = {
    "num_blocks": (1, 1, 1, 2),
    "heads": (2, 2, 4, 8),
    "ffn_expansion": 2.0,
    "bias": True,
    "layer_norm": "bias_free",
    "sparse_rates": ("1/2",),
    "views": ("chromatic",),
    "prompt_gate": "chromatic",
    "prompt_position": "residual",
    "spatial_channel": False,
    "topk_ties": "native",
    "entry_stride": 2,
    "compensator_steps": 1,
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_option_changes_the_output(field):
    image, query = images(1, 3, 24, 24), images(1, 3, 32, 32, seed=1)
    before = tiny("sum")(image, query)
    after = tiny("sum", **{field: CHANGES[field]})(image, query)
    assert (before - after).abs().max() > 1e-5


def test_the_options_tested_are_all_but_the_sizes():
    fields = {field.name for field in dataclasses.fields(RainmerConfig)}
    assert fields - CHANGES.keys() == {"dim", "base_dim"}


def test_detail_has_no_effect_on_inference():
    image = images(1, 3, 16, 16)
    without = tiny("sum", views=("chromatic", "degradation"))
    assert torch.equal(without(image), tiny("sum")(image))


@pytest.mark.parametrize("variant", OFFICIAL_VARIANTS)
def test_gradient_reaches_every_weight(variant):
    # Width and seed are such that no squeeze of the view encoder has all its ReLUs at zero.
    network = tiny(variant, seed=0, base_dim=32).train()
    image, query, target = (images(2, 3, 16, 24, seed=seed) for seed in range(3))
    (network(image, query) - target).square().mean().backward()
    without = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("variant", ["chralpha", "detgalpha"])
def test_the_share_of_a_prompt_sends_no_gradient_to_it(variant):
    """The prompts get a gradient through the terms, but none through their weights."""
    network = tiny(variant)
    term = network.decoder3[0].prompt_term
    prompts = F.normalize(images(1, 2, 16), dim=-1).requires_grad_()
    term.chromatic_share(prompts).sum().backward()
    assert prompts.grad is None
    assert term.direction.grad.any()


def test_initial_values():
    network = Rainmer(RainmerConfig.official("detgalpha", **TINY))
    block = network.decoder2[0]
    assert (block.norm1.weight == 1).all()
    assert (block.norm1.bias == 0).all()
    assert (block.attention.temperature == 1).all()
    assert (block.attention.rate_weights == 0.2).all()
    assert (block.prompt_term.direction == 1).all()
    bound = block.attention.qkv.in_channels**-0.5
    assert block.attention.qkv.weight.abs().max() <= bound
    assert block.attention.qkv.weight.abs().max() > 0.9 * bound


def test_published_size():
    with torch.device("meta"):
        plain, gated = Rainmer(), Rainmer(RainmerConfig.official("detgalpha"))
    assert sum(p.numel() for p in plain.parameters()) == 35_823_296
    assert sum(p.numel() for p in gated.parameters()) == 35_825_344


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_finite_and_close(dtype):
    # Dense attention: in sparse maps rounding may change which entries are kept.
    network = tiny(sparse_rates=()).requires_grad_(False)
    image, query = images(1, 3, 32, 40), images(1, 3, 64, 64, seed=1)
    exact = network(image, query)
    with torch.autocast("cpu", dtype=dtype):
        rounded = network(image, query).float()
    assert rounded.isfinite().all()
    correction = (exact - image).abs().mean()
    assert (rounded - exact).abs().mean() < 0.05 * correction
    assert not torch.equal(rounded, exact)


def test_attention_stays_in_float32_under_autocast(model):
    seen = []
    attention = model.bottleneck[0].attention
    combine = type(attention).combine_maps

    def record(logits):
        seen.append((logits.dtype, torch.is_autocast_enabled("cpu")))
        return combine(attention, logits)

    attention.combine_maps = record
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(images(1, 3, 16, 16))
    del attention.combine_maps
    assert seen == [(torch.float32, False)]
