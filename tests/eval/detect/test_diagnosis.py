"""Errors, changes and unions of a whole comparison, and the section of the report."""

from dataclasses import replace

import pandas as pd
import pytest

from eval.detect.comparison import compare, row_specs
from eval.detect.diagnosis import Diagnosis, diagnose, write_diagnosis
from eval.detect.error_report import breakdown_section, error_bars
from eval.detect.model import ErrorRow
from eval.detect.report import render_report
from eval.detect.strips import seen_in, select_strips
from eval.detect.table import Settings
from eval.report.figures import to_svg
from eval.rows.cache import CachedDerainer
from eval.rows.run import RowSpec
from eval.scores.errors import KINDS
from eval.sets import load_set
from rainmer import Derainer
from rainmer.frames.images import read_image, write_image
from tests.eval.detect.test_report import Page, full_report
from tests.eval.trees import RectangleDetector, rain, write_tree


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    data = load_set(write_tree(folder, images=12))
    for sample in data.samples:
        write_image(sample.rainy, rain(read_image(sample.clean), sample.image_id, share=0.03))
    cached = [CachedDerainer(Derainer(spec, device="cpu"), None) for spec in ("none", "median")]
    specs = row_specs(data, cached, union=True)
    return compare(data, RectangleDetector(), specs, folder / "rows", Settings(resamples=20))


@pytest.fixture(scope="module")
def diagnosis(comparison):
    return diagnose(comparison, 0.25)


def test_unions_follow_what_they_unite_and_run_no_detector(comparison):
    labels = [row.spec.label for row in comparison.rows]
    assert labels[:6] == [
        "rainy", "clean", "derained-none", "derained-union-none", "derained_clean-none",
        "derained_clean-union-none",
    ]  # fmt: skip
    rainy, same = comparison.find("rainy"), comparison.find("derained", "union-none")
    for image_id, result in rainy.images.items():
        union = same.images[image_id]
        assert sorted(union.boxes) == sorted(result.boxes), "equal boxes are one"
        assert union.detect_ms > result.detect_ms
        assert union.scores == {}
    assert same.evaluation.ap50(rainy.images) == pytest.approx(
        rainy.evaluation.ap50(rainy.images), nan_ok=True
    )


def test_a_union_finds_what_either_image_shows(comparison):
    rows = [comparison.find("rainy"), comparison.find("derained", "median")]
    union = comparison.find("derained", "union-median")
    found = [row.evaluation.counts(row.images, 0.0).tp for row in (*rows, union)]
    assert found[2] >= max(found[:2])
    table = {row.derainer: row for row in comparison.table if row.input == "derained"}
    assert table["union-median"].psnr is None
    assert table["union-median"].change.value is not None
    assert table["union-median"].is_control


def test_unions_have_no_pictures(comparison):
    strips = select_strips(seen_in(comparison, 0.25))
    assert strips
    assert {strip.derainer for strip in strips} <= {"none", "median"}


def test_rows_are_equal_only_with_the_same_union():
    assert RowSpec("derained") != RowSpec("derained", union=True)


def test_a_diagnosis_has_all_rows(comparison, diagnosis):
    rows = {(row.spec.input, row.spec.derainer_name) for row in comparison.rows}
    assert {(r.input, r.derainer) for r in diagnosis.errors} == rows
    assert {(r.input, r.derainer) for r in diagnosis.changes} == rows - {("rainy", "")}
    assert {r.condition for r in diagnosis.errors} == {"all", "day", "night"}
    identity = [r for r in diagnosis.images if r.derainer == "none"]
    assert len(identity) == 2 * 12
    assert not any(getattr(r, key) for r in identity for key in ("gain", "found", "lost", "false"))


def test_images_are_ranked_as_the_strips_show_them(comparison, diagnosis):
    ranked = [
        row.image
        for row in sorted(diagnosis.images, key=lambda row: row.rank)
        if (row.input, row.derainer) == ("derained", "median")
    ]
    shown = [strip for strip in select_strips(seen_in(comparison, 0.25)) if not strip.kind]
    strips = [strip.image for strip in shown if strip.derainer == "median"]
    gains = [strip.image for strip in shown if strip.gain > 0]
    assert ranked[: len(gains)] == gains
    assert strips[len(gains) :] == ranked[::-1][: len(strips) - len(gains)]


def test_files(diagnosis, tmp_path):
    write_diagnosis(tmp_path, diagnosis)
    errors = pd.read_csv(tmp_path / "breakdown.csv")
    assert list(errors) == [
        "input", "derainer", "condition", "class", "size", "kind", "count", "AP50", "delta_AP50",
    ]  # fmt: skip
    assert len(errors) == len(diagnosis.errors)
    assert len(pd.read_csv(tmp_path / "changes.csv")) == len(diagnosis.changes)
    assert len(pd.read_csv(tmp_path / "image_changes.csv")) == len(diagnosis.images)
    write_diagnosis(tmp_path, Diagnosis())
    assert not list(tmp_path.iterdir())


def test_the_section_stands_in_the_report(diagnosis):
    page = Page(render_report(full_report(breakdown=breakdown_section(diagnosis))))
    assert {"id": "errors"} in page.all("section")
    assert {"href": "#errors"} in page.all("a")
    for kind in KINDS:
        assert kind in page.text
    assert "union-median on clean" in page.text
    identifiers = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))


def test_a_report_without_breakdown_has_no_section():
    assert breakdown_section(Diagnosis()) is None
    assert 'id="errors"' not in render_report(full_report())


def test_names_are_escaped(diagnosis):
    renamed = Diagnosis(
        [replace(r, derainer="<b>") if r.derainer == "median" else r for r in diagnosis.errors]
    )
    text = render_report(full_report(breakdown=breakdown_section(renamed)))
    assert (
        "<b>"
        not in text[text.index('id="errors"') : text.index("<details", text.index('id="errors"'))]
    )


def test_bars_of_a_row_without_errors():
    rows = [
        ErrorRow(
            condition="all", input="rainy", class_name="all", size="all", kind=kind, count=0,
            gain_ap50=0.0,
        )
        for kind in KINDS
    ]  # fmt: skip
    assert to_svg(error_bars(rows, "all"), "errors", "none").startswith("<svg")
