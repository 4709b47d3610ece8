"""Ratios of sums over frames, and their bootstrap over blocks of time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.footage.measures import MEASURES, Rules, Series, compare_series, cut_blocks
from eval.scores.score import Score

RULES = Rules(conf=0.25, resamples=200)


def series(detections, *, tracked=1, steady=None, flicker=0, breaks=0, tracks=()):
    count = len(detections)
    return Series(
        np.asarray(detections),
        np.full(count, tracked),
        np.asarray(detections if steady is None else steady),
        np.broadcast_to(flicker, count).astype(np.int64),
        np.broadcast_to(breaks, count).astype(np.int64),
        np.array([start for start, _ in tracks], np.int64),
        np.array([length for _, length in tracks], np.float64),
    )


def test_values_are_ratios_of_sums():
    own = series([1, 3, 0, 4], steady=[1, 2, 0, 1], flicker=[0, 1, 1, 0], breaks=[0, 0, 2, 0],
                 tracks=[(0, 0.2), (1, 0.4), (1, 0.9)])  # fmt: skip
    values, changes = compare_series(own, own, np.arange(4), RULES)
    assert values == {
        "per_frame": 2.0, "steady_per_frame": 1.0, "flicker": 25.0, "breaks": 25.0, "track_s": 0.4,
    }  # fmt: skip
    assert values.keys() == {measure.key for measure in MEASURES}
    assert set(changes.values()) == {Score()}


def test_nothing_to_divide_by_is_undefined():
    none = series([0, 0], tracked=0)
    values, _ = compare_series(none, none, np.arange(2), RULES)
    assert values["per_frame"] == 0.0
    assert {values[key] for key in ("steady_per_frame", "flicker", "breaks", "track_s")} == {None}


def test_a_constant_difference_is_certain_and_a_difference_in_one_block_is_not():
    rng = np.random.default_rng(0)
    before = rng.integers(0, 9, 120)
    blocks = np.arange(120) // 10
    _, changes = compare_series(series(before), series(before + 2), blocks, RULES)
    change = changes["per_frame"]
    assert (change.value, change.low, change.high) == pytest.approx((2.0, 2.0, 2.0))
    after = before.copy()
    after[30:40] += 5
    _, changes = compare_series(series(before), series(after), blocks, RULES)
    assert changes["per_frame"].value == pytest.approx(5 / 12)
    assert changes["per_frame"].low == pytest.approx(0.0)


def test_blocks_of_alike_frames_make_the_interval_wide():
    """What comes in runs is counted as often as there are runs, not frames."""
    noise = np.random.default_rng(1).integers(-3, 4, 20)
    before = series([5] * 400)
    after = series(np.repeat(5 + noise, 20))
    widths = []
    for blocks in (np.arange(400), np.arange(400) // 20):
        _, changes = compare_series(before, after, blocks, RULES)
        widths.append(changes["per_frame"].high - changes["per_frame"].low)
    assert widths[1] > 3 * widths[0]


def test_few_blocks_give_no_interval():
    own, other = series([1] * 70), series([2] * 70)
    _, changes = compare_series(own, other, np.arange(70) // 10, RULES)
    assert changes["per_frame"] == Score(1.0)


def test_blocks_do_not_cross_shots_and_stills_stand_for_themselves():
    blocks = cut_blocks(
        [0, 0, 0, 1, 1, 2, 2], [True] * 5 + [False] * 2, [0, 0.5, 1.2, 0, 0.3, 0, 0], 1.0
    )
    assert blocks.tolist() == [0, 0, 1, 2, 2, 3, 4]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20)), min_size=1, max_size=15))
def test_the_median_is_that_of_numpy(tracks):
    own = series([1] * 10, tracks=[(start, length / 10) for start, length in tracks])
    values, _ = compare_series(own, own, np.arange(10), RULES)
    lengths = [length / 10 for _, length in tracks]
    assert values["track_s"] == np.quantile(lengths, 0.5, method="inverted_cdf")


def test_selected_frames_keep_their_tracks():
    own = series([1, 2, 3, 4], tracks=[(0, 0.1), (2, 0.2), (3, 0.3)])
    part = own.select(np.array([2, 3]))
    assert part.detections.tolist() == [3, 4]
    assert part.starts.tolist() == [0, 1]
    assert part.lengths_s.tolist() == [0.2, 0.3]
