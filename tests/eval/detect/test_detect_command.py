"""`python -m eval.detect` as a user types it."""

import dataclasses
import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from eval.detect.__main__ import main
from eval.sets import load_set
from rainmer.errors import DatasetError, OutputError, RainmerError, SpecError
from rainmer.files import append_line
from rainmer.frames.images import read_image, write_image
from tests.eval.recording import recorded_val
from tests.eval.trees import NAMES, rain, scene, write_tree, write_yaml

ROOT = Path(__file__).resolve().parents[3]


def arguments(file, detector, out, *more):
    return [
        "--data", str(file), "--detector", str(detector), "--out", str(out), "--imgsz", "64",
        "--device", "cpu", "--resamples", "50", "--no-cache", "--quiet", *more,
    ]  # fmt: skip


def test_a_run_leaves_every_file_and_prints_a_table(tmp_path, detector, capsys):
    file = write_tree(tmp_path / "set")
    out = tmp_path / "run"
    main(arguments(file, detector, out, "--derain", "none", "median"))
    printed = capsys.readouterr().out
    assert "mAP" in printed
    assert "median on clean" in printed
    assert "report.html" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["schema"] == 1
    assert (out / "report.html").stat().st_size < 5_000_000
    assert {"environment", "config", "rows", "elapsed_s", "notes"} <= metrics.keys()
    wanted = {
        "set", "condition", "input", "derainer", "mAP", "mAP50", "AR", "delta_mAP", "ci_low",
        "ci_high", "psnr", "ssim", "psnr_official", "ssim_official", "ms_per_image", "images",
        "boxes",
    }  # fmt: skip
    assert all(wanted <= row.keys() for row in metrics["rows"])
    inputs = {(row["input"], row["derainer"]) for row in metrics["rows"]}
    assert inputs == {("rainy", ""), ("clean", "")} | {
        (kind, name) for kind in ("derained", "derained_clean") for name in ("none", "median")
    }
    frame = pd.read_csv(out / "metrics.csv")
    assert len(frame) == len(metrics["rows"])
    assert np.isinf(pd.to_numeric(frame["psnr"]).max())
    classes = pd.read_csv(out / "per_class.csv")
    assert set(classes["class"]) <= set(NAMES.values())
    images = pd.read_csv(out / "images.csv")
    rainy = images[images["input"] == "rainy"]["psnr"].mean()
    assert rainy == pytest.approx(frame[frame["input"] == "rainy"]["psnr"].astype(float).iloc[0])
    truth = json.loads((out / "predictions" / "truth.json").read_text())
    assert len(truth["images"]) == 6
    for label in ("rainy", "clean", "derained-median", "derained_clean-none"):
        assert isinstance(json.loads((out / "predictions" / f"{label}.json").read_text()), list)
    assert "<html" in (out / "report.html").read_text()
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["imgsz"] == 64
    assert set(config["derainers"]) == {"none", "median"}


def test_the_numbers_follow_from_the_predictions(tmp_path, detector):
    from eval.scores.coco import Evaluation, GroundTruth

    file = write_tree(tmp_path / "set")
    out = tmp_path / "run"
    main(arguments(file, detector, out, "--derain"))
    truth = json.loads((out / "predictions" / "truth.json").read_text())
    ground_truth = GroundTruth(
        tuple(image["id"] for image in truth["images"]),
        {c["id"]: c["name"] for c in truth["categories"]},
        tuple(truth["annotations"]),
    )
    for row in json.loads((out / "metrics.json").read_text())["rows"]:
        if row["condition"] == "all":
            label = f"{row['input']}-{row['derainer']}".rstrip("-")
            results = json.loads((out / "predictions" / f"{label}.json").read_text())
            summary = Evaluation(ground_truth, results).summary(ground_truth.image_ids)
            assert row["mAP"] == pytest.approx(summary["mAP"], abs=1e-12)


def test_derain_alone_means_the_default_and_conditions_restrict(tmp_path, detector, capsys):
    file = write_tree(tmp_path / "set")
    out = tmp_path / "run"
    main(
        arguments(
            file, detector, out, "--derain", "--conditions", "night", "--limit", "2", "--json"
        )
    )
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["derainer"] for row in rows} == {"", "median", "rainmer-s"}
    assert {row["condition"] for row in rows} == {"all", "night"}
    assert {row["images"] for row in rows} == {2}


def test_broken_images_are_counted_and_end_in_an_error_that_keeps_the_results(tmp_path, detector):
    file = write_tree(tmp_path / "set")
    path = tmp_path / "set" / "clean" / "day_01.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"finished on 5 images.*unreadable image, skipped: 1"):
        main(arguments(file, detector, tmp_path / "run", "--derain"))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {row["images"] for row in metrics["rows"] if row["condition"] == "all"} == {5}
    assert "unreadable image, skipped: 1 (day_01.png)" in metrics["notes"]
    assert "day_01.png" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--derain", "medain"], "unknown derainer 'medain'"),
        (["--derain", "prenet:none.pth"], "none.pth"),
        (["--derain", "python:nowhere:f"], "nowhere"),
        (["--derain", "results:nowhere"], "no such folder"),
        (["--detector", "none.pt"], r"none\.pt"),
        (["--data", "none.yaml"], "cannot read none.yaml"),
        (["--conditions", "dusk"], "no condition 'dusk'"),
        (["--device", "cuda:77"], "no device"),
        (["--derain", "median", "--precision", "bf16", "--tile", "16"], "overlap"),
    ],
)
def test_mistakes_are_named(tmp_path, detector, more, message):
    file = write_tree(tmp_path / "set")
    with pytest.raises(RainmerError, match=message):
        main(arguments(file, detector, tmp_path / "run", *more))


def command(*argv, **options):
    return subprocess.run(
        [sys.executable, "-m", "eval.detect", *argv],
        capture_output=True, text=True, cwd=ROOT, timeout=120, **options,
    )  # fmt: skip


def test_a_mistake_is_one_line_and_code_2(tmp_path):
    done = command("--data", str(tmp_path / "none.yaml"), "--detector", "none.pt", "--derain")
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "none.yaml" in lines[0]
    assert "Traceback" not in done.stderr


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "python -m eval.detect --derain prenet:" in capsys.readouterr().out


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line_and_keeps_what_is_there(tmp_path, detector):
    """The kernel refuses to let any file grow over the limit, as a full disk does."""
    file = write_tree(tmp_path / "set")
    out = tmp_path / "run"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    done = command(*arguments(file, detector, out, "--derain"), preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: cannot write ")
    assert any((out / "rows").iterdir())
    assert not any(path.name.startswith(".") for path in out.rglob("*"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's full device")
def test_no_space_left_is_said():
    with pytest.raises(OutputError, match="No space left"):
        append_line(Path("/dev/full"), {"a": 1})


def test_a_folder_in_the_way_of_the_output(tmp_path, detector):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot create the folder"):
        main(arguments(write_tree(tmp_path / "set"), detector, tmp_path / "file", "--derain"))


def test_strips_show_the_images_that_changed(tmp_path):
    from eval.detect.comparison import compare, row_specs
    from eval.detect.strips import seen_in, select_strips
    from eval.detect.table import Settings
    from eval.rows.cache import CachedDerainer
    from rainmer import Derainer
    from tests.eval.trees import RectangleDetector

    data = load_set(write_tree(tmp_path, images=12))
    for sample in data.samples:
        write_image(sample.rainy, rain(read_image(sample.clean), sample.image_id, share=0.03))
    cached = [CachedDerainer(Derainer(spec, device="cpu"), None) for spec in ("none", "median")]
    specs = row_specs(data, cached)
    comparison = compare(data, RectangleDetector(), specs, tmp_path / "rows", Settings(resamples=0))
    strips = select_strips(seen_in(comparison, 0.25))
    assert strips
    for strip in strips:
        assert strip.derainer == "median", "the identity changes nothing"
        before, after, clean = strip.panels
        counted = "false" if strip.kind else "found"
        found = [sum(m.kind == counted for m in panel.marks) for panel in (before, after)]
        assert strip.gain == found[1] - found[0] != 0
        seed = int(Path(strip.image).stem.rsplit("_", 1)[1])
        np.testing.assert_array_equal(clean.frame, scene(seed)[0])


@pytest.mark.slow
def test_quiet_runs_stay_quiet(tmp_path, detector, capsys):
    level = logging.getLogger().level
    main(arguments(write_tree(tmp_path / "set", images=2), detector, tmp_path / "run", "--derain"))
    logging.getLogger().setLevel(level)
    assert capsys.readouterr().err == ""


@pytest.mark.shared_data
def test_the_clean_row_equals_stock_val(shared_data, tmp_path):
    """The harness against `yolo val`: same detections, hence the same mAP by pycocotools.

    Each label file has its first line twice: ultralytics drops it, and so do we.
    """
    from ultralytics import YOLO

    from detection.timing import StageTimes
    from detection.yolo.harness import ValidationHarness
    from eval.detect.truth import match_categories, set_truth
    from eval.rows.run import RowSpec, run_row
    from eval.scores.coco import Evaluation

    weights = shared_data / "detectors" / "yolov8n-coco.pt"
    data = load_set(shared_data / "coco128-rain100h" / "set.yaml").restricted(limit=24)
    names = {sample.clean.stem for sample in data.samples}
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        for path in (shared_data / "coco128" / part).iterdir():
            if path.stem in names and part == "images":
                (tmp_path / part / path.name).symlink_to(path.resolve())
            elif path.stem in names:
                lines = path.read_text().splitlines()
                (tmp_path / part / path.name).write_text("\n".join([*lines, *lines[:1]]))
    names = yaml.safe_load((shared_data / "coco128" / "coco128.yaml").read_text())["names"]
    content = {"path": str(tmp_path), "train": "images", "val": "images", "names": names}
    (tmp_path / "stock.yaml").write_text(yaml.safe_dump(content))
    ids = {sample.clean.name: sample.image_id for sample in data.samples}
    stock, own_map = recorded_val(
        YOLO(weights),
        data=str(tmp_path / "stock.yaml"),
        imgsz=640,
        project=str(tmp_path),
        name="val",
    )
    harness = ValidationHarness(str(weights), "cpu")
    run = run_row(RowSpec("clean"), data, harness, tmp_path / "rows", times=StageTimes())
    truth = set_truth(data, match_categories(data.categories, harness.names, {}))
    ours = [
        {"image_id": i, "category_id": int(label), "bbox": box, "score": score}
        for i, result in run.items()
        for *box, score, label in result.boxes
    ]
    # Without a COCO set's name, ultralytics counts classes from 1.
    theirs = [
        {**r, "image_id": ids[r["file_name"]], "category_id": r["category_id"] - 1} for r in stock
    ]
    assert len(ours) == len(theirs) > 1000
    stock_map = Evaluation(truth, theirs).summary(truth.image_ids)["mAP"]
    assert Evaluation(truth, ours).summary(truth.image_ids)["mAP"] == pytest.approx(
        stock_map, abs=1e-3
    )
    assert stock_map > 0.4
    labelled = {"name": "twice", "rainy": "images", "annotations": "labels", "names": names}
    twice = load_set(write_yaml(tmp_path, labelled))
    assert twice.defects.counts()["repairs"] == {
        "object listed twice, the first counts": len(list((tmp_path / "labels").iterdir()))
    }
    from_labels = set_truth(twice, match_categories(twice.categories, harness.names, {}))
    assert len(from_labels.annotations) == len(truth.annotations)
    ids = {sample.image_id: ids[sample.name] for sample in twice.samples}
    boxes = [{**box, "image_id": ids[box["image_id"]]} for box in from_labels.annotations]
    own_labels = dataclasses.replace(truth, annotations=tuple(boxes))
    assert Evaluation(own_labels, ours).summary(truth.image_ids)["mAP"] == pytest.approx(
        stock_map, abs=1e-3
    )
    # ultralytics integrates precision in another way than COCOeval.
    assert own_map == pytest.approx(stock_map, abs=0.02)


@pytest.mark.slow
def test_where_to_derain_is_compared(tmp_path, detector, capsys):
    file = write_tree(tmp_path / "set", images=4)
    out = tmp_path / "run"
    more = ["--derain", "none", "--no-control", "--union", "--where", "frame", "network"]
    main([*arguments(file, detector, out, *more), "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    names = ["none", "union-none", "network-none", "union-network-none"]
    assert list(dict.fromkeys(row["derainer"] for row in rows)) == ["", *names]
    by_name = {
        row["derainer"]: row
        for row in rows
        if (row["condition"], row["input"]) == ("all", "derained")
    }
    assert by_name["network-none"]["psnr"] is None
    assert by_name["network-none"]["ms_derain"] > 0
    for name in names:
        ends = [by_name[name][key] for key in ("delta_frame", "frame_ci_low", "frame_ci_high")]
        # The identity is the same everywhere.
        assert ends == ([0.0, 0.0, 0.0] if "network" in name else [None, None, None])
    assert (out / "predictions" / "derained_clean-network-none.json").exists()
    images = pd.read_csv(out / "images.csv", keep_default_na=False)
    assert set(images[images["derainer"] == "network-none"]["psnr"]) == {""}
    page = (out / "report.html").read_text()
    assert "network-none on clean" in page
    assert "network − frame [95 %]" in page
    main(arguments(file, detector, out, "--derain", "none", "--no-control", "--where", "network"))
    printed = capsys.readouterr().out
    assert "network-none" in printed
    assert "network − frame" not in printed, "there is nothing to compare with"


def test_results_of_others_have_no_network_resolution(tmp_path, detector):
    file = write_tree(tmp_path / "set", images=2)
    out = tmp_path / "run"
    spec = f"results:{tmp_path / 'set' / 'clean'}"
    with pytest.raises(SpecError, match="results-clean has derained frames of native size only"):
        main(arguments(file, detector, out, "--derain", spec, "--where", "frame", "network"))
    assert not out.exists()


@pytest.mark.slow
def test_errors_by_kind_and_unions_are_rows(tmp_path, detector):
    file = write_tree(tmp_path / "set", images=4)
    out = tmp_path / "run"
    main(arguments(file, detector, out, "--derain", "blend:0.5:median", "--union"))
    names = {"median", "union-median", "blend-0.5-median", "union-blend-0.5-median"}
    rows = pd.read_csv(out / "metrics.csv", keep_default_na=False)
    assert set(rows["derainer"]) == names | {""}
    errors = pd.read_csv(out / "breakdown.csv", keep_default_na=False)
    assert set(errors["derainer"]) == names | {""}
    main_rows = errors[(errors["class"] == "all") & (errors["size"] == "all")]
    for _, row in rows.iterrows():
        own = main_rows[
            (main_rows["condition"] == row["condition"])
            & (main_rows["input"] == row["input"])
            & (main_rows["derainer"] == row["derainer"])
        ]
        assert own[own["kind"] != "missed"]["count"].sum() == row["fp"]
    assert set(pd.read_csv(out / "changes.csv")["input"]) == {"clean", "derained", "derained_clean"}
    assert pd.read_csv(out / "image_changes.csv")["rank"].max() == 4
    assert set(pd.read_csv(out / "where.csv")["derainer"]) == names
    assert 'id="errors"' in (out / "report.html").read_text()
    assert 'id="where"' in (out / "report.html").read_text()
    main(arguments(file, detector, out, "--no-breakdown"))
    for name in ("breakdown.csv", "where.csv", "harm.csv", "readings.csv"):
        assert not (out / name).exists()
    assert 'id="errors"' not in (out / "report.html").read_text()
    assert 'id="where"' not in (out / "report.html").read_text()


@pytest.mark.slow
def test_gates_say_which_share_they_derained_also_from_the_cache(tmp_path, detector, capsys):
    file = write_tree(tmp_path / "set", images=4)
    fixed = ["--no-control", "--derain", "gate:0:median", "gate:1:median", "median"]
    shares = {"gate-0-median": 1.0, "gate-1-median": 0.0, "median": None, "": None}
    runs = []
    for name in ("first", "second"):
        options = arguments(file, detector, tmp_path / name, *fixed)
        options[options.index("--no-cache")] = f"--cache={tmp_path / 'cache'}"
        main(options)
        printed = capsys.readouterr().out
        assert "gate-0-median: at most " in printed
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        runs.append(metrics["rows"])
        for row in metrics["rows"]:
            assert row["share_derained"] == shares[row["derainer"]]
        images = pd.read_csv(tmp_path / name / "images.csv")
        assert images[images["derainer"] == "gate-1-median"]["derained"].eq(0).all()
        assert images[images["derainer"] == "median"]["derained"].isna().all()
        assert 0 < metrics["gate_threshold"] < 1
        assert {row["derainer"] for row in metrics["harm"]} == shares.keys() - {""}
        assert len(pd.read_csv(tmp_path / name / "readings.csv")) == 8
    times = [
        {(r["input"], r["condition"]): r["ms_derain"] for r in rows if r["derainer"] == "median"}
        for rows in runs
    ]
    assert times[0] == times[1]
    # Time behind a gate is the meter's, with that of what was derained, cached or not.
    assert all(
        row["ms_derain"] > times[0][row["input"], row["condition"]]
        for rows in runs
        for row in rows
        if row["derainer"] == "gate-0-median"
    )
    passed = [row for row in runs[0] if row["derainer"] == "gate-1-median"]
    assert all(row["delta_mAP"] in (0.0, None) and row["ms_derain"] > 0 for row in passed)


def test_repairs_of_labels_are_in_print_report_and_numbers(tmp_path, detector, capsys):
    file = write_tree(tmp_path / "set", images=2, labels="yolo", conditions=False)
    out = tmp_path / "run"
    for path in (tmp_path / "set" / "labels").iterdir():
        path.write_text(f"{path.read_text()}\n{path.read_text()}\n0 0.5 0.5\n")
    few = ["--derain", "none", "--no-control", "--no-breakdown"]
    with pytest.raises(DatasetError, match="malformed label line: 2"):
        main(arguments(file, detector, out, *few))
    printed = capsys.readouterr().out
    kind = "object listed twice, the first counts"
    assert f"repaired: {kind}: 5 (day_01.txt:4, day_01.txt:5, day_01.txt:6, ...)" in printed
    assert json.loads((out / "metrics.json").read_text())["defects"] == {
        "errors": {"malformed label line": 2},
        "repairs": {kind: 5},
        "notes": {},
    }
    report = (out / "report.html").read_text()
    assert "Labels: what was repaired" in report
    assert kind in report
