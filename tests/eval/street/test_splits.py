import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from eval.sets import load_set
from eval.street import CLASSES, TEST_DAY, TEST_NIGHT, draw_scene, write_split
from eval.street.splits import TEST, train_scenes, train_seed
from eval.street.yolo_labels import write_yolo_set
from rainmer.data.depth import read_depth
from rainmer.errors import ImageError
from rainmer.frames.images import read_image, write_image

SMALL = (96, 160)
CHOSEN = (TEST[3], TEST[64 + 5], TEST[7])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("street")
    write_split(root, CHOSEN, size_hw=SMALL, processes=1, quiet=True)
    return root


def test_splits_are_disjoint():
    stream = {train_seed(i) for i in range(5000)}
    assert len(stream) == 5000
    assert len(set(TEST_DAY)) == len(set(TEST_NIGHT)) == 64
    assert not stream & {*TEST_DAY, *TEST_NIGHT}
    assert len({scene.name for scene in TEST}) == 128


def test_the_train_stream_alternates_and_has_no_scene_before_the_first():
    assert [scene.night for scene in train_scenes(4)] == [False, True, False, True]
    assert train_scenes(2, 3)[0] == train_scenes(4)[3]
    with pytest.raises(ValueError, match="0 or more"):
        train_seed(-1)


def test_files_hold_what_is_drawn(folder):
    for scene in CHOSEN:
        drawn = draw_scene(scene.seed, night=scene.night, size_hw=SMALL)
        np.testing.assert_array_equal(
            read_image(folder / "images" / f"{scene.name}.png"), drawn.image
        )
        depth = read_depth(folder / "depth" / f"{scene.name}.png")
        assert np.abs(depth - np.minimum(drawn.depth_m, 655.35)).max() < 0.0051


def test_scenes_are_a_set_of_ultralytics_too(folder):
    from ultralytics.data.utils import check_det_dataset

    path = write_yolo_set(folder.parent, [folder.name])
    data = check_det_dataset(str(path), autodownload=False)
    assert tuple(data["names"].values()) == CLASSES
    lists = {name: Path(data[name]).read_text().split() for name in ("train", "val")}
    assert [len(lists[name]) for name in ("train", "val")] == [len(CHOSEN) - 1, 1]
    content = json.loads((folder / "instances.json").read_text())
    for image in content["images"]:
        stem = Path(image["file_name"]).stem
        rows = np.loadtxt(folder / "labels" / f"{stem}.txt", ndmin=2).reshape(-1, 5)
        expected = [
            (thing["category_id"] - 1, *thing["bbox"])
            for thing in content["annotations"]
            if thing["image_id"] == image["id"] and not thing["iscrowd"]
        ]
        height, width = SMALL
        sides = rows[:, 3:] * [width, height]
        corners = rows[:, 1:3] * [width, height] - sides / 2
        found = np.column_stack([rows[:, 0], corners, sides])
        np.testing.assert_allclose(found, np.reshape(expected, (-1, 5)), atol=1e-3)


def test_a_split_is_a_detection_set(folder):
    content = {
        "name": "street",
        "rainy": "images",
        "clean": "images",
        "annotations": "instances.json",
        "conditions": {"day": {"time": "day"}, "night": {"time": "night"}},
    }
    (folder / "set.yaml").write_text(yaml.safe_dump(content))
    loaded = load_set(folder / "set.yaml")
    assert not loaded.defects.lines()
    assert [sample.name for sample in loaded.samples] == [
        "day-003.png",
        "day-007.png",
        "night-005.png",
    ]
    assert list(loaded.categories.values()) == list(CLASSES)
    assert {name: len(ids) for name, ids in loaded.conditions.items()} == {
        "all": 3,
        "day": 2,
        "night": 1,
    }
    written = json.loads((folder / "instances.json").read_text())["annotations"]
    assert len(loaded.annotations) == len(written) > 5
    assert all(0 <= annotation["visibility"] <= 1 for annotation in written)


def test_depth_is_refused_where_there_is_none(tmp_path):
    with pytest.raises(ImageError, match="cannot read"):
        read_depth(tmp_path / "none.png")
    write_image(tmp_path / "image.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ImageError, match="is no depth"):
        read_depth(tmp_path / "image.png")
