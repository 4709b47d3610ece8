"""One set as COCO JSON and as YOLO labels: the same scenes and boxes, by adapters and set files."""

import json

import pytest
import yaml

from eval.sets import load_set
from eval.sets.adapters import AdapterOptions, adapt
from rainmer.errors import DatasetError
from tests.eval.trees import write_tree, write_yaml


def write_yolo_copy(folder, data, *, repeat=False):
    """Write the labels of a loaded set in YOLO's form beside links to its images."""
    names = {number: data.categories[key] for number, key in enumerate(sorted(data.categories))}
    number_of = {key: number for number, key in enumerate(sorted(data.categories))}
    for sample in data.samples:
        image = folder / "images" / sample.name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.symlink_to(sample.rainy.resolve())
        height, width = sample.size_hw
        lines = []
        for box in data.annotations:
            if box["image_id"] == sample.image_id:
                left, top, w, h = box["bbox"]
                values = [(left + w / 2) / width, (top + h / 2) / height, w / width, h / height]
                lines.append(" ".join(map(repr, [number_of[box["category_id"]], *values])))
        labels = (folder / "labels" / sample.name).with_suffix(".txt")
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join(lines * (2 if repeat else 1)))
    content = {"path": ".", "val": "images", "names": names}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return write_yaml(
        folder,
        {"name": data.name, "rainy": "images", "annotations": "labels", "names": names},
    )


def plain(name, box, categories):
    """What must be equal: pixels to the fourth decimal."""
    return (name, categories[box["category_id"]], *(round(side, 4) for side in box["bbox"]))


def boxes_of_loaded(data):
    names = {sample.image_id: sample.name for sample in data.samples}
    return sorted(plain(names[b["image_id"]], b, data.categories) for b in data.annotations)


def boxes_of_adapted(data):
    return sorted(
        plain(scene.name, b, data.categories) for scene in data.scenes for b in scene.boxes
    )


@pytest.mark.parametrize("repeat", [False, True])
def test_a_drawn_set(tmp_path, repeat):
    data = load_set(write_tree(tmp_path / "coco"))
    copy = load_set(write_yolo_copy(tmp_path / "yolo", data, repeat=repeat))
    assert boxes_of_loaded(data) == boxes_of_loaded(copy)
    kind = "object listed twice, the first counts"
    assert copy.defects.counts()["repairs"] == ({kind: 15} if repeat else {})
    assert boxes_of_adapted(adapt("yolo", tmp_path / "yolo")) == boxes_of_loaded(data)


@pytest.mark.shared_data
def test_photos_of_real_rain(shared_data, tmp_path):
    data = load_set(shared_data / "dawn-rain" / "set.yaml")
    assert (len(data.samples), len(data.annotations)) == (97, 749)
    copy = load_set(write_yolo_copy(tmp_path, data))
    assert boxes_of_loaded(data) == boxes_of_loaded(copy)
    file = AdapterOptions(annotations=shared_data / "dawn-rain" / "instances.json")
    as_coco = adapt("coco", shared_data / "dawn-rain", file)
    assert boxes_of_adapted(as_coco) == boxes_of_loaded(data)
    assert boxes_of_adapted(adapt("yolo", tmp_path)) == boxes_of_loaded(data)
    assert not [*copy.defects.lines(), *as_coco.defects.lines()]


def test_stems_as_ids_and_text_as_numbers_give_the_same_set(tmp_path):
    plain = load_set(write_tree(tmp_path))
    path = tmp_path / "instances.json"
    content = json.loads(path.read_text())
    stems = {image["id"]: image["file_name"].removesuffix(".jpg") for image in content["images"]}
    for image in content["images"]:
        image |= {"id": stems[image["id"]], "width": str(image["width"])}
    for box in content["annotations"]:
        box |= {"image_id": stems[box["image_id"]], "bbox": list(map(str, box["bbox"]))}
        box |= {"iscrowd": "0", "area": str(box["area"])}
    path.write_text(json.dumps(content))
    data = load_set(tmp_path / "set.yaml")
    assert boxes_of_loaded(data) == boxes_of_loaded(plain)
    assert data.defects.counts()["repairs"] == {
        "id of image that is text, numbered": 6,
        "number given as text, read as a number": 6 + 15,
    }
    assert not data.defects.errors


def test_keypoints_of_ultralytics(tmp_path):
    data = load_set(write_tree(tmp_path / "coco", images=2))
    write_yolo_copy(tmp_path / "yolo", data)
    for path in (tmp_path / "yolo" / "labels").iterdir():
        path.write_text("".join(f"{line} 0.5 0.5 2\n" for line in path.read_text().splitlines()))
    described = tmp_path / "yolo" / "data.yaml"
    names = described.read_text()
    described.write_text(f"{names}kpt_shape: [1, 3]\n")
    assert boxes_of_adapted(adapt("yolo", tmp_path / "yolo")) == boxes_of_loaded(data)
    for shape in ("[0, 3]", "[1, 4]", "17", "[a, 3]"):
        described.write_text(f"{names}kpt_shape: {shape}\n")
        with pytest.raises(DatasetError, match=r"data\.yaml: kpt_shape: expected"):
            adapt("yolo", tmp_path / "yolo")
