"""From sets and specs to rows."""

import json
import math

import numpy as np
import pytest

from rainmer.errors import DatasetError, SpecError
from rainmer.frames.images import read_image, write_image
from tests.eval.restore.trees import (
    flat_rows,
    grey,
    pair,
    row,
    run,
    write_pairs,
    write_scenes,
)


def results(folder, numbers, template="{}.png"):
    for number in numbers:
        write_image(folder / template.format(number), pair(number)[1] // 2)
    return f"results:{folder}"


def test_rows_of_a_whole_comparison(tmp_path):
    root = write_pairs(tmp_path / "set")
    comparison = run(tmp_path, [f"mine=folders:{root}"], ["none", "median"])
    rainy, same, median = (row(comparison, name) for name in ("", "none", "median"))
    assert [one.input for one in comparison.table] == ["rainy", "derained", "derained"]
    assert rainy["delta_psnr"] is None
    assert (same["delta_psnr"], same["delta_psnr_low"], same["delta_psnr_high"]) == (0, 0, 0)
    assert same["psnr"] == rainy["psnr"]
    assert median["delta_psnr"] == pytest.approx(median["psnr"] - rainy["psnr"])
    assert median["delta_ssim_official_low"] <= median["delta_ssim_official"]
    assert (median["set"], median["layout"], median["images"]) == ("mine", "input-target", 4)
    assert median["ms_per_image"] > 0
    assert rainy["ms_per_image"] is None
    assert comparison.errors() == []
    values = [score.scores["psnr"] for score in comparison.rows[2].scores.values() if score.scores]
    assert median["psnr"] == pytest.approx(np.mean(values))


def test_equal_images_make_the_mean_infinite_and_are_counted(tmp_path):
    root = write_pairs(tmp_path / "set")
    write_image(root / "input/2.png", read_image(root / "target/2.png"))
    comparison = run(tmp_path, [f"folders:{root}"], ["none"])
    same = row(comparison, "none")
    assert math.isinf(same["psnr"])
    assert same["psnr_infinite"] == 1
    others = [s.scores["psnr"] for s in comparison.rows[1].scores.values()]
    assert same["psnr_of_others"] == pytest.approx(np.mean([v for v in others if v < math.inf]))
    assert same["delta_psnr"] is None
    assert same["delta_ssim"] == 0
    assert any("none: 1 of 4 images equal the clean ones" in note for note in comparison.notes)


def test_a_single_image_has_no_interval(tmp_path):
    comparison = run(tmp_path, [f"folders:{write_pairs(tmp_path / 'set', 1)}"])
    assert row(comparison, "median")["delta_psnr"] is not None
    assert row(comparison, "median")["delta_psnr_low"] is None


def test_without_clean_images_there_are_counts_and_times(tmp_path):
    write_pairs(tmp_path / "set", 3, rainy="Real_Internet/{}.png", clean=None)
    comparison = run(tmp_path, [f"realint:{tmp_path / 'set'}"])
    median = row(comparison, "median")
    assert median["images"] == 3
    assert median["ms_per_image"] > 0
    assert median["psnr"] is None
    assert median["delta_psnr"] is None
    assert not median["reference"]
    assert any("no clean images" in note for note in comparison.notes)
    json.dumps(flat_rows(comparison), allow_nan=False)


def test_scenes_have_means_of_their_own(tmp_path):
    comparison = run(tmp_path, [f"gtrain:{write_scenes(tmp_path / 'set')}"])
    median = [one for one in comparison.scenes if one.derainer == "median"]
    assert [one.scene for one in median] == ["a", "b", "c"]
    assert all(one.images == 2 for one in median)
    assert row(comparison, "median")["scenes"] == 3
    assert row(comparison, "median")["psnr"] == pytest.approx(
        np.mean([s.means["psnr"] for s in median])
    )


def test_scenes_and_not_images_are_resampled(tmp_path):
    root = write_scenes(tmp_path / "set", scenes=("a",), frames=5)
    assert row(run(tmp_path, [f"gtrain:{root}"]), "median")["delta_psnr_low"] is None


def test_results_of_a_single_set(tmp_path):
    root = write_pairs(tmp_path / "set")
    spec = results(tmp_path / "theirs", range(1, 5), "{}.jpg")
    theirs = row(run(tmp_path, [f"folders:{root}"], [spec]), "results-theirs")
    assert theirs["images"] == 4
    assert theirs["ms_per_image"] is None


def test_results_of_several_sets_lie_in_folders(tmp_path):
    one, two = (write_pairs(tmp_path / name, 2) for name in ("one", "two"))
    texts = [f"folders:{one}", f"folders:{two}"]
    spec = results(tmp_path / "theirs", (1, 2))
    with pytest.raises(SpecError, match=r"must hold a folder for each set, such as .*theirs/one"):
        run(tmp_path, texts, [spec])
    results(tmp_path / "theirs" / "ONE", (1, 2))
    results(tmp_path / "theirs" / "two", (1, 2))
    comparison = run(tmp_path, texts, [spec])
    assert row(comparison, "results-theirs", "one")["images"] == 2
    assert row(comparison, "results-theirs", "two")["images"] == 2


def test_results_that_lack_images_are_refused_with_a_list(tmp_path):
    root = write_pairs(tmp_path / "set")
    spec = results(tmp_path / "theirs", (1, 3))
    with pytest.raises(DatasetError, match=r"2 of the 4 images of set: 2.png, 4.png; --allow"):
        run(tmp_path, [f"folders:{root}"], [spec])
    comparison = run(tmp_path, [f"folders:{root}"], [spec, "none"], allow_missing=True)
    theirs, same = row(comparison, "results-theirs"), row(comparison, "none")
    assert (theirs["images"], theirs["set_images"], same["images"]) == (2, 4, 4)
    rainy = comparison.rows[0].scores
    before = np.mean([rainy[name].scores["psnr"] for name in ("1.png", "3.png")])
    assert theirs["delta_psnr"] == pytest.approx(theirs["psnr"] - before)
    assert any("without a result in results-theirs" in note for note in comparison.notes)
    assert comparison.errors() == []


def test_a_set_without_any_result_gets_no_row(tmp_path):
    one, two = (write_pairs(tmp_path / name, 2) for name in ("one", "two"))
    spec = results(tmp_path / "theirs" / "one", (1, 2)).removesuffix("/one")
    texts = [f"folders:{one}", f"folders:{two}"]
    comparison = run(tmp_path, texts, [spec], allow_missing=True)
    assert [(r.set, r.derainer) for r in comparison.table] == [
        ("one", ""), ("one", "results-theirs"), ("two", ""),
    ]  # fmt: skip


def test_a_result_of_another_size_is_left_out_and_told(tmp_path):
    root = write_pairs(tmp_path / "set")
    spec = results(tmp_path / "theirs", range(1, 5))
    write_image(tmp_path / "theirs" / "3.png", grey(size=(24, 31)))
    comparison = run(tmp_path, [f"folders:{root}"], [spec, "none"])
    assert row(comparison, "results-theirs")["images"] == 3
    assert row(comparison, "none")["images"] == 4
    (error,) = comparison.errors()
    assert "result of results-theirs that does not fit" in error
    assert "3.png is 31x24 pixels, but its rainy image is 32x24" in error


def test_an_image_that_cannot_be_decoded_is_left_out_of_all_rows(tmp_path):
    root = write_pairs(tmp_path / "set")
    path = root / "target/3.png"
    path.write_bytes(path.read_bytes()[:-20])  # the header is fine
    comparison = run(tmp_path, [f"folders:{root}"], ["none"])
    assert {one.images for one in comparison.table} == {3}
    assert "unreadable image, left out: 1" in comparison.errors()[0]
    assert str(path) in comparison.errors()[0]


def test_tiny_images_have_no_ssim_and_that_is_told(tmp_path):
    root = write_pairs(tmp_path / "set", 2)
    for folder in ("input", "target"):
        write_image(root / folder / "3.png", grey(size=(9, 30)))
    comparison = run(tmp_path, [f"folders:{root}"], ["none"])
    assert any("no SSIM of 1 images" in note for note in comparison.notes)
    assert row(comparison, "none")["ssim"] is not None


def test_unrounded_scores_see_what_rounding_hides(tmp_path):
    root = write_pairs(tmp_path / "set", 2)
    for number in (1, 2):
        write_image(root / f"input/{number}.png", grey(100))
        write_image(root / f"target/{number}.png", grey(100))
    spec = ["python:tests.eval.restore.trees:add_third_of_a_level"]
    rounded = run(tmp_path, [f"folders:{root}"], spec, conventions=["official"])
    exact = run(tmp_path, [f"folders:{root}"], spec, conventions=["official"], unrounded=True)
    names = {"derainer": "add_third_of_a_level", "conventions": ["official"]}
    assert math.isinf(row(rounded, **names)["psnr_official"])
    weights = 0.256789 + 0.504129 + 0.097906
    assert row(exact, **names)["psnr_official"] == pytest.approx(
        -20 * math.log10(weights * 0.3 / 255), abs=1e-2
    )
