"""What PromptIR, AirNet and EfficientDeRain have in common: keys, containers, contract."""

import re

import pytest
import torch

import rainmer.models as models
from rainmer.errors import ConfigError, WeightsError
from rainmer.models.baselines.airnet import AirNet
from rainmer.models.baselines.efficientderain import EfficientDeRain
from rainmer.models.baselines.promptir import PromptIR
from rainmer.models.checkpoints import bare_weights
from tests.rainmer.models.baselines.published_keys import (
    PROMPTIR_WITHOUT_EFFECT,
    airnet_shapes,
    airnet_without_effect,
    count_parameters,
    efficientderain_shapes,
    promptir_shapes,
    random_weights,
)

TINY = {
    PromptIR: {
        "dim": 8,
        "num_blocks": (1, 2, 1, 1),
        "refinement_blocks": 2,
        "prompt_count": 3,
        "prompt_channels": (8, 12, 16),
        "prompt_sizes": (8, 6, 5),
    },
    AirNet: {"dim": 4, "groups": 2, "blocks": 3},
    EfficientDeRain: {"dim": 4},
}
SHAPES = {
    PromptIR: promptir_shapes,
    AirNet: airnet_shapes,
    EfficientDeRain: efficientderain_shapes,
}
WITHOUT_EFFECT = {
    PromptIR: lambda _: PROMPTIR_WITHOUT_EFFECT,
    AirNet: airnet_without_effect,
    EfficientDeRain: lambda _: [],
}
KEYS = {PromptIR: 548, AirNet: 584, EfficientDeRain: 52}
PUBLISHED_PARAMETERS = {PromptIR: 35_592_263, AirNet: 8_930_313, EfficientDeRain: 27_395_406}
"""Computed from the definitions. Comparisons in the literature have 36 M, 8.93 M and 27 M."""
OWN_PARAMETERS = {PromptIR: 35_376_967, AirNet: 6_329_609, EfficientDeRain: 27_395_406}
"""Without the weights that no output depends on."""

each_network = pytest.mark.parametrize("network", TINY, ids=lambda network: network.name)


def tiny_weights(network, seed=0, dtype=torch.float32):
    return random_weights(SHAPES[network](**TINY[network]), seed, dtype)


def tiny_network(network):
    return network.from_official(tiny_weights(network)).eval()


def random_image(*size):
    return torch.rand(size, generator=torch.Generator().manual_seed(5))


@each_network
def test_published_keys_and_shapes(network):
    table = SHAPES[network]()
    assert len(table) == KEYS[network]
    assert count_parameters(table) == PUBLISHED_PARAMETERS[network]
    with torch.device("meta"):
        model = network()
    assert sum(p.numel() for p in model.parameters()) == OWN_PARAMETERS[network]
    used = table.keys() - set(WITHOUT_EFFECT[network](table))
    own = model.state_dict()
    names = model.official_names()
    assert sorted(names.values()) == sorted(used)
    for name, key in names.items():
        theirs = [size for size in table[key] if size > 1]
        assert [size for size in own[name].shape if size > 1] == theirs, key


@each_network
def test_full_size_loads(network):
    # One number stands for each weight: the table has no need of memory.
    weights = {key: torch.tensor(0.5).expand(shape) for key, shape in SHAPES[network]().items()}
    model = network.from_official(weights)
    assert model.config == network.config_class()
    assert all((value == 0.5).all() for value in model.parameters())


@each_network
def test_every_kind_of_missing_key_is_refused(network):
    weights = tiny_weights(network)
    needed = sorted(weights.keys() - set(WITHOUT_EFFECT[network](weights)))
    model = network.from_official(weights)
    kinds = {re.sub(r"\d+", "0", key): key for key in needed}  # one key of each kind
    for key in kinds.values():
        incomplete = {k: v for k, v in weights.items() if k != key}
        with pytest.raises(WeightsError, match=re.escape(f"1 keys missing ({key})")):
            model.load_official(incomplete)


@each_network
def test_weights_without_effect_may_be_missing(network):
    weights = tiny_weights(network)
    for key in WITHOUT_EFFECT[network](weights):
        weights.pop(key)
    image = random_image(1, 3, 16, 16)
    with torch.no_grad():
        restored = network.from_official(weights).eval()(image)
        assert torch.equal(restored, tiny_network(network)(image))


@each_network
def test_another_shape_and_another_key_are_refused(network):
    weights = tiny_weights(network)
    key = network.from_official(weights).official_names().popitem()[1]
    weights[key] = torch.zeros(7, 7)
    weights["other"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        network.from_official(weights)
    assert "1 keys unexpected (other)" in str(caught.value)
    assert f"{key} is 7x7 instead of" in str(caught.value)


@each_network
def test_options_are_told_by_keys_and_shapes(network):
    model = tiny_network(network)
    assert model.config == network.config_class(**TINY[network])
    rebuilt = models.build(network.name, **model.config_mapping())
    assert type(rebuilt) is network
    assert rebuilt.config == model.config


def lightning(weights):
    return {
        "epoch": 4,
        "global_step": 100,
        "pytorch-lightning_version": "2.0.1",
        "state_dict": {f"net.{key}": value for key, value in weights.items()},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{}": {"best_model_path": "", "best_k_models": {}}},
        "optimizer_states": [{"state": {0: {"step": torch.zeros(())}}, "param_groups": []}],
        "lr_schedulers": [],
    }


CONTAINERS = {
    "plain": dict,
    "DataParallel": lambda weights: {f"module.{k}": v for k, v in weights.items()},
    "Lightning": lightning,
    "net": lambda weights: {"net": weights, "epoch": 3},
    "params": lambda weights: {"params": weights},
    "model": lambda weights: {"model": weights},
}


@each_network
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(network, container, tmp_path):
    weights = tiny_weights(network)
    path = tmp_path / ("w.ckpt" if container == "Lightning" else "w.pth")
    torch.save(CONTAINERS[container](weights), path)
    loaded = models.load(f"{network.name}:{path}")
    assert not loaded.training
    own = tiny_network(network).state_dict()
    assert all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items())


def test_container_without_weights():
    with pytest.raises(WeightsError, match="holds no weights, but epoch, net"):
        bare_weights({"epoch": 3, "net": 5})


@each_network
def test_own_file_round_trip(network, tmp_path):
    model = tiny_network(network)
    models.save_weights(tmp_path / "w.safetensors", model)
    loaded = models.load(f"{network.name}:{tmp_path / 'w.safetensors'}")
    assert loaded.config == model.config
    assert models.weights_fingerprint(loaded) == models.weights_fingerprint(model)
    image = random_image(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(image), model(image))


@each_network
@pytest.mark.parametrize("size_hw", [(1, 1), (7, 13), (33, 3), (16, 32)], ids=str)
def test_any_size_is_kept_and_a_batch_is_its_images(network, size_hw):
    model, images = tiny_network(network).double(), random_image(2, 3, *size_hw).double()
    kept = images.clone()
    with torch.no_grad():
        restored = model(images)
        single = torch.cat([model(image[None]) for image in images])
    assert restored.shape == images.shape
    assert torch.equal(images, kept)
    torch.testing.assert_close(restored, single, rtol=0, atol=1e-10)


@each_network
def test_gradient_reaches_every_weight(network):
    model = tiny_network(network).train()
    model(random_image(2, 3, 16, 16)).square().mean().backward()
    assert [key for key, p in model.named_parameters() if not p.grad.any()] == []


@each_network
def test_fresh_weights_give_finite_output(network):
    torch.manual_seed(0)
    model = network(network.config_class(**TINY[network])).eval()
    with torch.no_grad():
        assert model(random_image(1, 3, 20, 17)).isfinite().all()


@each_network
def test_autocast_is_close(network):
    model, image = tiny_network(network), random_image(1, 3, 32, 32)
    with torch.no_grad():
        exact = model(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            restored = model(image).float()
    assert (restored - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        ("promptir", {"dims": 8}, "did you mean 'dim'"),
        ("promptir", {"dim": 7, "heads": [1, 1, 1, 1]}, "must be even"),
        ("promptir", {"heads": [1, 2, 5, 8]}, "5 does not divide the width 192"),
        ("promptir", {"prompt_channels": [64, 127, 320]}, "4 does not divide the width 319"),
        ("promptir", {"num_blocks": [4, 6, 0, 8]}, "num_blocks is .* above 0"),
        ("promptir", {"num_blocks": [4, 6, 6]}, "expected 4 values"),
        ("promptir", {"ffn_expansion": 0.01}, "at least 1/dim"),
        ("airnet", {"groups": 0}, "groups is 0, but must be above 0"),
        ("airnet", {"dim": True}, "expected int"),
        ("efficientderain", {"kernel_size": 4}, "must be odd"),
        ("efficientderain", {"dilations": []}, "dilations is empty"),
        ("efficientderain", {"dilations": [1, 0]}, "dilations is .* above 0"),
    ],
)
def test_wrong_options(network, options, words):
    with pytest.raises(ConfigError, match=words):
        models.build(network, **options)
