"""What holds and what flickers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detection.types import Detections
from eval.footage.tracks import collect_tracks, measure_steadiness

CONF, FPS = 0.25, 10


def shot(count, *things):
    """Detections and numbers of tracks: things are (frames, left, label), scores 0.8 or below."""
    frames, numbers = [], []
    for n in range(count):
        here = [(k, left, label) for k, (seen, left, label, *_) in enumerate(things) if n in seen]
        weak = [bool(things[k][3:]) and n in things[k][3] for k, _, _ in here]
        frames.append(
            Detections(
                [[left, 0, left + 10, 10] for _, left, _ in here],
                [0.1 if is_weak else 0.8 for is_weak in weak],
                [label for _, _, label in here],
            )
        )
        numbers.append(np.array([k for k, _, _ in here], np.int64))
    return frames, numbers


def measured(count, *things):
    frames, numbers = shot(count, *things)
    tracks = collect_tracks(frames, numbers, CONF)
    return measure_steadiness(frames, tracks, [n / FPS for n in range(count)], CONF)


def test_what_lasts_half_a_second_is_steady():
    steadiness = measured(12, (range(0, 5), 0, 0), (range(0, 4), 50, 0), (range(6, 12), 0, 1))
    assert steadiness.detections.tolist() == [2, 2, 2, 2, 1, 0, 1, 1, 1, 1, 1, 1]
    assert steadiness.steady.tolist() == [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
    assert np.allclose(steadiness.lengths_s, [0.5, 0.4, 0.6])
    assert steadiness.starts.tolist() == [0, 0, 6]
    assert not steadiness.flicker.any()
    assert not steadiness.breaks.any()


def test_flicker_is_a_single_frame_seen_or_missed():
    steadiness = measured(10, ({*range(10)} - {4}, 0, 0), ({6}, 50, 0), ({0}, 80, 0), ({9}, 80, 0))
    assert np.flatnonzero(steadiness.flicker).tolist() == [4, 6]
    assert not steadiness.breaks.any()


def test_a_weak_frame_is_a_gap():
    steadiness = measured(10, (range(10), 0, 0, {5}))
    assert np.flatnonzero(steadiness.flicker).tolist() == [5]
    assert steadiness.detections[5] == 0


def test_breaks_are_longer_gaps_and_tracks_that_begin_where_one_ended():
    steadiness = measured(
        30,
        ({*range(0, 8), *range(11, 20)}, 0, 0),  # gone for three frames
        (range(0, 10), 50, 0),
        (range(12, 20), 55, 0),  # the same thing again, under another number
        (range(12, 20), 52, 1),  # of another class
        (range(22, 30), 90, 0),  # elsewhere
    )
    assert np.flatnonzero(steadiness.breaks).tolist() == [8, 12]
    assert not steadiness.flicker.any()


def test_each_track_is_continued_once():
    steadiness = measured(20, (range(0, 8), 0, 0), (range(9, 20), 1, 0), (range(9, 20), 3, 0))
    assert steadiness.breaks.sum() == 1


@given(st.lists(st.tuples(st.sets(st.integers(0, 11)), st.integers(0, 5)), max_size=4))
def test_counts_add_up(things):
    steadiness = measured(12, *((seen, 20 * left, 0) for seen, left in things))
    assert steadiness.detections.sum() == sum(len(seen) for seen, _ in things)
    assert (steadiness.steady <= steadiness.detections).all()
    assert (steadiness.lengths_s > 0.15).all()
    assert len(steadiness.starts) == sum(len(seen) > 1 for seen, _ in things)


def test_one_frame_and_nothing_followed():
    frames, _ = shot(1, ({0}, 0, 0))
    steadiness = measure_steadiness(frames, [], [0.0], CONF)
    assert steadiness.detections.tolist() == [1]
    assert len(steadiness.starts) == 0
