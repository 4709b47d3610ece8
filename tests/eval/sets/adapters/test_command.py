"""`python -m eval.sets`: what it prints, how it ends, and sets that list their scenes."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

import eval.sets.__main__ as command
from eval.sets import load_set
from eval.sets.adapters import ADAPTERS
from eval.sets.options import parse
from rainmer.cli import run_command
from rainmer.errors import ConfigError, DatasetError
from tests.eval.sets.adapters.layouts import (
    TREES,
    bdd100k_tree,
    coco_tree,
    gtav_tree,
    image,
    ris_tree,
    text,
    voc_xml,
)
from tests.eval.trees import write_tree


@pytest.fixture
def type_in(monkeypatch, capsys):
    """Run the command as its module does: exit code, lines on stdout, lines on stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["eval.sets", *map(str, arguments)])
        code = 0
        try:
            run_command(command.main)
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run


def test_list_shows_every_adapter(type_in):
    code, out, err = type_in("list")
    assert (code, err) == (0, [])
    assert [line.split(":")[0] for line in out if line[:1].strip()] == list(ADAPTERS)


def test_check_counts(type_in, tmp_path):
    bdd100k_tree(tmp_path)
    code, out, err = type_in("check", tmp_path, "--adapter", "bdd100k", "--split", "val")
    assert (code, err) == (0, [])
    assert out[0] == "bdd100k: 3 scenes, 0 with a clean partner"
    assert "boxes: 4, crowds: 0, scenes without a box: 0" in out
    assert "  rider               1  as person" in out
    assert "  traffic sign        1  no class of COCO detectors" in out
    assert "sizes: 40x24 (3)" in out
    assert "conditions: rainy-dawn-dusk (1), rainy-day (1), rainy-night (1)" in out
    assert any(line.startswith("remark: the tags for weather") for line in out)


def test_check_prints_every_defect_and_notes_are_no_failure(type_in, tmp_path):
    ris_tree(tmp_path)
    for number in range(7):
        image(tmp_path / f"orphan-{number}.jpg")
    code, out, _ = type_in("check", tmp_path, "--adapter", "mpid-ris")
    assert code == 0
    at = out.index("note: image without label file, left out: 7")
    assert out[at + 1 : at + 8] == [f"  orphan-{number}.jpg" for number in range(7)]


def test_what_drops_data_ends_with_2_after_printing(type_in, tmp_path):
    ris_tree(tmp_path)
    for number in range(5):
        image(tmp_path / f"b-{number}.jpg")
        text(tmp_path / f"b-{number}.xml", voc_xml((24, 40), ("car", 90, 1, 99, 9)))
    code, out, err = type_in("check", tmp_path, "--adapter", "mpid-ris")
    assert code == 2
    at = out.index("error: box outside its image, dropped: 5")
    assert out[at + 1 : at + 6] == [f"  b-{number}.jpg" for number in range(5)]
    assert len(err) == 1
    assert "6 scenes can be used, but the set has defects" in err[0]


def test_odd_names_stay_on_their_line(type_in, tmp_path):
    ris_tree(tmp_path)
    image(tmp_path / "new\nline-ü.jpg")
    code, out, _ = type_in("check", tmp_path, "--adapter", "mpid-ris")
    assert code == 0
    assert "  new\\nline-\\xfc.jpg" in out


def test_json_has_everything(type_in, tmp_path):
    gtav_tree(tmp_path)
    image(tmp_path / "set3" / "gt" / "0009.png")
    code, out, _ = type_in("check", tmp_path, "--adapter", "gtav-nightrain", "--json")
    found = json.loads("\n".join(out))
    assert code == 0
    assert (found["scenes"], found["pairs"], found["boxes"]) == (6, 6, None)
    assert found["notes"] == {"clean image without rainy partner": ["set3/gt/0009.png"]}
    assert found["errors"] == {}
    assert found["attributes"]["subset"] == {"set1": 2, "set2": 2, "set3": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "ROOT/images"), "holds images without boxes"),
        (("check", "ROOT", "--adapter", "coc"), "no adapter 'coc'; did you mean 'coco'"),
        (("check", "ROOT/nowhere", "--adapter", "coco"), "no folder"),
        (("check", "ROOT/set.yaml", "--split", "val"), "--split needs --adapter NAME"),
        (("check", "ROOT/set.yaml"), "cannot read"),
        (("check", "ROOT", "--adapter", "coco", "--turns", "x"), "coco takes no --turns"),
        (("write", "ROOT", "--adapter", "coco"), "--out"),
        (("write", "ROOT", "--adapter", "coco", "--out", "ROOT/o", "--name", "../x"), "--name"),
        (("nonsense",), "invalid choice"),
        ((), "COMMAND"),
    ],
)
def test_mistakes_are_one_line(type_in, tmp_path, arguments, message):
    coco_tree(tmp_path)
    code, out, err = type_in(*(part.replace("ROOT", str(tmp_path)) for part in arguments))
    assert code == 2
    assert len(err) == 1
    assert message in err[0]
    assert not out
    assert not (tmp_path / "o").exists()


def test_write_then_check_the_set_file(type_in, tmp_path):
    bdd100k_tree(tmp_path / "data")
    target = tmp_path / "set"
    code, out, _ = type_in("write", tmp_path / "data", "--adapter", "bdd100k", "--out", target)
    assert code == 0
    assert out[-1] == f"written: {target / 'set.yaml'}"
    assert (target / "set.yaml").read_text().startswith("# Written by `python -m eval.sets write`")
    code, out, err = type_in("check", target / "set.yaml")
    assert (code, err) == (0, [])
    assert out[0] == "bdd100k: 3 scenes, 0 with a clean partner"
    assert "  rider               1  as person" in out
    assert "conditions: all (3), rainy-dawn-dusk (1), rainy-day (1), rainy-night (1)" in out


def test_check_of_a_set_file_with_defects(type_in, tmp_path):
    file = write_tree(tmp_path)
    (tmp_path / "rainy" / "day_01.png").write_bytes(b"")
    code, out, err = type_in("check", file)
    assert code == 2
    assert "error: unreadable image, skipped: 1" in out
    assert "  day_01.png" in out
    assert len(err) == 1


def test_defects_do_not_keep_the_rest_from_being_written(type_in, tmp_path):
    TREES["dawn"](tmp_path / "data")
    text(tmp_path / "data/Rain/Rain_YOLO_darknet/rain_storm-001.txt", "0 0.5 0.5 0.5 0.5\n")
    code, _, err = type_in("write", tmp_path / "data", "--adapter", "dawn", "--out", tmp_path / "s")
    assert code == 2
    assert "label of an unknown class: 1" in err[0]
    assert len(load_set(tmp_path / "s" / "set.yaml").samples) == 2


def test_commands_in_the_documentation_have_options_that_exist(capsys):
    page = (Path(__file__).parents[4] / "docs" / "datasets.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m eval.sets (list|check|write)([^#\n]*)", page, re.MULTILINE)
    assert len(commands) >= 5
    for name, arguments in commands:
        parsed = parse([name, *arguments.split()])
        assert getattr(parsed, "adapter", None) in {None, *ADAPTERS}
    assert all(f"`{name}`" in page for name in ADAPTERS)


# --- sets that list their scenes ------------------------------------------------------------------


@pytest.fixture
def listed(tmp_path):
    """A set of two rainy images of one clean image, without boxes; change(content) spoils it."""
    for number in range(2):
        image(tmp_path / "rainy" / f"0_{number}.png", seed=number)
    image(tmp_path / "rainy" / "not-listed.png")
    image(tmp_path / "clean" / "0.png")
    images = [
        {"id": n + 1, "file_name": f"0_{n}.png", "clean_file": "0.png", "weather": f"w{n}"}
        for n in range(2)
    ]
    content = {"images": images, "annotations": [], "categories": []}

    def write(change=lambda content: None, **settings):
        change(content)
        text(tmp_path / "list.json", content)
        written = {"name": "listed", "rainy": "rainy", "clean": "clean", "scenes": "list.json"}
        text(tmp_path / "set.yaml", yaml.safe_dump(written | settings))
        return tmp_path / "set.yaml"

    return write


def test_two_rainy_images_share_a_clean_one(listed):
    data = load_set(listed(conditions={"first": {"weather": "w0"}}))
    assert [(s.name, s.clean.name) for s in data.samples] == [
        ("0_0.png", "0.png"),
        ("0_1.png", "0.png"),
    ]
    assert len(data.conditions["first"]) == 1
    assert not data.defects.lines()
    assert data.fingerprint != load_set(listed(name="other")).fingerprint


LISTED_DEFECTS = [
    ({"clean_file": "1.png"}, "listed clean image without file: 1"),
    ({"clean_file": 7}, "listed clean image without file: 1"),
    ({"clean_file": "../clean/0.png"}, "listed clean image without file: 1"),
    ({"clean_file": None}, "rainy image without clean partner, skipped: 1"),
    ({"rainy_file": "nowhere.png"}, "listed rainy image without file, skipped: 1 (nowhere.png)"),
    ({"rainy_file": "../rainy/0_0.png"}, "listed rainy image without file, skipped: 1 (0_0)"),
    ({"rainy_file": "/0_0.png"}, "listed rainy image without file, skipped: 1 (0_0)"),
    ({"rainy_file": ["0_0.png"]}, "listed rainy image without file, skipped: 1 (0_0)"),
    ({"rainy_file": "0_1.png"}, "rainy image listed twice, the first counts: 1 (0_1.png)"),
    ({"height": 9, "width": 9}, "image of another size than its annotation says, skipped: 1"),
]


@pytest.mark.parametrize(("change", "error"), LISTED_DEFECTS)
def test_entries_of_the_list_that_are_broken(listed, change, error):
    data = load_set(listed(lambda content: content["images"][0].update(change)))
    assert len(data.samples) == 1
    assert any(line.startswith(error) for line in data.defects.error_lines())


def test_boxes_come_from_the_list_only_if_it_is_named(listed):
    def add(content):
        content["categories"] = [{"id": 1, "name": "car"}]
        content["annotations"] = [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25}
        ]

    assert len(load_set(listed(add, annotations="list.json")).annotations) == 1
    data = load_set(listed(add))
    assert data.annotations is None
    assert any("boxes in the list of scenes, ignored" in line for line in data.defects.lines())


def test_yolo_labels_of_listed_scenes(listed, tmp_path):
    text(tmp_path / "labels" / "0_0.txt", "0 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "labels" / "0_1.txt", "")
    data = load_set(listed(annotations="labels", names=["car"]))
    assert [box["bbox"] for box in data.annotations] == [[10, 6, 20, 12]]


def test_a_list_that_is_missing_or_empty(listed, tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read the annotations .*none.json"):
        load_set(listed(scenes="none.json"))
    with pytest.raises(DatasetError, match="nothing to evaluate"):
        load_set(listed(lambda content: content.update(images=[])))
    with pytest.raises(ConfigError, match="scenes: expected str"):
        load_set(listed(scenes=3))
