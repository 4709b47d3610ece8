"""The renderer: what rain does to light, and that it does the same every time."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer.data.properties import PUBLISHED, measure_pair
from rainmer.errors import ConfigError, ImageError
from rainmer.frames.arrays import quantize, to_batch, to_frames
from rainmer.frames.images import list_images, read_image
from rainmer.rain import PRESETS, RainConfig, RainRenderer, rain_config
from rainmer.rain.calibrate import TARGETS
from rainmer.rain.light import airlight, blur, to_linear, to_srgb
from tests.numerics import rounding

SIZE = (96, 128)


def street(batch=1):
    """A bright sky over dark ground, with some texture."""
    picture = torch.empty(batch, 3, *SIZE)
    picture[:, :, :40] = torch.tensor([0.8, 0.85, 0.95])[:, None, None]
    picture[:, :, 40:] = torch.tensor([0.25, 0.22, 0.2])[:, None, None]
    columns = torch.linspace(0, 12, SIZE[1]).sin() * 0.04
    return (picture + columns).clamp(0, 1)


def names(batch):
    return [f"image-{i}.png" for i in range(batch)]


def render(preset, picture=None, seed=0, **changes):
    picture = street() if picture is None else picture
    renderer = RainRenderer(rain_config(preset, **changes), seed=seed)
    return renderer(picture, names(len(picture)))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("lens_drops", [0.0, 12.0])
def test_same_seed_same_pixels_in_every_batch(preset, lens_drops):
    picture = street(3) * torch.linspace(0.7, 1.0, 3)[:, None, None, None]
    renderer = RainRenderer(rain_config(preset, lens_drops=lens_drops), seed=3)
    together = renderer(picture, names(3))
    again = renderer(picture, names(3))
    for i in range(3):
        alone = renderer(picture[i : i + 1], names(3)[i : i + 1])
        for field in ("rainy", "clean", "alpha"):
            expected = quantize(getattr(together, field))
            assert torch.equal(quantize(getattr(alone, field))[0], expected[i]), field
            assert torch.equal(quantize(getattr(again, field)), expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_ranges_and_the_input_left_alone(preset):
    picture = street(2)
    before = picture.clone()
    rendering = render(preset, picture)
    assert torch.equal(picture, before)
    for field in ("rainy", "clean"):
        values = getattr(rendering, field)
        assert values.shape == picture.shape
        assert values.isfinite().all()
        assert values.min() >= 0
        assert values.max() <= 1
    assert rendering.alpha.shape == rendering.transmission.shape == (2, 1, *SIZE)
    assert 0 < rendering.alpha.max() <= 1
    assert not torch.equal(rendering.rainy, rendering.clean)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (9, 1), (3, 400), (37, 53)])
def test_any_size(preset, size_hw):
    picture = torch.rand(2, 3, *size_hw)
    rendering = RainRenderer(rain_config(preset, lens_drops=3.0))(picture, names(2))
    assert rendering.rainy.shape == picture.shape
    assert rendering.rainy.isfinite().all()


@pytest.mark.parametrize("preset", ["day", "night"])
def test_seeds_and_names_give_other_rain(preset):
    one, two = render(preset, seed=0), render(preset, seed=1)
    assert not torch.equal(one.alpha, two.alpha)
    both = render(preset, street(2))
    assert not torch.equal(both.alpha[0], both.alpha[1])


@pytest.mark.parametrize("preset", ["day", "night"])
def test_no_rain_is_the_dry_scene(preset):
    rendering = render(preset, rate_mm_h=0.0, glow=0.0)
    assert torch.allclose(rendering.rainy, rendering.clean, atol=rounding(depth=1))
    assert rendering.alpha.max() == 0
    assert rendering.transmission.min() == 1


def test_severity_follows_the_rate():
    errors, transmissions = [], []
    for rate in (5.0, 25.0, 100.0, 250.0):
        rendering = render("day", rate_mm_h=rate)
        errors.append((rendering.rainy - rendering.clean).square().mean().item())
        transmissions.append(rendering.transmission.mean().item())
    assert errors == sorted(errors)
    assert transmissions == sorted(transmissions, reverse=True)


def test_streaks_brighten_dark_ground_and_vanish_on_the_sky():
    rendering = render("day", brightness=1.0, far_m=5.0, rate_mm_h=80.0)
    change = (rendering.rainy - rendering.clean).mean(dim=1)[0]
    sky, ground = change[:36], change[44:]
    assert ground.max() > 0.05
    assert sky.max() < 0.03 < 3 * ground.max()


def test_streaks_have_the_colour_of_the_scene():
    orange = street() * torch.tensor([1.0, 0.6, 0.3])[:, None, None]
    rendering = render("day", orange)
    change = to_linear(rendering.rainy) - to_linear(rendering.clean)
    red, green, blue = change[0, :, 50:].mean(dim=(1, 2))
    assert red > green > blue > 0


def test_the_veil_goes_with_depth_and_stays_in_the_target_if_wanted():
    near, far = (torch.full((1, 1, *SIZE), depth) for depth in (5.0, 200.0))
    renderer = RainRenderer(rain_config("day", mist_per_km=3.0))
    transmissions = [renderer(street(), ["a"], depth_m=d).transmission.mean() for d in (near, far)]
    assert transmissions[0] > 0.95 > 0.8 > transmissions[1]
    kept = RainRenderer(rain_config("day", mist_per_km=3.0, target_veil="keep"))
    veiled, dry = kept(street(), ["a"], depth_m=far), renderer(street(), ["a"], depth_m=far)
    assert torch.equal(veiled.rainy, dry.rainy)
    assert torch.equal(dry.clean, street())
    error = [(r.rainy - r.clean).abs().mean() for r in (veiled, dry)]
    assert error[0] < error[1]


def test_rain_falls_in_front_of_what_is_far_only():
    renderer = RainRenderer(rain_config("day"))
    wall = torch.full((1, 1, *SIZE), 0.3)
    assert renderer(street(), ["a"], depth_m=wall).alpha.max() == 0
    wall[:, :, :, 64:] = 50.0
    alpha = renderer(street(), ["a"], depth_m=wall).alpha
    assert alpha[..., :64].max() == 0 < alpha[..., 64:].max()


# --- night ----------------------------------------------------------------------------------------


def test_day_is_relit_and_night_is_not():
    dark = street() * 0.15
    assert torch.equal(render("night", dark).clean, dark)
    relit = render("night").clean
    level = 255 * relit.mean()
    assert 8 < level < 60
    assert torch.equal(render("night", relight="never").clean, street())
    assert not torch.equal(render("night", dark, relight="always").clean, dark)


def test_noise_is_the_same_in_rainy_image_and_target():
    dry = render("night", rate_mm_h=0.0, glow=0.0, noise=0.01)
    assert torch.allclose(dry.rainy, dry.clean, atol=rounding(depth=1))
    smooth = render("night", rate_mm_h=0.0, glow=0.0, noise=0.0)
    assert (dry.clean - smooth.clean).std() > 0.01


def lamp_scene(colour):
    scene = torch.full((1, 3, 96, 128), 0.03)
    scene[:, :, 20:26, 20:26] = torch.tensor(colour)[:, None, None]
    return scene


def test_night_rain_appears_near_lamps_in_their_colour():
    rendering = render("night", lamp_scene([1.0, 0.5, 0.1]), headlights=0.0, rate_mm_h=100.0)
    change = (rendering.rainy - rendering.clean)[0]
    near, far = change[:, 28:44, 8:38], change[:, 70:90, 90:120]
    assert near.mean() > 3 * far.mean()
    red, green, blue = near.mean(dim=(1, 2))
    assert red > green > blue


def test_headlights_light_near_drops():
    dark = torch.full((1, 3, 96, 128), 0.03)
    with_, without = (render("night", dark, headlights=h).rainy for h in (2.0, 0.0))
    assert (with_ - without).min() >= -1e-6
    assert (with_ - without).max() > 0.05


# --- lens, additive, videos -----------------------------------------------------------------------


def test_drops_on_the_lens_cover_and_bend():
    wet = render("day", rate_mm_h=0.0, lens_drops=15.0, lens_drop_size=0.06)
    assert 0.01 < wet.alpha.mean() < 0.5
    outside = (wet.alpha == 0).expand_as(wet.rainy)
    assert torch.allclose(wet.rainy[outside], wet.clean[outside], atol=rounding(depth=1))
    inside = (wet.alpha > 0.9).expand_as(wet.rainy)
    assert (wet.rainy - wet.clean)[inside].abs().mean() > 0.03


def test_a_drop_shows_the_scene_upside_down():
    wet = render("day", rate_mm_h=0.0, lens_drops=30.0, lens_drop_size=0.12)
    covered = wet.alpha[0, 0] > 0.95
    luminance = wet.rainy[0].mean(dim=0)
    ground, sky = luminance[40:][covered[40:]], luminance[:40][covered[:40]]
    assert ground.max() > 0.6, "the sky is seen in drops over the ground"
    assert sky.min() < 0.4, "the ground is seen in drops over the sky"


def test_additive_rain_only_adds():
    rendering = render("streaks", torch.full((1, 3, *SIZE), 0.4))
    assert (rendering.rainy - rendering.clean).min() >= 0
    assert (rendering.rainy - rendering.clean).max() > 0.1


def test_drops_move_between_frames_and_nothing_else_does():
    renderer = RainRenderer(rain_config("day"))
    first, same, later = (
        renderer(street(), ["clip"], time_s=torch.tensor([t])) for t in (0.0, 0.0, 0.04)
    )
    assert torch.equal(first.rainy, same.rainy)
    assert not torch.equal(first.alpha, later.alpha)
    assert torch.equal(first.rate_mm_h, later.rate_mm_h)
    assert torch.equal(first.transmission, later.transmission)


# --- light ----------------------------------------------------------------------------------------


def test_linear_light_is_the_inverse_of_srgb():
    values = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    assert torch.allclose(to_srgb(to_linear(values)), values, atol=rounding(depth=2))
    assert to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404, abs=1e-5)


@given(level=st.floats(0, 1), radius=st.integers(1, 200))
@settings(max_examples=20, deadline=None)
def test_blur_keeps_even_areas(level, radius):
    even = torch.full((1, 2, 30, 41), level)
    # Three means over up to 79 x 79 equal values, which are added one by one: errors of one sign.
    assert torch.allclose(blur(even, radius), even, atol=3 * 79**2 * torch.finfo().eps / 2)


def test_airlight_is_that_of_the_sky():
    light = airlight(to_linear(street()))
    sky = to_linear(torch.tensor([0.8, 0.85, 0.95]))
    assert (light.flatten() - sky).abs().max() < 0.15


# --- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rate_mm_h", -1.0, "not within 0..300"),
        ("rate_mm_h", 5000.0, "not within 0..300"),
        ("rate_mm_h", float("nan"), "no range"),
        ("rate_mm_h", [60.0, 20.0], "no range"),
        ("rate_mm_h", "heavy", "expected float or a list"),
        ("exposure_ms", 0.0, "not within"),
        ("light", "dusk", "not one of"),
        ("lamps", 1000.0, "not within"),
        ("rte_mm_h", 5.0, "did you mean 'rate_mm_h'"),
    ],
)
def test_absurd_values_are_refused(field, value, said):
    with pytest.raises(ConfigError, match=said):
        rain_config("day", **{field: value})


def test_unknown_presets_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'night'"):
        rain_config("nigth")


def test_every_range_is_checked():
    ranges = {
        f.name for f in dataclasses.fields(RainConfig) if isinstance(f.default, float | tuple)
    }
    for name in ranges:
        with pytest.raises(ConfigError, match=name):
            RainConfig(**{name: -1e9})


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (torch.rand(1, 1, 8, 8), "expected frames"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "expected frames"),
        (torch.rand(2, 3, 8, 8), "names"),
    ],
)
def test_wrong_shapes_are_refused(picture, said):
    with pytest.raises(ImageError, match=said):
        RainRenderer(rain_config("day"))(picture, ["one"])


def test_depth_of_another_size_is_refused():
    with pytest.raises(ImageError, match="expected depth"):
        RainRenderer(rain_config("day"))(street(), ["a"], depth_m=torch.ones(1, 1, 5, 5))


# --- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["day", "night"])
def test_presets_match_the_published_sets_on_photos(shared_data, preset):
    paths = list_images(shared_data / "coco128" / "images")[::8]
    renderer = RainRenderer(rain_config(preset))
    pairs = []
    for path in paths:
        rendering = renderer(to_batch([read_image(path)]), [path.name])
        pairs.append(measure_pair(to_frames(rendering.rainy)[0], to_frames(rendering.clean)[0]))
    for name, band in PUBLISHED[TARGETS[preset]].items():
        values = [v for pair in pairs if (v := getattr(pair, name)) is not None]
        median = torch.tensor(values).median().item()
        assert band.low <= median <= band.high, name
