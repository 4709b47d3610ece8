"""Operating points of a comparison: rows, files, sentences, charts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from eval.detect.alone import padded_by_others, seen_alone
from eval.detect.comparison import compare, row_specs
from eval.detect.operating import OperatingRow, cut_results, operating_rows
from eval.detect.operating_report import (
    f1_falls,
    first_points,
    operating_curves,
    operating_section,
    operating_sentence,
)
from eval.detect.output import write_cut
from eval.detect.report import render_report
from eval.detect.strips import INVENTED, Seen, count_changes, seen_in, select_strips, shown_rows
from eval.detect.table import Settings
from eval.rows.derainers import Derainers
from eval.scores.operating import Curve, Operating, Point
from eval.scores.score import Score
from eval.sets import load_set
from tests.eval.detect.test_report import Page, full_report, full_rows
from tests.eval.trees import Batch, RectangleDetector, write_tree

SETTINGS = Settings(resamples=30)


class PaddedDetector(RectangleDetector):
    """As in `val`, an image's input follows the others in its batch; then it invents a box."""

    def plan(self, sizes_hw):
        batches = [range(i, min(i + 4, len(sizes_hw))) for i in range(0, len(sizes_hw), 4)]
        return [Batch(tuple(batch), (len(batch), 64)) for batch in batches]

    def detect_fitted(self, fitted, sizes_hw, input_hw):
        for frame in fitted if input_hw[0] > 1 else ():
            frame[-9:, -9:] = (250, 0, 0)
        return super().detect_fitted(fitted, sizes_hw, input_hw)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("operating")
    data = load_set(write_tree(folder, images=6))
    specs = row_specs(data, Derainers(["median"], {"device": "cpu"}).for_set(data.name))
    detector = PaddedDetector()
    return data, detector, compare(data, detector, specs, folder / "rows", SETTINGS)


@pytest.fixture(scope="module")
def rows(run):
    return operating_rows(run[2], SETTINGS)


def test_rows_hold_the_counts_of_the_table(run, rows):
    table = {(r.condition, r.input, r.derainer): r.flat() for r in run[2].table}
    assert len(rows) == len(table)
    for row in rows:
        own = table[row.condition, row.input, row.derainer]
        flat = row.flat()
        assert [flat[key] for key in ("tp", "fp", "fn")] == [own[key] for key in ("tp", "fp", "fn")]
        assert flat["conf"] == 0.25
        assert (flat["delta_f1"] is None) == (row.input == "rainy")
        assert len(list(row.curve())) == 99
    json.dumps([row.flat() for row in rows], allow_nan=False)


def test_cut_predictions_have_no_more_false_ones_than_their_reference(run, rows, tmp_path):
    comparison = run[2]
    cut = cut_results(comparison, rows)
    points = {(r.input, r.derainer): r.points for r in rows if r.condition == "all"}
    for row in comparison.rows:
        own = points[row.spec.input, row.spec.derainer_name]
        point = own.equal or own.at
        assert len(cut[row.spec.label]) >= point.found + point.false
        assert all(result["score"] >= point.conf for result in cut[row.spec.label])
    write_cut(tmp_path, cut)
    assert len(list((tmp_path / "predictions-equal").iterdir())) == len(comparison.rows)
    write_cut(tmp_path, {})
    assert not list((tmp_path / "predictions-equal").iterdir())


def test_pictures_do_not_depend_on_the_other_images(run):
    """Every image but the single ones got a false box from its batch; none of it is shown."""
    data, detector, comparison = run
    inputs = padded_by_others(data, detector)
    assert inputs == {sample.image_id: (1, 64) for sample in data.samples}
    assert comparison.table[0].fp > 0
    shown = shown_rows(comparison)
    seen = Seen(comparison, shown, seen_alone(comparison, shown, inputs, detector), 0.25)
    parts = data.restricted(limit=1), data.restricted(limit=3)
    for part in parts:
        specs = [row.spec for row in comparison.rows]
        other = compare(
            part, RectangleDetector(), specs, data.samples[0].rainy.parents[1] / "x", SETTINGS
        )
        for row in shown_rows(other):
            for sample in part.samples:
                alone = seen.evaluations[row.spec].image_matches(sample.image_id, 0.25)
                assert alone.found == tuple(
                    {**box, "id": mine["id"]}
                    for box, mine in zip(
                        row.evaluation.image_matches(sample.image_id, 0.25).found,
                        alone.found,
                        strict=True,
                    )
                )
    (tally,) = count_changes(seen)
    counts = [int(word.strip(";,")) for word in tally.split() if word.strip(";,").isdigit()]
    more, total, fewer, same = counts[:4]
    assert more + fewer + same == total == 6


def test_the_image_with_most_new_false_detections_is_shown(run):
    seen = seen_in(run[2], 0.25)
    (changes,) = seen.changes.values()
    most = max(change.false for change in changes)
    shown = [strip for strip in select_strips(seen) if strip.kind == INVENTED]
    assert [strip.gain for strip in shown[:1]] == ([most] if most > 0 else [])
    assert all("false detection" in strip.change for strip in shown)


def made(kind, derainer, at, best, equal=None, f1=(None, None, None), condition="all"):
    """Write an operating row down: points are (confidence, found, false) of 500 objects."""

    def point(values):
        conf, found, false = values
        return Point(conf, found, false, 500 - found)

    confs = np.arange(1, 100) / 100
    curve = Curve(confs, np.linspace(400, 1, 99), np.linspace(900, 0, 99), 500.0)
    points = Operating(
        at=point(at),
        best=point(best),
        equal=point(equal) if equal else None,
        change_f1=Score(*f1),
        change_recall=Score(0.05, 0.01, 0.09),
        change_best_f1=Score(0.05, 0.02, 0.08),
        curve=curve,
    )
    return OperatingRow(condition=condition, input=kind, derainer=derainer, points=points)


MADE = [
    made("rainy", "", (0.25, 212, 66), (0.23, 220, 80)),
    made(
        "derained",
        "prenet",
        (0.25, 279, 263),
        (0.49, 260, 60),
        (0.43, 265, 64),
        (-0.04, -0.06, -0.02),
    ),
]


def test_a_gain_of_map_does_not_hide_false_alarms(monkeypatch):
    """The case of the demonstration: mAP rises, F1 at the confidence in use falls."""
    for name in ("report._bars", "report._scatter"):
        monkeypatch.setattr(f"eval.detect.{name}", lambda *rows: None)
    monkeypatch.setattr("eval.detect.operating_report.operating_charts", lambda *of: [])
    page = Page(render_report(full_report(operating=MADE, strips=(), per_class=()))).text
    head = page.partition("Findings Differences")[0]
    for words in (
        "but at confidence 0.25 F1 falls from 0.545 to 0.536, with 263 false detections instead ",
        "At confidence 0.25, prenet finds 279 objects instead of 212, with 263 false detections",
        "With no more than 66 false ones, from 0.43 on, it finds 265.",
        "Each at its best confidence, 0.49 and 0.23: F1 rises from 0.550 to 0.634.",
        "with no more false ones than rainy",
    ):
        assert words in head, words
    night = [replace(row, condition="night") for row in MADE]
    rest = [MADE[0], replace(MADE[1], points=replace(MADE[1].points, change_f1=Score(0.0, -1, 1)))]
    rows = full_rows() + full_rows(condition="night")
    page = Page(
        render_report(full_report(rows=rows, operating=rest + night, strips=(), per_class=()))
    )
    assert "On night, at confidence 0.25 F1 falls from" in page.text.partition("Findings Diff")[0]


def test_sentences_of_few_images_and_of_no_threshold_claim_nothing():
    few = operating_sentence(MADE, "all", "prenet", small=True)
    assert few.count("which may be chance") == 2
    none = [MADE[0], replace(MADE[1], points=replace(MADE[1].points, equal=None))]
    text = operating_sentence(none, "all", "prenet", small=False)
    assert "It has more than 66 at every confidence." in text
    assert f1_falls(MADE, "night", "prenet") == ""
    assert operating_sentence([], "all", "prenet", small=False) == ""


def test_section_has_a_chart_for_each_condition_and_marks_its_points(rows):
    rows = [row for row in rows if row.condition != "night"]
    titles = {name: name for name in ("all", "day")}
    section = operating_section(rows, titles, lambda name: True)
    assert [chart.title for chart in section.charts] == ["all", "day"]
    effects = {
        cell.effect
        for group in section.points.groups
        for line in group.lines
        for cell in line.cells
    }
    assert effects <= {None, "unclear", "undefined"}
    assert first_points([], "all", small=False) is None
    left, right = operating_curves(MADE, {"prenet": "s0"}).axes
    dots = [line.get_xdata()[0] for line in right.lines if line.get_marker() == "o"]
    assert dots == [0.25, 0.23, 0.25, 0.49]
    assert len(left.lines) == 6
