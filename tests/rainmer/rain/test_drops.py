"""Drops and their streaks: physics, and nothing lost in drawing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rainmer.rain.drops import (
    Air,
    Streaks,
    extinction_per_m,
    fall_speed,
    number_density,
    sample_streaks,
)
from rainmer.rain.randomness import expand, image_key, normal, rough_normal, uniform
from rainmer.rain.streaks import draw_streaks


def air(batch=1, **changes):
    values = {
        "rate_mm_h": 50.0,
        "wind_m_s": 0.0,
        "camera_m_s": 0.0,
        "exposure_s": 0.004,
        "focal": 1.2,
        "focus_m": 15.0,
        "aperture_m": 0.001,
    }
    tensors = {name: torch.full((batch,), float(v)) for name, v in {**values, **changes}.items()}
    return Air(**tensors, min_opacity=0.02)


def streaks_of(air_, seed=0, size_hw=(120, 160), frame_width=160, time_s=0.0):
    keys = torch.tensor([image_key(seed, str(i)) for i in range(len(air_.focal))])
    times = torch.full((len(keys),), time_s)
    return sample_streaks(air_, keys, size_hw, frame_width=frame_width, time_s=times)


def one_streak(**changes):
    values = {"image": 0, "x0": 20.0, "y0": 10.0, "x1": 22.0, "y1": 40.0, "width": 0.5}
    values |= {"blur": 0.0, "opacity": 0.1, "depth_m": 3.0, "brightness": 1.0, "waves": 1.0}
    values |= {"phase": 0.0} | changes
    return Streaks(**{name: torch.tensor([value]) for name, value in values.items()})


def test_fall_speed_and_extinction_by_hand():
    assert fall_speed(torch.tensor(2.0)).item() == pytest.approx(9.65 - 10.3 * math.exp(-1.2))
    assert extinction_per_m(torch.tensor(50.0)).item() == pytest.approx(0.312e-3 * 50**0.67)


@given(rate=st.floats(2.0, 200.0))
@settings(max_examples=25, deadline=None)
def test_the_drops_carry_about_as_much_water_as_the_rate_says(rate):
    edges = torch.linspace(0.05, 8.0, 2000, dtype=torch.float64)
    number = number_density(edges, torch.tensor(rate, dtype=torch.float64))
    volume_mm3 = math.pi / 6 * edges**3
    flux = torch.trapezoid(number * volume_mm3 * fall_speed(edges), edges)  # mm^3 / (m^2 s)
    assert flux.item() * 3600 / 1e6 == pytest.approx(rate, rel=0.35)


def test_no_rain_no_drops():
    assert len(streaks_of(air(rate_mm_h=0.0)).image) == 0


def test_more_rain_more_streaks():
    counts = [len(streaks_of(air(rate_mm_h=rate)).image) for rate in (5, 20, 80)]
    assert counts[0] < counts[1] < counts[2]


def test_longer_exposure_makes_longer_and_fainter_streaks():
    short, long = (streaks_of(air(exposure_s=t)) for t in (0.002, 0.008))
    length = [torch.hypot(s.x1 - s.x0, s.y1 - s.y0).median() for s in (short, long)]
    assert length[0] < length[1]
    assert short.opacity.median() > long.opacity.median()


def test_wind_slants_streaks_to_the_right():
    streaks = streaks_of(air(wind_m_s=4.0))
    slope = (streaks.x1 - streaks.x0) / (streaks.y1 - streaks.y0)
    assert slope.median() == pytest.approx(4.0 / fall_speed(torch.tensor(2.5)), rel=0.25)


def test_a_moving_camera_makes_streaks_point_away_from_the_middle():
    streaks = streaks_of(air(camera_m_s=25.0))
    left = streaks.x0 < 40
    right = streaks.x0 > 120
    moved = streaks.x1 - streaks.x0
    assert moved[left].mean() < -1 < 1 < moved[right].mean()


def test_a_crop_shows_rain_as_dense_as_its_frame():
    def cover(size_hw):
        streaks = streaks_of(air(8), size_hw=size_hw, frame_width=480)
        return draw_streaks(streaks, 8, size_hw).opacity.mean().item()

    assert cover((120, 120)) == pytest.approx(cover((360, 480)), rel=0.2)


def test_streaks_do_not_depend_on_the_resolution():
    small = streaks_of(air(4), size_hw=(120, 160), frame_width=160)
    large = streaks_of(air(4), size_hw=(480, 640), frame_width=640)
    assert len(small.image) == pytest.approx(len(large.image), rel=0.05)


def test_heavy_rain_is_bounded():
    streaks = streaks_of(
        air(rate_mm_h=300.0, exposure_s=0.0005, focal=5.0), size_hw=(480, 640), frame_width=640
    )
    assert 1000 < len(streaks.image) < 200_000


def test_drops_fall_with_time_and_come_in_anew():
    streaks = [streaks_of(air(4), time_s=t) for t in (0.0, 0.004, 30.0)]
    maps = [draw_streaks(s, 4, (120, 160)).opacity[:, 0] for s in streaks]
    following = [
        (maps[0][:, : 120 - shift] * maps[1][:, shift:]).mean().item() for shift in range(12)
    ]
    assert max(following[1:]) > following[0]
    assert maps[2].mean() == pytest.approx(maps[0].mean().item(), rel=0.3)


# --- drawing --------------------------------------------------------------------------------------


@given(
    angle=st.floats(0.0, 2 * math.pi),
    length=st.floats(3.0, 30.0),
    width=st.floats(0.05, 6.0),
    blur=st.floats(0.0, 8.0),
)
@settings(max_examples=60, deadline=None)
def test_drawing_keeps_what_a_streak_covers(angle, length, width, blur):
    half_x, half_y = length / 2 * math.cos(angle), length / 2 * math.sin(angle)
    streak = one_streak(
        x0=50.3 - half_x, x1=50.3 + half_x, y0=49.6 - half_y, y1=49.6 + half_y,
        width=width, blur=blur, opacity=1e-2,
    )  # fmt: skip
    drawn = -torch.log1p(-draw_streaks(streak, 1, (100, 100)).opacity.double())
    half = math.sqrt(7 * ((width**2 + blur**2) / 16 + 1 / 12 + 0.1))
    # Both ends fade over the half width, half of that outside; of short streaks the fades meet.
    faded = length if length > half else (length + half) ** 2 / (4 * half)
    covered = 1e-2 * width * faded
    assert drawn.sum().item() == pytest.approx(covered, rel=0.2, abs=1e-3 * width)


def test_a_streak_hides_behind_what_is_nearer():
    near, far = (torch.full((1, 1, 60, 60), depth) for depth in (2.0, 4.0))
    assert draw_streaks(one_streak(), 1, (60, 60), near).opacity.max() == 0
    assert draw_streaks(one_streak(), 1, (60, 60), far).opacity.max() > 0


def test_what_lies_outside_is_cut():
    maps = draw_streaks(one_streak(x0=-5.0, x1=3.0, y0=-9.0, y1=90.0), 1, (60, 60))
    assert maps.opacity.shape == (1, 1, 60, 60)
    assert maps.opacity.max() > 0
    nothing = draw_streaks(one_streak(x0=-50.0, x1=-40.0), 1, (60, 60))
    assert nothing.opacity.max() == 0
    assert nothing.brightness.max() == 0


def test_brightness_and_nearness_are_means_of_the_streaks():
    maps = draw_streaks(one_streak(brightness=1.3, depth_m=2.0), 1, (60, 60))
    covered = maps.opacity > 1e-3
    assert maps.brightness[covered].mean() == pytest.approx(1.3, rel=0.15)
    assert maps.nearness[covered].mean() == pytest.approx(1.3 / 4, rel=0.15)


# --- random numbers -------------------------------------------------------------------------------


def test_numbers_are_even_and_independent_of_streams_and_keys():
    index = torch.arange(20_000)
    key = torch.tensor([image_key(0, "a")])
    values = uniform(key, index, 1)
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert values.var() == pytest.approx(1 / 12, abs=0.003)
    for other in (
        uniform(key, index, 2),
        uniform(torch.tensor([image_key(0, "b")]), index, 1),
        values.roll(1),
    ):
        assert abs(torch.corrcoef(torch.stack([values, other]))[0, 1]) < 0.03


@pytest.mark.parametrize("kind", [normal, rough_normal])
def test_normal_numbers(kind):
    values = kind(torch.tensor([image_key(0, "a")]), torch.arange(20_000), 5)
    assert values.mean() == pytest.approx(0, abs=0.03)
    assert values.std() == pytest.approx(1, abs=0.03)


def test_expand_of_nothing():
    assert [len(part) for part in expand(torch.zeros(3, dtype=torch.int64))] == [0, 0]
