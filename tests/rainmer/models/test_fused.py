"""The network for inference: the same function as the one that is trained."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer.errors import WeightsError
from rainmer.models import save_weights
from rainmer.models import strips as strips_module
from rainmer.models.baselines.drsformer import DRSformer, DRSformerConfig
from rainmer.models.blocks import TransformerBlock
from rainmer.models.layers import FeatureCompensator
from rainmer.models.rainmer import Rainmer
from rainmer.models.rainmer_config import OFFICIAL_VARIANTS, RainmerConfig
from tests.numerics import GOLDEN, rounding
from tests.rainmer.golden import COPIES, config_of, read_golden, rule_model, shared_golden

TINY = {"dim": 8, "base_dim": 16, "num_blocks": (1, 1, 1, 1), "heads": (1, 2, 4, 8)}
ROUNDING = rounding(depth=80)


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(variant="detgalpha", *, seed=1, **options):
    config = RainmerConfig.official(variant, **{**TINY, **options})
    return rule_model(config, seed).requires_grad_(False)


def difference(a, b):
    return (a - b).abs().max().item()


@pytest.fixture
def many_strips(monkeypatch):
    monkeypatch.setattr(strips_module, "_STRIP_BYTES", 1)


@pytest.mark.parametrize("variant", OFFICIAL_VARIANTS)
def test_every_variant(variant):
    model = tiny(variant)
    image, query = images(2, 3, 24, 32), images(2, 3, 32, 32, seed=1)
    expected = model(image, query)
    assert difference(expected, image) > 100 * ROUNDING
    assert difference(model.fuse()(image, query), expected) < ROUNDING


@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"layer_norm": "bias_free", "bias": True},
        {"sparse_rates": ()},
        {"sparse_rates": ("4/5", "1/2")},
        {"topk_ties": "native", "sparse_rates": ("1/2",)},
        {"entry_stride": 2, "compensator_steps": 1},
        {"ffn_expansion": 1.0},
        {"ffn_expansion": 2.66, "dim": 12, "heads": (1, 1, 2, 2)},
    ],
    ids=str,
)
def test_every_option(options):
    model = tiny(**options)
    image = images(1, 3, 32, 48)
    assert difference(model.fuse()(image), model(image)) < ROUNDING


@pytest.mark.slow
@settings(deadline=None, max_examples=8)
@given(
    height=st.integers(17, 70),
    width=st.integers(17, 40),
    count=st.integers(1, 3),
    strip_bytes=st.sampled_from([1, 1 << 14, 1 << 18]),
)
def test_strips_of_any_size_do_not_matter(height, width, count, strip_bytes):
    # Without sparse attention: of many sizes one has two logits so close that rounding decides
    # which of them is kept.
    model = tiny("detgalpha_resprompt", bias=True, dim=12, heads=(1, 1, 2, 2), sparse_rates=())
    image, query = images(count, 3, height, width), images(1, 3, 16, 16, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips_module, "_STRIP_BYTES", strip_bytes)
        fused = model.fuse()(image, query)
    assert difference(fused, model(image, query)) < ROUNDING


def test_strips_are_used(many_strips, monkeypatch):
    """The tests above would not tell if everything were one strip."""
    pixels = torch.zeros(2, 50, 6, 4)
    strips = list(strips_module.strips(pixels, 4))
    assert len(strips) == 2 * 6
    assert [rows.in_image for _, rows in strips[:6]] == [
        slice(first, last)
        for first, last in ((0, 8), (8, 16), (16, 25), (25, 33), (33, 41), (41, 50))
    ]


def test_small_images_stay_together(monkeypatch):
    monkeypatch.setattr(strips_module, "_STRIP_BYTES", 2 * 50 * 6 * 4 * 4)
    parts = list(strips_module.strips(torch.zeros(5, 50, 6, 4), 4))
    assert [images for images, _ in parts] == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert all(rows.in_image == slice(0, 50) for _, rows in parts)


@pytest.mark.usefixtures("many_strips")
def test_golden_bias_free():
    tensors, metadata = read_golden(
        COPIES / "rainmer_tiny" / "chralpha_biasfree_ruleweights.safetensors"
    )
    model = rule_model(config_of(metadata["meta"]["config"]), metadata["meta"]["rule_seed"])
    restored = model.fuse()(tensors["in/x"], tensors["in/q"])
    assert difference(restored, tensors["out/y_lowtie"]) < GOLDEN


@pytest.mark.parametrize("variant", ["chralpha", "detgalpha"])
def test_golden_full_size(variant):
    tensors, metadata = read_golden(shared_golden(f"fullsize/{variant}.safetensors"))
    model = rule_model(config_of(metadata["meta"]["config"]), 0).fuse()
    restored = model(tensors["in/x"], tensors["in/q"])
    assert difference(restored, tensors["out/y_lowtie"]) < GOLDEN


@pytest.mark.slow
def test_it_is_traced_as_one_graph():
    """Where tracing breaks off, torch.compile leaves many small graphs, on CUDA too."""
    network = tiny("detgalpha_resprompt", compensator_steps=1).fuse()
    image = images(1, 3, 16, 32)
    traced = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)
    with torch.inference_mode():
        assert difference(traced(image), network(image)) < ROUNDING


def test_drsformer_is_fused_too():
    torch.manual_seed(0)
    model = DRSformer(DRSformerConfig(dim=8, num_blocks=(1, 1, 1, 1))).eval()
    image = images(2, 3, 21, 33)
    with torch.no_grad():
        assert difference(model.fuse()(image), model(image)) < ROUNDING


def test_the_original_is_left_as_it_was():
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = model.fuse()
    fused(images(1, 3, 16, 16))
    assert isinstance(fused, Rainmer)
    assert not any(isinstance(m, TransformerBlock | FeatureCompensator) for m in fused.modules())
    assert any(isinstance(m, TransformerBlock) for m in model.modules())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_fusing_twice_is_fusing_once():
    fused = tiny().fuse()
    assert fused.fuse() is fused


def test_a_fused_network_cannot_be_saved(tmp_path):
    with pytest.raises(WeightsError, match="fused"):
        save_weights(tmp_path / "w.safetensors", tiny().fuse())
    assert not list(tmp_path.iterdir())


def test_a_fused_network_has_no_gradients():
    fused = tiny().fuse()
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert fused(images(1, 3, 16, 16).requires_grad_()).grad_fn is not None  # the residual's


def test_half_precision_stays_near():
    """Without the choice of entries, which rounding changes where random weights give no margin."""
    model = tiny(dim=16, heads=(1, 2, 2, 2), sparse_rates=())
    image = images(1, 3, 32, 32)
    expected = model(image)
    halved = model.fuse().to(torch.bfloat16)(image)
    assert halved.dtype == torch.float32
    correction = difference(expected, image)
    assert 0 < difference(halved, expected) < 0.05 * correction
