"""`python -m rainmer.align`: crops, tables, balanced sets, figures and leaks on small trees."""

import csv
import errno
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rainmer.align.__main__ import main
from rainmer.align.command import EXIT_LEAKS
from rainmer.align.measure import read_measured
from rainmer.cli import run_command
from rainmer.data.layouts.sets import read_set
from rainmer.errors import ConfigError, DatasetError, ImageError, OutputError
from rainmer.frames.images import read_image, write_image


def picture(seed=0, size_hw=(20, 30)):
    small = np.random.default_rng(seed).integers(0, 200, (5, 7, 3)).astype(np.uint8)
    return cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


def rained(frame, amount):
    wet = frame.astype(np.int64)
    wet[:, ::2] += amount
    return np.clip(wet, 0, 255).astype(np.uint8)


def night_tree(root, split="train", rainy="rainy", clean="gt"):
    """Two sets of GTAV-NightRain, two scenes each, with two kinds of rain."""
    for number, name in enumerate(("set1", "set2")):
        for scene in range(2):
            frame = picture(10 * number + scene)
            write_image(root / name / split / clean / f"{scene:04d}.png", frame)
            for kind in range(2):
                path = root / name / split / rainy / f"{scene:04d}_{kind:02d}.png"
                write_image(path, rained(frame, 20 + 60 * kind))
    return root


def pair_tree(root, count=12, amounts=(2, 8, 40)):
    for number in range(count):
        frame = picture(number)
        write_image(root / "clean" / f"{number:02d}.png", frame)
        write_image(
            root / "rainy" / f"{number:02d}.png", rained(frame, amounts[number % len(amounts)])
        )
    return root


def align(*arguments):
    quiet = [] if arguments[0] == "plot" else ["--quiet"]
    main([*map(str, arguments), *quiet])


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


# --- crop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("train", "rainy", "gt"), ("Train", "Rainy", "GT")])
def test_night_rain_is_cut_under_the_published_names(tmp_path, out, names, capsys):
    root = night_tree(tmp_path / "night", *names)
    align("crop", root, "--out", out, "--size", 10)
    assert len(files(out / "rainy")) == 2 * 2 * 2 * 6
    assert len(files(out / "gt")) == 2 * 2 * 6
    whole = read_image(root / "set2" / names[0] / names[1] / "0001_01.png")
    for number, (top, left) in enumerate([(t, x) for t in (0, 10) for x in (0, 10, 20)]):
        crop = read_image(out / f"rainy/0001_01_set2_{number}crop.png")
        np.testing.assert_array_equal(crop, whole[top : top + 10, left : left + 10])
    images = read_set(str(out))
    assert not images.unpaired
    assert not images.lone_clean
    assert {p.clean_name for p in images.pairs if p.name == "0001_01_set2_2crop.png"} == {
        "0001_set2_2crop.png"
    }
    assert "12 images gave 72 crops" in capsys.readouterr().out


def test_the_rest_is_left_out_and_what_is_done_is_kept(tmp_path, out, capsys):
    root = night_tree(tmp_path / "night")
    align("crop", root, "--out", out, "--size", 12)
    assert read_image(out / "gt/0000_set1_0crop.png").shape == (12, 12, 3)
    assert len(files(out / "gt")) == 4 * 2
    before = stamps(out)
    (out / "gt/0001_set2_1crop.png").unlink()
    changed = root / "set1/train/rainy/0000_01.png"
    write_image(changed, rained(picture(0), 99))
    os.utime(changed, ns=(10**18, 10**18))
    align("crop", root, "--out", out, "--size", 12)
    after = stamps(out)
    assert after.keys() == before.keys()
    new = {path.name for path in after if after[path] != before[path]}
    assert new == {
        "0001_set2_0crop.png",
        "0001_set2_1crop.png",
        "0000_01_set1_0crop.png",
        "0000_01_set1_1crop.png",
    }
    assert "10 were cut before" in capsys.readouterr().out


def test_a_smaller_image_in_place_of_another_leaves_no_old_crops(tmp_path, out):
    for folder in ("r", "c"):
        write_image(tmp_path / folder / "a.png", picture())
    arguments = ("--rainy", tmp_path / "r", "--clean", tmp_path / "c", "--out", out, "--size", 10)
    align("crop", *arguments)
    assert len(files(out / "gt")) == 6
    for folder in ("r", "c"):
        write_image(tmp_path / folder / "a.png", picture(3, (10, 20)))
    align("crop", *arguments)
    assert files(out / "gt") == files(out / "rainy") == ["a_0crop.png", "a_1crop.png"]


def test_any_two_folders_are_cut_with_their_subfolders(tmp_path, out):
    for name in ("day/a_b_c.png", "plain.jpg"):
        write_image(tmp_path / "wet" / name, picture(1))
    write_image(tmp_path / "dry/day/a.png", picture(1))
    write_image(tmp_path / "dry/plain.png", picture(1))
    align(
        "crop", "--rainy", tmp_path / "wet", "--clean", tmp_path / "dry", "--out", out,
        "--size", 20,
    )  # fmt: skip
    assert files(out / "rainy") == ["day/a_b-c_0crop.png", "plain_0crop.png"]
    assert files(out / "gt") == ["day/a_0crop.png", "plain_0crop.png"]
    assert len(read_set(str(out)).pairs) == 2


def test_broken_small_and_unequal_images_are_named_and_the_rest_is_cut(tmp_path, out, capsys):
    root = night_tree(tmp_path / "night")
    rainy = root / "set1/train/rainy"
    (rainy / "0000_00.png").write_bytes(b"broken")
    write_image(rainy / "0000_01.png", picture(0, (30, 20)))
    write_image(rainy / "0007_00.png", picture())
    (root / "set2/train/gt/0000.png").write_bytes(b"")
    write_image(root / "set2/train/gt/0001.png", picture(0, (5, 40)))
    with pytest.raises(DatasetError) as caught:
        align("crop", root, "--out", out, "--size", 10)
    said = str(caught.value) + capsys.readouterr().err
    for part in (
        "9 of 13 were skipped", "0000_00.png cannot be decoded", "20x30 pixels, but its clean",
        "no clean image 0007.png", "0000.png is empty", "smaller than a crop of 10",
        "its clean image was skipped",
    ):  # fmt: skip
        assert part in said
    assert {name.partition("/")[2][:12] for name in files(out)} >= {"0001_00_set1", "0001_set1_0c"}
    assert not [name for name in files(out / "rainy") if "set2" in name or "0000_" in name]


def test_crops_are_never_mixed_with_others(tmp_path, out):
    root = night_tree(tmp_path / "night")
    align("crop", root, "--out", out, "--size", 10)
    with pytest.raises(OutputError, match="crops of size 10"):
        align("crop", root, "--out", out, "--size", 20)
    write_image(tmp_path / "mine/rainy/own.png", picture())
    with pytest.raises(OutputError, match="no crops of this command"):
        align("crop", root, "--out", tmp_path / "mine", "--size", 10)
    with pytest.raises(OutputError, match="crops of the same name"):
        align("crop", root, night_tree(tmp_path / "twin"), "--out", tmp_path / "x", "--size", 10)
    inside = root / "set1/train/rainy/crops"
    with pytest.raises(OutputError, match="--out is inside"):
        align("crop", root, "--out", inside, "--size", 10)


def test_crop_needs_something_to_cut(tmp_path, out):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no pairs of GTAV-NightRain"):
        align("crop", tmp_path / "empty", "--out", out)
    with pytest.raises(DatasetError, match="no folder"):
        align("crop", tmp_path / "nowhere", "--out", out)
    with pytest.raises(DatasetError, match="both --rainy DIR and --clean DIR"):
        align("crop", "--rainy", tmp_path, "--out", out)
    with pytest.raises(DatasetError, match="no rainy image has a clean partner"):
        align("crop", "--rainy", tmp_path / "empty", "--clean", tmp_path / "empty", "--out", out)


def test_a_full_disk_is_one_line_and_keeps_old_crops(tmp_path, out, monkeypatch):
    root = night_tree(tmp_path / "night")
    align("crop", root, "--out", out, "--size", 10)
    target = out / "gt/0000_set1_0crop.png"
    before = target.read_bytes()
    write_image(root / "set1/train/gt/0000.png", picture(77))
    os.utime(root / "set1/train/gt/0000.png", ns=(10**18, 10**18))

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        align("crop", root, "--out", out, "--size", 10)
    assert target.read_bytes() == before


# --- measure --------------------------------------------------------------------------------------


def test_sets_are_measured_into_tables_and_summaries(tmp_path, out, capsys):
    pair_tree(tmp_path / "a")
    pair_tree(tmp_path / "b", count=2)
    align(
        "measure", tmp_path / "a", f"B:{tmp_path / 'b/rainy'}:{tmp_path / 'b/clean'}", "--out", out
    )
    assert files(out) == ["B.csv", "B.json", "a.csv", "a.json"]
    summary = json.loads((out / "a.json").read_text())
    assert (summary["pairs"], summary["distinct_clean"], summary["skipped"]) == (12, 12, [])
    table = rows(out / "a.csv")
    assert [row["name"] for row in table] == [f"{number:02d}.png" for number in range(12)]
    densities = [float(row["rain_density"]) for row in table]
    assert np.mean(densities) == pytest.approx(summary["rain_density"])
    printed = capsys.readouterr().out
    assert "| a | 12 | 12 |" in printed
    assert "| B | 2 | 2 |" in printed


def test_tables_move_with_their_images(tmp_path, out):
    pair_tree(tmp_path / "here/a", count=2)
    align("measure", tmp_path / "here/a", "--out", tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    for one in read_measured(tmp_path / "there/a.csv"):
        assert one.pair.rainy.is_file()
        assert one.pair.clean.is_file()


def test_odd_images_are_read_as_they_look(tmp_path, out):
    root = tmp_path / "a"
    frame = picture()
    pair_tree(root, count=1)
    Image.fromarray(frame[..., 0]).save(root / "clean/grey.png")
    Image.fromarray(frame).convert("RGBA").save(root / "rainy/grey.png")
    deep = (frame[..., ::-1].astype(np.uint16)) << 8
    cv2.imwrite(str(root / "clean/deep.png"), deep)
    write_image(root / "rainy/deep.png", frame)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(frame)).save(root / "clean/turned.jpg", exif=exif, quality=95)
    write_image(root / "rainy/turned.png", frame)
    align("measure", root, "--out", out)
    by_name = {row["name"]: row for row in rows(out / "a.csv")}
    assert len(by_name) == 4
    assert float(by_name["deep.png"]["rain_density"]) == 0
    assert by_name["deep.png"]["psnr_db"] == "inf"
    assert float(by_name["turned.png"]["psnr_db"]) > 30
    assert json.loads((out / "a.json").read_text())["equal_pairs"] == 1


def test_pairs_that_cannot_be_measured_are_named(tmp_path, out):
    root = pair_tree(tmp_path / "a", count=4)
    write_image(root / "rainy/lone.png", picture())
    write_image(root / "rainy/00.png", picture(0, (9, 9)))
    (root / "clean/01.png").write_bytes(b"x")
    with pytest.raises(DatasetError, match="3 of 5 were skipped"):
        align("measure", root, "--out", out)
    summary = json.loads((out / "a.json").read_text())
    assert summary["pairs"] == 2
    assert len(summary["skipped"]) == 3


def test_sets_need_names_of_their_own_and_pairs(tmp_path, out):
    pair_tree(tmp_path / "x/a", count=1)
    pair_tree(tmp_path / "y/a", count=1)
    with pytest.raises(DatasetError, match="two sets are called a"):
        align("measure", tmp_path / "x/a", tmp_path / "y/a", "--out", out)
    with pytest.raises(DatasetError, match="no rainy image has a clean partner"):
        align("measure", tmp_path / "x/a/rainy", "--out", out)
    with pytest.raises(ImageError, match="no folder"):
        align("measure", f"z:{tmp_path / 'no'}", "--out", out)


# --- balance --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A set with much light rain, measured, and two references with little."""
    tmp_path = tmp_path_factory.mktemp("tables")
    pair_tree(tmp_path / "new", count=30, amounts=(2, 2, 25, 25, 60))
    pair_tree(tmp_path / "one", count=8, amounts=(2, 60, 60, 60))
    pair_tree(tmp_path / "two", count=8, amounts=(25, 60, 60, 60))
    folder = tmp_path / "measured"
    align("measure", *(tmp_path / name for name in ("new", "one", "two")), "--out", folder)
    return folder


def test_a_balanced_set_has_the_shares_of_its_references(tables, out, capsys):
    references = ("--reference", tables / "one.csv", tables / "two.csv")
    align("balance", tables / "new.csv", "--out", out, "--seed", 3, *references)
    plan = json.loads((out / "balance.json").read_text())
    heavy = plan["available"][-1]
    assert plan["taken"][-1] == heavy > 0
    total = heavy / plan["shares"][-1]
    assert plan["wanted"][:2] == [int(total * share) for share in plan["shares"][:2]]
    chosen = rows(out / "selection.csv")
    assert len(chosen) == sum(plan["taken"]) < 30
    assert files(out / "rainy") == sorted(row["name"] for row in chosen)
    assert files(out / "gt") == sorted(row["clean_name"] for row in chosen)
    measured = {one.pair.name: one for one in read_measured(tables / "new.csv")}
    for row in chosen:
        source = measured[row["name"]].pair.rainy
        assert (out / "rainy" / row["name"]).read_bytes() == source.read_bytes()
    assert f"{len(chosen)} pairs" in capsys.readouterr().out


def test_a_draw_repeats_by_its_seed_and_never_touches_other_files(tables, out, tmp_path):
    arguments = ("balance", tables / "new.csv", "--reference", tables / "one.csv")
    align(*arguments, "--out", out, "--seed", 3)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    align(*arguments, "--out", out, "--seed", 3)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == before
    selection = (out / "selection.csv").read_bytes()
    write_image(out / "gt/mine.png", picture())
    with pytest.raises(OutputError, match=r"holds 1 files .*mine\.png"):
        align(*arguments, "--out", out, "--seed", 3)
    assert (out / "gt/mine.png").is_file()
    assert (out / "selection.csv").read_bytes() == selection
    taken = next((out / "rainy").iterdir())
    (out / "gt/mine.png").unlink()
    write_image(taken, picture(99))
    with pytest.raises(OutputError, match="exists and is not"):
        align(*arguments, "--out", out, "--seed", 3)
    np.testing.assert_array_equal(read_image(taken), picture(99))


def test_links_share_the_disk_space(tables, out):
    align("balance", tables / "new.csv", "--reference", tables / "one.csv", "--out", out, "--link")
    measured = {one.pair.name: one for one in read_measured(tables / "new.csv")}
    for path in (out / "rainy").iterdir():
        assert path.samefile(measured[path.name].pair.rainy)
    align("balance", tables / "new.csv", "--reference", tables / "one.csv", "--out", out, "--link")


def test_links_to_another_disk_are_said_so(tables, out, monkeypatch):
    def fail(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    arguments = ("balance", tables / "new.csv", "--reference", tables / "one.csv", "--out", out)
    with pytest.raises(OutputError, match="leave out --link"):
        align(*arguments, "--link")
    align(*arguments)


def test_without_references_the_published_shares_count(tables, out, capsys):
    align("balance", tables / "new.csv", "--out", out, "--keep", "scarcest")
    plan = json.loads((out / "balance.json").read_text())
    assert plan["shares"] == pytest.approx([0.0357038, 0.2306717, 0.7336245], abs=1e-7)
    assert plan["reference"] == ["SynRain", "GT-Rain"]
    assert plan["taken"] == plan["wanted"]


def test_missing_pairs_are_said(tables, out, capsys):
    align("balance", tables / "one.csv", "--reference", tables / "new.csv", "--out", out)
    printed = capsys.readouterr().out
    assert "| 2 of 15 wanted |" in printed
    assert "--keep scarcest" in printed


def test_bins_are_free(tables, out, tmp_path, capsys):
    arguments = ("balance", tables / "new.csv", "--bins", 0.08)
    align(*arguments, "--reference", tables / "one.csv", tables / "two.json", "--out", out)
    assert "| up to 0.08 | 25.00% | 24 | 2 |" in capsys.readouterr().out
    arguments = (*arguments[:-1], 0.03, 0.05, 0.07, "--out", tmp_path / "other")
    align(*arguments, "--reference", tables / "one.csv")
    with pytest.raises(DatasetError, match="multiples of"):
        align(*arguments, "--reference", tables / "two.json")


def test_sources_that_are_gone_are_named(tables, tmp_path, out):
    shutil.copytree(tables.parent, tmp_path / "copy")  # the tables find the images beside them
    (tmp_path / "copy/new/rainy/04.png").unlink()  # of the densest rain, so it is selected
    with pytest.raises(DatasetError, match=r"no file .*04\.png"):
        align("balance", tmp_path / "copy/measured/new.csv", "--out", out)
    assert len(files(out / "rainy")) > 0


@pytest.mark.parametrize("bins", [(0.08, 0.04), (0.0, 0.1), (0.5, 1.5), ("nan",)])
def test_bins_must_increase(out, bins):
    with pytest.raises(DatasetError, match="--bins must increase"):
        align("balance", "any.csv", "--out", out, "--bins", *bins)


def test_balance_reads_only_tables_of_measure(tmp_path, out):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="other columns"):
        align("balance", tmp_path / "x.csv", "--out", out)
    with pytest.raises(DatasetError, match="cannot read"):
        align("balance", tmp_path / "nowhere.csv", "--out", out)
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(DatasetError, match="holds no pairs"):
        align("balance", tmp_path / "x.csv", "--out", out)


# --- plot -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_figures_are_drawn_from_tables_summaries_and_published_values(tables, out, kind, start):
    files_given = (tables / "one.csv", tables / "two.json")
    align("plot", *files_given, "--published", "--out", out, "--format", kind)
    for name in ("radar", "density"):
        assert (out / f"{name}.{kind}").read_bytes().startswith(start)
    if kind == "svg":
        text = (out / "radar.svg").read_text()
        for name in ("one", "two", "SynRain", "GT-Rain", "GTAV-balance", "colourfulness"):
            assert name in text


def test_there_must_be_something_to_plot(tmp_path, out):
    with pytest.raises(DatasetError, match="nothing to plot"):
        align("plot", "--out", out)
    (tmp_path / "x.json").write_text('{"name": "x", "pars": 3}')
    with pytest.raises(ConfigError, match="did you mean 'pairs'"):
        align("plot", tmp_path / "x.json", "--out", out)


# --- leaks ----------------------------------------------------------------------------------------


def leaks(*arguments):
    """Return the exit code, 0 where the command just ends."""
    try:
        align("leaks", *arguments)
    except SystemExit as end:
        return end.code
    return 0


def test_sets_without_leaks_end_with_zero(tmp_path, out, capsys):
    pair_tree(tmp_path / "train", count=4)
    for number in range(3):
        write_image(tmp_path / "test" / f"{number}.png", picture(50 + number))
    assert leaks(tmp_path / "train/clean", tmp_path / "test", "--out", out / "x.csv") == 0
    assert rows(out / "x.csv") == []
    assert "0 leaks between sets, 0 duplicates within sets" in capsys.readouterr().out


def test_scenes_leak_through_their_clean_images(tmp_path, out, capsys):
    train = pair_tree(tmp_path / "train", count=4)
    test = tmp_path / "test"
    again = cv2.resize(picture(2), (45, 30), interpolation=cv2.INTER_CUBIC)
    write_image(test / "gt/s.jpg", again)
    write_image(test / "input/s.jpg", rained(again, 90))
    write_image(test / "gt/t.png", picture(3))
    write_image(test / "input/t.png", picture(80))
    assert leaks(train, test, "--out", out / "x.csv") == EXIT_LEAKS == 1
    found = [(row["kind"], Path(row["first"]).name, Path(row["second"]).name) for row in
             rows(out / "x.csv")]  # fmt: skip
    assert found == [("near", "02.png", "s.jpg"), ("exact", "03.png", "t.png")]
    printed = capsys.readouterr().out
    assert "2 leaks between sets, 0 duplicates within sets" in printed
    assert "6 images compared" in printed


def test_without_clean_images_all_are_compared(tmp_path, out):
    train = pair_tree(tmp_path / "train", count=4)
    write_image(tmp_path / "test/x.png", read_image(train / "rainy/02.png"))
    assert leaks(train, tmp_path / "test", "--out", out / "x.csv") == EXIT_LEAKS
    found = {
        Path(row["first"]).parent.name for row in rows(out / "x.csv") if row["kind"] == "exact"
    }
    assert found == {"rainy"}


def test_duplicates_within_a_set_are_found(tmp_path, out, capsys):
    for name in ("a.png", "b.bmp"):
        write_image(tmp_path / "train" / name, picture(1))
    write_image(tmp_path / "train/c.png", picture(2))
    assert leaks(tmp_path / "train", "--out", out / "x.csv", "--show", 0) == EXIT_LEAKS
    assert [row["first_set"] == row["second_set"] for row in rows(out / "x.csv")] == [True]
    assert "... and 1 more" in capsys.readouterr().out


def test_a_broken_image_is_an_error_even_when_leaks_are_found(tmp_path, out):
    for name in ("train/a.png", "test/a.png"):
        write_image(tmp_path / name, picture(1))
    (tmp_path / "test/b.png").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"1 of 3 were skipped: .*b\.png"):
        leaks(tmp_path / "train", tmp_path / "test", "--out", out / "x.csv")
    assert len(rows(out / "x.csv")) == 1


def test_an_empty_set_is_named(tmp_path, out):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no images"):
        leaks(tmp_path / "empty", "--out", out / "x.csv")


# --- the process ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["crop"], "--out"),
        (["leaks", "x", "--threshold", "40"], "not below 32"),
        (["measure", "nowhere"], "write a set as"),
        (["nonsense"], "nonsense"),
        (["crop", "x", "--out", "y", "--size", "0"], "--size"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(arguments, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["align", *arguments])
    with pytest.raises(SystemExit) as end:
        run_command(main)
    lines = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2
    assert len(lines) == 1
    assert said in lines[0]
    assert not list(tmp_path.iterdir())


def test_the_exit_code_of_leaks_reaches_the_shell(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "train" / name, picture(1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["align", "leaks", "train", "--quiet"])
    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == EXIT_LEAKS
    assert (tmp_path / "runs/align/leaks.csv").is_file()


def test_the_commands_in_the_page_are_those_that_exist(capsys):
    page = Path(__file__).resolve().parents[3] / "docs" / "alignment.md"
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    calls = [line.split() for line in text.splitlines() if "-m rainmer.align " in line]
    assert {call[3] for call in calls} == {"crop", "measure", "balance", "plot", "leaks"}
    for call in calls:
        with pytest.raises(SystemExit):
            main([call[3], "--help"])
        usage = capsys.readouterr().out
        for word in call:
            if word.startswith("--"):
                assert word in usage
