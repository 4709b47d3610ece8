"""Sets that ask for rain: rendered once, with boxes and conditions, by preset."""

import json

import numpy as np
import pytest

from eval.sets import load_set
from rainmer.data.depth import write_depth
from rainmer.errors import ConfigError, DatasetError
from rainmer.frames.images import read_image
from tests.eval.trees import SIZE, write_tree, write_yaml


@pytest.fixture
def tree(tmp_path):
    """A clean tree of six scenes with boxes, and a function that writes and loads a set of it."""
    write_tree(tmp_path, labels="coco")
    write_tree(tmp_path / "yolo", labels="yolo")

    def load(rain, **changes):
        content = {"name": "wet", "clean": "clean", "annotations": "instances.json", "rain": rain}
        file = write_yaml(tmp_path, {**content, **changes})
        return load_set(file, rendered=tmp_path / "rendered")

    return load


def test_one_preset_keeps_names_and_boxes(tree, tmp_path):
    data = tree({"preset": "day", "rate_mm_h": 80.0})
    assert [sample.name for sample in data.samples] == [
        f"day/rainy/{'day' if i % 2 else 'night'}_{i:02d}.png" for i in (1, 3, 5, 0, 2, 4)
    ]
    assert list(data.conditions) == ["all"]
    assert not data.defects.lines()
    plain = load_set(write_yaml(tmp_path, {"name": "dry", "rainy": "rainy", "clean": "clean",
                                           "annotations": "instances.json"}))  # fmt: skip
    assert sorted(box["bbox"] for box in data.annotations) == sorted(
        box["bbox"] for box in plain.annotations
    )
    for sample in data.samples:
        rainy, clean = read_image(sample.rainy), read_image(sample.clean)
        assert np.array_equal(clean, read_image(tmp_path / "clean" / sample.rainy.name))
        assert not np.array_equal(rainy, clean)


def test_several_presets_each_get_all_images_and_a_condition(tree):
    data = tree({"preset": ["day-heavy", "night-heavy"]})
    assert {name: len(ids) for name, ids in data.conditions.items()} == {
        "all": 12,
        "day-heavy": 6,
        "night-heavy": 6,
    }
    assert len({sample.image_id for sample in data.samples}) == 12
    boxes = [box["image_id"] for box in data.annotations]
    assert len(boxes) == 2 * sum(i in data.conditions["day-heavy"] for i in boxes)


def test_presets_by_name_and_conditions_by_file_name(tree):
    data = tree(
        {"preset": {"drizzle": "day_*", "streaks": "night_*"}},
        conditions={"wet": {"weather": "wet"}, "night": "night_*"},
    )
    assert {name: len(ids) for name, ids in data.conditions.items()} == {
        "all": 6,
        "wet": 2,
        "night": 3,
    }
    for sample in data.samples:
        folder = "drizzle" if "day_" in sample.name else "streaks"
        assert sample.name.startswith(f"{folder}/rainy/")


def test_nothing_is_rendered_twice_unless_something_changed(tree, tmp_path):
    def written():
        return {p: p.stat().st_mtime_ns for p in (tmp_path / "rendered").rglob("rainy/*.png")}

    first = tree({"preset": "day"})
    before = written()
    assert tree({"preset": "day"}).fingerprint == first.fingerprint
    assert written() == before
    tree({"preset": "day", "seed": 1})
    assert all(written()[path] > before[path] for path in before)
    changed = tmp_path / "clean" / "day_01.png"
    changed.write_bytes((tmp_path / "clean" / "day_03.png").read_bytes())
    before = written()
    tree({"preset": "day", "seed": 1})
    assert [p.name for p in before if written()[p] != before[p]] == ["day_01.png"]


def test_the_file_tells_how_much_of_each_box_rain_hides(tree, tmp_path):
    tree({"preset": "day", "rate_mm_h": 150.0})
    content = json.loads((tmp_path / "rendered" / "instances.json").read_text())
    assert all(0 <= a["rain_occlusion"] <= 1 for a in content["annotations"])
    assert any(a["rain_occlusion"] > 0 for a in content["annotations"])
    assert all(0 < a["rain_transmission"] <= 1 for a in content["annotations"])
    assert all(i["attributes"]["rate_mm_h"] == 150.0 for i in content["images"])


def test_yolo_labels_and_pseudo_labels(tree):
    names = ["red thing", "green thing", "blue thing"]
    data = tree({"preset": "day"}, clean="yolo/clean", annotations="yolo/labels", names=names)
    assert len(data.annotations) > 6
    assert tree({"preset": "day"}, annotations=None).annotations is None


def test_depth_maps_are_used(tree, tmp_path):
    for number in range(6):
        name = f"{'day' if number % 2 else 'night'}_{number:02d}"
        write_depth(tmp_path / "depth" / f"{name}.png", np.full(SIZE, 0.2, np.float32))
    data = tree({"preset": "day", "depth": "depth"})
    for sample in data.samples:  # all drops are behind the scene
        difference = read_image(sample.rainy).astype(int) - read_image(sample.clean)
        assert np.abs(difference).max() <= 1
    (tmp_path / "depth" / "day_03.png").unlink()
    with pytest.raises(DatasetError, match="no depth map of day_03"):
        tree({"preset": "day", "depth": "depth", "seed": 2})


def test_a_broken_image_is_left_out_and_named(tree, tmp_path):
    content = (tmp_path / "clean" / "day_01.png").read_bytes()
    (tmp_path / "clean" / "day_01.png").write_bytes(content[:-40])
    data = tree({"preset": ["day", "night"]})
    assert len(data.samples) == 10
    assert any("day_01.png" in line for line in data.defects.error_lines())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rainy": "rainy"}, "either `rainy`"),
        ({"rain": None}, "either `rainy`"),
        ({"clean": None}, "goes without"),
        ({"scenes": "instances.json"}, "goes without"),
        ({"rain": {"preset": "storm"}}, "no rain preset 'storm'"),
        ({"rain": {"preset": "day", "rate_mm_h": -4.0}}, "not within 0..300"),
        ({"rain": {"preset": "day", "options": {"fog": 3.0}}}, "unknown key"),
        ({"rain": {"presets": "day"}}, "did you mean 'preset'"),
        ({"rain": {"preset": []}}, "no preset"),
        ({"rain": {"preset": {"day": "nothing-*"}}}, "no image matches"),
    ],
)
def test_what_cannot_be_is_refused(tree, changes, said):
    with pytest.raises((ConfigError, DatasetError), match=said):
        tree(**{"rain": {"preset": "day"}, **changes})
