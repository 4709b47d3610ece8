"""Windscreen drops, spray, wet roads: off unless asked for, where they should be, by how much."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer.data.depth import Ground, fit_ground, ground_depth
from rainmer.errors import ConfigError
from rainmer.frames.arrays import quantize
from rainmer.rain import PRESETS, RainConfig, RainRenderer, rain_config
from rainmer.rain.light import to_linear
from tests.numerics import rounding

SIZE = (72, 128)
DROPS = {"windscreen_drops": 200.0, "windscreen_drop_mm": 8.0, "windscreen_m": 0.3}
SPRAY = {"spray_per_km": 60.0, "far_m": 80.0, "horizon": 0.45}
GROUND = Ground(torch.tensor([0.45]), torch.tensor([1.5]), torch.tensor([150.0]))


def street(batch=1, level=1.0):
    """A bright sky over dark ground."""
    picture = torch.empty(batch, 3, *SIZE)
    picture[:, :, :32] = 0.85
    picture[:, :, 32:] = 0.2
    return picture * level


def render(preset="day", picture=None, seed=0, name="a", **changes):
    renderer = RainRenderer(rain_config(preset, **changes), seed=seed)
    return renderer(street() if picture is None else picture, [name])


@pytest.mark.parametrize("preset", sorted({*PRESETS} - {"windscreen", "spray"}))
def test_no_older_preset_has_them(preset):
    for field in ("windscreen_drops", "spray_per_km", "wet_road"):
        assert PRESETS[preset].limits(field) == (0.0, 0.0)


@pytest.mark.parametrize("preset", ["day", "night"])
def test_values_of_what_is_off_change_nothing(preset):
    plain = render(preset)
    other = render(preset, windscreen_drop_mm=2.0, windscreen_m=0.4)
    for one, two in zip(plain, other, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("preset", ["day", "night"])
def test_the_target_and_other_rain_stay_as_they_are(preset):
    plain, wet = render(preset, **{"far_m": 80.0}), render(preset, **DROPS, **SPRAY)
    if preset == "day":
        assert torch.equal(plain.clean, wet.clean)
    assert (wet.alpha >= plain.alpha - rounding(depth=4)).all()
    assert wet.alpha.mean() > plain.alpha.mean() + 0.01
    assert (wet.transmission <= plain.transmission + rounding(depth=4)).all()
    assert wet.transmission.mean() < plain.transmission.mean() - 0.02


@pytest.mark.parametrize("preset", ["day", "night"])
def test_pictures_depend_on_seed_and_name_but_not_on_the_batch(preset):
    config = rain_config(preset, **DROPS, **SPRAY, wet_road=0.7)
    depth_m = ground_depth(SIZE, **GROUND._asdict(), far_m=torch.tensor([90.0]))
    together = RainRenderer(config)(
        street(2), ["a", "b"], depth_m=depth_m.repeat(2, 1, 1, 1), time_s=0.3
    )
    alone = RainRenderer(config)(street(), ["b"], depth_m=depth_m, time_s=0.3)
    for field in ("rainy", "alpha", "transmission"):
        pair = quantize(getattr(together, field))
        assert torch.equal(pair[1], quantize(getattr(alone, field))[0])
        assert not torch.equal(pair[0], pair[1])
    reseeded = RainRenderer(config, seed=1)(street(), ["b"], depth_m=depth_m, time_s=0.3)
    assert not torch.equal(reseeded.alpha, alone.alpha)
    assert not torch.equal(reseeded.transmission, alone.transmission)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    drops=st.floats(0, 4000),
    spray=st.floats(0, 1000),
    wetness=st.floats(0, 1),
    mapped=st.booleans(),
    aperture=st.floats(0, 100),
    distance=st.floats(0.05, 3),
    night=st.booleans(),
)
@settings(max_examples=8)
def test_any_size_and_any_allowed_value(
    height, width, drops, spray, wetness, mapped, aperture, distance, night
):
    changes = {"windscreen_drops": drops, "spray_per_km": spray, "wet_road": wetness}
    config = rain_config("night" if night else "day", **changes, aperture_mm=aperture)
    config = RainConfig(**{**vars(config), "windscreen_m": distance})
    depth_m = 0.1 + 50 * torch.rand(1, 1, height, width) if mapped else None
    rendering = RainRenderer(config)(torch.rand(1, 3, height, width), ["a"], depth_m=depth_m)
    for values in rendering[:4]:
        assert values.isfinite().all()
        assert values.min() >= 0
        assert values.max() <= 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("windscreen_drops", 5000.0), ("windscreen_m", 0.0), ("windscreen_drop_mm", 0.0),
     ("spray_per_km", -1.0), ("spray_per_km", 2000.0), ("wet_road", 1.5)],
)  # fmt: skip
def test_absurd_values_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        rain_config("day", **{field: value})


# --- windscreen -----------------------------------------------------------------------------------


def test_outside_drops_the_picture_is_untouched():
    wet = render(rate_mm_h=0.0, **DROPS)
    outside = (wet.alpha == 0).expand_as(wet.rainy)
    assert outside.float().mean() > 0.3
    assert torch.allclose(wet.rainy[outside], wet.clean[outside], atol=rounding(depth=1))


def test_drops_show_the_scene_upside_down_and_have_dark_rims():
    wet = render(rate_mm_h=0.0, aperture_mm=0.0, **DROPS)
    covered = wet.alpha[0, 0] > 0.95
    level = wet.rainy[0].mean(dim=0)
    assert level[40:][covered[40:]].max() > 0.7, "the sky is seen in drops over the ground"
    assert level[:24][covered[:24]].min() < 0.4, "the ground is seen in drops over the sky"
    picture = torch.full((1, 3, 288, 512), 0.5)
    even = render(picture=picture, rate_mm_h=0.0, aperture_mm=0.0, **DROPS)
    assert even.rainy.max() <= 0.5 + rounding(depth=8), "a drop in even light adds none"
    assert even.rainy.min() < 0.35, "total reflection darkens its rim"


def test_more_drops_and_larger_ones_cover_more():
    covers = [
        [render(rate_mm_h=0.0, **{**DROPS, field: value}).alpha.mean() for value in values]
        for field, values in {
            "windscreen_drops": (5.0, 50.0, 500.0),
            "windscreen_drop_mm": (1.0, 3.0, 9.0),
        }.items()
    ]
    for values in covers:
        assert values == sorted(values)
        assert values[0] > 0
        assert values[-1] > 4 * values[0]
    assert render(rate_mm_h=0.0, **{**DROPS, "windscreen_m": 2.0}).alpha.mean() < covers[0][1]


def test_a_wider_aperture_softens_drops_and_keeps_their_light():
    picture = torch.full((1, 3, 288, 512), 0.5)
    sharp, soft = (
        render(picture=picture, rate_mm_h=0.0, aperture_mm=mm, **DROPS).alpha for mm in (0.1, 1.5)
    )
    edges = [alpha.diff(dim=-1).abs().max() for alpha in (sharp, soft)]
    assert edges[1] < 0.6 * edges[0]
    assert soft.mean().item() == pytest.approx(sharp.mean().item(), rel=0.5)


def test_a_crop_has_its_share_of_the_drops():
    config = rain_config("day", rate_mm_h=0.0, **DROPS)
    crop = RainRenderer(config)(street(), ["a"], frame_width=2 * SIZE[1])
    whole = RainRenderer(config)(street(), ["a"])
    assert crop.alpha.mean().item() == pytest.approx(whole.alpha.mean().item(), rel=0.6)


def test_lamps_glint_in_drops_by_night():
    picture = torch.full((1, 3, *SIZE), 0.03)
    picture[:, :, 20:24, 60:66] = 1.0
    wet = render("night", picture, rate_mm_h=0.0, glow=0.0, windscreen_drops=800.0)
    assert ((wet.rainy - picture).amax(dim=1)[0, 50:] > 0.3).any()


# --- spray ----------------------------------------------------------------------------------------


def test_spray_hides_what_is_far_and_low():
    changes = {"rate_mm_h": 0.0, **SPRAY}
    transmission = torch.stack(
        [render(name=str(i), **changes).transmission[0, 0] for i in range(12)]
    ).mean(dim=(0, 2))
    top, horizon, bottom = transmission[:4].mean(), transmission[32:40].mean(), transmission[-4:]
    assert horizon < 0.75 < top
    assert bottom.mean() > 0.95


def test_spray_grows_with_its_extinction_and_with_depth():
    changes = {"rate_mm_h": 0.0, **SPRAY}
    by_strength = [
        render(**{**changes, "spray_per_km": value}).transmission.mean() for value in (5, 50, 500)
    ]
    assert by_strength == sorted(by_strength, reverse=True)
    assert by_strength[0] < 1
    renderer = RainRenderer(rain_config("day", **changes))
    by_depth = [
        renderer(street(), ["a"], depth_m=torch.full((1, 1, *SIZE), depth)).transmission.mean()
        for depth in (3.0, 20.0, 80.0)
    ]
    assert by_depth == sorted(by_depth, reverse=True)
    assert by_depth[0] > 0.99


def test_spray_brightens_dark_roads_and_flattens_contrast():
    plain, sprayed = render(rate_mm_h=0.0), render(rate_mm_h=0.0, **SPRAY)
    rows = slice(34, 44)
    assert (sprayed.rainy - plain.rainy)[..., rows, :].mean() > 0.02
    assert sprayed.rainy.std() < plain.rainy.std()


def test_spray_is_veil_that_the_target_may_keep():
    kept = render(rate_mm_h=0.0, target_veil="keep", **SPRAY)
    assert torch.allclose(kept.rainy, kept.clean, atol=rounding(depth=4))


def test_clouds_change_smoothly_with_time():
    renderer = RainRenderer(rain_config("day", rate_mm_h=0.0, **SPRAY))
    first, next_, later = (
        renderer(street(), ["clip"], time_s=time).transmission for time in (0.0, 0.02, 2.0)
    )
    assert 0 < (next_ - first).abs().max() < 0.5 * (later - first).abs().max()


# --- wet road -------------------------------------------------------------------------------------


def scene_with_a_post(level=1.0):
    """The street with a red post that stands on the road 10 m ahead, and its depth map."""
    plane = GROUND._asdict()
    depth_m = ground_depth(SIZE, **plane, far_m=torch.tensor([1e4])).clone()
    base = int(SIZE[0] * 0.45 + 150 * 1.5 / 10)
    picture = street()
    picture[:, :, 10:base, 60:68] = torch.tensor([0.9, 0.05, 0.05])[:, None, None]
    depth_m[:, :, 10:base, 60:68] = 10.0
    return picture * level, depth_m, base


def wet(wetness=1.0, preset="day", level=1.0):
    picture, depth_m, base = scene_with_a_post(level)
    config = rain_config(preset, wet_road=wetness, rate_mm_h=0.0, focal=150 / SIZE[1])
    return RainRenderer(config)(picture, ["a"], depth_m=depth_m), base


def test_a_wet_road_mirrors_what_stands_on_it_and_the_rest_stays():
    (rendering, base), (dry, _) = wet(), wet(0.0)
    change = (rendering.rainy - dry.rainy)[0]
    assert change[:, :32].abs().max() == 0, "nothing changes above the horizon"
    assert change[:, 32 : base - 4, 60:68].abs().max() == 0, "nor what stands on the road"
    red = rendering.rainy[0, 0] - rendering.rainy[0, 1]
    assert red[base + 2 : base + 8, 62:66].min() > 0.05 > red[base + 2 : base + 8, :50].max()
    assert change[:, 34:38, :50].mean() > 0.05, "the sky shines at grazing angles"
    assert torch.equal(rendering.clean, scene_with_a_post()[0])
    assert torch.equal(rendering.alpha, dry.alpha)


def test_a_wet_road_under_a_dark_sky_is_darker():
    _, depth_m, _ = scene_with_a_post()
    picture = torch.full((1, 3, *SIZE), 0.3)
    config = rain_config("day", wet_road=1.0, rate_mm_h=0.0, focal=150 / SIZE[1])
    change = (RainRenderer(config)(picture, ["a"], depth_m=depth_m).rainy - picture)[0]
    assert change.max() < rounding(depth=8)
    assert change[:, 38:, :50].max() < -0.02


def test_wetness_is_a_share():
    dry, half, full = (to_linear(wet(share)[0].rainy) for share in (0.0, 0.5, 1.0))
    assert torch.allclose(half, 0.5 * (dry + full), atol=1e-5)


def test_roads_mirror_lamps_by_night():
    (rendering, base), (dry, _) = wet(preset="night", level=0.6), wet(0.0, "night", level=0.6)
    below = (slice(None), 0, slice(base + 2, base + 8), slice(62, 66))
    assert (rendering.rainy - dry.rainy)[below].mean() > 0.02


@settings(max_examples=25)
@given(
    horizon=st.floats(0.2, 0.6),
    camera_m=st.floats(0.8, 4.0),
    hidden=st.integers(0, 100),
)
def test_the_ground_is_found_beside_what_stands_on_it(horizon, camera_m, hidden):
    true = Ground(torch.tensor([horizon]), torch.tensor([camera_m]), torch.tensor([150.0]))
    depth_m = ground_depth(SIZE, **true._asdict(), far_m=torch.tensor([1e5])).clone()
    depth_m[..., :hidden] = depth_m[..., :hidden].clamp_max(1.5)
    found = fit_ground(depth_m, GROUND)
    assert found.horizon.item() == pytest.approx(horizon, abs=0.01)
    assert found.camera_height_m.item() == pytest.approx(camera_m, rel=0.02)


@pytest.mark.parametrize("size_hw", [(1, 1), (5, 9), (40, 30)])
def test_where_a_map_shows_no_ground_the_guess_is_kept(size_hw):
    assert fit_ground(torch.full((1, 1, *size_hw), 20.0), GROUND) == GROUND
