"""The comparison from images to rows, with a real small detector on drawn scenes."""

import json

import numpy as np
import pytest

from detection.timing import StageTimes
from eval.detect.comparison import compare, row_specs
from eval.detect.table import Settings
from eval.detect.truth import match_categories
from eval.rows.derainers import Derainers
from eval.rows.run import RowSpec, run_row
from eval.sets import load_set
from rainmer.errors import DatasetError, RainmerError
from rainmer.frames.images import write_image
from tests.eval.trees import NAMES, RectangleDetector, rain, scene, write_tree, write_yaml

SETTINGS = Settings(resamples=200)


def run(file, folder, derainers=("median",), detector=None, settings=SETTINGS):
    data = load_set(file)
    specs = row_specs(data, Derainers(derainers, {"device": "cpu"}).for_set(data.name))
    return compare(data, detector or RectangleDetector(), specs, folder, settings)


def flat_rows(comparison):
    """Return the rows as metrics.json has them."""
    return [row.flat() for row in comparison.table]


def row(comparison, input_name, condition="all", derainer=""):
    return next(
        r
        for r in flat_rows(comparison)
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
    assert {r["condition"] for r in flat_rows(comparison)} == {"all", "day", "night"}
    assert row(comparison, "rainy", "day")["images"] == 3
    json.dumps([r for r in flat_rows(comparison) if r["input"] == "rainy"], allow_nan=False)


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
    assert not any(r["input"] == "derained_clean" for r in flat_rows(comparison))
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
        [
            {k: v for k, v in r.items() if not k.startswith("ms_") and k != "images_per_s"}
            for r in flat_rows(c)
        ]
        for c in (whole, again)
    ]
    assert timeless[0] == timeless[1]
    assert whole.per_class == again.per_class
    assert {row.cost.detect.when for row in again.table} == {"now"}, "kept times are not mixed in"
    assert len({row.cost.detect for row in whole.table}) == 1, "one detector, one time"
    kept = run(file, tmp_path / "whole")
    assert {row.cost.detect.when for row in kept.table} == {"earlier"}
    assert all(row.cost.derain.when == "earlier" for row in kept.table if row.derainer)


def test_a_line_cut_by_an_interruption_is_done_again(tmp_path):
    file = write_tree(tmp_path)
    whole = run(file, tmp_path / "rows")
    for path in (tmp_path / "rows").glob("rainy-*.jsonl"):
        path.write_text(path.read_text()[:-30])
    assert run(file, tmp_path / "rows").table[0].mean_ap == whole.table[0].mean_ap


def spoiled(line, **changes):
    return json.dumps({k: v for k, v in {**json.loads(line), **changes}.items() if v is not ...})


DAMAGED = {
    "not UTF-8": lambda line: line.encode()[:20] + b"\xff\xfe",
    "a list": lambda line: b"[1, 2]",
    "deeply nested": lambda line: b"[" * 100_000,
    "a key is missing": lambda line: spoiled(line, boxes=...).encode(),
    "a key is foreign": lambda line: spoiled(line, colour="red").encode(),
    "no image id": lambda line: spoiled(line, image_id=None).encode(),
    "no list of boxes": lambda line: spoiled(line, boxes=None).encode(),
    "a box of five numbers": lambda line: spoiled(line, boxes=[[1.0, 2.0, 3.0, 4.0, 5]]).encode(),
    "a box of text": lambda line: spoiled(line, boxes=["123456"]).encode(),
    "NaN in a box": lambda line: spoiled(
        line, boxes=[[1.0, 2.0, 3.0, 4.0, float("nan"), 0]]
    ).encode(),
    "a number without end": lambda line: spoiled(
        line, boxes=[[10**400, 2.0, 3.0, 4.0, 0.5, 0]]
    ).encode(),
    "a time of text": lambda line: spoiled(line, detect_ms="soon").encode(),
    "NaN as a time": lambda line: spoiled(line, detect_ms=float("nan")).encode(),
    "no scores": lambda line: spoiled(line, scores=None).encode(),
    "NaN as a score": lambda line: spoiled(line, scores={"psnr": float("nan")}).encode(),
    "null as a score": lambda line: spoiled(line, scores={"psnr": None}).encode(),
    "an error that is no text": lambda line: spoiled(line, error=3).encode(),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_done_again(tmp_path, damage):
    data = load_set(write_tree(tmp_path, images=4))
    whole = run_row(RowSpec("rainy"), data, RectangleDetector(), tmp_path, times=StageTimes())
    (path,) = tmp_path.glob("*.jsonl")
    first, *others = path.read_text().splitlines()
    path.write_bytes(b"\n".join([DAMAGED[damage](first), *(o.encode() for o in others), b""]))
    detector = RectangleDetector()
    again = run_row(RowSpec("rainy"), data, detector, tmp_path, times=StageTimes())
    assert detector.frames_seen == 2
    assert [(r.boxes, r.scores) for r in again.values()] == [
        (r.boxes, r.scores) for r in whole.values()
    ]


def test_an_image_too_small_for_ssim_has_none_of_it(tmp_path):
    file = write_tree(tmp_path, images=3)
    for folder, value in (("rainy", 90), ("clean", 80)):
        write_image(tmp_path / folder / "tiny_00.png", np.full((9, 20, 3), value, np.uint8))
    content = json.loads((tmp_path / "instances.json").read_text())
    content["images"].append({"id": 99, "file_name": "tiny_00.png"})
    (tmp_path / "instances.json").write_text(json.dumps(content))
    comparison = run(file, tmp_path / "rows")
    scores = comparison.find("rainy").images[99].scores
    assert set(scores) == {"psnr", "psnr_official"}
    others = [r.scores["ssim"] for i, r in comparison.find("rainy").images.items() if i != 99]
    assert row(comparison, "rainy")["ssim"] == pytest.approx(np.mean(others))
    assert all("NaN" not in path.read_text() for path in (tmp_path / "rows").iterdir())


@pytest.mark.parametrize("role", ["rainy", "clean"])
def test_an_image_of_another_size_than_its_header_said_is_left_out(tmp_path, role):
    data = load_set(write_tree(tmp_path, images=3))
    path = tmp_path / role / "day_01.png"
    write_image(path, np.zeros((24, 32, 3), np.uint8))
    results = run_row(RowSpec("rainy"), data, RectangleDetector(), tmp_path, times=StageTimes())
    errors = [result.error for result in results.values() if result.error]
    assert errors == [f"{path} is 32x24 but was 64x48 by its header; copy it again"]


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
    assert {r["images"] for r in flat_rows(comparison) if r["condition"] == "all"} == {5}
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
    assert {r["input"] for r in flat_rows(comparison)} == {"rainy", "derained"}
    assert all(r["psnr"] is None and r["recovered"] is None for r in flat_rows(comparison))


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
    assert all(r["ci_low"] is None for r in flat_rows(comparison))


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


def test_a_set_without_boxes_ends_before_the_first_row(tmp_path):
    file = write_tree(tmp_path, images=2)
    content = json.loads((tmp_path / "instances.json").read_text())
    for annotation in content["annotations"]:
        annotation["bbox"] = None
    (tmp_path / "instances.json").write_text(json.dumps(content))
    detector = RectangleDetector()
    message = "tiny: none of its 0 boxes is of a category that the detector knows; malformed box: 5"
    with pytest.raises(DatasetError, match=message) as caught:
        run(file, tmp_path / "rows", detector=detector)
    assert "\n" not in str(caught.value)
    assert detector.frames_seen == 0


def test_two_categories_of_the_set_may_be_one_class_of_the_detector():
    match = match_categories({1: "car", 2: "van"}, {5: "car"}, {"van": "car"})
    assert dict(match.merged) == {1: 1, 2: 1}
    assert dict(match.label_to_category) == {5: 1}


@pytest.mark.parametrize(
    ("categories", "aliases", "message"),
    [
        ({1: "cat"}, {}, "no category .* the set has cat, the detector blue thing"),
        ({1: "cat"}, {"cat": "dog"}, "'dog'"),
        ({}, {}, "the set has no categories, the detector blue thing"),
    ],
)
def test_categories_that_cannot_match(categories, aliases, message):
    with pytest.raises(DatasetError, match=message):
        match_categories(categories, NAMES, aliases)
