"""Pairs, sets joined by stem, and the generic forms."""

import json

import numpy as np
import pytest

from detection.classes import COCO_80
from eval.detect.truth import match_categories
from eval.sets.adapters import ADAPTERS, AdapterOptions, adapt
from eval.sets.adapters.classes import aliases_for, without_counterpart
from rainmer.errors import ConfigError, DatasetError
from tests.eval.sets.adapters.layouts import (
    BDD_FRAMES,
    SIZE_HW,
    bdd350_tree,
    coco,
    coco350_tree,
    coco_tree,
    gt_rain_tree,
    gtav_tree,
    hq_nightrain_tree,
    image,
    text,
    turned_jpeg,
    voc_tree,
    voc_xml,
    yolo_tree,
)


def names(data):
    return [scene.name for scene in data.scenes]


# --- GTAV-NightRain, GT-Rain ----------------------------------------------------------------------


def test_versions_of_a_scene_share_its_clean_image(tmp_path):
    gtav_tree(tmp_path)
    data = adapt("gtav-nightrain", tmp_path)
    assert not data.has_boxes
    assert {s.attributes["scene_id"] for s in data.scenes} == {
        "set1/Train/0000",
        "set2/Test/0000",
        "set3/0000",
    }
    assert set(data.conditions) == {"set1", "set2", "set3"}
    assert names(adapt("gtav-nightrain", tmp_path, AdapterOptions(split="test"))) == [
        "set2/Test/Rainy/0000_00.png",
        "set2/Test/Rainy/0000_01.png",
    ]
    assert len(adapt("gtav-nightrain", tmp_path / "set3").scenes) == 2


@pytest.mark.parametrize(
    ("rainy", "clean"),
    [
        ("test/rainy/0011_03_set1_2crop.png", "test/gt/0011_set1_2crop.png"),
        ("Test/RAINY/0007_09.png", "Test/Gt/0007.png"),
    ],
)
def test_the_second_token_is_the_version_in_any_case_of_folders(tmp_path, rainy, clean):
    image(tmp_path / rainy)
    image(tmp_path / clean)
    (scene,) = adapt("gtav-nightrain", tmp_path).scenes
    assert scene.clean == tmp_path / clean


def test_gtav_orphans(tmp_path):
    gtav_tree(tmp_path)
    image(tmp_path / "set1" / "Train" / "Rainy" / "0001_00.png")
    image(tmp_path / "set1" / "Train" / "GT" / "0009.png")
    image(tmp_path / "lonely" / "Rainy" / "0000_00.png")
    data = adapt("gtav-nightrain", tmp_path)
    assert data.defects.errors == {
        "rainy image without clean partner, skipped": ["set1/Train/Rainy/0001_00.png"],
        "folder of rainy images without a folder GT beside it": [str(tmp_path / "lonely/Rainy")],
    }
    assert data.defects.notes == {"clean image without rainy partner": ["set1/Train/GT/0009.png"]}


def test_gt_rain_scenes(tmp_path):
    gt_rain_tree(tmp_path)
    other = tmp_path / "GT-RAIN_train" / "Winter-Park"
    image(other / "Winter-Park-R-000.png")
    image(other / "preview.png")
    data = adapt("gt-rain", tmp_path)
    assert {s.attributes["scene_id"] for s in data.scenes} == {"GT-RAIN_test/Winter-Lake"}
    assert data.defects.errors == {
        "scene without a clean image *C-000*, skipped": ["GT-RAIN_train/Winter-Park"]
    }
    assert data.defects.notes == {
        "image that is neither *R-* nor *C-000*, left out": ["preview.png"]
    }
    assert not adapt("gt-rain", tmp_path, AdapterOptions(split="test")).defects.lines()
    assert len(adapt("gt-rain", tmp_path / "GT-RAIN_test" / "Winter-Lake").scenes) == 2


def test_pairs_of_different_size_and_broken_files_are_left_out(tmp_path):
    gtav_tree(tmp_path)
    image(tmp_path / "set3" / "gt" / "0000.png", (10, 10))
    (tmp_path / "set1" / "Train" / "Rainy" / "0000_00.png").write_bytes(b"")
    data = adapt("gtav-nightrain", tmp_path)
    assert len(data.scenes) == 3
    assert [len(subjects) for subjects in data.defects.errors.values()] == [1, 2]
    assert set(data.defects.errors) == {
        "unreadable image, skipped",
        "rainy and clean image of different size, skipped",
    }


# --- by stem --------------------------------------------------------------------------------------


def test_coco_stems_join_whatever_their_prefix_and_zeros(tmp_path):
    options = AdapterOptions(**coco350_tree(tmp_path))
    for name in ("COCO_train2014_000000000007.jpg", "nowhere.png"):
        image(tmp_path / "input" / name)
        image(tmp_path / "target" / name)
    file = tmp_path / "official" / "instances_val2014.json"
    content = json.loads(file.read_text())
    content["images"].append({"id": 7, "file_name": "000000000007.jpg"})
    file.write_text(json.dumps(content))
    data = adapt("coco350", tmp_path, options)
    assert len(data.scenes) == 3
    assert data.defects.notes == {
        "image whose stem the annotations do not have, left out": ["nowhere.png"]
    }
    assert not data.defects.errors


def test_boxes_are_not_stretched(tmp_path):
    options = AdapterOptions(**coco350_tree(tmp_path))
    for role in ("input", "target"):
        image(tmp_path / role / "139.png", (24, 24))
    data = adapt("coco350", tmp_path, options)
    assert names(data) == ["000000000285.png"]
    assert data.defects.errors == {
        "image of another size than its annotation says, skipped": [
            "139.png: 24x24, annotated 40x24"
        ]
    }


def test_a_side_rounded_by_a_pixel_is_in_proportion(tmp_path):
    """640x427 halved is 320x213 or 320x214."""
    for role in ("input", "target"):
        image(tmp_path / role / "1.png", (213, 320))
    content = coco([(1, "1.jpg", (427, 640))], [(1, 1, [64, 42.7, 64, 42.7])], {1: "person"})
    annotations = text(tmp_path / "instances.json", content)
    (scene,) = adapt("coco350", tmp_path, AdapterOptions(annotations=annotations)).scenes
    assert scene.boxes[0]["bbox"] == pytest.approx([32, 21.3, 32, 21.3])


def test_a_stem_of_several_annotated_images_is_an_error(tmp_path):
    options = AdapterOptions(**coco350_tree(tmp_path))
    file = tmp_path / "official" / "instances_val2014.json"
    content = json.loads(file.read_text())
    content["images"].append({"id": 140, "file_name": "train/000000000139.jpg"})
    file.write_text(json.dumps(content))
    data = adapt("coco350", tmp_path, options)
    assert data.defects.errors == {
        "image whose stem several annotated images have, skipped": ["139.png"]
    }


@pytest.mark.parametrize("name", ["coco350", "bdd350", "bdd350-night"])
def test_the_original_boxes_must_be_given(tmp_path, name):
    image(tmp_path / "input" / "a.png")
    with pytest.raises(DatasetError, match="--annotations FILE"):
        adapt(name, tmp_path)


def test_time_of_day_comes_from_the_original_tags(tmp_path):
    options = AdapterOptions(**bdd350_tree(tmp_path))
    data = adapt("bdd350", tmp_path, options)
    assert {name: len(data.members(name)) for name in data.conditions} == {"daytime": 1, "night": 1}
    assert {s.attributes["weather"] for s in data.scenes} == {"rain"}
    night = adapt("bdd350-night", tmp_path, options)
    assert {s.attributes["timeofday"] for s in night.scenes} == {"night"}


def test_hq_nightrain_with_and_without_boxes(tmp_path):
    hq_nightrain_tree(tmp_path)
    data = adapt("hq-nightrain", tmp_path)
    assert not data.has_boxes
    assert {name: len(data.members(name)) for name in data.conditions} == {"RD": 1, "RS": 1}
    entry = {**BDD_FRAMES[1], "name": "rs-1.jpg"}
    file = text(tmp_path / "det_val.json", [entry])
    joined = adapt("hq-nightrain", tmp_path, AdapterOptions(annotations=file))
    assert names(joined) == ["RS/test/input/rs-1.png"]
    assert joined.has_boxes
    assert joined.defects.notes == {
        "image whose stem the annotations do not have, left out": ["rd-1.png"]
    }
    # BDD-NightRain, its predecessor, has a JSON file for each image.
    single = {
        "name": "rd-1",
        "attributes": {"timeofday": "night"},
        "frames": [{"objects": [{"category": "car", "box2d": {"x1": 1, "y1": 1, "x2": 5, "y2": 5}},
                                {"category": "lane", "poly2d": []}]}],
    }  # fmt: skip
    text(tmp_path / "json" / "rd-1.json", single)
    other = adapt("hq-nightrain", tmp_path, AdapterOptions(annotations=tmp_path / "json"))
    assert names(other) == ["HQ-NightRain-RD/test/input/rd-1.png"]
    assert other.scenes[0].boxes[0]["bbox"] == [1, 1, 4, 4]
    assert other.defects.notes["labels without a box, left out"] == ["lane: 1"]


# --- generic --------------------------------------------------------------------------------------


def test_generic_sets_take_clean_partners(tmp_path):
    coco_tree(tmp_path)
    image(tmp_path / "dry" / "a.png")
    image(tmp_path / "dry" / "other.png")
    data = adapt("coco", tmp_path, AdapterOptions(clean=tmp_path / "dry"))
    assert [scene.clean for scene in data.scenes] == [tmp_path / "dry" / "a.png"]
    assert data.defects.errors == {"rainy image without clean partner, skipped": ["sub/b.png"]}
    assert data.defects.notes["clean image without rainy partner"] == ["other.png"]


def test_which_json_must_be_clear(tmp_path):
    coco_tree(tmp_path)
    text(tmp_path / "other.json", {})
    with pytest.raises(DatasetError, match=r"found instances.json, other.json; say which"):
        adapt("coco", tmp_path)


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_turned_photos_count_as_they_are_read(tmp_path, kind):
    turned_jpeg(tmp_path / "images" / "a.jpg", (24, 40), 6)
    content = coco([(1, "a.jpg", (40, 24))], [(1, 1, [2, 30, 5, 9])], {1: "car"})
    if kind == "coco":
        text(tmp_path / "instances.json", content)
    else:
        text(tmp_path / "xml" / "a.xml", voc_xml((40, 24), ("car", 2, 30, 7, 39)))
    (scene,) = adapt(kind, tmp_path).scenes
    assert scene.size_hw == (40, 24)
    assert scene.boxes[0]["bbox"] == [2, 30, 5, 9]


def test_voc_split_and_orphans(tmp_path):
    voc_tree(tmp_path)
    data = adapt("voc", tmp_path, AdapterOptions(split="val"))
    assert names(data) == ["b.jpg"]
    with pytest.raises(DatasetError, match=r"cannot read the list .*test.txt"):
        adapt("voc", tmp_path, AdapterOptions(split="test"))
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "Annotations" / "b.xml").unlink()
    image(tmp_path / "JPEGImages" / "c.jpg")
    text(tmp_path / "Annotations" / "c.xml", voc_xml(SIZE_HW))
    data = adapt("voc", tmp_path)
    assert names(data) == ["c.jpg"]
    assert data.defects.notes == {
        "image that the annotations do not list, left out": ["b"],
        "annotated image without file": ["a"],
    }


YAML = "path: .\ntrain: images/train\nval: images/val\nnames: [car, bus]\n"


@pytest.mark.parametrize(
    ("content", "files", "split"),
    [
        (YAML.replace("path: .\n", ""), {}, None),
        (YAML.replace("images/val", "../images/val"), {}, None),
        (YAML.replace("images/val", "[images/val]"), {}, None),
        (YAML.replace("images/val", "val.txt"), {"val.txt": "./images/val/a.jpg\n"}, None),
        (YAML.replace("[car, bus]", "{0: car, 1: bus}"), {}, "val"),
        (YAML.replace("val: images/val\n", "test: images/val\n"), {}, "test"),
    ],
)
def test_forms_of_data_yaml(tmp_path, content, files, split):
    yolo_tree(tmp_path)
    text(tmp_path / "data.yaml", content)
    for name, lines in files.items():
        text(tmp_path / name, lines)
    for root in (tmp_path, tmp_path / "data.yaml"):
        data = adapt("yolo", root, AdapterOptions(split=split))
        assert names(data) == ["a.jpg"]
        assert data.scenes[0].boxes[0]["bbox"] == [10, 6, 20, 12]
        assert not data.defects.lines()


def test_several_folders_of_a_split_have_labels_each(tmp_path):
    yolo_tree(tmp_path)
    text(tmp_path / "data.yaml", YAML.replace("images/val", "[images/val, images/train]"))
    data = adapt("yolo", tmp_path)
    assert names(data) == ["train/z.jpg", "val/a.jpg"]
    assert [len(scene.boxes) for scene in data.scenes] == [1, 1]
    assert not data.defects.lines()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (YAML.replace("names: [car, bus]\n", ""), "give their names with --names"),
        (YAML.replace("[car, bus]", "{a: car}"), "names: the key 'a' is no class number"),
        (YAML.replace("[car, bus]", "7"), "names: expected a list"),
        (YAML.replace("val: images/val\n", ""), "has no split 'val'"),
        (YAML.replace("images/val", "nowhere"), "no folder or list nowhere"),
        (YAML.replace("images/val", "images/empty"), "no image of split val"),
    ],
)
def test_data_yaml_that_is_broken(tmp_path, content, message):
    yolo_tree(tmp_path)
    (tmp_path / "images" / "empty").mkdir()
    text(tmp_path / "data.yaml", content)
    with pytest.raises((ConfigError, DatasetError), match=message):
        adapt("yolo", tmp_path)


def test_yolo_without_data_yaml(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    text(tmp_path / "labels" / "a.txt", "1 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "labels" / "orphan.txt", "1 0.5 0.5 0.5 0.5\n")
    options = AdapterOptions(names=("car", "traffic light"))
    data = adapt("yolo", tmp_path, options)
    assert data.categories[data.scenes[0].boxes[0]["category_id"]] == "traffic light"
    assert data.defects.notes == {"label file without image": ["orphan.txt"]}
    (tmp_path / "labels").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="say where with --annotations"):
        adapt("yolo", tmp_path, options)
    given = AdapterOptions(names=("car", "bus"), annotations=tmp_path / "elsewhere")
    assert len(adapt("yolo", tmp_path, given).scenes[0].boxes) == 1


@pytest.mark.parametrize("name", ["coco", "yolo", "voc"])
def test_images_that_differ_only_in_suffix_are_errors(tmp_path, name):
    {"coco": coco_tree, "yolo": yolo_tree, "voc": voc_tree}[name](tmp_path)
    first = next(path for path in sorted(tmp_path.rglob("a.jpg")))
    image(first.with_suffix(".png"))
    errors = adapt(name, tmp_path).defects.errors
    assert list(errors) == ["rainy images that differ only in suffix or case, left out"]


# --- names ----------------------------------------------------------------------------------------


def test_unknown_adapters_are_named_with_the_nearest():
    with pytest.raises(ConfigError, match="no adapter 'bdd100'; did you mean 'bdd100k'"):
        adapt("bdd100", ".")


def test_aliases_lead_to_classes_that_detectors_have():
    assert len(set(COCO_80)) == 80
    spoken = ["Pedestrian", "rider", "motor", "bike", "motorbike", "trafficlight", "tvmonitor"]
    aliases = aliases_for(spoken)
    assert set(aliases.values()) <= set(COCO_80)
    categories = dict(enumerate([*spoken, "traffic sign", "caravan"], start=1))
    match = match_categories(categories, dict(enumerate(COCO_80)), aliases)
    assert list(match.unmatched) == without_counterpart(categories.values())


def test_every_adapter_says_what_it_takes():
    fields = {field for adapter in ADAPTERS.values() for field in adapter.options}
    assert fields == AdapterOptions.__dataclass_fields__.keys()
    assert all(len(adapter.description) <= 80 for adapter in ADAPTERS.values())
    assert np.all([adapter.layout for adapter in ADAPTERS.values()])
