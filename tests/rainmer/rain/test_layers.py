"""Layers of motion-blurred noise: the rain of the benchmarks."""

import math

import pytest
import torch

from rainmer.errors import ConfigError
from rainmer.rain import RainRenderer, rain_config
from rainmer.rain.layers import _seeds, _streak
from rainmer.rain.randomness import image_key


def render(clean, names, **changes):
    return RainRenderer(rain_config("layers", **changes), seed=3)(clean, names)


@pytest.fixture(scope="module")
def grey():
    return torch.full((2, 3, 72, 96), 0.3)


def test_a_share_of_the_pixels_seeds_streaks():
    density = torch.tensor([0.02, 0.3])
    seeds = _seeds(density, torch.tensor([image_key(0, name) for name in "ab"]), 0, (200, 200))
    assert seeds.min() >= 0
    assert seeds.max() <= 1
    # The standard error of a share of 40,000 pixels is below 0.0023.
    torch.testing.assert_close((seeds > 0).float().mean((1, 2)), density, atol=0.01, rtol=0)


@pytest.mark.parametrize("slant_deg", [0.0, 30.0, -60.0])
def test_a_streak_points_where_it_is_slanted(slant_deg):
    slant = math.radians(slant_deg)
    kernel = _streak(torch.tensor([30.0]), torch.tensor([1.5]), torch.tensor([slant]), (65, 81))[0]
    assert kernel.sum().item() == pytest.approx(1.0, abs=1e-5)
    centred = kernel.roll((32, 40), (0, 1))
    y = torch.arange(65.0)[:, None] - 32
    x = torch.arange(81.0) - 40
    spread = [(centred * product).sum().item() for product in (x * x, x * y, y * y)]
    xx, xy, yy = spread
    angle = 0.5 * math.atan2(2 * xy, yy - xx)  # of the longest axis, to the vertical
    assert angle == pytest.approx(slant, abs=0.03)


def test_it_only_adds_light_and_keeps_the_target(grey):
    rendering = render(grey, ["a", "b"])
    assert torch.equal(rendering.clean, grey)
    assert (rendering.rainy >= grey).all()
    assert rendering.rainy.max() <= 1
    assert 0.02 < (rendering.rainy - grey).mean() < 0.45


def test_more_layers_more_light(grey):
    few, many = (render(grey, ["a", "b"], layers=n, layer_most=1.0).rainy for n in (1, 5))
    assert (many.mean((1, 2, 3)) > few.mean((1, 2, 3))).all()


def test_the_sum_is_bounded(grey):
    strong = render(grey, ["a", "b"], layer_strength=5.0, layer_most=0.1, layer_floor=0.0)
    assert (strong.rainy - grey).mean() <= 0.1 + 1e-4


def test_screening_spares_what_is_bright():
    white = torch.ones(1, 3, 40, 40)
    dim = torch.full((1, 3, 40, 40), 0.5)
    assert torch.equal(render(white, ["a"], layer_screen=1.0).rainy, white)
    added, screened = (render(dim, ["a"], layer_screen=share).rainy for share in (0.0, 1.0))
    assert (screened <= added).all()
    assert (screened < added).any()


def test_an_image_does_not_depend_on_its_batch(grey):
    both = render(grey, ["a", "b"]).rainy
    alone = torch.cat([render(grey[:1], [name]).rainy for name in ("a", "b")])
    torch.testing.assert_close(both, alone, atol=1e-4, rtol=0)
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 40), (37, 2), (64, 64)])
def test_odd_sizes(size_hw):
    rainy = render(torch.rand(1, 3, *size_hw), ["a"]).rainy
    assert rainy.shape[-2:] == size_hw
    assert rainy.isfinite().all()


def test_too_many_layers_are_refused():
    with pytest.raises(ConfigError, match=r"rain.layers: 9.0 is not within"):
        rain_config("layers", layers=9)
