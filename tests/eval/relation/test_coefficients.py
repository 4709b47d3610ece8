"""Coefficients against scipy and pandas, and resamples against repeating points."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.relation.coefficients import (
    KINDS,
    coefficient,
    is_constant,
    resampled_points,
    resampled_weights,
)
from eval.scores.bootstrap import draw_weights

ORACLES = {
    "pearson": lambda x, y: stats.pearsonr(x, y).statistic,
    "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
    "kendall": lambda x, y: stats.kendalltau(x, y).statistic,
}


def points(seed, count, *, ties):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=count)
    y = 0.5 * x + rng.normal(size=count)
    return (np.round(x, 1), np.round(2 * y) / 2) if ties else (x, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", [False, True])
def test_points_are_as_pandas_has_them(kind, ties):
    x, y = points(0, 40, ties=ties)
    expected = pd.DataFrame({"x": x, "y": y}).corr(method=kind).loc["x", "y"]
    assert coefficient(x, y, kind) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", [False, True])
def test_weights_are_the_same_as_repeating_points(kind, ties):
    x, y = points(1, 30, ties=ties)
    weights = draw_weights(30, 300, seed=0)
    found = resampled_weights(x, y, weights, kind)
    for row in range(0, 300, 37):
        times = weights[row].astype(int)
        expected = ORACLES[kind](np.repeat(x, times), np.repeat(y, times))
        assert found[row] == pytest.approx(expected, abs=1e-12)
    once = resampled_weights(x, y, np.ones((1, 30)), kind)
    assert once[0] == pytest.approx(coefficient(x, y, kind), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_resampled_values_row_by_row(kind):
    rng = np.random.default_rng(2)
    x, y = np.round(rng.normal(size=(300, 6)), 1), np.round(rng.normal(size=(300, 6)), 1)
    found = resampled_points(x, y, kind)
    for row in range(0, 300, 29):
        assert found[row] == pytest.approx(ORACLES[kind](x[row], y[row]), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_constant_has_no_coefficient(kind):
    same, other = np.full(5, 0.3), np.arange(5.0)
    same[0] = 0.1 + 0.2
    assert is_constant(same)
    assert np.isnan(coefficient(same, other, kind))
    assert np.isnan(coefficient(other, same, kind))
    weights = np.array([[5.0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    found = resampled_weights(other, other**2, weights, kind)
    assert np.isnan(found[0])
    assert np.isfinite(found[1])
    rows = resampled_points(np.stack([other, np.full(5, 0.5)]), np.stack([other, other]), kind)
    assert rows[0] == pytest.approx(1.0)
    assert np.isnan(rows[1])


@pytest.mark.parametrize("kind", KINDS)
def test_an_undefined_value_makes_its_resample_undefined(kind):
    x = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]])
    found = resampled_points(x, np.array([[1.0, 3.0, 2.0]] * 2), kind)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


def test_no_resamples():
    assert resampled_points(np.zeros((0, 3)), np.zeros((0, 3)), "kendall").shape == (0,)
    assert resampled_weights(np.zeros(3), np.zeros(3), np.zeros((0, 3)), "pearson").shape == (0,)
