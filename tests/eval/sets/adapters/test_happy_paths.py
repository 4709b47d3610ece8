"""Every adapter reads a sound tree of its layout, and what is written from it loads unchanged."""

import json
from pathlib import Path

import pytest
import yaml

from eval.detect.comparison import compare, row_specs
from eval.detect.table import Settings
from eval.rows.cache import CachedDerainer
from eval.sets import load_set
from eval.sets.adapters import ADAPTERS, AdapterOptions, adapt
from eval.sets.writing import write_set
from rainmer import Derainer
from rainmer.errors import DatasetError
from rainmer.frames.images import image_size_hw, write_image
from tests.eval import trees
from tests.eval.sets.adapters.layouts import TREES, image

# scenes, pairs, and the boxes of each scene as (class, left, top, width, height)
EXPECTED = {
    "coco": (2, 0, {"a.jpg": [("car", 2, 3, 10, 5)], "sub/b.png": [("pedestrian", 0, 0, 4, 4)]}),
    "yolo": (1, 0, {"a.jpg": [("car", 10, 6, 20, 12)]}),
    "voc": (2, 0, {"a.jpg": [("car", 2, 3, 10, 5)], "b.jpg": [("car", 2, 3, 10, 5)]}),
    # 40x24 stored, shown turned clockwise as 24x40: the box at the left top moves to the right top.
    "mpid-rid": (1, 0, {"images/A-D-5.jpg": [("car", 20, 0, 4, 10)]}),
    "mpid-ris": (1, 0, {"125-20160325_091413-300.jpg": [("car", 20, 16, 20, 16)]}),
    "bdd100k": (
        3,
        0,
        {
            "val/trainA0/r-day.jpg": [("car", 2, 3, 10, 5), ("rider", 1, 1, 4, 8)],
            "val/trainA0/r-dusk.jpg": [("traffic sign", 2, 3, 10, 5)],
            "val/trainA1/r-night.jpg": [("bike", 2, 3, 10, 5)],
        },
    ),
    "acdc": (
        1,
        0,
        {"rain/train/GOPR03/GOPR03_frame_000001_rgb_anon.png": [("car", 2, 3, 10, 5)]},
    ),
    "dawn": (
        2,
        0,
        {
            "Rain/Rain/rain_storm-001.jpg": [("car", 10, 6, 20, 12), ("person", 8, 6, 4, 12)],
            "Rain/Rain/rain_storm-002.jpg": [("truck", 10, 6, 20, 12), ("bus", 18, 10.8, 4, 2.4)],
        },
    ),
    "raincityscapes": (2, 2, None),
    "gtav-nightrain": (6, 6, None),
    "gt-rain": (2, 2, None),
    "coco350": (
        2,
        2,
        {"139.png": [("car", 2, 3, 10, 5)], "000000000285.png": [("person", 4, 6, 20, 10)]},
    ),
    "bdd350": (
        2,
        2,
        {
            "r-day.png": [("car", 2, 3, 10, 5), ("rider", 1, 1, 4, 8)],
            "r-night.png": [("bike", 2, 3, 10, 5)],
        },
    ),
    "bdd350-night": (2, 2, None),
    "hq-nightrain": (2, 2, None),
}


def read(name, root, **more):
    return adapt(name, root, AdapterOptions(**TREES[name](root), **more))


def boxes_of(data):
    return {
        scene.name: [
            (data.categories[box["category_id"]], *(pytest.approx(v) for v in box["bbox"]))
            for box in scene.boxes
        ]
        for scene in data.scenes
    }


def test_every_adapter_is_tested():
    assert EXPECTED.keys() == TREES.keys() == ADAPTERS.keys()


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_read(tmp_path, name):
    data = read(name, tmp_path)
    scenes, pairs, boxes = EXPECTED[name]
    assert not data.defects.errors
    assert len(data.scenes) == scenes
    assert sum(scene.clean is not None for scene in data.scenes) == pairs
    if boxes is not None:
        assert boxes_of(data) == boxes
    for scene in data.scenes:
        assert scene.size_hw == image_size_hw(scene.rainy)
        assert all(isinstance(value, str) for value in scene.attributes.values())


@pytest.mark.parametrize("name", ADAPTERS)
def test_linked_folders_are_read_as_folders(tmp_path, name):
    root = tmp_path / "data"
    options = AdapterOptions(**TREES[name](root))
    before = adapt(name, root, options)
    folders = [path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()]
    leaves = [p for p in folders if not any(inner.is_dir() for inner in p.iterdir())]
    for number, folder in enumerate(leaves):
        folder.rename(tmp_path / f"disk{number}")
        folder.symlink_to(tmp_path / f"disk{number}")
        (tmp_path / f"disk{number}" / "loop").symlink_to(".")
    after = adapt(name, root, options)
    assert [(s.name, s.boxes) for s in after.scenes] == [(s.name, s.boxes) for s in before.scenes]
    assert after.defects.errors == before.defects.errors


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_written_loads_unchanged(tmp_path, name):
    data = read(name, tmp_path / "data")
    loaded = load_set(write_set(data, tmp_path / "sets" / name))
    assert not loaded.defects.lines()
    assert loaded.name == name
    assert [s.name for s in loaded.samples] == [s.name for s in data.scenes]
    for sample, scene in zip(loaded.samples, data.scenes, strict=True):
        assert sample.rainy.samefile(scene.rainy)
        assert sample.size_hw == scene.size_hw
        assert (sample.clean is None) == (scene.clean is None)
        assert sample.clean is None or sample.clean.samefile(scene.clean)
    if not data.has_boxes:
        assert loaded.annotations is None
        assert loaded.has_clean
    else:
        assert loaded.categories == data.categories
        written = [(box["category_id"], box["bbox"]) for box in loaded.annotations]
        assert written == [(b["category_id"], b["bbox"]) for s in data.scenes for b in s.boxes]
        assert min(box["id"] for box in loaded.annotations) == 1
    members = {name: len(data.members(name)) for name in data.conditions}
    assert {n: len(ids) for n, ids in loaded.conditions.items() if n != "all"} == members


def test_paths_in_a_written_set_are_relative_and_can_move_along(tmp_path):
    data = read("coco350", tmp_path / "here" / "data")
    file = write_set(data, tmp_path / "here" / "sets", name="my 350")
    content = yaml.safe_load(file.read_text())
    assert content["rainy"] == "../data/input"
    assert content["clean"] == "../data/target"
    assert content["name"] == "my 350"
    (tmp_path / "here").rename(tmp_path / "there")
    assert len(load_set(tmp_path / "there" / "sets" / "set.yaml").samples) == 2


ODD_NAMES = ("with space.png", "雨.png", "br[ack]et{s}*?.png", "-dash.png", "new\nline.png",
             "quote'\".png", "a.b.c.png", "a:b.png", "$HOME;ls.png")  # fmt: skip


def test_odd_names_survive(tmp_path):
    for name in ODD_NAMES:
        image(tmp_path / "data" / "input" / "sub dir" / name)
        image(tmp_path / "data" / "target" / "sub dir" / name)
    data = adapt("hq-nightrain", tmp_path / "data")
    loaded = load_set(write_set(data, tmp_path / "set: {odd} #"))
    assert {sample.rainy.name for sample in loaded.samples} == set(ODD_NAMES)
    assert all(sample.clean.name == sample.rainy.name for sample in loaded.samples)


def test_versions_of_one_clean_image_go_through_a_whole_comparison(tmp_path):
    for number in range(3):
        frame, _ = trees.scene(number)
        write_image(tmp_path / "data" / "gt" / f"{number:04d}.png", frame)
        for version in range(2):
            rainy = trees.rain(frame, 10 * number + version)
            write_image(tmp_path / "data" / "rainy" / f"{number:04d}_0{version}.png", rainy)
    data = load_set(write_set(adapt("gtav-nightrain", tmp_path / "data"), tmp_path / "set"))
    median = Derainer("median", device="cpu")
    specs = row_specs(data, [CachedDerainer(median, None)])
    settings = Settings(resamples=10)
    comparison = compare(data, trees.RectangleDetector(), specs, tmp_path / "rows", settings)
    rows = {(row.input, row.derainer): row.flat() for row in comparison.table}
    assert comparison.pseudo_labels
    assert rows["clean", ""]["mAP"] == pytest.approx(1.0)
    assert 0 < rows["rainy", ""]["mAP"] < 1
    assert rows["derained", "median"]["images"] == 6


def test_ids_are_written_from_1(tmp_path):
    file = write_set(read("bdd100k", tmp_path / "data"), tmp_path / "set")
    content = json.loads((file.parent / "instances.json").read_text())
    assert [box["id"] for box in content["annotations"]] == [1, 2, 3, 4]
    assert [box["image_id"] for box in content["annotations"]] == [1, 1, 2, 3]
    assert [image["id"] for image in content["images"]] == [1, 2, 3]


def test_images_say_what_is_known_of_them(tmp_path):
    file = write_set(read("raincityscapes", tmp_path / "data"), tmp_path / "set")
    images = json.loads((file.parent / "instances.json").read_text())["images"]
    assert [image["id"] for image in images] == [1, 2]
    assert {image["clean_file"] for image in images} == {"aachen_000004_000019_leftImg8bit.png"}
    assert all(Path(image["rainy_file"]).name.startswith("aachen") for image in images)
    assert images[0]["attributes"] == {
        "domain": "synthetic",
        "weather": "rain",
        "timeofday": "daytime",
        "scene_id": "aachen_000004_000019",
        "source_id": "aachen_000004_000019",
        "split": "val",
        "alpha": "0.01",
        "beta": "0.005",
        "dropsize": "0.01",
        "pattern": "1",
    }


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_empty_folder_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty|usable boxes"):
        adapt(name, tmp_path / "empty")
    with pytest.raises(DatasetError, match="no folder"):
        adapt(name, tmp_path / "nowhere")
