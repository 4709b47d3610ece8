"""BRN equals the published network; what all networks have in common is in test_baselines.py."""

import json

import pytest
import torch

from rainmer.errors import ConfigError
from rainmer.models.baselines.brn import BRN, BRNConfig
from tests.numerics import GOLDEN
from tests.rainmer.golden import COPIES, read_golden, rule_weights, shared_golden, stored_weights

TOLERANCE = GOLDEN
SEED = 32


@pytest.fixture(scope="module")
def official():
    # The stored weights are those of the rule, rounded to float16.
    return {k: v.half().float() for k, v in rule_weights(BRN().official_shapes(), SEED).items()}


@pytest.fixture(scope="module")
def model(official):
    return BRN.from_official(official).eval()


def difference(a, b):
    return (a - b).abs().max().item()


def test_equals_the_published_network(model):
    golden, _ = read_golden(COPIES / "baselines/brn.safetensors")
    with torch.no_grad():
        assert difference(model(golden["in/x_b"]), golden["out/y_b"]) < TOLERANCE
    with_gradients = model(golden["in/x_b"])  # takes no shortcut in memory
    assert difference(with_gradients.detach(), golden["out/y_b"]) < TOLERANCE


@pytest.mark.shared_data
def test_equals_the_published_network_with_stored_weights():
    golden, metadata = read_golden(shared_golden("baselines/brn.safetensors"))
    model = BRN.from_official(stored_weights(*metadata["weights"])).eval()
    outputs = []
    for layer in (model.background.entry, model.background.residuals[0]):
        layer.register_forward_hook(lambda *a: outputs.append(a[1] + (a[2],)))
    restored = model(golden["in/x"]).detach()
    assert difference(restored, golden["out/y"]) < TOLERANCE
    assert difference(outputs[0][-1].relu(), golden["mid/conv0"]) < TOLERANCE
    unit_in, unit_out = outputs[1]
    inner = golden["mid/res_conv1"]  # of the residual unit, before its input is added
    assert difference(unit_out, (inner + unit_in).relu()) < TOLERANCE
    with torch.no_grad():
        assert difference(model(golden["in/x_b"]), golden["out/y_b"]) < TOLERANCE


@pytest.mark.shared_data
def test_published_keys():
    shapes = json.loads(shared_golden("keys/brn.json").read_text())
    assert {k: list(v) for k, v in BRN().official_shapes().items()} == shapes
    model = BRN.from_official({key: torch.zeros(shape) for key, shape in shapes.items()})
    assert sum(p.numel() for p in model.parameters()) == 375_526


def test_iterations_change_the_output(official):
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    once, twice = (BRN(BRNConfig(iterations=n)) for n in (1, 2))
    for network in (once, twice):
        network.load_official(official)
    with torch.no_grad():
        assert difference(once(image), twice(image)) > 1e-3


def test_frozen_network_with_a_trained_input():
    """Gradients must be right even where only the input wants them."""
    image = torch.rand(1, 3, 3, 4, dtype=torch.double, requires_grad=True)
    network = BRN(BRNConfig(iterations=2)).requires_grad_(False).double()
    assert torch.autograd.gradcheck(lambda x: network(x).mean((2, 3)), image, atol=1e-6)


@pytest.mark.parametrize("iterations", [0, 2.5, True, "6"])
def test_wrong_iterations(iterations):
    with pytest.raises(ConfigError, match="iterations"):
        BRNConfig(iterations=iterations)
    with pytest.raises(ConfigError, match="iterations"):
        BRN.from_mapping({"iterations": iterations})
