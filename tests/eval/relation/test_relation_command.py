"""`python -m eval.relation` from sets to files."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from eval.detect.comparison import compare, row_specs
from eval.detect.table import Settings
from eval.relation.coefficients import KINDS
from eval.rows.cache import CachedDerainer
from eval.sets import load_set
from rainmer import Derainer
from rainmer.errors import DatasetError, OutputError, SpecError
from rainmer.frames.images import read_image, write_image
from tests.eval.pages import Page, check_self_contained
from tests.eval.relation.conftest import FILTERS, RectangleHarness, run, write_set
from tests.eval.trees import RectangleDetector

CONDITIONS = ("all", "day", "night")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return [write_set(root, "first"), write_set(root, "second", images=10, labels="yolo")]


@pytest.fixture(scope="module")
def finished(sets, tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), sets, figures=True)


def read(folder, name):
    return pd.read_csv(folder / f"{name}.csv", float_precision="round_trip")


def by_pandas(table, x, y, kind):
    return table[[x, y]].dropna().corr(method=kind).iloc[0, 1]


def test_every_file_is_there_and_says_the_same(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "relation.csv", "images.csv", "correlations.csv", "metrics.json", "config.yaml",
        "relation.svg", "relation.png", "report.html", "rows",
    }  # fmt: skip
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["schema"] == 1
    assert {"environment", "config", "elapsed_s", "sets", "failures"} <= metrics.keys()
    assert "scipy" in metrics["environment"]
    assert metrics["failures"] == {}
    rows = read(finished, "relation")
    assert len(rows) == len(metrics["rows"]) == 2 * 3 * 5
    assert set(rows["derainer"]) == {"gauss", "erode", "bright", "none", "median"}
    assert sorted(rows.loc[rows["control"], "derainer"].unique()) == ["median", "none"]
    assert len(read(finished, "correlations")) == len(metrics["correlations"])
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert set(config["derainers"]) == set(rows["derainer"])
    assert (finished / "relation.svg").read_text().rstrip().endswith("</svg>")
    assert read_image(finished / "relation.png").std() > 0


@pytest.mark.parametrize("scope", ["set", "pooled"])
def test_pandas_finds_the_same_correlations_over_derainers(finished, scope):
    rows, correlations = read(finished, "relation"), read(finished, "correlations")
    chosen = correlations[correlations["scope"] == scope]
    assert set(chosen["condition"]) == set(CONDITIONS)
    for _, one in chosen.iterrows():
        points = rows[rows["condition"] == one["condition"]]
        if scope == "set":
            points = points[points["set"] == one["set"]]
        if one["points"] == "derainers":
            points = points[~points["control"]]
        for kind in KINDS:
            expected = by_pandas(points, one["restoration"], one["detection"], kind)
            assert one[kind] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_pandas_finds_the_same_correlations_over_images(finished):
    images, correlations = read(finished, "images"), read(finished, "correlations")
    chosen = correlations[correlations["scope"] == "images"]
    assert len(chosen) == 2 * 3 * 5 * 4
    for _, one in chosen.iterrows():
        members = (
            images["conditions"].str.split("|").map(lambda c, name=one["condition"]: name in c)
        )
        own = (images["set"] == one["set"]) & (images["derainer"] == one["derainer"])
        points = images[own & members]
        assert one["n"] == len(points)
        for kind in KINDS:
            if one["derainer"] == "none":
                assert np.isnan(one[kind])
                assert one["note"] == "the restoration gain is the same at all points"
            else:
                expected = by_pandas(points, one["restoration"], "delta_f1", kind)
                assert one[kind] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_intervals_are_ordered_and_hold_most_coefficients(finished):
    correlations = read(finished, "correlations")
    for kind in KINDS:
        known = correlations.dropna(subset=[f"{kind}_low"])
        assert len(known) > 100
        assert (known[f"{kind}_low"] <= known[f"{kind}_high"]).all()
        assert known[f"{kind}_low"].between(-1, 1).all()
        inside = known[kind].between(known[f"{kind}_low"] - 1e-9, known[f"{kind}_high"] + 1e-9)
        assert inside.mean() > 0.9
    missing = correlations[correlations["spearman_low"].isna()]
    assert missing["note"].notna().all()


def test_gains_are_those_of_the_comparison_of_eval_detect(sets, finished, tmp_path):
    """The same mAP, the same difference, and with one seed the same interval."""
    cached = [CachedDerainer(Derainer(spec, device="cpu"), None) for spec in (*FILTERS, "median")]
    data = load_set(sets[0])
    specs = row_specs(data, cached)
    comparison = compare(data, RectangleDetector(), specs, tmp_path, Settings(resamples=60))
    table = pd.DataFrame([row.flat() for row in comparison.table])
    rows = read(finished, "relation")
    for condition in CONDITIONS:
        own = table[table["condition"] == condition].set_index(["input", "derainer"])
        for name in ("gauss", "erode", "bright", "median"):
            chosen = (rows["set"] == "first") & (rows["condition"] == condition)
            (ours,) = rows[chosen & (rows["derainer"] == name)].to_dict("records")
            theirs, rainy = own.loc["derained", name], own.loc["rainy", ""]
            assert ours["images"] == theirs["images"]
            assert ours["mAP_clean"] == own.loc[("clean", ""), "mAP"]
            assert ours["delta_mAP"] == pytest.approx(theirs["delta_mAP"], abs=1e-12)
            assert ours["relative_mAP"] == pytest.approx(theirs["delta_mAP"] / rainy["mAP"])
            assert ours["recovered"] == pytest.approx(theirs["recovered"], nan_ok=True)
            assert ours["delta_mAP_low"] == pytest.approx(theirs["ci_low"], abs=1e-12)
            assert ours["delta_mAP_high"] == pytest.approx(theirs["ci_high"], abs=1e-12)
            for score in ("psnr", "ssim", "psnr_official", "ssim_official"):
                assert ours[f"delta_{score}"] == pytest.approx(theirs[score] - rainy[score])
                assert ours[f"delta_{score}_low"] <= ours[f"delta_{score}"]
                assert ours[f"delta_{score}"] <= ours[f"delta_{score}_high"]


def test_images_add_up_to_rows(finished):
    images, rows = read(finished, "images"), read(finished, "relation")
    for _, row in rows[rows["condition"] == "night"].iterrows():
        own = (images["set"] == row["set"]) & (images["derainer"] == row["derainer"])
        night = images[own & images["conditions"].str.contains("night")]
        assert night["delta_psnr"].mean() == pytest.approx(row["delta_psnr"])
        assert night["delta_ssim_official"].mean() == pytest.approx(row["delta_ssim_official"])
        found, wrong = 2 * night["tp"], night["fp"] + night["fn"]
        assert (night["f1"] * (found + wrong)).to_numpy() == pytest.approx(found.to_numpy())
        assert (night["tp"] + night["fn"]).sum() == row["boxes"]


def test_the_identity_gains_nothing(finished):
    rows = read(finished, "relation")
    identity = rows[rows["derainer"] == "none"]
    for key in ("delta_psnr", "delta_ssim", "delta_mAP", "relative_mAP"):
        assert (identity[[key, f"{key}_low", f"{key}_high"]] == 0).all(axis=None)


def test_the_report_is_one_page(finished):
    text = (finished / "report.html").read_text()
    page = Page(text)
    check_self_contained(text)
    assert not page.all("img")
    assert "http" not in text.replace("http://www.w3.org", "")
    for words in (
        "Does better restoration mean better detection?", "Conditions side by side", "night",
        "first", "second", "all sets together", "median control", "Image by image", "Spearman",
        "python -m eval.relation --derain",
    ):  # fmt: skip
        assert words in page.text
    assert "Agreement" not in page.text
    assert len(page.all("svg")) == 4


def test_the_terminal_shows_gains_and_correlations(sets, tmp_path, capsys):
    run(tmp_path, sets[:1], "--conditions", "night")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["set", "condition", "derainer"]
    assert "3 derainers are too few for a correlation: it takes 6" in lines
    assert not any(line.startswith("PSNR and mAP: Pearson ") for line in lines)
    assert lines[-1].endswith("report.html")


def test_json_is_printed(sets, tmp_path, capsys):
    run(tmp_path, sets[:1], "--json", "--limit", "4", "--resamples", "0")
    metrics = json.loads(capsys.readouterr().out)
    assert all(row["delta_mAP_low"] is None for row in metrics["rows"])
    scopes = {row["scope"] for row in metrics["correlations"]}
    assert scopes == {"set", "images"}
    assert all(row["spearman_low"] is None for row in metrics["correlations"])
    assert any("no resamples" in row["note"] for row in metrics["correlations"])


def test_two_derainers_have_no_correlation(sets, tmp_path):
    run(tmp_path, sets[:1], "--no-control", derain=FILTERS[:2])
    correlations = read(tmp_path, "correlations")
    over_derainers = correlations[correlations["scope"] == "set"]
    assert set(over_derainers["note"]) == {"2 points: a correlation needs 3"}
    assert over_derainers[list(KINDS)].isna().all(axis=None)
    page = Page((tmp_path / "report.html").read_text())
    assert "2 derainers are too few for a correlation: it takes 6" in page.text


def test_controls_do_not_help_out_where_derainers_are_few(sets, tmp_path, capsys):
    run(tmp_path, sets[:1], "--limit", "3", derain=FILTERS[:1])
    assert "1 derainer is too few for a correlation" in capsys.readouterr().out
    page = Page((tmp_path / "report.html").read_text())
    assert "3 of 8 images" in page.text
    assert "all images" not in page.text


def test_one_image_has_no_interval(tmp_path):
    file = write_set(tmp_path, "one", images=1, conditions=False)
    run(tmp_path / "run", [file])
    rows = read(tmp_path / "run", "relation")
    assert rows["delta_psnr"].notna().all()
    assert rows[["delta_psnr_low", "delta_mAP_low"]].isna().all(axis=None)
    correlations = read(tmp_path / "run", "correlations")
    images = correlations[correlations["scope"] == "images"]
    assert set(images["note"]) == {"1 point: a correlation needs 3"}
    assert correlations["spearman_low"].isna().all()


def test_one_broken_set_does_not_lose_the_others(sets, tmp_path):
    bare = write_set(tmp_path, "bare", clean=False)
    empty = write_set(tmp_path, "empty", labels="yolo")
    for path in (tmp_path / "empty" / "labels").iterdir():
        path.write_text("")
    missing = tmp_path / "none.yaml"
    message = r"finished 1 sets.*none\.yaml.*bare has no clean images.*empty: none of its 0 boxes"
    with pytest.raises(DatasetError, match=message):
        run(tmp_path / "run", [missing, bare, empty, sets[0]])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {row["set"] for row in metrics["rows"]} == {"first"}
    assert set(metrics["failures"]) == {str(missing), str(bare), "empty"}
    text = Page((tmp_path / "run" / "report.html").read_text()).text
    assert "Sets that are missing here: " in text
    assert "bare has no clean images" in text


def test_nothing_but_broken_sets(tmp_path):
    bare = write_set(tmp_path, "bare", clean=False)
    with pytest.raises(DatasetError, match="bare has no clean images"):
        run(tmp_path / "run", [bare])
    assert not (tmp_path / "run").exists()


def test_sets_of_one_name_are_told_apart(sets, tmp_path):
    other = write_set(tmp_path, "first")
    with pytest.raises(DatasetError, match="another set is called 'first'"):
        run(tmp_path / "run", [sets[0], other])


def test_unreadable_images_and_repaired_labels_are_named(tmp_path, capsys):
    file = write_set(tmp_path, "torn", labels="yolo")
    labels = tmp_path / "torn" / "labels" / "night_00.txt"
    labels.write_text(f"{labels.read_text()}\n{labels.read_text()}")
    path = tmp_path / "torn" / "rainy" / "day_01.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"torn has defects: unreadable image, skipped: 1"):
        run(tmp_path / "run", [file])
    assert set(read(tmp_path / "run", "relation").query("condition == 'all'")["images"]) == {7}
    report = (tmp_path / "run" / "report.html").read_text()
    assert "day_01.png" in report
    assert "Labels: what was repaired" in report
    kind = "object listed twice, the first counts"
    printed = f"repaired: torn: {kind}: 2 (night_00.txt:3, night_00.txt:4)"
    assert printed in capsys.readouterr().out
    (described,) = json.loads((tmp_path / "run" / "metrics.json").read_text())["sets"]
    assert described["defects"] == {
        "errors": {"unreadable image, skipped": 1},
        "repairs": {kind: 2},
        "notes": {},
    }


def test_an_interrupted_run_resumes_to_the_same_numbers(sets, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(RectangleHarness, "stop", 70)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, sets)
    monkeypatch.setattr(RectangleHarness, "stop", None)
    run(tmp_path, sets)
    assert 0 < RectangleHarness.made[-1].frames_seen < 126 - 60
    for name in ("relation", "images", "correlations"):
        assert (tmp_path / f"{name}.csv").read_text() == (finished / f"{name}.csv").read_text()
    run(tmp_path, sets)
    assert RectangleHarness.made[-1].frames_seen == 0


def test_pseudo_labels_of_the_detector_or_of_a_labeller(tmp_path):
    file = write_set(tmp_path, "bare", labels=None)
    own, labelled = tmp_path / "own", tmp_path / "labelled"
    run(own, [file])
    run(labelled, [file], "--labeller", "strict.pt")
    ours, theirs = read(own, "relation"), read(labelled, "relation")
    assert set(ours["truth"]) == {"pseudo-labels of the detector itself"}
    assert set(theirs["truth"]) == {"pseudo-labels of strict.pt"}
    assert ours["mAP_clean"].to_numpy() == pytest.approx(1.0)
    assert (theirs["boxes"] < ours["boxes"]).all()
    assert (theirs["mAP_clean"] <= 1.0).all()
    assert ours["psnr"].equals(theirs["psnr"])
    assert "--labeller with a stronger detector is recommended" in (
        Page((own / "report.html").read_text()).text
    )
    assert "recommended" not in Page((labelled / "report.html").read_text()).text
    config = yaml.safe_load((labelled / "config.yaml").read_text())
    assert config["labeller_fingerprint"] == "rectangles-strict.pt"


def test_the_confidence_of_pseudo_labels(tmp_path):
    file = write_set(tmp_path, "bare", labels=None)
    boxes = []
    for conf in ("0.1", "0.7"):
        run(tmp_path / conf, [file], "--pseudo-conf", conf, "--labeller", "other.pt")
        boxes.append(read(tmp_path / conf, "relation")["boxes"].max())
    assert boxes[0] > boxes[1] > 0
    with pytest.raises(DatasetError, match=r"bare: no detection of confidence 1\.0"):
        run(tmp_path / "none", [file], "--pseudo-conf", "1", "--labeller", "other.pt")


def copy_results(file, folder, role="clean"):
    data = load_set(file)
    for sample in data.samples:
        frame = read_image(getattr(sample, role)).astype(np.int16) + 3
        write_image(folder / sample.name, frame.clip(0, 255).astype(np.uint8))


def test_results_of_each_set(sets, tmp_path):
    for file in sets:
        copy_results(file, tmp_path / "theirs" / load_set(file).name)
    spec = f"results:{tmp_path}/theirs/{{set}}"
    run(tmp_path / "run", sets, derain=[spec])
    rows = read(tmp_path / "run", "relation")
    theirs = rows[rows["derainer"] == "results-theirs"]
    assert set(theirs["set"]) == {"first", "second"}
    assert (theirs["delta_psnr"] > 10).all()
    shutil.rmtree(tmp_path / "theirs" / "second")
    with pytest.raises(DatasetError, match=r"second: results:.*/theirs/second: no such folder"):
        run(tmp_path / "run", sets, derain=[spec])
    assert set(read(tmp_path / "run", "relation")["set"]) == {"first"}


def test_a_missing_result_costs_its_set(sets, tmp_path):
    for file in sets:
        copy_results(file, tmp_path / "theirs" / load_set(file).name)
    (tmp_path / "theirs" / "first" / "day_01.png").unlink()
    with pytest.raises(DatasetError, match=r"first: no image is named day_01 in"):
        run(tmp_path / "run", sets, derain=[f"results:{tmp_path}/theirs/{{set}}"])
    assert set(read(tmp_path / "run", "relation")["set"]) == {"second"}


def test_one_folder_of_results_cannot_serve_two_sets_with_the_same_names(sets, tmp_path):
    copy_results(sets[1], tmp_path / "theirs")
    with pytest.raises(SpecError, match=r"both first and second have an image .*theirs/\{set\}"):
        run(tmp_path / "run", sets, derain=[f"results:{tmp_path}/theirs"])


def test_perfect_restoration_has_no_finite_gain(sets, tmp_path):
    data = load_set(sets[0])
    for sample in data.samples:
        shutil.copy(sample.clean, tmp_path / sample.clean.name)
    run(tmp_path / "run", sets[:1], derain=[f"results:{tmp_path}", *FILTERS])
    rows = read(tmp_path / "run", "relation")
    perfect = rows[rows["derainer"] == f"results-{tmp_path.name}"]
    assert perfect["delta_psnr"].isna().all()
    assert (perfect["images_scored"] == 0).all()
    assert perfect["ssim"].to_numpy() == pytest.approx(1.0)
    assert perfect["recovered"].to_numpy() == pytest.approx(1.0)
    correlations = read(tmp_path / "run", "correlations")
    wanted = "scope == 'set' and points == 'derainers' and condition == 'all'"
    counts = correlations.query(wanted).groupby("restoration")["n"].max()
    assert (counts["delta_psnr"], counts["delta_ssim"]) == (3, 4)


def test_odd_names_are_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_set(tmp_path, "a.b c")
    folder = tmp_path / "<i>theirs&"
    copy_results(file, folder)
    run(tmp_path / "run", [file], derain=[f"results:{folder}"], figures=True)
    text = (tmp_path / "run" / "report.html").read_text()
    assert "<i>theirs" not in text
    assert Page(text).text.count("results-<i>theirs&") > 3


def test_mistakes_end_before_the_work(sets, tmp_path):
    with pytest.raises(SpecError, match="unknown derainer 'medain'"):
        run(tmp_path / "run", sets, derain=["medain"])
    for folder in ("a", "b"):
        copy_results(sets[0], tmp_path / folder / "net")
    with pytest.raises(SpecError, match="two derainers are called 'net'"):
        run(tmp_path / "run", sets, derain=[f"net=results:{tmp_path}/{f}/net" for f in "ab"])
    assert not (tmp_path / "run").exists()


def test_a_folder_in_the_way_ends_the_run(sets, tmp_path):
    (tmp_path / "rows").write_text("in the way")
    with pytest.raises(OutputError, match="rows"):
        run(tmp_path, sets)
