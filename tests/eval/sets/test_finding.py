"""`--data` takes what users have: set files, YOLO's and COCO's, and their folders."""

import shutil

import pytest
import yaml

from eval.sets import load_set
from rainmer.errors import ConfigError, DatasetError, RainmerError
from tests.eval.trees import NAMES, write_tree


def boxes_of(data):
    names = {sample.image_id: sample.name for sample in data.samples}
    return sorted(
        (names[box["image_id"]], data.categories[box["category_id"]], *map(round, box["bbox"]))
        for box in data.annotations
    )


def test_every_form_has_the_same_boxes(tmp_path):
    expected = boxes_of(load_set(write_tree(tmp_path / "own", clean=False)))
    coco, yolo = tmp_path / "coco", tmp_path / "night drive"
    shutil.copytree(tmp_path / "own" / "rainy", coco / "images")
    shutil.copy(tmp_path / "own" / "instances.json", coco)
    write_tree(yolo, clean=False, labels="yolo").unlink()
    (yolo / "rainy").rename(yolo / "images")
    content = {"path": ".", "train": "images", "val": "images", "names": dict(NAMES)}
    (yolo / "data.yaml").write_text(yaml.safe_dump(content))
    for given in (coco, coco / "instances.json", yolo, yolo / "data.yaml", tmp_path / "own"):
        data = load_set(given)
        assert boxes_of(data) == expected
        assert not data.has_clean
    assert load_set(yolo / "data.yaml").name == "night drive"
    assert load_set(coco / "instances.json").name == "coco"
    assert load_set(coco).fingerprint == load_set(coco).fingerprint


def test_defects_of_other_forms_are_kept(tmp_path):
    write_tree(tmp_path, clean=False, labels="yolo").unlink()
    (tmp_path / "rainy").rename(tmp_path / "images")
    (tmp_path / "images" / "broken.png").write_bytes(b"")
    content = {"val": "images", "names": dict(NAMES)}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
    assert "broken" in load_set(tmp_path).defects.error_lines()[0]


def test_folders_that_hold_no_set_say_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="neither a set nor an image"):
        load_set(tmp_path)
    write_tree(tmp_path, clean=False).unlink()
    (tmp_path / "instances.json").unlink()
    with pytest.raises(DatasetError, match=r"images without boxes: `python -m eval\.footage"):
        load_set(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("{name: x, rainy: rainy, annotations: labels}")
    with pytest.raises(ConfigError, match=r"several sets, a\.yaml, b\.yaml: name one"):
        load_set(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("data.yaml", "val: images\nnames: [a, b\n", r"data\.yaml is not valid YAML"),
        ("instances.json", '{"images": [', r"instances\.json cannot be read as JSON"),
    ],
)
def test_a_damaged_file_is_named_where_there_is_no_other_set(tmp_path, name, text, problem):
    write_tree(tmp_path, clean=False).unlink()
    (tmp_path / "instances.json").rename(tmp_path / "kept")
    (tmp_path / name).write_text(text)
    with pytest.raises(RainmerError, match=problem):
        load_set(tmp_path)
    (tmp_path / "kept").rename(tmp_path / "boxes.json")
    assert load_set(tmp_path).samples
