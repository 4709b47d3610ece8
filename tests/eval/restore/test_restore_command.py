"""`python -m eval.restore` as a user types it."""

import json
import re

import pandas as pd
import pytest

from eval.restore import command
from eval.restore.__main__ import main
from eval.restore.options import parse
from rainmer.errors import DatasetError, RainmerError
from rainmer.frames.images import write_image
from tests.eval.pages import check_self_contained
from tests.eval.restore.trees import grey, write_pairs, write_scenes


def arguments(out, sets, *more, derain=("median",)):
    return [
        "--derain", *map(str, derain), "--sets", *map(str, sets), "--out", str(out),
        "--device", "cpu", "--resamples", "50", "--quiet", "--cache", str(out / "cache"), *more,
    ]  # fmt: skip


def test_a_run_leaves_every_file_and_prints_a_table(tmp_path, capsys):
    root = write_pairs(tmp_path / "set")
    out = tmp_path / "run"
    sets = [f"mine=folders:{root}", f"gtrain:{write_scenes(tmp_path / 'scenes')}"]
    main(arguments(out, sets, derain=("none", "median")))
    printed = capsys.readouterr().out
    assert "Δ PSNR [95 %]" in printed
    assert "report.html" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["schema"] == 1
    assert {"environment", "config", "rows", "notes", "sets"} <= metrics.keys()
    wanted = {
        "set", "condition", "input", "derainer", "psnr", "ssim", "psnr_official", "ssim_official",
        "delta_psnr", "delta_psnr_low", "delta_psnr_high", "ms_per_image", "images",
    }  # fmt: skip
    assert all(wanted <= row.keys() for row in metrics["rows"])
    assert [(r["set"], r["derainer"]) for r in metrics["rows"]] == [
        (name, derainer) for name in ("mine", "gtrain") for derainer in ("", "none", "median")
    ]
    frame = pd.read_csv(out / "metrics.csv")
    assert len(frame) == 6
    images = pd.read_csv(out / "images.csv", keep_default_na=False)
    assert len(images) == 3 * (4 + 6)
    mine = images[(images["set"] == "mine") & (images["derainer"] == "median")]
    assert mine["psnr"].astype(float).mean() == pytest.approx(metrics["rows"][2]["psnr"])
    assert set(pd.read_csv(out / "scenes.csv")["scene"]) == {"a", "b", "c"}
    assert "**" in (out / "table.md").read_text()
    assert r"\toprule" in (out / "table.tex").read_text()
    check_self_contained((out / "report.html").read_text())
    config = metrics["config"]
    assert set(config["derainers"]) == {"none", "median"}
    assert (config["tile"], config["overlap"]) == (None, 32)


def test_a_second_run_gives_the_same_numbers(tmp_path, capsys):
    sets = [f"folders:{write_pairs(tmp_path / 'set')}"]
    runs = []
    for _ in range(2):
        main(arguments(tmp_path / "run", sets, "--json"))
        runs.append(json.loads(capsys.readouterr().out)["rows"])
    assert all(row["ms_timed"] == "now" for row in runs[0] if row["derainer"])
    for row in runs[1]:
        assert row.pop("ms_timed") == ("earlier" if row["derainer"] else "")
    assert [{k: v for k, v in row.items() if k != "ms_timed"} for row in runs[0]] == runs[1]


def test_the_paper_s_protocol(tmp_path):
    root = write_pairs(tmp_path / "set", 2)
    out = tmp_path / "run"
    spec = "python:tests.eval.restore.trees:add_third_of_a_level"
    main(arguments(out, [f"folders:{root}"], "--protocol", "paper", derain=(spec,)))
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["config"]["tile"], metrics["config"]["overlap"]) == (512, 0)
    assert metrics["rows"][1]["psnr_official"] != metrics["rows"][0]["psnr_official"]
    assert not (out / "cache").exists() or not list((out / "cache").rglob("*.png"))
    stage = command._stage(
        parse(
            arguments(out, ["folders:x"], "--protocol", "paper", "--tile", "64", "--overlap", "16")
        )
    )
    assert (stage["tile"], stage["overlap"]) == (64, 16)
    assert (stage["blend"], stage["tile_by"]) == ("mean", "short")


def test_frames_may_be_rounded_down(tmp_path):
    root = write_pairs(tmp_path / "set", 2)
    scores = []
    for more in ((), ("--truncate",)):
        out = tmp_path / f"run{len(more)}"
        main(arguments(out, [f"folders:{root}"], *more, derain=("blend:0.5:median",)))
        rows = json.loads((out / "metrics.json").read_text())["rows"]
        scores.append([row["psnr_official"] for row in rows])
        assert ("rounded down" in (out / "report.html").read_text()) == bool(more)
    assert scores[0][0] == scores[1][0]  # the rainy input is what it is
    assert scores[0][1] != scores[1][1]


def test_one_convention(tmp_path):
    root = write_pairs(tmp_path / "set", 2)
    main(arguments(tmp_path / "run", [f"folders:{root}"], "--conventions", "rgb", "rgb"))
    (_, median) = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
    assert "psnr_rgb" in median
    assert "psnr" not in median


def test_a_crop_is_refused_and_the_others_are_measured(tmp_path, type_in):
    root = write_pairs(tmp_path / "set")
    write_image(root / "target/3.png", grey(size=(20, 32)))
    out = tmp_path / "run"
    code, printed, lines = type_in(*arguments(out, [f"folders:{root}"]))
    assert code == 2
    assert "median" in printed
    assert len(lines) == 1
    assert lines[0].startswith("error: finished, results in ")
    assert f"input/3: 32x24, clean 32x20 in {root / 'target/3.png'}" in lines[0]
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert {row["images"] for row in rows} == {3}
    assert "3.png" in (out / "report.html").read_text()


def test_a_missing_target_ends_in_code_2_after_the_results(tmp_path):
    root = write_pairs(tmp_path / "set")
    (root / "target/2.png").unlink()
    out = tmp_path / "run"
    with pytest.raises(DatasetError, match=r"without clean partner: 1 \(input/2.png"):
        main(arguments(out, [f"folders:{root}"]))
    assert (out / "report.html").exists()


def test_extra_files_are_noted(tmp_path, capsys):
    root = write_pairs(tmp_path / "set")
    write_image(root / "target/more.png", grey())
    main(arguments(tmp_path / "run", [f"folders:{root}"]))
    assert "clean image without rainy partner: 1 (target/more.png)" in capsys.readouterr().out


def test_constant_and_equal_images(tmp_path, capsys):
    for folder in ("input", "target"):
        for number, value in ((1, 0), (2, 255)):
            write_image(tmp_path / "set" / folder / f"{number}.png", grey(value))
    main(arguments(tmp_path / "run", [f"folders:{tmp_path / 'set'}"], derain=("none",)))
    assert "∞" in capsys.readouterr().out
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
    assert [row["psnr"] for row in rows] == ["inf", "inf"]
    assert [row["psnr_infinite"] for row in rows] == [2, 2]


@pytest.mark.parametrize(
    ("sets", "more", "message"),
    [
        (["rain100K:{root}"], [], "no layout 'rain100K'"),
        (["rain100H:{root}"], [], "does not hold rain100H"),
        (["folders:{root}/empty"], [], "no folder"),
        (["folders"], [], "is not NAME:ROOT"),
        (["folders:{root}", "folders:{root}"], [], "two sets are called"),
        (["folders:{root}"], ["--conventions", "ycbcr"], "invalid choice: 'ycbcr'"),
        (["folders:{root}"], ["--device", "cuda:77"], "no device"),
        (["folders:{root}"], ["--tile", "16"], "overlap"),
        (["folders:{root}"], ["--limit", "0"], "--limit"),
        (["folders:{root}"], ["--protocol", "paper", "--truncate"], "--truncate is of 8-bit"),
        (["folders:{root}"], ["--derain", "medain"], "unknown derainer 'medain'"),
        (["folders:{root}"], ["--derain", "results:{root}/empty"], "no such folder"),
        (["folders:{root}"], ["--derain", "results:{root}/target"], None),
    ],
)
def test_mistakes_are_one_line(tmp_path, type_in, sets, more, message):
    root = write_pairs(tmp_path / "set", 2)
    fill = lambda texts: [text.format(root=root) for text in texts]  # noqa: E731
    code, _, lines = type_in(*arguments(tmp_path / "run", fill(sets), *fill(more)))
    assert code == (2 if message else 0)
    if message:
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert message in lines[0]
        assert not (tmp_path / "run" / "metrics.json").exists()


def test_missing_results_are_listed(tmp_path):
    root = write_pairs(tmp_path / "set", 3)
    write_image(tmp_path / "theirs" / "1.png", grey())
    options = arguments(
        tmp_path / "run", [f"folders:{root}"], derain=(f"results:{tmp_path / 'theirs'}",)
    )
    with pytest.raises(RainmerError, match=r"results of 2 of the 3 images of set: 2.png, 3.png"):
        main(options)
    main([*options, "--allow-missing"])
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
    assert [row["images"] for row in rows] == [3, 1]


def test_help_shows_an_example(type_in):
    code, printed, _ = type_in("--help")
    assert code == 0
    assert re.search(r"python -m eval.restore --derain prenet:\S+ --sets rain100H:/data", printed)


def test_the_folder_of_many_sets_has_a_short_name(tmp_path):
    root = write_pairs(tmp_path / "set", 1)
    sets = command.load_sets([f"{'n' * 30}{i}=folders:{root}" for i in range(4)])
    assert command._run_name(sets) == f"{'n' * 30}0-and-3-more"
    assert command._run_name(sets[:1]) == f"{'n' * 30}0"
