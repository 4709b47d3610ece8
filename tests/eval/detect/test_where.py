"""Changes by the meter's reading, the sentence on when to derain, and the bound on harm."""

import dataclasses
import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from eval.detect.comparison import compare, row_specs
from eval.detect.diagnosis import diagnose
from eval.detect.harm import HarmRow, harm_rows, harm_sentences
from eval.detect.model import ImageChangeRow
from eval.detect.report import render_report
from eval.detect.table import Settings
from eval.detect.where import GATE, Bin, WhereHelps, WhereRow, bins_of, find_where, write_where
from eval.detect.where_report import when_to_derain, where_section
from eval.rows.cache import CachedDerainer
from eval.scores.binomial import upper_bound
from eval.scores.score import Score
from eval.sets import load_set
from rainmer import Derainer
from rainmer.frames.images import read_image, write_image
from rainmer.meter import Reading
from rainmer.meter.head import QUANTITIES
from tests.eval.detect.test_report import Page, full_report
from tests.eval.pages import check_self_contained
from tests.eval.trees import RectangleDetector, rain, write_tree

THRESHOLD = 0.4


def reading(**values):
    return Reading(**{**dict.fromkeys(QUANTITIES, 0.0), "benefit": 0.0, **values}, intervals={})


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    data = load_set(write_tree(folder, images=12))
    for sample in data.samples:
        write_image(sample.rainy, rain(read_image(sample.clean), sample.image_id, share=0.03))
    median = CachedDerainer(Derainer("median", device="cpu"), None)
    specs = row_specs(data, [median])
    return compare(data, RectangleDetector(), specs, folder / "rows", Settings(resamples=20))


@pytest.fixture(scope="module")
def where(comparison):
    names = [sample.name for sample in comparison.data.samples]
    wet = {name: reading(benefit=i / 12, rate_mm_h=8.0 * i) for i, name in enumerate(names)}
    dry = {name: reading(transmission=1.0, night=0.9) for name in names}
    readings = {"derained": wet, "derained_clean": dry}
    changes = diagnose(comparison, 0.25).images
    return find_where(comparison, changes, THRESHOLD, readings, resamples=50, seed=0)


@given(st.floats(0, 1), st.floats(0, 300), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.99))
def test_every_reading_is_in_one_bin_of_a_kind(benefit, rate, transmission, night, threshold):
    values = reading(benefit=benefit, rate_mm_h=rate, transmission=transmission, night=night)
    bins = bins_of(threshold)
    held = Counter(bin_.reading for bin_ in bins if bin_.holds(values))
    assert held == dict.fromkeys([GATE, "benefit", "rate_mm_h", "transmission", "night"], 1)
    (side,) = [bin_ for bin_ in bins if bin_.reading == GATE and bin_.holds(values)]
    assert (side.low > 0) == (benefit >= threshold)


def test_bins_add_up_to_all_images(comparison, where):
    changes = diagnose(comparison, 0.25).images
    for shown, kind in itertools.product(("derained", "derained_clean"), ("benefit", "night")):
        rows = [r for r in where.rows if (r.input, r.bin.reading) == (shown, kind)]
        all_ = [change for change in changes if change.input == shown]
        assert sum(row.images for row in rows) == 12
        assert sum(row.boxes for row in rows) == len(comparison.truth.annotations)
        assert sum(row.found for row in rows) == sum(change.found for change in all_)
        assert sum(row.lost for row in rows) == sum(change.lost for change in all_)
        for row in rows:
            if row.images > 1:
                assert row.gain.value == (row.found - row.lost) / row.images
                assert row.gain.low <= row.gain.value <= row.gain.high
            assert row.is_small


def test_a_comparison_without_a_bootstrap_has_no_intervals(comparison, where):
    changes = diagnose(comparison, 0.25).images
    bare = find_where(comparison, changes, THRESHOLD, where.readings, resamples=0, seed=0)
    assert all(row.gain.low is None for row in bare.rows)
    assert where_section(bare, comparison.table, "all").advice.endswith("too few images to tell.")


def test_the_section_stands_in_the_report(comparison, where):
    section = where_section(where, comparison.table, "all")
    text = render_report(full_report(where=section))
    check_self_contained(text)
    page = Page(text)
    assert {"id": "where"} in page.all("section")
    assert {"href": "#where"} in page.all("a")
    assert page.text.count("When to derain: too few images to tell.") == 2
    assert "below 2.5" in page.text
    assert where_section(WhereHelps(), comparison.table, "all") is None


def test_files_of_an_earlier_run_are_removed(where, tmp_path):
    write_where(tmp_path, where)
    assert {path.name for path in tmp_path.iterdir()} == {"where.csv", "harm.csv", "readings.csv"}
    write_where(tmp_path, WhereHelps())
    assert not list(tmp_path.iterdir())


CHANGES = {
    "helps": Score(1.0, 0.5, 1.5),
    "unclear": Score(0.0, -0.1, 0.1),
    "harms": Score(-1.0, -1.5, -0.5),
    "few": Score(2.0, 1.0, 3.0),
}


def side(effect, low, high, shown="derained", **more):
    images = 5 if effect == "few" else 40
    values = {"images": images, "boxes": 200, "found": 9, "lost": 3, "gain": CHANGES[effect]}
    return WhereRow(
        condition="all", input=shown, derainer="x", bin=Bin(GATE, low, high), **values | more
    )


def sides(above, below, *more):
    rows = [side(below, 0.0, THRESHOLD), side(above, THRESHOLD, None), *more]
    return WhereHelps(THRESHOLD, {}, rows)


@pytest.mark.parametrize(
    ("above", "below", "advice"),
    [
        ("helps", "unclear", "Derain when the rain meter expects a benefit of 0.4 or more"),
        ("helps", "harms", "Derain when the rain meter expects a benefit of 0.4 or more"),
        ("helps", "few", "Derain when the rain meter expects a benefit of 0.4 or more"),
        ("helps", "helps", "Derain every frame"),
        ("few", "helps", "Derain every frame"),
        ("unclear", "unclear", "Nothing tells that frames like these should be derained"),
        ("harms", "few", "Leave frames like these as they are"),
        ("few", "harms", "Leave frames like these as they are"),
        ("unclear", "helps", "The meter does not tell when to derain frames like these"),
        ("few", "few", "When to derain: too few images to tell."),
    ],
)
def test_one_sentence_says_when_to_derain(above, below, advice):
    text = when_to_derain(sides(above, below), "x")
    assert text.startswith(advice)
    assert text.endswith(".")
    assert ("too few" in text) == ("few" in (above, below))


@given(st.sampled_from(list(CHANGES)), st.sampled_from(list(CHANGES)))
def test_no_pair_of_sides_is_without_words(above, below):
    text = when_to_derain(sides(above, below), "x")
    assert text.count(". ") == 0
    # Only a gain beyond chance is a reason to derain.
    assert text.startswith("Derain") <= ("helps" in (above, below))


def test_dry_frames_stand_in_for_rainy_ones_below_the_threshold():
    dry = side("unclear", 0.0, THRESHOLD, "derained_clean", found=0, lost=0)
    text = when_to_derain(sides("helps", "few", dry), "x")
    assert text.endswith("none below it on clean images (40 images).")
    assert when_to_derain(sides("helps", "few"), "y") == ""


def test_more_false_detections_are_told():
    worse = side("helps", THRESHOLD, None, false=Score(2.0, 1.0, 3.0))
    rows = [side("unclear", 0.0, THRESHOLD), worse]
    text = when_to_derain(WhereHelps(THRESHOLD, {}, rows), "x")
    assert "+1.00 [0.50, 1.50] from 0.4 on (40 images) with +2.00 [1.00, 3.00] false" in text


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_bound_is_exact(pair):
    cases, total = pair
    bound = upper_bound(cases, total)
    assert bound >= cases / total
    if cases < total:
        assert binom.cdf(cases, total, bound) == pytest.approx(0.05)


def change(image, lost, found=0, shown="derained", name="x"):
    return ImageChangeRow(
        input=shown, derainer=name, rank=1, image=image, gain=found - lost, found=found, lost=lost,
        background_gained=0, background_removed=0, false=0,
    )  # fmt: skip


def test_images_that_lose_objects_are_counted():
    changes = [
        change("a", 1), change("b", 1, found=2), change("c", 0),
        change("a", 0, shown="derained_clean"), change("a", 2, name="median"),
        change("a", 5, shown="clean", name=""),
    ]  # fmt: skip
    rows = harm_rows(changes, {"all": {"a", "b", "c"}, "night": {"c"}, "empty": set()})
    first = rows[0]
    assert (first.images, first.losing, first.losing_more) == (3, 2, 1)
    assert [(row.condition, row.input, row.derainer) for row in rows] == [
        ("all", "derained", "x"),
        ("all", "derained_clean", "x"),
        ("all", "derained", "median"),
        ("night", "derained", "x"),
    ]
    assert list(harm_sentences(rows, "all")) == [
        "x: at most 98.3 % of images lose an object, with 95 % confidence: seen in 2 of 3; of "
        "clean images at most 95.0 %: seen in 0 of 1"
    ]
    assert first.flat()["losing_bound"] == upper_bound(2, 3)
    assert dataclasses.replace(first, losing=3).bound == 1.0
    assert isinstance(first, HarmRow)
