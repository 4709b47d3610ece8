"""RCDNet equals the published network; what all networks have in common is in test_baselines.py."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rainmer.errors import ConfigError
from rainmer.models.baselines.rcdnet import (
    RainDecomposition,
    RCDNet,
    RCDNetConfig,
    _correlate,
    rcdnet_loss,
)
from tests.numerics import GOLDEN, assert_same_sum, rounding
from tests.rainmer.golden import (
    COPIES,
    official_shapes,
    read_golden,
    rule_weights,
    shared_golden,
    stored_weights,
)

TOLERANCE = 255 * GOLDEN  # images are in 0..255 here
"""In eval mode the golden weights find no rain; in training mode they do, and all terms count."""
TINY = RCDNetConfig(stages=3, extra_channels=6, blocks=2)


def difference(a, b):
    return (a - b).abs().max().item() / 255


@pytest.fixture(scope="module")
def ruled():
    """The published size with weights by the rule, and its golden values."""
    golden, metadata = read_golden(COPIES / "baselines/rcdnet_native_ruleweights.safetensors")
    model = RCDNet()
    model.load_official(rule_weights(official_shapes(model), metadata["meta"]["rule_seed"]))
    return model, golden


def test_equals_the_published_network(ruled):
    model, golden = ruled
    with torch.no_grad():
        decomposition = model.eval().decompose(golden["in/x255"])
        restored = model(golden["in/x255"] / 255)
    assert difference(decomposition.entry, golden["out/b0"]) < TOLERANCE
    assert difference(decomposition.backgrounds[-1], golden["out/derained255"]) < TOLERANCE
    assert difference(restored * 255, golden["out/derained255"]) < TOLERANCE
    assert (len(decomposition.backgrounds), len(decomposition.rain_layers)) == (18, 17)


def test_training_mode_uses_the_statistics_of_the_batch(ruled):
    model, golden = ruled
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        restored = model.train().decompose(golden["in/x255"]).backgrounds[-1]
    model.load_state_dict(state)  # the statistics moved
    assert difference(restored, golden["out/train_mode/derained255"]) < TOLERANCE


@pytest.fixture(scope="module")
def tiny():
    golden, metadata = read_golden(shared_golden("baselines/rcdnet.safetensors"))
    return golden, stored_weights(*metadata["weights"])


@pytest.mark.shared_data
def test_stages_and_loss(tiny):
    golden, weights = tiny
    model = RCDNet.from_official(weights).eval()
    assert model.config == TINY
    rainy, clean = golden["in/x255"], golden["in/target255"]
    with torch.no_grad():
        decomposition = model.decompose(rainy)
        loss = model.training_loss(rainy / 255, clean / 255)
    for stage, background in enumerate(decomposition.backgrounds):
        assert difference(background, golden[f"out/list_b/{stage}"]) < TOLERANCE
    for stage, rain in enumerate(decomposition.rain_layers):
        assert difference(rain, golden[f"out/list_r/{stage}"]) < TOLERANCE
    assert difference(decomposition.entry, golden["out/b0"]) < TOLERANCE
    assert loss.item() == pytest.approx(golden["out/loss"].item(), rel=GOLDEN)


@pytest.mark.shared_data
def test_statistics_after_a_training_step(tiny):
    golden, weights = tiny
    model = RCDNet.from_official(weights).train()
    decomposition = model.decompose(golden["in/x255"])
    assert all(rain.any() for rain in decomposition.rain_layers)
    restored = decomposition.backgrounds[-1].detach()
    assert difference(restored, golden["out/train_mode/derained255"]) < TOLERANCE
    names = {official: name for name, official in model.official_names().items()}
    state = model.state_dict()
    stored = [key for key in golden if ".running_" in key]
    assert len(stored) == 3
    for key in stored:
        statistic = state[names[key.removeprefix("out/train_mode/")]]
        assert_same_sum(statistic, golden[key], depth=10)


@pytest.mark.shared_data
def test_published_keys():
    shapes = json.loads(shared_golden("keys/rcdnet.json").read_text())
    weights = {key: torch.zeros(shape) for key, shape in shapes.items()}
    model = RCDNet.from_official(weights)
    assert model.config == RCDNetConfig()
    assert sorted(model.official_names().values()) == sorted(shapes)
    assert sum(p.numel() for p in model.parameters()) == 2_975_186


@pytest.mark.shared_data
def test_initial_dictionary_is_the_published_one():
    kernels = load_file(shared_golden("baselines/rcdnet_kernel.safetensors"))["C9"]
    model = RCDNet(TINY)
    assert torch.equal(model.dictionary, kernels)
    assert torch.equal(model.entry_dictionary, kernels)


def test_initial_values():
    model = RCDNet(TINY)
    values = {
        "entry_threshold": 1.0,
        "extra_filters": 1 / 9,
        "map_steps": 1.0,
        "background_steps": 5.0,
        "map_nets.0.threshold": 0.5,
    }
    for name, value in values.items():
        parameter = model.get_parameter(name)
        assert torch.equal(parameter, torch.full_like(parameter, value)), name
    assert model.dictionary.data_ptr() != model.entry_dictionary.data_ptr()
    assert torch.equal(model.dictionary[0], model.dictionary[2])


def test_first_maps_are_the_transpose_of_making_rain():
    generator = torch.Generator().manual_seed(0)
    maps, image = (torch.rand(1, n, 7, 9, generator=generator).double() for n in (32, 3))
    kernels = torch.rand(3, 32, 9, 9, generator=generator).double()
    rain = F.conv2d(maps, kernels / 10, padding=4)
    assert_same_sum((rain * image).sum(), (maps * _correlate(image, kernels)).sum(), depth=4)


def test_loss_by_hand():
    rainy, clean = torch.full((2, 3, 4, 4), 5.0), torch.full((2, 3, 4, 4), 3.0)
    decomposition = RainDecomposition(
        entry=clean + 1, backgrounds=[clean + 2, clean + 3], rain_layers=[rainy - clean + 4]
    )
    expected = 0.1 * 1 + 0.1 * 4 + 9 + 0.1 * 16 + 0.9 * 16
    assert rcdnet_loss(decomposition, rainy, clean).item() == pytest.approx(
        expected, rel=rounding(depth=4)
    )


@pytest.mark.parametrize("field", ["stages", "extra_channels", "blocks"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_wrong_options(field, value):
    with pytest.raises(ConfigError, match=field):
        RCDNetConfig(**{field: value})
    with pytest.raises(ConfigError, match=field):
        RCDNet.from_mapping({field: value})


def test_sizes_are_read_off_the_shapes():
    config = RCDNetConfig(stages=1, extra_channels=2, blocks=3)
    model = RCDNet(config)
    weights = rule_weights(official_shapes(model), seed=1)
    assert RCDNet.from_official(weights).config == config
