"""Correlation of restoration gain with detection gain: over derainers, over sets, over images.

| scope | a point is | the bootstrap resamples |
| --- | --- | --- |
| `set` | a derainer on one set | the images of the set |
| `pooled` | a derainer on a set, all sets | the images of each set, independently |
| `images` | an image of one set, one derainer | the images |

An interval shows how much a coefficient depends on the sample of images, not on the choice of
derainers. Controls form a separate population: both gains of the identity are zero by construction,
which pulls every relation through the origin. How much it depends on the derainers says the
permutation test: how often derainers in a chance order agree as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eval.relation.coefficients import (
    KINDS,
    Kind,
    coefficient,
    is_constant,
    permutation_p,
    resampled_points,
    resampled_weights,
)
from eval.relation.gains import (
    DETECTION,
    RESTORATION,
    ConditionGains,
    GainRow,
    SetGains,
    interval_of,
    with_ends,
)
from eval.scores.score import Score

__all__ = ["FEWEST", "FEWEST_DERAINERS", "POPULATIONS", "Correlation", "correlate"]

FloatArray = npt.NDArray[np.float64]

Scope: TypeAlias = Literal["pooled", "set", "images"]

FEWEST = 3
"""Fewest points for a correlation, because two always lie on a line."""

FEWEST_DERAINERS = 6
"""Fewest derainers for a claim: with fewer, a single one decides the order."""

POPULATIONS = ("derainers", "derainers and controls")
"""Which points enter a correlation over derainers."""

_NO_RESAMPLES = "no interval: no resamples, or a set with a single image"
_TOO_FEW_RESAMPLES = "no interval: fewer than 95 % of the resamples define a coefficient"


def _undefined() -> dict[Kind, Score]:
    return dict.fromkeys(KINDS, Score())


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """The correlation of a restoration gain with a detection gain.

    Attributes:
        scope: What a point is.
        set_name: The set; empty for all sets together.
        condition: The condition; `all` means all images.
        derainer: The derainer whose images are the points; empty where the points are derainers.
        points: One of `POPULATIONS`, or `images`.
        restoration: The restoration gain, such as `delta_psnr`.
        detection: The detection gain, such as `delta_mAP`.
        count: Number of points.
        derainers: Number of different derainers among the points; 0 where these are images.
        p_value: Of Spearman's coefficient, by permutation of the derainers; None with controls,
            over images, or where a derainer lacks a point on one of the sets.
        coefficients: -1..1, with their intervals.
        note: Why a coefficient or an interval is undefined; else empty.
    """

    scope: Scope
    set_name: str
    condition: str
    derainer: str = ""
    points: str
    restoration: str
    detection: str
    count: int = 0
    derainers: int = 0
    p_value: float | None = None
    coefficients: Mapping[Kind, Score] = field(default_factory=_undefined)
    note: str = ""

    def as_record(self) -> dict[str, object]:
        """Return the fields that metrics.json and correlations.csv hold."""
        record: dict[str, object] = {
            "scope": self.scope,
            "set": self.set_name,
            "condition": self.condition,
            "derainer": self.derainer,
            "points": self.points,
            "restoration": self.restoration,
            "detection": self.detection,
            "n": self.count,
            "n_derainers": self.derainers,
            "spearman_p": self.p_value,
        }
        for kind, score in self.coefficients.items():
            record |= with_ends(kind, score)
        return record | {"note": self.note}


@dataclass(frozen=True)
class _Point:
    """A derainer on a set: its row, and its gains in each resample (empty: no interval)."""

    row: GainRow
    samples: Mapping[str, FloatArray]


def correlate(
    sets: Sequence[SetGains],
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda steps, total: None,
) -> list[Correlation]:
    """Return every correlation: pooled ones first, then per set, and over images last.

    Args:
        sets: The gains of each set.
        seed: Determines the order in which the resamples of different sets are joined.
        progress: Called with the number of finished steps and the total.
    """
    steps = [*_pooled(sets, seed)]
    for gains in sets:
        for condition, members in gains.conditions.items():
            steps.append(_over_points(_points(members), "set", gains.name, condition))
    for gains in sets:
        steps += [_over_images(gains, name, members) for name, members in gains.conditions.items()]
    table: list[Correlation] = []
    for number, step in enumerate(steps, start=1):
        table += step  # a step is a generator, so it computes here
        progress(number, len(steps))
    return table


def _pooled(sets: Sequence[SetGains], seed: int) -> Iterator[Iterator[Correlation]]:
    """Yield the pooled correlations of each condition that at least two sets share."""
    for condition in dict.fromkeys(name for gains in sets for name in gains.conditions):
        members = [gains for gains in sets if condition in gains.conditions]
        if len(members) > 1:
            yield _over_points(_joined(members, condition, seed), "pooled", "", condition)


def _points(gains: ConditionGains) -> list[_Point]:
    return [_Point(row, gains.samples[row.derainer]) for row in gains.rows]


def _joined(sets: Sequence[SetGains], condition: str, seed: int) -> list[_Point]:
    """Pool the points of several sets, with the resamples of each set in independent order.

    All sets are resampled with the same seed, so sets of equal size draw the same positions in each
    resample. Shuffling the order of the resamples within each set removes this dependence.
    """
    joined = []
    for index, gains in enumerate(sets):
        rng = np.random.default_rng((seed, index))
        points = _points(gains.conditions[condition])
        lengths = {len(values) for point in points for values in point.samples.values()}
        order = rng.permutation(max(lengths, default=0))
        joined += [
            _Point(point.row, {key: values[order] for key, values in point.samples.items()})
            for point in points
        ]
    return joined


def _over_points(
    points: Sequence[_Point], scope: Scope, set_name: str, condition: str
) -> Iterator[Correlation]:
    derainers = [point for point in points if not point.row.control]
    populations = [(POPULATIONS[0], derainers)]
    if len(derainers) < len(points):
        populations.append((POPULATIONS[1], list(points)))
    for population, chosen in populations:
        for restoration in RESTORATION:
            for detection in DETECTION:
                correlation = Correlation(
                    scope=scope,
                    set_name=set_name,
                    condition=condition,
                    points=population,
                    restoration=restoration,
                    detection=detection,
                )
                yield _correlate_points(correlation, chosen)


def _correlate_points(correlation: Correlation, points: Sequence[_Point]) -> Correlation:
    samples, restored, detected = [], [], []
    grid: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        x = point.row.gains[correlation.restoration].value
        y = point.row.gains[correlation.detection].value
        if x is not None and y is not None:
            samples.append(point.samples)
            restored.append(x)
            detected.append(y)
            grid.setdefault(point.row.derainer, []).append((x, y))

    def resampled(kind: Kind) -> FloatArray:
        x = np.stack([gains[correlation.restoration] for gains in samples], axis=1)
        y = np.stack([gains[correlation.detection] for gains in samples], axis=1)
        return resampled_points(x, y, kind)

    points_xy = np.array(restored), np.array(detected)
    done = _correlated(correlation, *points_xy, resampled if all(samples) else None)
    return replace(done, derainers=len(grid), p_value=_p_value(done, grid))


def _p_value(
    correlation: Correlation, grid: Mapping[str, Sequence[tuple[float, float]]]
) -> float | None:
    """Return the p of Spearman's coefficient; `grid` holds each derainer's points, set by set."""
    complete = len({len(own) for own in grid.values()}) == 1
    known = correlation.coefficients["spearman"].value is not None
    if correlation.points != POPULATIONS[0] or not complete or not known:
        return None
    x, y = np.array(list(grid.values())).transpose(2, 1, 0)
    return permutation_p(x, y)


def _over_images(gains: SetGains, condition: str, members: ConditionGains) -> Iterator[Correlation]:
    for derainer, images in gains.images.items():
        y = images.detection[members.positions]
        for restoration in RESTORATION:
            x = images.restoration(restoration)[members.positions]
            correlation = Correlation(
                scope="images",
                set_name=gains.name,
                condition=condition,
                derainer=derainer,
                points="images",
                restoration=restoration,
                detection="delta_f1",
            )
            yield _correlate_images(correlation, x, y, members.weights)


def _correlate_images(
    correlation: Correlation, x: FloatArray, y: FloatArray, weights: FloatArray | None
) -> Correlation:
    defined = np.isfinite(x)
    x, y = x[defined], y[defined]
    if weights is None:
        return _correlated(correlation, x, y, None)
    weights = weights[:, defined]
    weights = weights[weights.sum(axis=1) > 0]
    return _correlated(correlation, x, y, lambda kind: resampled_weights(x, y, weights, kind))


def _correlated(
    correlation: Correlation,
    x: FloatArray,
    y: FloatArray,
    resampled: Callable[[Kind], FloatArray] | None,
) -> Correlation:
    """Return the correlation with the coefficients of points (N,), and intervals if resampled."""
    note = _obstacle(x, y)
    if note:
        return replace(correlation, count=len(x), note=note)
    scores = {}
    for kind in KINDS:
        ends = interval_of(resampled(kind)) if resampled else None
        scores[kind] = Score(coefficient(x, y, kind), *(ends or ()))
    if resampled is None:
        note = _NO_RESAMPLES
    elif not all(score.has_interval for score in scores.values()):
        note = _TOO_FEW_RESAMPLES
    return replace(correlation, count=len(x), coefficients=scores, note=note)


def _obstacle(x: FloatArray, y: FloatArray) -> str:
    """Return why the points have no correlation; empty if they have one."""
    if len(x) < FEWEST:
        return f"{len(x)} point{'' if len(x) == 1 else 's'}: a correlation needs {FEWEST}"
    if is_constant(x):
        return "the restoration gain is the same at all points"
    if is_constant(y):
        return "the detection gain is the same at all points"
    return ""
