"""BDD100K, ACDC, DAWN, RainCityscapes: tags, class ids, files of all weathers, names."""

import json

import pytest

from eval.sets.adapters import AdapterOptions, adapt
from rainmer.errors import ConfigError, DatasetError
from tests.eval.sets.adapters.layouts import (
    BDD_FRAMES,
    CITY,
    SIZE_HW,
    acdc_tree,
    bdd100k_tree,
    coco,
    dawn_tree,
    frame,
    image,
    rain_name,
    raincityscapes_tree,
    text,
    voc_xml,
)


def names(data):
    return [scene.name.rsplit("/", 1)[-1] for scene in data.scenes]


def kinds(defects):
    return {**defects.errors, **defects.notes}


# --- BDD100K --------------------------------------------------------------------------------------


def test_conditions_are_weather_by_time_of_day(tmp_path):
    bdd100k_tree(tmp_path)
    data = adapt("bdd100k", tmp_path)
    members = {name: [s.attributes["source_id"] for s in data.members(name)] for name in
               data.conditions}  # fmt: skip
    assert members == {
        "rainy-dawn-dusk": ["r-dusk"],
        "rainy-day": ["r-day"],
        "rainy-night": ["r-night"],
    }
    assert data.aliases == {"bike": "bicycle", "rider": "person"}


@pytest.mark.parametrize(
    ("weather", "found"),
    [
        (("clear",), ["c-day.jpg"]),
        (("rainy", "clear"), ["r-day.jpg", "r-dusk.jpg", "c-day.jpg", "r-night.jpg"]),
        (("any",), ["r-day.jpg", "r-dusk.jpg", "c-day.jpg", "r-night.jpg"]),
    ],
)
def test_other_weathers_on_request(tmp_path, weather, found):
    bdd100k_tree(tmp_path)
    assert names(adapt("bdd100k", tmp_path, AdapterOptions(weather=weather))) == found


def test_the_allow_list_rules_over_the_tags_and_misses_are_errors(tmp_path):
    bdd100k_tree(tmp_path)
    allowed = text(tmp_path / "seen.txt", "r-day\nc-day.png  # it does rain\n\nnowhere.jpg\n")
    data = adapt("bdd100k", tmp_path, AdapterOptions(allow_list=allowed))
    assert names(data) == ["r-day.jpg", "c-day.jpg"]
    assert data.defects.errors == {
        "name on the allow-list that no image of this set has": ["nowhere.jpg"]
    }
    assert data.defects.notes["image on the allow-list tagged clear, kept"] == ["c-day"]


@pytest.mark.parametrize(("content", "message"), [("\n# none\n", "names no image"), (None, "read")])
def test_allow_lists_that_are_none(tmp_path, content, message):
    bdd100k_tree(tmp_path)
    file = tmp_path / "seen.txt"
    if content is not None:
        text(file, content)
    with pytest.raises(DatasetError, match=message):
        adapt("bdd100k", tmp_path, AdapterOptions(allow_list=file))


def test_labels_of_2020_go_before_the_older_ones(tmp_path):
    bdd100k_tree(tmp_path)
    newer = [frame("r-day.jpg", "rainy", "daytime", ("pedestrian", 2, 3, 12, 8))]
    text(tmp_path / "labels" / "det_20" / "det_val.json", newer)
    data = adapt("bdd100k", tmp_path)
    assert list(data.categories.values()) == ["pedestrian"]
    assert any("older labels" in kind for kind in data.defects.notes)


def test_tags_that_are_missing_and_images_that_are(tmp_path):
    untagged = {"name": "u.jpg", "labels": None}
    gone = frame("gone.jpg", "rainy", "night", ("car", 2, 3, 12, 8))
    bdd100k_tree(tmp_path, [*BDD_FRAMES, untagged, gone])
    (tmp_path / "images/100k/val/trainA1/gone.jpg").unlink()
    data = adapt("bdd100k", tmp_path)
    assert len(data.scenes) == 3
    assert data.defects.notes == {
        "image without a tag for weather, left out": ["u"],
        "annotated image without file": ["gone"],
    }


def test_splits(tmp_path):
    bdd100k_tree(tmp_path)
    image(tmp_path / "images" / "100k" / "train" / "t.jpg")
    entry = frame("t.jpg", "rainy", "night", ("car", 2, 3, 12, 8))
    text(tmp_path / "labels" / "bdd100k_labels_images_train.json", [entry])
    assert len(adapt("bdd100k", tmp_path).scenes) == 4
    train = adapt("bdd100k", tmp_path, AdapterOptions(split="train"))
    assert names(train) == ["t.jpg"]
    assert train.scenes[0].attributes["split"] == "train"
    with pytest.raises(DatasetError, match=r"no bdd100k_labels_images_test.json or det_test"):
        adapt("bdd100k", tmp_path, AdapterOptions(split="test"))


# --- ACDC -----------------------------------------------------------------------------------------


def test_the_rain_file_of_all_weathers_is_filtered_by_path(tmp_path):
    acdc_tree(tmp_path)
    data = adapt("acdc", tmp_path)
    assert [scene.attributes["condition"] for scene in data.scenes] == ["rain"]
    assert data.defects.notes == {
        "images of another condition in a file, left out": [
            "instancesonly_rain_train_gt_detection.json: 3"
        ],
        "images of a split without boxes, left out": ["rain/test: 1"],
    }
    assert all(scene.clean is None for scene in data.scenes)
    assert "no pixel partners" in data.remarks[0]


def test_rain_and_night_are_conditions_without_double_images(tmp_path):
    acdc_tree(tmp_path)
    data = adapt("acdc", tmp_path, AdapterOptions(weather=("rain", "night")))
    assert {name: len(data.members(name)) for name in data.conditions} == {"night": 1, "rain": 1}
    assert [len(scene.boxes) for scene in data.scenes] == [1, 1]
    assert set(data.categories.values()) >= {"person", "rider", "car", "motorcycle"}
    assert not data.defects.errors


def test_a_path_with_the_folder_of_images_in_front_is_the_same(tmp_path):
    acdc_tree(tmp_path)
    file = tmp_path / "gt_detection" / "rain" / "instancesonly_rain_train_gt_detection.json"
    content = json.loads(file.read_text())
    for entry in content["images"]:
        entry["file_name"] = f"rgb_anon/{entry['file_name']}"
    file.write_text(json.dumps(content))
    assert len(adapt("acdc", tmp_path).scenes) == 1


def test_a_file_of_all_conditions_serves_too(tmp_path):
    acdc_tree(tmp_path)
    folder = tmp_path / "gt_detection"
    (folder / "rain" / "instancesonly_rain_train_gt_detection.json").rename(
        folder / "instancesonly_train_gt_detection.json"
    )
    assert len(adapt("acdc", tmp_path, AdapterOptions(weather=("snow",))).scenes) == 1
    with pytest.raises(DatasetError, match=r"instancesonly_rain_val_gt_detection\.json"):
        adapt("acdc", tmp_path, AdapterOptions(split="val"))


@pytest.mark.parametrize(
    ("name", "valid"), [("acdc", "did you mean 'rain'"), ("dawn", "did you mean 'rain'")]
)
def test_unknown_weathers_are_named(tmp_path, name, valid):
    with pytest.raises(ConfigError, match=f"'rainy'; {valid}"):
        adapt(name, tmp_path, AdapterOptions(weather=("rainy",)))


# --- DAWN -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 5, 7])
def test_ids_that_count_otherwise_are_errors(tmp_path, number):
    dawn_tree(tmp_path)
    text(tmp_path / "Rain/Rain_YOLO_darknet/rain_storm-001.txt", f"{number} 0.5 0.5 0.5 0.5\n")
    data = adapt("dawn", tmp_path)
    assert data.defects.errors == {"label of an unknown class": [f"rain_storm-001.txt:1: {number}"]}


def test_labels_may_lie_in_the_twin_folder_or_be_voc(tmp_path):
    dawn_tree(tmp_path / "one")
    labels = tmp_path / "one" / "Rain" / "Rain_YOLO_darknet"
    labels.rename(tmp_path / "one" / "Rain" / "Rain" / "Rain_YOLO_darknet")
    assert sum(len(s.boxes) for s in adapt("dawn", tmp_path / "one").scenes) == 4
    image(tmp_path / "two" / "Rain" / "Rain" / "r-1.jpg")
    xml = voc_xml(SIZE_HW, ("motorbike", 2, 3, 12, 8))
    text(tmp_path / "two" / "Rain" / "Rain_PASCAL_VOC" / "r-1.xml", xml)
    data = adapt("dawn", tmp_path / "two")
    assert data.aliases == {"motorbike": "motorcycle"}
    assert data.scenes[0].boxes[0]["bbox"] == [2, 3, 10, 5]


def test_weathers_that_name_their_files_alike_stay_apart(tmp_path):
    for weather in ("Rain", "Fog"):
        image(tmp_path / weather / weather / "same-001.jpg")
        label = "3 0.5 0.5 0.5 0.5\n" if weather == "Rain" else "8 0.5 0.5 0.1 0.1\n"
        text(tmp_path / weather / f"{weather}_YOLO_darknet" / "same-001.txt", label)
    data = adapt("dawn", tmp_path, AdapterOptions(weather=("rain", "fog")))
    found = {s.attributes["weather"]: data.categories[s.boxes[0]["category_id"]] for s in
             data.scenes}  # fmt: skip
    assert found == {"rain": "car", "fog": "truck"}
    assert set(data.conditions) == {"rain", "fog"}


def test_one_folder_of_labels_is_for_one_weather(tmp_path):
    dawn_tree(tmp_path)
    labels = tmp_path / "Rain" / "Rain_YOLO_darknet"
    assert len(adapt("dawn", tmp_path, AdapterOptions(annotations=labels)).scenes) == 2
    with pytest.raises(ConfigError, match="give one --weather with it"):
        adapt("dawn", tmp_path, AdapterOptions(annotations=labels, weather=("rain", "fog")))


# --- RainCityscapes -------------------------------------------------------------------------------


def test_polygons_groups_deleted_ones_and_stuff(tmp_path):
    raincityscapes_tree(tmp_path)
    data = adapt("raincityscapes", tmp_path)
    boxes = [(data.categories[b["category_id"]], b["bbox"], b["iscrowd"]) for b in
             data.scenes[0].boxes]  # fmt: skip
    assert boxes == [("car", [2, 3, 10, 5], 0), ("car", [20, 3, 10, 6], 1)]
    kind = "polygons of classes that are not detected, left out"
    assert data.defects.counts()["notes"] == {"polygon marked as deleted, left out": 1, kind: 1}
    assert len({scene.clean for scene in data.scenes}) == 1
    assert set(data.conditions) == {"alpha-0.01", "alpha-0.02"}


def test_names_and_partners_that_do_not_fit(tmp_path):
    raincityscapes_tree(tmp_path)
    folder = tmp_path / "leftImg8bit_rain" / "val" / "aachen"
    image(folder / f"{CITY}_leftImg8bit_rain.png")
    image(folder / rain_name("0.01", 3).replace("000019", "000020"))
    image(folder / rain_name("0.01", 4).replace("000019", "000021"))
    image(tmp_path / "leftImg8bit/val/aachen" / f"{CITY[:-2]}21_leftImg8bit.png")
    data = adapt("raincityscapes", tmp_path)
    assert len(data.scenes) == 2
    found = kinds(data.defects)
    assert len(found["name that does not follow RainCityscapes, skipped"]) == 1
    assert len(found["rainy image without clean partner, skipped"]) == 1
    assert len(found["image without polygons, left out"]) == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"imgHeight": 24, "imgWidth": 40, "objects": [{"label": "car", "polygon": []}]},
         "malformed polygon"),
        ({"imgHeight": 24, "imgWidth": 40, "objects": [{"label": "car", "polygon": [[1, "x"]]}]},
         "malformed polygon"),
        ({"imgHeight": 24, "imgWidth": 40, "objects": [3]}, "malformed object"),
        ({"imgHeight": 24, "imgWidth": 41, "objects": []}, None),
        ({"imgHeight": 0, "imgWidth": 40, "objects": []}, "unreadable polygon file"),
        ({"imgHeight": 24, "imgWidth": 80, "objects": []}, "image of another size"),
        ([], "unreadable polygon file"),
        ("{", "unreadable polygon file"),
    ],
)  # fmt: skip
def test_polygon_files_that_are_broken(tmp_path, content, kind):
    raincityscapes_tree(tmp_path)
    stem = CITY.replace("000019", "000020")
    image(tmp_path / "leftImg8bit_rain/val/aachen" / rain_name("0.01", 1).replace(CITY, stem))
    image(tmp_path / "leftImg8bit/val/aachen" / f"{stem}_leftImg8bit.png")
    text(tmp_path / "gtFine/val/aachen" / f"{stem}_gtFine_polygons.json", content)
    data = adapt("raincityscapes", tmp_path)
    assert [k for k in data.defects.errors if kind and k.startswith(kind)] == list(
        data.defects.errors
    )
    assert bool(data.defects.errors) == (kind is not None)


@pytest.mark.parametrize("missing", ["leftImg8bit_rain", "leftImg8bit", "gtFine"])
def test_a_missing_folder_is_named(tmp_path, missing):
    raincityscapes_tree(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=f"no folder .*{missing}; say where with --"):
        adapt("raincityscapes", tmp_path)


def test_annotations_of_a_wrong_kind_are_named(tmp_path):
    acdc_tree(tmp_path)
    file = tmp_path / "gt_detection" / "rain" / "instancesonly_rain_train_gt_detection.json"
    text(file, coco([], [], {})["images"])
    with pytest.raises(DatasetError, match="is no COCO annotation file"):
        adapt("acdc", tmp_path)
