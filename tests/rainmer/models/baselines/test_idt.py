"""IDT equals the published network; what all networks have in common is in test_baselines.py."""

import json

import pytest
import torch

from rainmer import Derainer
from rainmer.errors import ConfigError, ImageError, WeightsError
from rainmer.frames.tiling import pad_to_least
from rainmer.models import save_weights
from rainmer.models.baselines import idt
from rainmer.models.baselines.idt import IDT, IDTConfig
from tests.numerics import GOLDEN, rounding
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
TINY = IDTConfig(image_size=64, dim=4, heads=(1, 2, 2, 4, 4, 4, 4, 2, 2), ffn_expansion=1.5)


def difference(a, b):
    return (a - b).abs().max().item()


@pytest.fixture(scope="module")
def official():
    # The stored weights are those of the rule, rounded to float16.
    shapes = official_shapes(IDT(TINY))
    return {k: v.half().float() for k, v in rule_weights(shapes, SEED).items()}


@pytest.fixture(scope="module")
def model(official):
    return IDT.from_official(official).eval()


def test_equals_the_published_network(model):
    golden, _ = read_golden(COPIES / "baselines/idt.safetensors")
    assert model.config == TINY
    with torch.no_grad():
        assert difference(model(golden["in/x"]), golden["out/y"]) < TOLERANCE


OUR_MODULES = {
    "encoderlayer_0.blocks.0": "encoders.0.0",
    "encoderlayer_0.blocks.3": "encoders.0.3",
    "encoderlayer_3": "encoders.3",
    "bottle": "bottleneck",
    "decoderlayer_0": "decoders.0",
}


@pytest.mark.shared_data
def test_intermediates_with_stored_weights():
    golden, metadata = read_golden(shared_golden("baselines/idt.safetensors"))
    model = IDT.from_official(stored_weights(*metadata["weights"])).eval()
    outputs = {}
    for theirs, ours in OUR_MODULES.items():
        model.get_submodule(ours).register_forward_hook(
            lambda *a, theirs=theirs: outputs.update({theirs: a[2]})
        )
    with torch.no_grad():
        assert difference(model(golden["in/x"]), golden["out/y"]) < TOLERANCE
    for theirs, output in outputs.items():
        expected = golden[f"mid/{theirs}"]
        assert difference(output.flatten(1, 2), expected) < TOLERANCE * expected.abs().max()


@pytest.mark.shared_data
def test_published_size():
    golden, metadata = read_golden(shared_golden("baselines/idt_native_ruleweights.safetensors"))
    shapes = json.loads(shared_golden("keys/idt.json").read_text())
    model = IDT.from_official(rule_weights(shapes, metadata["meta"]["rule_seed"])).eval()
    assert model.config == IDTConfig()
    assert sorted(model.official_names().values()) == sorted(shapes)
    assert sum(p.numel() for p in model.parameters()) == 16_416_463
    with torch.no_grad():
        assert difference(model(golden["in/x"]), golden["out/y"]) < TOLERANCE


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("run", "image"), [("tiles_scoremap", "big"), ("small_padded", "small")], ids=str
)
def test_equals_the_published_evaluation(model, tmp_path, run, image):
    golden, _ = read_golden(shared_golden("baselines/eval_idt.safetensors"))
    rainy, expected = golden[f"in/{image}/rain_u8"][None] / 255, golden[f"out/{run}/img"][None]
    with torch.no_grad():
        assert difference(model(rainy).clamp(0, 1), expected) < TOLERANCE
    save_weights(tmp_path / "idt.safetensors", model)
    # Whole frames, which the network tiles itself, and tiles of the stage.
    for options in ({}, {"tile": 64, "overlap": 16, "blend": "score"}):
        derainer = Derainer(
            f"idt:{tmp_path / 'idt.safetensors'}", device="cpu", precision="fp32", **options
        )
        assert difference(derainer(rainy), expected) < TOLERANCE


def test_small_images_are_padded_by_reflection(model):
    image = torch.rand(1, 3, 40, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(image), model(pad_to_least(image, 64))[:, :, :40])


def test_many_tiles_of_a_batch_stay_apart(model, monkeypatch):
    monkeypatch.setattr(idt, "_TILES_AT_ONCE", 3)
    batch = torch.rand(2, 3, 70, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = model(batch)  # four tiles
        for image, restored in zip(batch, together, strict=True):
            assert difference(model(image[None])[0], restored) < rounding(depth=150)


def test_tiles_are_clamped_in_eval_mode_only(official):
    image = torch.zeros(1, 3, 64, 65)
    model = IDT.from_official(official)
    model.output.bias.data.fill_(5.0)
    with torch.no_grad():
        assert model.eval()(image).max() == pytest.approx(1, abs=rounding(depth=1))
        assert model(image[..., :64]).max() > 2
        assert model.train()(image).max() > 2


def test_stochastic_depth():
    model = IDT(TINY)
    rates = [
        [round(block.drop_path.rate, 4) for block in blocks]
        for blocks in (*model.encoders, model.bottleneck, *model.decoders)
    ]
    assert rates == [
        [0, 0, 0, 0.0222],
        [0.0333, 0.0333, 0.0333, 0.0556],
        [0.0667, 0.0667, 0.0778],
        [0.0889, 0.0889, 0.1],
        [0.1],
        [0.1, 0.1],
        [0.0889, 0.0889, 0.0778],
        [0.0667, 0.0667, 0.0556],
        [0.0444, 0.0444, 0.0444, 0.0222],
    ]
    drop = model.bottleneck[0].drop_path
    ones = torch.ones(2000, 1, 1, 1)
    torch.manual_seed(0)
    assert sorted(drop(ones).unique().tolist()) == pytest.approx([0, 1 / 0.9])
    assert drop(ones).mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(drop.eval()(ones), ones)


def test_initial_values():
    block = IDT(TINY).encoders[3][0]
    assert not block.attention.query.bias.any()
    assert block.attention.query.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.attention.bias_table.std().item() == pytest.approx(0.02, rel=0.1)
    assert (block.norm1.weight == 1).all()
    assert not block.norm1.bias.any()


def test_other_shapes_are_refused(model):
    with pytest.raises(ImageError, match=r"expected \(B, 3, H, W\)"):
        model(torch.rand(3, 64, 64))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 96}, "image_size is 96"),
        ({"image_size": 63}, "image_size"),
        ({"dim": 0}, "dim is 0"),
        ({"heads": [1, 2]}, "list of 9"),
        ({"heads": [1, 2, 4, 8, 16, 16, 8, 4, 3]}, r"heads\[8\] is 3"),
        ({"heads": [1, 2, 4, 8, 16, 16, 8, 4, 0]}, r"heads\[8\] is 0"),
        ({"ffn_expansion": 0.001}, "ffn_expansion is 0.001"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"depth": 3}, "valid: dim, drop_path"),
    ],
    ids=str,
)
def test_wrong_options(options, words):
    with pytest.raises(ConfigError, match=words):
        IDT.from_mapping(options)


def test_image_sizes_that_cannot_be_told(official):
    key = "encoderlayer_3.blocks.2.attn.Position_Extract.0.weight"
    with pytest.raises(WeightsError, match="larger than 128x128"):
        IDT.from_official({**official, key: torch.zeros(64, 1, 5, 5)})
