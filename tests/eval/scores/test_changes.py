"""What changed from one row to another, on tiny images."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.scores.changes import compare_rows, rank_changes, tabulate_changes
from eval.scores.coco import Evaluation
from tests.eval.scores.test_errors import BUS, CAR, NAMES, SQUARE, crowded_case, result, truth_of

FAR, LARGE = (50, 0, 10, 10), (100, 0, 100, 100)


def changes_between(truth, before, after):
    rows = [
        Evaluation(truth, [result(*detection) for detection in detections])
        for detections in (before, after)
    ]
    return compare_rows(*rows, 0.25)


def test_equal_rows_have_no_change():
    detections = [(CAR, SQUARE), (CAR, (300, 0, 5, 5))]
    (change,) = changes_between(truth_of((CAR, SQUARE)), detections, detections)
    assert not change.found + change.lost + change.background_gained + change.background_removed
    assert (change.gain, change.false) == (0, 0)


def test_objects_found_and_lost_are_told_apart():
    """As many as before are found, but not the same ones."""
    truth = truth_of((CAR, SQUARE), (CAR, LARGE), (BUS, FAR))
    (change,) = changes_between(
        truth, [(CAR, SQUARE), (BUS, FAR)], [(BUS, FAR), (CAR, LARGE), (CAR, SQUARE, 0.2)]
    )
    assert [a["id"] for a in change.found] == [2]
    assert [a["id"] for a in change.lost] == [1]
    assert change.gain == 0


@pytest.mark.parametrize(
    ("moved", "gained", "removed"),
    [
        ((CAR, (300, 0, 10, 9)), 0, 0),  # the same one, IoU 0.9
        ((CAR, (306, 0, 10, 10)), 1, 1),  # IoU 0.25: another one
        ((BUS, (300, 0, 10, 10)), 1, 1),  # another class
        ((CAR, (0, 0, 10, 9)), 0, 1),  # now it is a true one
    ],
)
def test_background_detections_are_followed_from_row_to_row(moved, gained, removed):
    truth = truth_of((CAR, SQUARE), (BUS, FAR))
    (change,) = changes_between(truth, [(CAR, (300, 0, 10, 10))], [moved])
    assert len(change.background_gained) == gained
    assert len(change.background_removed) == removed


def test_one_background_detection_is_the_partner_of_one_only():
    truth = truth_of((CAR, SQUARE))
    after = [(CAR, (300, 0, 10, 9), 0.9), (CAR, (300, 0, 10, 10), 0.8)]
    (change,) = changes_between(truth, [(CAR, (300, 0, 10, 10))], after)
    assert [d["score"] for d in change.background_gained] == [0.9]
    assert not change.background_removed
    assert change.false == 1


def test_table_of_changes():
    truth = truth_of((CAR, SQUARE), (CAR, LARGE), (BUS, FAR), images=(7, 8))
    changes = changes_between(
        truth,
        [(CAR, SQUARE), (BUS, (300, 0, 40, 40))],
        [(CAR, LARGE), (BUS, FAR), (CAR, (300, 300, 20, 20), 0.9, 8)],
    )
    rows = tabulate_changes(changes, {"all": [7, 8], "night": [8]}, NAMES)
    assert len(rows) == 2 * (4 + 2)
    counts = {
        (r.condition, r.class_name, r.size): (
            r.found,
            r.lost,
            r.background_gained,
            r.background_removed,
        )
        for r in rows
    }
    assert counts["all", "all", "all"] == (2, 1, 1, 1)
    assert counts["all", "all", "small"] == (1, 1, 1, 0)
    assert counts["all", "all", "medium"] == (0, 0, 0, 1)
    assert counts["all", "all", "large"] == (1, 0, 0, 0)
    assert counts["all", "car", "all"] == (1, 1, 1, 0)
    assert counts["all", "bus", "all"] == (1, 0, 0, 1)
    assert counts["night", "all", "all"] == (0, 0, 1, 0)


def test_ranking_goes_from_the_best_improvement_to_the_worst_regression():
    objects = [(CAR, SQUARE, {"image_id": i}) for i in range(5)]
    truth = truth_of(*objects, images=tuple(range(5)))
    at = {image_id: (CAR, SQUARE, 0.9, image_id) for image_id in range(5)}
    noise = (CAR, (300, 0, 5, 5), 0.9, 1)
    # 0 lost, 1 only a false alarm more, 2 and 4 unchanged, 3 found
    ranked = rank_changes(
        changes_between(truth, [at[0], at[1], at[2]], [at[1], noise, at[2], at[3]])
    )
    assert [change.image_id for change in ranked] == [3, 2, 4, 1, 0]
    assert [change.gain for change in ranked] == [1, 0, 0, 0, -1]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_changes_are_the_differences_of_the_counts(seed):
    truth, results = crowded_case(seed)
    before, after = Evaluation(truth, results[::2]), Evaluation(truth, results[1::2])
    changes = compare_rows(before, after, 0.3)
    counts = [row.counts(truth.image_ids, 0.3) for row in (before, after)]
    assert sum(change.gain for change in changes) == counts[1]["tp"] - counts[0]["tp"]
    assert sum(change.false for change in changes) == counts[1]["fp"] - counts[0]["fp"]
    back = compare_rows(after, before, 0.3)
    assert [(c.found, c.lost) for c in changes] == [(c.lost, c.found) for c in back]
    assert rank_changes(reversed(changes)) == rank_changes(changes)
