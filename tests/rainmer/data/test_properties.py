"""Properties of pairs against reference numbers of the published analysis."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file

from rainmer.data.properties import PUBLISHED, measure_pair, rain_density
from tests.rainmer.golden import COPIES

NAMES = {
    "density_255": "density",
    "entropy_gt": "clean_entropy",
    "entropy_rain": "rainy_entropy",
    "illu_gt": "clean_luminance",
    "illu_rain": "rainy_luminance",
    "non_mono": "colourfulness",
    "y_gradient": "gradient",
}


@pytest.fixture(scope="module")
def stats():
    return load_file(COPIES / "dataset_stats.safetensors")


def pair(stats, number):
    return (stats[f"in/{number}/{role}_u8"].transpose(1, 2, 0) for role in ("rain", "gt"))


@pytest.mark.parametrize("number", range(3))
def test_each_property_equals_the_published_analysis(stats, number):
    rainy, clean = pair(stats, number)
    measured = measure_pair(rainy, clean)
    for official, own in NAMES.items():
        expected, value = float(stats[f"out/{number}/{official}"]), getattr(measured, own)
        if math.isnan(expected):
            assert value is None
        else:
            assert value == pytest.approx(expected, rel=1e-5), own
    assert measured.psnr_db == pytest.approx(float(stats["out/props/psnrs"][number]), abs=1e-3)
    assert rain_density(rainy, clean) == pytest.approx(float(stats["out/density_01"][number]))


def test_equal_images_have_no_rain():
    frame = np.full((6, 8, 3), 90, np.uint8)
    measured = measure_pair(frame, frame)
    assert measured.gradient is None
    assert measured.colourfulness is None
    assert measured.density == 0
    assert measured.luminance_change == 0
    assert measured.psnr_db == math.inf


def test_white_rain_is_colourless_and_coloured_rain_is_not():
    clean = np.full((6, 8, 3), 60, np.uint8)
    white, red = clean.copy(), clean.copy()
    white[2:4] += 40
    red[2:4, :, 0] += 40
    assert measure_pair(white, clean).colourfulness is None  # zero is left out
    assert measure_pair(red, clean).colourfulness == pytest.approx(np.std([40, 0, 0]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_bands_are_in_order(name):
    for band in PUBLISHED[name].values():
        assert band.low < band.median < band.high
