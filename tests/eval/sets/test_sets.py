"""Sets: what fits together is used, what does not is named, and nothing vanishes in silence."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml

from eval.sets import ALL, load_set
from rainmer.errors import ConfigError, DatasetError
from rainmer.frames.images import read_image, write_image
from tests.eval.trees import write_tree, write_yaml
from tests.images import encoded


def edit_annotations(tmp_path, change):
    path = tmp_path / "instances.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_yaml(file, **changes):
    content = yaml.safe_load(file.read_text())
    content.update(changes)
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not ...}))
    return file


@pytest.mark.parametrize("labels", ["coco", "yolo"])
def test_both_label_forms_give_the_same_boxes(tmp_path, labels):
    data = load_set(write_tree(tmp_path, labels=labels))
    assert len(data.samples) == 6
    assert data.has_clean
    assert not data.defects.lines()
    boxes = {s.name: [] for s in data.samples}
    by_id = {s.image_id: s.name for s in data.samples}
    for annotation in data.annotations:
        boxes[by_id[annotation["image_id"]]].append(annotation["bbox"])
    reference = load_set(write_tree(tmp_path)) if labels == "yolo" else data
    by_id = {s.image_id: s.name for s in reference.samples}
    for annotation in reference.annotations:
        found = boxes[by_id[annotation["image_id"]]]
        assert any(np.allclose(box, annotation["bbox"], atol=1e-6) for box in found)


def test_annotation_ids_start_at_one(tmp_path):
    data = load_set(write_tree(tmp_path))
    assert min(a["id"] for a in data.annotations) == 1
    assert len({a["id"] for a in data.annotations}) == len(data.annotations)


def test_conditions_by_glob_list_and_attribute(tmp_path):
    file = write_tree(tmp_path)
    rules = {"day": "day_*", "night": ["night_00.png", "NIGHT_02"], "wet": {"weather": "wet"}}
    data = load_set(edit_yaml(file, conditions=rules))
    keys = {s.image_id: s.name for s in data.samples}
    members = {name: sorted(keys[i] for i in ids) for name, ids in data.conditions.items()}
    assert members["day"] == ["day_01.png", "day_03.png", "day_05.png"]
    assert members["night"] == ["night_00.png", "night_02.png"]
    assert members["wet"] == ["day_01.png", "night_00.png"]
    assert len(members[ALL]) == 6


def test_restricting_to_conditions_and_a_number(tmp_path):
    data = load_set(write_tree(tmp_path))
    assert [s.name for s in data.restricted(limit=3).samples] == [
        "day_01.png",
        "day_05.png",
        "night_02.png",
    ]
    night = data.restricted(["night"])
    assert all(s.name.startswith("night") for s in night.samples)
    assert set(night.conditions) == {ALL, "night"}
    assert {a["image_id"] for a in night.annotations} <= {s.image_id for s in night.samples}
    with pytest.raises(DatasetError, match="no condition 'nihgt'; did you mean 'night'"):
        data.restricted(["nihgt"])


def test_orphans_are_noted(tmp_path):
    file = write_tree(tmp_path, labels="yolo")
    (tmp_path / "labels" / "day_01.txt").unlink()
    (tmp_path / "labels" / "nowhere.txt").write_text("0 0.5 0.5 0.1 0.1")
    write_image(tmp_path / "clean" / "lonely.png", np.zeros((8, 8, 3), np.uint8))
    data = load_set(file)
    lines = "\n".join(data.defects.lines())
    assert "label file without image: 1 (nowhere.txt)" in lines
    assert "image without label file, taken as empty: 1 (day_01)" in lines
    assert "clean image without rainy partner: 1 (lonely.png)" in lines
    assert not data.defects.error_lines()
    assert len(data.samples) == 6


def test_pairs_of_different_size_are_left_out_and_named(tmp_path):
    file = write_tree(tmp_path)
    write_image(tmp_path / "clean" / "day_01.png", np.zeros((48, 60, 3), np.uint8))
    data = load_set(file)
    assert len(data.samples) == 5
    assert data.defects.error_lines() == [
        "rainy and clean image of different size, skipped: 1 (day_01.png: 64x48 and 60x48)"
    ]


def test_missing_partners_and_unreadable_headers_are_left_out(tmp_path):
    file = write_tree(tmp_path)
    (tmp_path / "clean" / "day_01.png").unlink()
    (tmp_path / "rainy" / "day_03.png").write_bytes(b"")
    (tmp_path / "clean" / "day_05.png").write_text("no image")
    data = load_set(file)
    assert [s.name for s in data.samples] == ["night_00.png", "night_02.png", "night_04.png"]
    assert "rainy image without clean partner, skipped: 1 (day_01.png)" in data.defects.lines()
    assert "unreadable image, skipped: 2 (day_03.png, day_05.png)" in data.defects.lines()
    assert "annotated image without file" not in data.defects.notes  # they are there


def test_exif_orientation_counts_for_the_size(tmp_path):
    from PIL import Image

    file = write_tree(tmp_path, images=1, labels=None, conditions=False)
    picture = Image.fromarray(np.zeros((30, 50, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "clean" / "night_00.png").unlink()
    (tmp_path / "rainy" / "night_00.png").unlink()
    picture.save(tmp_path / "rainy" / "turned.jpg", exif=exif)
    write_image(tmp_path / "clean" / "turned.png", np.zeros((50, 30, 3), np.uint8))
    assert load_set(file).samples[0].size_hw == (50, 30)


BAD_BOXES = [
    ("malformed box", lambda a: a.update(bbox=[1, 2, 3])),
    ("malformed box", lambda a: a.update(bbox=[1, 2, float("nan"), 4])),
    ("malformed box", lambda a: a.update(bbox=[1, 2, 0, 4])),
    ("annotation of an unknown category", lambda a: a.update(category_id=99)),
    ("box outside its image, dropped", lambda a: a.update(bbox=[500, 2, 8, 8])),
    ("annotation of an image that is not listed", lambda a: a.update(image_id=77)),
    ("malformed box", lambda a: a.update(bbox=[1, 2, True, 4])),
    ("malformed box", lambda a: a.update(bbox=[1, 2, 10**400, 4])),
    ("malformed box", lambda a: a.update(bbox=[1, 2, 1e300, 1e300])),
    ("malformed annotation", lambda a: a.update(image_id=None)),
    ("malformed annotation", lambda a: a.update(image_id=[0])),
    ("malformed annotation", lambda a: a.update(image_id=False)),
    ("annotation of an unknown category", lambda a: a.update(category_id="thing")),
    ("malformed annotation", lambda a: a.update(category_id="")),
    ("malformed annotation", lambda a: a.update(category_id=0.5)),
    ("malformed annotation", lambda a: a.update(iscrowd="yes")),
    ("malformed annotation", lambda a: a.update(iscrowd=2)),
]


@pytest.mark.parametrize(("kind", "spoil"), BAD_BOXES)
def test_bad_annotations_are_dropped_and_named(tmp_path, kind, spoil):
    file = write_tree(tmp_path)
    before = len(load_set(file).annotations)
    edit_annotations(tmp_path, lambda content: spoil(content["annotations"][0]))
    data = load_set(file)
    assert len(data.annotations) == before - 1
    assert any(line.startswith(f"{kind}: 1") for line in data.defects.lines())


def test_ids_may_be_digits_in_strings(tmp_path):
    file = write_tree(tmp_path)
    before = load_set(file)

    def quote(content):
        for entry in [*content["images"], *content["categories"], *content["annotations"]]:
            entry |= {key: str(entry[key]) for key in entry if key == "id" or key.endswith("_id")}

    edit_annotations(tmp_path, quote)
    after = load_set(file)
    assert after.samples == before.samples
    assert after.annotations == before.annotations
    assert after.categories == before.categories
    assert after.defects.counts()["repairs"] == {"number given as text, read as a number": 24}
    assert not after.defects.errors


@pytest.mark.parametrize("area", [0, -3, "large", True, float("nan"), 10**400], ids=range(6))
def test_an_area_that_is_none_is_computed_and_noted(tmp_path, area):
    file = write_tree(tmp_path)
    before = load_set(file).annotations
    edit_annotations(tmp_path, lambda content: content["annotations"][0].update(area=area))
    data = load_set(file)
    assert data.annotations == before
    assert data.defects.lines() == [
        "annotation area that is no positive number, computed from the box: 1 (annotation 0)"
    ]


def test_null_as_crowd_is_none(tmp_path):
    file = write_tree(tmp_path)
    before = load_set(file).annotations
    edit_annotations(tmp_path, lambda content: content["annotations"][0].update(iscrowd=None))
    assert load_set(file).annotations == before


def test_attributes_of_the_wrong_form_are_ignored_and_noted(tmp_path):
    file = write_tree(tmp_path)
    edit_annotations(tmp_path, lambda content: content["images"][0].update(attributes=["wet"]))
    data = load_set(edit_yaml(file, conditions={"wet": {"weather": "wet"}}))
    assert len(data.conditions["wet"]) == 1
    assert data.defects.lines() == [
        "image attributes that are no mapping, ignored: 1 (night_00.jpg)"
    ]


BROKEN_COCO = {
    "image id 0 is used twice \\('night_00.jpg', 'day_01.jpg'\\)": lambda c: c["images"][1].update(
        id=0
    ),
    "image id 1 is used twice": lambda c: c["images"][0].update(id="1"),
    "category id 0 is used twice \\('red thing', 'green thing'\\)": (
        lambda c: c["categories"][1].update(id=0)
    ),
    "the id '' of image 'night_00.jpg' is neither": lambda c: c["images"][0].update(id=""),
    "image id 'a' is used twice": lambda c: [image.update(id="a") for image in c["images"][:2]],
    "the id None of image": lambda c: c["images"][0].update(id=None),
    "the id True of image": lambda c: c["images"][0].update(id=True),
    "the id 0.5 of category 'red thing'": lambda c: c["categories"][0].update(id=0.5),
    "the id nan of category": lambda c: c["categories"][0].update(id=float("nan")),
    "the id inf of category": lambda c: c["categories"][0].update(id=float("inf")),
    "the id 10000.*00000 of category": lambda c: c["categories"][0].update(id=10**400),
    "image 0 has the file name ''": lambda c: c["images"][0].update(file_name=""),
    "image 0 has the file name '.'": lambda c: c["images"][0].update(file_name="."),
    "image 0 has the file name '/'": lambda c: c["images"][0].update(file_name="/"),
    "image 0 has the file name None": lambda c: c["images"][0].update(file_name=None),
    "image 0 has the file name 7": lambda c: c["images"][0].update(file_name=7),
    "image 0 has the height -48 and the width 64": lambda c: c["images"][0].update(height=-48),
    "image 0 has the height 48 and the width 'wide'": (
        lambda c: c["images"][0].update(width="wide")
    ),
    "image 0 has the height inf": lambda c: c["images"][0].update(height=float("inf")),
    "image 0 has the height None and the width 0.5": (
        lambda c: c["images"][0].update(height=None, width=0.5)
    ),
}


@pytest.mark.parametrize("message", BROKEN_COCO)
def test_a_broken_image_or_category_is_named(tmp_path, message):
    file = write_tree(tmp_path)
    edit_annotations(tmp_path, BROKEN_COCO[message])
    with pytest.raises(DatasetError, match=f"instances.json: {message}"):
        load_set(file)


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, '{"images": "'])
def test_files_that_no_parser_takes(tmp_path, content):
    file = write_tree(tmp_path)
    (tmp_path / "instances.json").write_text(content)
    with pytest.raises(DatasetError, match=r"instances\.json is not valid JSON"):
        load_set(file)


@pytest.mark.parametrize(("labels", "pattern"), [("coco", "*.json"), ("yolo", "labels/*.txt")])
def test_a_byte_order_mark_is_no_content(tmp_path, labels, pattern):
    file = write_tree(tmp_path, labels=labels)
    before = load_set(file).annotations
    for path in tmp_path.glob(pattern):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    data = load_set(file)
    assert data.annotations == before
    assert not data.defects.lines()


def test_boxes_that_reach_out_are_cut(tmp_path):
    file = write_tree(tmp_path)
    edit_annotations(
        tmp_path, lambda content: content["annotations"][0].update(bbox=[-6, 4, 16, 8], area=128)
    )
    data = load_set(file)
    cut = [a for a in data.annotations if a["bbox"] == [0.0, 4.0, 10.0, 8.0]]
    assert len(cut) == 1
    assert cut[0]["area"] == pytest.approx(80)
    assert any("reaching out" in line for line in data.defects.lines())


def test_an_annotation_of_another_image_size_is_an_error(tmp_path):
    file = write_tree(tmp_path)
    edit_annotations(tmp_path, lambda content: content["images"][0].update(width=640))
    data = load_set(file)
    assert len(data.samples) == 5
    assert "another size than its annotation" in data.defects.error_lines()[0]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0.5 0.5 0.1", "malformed label line"),
        ("x 0.5 0.5 0.1 0.1", "malformed label line"),
        ("0.5 0.5 0.5 0.1 0.1", "malformed label line"),
        ("0 0.5 nan 0.1 0.1", "malformed label line"),
        ("0 0.5 0.5 1e308 1e308", "malformed label line"),
        ("9 0.5 0.5 0.1 0.1", "label of an unknown class"),
    ],
)
def test_bad_label_lines_are_named_with_their_place(tmp_path, line, kind):
    file = write_tree(tmp_path, labels="yolo")
    (tmp_path / "labels" / "day_01.txt").write_text(f"\n0 0.5 0.5 0.2 0.2\n{line}\n")
    data = load_set(file)
    assert any(entry.startswith(f"{kind}: 1 (day_01.txt:3") for entry in data.defects.error_lines())


def test_polygon_labels_give_their_bounding_box(tmp_path):
    file = write_tree(tmp_path, labels="yolo")
    (tmp_path / "labels" / "day_01.txt").write_text("1 0.25 0.25 0.75 0.25 0.5 0.5\n")
    data = load_set(file)
    image_id = next(s.image_id for s in data.samples if s.name == "day_01.png")
    boxes = [a["bbox"] for a in data.annotations if a["image_id"] == image_id]
    assert boxes == [[16.0, 12.0, 32.0, 12.0]]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"claen": "clean"}, ConfigError, "claen: unknown key; did you mean 'clean'"),
        ({"rainy": "nowhere"}, DatasetError, "no folder .*nowhere of rainy images"),
        ({"annotations": "none.json"}, DatasetError, "cannot read the annotations .*none.json"),
        ({"annotations": "set.json"}, DatasetError, "lacks images, annotations, categories"),
        ({"annotations": "bad.json"}, DatasetError, "bad.json is not valid JSON"),
        ({"annotations": "labels"}, ConfigError, "names: missing"),
        ({"annotations": None, "clean": None}, ConfigError, "`clean` is needed"),
        ({"conditions": {"all": "*"}}, ConfigError, "this name is taken"),
        ({"conditions": {"day": 3}}, ConfigError, "conditions.day"),
        ({"name": "../../evil"}, ConfigError, "set.yaml: name: '../../evil' is no plain name"),
        ({"name": "/evil"}, ConfigError, "set.yaml: name: '/evil'"),
        ({"name": ".."}, ConfigError, "set.yaml: name: '..'"),
        ({"name": ""}, ConfigError, "set.yaml: name: ''"),
        ({"name": "tiny\n"}, ConfigError, "set.yaml: name: "),
    ],
)
def test_mistakes_in_the_yaml(tmp_path, changes, error, message):
    file = write_tree(tmp_path)
    (tmp_path / "set.json").write_text("{}")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(error, match=message):
        load_set(edit_yaml(file, **changes))


def test_an_empty_set_is_an_error(tmp_path):
    (tmp_path / "rainy").mkdir()
    with pytest.raises(DatasetError, match="holds no image"):
        load_set(write_yaml(tmp_path, {"name": "x", "rainy": "rainy", "annotations": "a.json"}))


def test_nothing_left_says_why(tmp_path):
    file = write_tree(tmp_path, images=2)
    for path in (tmp_path / "clean").iterdir():
        cv2.imwrite(str(path), np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(DatasetError, match="nothing to evaluate: rainy and clean image of diff"):
        load_set(file)


def test_fingerprint_follows_files_and_boxes(tmp_path):
    file = write_tree(tmp_path)
    before = load_set(file).fingerprint
    assert load_set(file).fingerprint == before
    edit_annotations(tmp_path, lambda c: c["annotations"][0].update(bbox=[1, 1, 9, 9]))
    assert load_set(file).fingerprint != before


@pytest.mark.shared_data
def test_the_development_set(shared_data):
    data = load_set(shared_data / "coco128-rain100h" / "set.yaml")
    assert (len(data.samples), len(data.annotations)) == (128, 929)
    assert not data.defects.lines()


def test_a_reader_that_has_had_enough_is_no_error():
    command = [sys.executable, "-m", "eval.sets", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `head` does, before anything is written
        text = process.stderr.read().decode()
    assert text == ""
    assert process.returncode == 141


@pytest.mark.parametrize("labels", ["coco", "yolo"])
def test_linked_folders_hold_images_and_labels(tmp_path, labels):
    file = write_tree(tmp_path / "set", labels=labels)
    before = load_set(file)
    for name in ("rainy", "clean", "labels"):
        folder = tmp_path / "set" / name
        if folder.exists():
            folder.rename(tmp_path / name)
            folder.mkdir()
            (folder / "day").symlink_to(tmp_path / name)
            (folder / "day" / "loop").symlink_to(folder)
    after = load_set(file)
    assert [f"day/{s.name}" for s in before.samples] == [s.name for s in after.samples]
    assert [a["bbox"] for a in before.annotations] == [a["bbox"] for a in after.annotations]
    assert not after.defects.lines()


def test_images_of_any_format_belong_to_their_annotations(tmp_path, monkeypatch):
    file = write_tree(tmp_path)
    for number, (kind, suffix) in enumerate(
        [("AVIF", ".avif"), ("HEIF", ".heic"), ("GIF", ".gif")]
    ):
        path = tmp_path / "rainy" / f"{'day' if number % 2 else 'night'}_{number:02d}.png"
        path.with_suffix(suffix).write_bytes(encoded(read_image(path), kind))
        path.unlink()
    (tmp_path / "rainy" / "day_01.cr2").touch()
    (tmp_path / "rainy" / "notes.txt").touch()
    data = load_set(file)
    assert len(data.samples) == 6
    assert data.defects.lines() == [
        "other files in the folder of rainy images: 1 (1 file skipped by its suffix: .cr2 1)"
    ]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    defects = load_set(file).defects
    assert defects.error_lines() == ["unreadable image, skipped: 1 (day_01.heic)"]
    (reason,) = defects.notes["why images are unreadable"]
    assert reason.endswith('day_01.heic: HEIC needs another package: pip install "rainmer[heif]"')
