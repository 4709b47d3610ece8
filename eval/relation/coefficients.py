"""Correlation coefficients of points (by scipy), and of all resamples of a bootstrap at once.

| kind | what it asks | definition |
| --- | --- | --- |
| `pearson` | do the points lie on a line? | covariance over the product of the deviations |
| `spearman` | does one order follow the other? | Pearson of the ranks, ties share their mean rank |
| `kendall` | in how many pairs do the orders agree? | tau-b, which corrects for ties |

tau-b is (C - D) / sqrt(A B), with C and D the pairs in equal and in opposite order, A and B the
pairs that are not tied in x and in y (M. G. Kendall, The treatment of ties in ranking problems,
Biometrika 1945). The results equal those of scipy.stats and `pandas.DataFrame.corr`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = [
    "KINDS",
    "Kind",
    "coefficient",
    "is_constant",
    "permutation_p",
    "resampled_points",
    "resampled_weights",
]

FloatArray = npt.NDArray[np.float64]

Kind = Literal["pearson", "spearman", "kendall"]

KINDS: tuple[Kind, ...] = ("pearson", "spearman", "kendall")

_SAME = 1e-9  # relative to the largest value: smaller differences are rounding, not gain
_CHUNK = 250  # resamples or points processed at once, to bound memory


def is_constant(values: FloatArray) -> bool:
    """Tell whether values (N,) are equal up to rounding, so that no correlation is defined.

    >>> is_constant(np.array([0.1 + 0.2, 0.3, 0.3]))
    True
    """
    return bool(np.ptp(values) <= _SAME * np.abs(values).max()) if values.size else True


def coefficient(x: FloatArray, y: FloatArray, kind: Kind) -> float:
    """Return a correlation coefficient of points, -1..1.

    Args:
        x: (N,) finite values.
        y: (N,) finite values.
        kind: Which coefficient.

    Returns:
        NaN when x or y is constant, or with fewer than 2 points.

    Example:
        >>> x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
        >>> [round(coefficient(x, y, kind), 3) for kind in KINDS]
        [0.8, 0.8, 0.667]
    """
    if len(x) < 2 or is_constant(x) or is_constant(y):
        return float("nan")
    function = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}
    return float(function[kind](x, y).statistic)


def permutation_p(x: FloatArray, y: FloatArray, seed: int = 0) -> float:
    """Return how often Spearman's coefficient is as far from zero by a chance order of derainers.

    A derainer keeps its gains on all sets together: its points are not independent of each other.

    Args:
        x: (S, D) finite gains of D derainers on S sets.
        y: (S, D).
        seed: Draws the orders where there are more than 10,000.

    Returns:
        The two-sided p, over all orders of up to 7 derainers; NaN when x or y is constant.

    Example:
        >>> permutation_p(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[1.0, 2.0, 3.0, 4.0]]))
        0.08333333333333333
    """
    if is_constant(x) or is_constant(y):
        return float("nan")
    ranks_x, ranks_y = (
        stats.rankdata(values).reshape(values.shape) - (values.size + 1) / 2 for values in (x, y)
    )

    def similarity(order: FloatArray, axis: int) -> FloatArray:
        """Return what is proportional to the coefficient, for orders along the last axis."""
        permuted = ranks_y[:, order.astype(int)]  # (S, ..., D)
        return np.asarray(np.einsum("sd,s...d->...", ranks_x, permuted))

    result = stats.permutation_test(
        (np.arange(x.shape[1]),),
        similarity,
        permutation_type="pairings",
        vectorized=True,
        axis=-1,
        random_state=seed,
    )
    return float(result.pvalue)


def resampled_points(x: FloatArray, y: FloatArray, kind: Kind) -> FloatArray:
    """Return the coefficient of each row, where the values of the points were resampled.

    Args:
        x: (R, N): the N points' values in each of R resamples.
        y: (R, N).
        kind: Which coefficient.

    Returns:
        (R,); NaN where a value is undefined, or where x or y is constant.
    """
    parts = [slice(start, start + _CHUNK) for start in range(0, len(x), _CHUNK)]
    return np.concatenate([_points(x[part], y[part], kind) for part in parts] or [np.zeros(0)])


def _points(x: FloatArray, y: FloatArray, kind: Kind) -> FloatArray:
    if kind == "kendall":
        return _kendall_of_points(x, y)
    if kind == "spearman":
        # scipy returns NaN for a row that contains NaN, as wanted here.
        x, y = stats.rankdata(x, axis=1), stats.rankdata(y, axis=1)
    scale_x, scale_y = np.abs(x).max(axis=1), np.abs(y).max(axis=1)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    varied = (np.ptp(x, axis=1) > _SAME * scale_x) & (np.ptp(y, axis=1) > _SAME * scale_y)
    return _ratio((x * y).sum(axis=1), (x * x).sum(axis=1), (y * y).sum(axis=1), varied)


def _kendall_of_points(x: FloatArray, y: FloatArray) -> FloatArray:
    first, second = np.triu_indices(x.shape[1], 1)
    order_x, order_y = np.sign(x[:, first] - x[:, second]), np.sign(y[:, first] - y[:, second])
    agreement = (order_x * order_y).sum(axis=1)
    untied_x, untied_y = np.abs(order_x).sum(axis=1), np.abs(order_y).sum(axis=1)
    return _ratio(agreement, untied_x, untied_y, (untied_x > 0) & (untied_y > 0))


def resampled_weights(x: FloatArray, y: FloatArray, weights: FloatArray, kind: Kind) -> FloatArray:
    """Return the coefficient in each resample of the points, given as weights.

    The result equals that of repeating each point as often as its weight, without the copies.

    Args:
        x: (N,) finite values.
        y: (N,) finite values.
        weights: (R, N) whole numbers: how often each resample contains each point.
        kind: Which coefficient.

    Returns:
        (R,); NaN where x or y is constant among the resampled points.
    """
    compute = {"pearson": _pearson, "spearman": _spearman, "kendall": _kendall}[kind]
    parts = [weights[start : start + _CHUNK] for start in range(0, len(weights), _CHUNK)]
    return np.concatenate([compute(x, y, part) for part in parts] or [np.zeros(0)])


def _pearson(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    return _weighted_pearson((x - x.mean())[None], (y - y.mean())[None], weights)


def _spearman(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    return _weighted_pearson(_mid_ranks(x, weights), _mid_ranks(y, weights), weights)


def _mid_ranks(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return each value's mean rank (R, N) within each resample, relative to the middle rank."""
    group, counts = _grouped(values, weights)
    ranks = counts.cumsum(axis=1) - 0.5 * counts - 0.5 * counts.sum(axis=1, keepdims=True)
    return np.asarray(ranks[:, group])


def _grouped(values: FloatArray, weights: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Return each value's index (N,) among the V distinct values, and their weights (R, V)."""
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    return group, np.add.reduceat(weights[:, order], starts, axis=1)


def _weighted_pearson(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Correlate values (1, N) or (R, N) with mean near 0 under weights (R, N)."""
    total = weights.sum(axis=1)
    mean_x, mean_y = (weights * x).sum(axis=1) / total, (weights * y).sum(axis=1) / total
    square_x = (weights * x * x).sum(axis=1) / total - mean_x**2
    square_y = (weights * y * y).sum(axis=1) / total - mean_y**2
    product = (weights * x * y).sum(axis=1) / total - mean_x * mean_y
    # Where the variance is zero, differences of large sums leave rounding errors.
    varied = (square_x > 1e-12 * (x * x).max()) & (square_y > 1e-12 * (y * y).max())
    return _ratio(product, square_x, square_y, varied)


def _kendall(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Return tau-b (R,) over all pairs, each weighted by the product of its points' weights.

    `scipy.stats.kendalltau` takes no weights. Called for each resample on repeated points, it gives
    the same numbers but takes 60 times as long for 200 points.
    """
    agreement = np.zeros(len(weights))
    counts = weights.astype(np.float32)  # exact: sums of counts are at most N
    for start in range(0, len(x), _CHUNK):  # all pairs at once would exhaust memory
        part = slice(start, start + _CHUNK)
        orders = np.sign(x[:, None] - x[part]) * np.sign(y[:, None] - y[part])
        agreement += 0.5 * ((counts @ orders.astype(np.float32)) * weights[:, part]).sum(axis=1)
    pairs = weights.sum(axis=1) ** 2
    untied_x, untied_y = (
        0.5 * (pairs - (_grouped(values, weights)[1] ** 2).sum(axis=1)) for values in (x, y)
    )
    return _ratio(agreement, untied_x, untied_y, (untied_x > 0) & (untied_y > 0))


def _ratio(
    product: FloatArray, first: FloatArray, second: FloatArray, defined: npt.NDArray[np.bool_]
) -> FloatArray:
    """Return product / sqrt(first second) within -1..1; NaN where it is not defined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = product / np.sqrt(first * second)
    return np.where(defined, np.clip(ratio, -1.0, 1.0), np.nan)
