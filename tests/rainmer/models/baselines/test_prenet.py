import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rainmer.errors import ConfigError, WeightsError
from rainmer.frames.arrays import to_batch
from rainmer.frames.images import read_image
from rainmer.models import load
from rainmer.models.baselines.prenet import PReNet
from tests.numerics import GOLDEN, rounding
from tests.rainmer.golden import COPIES, read_golden, shared_file, shared_golden

TOLERANCE = GOLDEN


@pytest.fixture(scope="module")
def official():
    return {
        k: v.float() for k, v in load_file(COPIES / "baselines/prenet_weights.safetensors").items()
    }


@pytest.fixture(scope="module")
def golden():
    return read_golden(COPIES / "baselines/prenet.safetensors")[0]


@pytest.fixture(scope="module")
def model(official):
    return PReNet.from_official(official).eval()


@pytest.mark.parametrize(("image", "output"), [("in/x", "out/y"), ("in/x_b", "out/y_b")])
def test_equals_the_published_network(model, golden, image, output):
    with torch.no_grad():
        restored = model(golden[image])
    torch.testing.assert_close(restored, golden[output], rtol=0, atol=TOLERANCE)
    with_gradients = model(golden[image])  # takes no shortcut in memory
    torch.testing.assert_close(with_gradients.detach(), golden[output], rtol=0, atol=TOLERANCE)


def test_intermediates(model, golden):
    outputs = []
    layers = model.entry, model.residuals[0].conv2
    hooks = [layer.register_forward_hook(lambda *a: outputs.append(a[2])) for layer in layers]
    model(golden["in/x"])
    for hook in hooks:
        hook.remove()
    # The first iteration comes first; in training mode of autograd ReLUs are still in place.
    torch.testing.assert_close(outputs[0].relu(), golden["mid/conv0"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(outputs[1].relu(), golden["mid/res_conv1"], rtol=0, atol=TOLERANCE)


def test_frozen_network_with_a_trained_input(golden):
    """Gradients must be right even where only the input wants them."""
    image = golden["in/x"][..., :3, :4].double().requires_grad_()
    network = PReNet(iterations=2).requires_grad_(False).double()
    assert torch.autograd.gradcheck(lambda x: network(x).mean((2, 3)), image, atol=1e-6)


def test_gradient_reaches_every_weight(official, golden):
    network = PReNet.from_official(official)
    network(golden["in/x"]).square().mean().backward()
    assert [k for k, p in network.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (64, 3)], ids=str)
def test_any_size_is_kept(model, size_hw):
    image = torch.rand(2, 3, *size_hw)
    kept = image.clone()
    with torch.no_grad():
        restored = model(image)
        first = model(image[:1])
    assert restored.shape == image.shape
    assert torch.equal(image, kept)
    torch.testing.assert_close(restored[:1], first, rtol=0, atol=rounding(depth=84))


def test_iterations_change_the_output(official, golden):
    once, twice = PReNet(iterations=1), PReNet(iterations=2)
    for network in (once, twice):
        network.load_official(official)
    with torch.no_grad():
        difference = once(golden["in/x"]) - twice(golden["in/x"])
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("iterations", [0, 2.5, True, "6"])
def test_wrong_iterations(iterations):
    with pytest.raises(ConfigError, match="iterations is"):
        PReNet(iterations)


def test_unknown_option():
    with pytest.raises(ConfigError, match="did you mean 'iterations'"):
        PReNet.from_mapping({"iteration": 6})


def test_wrong_weights_are_listed(official):
    incomplete = {k: v for k, v in official.items() if not k.startswith("conv_g")}
    incomplete["conv.0.bias"] = torch.zeros(4)
    with pytest.raises(WeightsError) as caught:
        PReNet.from_official({**incomplete, "conv_x.0.bias": torch.zeros(1)})
    assert "2 keys missing (conv_g.0.weight, conv_g.0.bias)" in str(caught.value)
    assert "1 keys unexpected (conv_x.0.bias)" in str(caught.value)
    assert "1 shapes differ (conv.0.bias is 4 instead of 3)" in str(caught.value)


def test_autocast_is_finite_and_close(model, golden):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        restored = model(golden["in/x"]).float()
    correction = (golden["out/y"] - golden["in/x"]).abs().mean()
    assert (restored - golden["out/y"]).abs().mean() < 0.05 * correction


@pytest.mark.shared_data
def test_published_keys():
    shapes = json.loads(shared_golden("keys/prenet.json").read_text())
    weights = {key: torch.zeros(shape) for key, shape in shapes.items()}
    assert sum(p.numel() for p in PReNet.from_official(weights).parameters()) == 168_963


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["rain100h", "rain100l", "rain1400", "real1", "real2"])
def test_published_checkpoints_load(name):
    network = load(f"prenet:{shared_file(f'data/derainers/prenet-{name}.pth')}")
    assert not network.training
    assert network.iterations == 6


@pytest.mark.shared_data
def test_published_checkpoint_restores_a_real_image():
    network = load(f"prenet:{shared_file('data/derainers/prenet-rain100h.pth')}")
    rainy, clean = (
        to_batch([read_image(shared_file(f"data/rain100h-20/{folder}/1.png"))])[..., :128, :160]
        for folder in ("input", "target")
    )
    with torch.no_grad():
        restored = network(rainy).clamp(0, 1)
    gain_db = 10 * torch.log10(F.mse_loss(rainy, clean) / F.mse_loss(restored, clean))
    assert gain_db > 6
