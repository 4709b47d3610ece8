"""PSNR and SSIM: against the published code's numbers, scikit-image and values worked by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rainmer.errors import ConfigError, ImageError
from rainmer.frames.images import read_image
from rainmer.metrics import luma, luma_8bit, psnr, restoration_scores, ssim

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
GOLDEN = SHARED / "reference/golden/metrics.safetensors"
RAIN100H = SHARED / "data/rain100h-20"
GOLDEN_KEYS = ("factor", "psnr_y", "ssim_y", "psnr_y_float", "ssim_y_float", "psnr_rgb", "ssim_rgb")
CONVENTIONS = ("matlab", "matlab_double", "official", "rgb")


def random_pair(size_hw, seed=0, batch=1):
    """A smooth image and the same with noise, both uint8 (B, 3, H, W)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (batch, 3, *[side // 8 + 2 for side in size_hw]))
    smooth = coarse.repeat(8, axis=2).repeat(8, axis=3)[..., : size_hw[0], : size_hw[1]]
    noisy = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255)
    return torch.from_numpy(noisy.astype(np.uint8)), torch.from_numpy(smooth.astype(np.uint8))


def flat(level, size_hw=(16, 20)):
    return torch.full((1, 3, *size_hw), level, dtype=torch.uint8)


# --- against the published code -----------------------------------------------------------------


def golden_names():
    if not GOLDEN.is_file():
        return []
    with safe_open(GOLDEN, "pt") as file:
        return sorted({key.split("/")[1] for key in file.keys()})  # noqa: SIM118


def golden_pair(file, name):
    """The pictures of a golden case: stored ones, or those of the formula in its README."""
    if name.startswith("s"):
        return file.get_tensor(f"in/{name}/x_u8"), file.get_tensor(f"in/{name}/y_u8")
    height, width = map(int, name[1:].split("x"))
    i, j, c = np.mgrid[:height, :width, :3]
    clean = 40 + ((3 * i + 5 * j + 31 * c) // 4) % 97 + ((i * j) // 64) % 41
    restored = np.minimum(255, clean + (131 * i + 71 * j + 17 * c + (7 * i * i) % 53) % 37)
    pair = (torch.from_numpy(x.astype(np.uint8)) for x in (restored, clean))
    return tuple(image.permute(2, 0, 1)[None] for image in pair)


@pytest.mark.shared_data
@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}")
@pytest.mark.parametrize("name", golden_names())
def test_official_convention_equals_the_published_code(name):
    with safe_open(GOLDEN, "pt") as file:
        offset = json.loads(file.metadata()["meta"])["offset"]
        preds, target = golden_pair(file, name)
        expected = {key: file.get_tensor(f"out/{name}/{key}") for key in GOLDEN_KEYS}
    shifted = (preds.float() / 255 + offset).clamp(0, 1)

    def close(score, key):
        tolerance = 1e-3 if key.startswith("psnr") else 1e-5
        return float(score) == pytest.approx(float(expected[key]), abs=tolerance)

    assert close(psnr(preds, target, convention="official"), "psnr_y")
    assert close(ssim(preds, target, convention="official"), "ssim_y")
    assert close(psnr(shifted, target, convention="official"), "psnr_y_float")
    assert close(ssim(shifted, target, convention="official"), "ssim_y_float")
    assert close(psnr(preds, target, convention="rgb"), "psnr_rgb")
    if expected["factor"] == 1:  # the published code averages RGB down too, our `rgb` never does
        assert close(ssim(preds, target, convention="rgb"), "ssim_rgb")


# --- against scikit-image -----------------------------------------------------------------------


def skimage_ssim(first, second, **options):
    return structural_similarity(
        first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, **options
    )


def assert_equals_skimage(preds, target):
    """Compare with scikit-image on one uint8 pair (1, 3, H, W)."""
    luma_pair = [luma_8bit(image)[0].numpy().astype(np.uint8) for image in (preds, target)]
    assert float(psnr(preds, target)) == pytest.approx(
        peak_signal_noise_ratio(*luma_pair, data_range=255), abs=1e-3
    )
    assert float(ssim(preds, target)) == pytest.approx(
        skimage_ssim(*luma_pair, data_range=255), abs=1e-5
    )
    rgb_pair = [image[0].permute(1, 2, 0).numpy() for image in (preds, target)]
    assert float(psnr(preds, target, convention="rgb")) == pytest.approx(
        peak_signal_noise_ratio(*rgb_pair, data_range=255), abs=1e-3
    )
    assert float(ssim(preds, target, convention="rgb")) == pytest.approx(
        skimage_ssim(*rgb_pair, data_range=255, channel_axis=2), abs=1e-5
    )


@pytest.mark.parametrize("size_hw", [(11, 11), (11, 40), (37, 12), (96, 130)])
def test_equals_skimage_on_synthetic_images(size_hw):
    assert_equals_skimage(*random_pair(size_hw))


@pytest.mark.shared_data
@pytest.mark.skipif(not RAIN100H.is_dir(), reason=f"no {RAIN100H}")
@pytest.mark.parametrize("number", [1, 20])
def test_equals_skimage_on_real_rain(number):
    pair = (read_image(RAIN100H / folder / f"{number}.png") for folder in ("input", "target"))
    assert_equals_skimage(*(torch.from_numpy(image).permute(2, 0, 1)[None] for image in pair))


@pytest.mark.shared_data
@pytest.mark.skipif(not RAIN100H.is_dir(), reason=f"no {RAIN100H}")
def test_real_rain_scores_as_measured_before():
    scores = []
    for path in sorted((RAIN100H / "input").glob("*.png")):
        pair = (read_image(path), read_image(RAIN100H / "target" / path.name))
        tensors = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in pair)
        scores.append(restoration_scores(*tensors))
    means = {key: float(torch.cat([row[key] for row in scores]).mean()) for key in scores[0]}
    # 13.55 dB over all 100 pairs; of these 20 an independent computation gave the numbers here.
    assert means["psnr"] == pytest.approx(13.282, abs=2e-3)
    assert means["psnr_official"] == pytest.approx(means["psnr"], abs=2e-3)
    assert means["ssim"] == pytest.approx(0.3273, abs=2e-4)
    assert means["ssim_official"] == pytest.approx(means["ssim"], abs=5e-4)


# --- worked by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("colour", "level"),
    [
        ((0, 0, 0), 16),
        ((255, 255, 255), 235),
        ((255, 0, 0), 81),  # 65.481 + 16
        ((0, 255, 0), 145),  # 128.553 + 16
        ((0, 0, 255), 41),  # 24.966 + 16
        ((5, 65, 25), 53),  # exactly 52.5: MATLAB rounds halves up
        ((0, 204, 68), 126),  # exactly 125.5
    ],
)
def test_luma_of_colours(colour, level):
    pixel = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1)
    assert luma_8bit(pixel).item() == level
    assert luma_8bit(pixel.double() / 255).item() == level
    assert luma(pixel).item() * 255 == pytest.approx(level, abs=0.5001)


def test_psnr_of_a_constant_difference():
    # Luma is linear: a difference of 20 in RGB is one of 20 * 219 / 255 = 17.18 in Y, 17 in 8 bits.
    preds, target = flat(120), flat(100)
    assert psnr(preds, target).item() == pytest.approx(20 * math.log10(255 / 17))
    exact = pytest.approx(20 * math.log10(255 / (20 * 219 / 255)), abs=1e-4)
    assert psnr(preds, target, convention="matlab_double").item() == exact
    assert psnr(preds, target, convention="official").item() == exact
    rgb = pytest.approx(20 * math.log10(255 / 20), abs=1e-4)
    assert psnr(preds, target, convention="rgb").item() == rgb


def test_ssim_of_flat_images_is_the_luminance_term():
    # No variance: (2 a b + c1) / (a² + b² + c1).
    a, b, c1 = 120 / 255, 100 / 255, 1e-4
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    # Variances come out as the rounding of squared levels (0.25), which c2 = 0.03² then divides.
    exact = pytest.approx(expected, abs=0.25 * torch.finfo(torch.float32).eps / 0.03**2)
    assert ssim(flat(120), flat(100), convention="rgb").item() == exact


def test_ssim_sees_structure_that_psnr_does_not():
    preds, target = random_pair((64, 64))
    brighter = (target.int() + 5).clamp(0, 255).to(torch.uint8)
    assert ssim(brighter, target).item() > 0.98
    assert ssim(preds, target).item() < 0.9


@pytest.mark.parametrize(("side", "factor"), [(383, 1), (384, 2), (640, 2)])
def test_official_ssim_averages_large_images_down(side, factor):
    preds, target = random_pair((side, side))
    scores = restoration_scores(preds, target)
    plain = ssim(preds, target, convention="matlab_double").item()
    if factor == 1:
        assert scores["ssim_official"].item() == plain
        return
    height = side // factor
    pair = [
        luma(x)[0, : height * factor, : height * factor]
        .numpy()
        .reshape(height, factor, height, factor)
        .mean((1, 3))
        for x in (preds, target)
    ]
    assert scores["ssim_official"].item() == pytest.approx(
        skimage_ssim(*pair, data_range=1.0), abs=1e-5
    )
    assert scores["ssim_official"].item() > plain + 0.01


# --- properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", CONVENTIONS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(11, 40), width=st.integers(11, 40))
def test_symmetric_and_bounded(convention, seed, height, width):
    preds, target = random_pair((height, width), seed)
    similarity = ssim(preds, target, convention=convention)
    assert torch.equal(similarity, ssim(target, preds, convention=convention))
    assert -1 <= similarity.item() <= 1
    assert torch.equal(
        psnr(preds, target, convention=convention), psnr(target, preds, convention=convention)
    )


@pytest.mark.parametrize("convention", CONVENTIONS)
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(4)), seed=st.integers(0, 2**31))
def test_images_of_a_batch_are_independent(convention, order, seed):
    preds, target = random_pair((24, 31), seed, batch=4)
    for metric in (psnr, ssim):
        scores = metric(preds, target, convention=convention)
        assert scores.dtype == torch.float64
        assert torch.equal(
            scores[order], metric(preds[order], target[order], convention=convention)
        )
        alone = metric(preds[2:3], target[2:3], convention=convention)
        torch.testing.assert_close(scores[2:3], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_equal_images(convention):
    image, _ = random_pair((30, 20))
    assert psnr(image, image, convention=convention).item() == math.inf
    assert ssim(image, image, convention=convention).item() == 1.0


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_eight_bit_and_floating_point_agree(convention):
    preds, target = random_pair((30, 20))
    floats = preds.double() / 255, target.float() / 255
    for metric in (psnr, ssim):
        expected = metric(preds, target, convention=convention)
        torch.testing.assert_close(
            metric(*floats, convention=convention), expected, rtol=0, atol=1e-5
        )


def test_rounding_to_eight_bits_belongs_to_matlab_only():
    target = flat(100)
    preds = (target + 0.4) / 255  # less than half a level
    assert psnr(preds, target, convention="matlab").item() == math.inf
    assert psnr(preds, target, convention="matlab_double").item() == math.inf
    exact = pytest.approx(20 * math.log10(255 / (0.4 * 219 / 255)), abs=1e-2)
    assert psnr(preds, target, convention="official").item() == exact


def test_values_outside_the_range_are_clamped():
    target = torch.zeros(1, 3, 16, 16)
    assert psnr(target - 0.3, target, convention="official").item() == math.inf


def test_inputs_stay_as_they_are():
    preds, target = (image / 255 for image in random_pair((30, 20)))
    copies = preds.clone(), target.clone()
    restoration_scores(preds.requires_grad_(), target)
    for convention in CONVENTIONS:
        assert not ssim(preds, target, convention=convention).requires_grad
    assert torch.equal(preds, copies[0])
    assert torch.equal(target, copies[1])


def test_scores_of_a_batch_equal_the_single_functions():
    preds, target = random_pair((40, 50), batch=3)
    scores = restoration_scores(preds, target)
    assert list(scores) == ["psnr", "ssim", "psnr_official", "ssim_official"]
    for name, metric in (("psnr", psnr), ("ssim", ssim)):
        assert torch.equal(scores[name], metric(preds, target))
        assert torch.equal(scores[f"{name}_official"], metric(preds, target, convention="official"))


# --- edges --------------------------------------------------------------------------------------


def test_empty_batch():
    empty = torch.zeros(0, 3, 16, 16)
    assert all(scores.shape == (0,) for scores in restoration_scores(empty, empty).values())


@pytest.mark.parametrize("size_hw", [(10, 50), (50, 10), (1, 1)])
def test_no_ssim_without_room_for_the_window(size_hw):
    preds, target = flat(10, size_hw), flat(30, size_hw)
    scores = restoration_scores(preds, target)
    assert math.isnan(scores["ssim"].item())
    assert math.isnan(scores["ssim_official"].item())
    assert scores["psnr"].item() > 20


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    [
        (flat(1), flat(1, (16, 21)), "restored images are"),
        (flat(1)[0], flat(1)[0], r"\(B, 3, H, W\)"),
        (flat(1)[:, :1], flat(1)[:, :1], r"\(B, 3, H, W\)"),
        (flat(1, (0, 8)), flat(1, (0, 8)), r"\(B, 3, H, W\)"),
        (flat(1).int(), flat(1), "uint8 or floating point"),
        (flat(200).float(), flat(200), "divide those of 0..255 by 255"),
        (flat(1) * math.nan, flat(1), "must lie in 0..1"),
    ],
)
def test_wrong_images(preds, target, message):
    for function in (psnr, ssim, restoration_scores):
        with pytest.raises(ImageError, match=message):
            function(preds, target)


def test_unknown_convention():
    with pytest.raises(ConfigError, match="use one of matlab, matlab_double, official, rgb"):
        psnr(flat(1), flat(1), convention="yiq")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_gpu_agrees(convention):
    preds, target = random_pair((400, 500), batch=2)
    for metric in (psnr, ssim):
        expected = metric(preds, target, convention=convention)
        measured = metric(preds.cuda(), target.cuda(), convention=convention)
        torch.testing.assert_close(measured, expected, rtol=0, atol=1e-5)
