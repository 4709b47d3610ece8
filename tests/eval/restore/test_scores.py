import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from eval.restore.options import CONVENTIONS
from eval.restore.scores import compare_scores, key_of, mean_score, score_image
from eval.scores.score import Score
from rainmer.metrics import restoration_scores
from tests.eval.restore.trees import grey, pair

CPU = torch.device("cpu")


def luma(frame):
    """Y of BT.601 in 16..235, in scikit-image's way: float64."""
    return frame.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255.0) + 16.0


@pytest.mark.parametrize(
    ("convention", "planes"),
    [
        ("matlab", lambda frame: np.floor(luma(frame) + 0.5)),
        ("matlab_double", luma),
        ("official", luma),
        ("rgb", lambda frame: frame.astype(np.float64)),
    ],
)
def test_scores_equal_scikit_image(convention, planes):
    wet, dry = pair(3, (60, 80))
    scores = score_image(wet, dry, [convention], CPU)
    first, second = planes(dry), planes(wet)
    axis = -1 if first.ndim == 3 else None
    ssim = structural_similarity(
        first, second, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, channel_axis=axis,
    )  # fmt: skip
    psnr = peak_signal_noise_ratio(first, second, data_range=255)
    assert scores[key_of("psnr", convention)] == pytest.approx(psnr, abs=1e-3)
    assert scores[key_of("ssim", convention)] == pytest.approx(ssim, abs=1e-4)


def test_all_conventions_are_scored_at_once():
    wet, dry = pair(1)
    scores = score_image(wet, dry, CONVENTIONS, CPU)
    assert len(scores) == 2 * len(CONVENTIONS)
    stacks = [torch.from_numpy(f).permute(2, 0, 1)[None] for f in (wet, dry)]
    for name, value in restoration_scores(*stacks).items():
        assert scores[name] == value.item()


@pytest.mark.parametrize("value", [0, 90, 255])
def test_equal_constant_images_have_infinite_psnr(value):
    scores = score_image(grey(value), grey(value), CONVENTIONS, CPU)
    assert all(math.isinf(scores[key_of("psnr", c)]) for c in CONVENTIONS)
    assert all(scores[key_of("ssim", c)] == 1.0 for c in CONVENTIONS)


def test_ssim_of_tiny_images_is_left_out():
    scores = score_image(grey(1, (9, 30)), grey(2, (9, 30)), ["matlab"], CPU)
    assert set(scores) == {"psnr"}


def test_means_hide_nothing():
    assert mean_score([]) is None
    assert mean_score([1.0, 3.0]) == 2.0
    assert mean_score([1.0, math.inf]) == math.inf


def test_one_unit_has_no_interval():
    assert compare_scores([1.0], ["a"], 100, 0) == Score(1.0)
    assert compare_scores([1.0, 3.0], ["a", "a"], 100, 0) == Score(2.0)
    assert compare_scores([1.0, 3.0], ["a", "b"], 0, 0) == Score(2.0)
    assert compare_scores([], [], 100, 0) == Score()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_difference_with_infinity_is_undefined(value):
    assert compare_scores([1.0, value], ["a", "b"], 100, 0) == Score()


def test_scenes_widen_the_interval_as_they_should():
    rng = np.random.default_rng(0)
    scenes = np.repeat(np.arange(10), 20)
    values = rng.normal(0, 1, 10)[scenes] + rng.normal(0, 0.1, 200)
    by_scene = compare_scores(values, list(scenes), 2000, 0)
    by_image = compare_scores(values, range(200), 2000, 0)
    assert by_scene.value == by_image.value
    assert by_scene.high - by_scene.low > 3 * (by_image.high - by_image.low)


@given(st.lists(st.tuples(st.floats(-50, 50), st.integers(0, 4)), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_the_interval_lies_within_what_was_seen(pairs):
    values, units = zip(*pairs, strict=True)
    found = compare_scores(values, units, 50, 0)
    assert found.value == pytest.approx(np.mean(values))
    if found.low is not None:
        assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
