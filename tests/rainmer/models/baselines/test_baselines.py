"""What all comparison methods promise: sizes, gradients, files, and checkpoints that are refused.

That they equal the published networks is tested in one file for each.
"""

import numpy as np
import pytest
import torch

from rainmer import Derainer, models
from rainmer.errors import ConfigError, WeightsError
from rainmer.models import save_weights, weights_fingerprint
from tests.numerics import rounding
from tests.rainmer.golden import official_shapes, rule_weights

OPTIONS = {
    "brn": {"iterations": 2},
    "drsformer": {"dim": 4, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 2, 4]},
    "idt": {"image_size": 64, "dim": 4, "heads": [1, 1, 2, 2, 4, 2, 2, 1, 1], "ffn_expansion": 1.5},
    "rcdnet": {"stages": 2, "extra_channels": 3, "blocks": 1},
}

pytestmark = pytest.mark.parametrize("name", OPTIONS)


def official_weights(network):
    has_own = hasattr(network, "official_shapes")
    shapes = network.official_shapes() if has_own else official_shapes(network)
    return rule_weights(shapes, seed=5)


@pytest.fixture
def network(name):
    network = models.build(name, **OPTIONS[name])
    network.load_official(official_weights(network))
    return network.eval()


def image(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def assert_equal_outputs(a, b):
    with torch.no_grad():
        assert torch.equal(a.eval()(image(1, 3, 16, 16)), b.eval()(image(1, 3, 16, 16)))


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (33, 20)], ids=str)
def test_any_size_is_kept_and_images_of_a_batch_stay_apart(network, size_hw):
    batch = image(2, 3, *size_hw)
    kept = batch.clone()
    with torch.no_grad():
        restored = network(batch)
        first = network(batch[:1])
    assert restored.shape == batch.shape
    assert torch.equal(batch, kept)
    assert torch.isfinite(restored).all()
    # The bottleneck of DRSformer has one pixel here: cosines are all 1 or -1, and rounding decides
    # which of them are kept.
    if (network.name, size_hw) != ("drsformer", (1, 1)):
        torch.testing.assert_close(restored[:1], first, rtol=0, atol=rounding(depth=200))


def test_gradient_reaches_every_weight(name):
    options = dict(OPTIONS[name])
    if name == "idt":
        options["image_size"] = 128  # smaller, some attention is that of one cell to itself
    torch.manual_seed(0)
    network = models.build(name, **options).eval()
    if name != "rcdnet":  # whose made-up weights see no rain
        network.load_official(official_weights(network))
    rainy, clean = image(2, 3, 16, 16), image(2, 3, 16, 16).flip(-1)
    if name == "rcdnet":
        network.training_loss(rainy, clean).backward()
    else:
        (network(rainy) - clean).square().mean().backward()
    assert [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_training_mode_trains(name, network):
    rainy = image(2, 3, 16, 16)
    torch.manual_seed(0)  # IDT leaves branches out
    network.train()(rainy).square().mean().backward()
    without = [k for k, p in network.named_parameters() if p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_fresh_weights_restore_something(name):
    with torch.no_grad():
        restored = models.build(name, **OPTIONS[name]).eval()(image(1, 3, 16, 16))
    assert torch.isfinite(restored).all()


def test_configuration_round_trip(name, network):
    mapping = network.config_mapping()
    assert {key: mapping[key] for key in OPTIONS[name]} == OPTIONS[name]
    assert models.build(name, **mapping).config == network.config


def test_builds_without_memory(name):
    with torch.device("meta"):
        network = models.build(name)
    assert all(p.is_meta for n, p in network.named_parameters() if "dictionary" not in n)


def test_own_file_round_trip(name, network, tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, network)
    loaded = models.load(f"{name}:{path}")
    assert loaded.config == network.config
    assert not loaded.training
    assert weights_fingerprint(loaded) == weights_fingerprint(network)
    assert_equal_outputs(loaded, network)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_published_containers(name, network, prefix):
    weights = official_weights(network)
    loaded = type(network).from_official(
        {"epoch": 3, "model": {prefix + k: v for k, v in weights.items()}, "optim": {}}
    )
    if name == "brn":  # its iterations leave no trace
        assert loaded.config_mapping() == {"iterations": 8}
    else:
        assert loaded.config == network.config
        assert_equal_outputs(loaded, network)


def test_spec_of_a_published_checkpoint(name, network, tmp_path):
    torch.save(official_weights(network), tmp_path / "best.pth")
    derainer = Derainer(f"{name}:{tmp_path / 'best.pth'}", device="cpu")
    assert derainer.name == f"{name}-best"
    frame = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    restored = derainer(frame)
    assert (restored.shape, restored.dtype) == (frame.shape, frame.dtype)


def test_wrong_weights_are_listed(name, network):
    weights = official_weights(network)
    missing, *_, reshaped = sorted(k for k in weights if weights[k].ndim == 4)
    del weights[missing]
    weights[reshaped] = torch.zeros(7, 5, 3, 3)
    weights["surplus.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        network.load_official(weights)
    message = str(caught.value)
    assert f"the weights do not fit {name}: 1 keys missing ({missing})" in message
    assert "1 keys unexpected (surplus.weight)" in message
    assert f"1 shapes differ ({reshaped} is 7x5x3x3 instead of" in message
    with pytest.raises(WeightsError, match=missing):
        type(network).from_official(weights)


def test_checkpoints_of_other_networks_are_refused(name, network):
    for other in OPTIONS.keys() - {name}:
        weights = official_weights(models.build(other, **OPTIONS[other]))
        with pytest.raises(WeightsError, match=f"do not fit {name}: .* keys missing"):
            type(network).from_official(weights)


def test_unknown_options_are_refused(name):
    option = next(iter(OPTIONS[name]))
    with pytest.raises(ConfigError, match=f"did you mean '{option}'"):
        models.build(name, **{f"{option}s": 1})


def test_autocast_is_finite_and_close(network):
    rainy = image(1, 3, 16, 16)
    with torch.no_grad():
        exact = network(rainy)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            restored = network(rainy).float()
    assert torch.isfinite(restored).all()
    assert (restored - exact).abs().mean() < 0.1 * (exact - rainy).abs().mean()
