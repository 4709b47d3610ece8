"""AirNet against a plain computation that reads published keys."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F

import rainmer.models as models
from rainmer.errors import SpecError
from rainmer.models.baselines.airnet import AirNet, GuidedDeformation
from tests.numerics import assert_same_sum
from tests.rainmer.models.baselines.published_keys import airnet_shapes, random_weights

GROUPS, BLOCKS = 2, 2


def leaky(x):
    return torch.where(x > 0, x, 0.1 * x)


def conv(x, w, name):
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def batch_norm(x, w, name):
    mean, variance, scale, shift = (
        w[f"{name}.{key}"][:, None, None]
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def pixel(x, row, column):
    """Interpolate (C, H, W) at a point; zero outside."""
    total = torch.zeros(x.shape[0], dtype=x.dtype)
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < x.shape[1] and 0 <= c < x.shape[2]:
                total += (1 - abs(row - r)) * (1 - abs(column - c)) * x[:, r, c]
    return total


def deformable_convolution(x, offsets, mask, weight):
    """Sum over taps, pixel by pixel; offsets are vertical, horizontal for each tap in turn."""
    result = torch.zeros_like(x)
    for image in range(x.shape[0]):
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                for tap in range(9):
                    down, right = offsets[image, 2 * tap : 2 * tap + 2, row, column].tolist()
                    y, z = row + tap // 3 - 1 + down, column + tap % 3 - 1 + right
                    taken = mask[image, tap, row, column] * pixel(x[image], y, z)
                    result[image, :, row, column] += weight[:, :, tap // 3, tap % 3] @ taken
    return result


def guide(x, degradation, w, name):
    predicted = conv(torch.cat((x, degradation), 1), w, f"{name}.dcn.conv_offset_mask")
    mask = 1 / (1 + (-predicted[:, 18:]).exp())
    deformed = deformable_convolution(x, predicted[:, :18], mask, w[f"{name}.dcn.weight"])
    factors = {}
    for kind in ("conv_gamma", "conv_beta"):
        hidden = leaky(conv(degradation, w, f"{name}.sft.{kind}.0"))
        factors[kind] = conv(hidden, w, f"{name}.sft.{kind}.2")
    return x + deformed + (x * factors["conv_gamma"] + factors["conv_beta"])


def degradation_map(image, w):
    name = "E.E.encoder_q.E_pre"
    x = leaky(batch_norm(conv(image, w, f"{name}.backbone.0"), w, f"{name}.backbone.1"))
    x = batch_norm(conv(x, w, f"{name}.backbone.3"), w, f"{name}.backbone.4")
    shortcut = batch_norm(conv(image, w, f"{name}.shortcut.0"), w, f"{name}.shortcut.1")
    return leaky(x + shortcut)


def guided_block(x, degradation, w, name):
    y = leaky(guide(x, degradation, w, f"{name}.dgm1"))
    y = leaky(conv(y, w, f"{name}.conv1"))
    y = leaky(guide(y, degradation, w, f"{name}.dgm2"))
    return conv(y, w, f"{name}.conv2") + x


def reference(image, w):
    degradation = degradation_map(image, w)
    head = conv(image, w, "R.head.0")
    x = head
    for group in range(GROUPS):
        y = x
        for index in range(BLOCKS):
            y = guided_block(y, degradation, w, f"R.body.{group}.body.{index}")
        x = conv(y, w, f"R.body.{group}.body.{BLOCKS}") + x
    return conv(conv(x, w, f"R.body.{GROUPS}") + head, w, "R.tail.0")


@pytest.fixture(scope="module")
def weights():
    weights = random_weights(airnet_shapes(dim=4, groups=GROUPS, blocks=BLOCKS), seed=4)
    # Features would grow from block to block beyond what a comparison can stand.
    return {k: 0.5 * v if ".conv2." in k or ".sft." in k else v for k, v in weights.items()}


@pytest.fixture(scope="module")
def model(weights):
    model = AirNet.from_official(weights).eval().double()
    model.load_official(weights)  # in double precision now
    return model


def test_equals_the_plain_computation(model, weights):
    image = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = reference(image, weights)
        torch.testing.assert_close(model(image), expected, rtol=1e-9, atol=1e-9)
    assert expected.abs().max() < 1e4


def test_degradation_map(model, weights):
    image = torch.rand(2, 3, 7, 5, dtype=torch.float64)
    with torch.no_grad():
        computed = model.encoder(image)
    torch.testing.assert_close(computed, degradation_map(image, weights), rtol=0, atol=1e-10)


def deformation(offset=0.0, modulation=0.0):
    """Make a deformation that predicts the same for every pixel and tap."""
    layer = GuidedDeformation(3)
    with torch.no_grad():
        layer.offsets.bias[:18] = offset
        layer.offsets.bias[18:] = modulation
    return layer


def test_without_offsets_it_is_a_convolution():
    torch.manual_seed(0)
    x, degradation = torch.rand(2, 2, 3, 7, 6).unbind()
    fresh = deformation()  # modulates by 1/2, as training starts
    open_gates = deformation(modulation=100.0)
    with torch.no_grad():
        plain = F.conv2d(x, fresh.weight, padding=1)
        assert_same_sum(fresh(x, degradation), plain / 2, depth=4)
        plain = F.conv2d(x, open_gates.weight, padding=1)
        assert_same_sum(open_gates(x, degradation), plain, depth=4)


def test_whole_offsets_shift_the_image():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 7, 6)
    layer = deformation(modulation=100.0)
    with torch.no_grad():
        layer.offsets.bias[:18:2] = 2.0  # every tap looks two rows further down
        shifted = F.pad(x, (1, 1, 1, 3))[..., 2:, :]
        expected = F.conv2d(shifted, layer.weight)
        assert_same_sum(layer(x, torch.zeros_like(x)), expected, depth=4)


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_queues_of_all_lengths_are_left_out(batch_size):
    weights = random_weights(airnet_shapes(4, 1, 1, batch_size=batch_size), dtype=torch.float32)
    assert AirNet.from_official(weights).config_mapping() == {"dim": 4, "groups": 1, "blocks": 1}


def test_torchvision_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    with pytest.raises(SpecError, match="airnet: needs the package torchvision") as caught:
        models.build("airnet", groups=1)
    assert "\n" not in str(caught.value)
