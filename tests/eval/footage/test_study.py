"""From frames to numbers, words, and the frames that are worth a look."""

import dataclasses
import json

import numpy as np
import pytest

from detection.types import Detections
from eval.footage.figures import timeline_of
from eval.footage.labelling import LabelFolder
from eval.footage.measures import Rules
from eval.footage.picking import busiest_stretch, changed_most, informativeness, most_informative
from eval.footage.records import RAINY
from eval.footage.study import ALL, cut_shots, study_frames
from eval.footage.verdicts import headline, judge
from eval.sets import load_set
from tests.eval.footage.conftest import results
from tests.eval.footage.test_matching import boxes

RULES = Rules(conf=0.25, resamples=200)
CAR, TREE = (20, 0.9, 0), (60, 0.9, 1)


def frames(count, *always, once=None):
    """The same detections in every frame, but for some frames by number."""
    return [boxes(*always, *(once or {}).get(n, ())) for n in range(count)]


def study(rainy, derained, rules=RULES, **more):
    return study_frames(results(rainy, derained, **more), [RAINY, "median"], rules)


def blinking(count, *always, step=2):
    return frames(count, *always, once={n: [TREE] for n in range(1, count, step)})


def test_a_thing_that_stays_counts_as_help():
    own = study(frames(120, CAR), frames(120, CAR, TREE))
    (verdict,) = judge(own)
    assert verdict.effect == "helps"
    assert "median: things are seen more steadily" in headline([verdict])
    row = own.row("median")
    assert (row.kept, row.gained, row.lost, row.tracks) == (120, 120, 0, 2)
    assert row.changes["steady_per_frame"].low == pytest.approx(1.0)
    assert row.agreement == 0.5
    assert row.frames_per_s == 200.0


def test_a_thing_that_goes_counts_as_harm():
    (verdict,) = judge(study(frames(120, CAR, TREE), frames(120, CAR)))
    assert (verdict.effect, verdict.title) == ("harms", "things are seen less steadily")


def test_what_blinks_is_no_help():
    """More detections, none of which lasts."""
    blips = {n: [(60 + 20 * (n // 6 % 5), 0.9, 1)] for n in range(3, 120, 6)}
    own = study(frames(120, CAR), frames(120, CAR, once=blips))
    (verdict,) = judge(own)
    assert own.row("median").gained == 20
    assert (verdict.effect, verdict.title) == ("harms", "more flicker, no more steady detections")


def test_equal_versions_and_short_ones():
    assert judge(study(frames(120, CAR), frames(120, CAR)))[0].title == "no measurable change"
    assert judge(study(frames(20, CAR), frames(20)))[0].title == "too short for a verdict"


@pytest.mark.parametrize("count", [1, 2, 30])
def test_no_detections_at_all(count):
    own = study(frames(count), frames(count))
    (verdict,) = judge(own)
    assert verdict.title == "nothing is found, so nothing can be said"
    assert verdict.effect == "undefined"
    assert own.row("median").agreement is None
    json.dumps([row.flat() for row in own.rows], allow_nan=False)
    assert changed_most(own, "median", 4, 4) == []
    assert len(timeline_of(own).times_s) == count


def test_one_frame_is_counted_but_not_followed():
    own = study(frames(1, CAR), frames(1, CAR, TREE))
    assert not own.tracked
    (verdict,) = judge(own)
    assert verdict.title == "1 detection more"
    assert "Nothing could be followed" in verdict.sentence


def test_stills_are_not_followed_though_they_are_many():
    own = study(frames(30, CAR), frames(30, CAR), dataclasses.replace(RULES, stills=True))
    assert not own.tracked
    assert own.row("median").values["steady_per_frame"] is None


def test_a_change_of_size_begins_a_shot():
    parts = results(frames(5), frames(5)), results(frames(4), frames(4), size_hw=(9, 9))
    shots = cut_shots([*parts[0], *parts[1]], stills=False)
    assert [(s.name, len(s.frames), s.tracked) for s in shots] == [
        ("drive", 5, True), ("drive (2)", 4, True),
    ]  # fmt: skip


def test_rows_of_shots_add_up():
    parts = [results(frames(8, CAR), frames(8, CAR, TREE), shot=name) for name in "ab"]
    own = study_frames([*parts[0], *parts[1]], [RAINY, "median"], RULES)
    assert [(row.shot, row.derainer) for row in own.rows] == [
        (place, name) for place in (ALL, "a", "b") for name in (RAINY, "median")
    ]
    assert own.row("median").gained == sum(own.row("median", name).gained for name in "ab")
    assert timeline_of(own).cuts_s == [pytest.approx(0.8)]


def test_a_timeline_keeps_sums_and_takes_the_values_of_a_meter():
    own = results(blinking(50, CAR), frames(50, CAR))
    for n, frame in enumerate(own):
        frame.inputs[RAINY].meter["rate"] = float(n)
    whole = timeline_of(study_frames(own, [RAINY, "median"], RULES), points=10)
    assert whole.lost.mean() == pytest.approx(0.5)
    assert whole.detections[RAINY].mean() == pytest.approx(1.5)
    assert whole.meter["rate"].tolist() == [2 + 5 * n for n in range(10)]


def test_frames_to_look_at_are_no_neighbours():
    lost = {n: [TREE] for n in (10, 11, 12, 40)}
    own = study(frames(60, CAR, once=lost), frames(60, CAR, once={30: [TREE, (90, 0.3, 0)]}))
    assert changed_most(own, "median", 4, 4) == [30, 10, 40]
    picked = most_informative(own, "median", 5)
    assert list(picked)[:3] == [30, 10, 40]
    times = sorted(own.frames[n].time_s for n in picked)
    assert len(picked) == 5
    assert np.diff(times).min() >= 1.0
    assert busiest_stretch(own, "median", 0.5) == range(8, 13)
    assert busiest_stretch(own, "median", 0) == range(0)


def test_doubt_and_disagreement_make_a_frame_informative():
    def value(rainy, derained):
        own = study([boxes(*rainy)], [boxes(*derained)])
        return informativeness(boxes(*rainy), boxes(*derained), own.changes["median"][0])

    sure, unsure = (0, 0.99, 0), (0, 0.5, 0)
    assert value([], []) == 0
    assert (
        value([sure], [sure])
        < value([unsure], [unsure])
        < value([sure], [])
        < value([unsure], [TREE])
    )


def test_frames_to_label_are_a_detection_set(tmp_path):
    rainy, derained = frames(2, CAR), [boxes(CAR, TREE), boxes()]
    own = results(rainy, derained)
    folder = LabelFolder(tmp_path, "my drive/1", {0: "car", 1: "tree"})
    image = np.full((100, 200, 3), 7, np.uint8)
    proposals = Detections([[20, 0, 30, 10], [190, 95, 215, 120]], [0.9, 0.4], [0, 1])
    folder.add(own[0], image, proposals, 2.0)
    folder.add(own[1], image, Detections(), 1.0)
    folder.finish()
    data = load_set(tmp_path / "set.yaml")
    assert data.name == "my drive-1"
    assert [sample.name for sample in data.samples] == ["drive-000000.png", "drive-000001.png"]
    assert not data.defects.error_lines()
    found = [(a["category_id"], np.round(a["bbox"], 3).tolist()) for a in data.annotations]
    assert found == [(0, [20, 0, 10, 10]), (1, [190, 95, 10, 5])]
    coco = json.loads((tmp_path / "instances.json").read_text())
    assert [a["bbox"] for a in coco["annotations"]] == [[20, 0, 10, 10], [190, 95, 10, 5]]
    assert coco["annotations"][1]["score"] == 0.4


def test_corrected_labels_stay(tmp_path, caplog):
    own = results(frames(1, CAR), frames(1, CAR))
    image = np.zeros((100, 200, 3), np.uint8)
    for text in ("", "1 0.5 0.5 0.1 0.1\n"):
        folder = LabelFolder(tmp_path, "drive", {0: "car", 1: "tree"})
        folder.add(own[0], image, boxes(CAR), 1.0)
        folder.finish()
        label = tmp_path / "labels" / "drive-000000.txt"
        if not text:
            label.write_text("1 0.5 0.5 0.1 0.1\n")
    assert label.read_text() == "1 0.5 0.5 0.1 0.1\n"
    assert "1 corrected label files" in caplog.text
