"""The comparison from images to rows, with a real small detector on drawn scenes."""

import json

import numpy as np
import pytest

from eval.cache import CachedDerainer
from eval.comparison import Settings, compare, row_specs
from eval.sets import load_set
from eval.truth import match_categories
from rainmer import Derainer
from rainmer.errors import DatasetError, RainmerError
from rainmer.frames import write_image
from tests.eval.trees import NAMES, RectangleDetector, rain, scene, write_tree, write_yaml

SETTINGS = Settings(resamples=200)


def run(file, folder, derainers=("median",), detector=None, settings=SETTINGS):
    data = load_set(file)
    wrapped = [Derainer(spec, device="cpu") for spec in derainers]
    cached = [CachedDerainer(derainer, None) for derainer in wrapped]
    specs = row_specs(data, cached, [derainer.needs_names for derainer in wrapped])
    return compare(data, detector or RectangleDetector(), specs, folder, settings)


def row(comparison, input_name, condition="all", derainer=""):
    return next(
        r
        for r in comparison.table
        if (r["input"], r["condition"], r["derainer"]) == (input_name, condition, derainer)
    )


def test_rows_of_a_whole_comparison(tmp_path):
    comparison = run(write_tree(tmp_path), tmp_path / "rows")
    clean, rainy = row(comparison, "clean"), row(comparison, "rainy")
    median = row(comparison, "derained", derainer="median")
    assert clean["mAP"] == pytest.approx(1.0)
    assert (clean["tp"], clean["fp"], clean["fn"]) == (clean["boxes"], 0, 0)
    assert rainy["mAP"] < clean["mAP"]
    assert rainy["delta_mAP"] is None
    assert median["delta_mAP"] == pytest.approx(median["mAP"] - rainy["mAP"])
    assert median["recovered"] == pytest.approx(
        (median["mAP"] - rainy["mAP"]) / (clean["mAP"] - rainy["mAP"])
    )
    assert median["ci_low"] <= median["delta_mAP"] <= median["ci_high"]
    assert median["psnr"] > rainy["psnr"]
    assert clean["psnr"] is None
    harm = row(comparison, "derained_clean", derainer="median")
    assert harm["delta_mAP"] == pytest.approx(harm["mAP"] - clean["mAP"])
    assert {r["condition"] for r in comparison.table} == {"all", "day", "night"}
    assert row(comparison, "rainy", "day")["images"] == 3
    json.dumps([r for r in comparison.table if r["input"] == "rainy"], allow_nan=False)


def test_the_identity_changes_nothing_but_has_infinite_psnr_on_clean_images(tmp_path):
    comparison = run(write_tree(tmp_path), tmp_path / "rows", ["none"])
    rainy, same = row(comparison, "rainy"), row(comparison, "derained", derainer="none")
    assert same["delta_mAP"] == 0.0
    assert (same["ci_low"], same["ci_high"]) == (0.0, 0.0)
    assert same["psnr"] == rainy["psnr"]
    assert np.isinf(row(comparison, "derained_clean", derainer="none")["psnr"])


def test_results_made_elsewhere_become_a_row(tmp_path):
    file = write_tree(tmp_path)
    for number in range(6):
        name = f"{'day' if number % 2 else 'night'}_{number:02d}.png"
        write_image(tmp_path / "theirs" / name, scene(number)[0])
    comparison = run(file, tmp_path / "rows", [f"results:{tmp_path / 'theirs'}"])
    theirs = row(comparison, "derained", derainer="results-theirs")
    assert theirs["mAP"] == pytest.approx(1.0)
    assert theirs["recovered"] == pytest.approx(1.0)
    assert not any(r["input"] == "derained_clean" for r in comparison.table)
    assert "not measured on clean images: results-theirs" in comparison.notes


def test_a_missing_result_is_named(tmp_path):
    file = write_tree(tmp_path)
    write_image(tmp_path / "theirs" / "day_01.png", scene(1)[0])
    with pytest.raises(RainmerError, match=r"no image is named .* in .*theirs"):
        run(file, tmp_path / "rows", [f"results:{tmp_path / 'theirs'}"])


def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path):
    file = write_tree(tmp_path)
    whole = run(file, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(file, tmp_path / "cut", detector=RectangleDetector(stop_after=9))
    resumed = RectangleDetector()
    again = run(file, tmp_path / "cut", detector=resumed)
    assert 0 < resumed.frames_seen < 24
    timeless = [
        [{k: v for k, v in r.items() if not k.startswith("ms_")} for r in c.table]
        for c in (whole, again)
    ]
    assert timeless[0] == timeless[1]
    assert whole.per_class == again.per_class


def test_a_line_cut_by_an_interruption_is_done_again(tmp_path):
    file = write_tree(tmp_path)
    whole = run(file, tmp_path / "rows")
    for path in (tmp_path / "rows").glob("rainy-*.jsonl"):
        path.write_text(path.read_text()[:-30])
    assert run(file, tmp_path / "rows").table[0]["mAP"] == whole.table[0]["mAP"]


def test_a_changed_set_starts_anew(tmp_path):
    file = write_tree(tmp_path)
    run(file, tmp_path / "rows")
    write_image(tmp_path / "rainy" / "day_01.png", rain(scene(1)[0], 1, share=0.05))
    detector = RectangleDetector()
    run(file, tmp_path / "rows", detector=detector)
    assert detector.frames_seen == 24


def test_an_image_that_cannot_be_decoded_is_left_out_of_every_row(tmp_path):
    file = write_tree(tmp_path)
    path = tmp_path / "rainy" / "day_03.png"
    path.write_bytes(path.read_bytes()[:-30])  # the header is fine
    comparison = run(file, tmp_path / "rows")
    assert {r["images"] for r in comparison.table if r["condition"] == "all"} == {5}
    assert row(comparison, "clean")["mAP"] == pytest.approx(1.0)
    assert comparison.data.defects.error_lines() == ["unreadable image, skipped: 1 (day_03.png)"]


def test_pseudo_labels_are_the_view_of_the_clean_images(tmp_path):
    comparison = run(write_tree(tmp_path, labels=None), tmp_path / "rows")
    assert comparison.pseudo_labels
    assert row(comparison, "clean")["mAP"] == pytest.approx(1.0)
    assert 0 <= row(comparison, "rainy")["mAP"] < 1
    confident = list(comparison.truth.annotations)
    assert len(confident) == row(comparison, "rainy")["boxes"] > 0


def test_without_clean_images_there_is_no_ceiling(tmp_path):
    comparison = run(write_tree(tmp_path, clean=False), tmp_path / "rows")
    assert {r["input"] for r in comparison.table} == {"rainy", "derained"}
    assert all(r["psnr"] is None and r["recovered"] is None for r in comparison.table)


def test_images_without_any_object_count_as_such(tmp_path):
    file = write_tree(tmp_path, labels="yolo")
    for path in (tmp_path / "labels").iterdir():
        if "night" in path.name:
            path.write_text("")
    comparison = run(file, tmp_path / "rows")
    assert row(comparison, "rainy", "night")["mAP"] is None
    assert row(comparison, "rainy", "night")["boxes"] == 0
    assert row(comparison, "clean", "day")["mAP"] == pytest.approx(1.0)
    assert row(comparison, "clean")["fp"] > 0


def test_a_single_image_has_no_interval(tmp_path):
    comparison = run(write_tree(tmp_path, images=1, conditions=False), tmp_path / "rows")
    assert all(r["ci_low"] is None for r in comparison.table)


def test_categories_match_by_name_and_the_rest_is_reported(tmp_path):
    file = write_tree(tmp_path, labels="yolo", conditions=False)
    content = {
        "name": "tiny",
        "rainy": "rainy",
        "clean": "clean",
        "annotations": "labels",
        "names": ["Red_Thing", "verdure", "dragon"],
        "aliases": {"verdure": "green thing"},
    }
    write_yaml(tmp_path, content)
    comparison = run(file, tmp_path / "rows")
    assert sorted(comparison.truth.categories.values()) == ["green thing", "red thing"]
    assert any(n.startswith("categories that the detector does not know") for n in comparison.notes)
    assert row(comparison, "clean")["mAP"] == pytest.approx(1.0)


def test_two_categories_of_the_set_may_be_one_class_of_the_detector():
    match = match_categories({1: "car", 2: "van"}, {5: "car"}, {"van": "car"})
    assert dict(match.merged) == {1: 1, 2: 1}
    assert dict(match.label_to_category) == {5: 1}


@pytest.mark.parametrize(
    ("categories", "aliases", "message"),
    [({1: "cat"}, {}, "no category .* the set has cat"), ({1: "cat"}, {"cat": "dog"}, "'dog'")],
)
def test_categories_that_cannot_match(categories, aliases, message):
    with pytest.raises(DatasetError, match=message):
        match_categories(categories, NAMES, aliases)
