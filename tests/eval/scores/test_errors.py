"""Errors by kind: worked by hand on tiny images, and what must hold on any."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.scores.coco import Evaluation, GroundTruth
from eval.scores.errors import KINDS, break_down, correct, find_errors, repaired_ap50
from tests.eval.scores.test_coco import random_case

CAR, BUS = 1, 2
NAMES = {CAR: "car", BUS: "bus"}


def truth_of(*objects, images=(7,), names=NAMES):
    """Objects are (category, box) or (category, box, more); all in the first image."""
    annotations = []
    for category, box, *more in objects:
        annotation = {
            "id": len(annotations) + 1,
            "image_id": images[0],
            "category_id": category,
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        annotations.append(annotation | (more[0] if more else {}))
    return GroundTruth(tuple(images), names, tuple(annotations))


def result(category, box, score=0.9, image_id=7):
    return {"image_id": image_id, "category_id": category, "bbox": list(box), "score": score}


def kinds_of(truth, results, conf=0.25):
    evaluation = Evaluation(truth, results)
    return [error.kind for error in find_errors(evaluation.image_matches(7, conf))]


SQUARE = (0, 0, 10, 10)

CASES = {
    # name: objects, detections, errors
    "nothing at all": ([], [], []),
    "found": ([(CAR, SQUARE)], [(CAR, (0, 0, 10, 9))], []),
    "missed": ([(CAR, SQUARE)], [], ["missed"]),
    # IoU 0.4 = 4 / 10; the object could be found by this detection, so it is not missed
    "localisation": ([(CAR, SQUARE)], [(CAR, (0, 0, 10, 4))], ["localisation"]),
    "localisation at 0.1": ([(CAR, SQUARE)], [(CAR, (0, 0, 10, 1))], ["localisation"]),
    "found at 0.5": ([(CAR, SQUARE)], [(CAR, (0, 0, 10, 5))], []),
    "classification": (
        [(CAR, SQUARE), (BUS, (50, 0, 10, 10))],
        [(BUS, (0, 0, 10, 8)), (BUS, (50, 0, 10, 10))],
        ["classification"],
    ),
    # another class, and IoU 0.4: mending one thing is not enough
    "both": (
        [(CAR, SQUARE), (BUS, (50, 0, 10, 10))],
        [(BUS, (0, 0, 10, 4)), (BUS, (50, 0, 10, 10))],
        ["both", "missed"],
    ),
    "duplicate": ([(CAR, SQUARE)], [(CAR, SQUARE), (CAR, (0, 0, 10, 8), 0.8)], ["duplicate"]),
    "background": ([(CAR, SQUARE)], [(CAR, SQUARE), (CAR, (30, 30, 5, 5))], ["background"]),
    # IoU 0.09 = 9 / 100 with the only object
    "background below 0.1": (
        [(CAR, SQUARE)],
        [(CAR, SQUARE), (CAR, (0, 0, 3, 3), 0.8)],
        ["background"],
    ),
    "background without objects of the image": (
        [(CAR, SQUARE, {"image_id": 8})],
        [(CAR, SQUARE)],
        ["background"],
    ),
    # 0.4 with its own class goes before 0.6 with another one
    "localisation before classification": (
        [(CAR, (0, 0, 10, 4)), (BUS, (0, 0, 10, 6))],
        [(CAR, SQUARE), (BUS, (0, 0, 10, 6))],
        ["localisation"],
    ),
    "crowds are neither found nor missed": ([(CAR, SQUARE), (CAR, SQUARE, {"iscrowd": 1})],
        [(CAR, SQUARE), (CAR, (0, 0, 10, 9), 0.8)], []),
    # its part within the crowd is 0.4 of its area: not ignored, and the crowd is no object
    "a false detection beside a crowd": (
        [(CAR, (50, 0, 10, 10)), (CAR, SQUARE, {"iscrowd": 1})],
        [(CAR, (50, 0, 10, 10)), (CAR, (6, 0, 10, 10))],
        ["background"],
    ),
    "too unsure to count": ([(CAR, SQUARE)], [(CAR, SQUARE, 0.2)], ["missed"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_kinds_worked_by_hand(name):
    objects, detections, expected = CASES[name]
    truth = truth_of(*objects, images=(7, 8))
    assert kinds_of(truth, [result(*detection) for detection in detections]) == expected


def mended(objects, detections, *kinds):
    """Return (category, box) of the detections left, ids of objects taken out, and AP50."""
    truth = truth_of(*objects)
    evaluation = Evaluation(truth, [result(*detection) for detection in detections])
    matches = evaluation.image_matches(7, 0.0)
    left, out = correct(matches, find_errors(matches), set(kinds))
    after = repaired_ap50(evaluation, set(kinds), [[7]])[0][:, 0]
    return [(d["category_id"], tuple(d["bbox"])) for d in left], set(out), after.tolist()


def test_a_localisation_error_gets_the_objects_box():
    left, out, ap50 = mended([(CAR, SQUARE)], [(CAR, (0, 0, 10, 4))], "localisation")
    assert (left, out, ap50) == ([(CAR, SQUARE)], set(), [pytest.approx(1)])


def test_a_classification_error_gets_the_objects_class_and_keeps_its_box():
    objects = [(CAR, SQUARE), (BUS, (50, 0, 10, 10))]
    detections = [(BUS, (0, 0, 10, 8)), (BUS, (50, 0, 10, 10), 0.8)]
    left, _, ap50 = mended(objects, detections, "classification")
    assert left == [(CAR, (0, 0, 10, 8)), (BUS, (50, 0, 10, 10))]
    assert ap50 == [pytest.approx(1), pytest.approx(1)]
    # before: no car found, and the better bus is a false one
    evaluation = Evaluation(truth_of(*objects), [result(*d) for d in detections])
    assert evaluation.ap50([7])[:, 0].tolist() == [0, pytest.approx(0.5)]


@pytest.mark.parametrize("kind", ["both", "duplicate", "background"])
def test_other_false_detections_are_taken_out(kind):
    objects, detections, expected = CASES[kind]
    assert kind in expected
    left, out, _ = mended(objects, detections, kind)
    assert len(left) == len(detections) - 1
    assert not out


def test_missed_objects_leave_the_truth():
    objects = [(CAR, SQUARE), (CAR, (50, 0, 10, 10)), (BUS, (80, 0, 10, 10))]
    left, out, ap50 = mended(objects, [(CAR, SQUARE)], "missed")
    assert left == [(CAR, SQUARE)]
    assert out == {2, 3}
    # half of the cars were found, all that are left; no bus is left to be found
    assert ap50 == [pytest.approx(1), pytest.approx(float("nan"), nan_ok=True)]


@pytest.mark.parametrize(("score", "kept"), [(0.95, (0, 0, 10, 10)), (0.5, (0, 0, 10, 9))])
def test_of_two_detections_of_one_object_the_better_one_stays(score, kept):
    """The badly placed one, moved onto the object, competes with the one that found it."""
    detections = [(CAR, (0, 0, 10, 9), 0.9), (CAR, (0, 0, 10, 4), score)]
    left, _, ap50 = mended([(CAR, SQUARE)], detections, "localisation")
    assert left == [(CAR, kept)]
    assert ap50 == [pytest.approx(1)]


def test_the_better_of_two_errors_of_one_object_stays():
    detections = [(CAR, (0, 0, 10, 3), 0.6), (CAR, (0, 0, 10, 4), 0.7)]
    assert mended([(CAR, SQUARE)], detections, "localisation")[0] == [(CAR, SQUARE)]


def test_rows_of_a_hand_made_image():
    truth = truth_of((CAR, SQUARE), (CAR, (100, 0, 100, 100)), (BUS, (0, 50, 40, 40)))
    results = [
        result(CAR, SQUARE, 0.9),
        result(CAR, (0, 200, 20, 20), 0.8),  # background
        result(BUS, (0, 50, 40, 15), 0.7),  # localisation: 15 / 40
        result(BUS, (300, 0, 40, 40), 0.1),  # background below the confidence
    ]
    rows = break_down(Evaluation(truth, results), {"all": [7]}, 0.25)
    by_key = {(r.class_name, r.size, r.kind): r for r in rows}
    assert len(by_key) == len(rows) == len(KINDS) * (4 + 2)
    counts = {key: r.count for key, r in by_key.items() if r.count}
    assert counts == {
        ("all", "all", "background"): 1,
        ("all", "small", "background"): 1,
        ("car", "all", "background"): 1,
        ("all", "all", "localisation"): 1,
        ("all", "medium", "localisation"): 1,
        ("bus", "all", "localisation"): 1,
        ("all", "all", "missed"): 1,
        ("all", "large", "missed"): 1,
        ("car", "all", "missed"): 1,
    }
    # 51 of the 101 recalls of cars are reached; nothing of buses
    assert by_key["car", "all", "missed"].ap50 == pytest.approx(51 / 101)
    assert by_key["all", "all", "missed"].ap50 == pytest.approx(51 / 202)
    delta = {kind: by_key["all", "all", kind].gain_ap50 for kind in KINDS}
    assert delta["localisation"] == pytest.approx(0.5)
    assert delta["missed"] == pytest.approx(50 / 202)
    assert delta["background"] == pytest.approx(0)  # worse than every correct detection
    assert delta["duplicate"] == delta["both"] == delta["classification"] == 0
    # the missed car was the only large object: its class of size has no AP without it
    assert by_key["all", "large", "missed"].ap50 == 0
    assert by_key["all", "large", "missed"].gain_ap50 is None


def test_a_condition_without_objects_has_counts_but_no_ap():
    truth = truth_of((CAR, SQUARE), images=(7, 8))
    rows = break_down(
        Evaluation(truth, [result(CAR, SQUARE, image_id=8)]), {"all": [7, 8], "dry": [8]}, 0.25
    )
    dry = [r for r in rows if r.condition == "dry" and (r.class_name, r.size) == ("all", "all")]
    assert [r.count for r in dry] == [int(kind == "background") for kind in KINDS]
    assert all(r.ap50 is None and r.gain_ap50 is None for r in dry)


def test_no_objects_and_no_detections():
    truth = GroundTruth((7,), NAMES, ())
    rows = break_down(Evaluation(truth, []), {"all": [7]}, 0.25)
    assert {(r.count, r.ap50, r.gain_ap50) for r in rows} == {(0, None, None)}


SEEDS = st.integers(0, 10_000)
CHEAP = settings(max_examples=12, deadline=None)


def crowded_case(seed):
    """Objects of several classes close together, so that every kind of error occurs."""
    truth, results = random_case(seed, images=6, classes=3)
    rng = np.random.default_rng(seed)
    for annotation in truth.annotations:
        box = annotation["bbox"]
        for _ in range(rng.integers(0, 3)):
            scale = float(rng.uniform(0.3, 1.1))
            results.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": int(rng.integers(0, 3)),
                    "bbox": [*box[:2], box[2] * scale, box[3]],
                    "score": round(float(rng.random()), 1),
                }
            )
    return truth, results


@CHEAP
@given(seed=SEEDS, conf=st.sampled_from([0.0, 0.3, 0.7]))
def test_kinds_partition_false_detections_and_missed_objects(seed, conf):
    truth, results = crowded_case(seed)
    evaluation = Evaluation(truth, results)
    for image_id in truth.image_ids:
        matches = evaluation.image_matches(image_id, conf)
        errors = find_errors(matches)
        wrong = [e.detection["id"] for e in errors if e.kind != "missed"]
        assert wrong == [d["id"] for d in matches.false]
        missed = [e.target["id"] for e in errors if e.kind == "missed"]
        mendable = {e.target["id"] for e in errors if e.kind in ("classification", "localisation")}
        lost = {a["id"] for a in matches.missed}
        assert set(missed) == lost - mendable
        assert len(missed) == len(set(missed))


@CHEAP
@given(seed=SEEDS)
def test_without_any_error_ap50_is_1(seed):
    truth, results = crowded_case(seed)
    evaluation = Evaluation(truth, results)
    after = repaired_ap50(evaluation, KINDS, [truth.image_ids])[0][:, 0]
    assert after[~np.isnan(after)] == pytest.approx(1.0)


@CHEAP
@given(seed=SEEDS)
def test_with_no_error_mended_ap50_stays(seed):
    truth, results = crowded_case(seed)
    evaluation = Evaluation(truth, results)
    matches = [evaluation.image_matches(i, 0.0) for i in evaluation.image_ids]
    left = [d for m in matches for d in correct(m, find_errors(m), ())[0]]
    same = Evaluation(truth, left).ap50(truth.image_ids)
    np.testing.assert_array_equal(same, evaluation.ap50(truth.image_ids))


@CHEAP
@given(seed=SEEDS, kinds=st.sets(st.sampled_from(KINDS), min_size=1))
def test_matching_only_what_was_corrected_equals_matching_all(seed, kinds):
    truth, results = crowded_case(seed)
    evaluation = Evaluation(truth, results)
    left, out = [], set()
    for image_id in evaluation.image_ids:
        matches = evaluation.image_matches(image_id, 0.0)
        detections, missed = correct(matches, find_errors(matches), kinds)
        left += detections
        out |= missed
    kept = tuple(a for a in truth.annotations if a["id"] not in out)
    whole = Evaluation(GroundTruth(truth.image_ids, truth.categories, kept), left)
    for group in (truth.image_ids, truth.image_ids[1::2]):
        expected = dict(zip(whole.category_ids, whole.ap50(group).tolist(), strict=True))
        (after,) = repaired_ap50(evaluation, kinds, [group])
        for category, values in zip(evaluation.category_ids, after, strict=True):
            np.testing.assert_array_equal(values, expected.get(category, [np.nan] * 4))


@CHEAP
@given(seed=SEEDS)
def test_the_order_of_images_has_no_effect(seed):
    truth, results = crowded_case(seed)
    # scores all differ: among equal ones COCOeval itself goes by the order of images
    results = [{**r, "score": (n + 1) / (len(results) + 1)} for n, r in enumerate(results)]
    conditions = {"all": truth.image_ids, "some": truth.image_ids[::2]}
    rows = break_down(Evaluation(truth, results), conditions, 0.3)
    mixed = random.Random(seed).sample(truth.image_ids, len(truth.image_ids))
    moved = GroundTruth(
        tuple(mixed),
        truth.categories,
        tuple(sorted(truth.annotations, key=lambda a: mixed.index(a["image_id"]))),
    )
    results.sort(key=lambda r: mixed.index(r["image_id"]))
    assert break_down(Evaluation(moved, results), conditions, 0.3) == rows


@CHEAP
@given(seed=SEEDS)
def test_counts_add_up_to_those_of_the_table(seed):
    truth, results = crowded_case(seed)
    evaluation = Evaluation(truth, results)
    rows = break_down(evaluation, {"all": truth.image_ids}, 0.3)
    totals = Counter()
    for row in rows:
        part = "class" if row.class_name != "all" else "size" if row.size != "all" else "all"
        totals[part, row.kind] += row.count
    for kind in KINDS:
        assert totals["all", kind] == totals["size", kind] == totals["class", kind]
    counts = evaluation.counts(truth.image_ids, 0.3)
    assert sum(totals["all", kind] for kind in KINDS if kind != "missed") == counts["fp"]
    assert totals["all", "missed"] <= counts["fn"]


def test_the_random_cases_have_errors_of_every_kind():
    seen = set()
    for seed in range(5):
        truth, results = crowded_case(seed)
        evaluation = Evaluation(truth, results)
        for image_id in truth.image_ids:
            seen |= {e.kind for e in find_errors(evaluation.image_matches(image_id, 0.0))}
    assert seen == set(KINDS)
