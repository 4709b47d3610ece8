"""Correlation of restoration gain with detection gain: over derainers, over sets, over images.

| scope | a point is | resampled are |
| --- | --- | --- |
| `set` | a derainer on one set | the images of the set |
| `pooled` | a derainer on a set, all sets | the images of each set, independently |
| `images` | an image of one set, one derainer | the images |

An interval says how much a coefficient hangs on which images were drawn, not on which derainers
were chosen. Controls are points of their own population: the identity has both gains zero by
construction, so it draws every relation through the origin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.relation.coefficients import (
    KINDS,
    Kind,
    coefficient,
    is_constant,
    resampled_points,
    resampled_weights,
)
from eval.relation.gains import DETECTION, RESTORATION, ConditionGains, SetGains, interval_of

__all__ = ["FEWEST", "POPULATIONS", "correlate"]

FloatArray = npt.NDArray[np.float64]

FEWEST = 3
"""Fewest points of a correlation: two always lie on a line."""

POPULATIONS = ("derainers", "derainers and controls")
"""Which points a correlation over derainers takes."""

_NO_INTERVAL = "no interval: fewer than 95 % of the resamples define a coefficient"


@dataclass(frozen=True)
class _Point:
    """A derainer on a set: its row, and its gains in each resample (none: no interval)."""

    row: Mapping[str, Any]
    samples: Mapping[str, FloatArray]


def correlate(
    sets: Sequence[SetGains],
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Return every correlation as a flat row, pooled ones first.

    Args:
        sets: The gains of each set.
        seed: Resamples of different sets are joined in an order that depends on it.
        progress: Called with the steps done and their number.

    Returns:
        Rows with `scope`, `set`, `condition`, `derainer`, `points`, `restoration`, `detection`,
        `n`, each coefficient with `_low` and `_high`, and `note`: why one is missing.
    """
    steps = [*_pooled(sets, seed)]
    for one in sets:
        for condition, gains in one.conditions.items():
            place = {"scope": "set", "set": one.name, "condition": condition}
            steps.append(_over_points(_points(gains), place))
    for one in sets:
        steps += [_over_images(one, name, gains) for name, gains in one.conditions.items()]
    table: list[dict[str, Any]] = []
    for done, step in enumerate(steps, start=1):
        table += step  # generators: the work is done here
        progress(done, len(steps))
    return table


def _pooled(sets: Sequence[SetGains], seed: int) -> Iterator[Iterator[dict[str, Any]]]:
    """Yield the rows of each condition that several sets have."""
    for condition in dict.fromkeys(name for one in sets for name in one.conditions):
        members = [one for one in sets if condition in one.conditions]
        if len(members) > 1:
            place = {"scope": "pooled", "set": "", "condition": condition}
            yield _over_points(_joined(members, condition, seed), place)


def _points(gains: ConditionGains) -> list[_Point]:
    return [_Point(row, gains.samples[row["derainer"]]) for row in gains.rows]


def _joined(members: Sequence[SetGains], condition: str, seed: int) -> list[_Point]:
    """Put the points of several sets together, their resamples in independent order.

    All sets are resampled with one seed. Sets of equal size would then draw the same positions in
    the same resample; shuffling whole resamples per set takes away what they have in common.
    """
    joined = []
    for index, one in enumerate(members):
        rng = np.random.default_rng((seed, index))
        points = _points(one.conditions[condition])
        lengths = {len(values) for point in points for values in point.samples.values()}
        order = rng.permutation(max(lengths, default=0))
        joined += [
            _Point(point.row, {key: values[order] for key, values in point.samples.items()})
            for point in points
        ]
    return joined


def _over_points(points: Sequence[_Point], place: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    derainers = [point for point in points if not point.row["control"]]
    populations = [(POPULATIONS[0], derainers)]
    if len(derainers) < len(points):
        populations.append((POPULATIONS[1], list(points)))
    for population, chosen in populations:
        for restoration in RESTORATION:
            for detection in DETECTION:
                yield {
                    **place,
                    "derainer": "",
                    "points": population,
                    "restoration": restoration,
                    "detection": detection,
                    **_correlate_points(chosen, restoration, detection),
                }


def _correlate_points(points: Sequence[_Point], restoration: str, detection: str) -> dict[str, Any]:
    defined = [
        point
        for point in points
        if point.row[restoration] is not None and point.row[detection] is not None
    ]
    x = np.array([point.row[restoration] for point in defined], dtype=np.float64)
    y = np.array([point.row[detection] for point in defined], dtype=np.float64)
    reason = _obstacle(x, y)
    if reason:
        return _empty(len(x), reason)
    samples = None
    if all(point.samples for point in defined):
        drawn_x = np.stack([point.samples[restoration] for point in defined], axis=1)
        drawn_y = np.stack([point.samples[detection] for point in defined], axis=1)
        samples = {kind: resampled_points(drawn_x, drawn_y, kind) for kind in KINDS}
    return _filled(x, y, samples)


def _over_images(one: SetGains, condition: str, gains: ConditionGains) -> Iterator[dict[str, Any]]:
    for derainer, images in one.images.items():
        y = images.detection[gains.positions]
        for restoration in RESTORATION:
            x = images.restoration(restoration)[gains.positions]
            yield {
                "scope": "images",
                "set": one.name,
                "condition": condition,
                "derainer": derainer,
                "points": "images",
                "restoration": restoration,
                "detection": "delta_f1",
                **_correlate_images(x, y, gains.weights),
            }


def _correlate_images(x: FloatArray, y: FloatArray, weights: FloatArray | None) -> dict[str, Any]:
    defined = np.isfinite(x)
    x, y = x[defined], y[defined]
    reason = _obstacle(x, y)
    if reason:
        return _empty(len(x), reason)
    samples = None
    if weights is not None:
        drawn = weights[:, defined]
        drawn = drawn[drawn.sum(axis=1) > 0]
        samples = {kind: resampled_weights(x, y, drawn, kind) for kind in KINDS}
    return _filled(x, y, samples)


def _obstacle(x: FloatArray, y: FloatArray) -> str:
    """Say why points have no correlation; empty if they have one."""
    if len(x) < FEWEST:
        return f"{len(x)} point{'' if len(x) == 1 else 's'}: a correlation needs {FEWEST}"
    if is_constant(x):
        return "the restoration gain is the same at all points"
    if is_constant(y):
        return "the detection gain is the same at all points"
    return ""


def _empty(count: int, note: str) -> dict[str, Any]:
    values = {f"{kind}{end}": None for kind in KINDS for end in ("", "_low", "_high")}
    return {"n": count, **values, "note": note}


def _filled(
    x: FloatArray, y: FloatArray, samples: Mapping[Kind, FloatArray] | None
) -> dict[str, Any]:
    values: dict[str, float | None] = {}
    note = "" if samples else "no interval: no resamples, or a set with a single image"
    for kind in KINDS:
        ends = interval_of(samples[kind]) if samples else None
        if samples and ends is None:
            note = _NO_INTERVAL
        low, high = ends or (None, None)
        values |= {kind: coefficient(x, y, kind), f"{kind}_low": low, f"{kind}_high": high}
    return {"n": len(x), **values, "note": note}
