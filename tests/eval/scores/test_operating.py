"""Operating points must be the counts that stand beside them, and their choice must be right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.scores.bootstrap import draw_weights
from eval.scores.coco import Evaluation
from eval.scores.operating import Point, operate, sweep
from tests.eval.scores.test_coco import random_case

EVERY = np.ones(12, bool)


def sweeps(seed, conf=0.25):
    """Return two rows of one truth with their sweeps."""
    truth, results = random_case(seed)
    rows = [
        Evaluation(truth, [{**r, "score": round(r["score"] * f, 2)} for r in results[start:]])
        for f, start in ((1.0, 0), (0.7, 9))
    ]
    return rows, [sweep(row, conf) for row in rows]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), conf=st.floats(0.05, 0.95))
def test_every_point_is_what_counting_at_its_confidence_gives(seed, conf):
    rows, (before, after) = sweeps(seed, conf)
    inside = np.arange(12) < 9
    found = operate(after, before, inside, None)
    points = [found.at, found.best, *([found.equal] if found.equal else [])]
    points += [found.curve.point(k) for k in (0, 40, len(found.curve.confs) - 1)]
    for point in points:
        counts = rows[1].counts(range(9), point.conf)
        assert (point.found, point.false, point.missed) == (counts.tp, counts.fp, counts.fn)
    assert found.at.conf == conf


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_equal_false_alarms_are_the_most_that_the_reference_allows(seed):
    _, (before, after) = sweeps(seed)
    found = operate(after, before, EVERY, None)
    limit = operate(before, None, EVERY, None).at.false
    allowed = [k for k, false in enumerate(found.curve.false) if false <= limit]
    if allowed:
        assert found.equal == found.curve.point(allowed[0])
    else:
        assert found.equal is None
    assert found.best.f1 == pytest.approx(np.nanmax(found.curve.f1))


def test_a_row_against_itself_changes_nothing_in_any_resample():
    _, (row, _) = sweeps(3)
    found = operate(row, row, EVERY, draw_weights(12, 50, 0))
    assert (found.change_f1.value, found.change_f1.low, found.change_f1.high) == (0, 0, 0)
    assert (found.change_best_f1.low, found.change_best_f1.high) == (0, 0)
    assert found.change_recall.low >= 0  # a lower confidence may have as few false alarms


def test_intervals_are_paired_and_hold_the_change():
    _, (before, after) = sweeps(5)
    found = operate(after, before, EVERY, draw_weights(12, 200, 0))
    for change in (found.change_f1, found.change_recall, found.change_best_f1):
        assert change.low <= change.value <= change.high
    assert found.change_f1.value == pytest.approx(
        found.at.f1 - operate(before, None, EVERY, None).at.f1
    )


def test_nothing_to_find_and_nothing_found_has_no_f1():
    _, (before, after) = sweeps(1)
    found = operate(after, before, np.zeros(12, bool), None)
    assert found.at == Point(0.25, 0, 0, 0)
    assert found.at.f1 is None
    assert found.change_f1.value is None
    assert np.isnan(found.curve.precision).all()
