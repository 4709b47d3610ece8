"""What deraining changed in one frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection.types import Detections
from eval.footage.matching import compare_frame, count_bands, union

CONF = 0.25


def boxes(*rows):
    """Detections from (left, score, label) of squares of 10 pixels."""
    return Detections(
        [[left, 0, left + 10, 10] for left, _, _ in rows],
        [score for _, score, _ in rows],
        [label for _, _, label in rows],
    )


ANY = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from([0.1, 0.3, 0.6, 0.9]), st.integers(0, 1)),
    max_size=6,
).map(lambda rows: boxes(*rows))


def test_gained_lost_and_what_moved_across_the_threshold():
    rainy = boxes((0, 0.9, 0), (20, 0.2, 0), (40, 0.6, 0), (60, 0.3, 0), (80, 0.9, 0))
    derained = boxes((1, 0.8, 0), (20, 0.5, 0), (40, 0.6, 1), (60, 0.1, 0), (100, 0.7, 0))
    change = compare_frame(rainy, derained, CONF)
    assert list(change.kept) == [(0, 0)]
    assert list(change.gained) == [1, 2, 4]
    assert list(change.raised) == [1]
    assert list(change.lost) == [2, 3, 4]
    assert list(change.lowered) == [3]
    assert change.united == 7


def test_a_sure_partner_goes_before_a_weak_one_that_fits_better():
    rainy = boxes((0, 0.9, 0))
    derained = boxes((0, 0.1, 0), (2, 0.8, 0))
    assert list(compare_frame(rainy, derained, CONF).kept) == [(0, 1)]


@given(ANY, ANY)
def test_every_sure_detection_is_counted_once(rainy, derained):
    change = compare_frame(rainy, derained, CONF)
    kept = list(change.kept)
    assert (
        sorted([*(i for i, _ in kept), *change.lost])
        == np.flatnonzero(rainy.scores >= CONF).tolist()
    )
    assert (
        sorted([*(j for _, j in kept), *change.gained])
        == np.flatnonzero(derained.scores >= CONF).tolist()
    )
    assert set(change.raised) <= set(change.gained)
    assert set(change.lowered) <= set(change.lost)
    both = union(rainy, derained, change)
    assert len(both) == change.united
    assert (both.scores >= np.float32(CONF)).all()
    assert (np.diff(both.scores) <= 0).all()
    bands = count_bands([(rainy, derained, change)], CONF)
    assert sum(band.rainy for band in bands) == len(kept) + len(change.lost)
    assert sum(band.derained for band in bands) == len(kept) + len(change.gained)
    assert sum(band.gained for band in bands) == len(change.gained)


@given(ANY)
def test_nothing_changes_between_equal_frames(detections):
    change = compare_frame(detections, detections, CONF)
    assert not change.gained
    assert not change.lost


def test_bands_hold_their_lower_edge_and_the_last_one_its_upper():
    found = boxes((0, 0.25, 0), (20, 0.5, 0), (40, 0.75, 0), (60, 1.0, 0))
    change = compare_frame(Detections(), found, CONF)
    bands = count_bands([(Detections(), found, change)], CONF)
    assert [(band.low, band.high, band.gained) for band in bands] == [
        (0.25, 0.5, 1), (0.5, 0.75, 1), (0.75, 1.0, 2),
    ]  # fmt: skip


def test_union_takes_the_better_box_of_a_pair():
    rainy, derained = boxes((0, 0.5, 0)), boxes((3, 0.9, 0))
    both = union(rainy, derained, compare_frame(rainy, derained, CONF))
    assert both.boxes_xyxy.tolist() == [[3, 0, 13, 10]]
    assert both.scores.tolist() == [pytest.approx(0.9)]
