"""Layouts of training and test sets, on miniature trees that the tests make."""

import json
import os
import sys
import tempfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rainmer.data.layouts.__main__ as command
from rainmer.cli import run_command
from rainmer.data.layouts import LAYOUTS, Layout, find_layout, find_pairs
from rainmer.data.layouts.check import check
from rainmer.data.layouts.rules import SameName, TextBefore, WithoutToken
from rainmer.data.layouts.table import _plain
from rainmer.data.layouts.tree import natural_key
from rainmer.errors import ConfigError, DatasetError
from rainmer.frames.images import write_image

DOCS = Path(__file__).resolve().parents[4] / "docs" / "datasets.md"


def touch(root, *names):
    """Make empty files: pairing does not read them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def below_root(pairs, root):
    """Paths of the rainy images below the root, without suffix."""
    return [pair.rainy.relative_to(root).with_suffix("").as_posix() for pair in pairs]


def found(pairs, root):
    """Pairs as (rainy, clean, scene), paths below the root."""
    below = [
        tuple(p and p.relative_to(root).as_posix() for p in (pair.rainy, pair.clean))
        for pair in pairs
    ]
    return [(*files, pair.scene) for files, pair in zip(below, pairs, strict=True)]


# --- every row of the table -----------------------------------------------------------------------


def multirain(name, count):
    folder = f"MultiRain/test/{name}"
    return [(f"{folder}/input/{i}.png", f"{folder}/target/{i}.png", None) for i in range(1, count)]


def gt_rain(split):
    folder = f"GT-Rain/GT-RAIN_{split}"
    return [
        (
            f"{folder}/{scene}/{scene}-Webcam-R-{n:03d}.png",
            f"{folder}/{scene}/{scene}-Webcam-C-000.png",
            scene,
        )
        for scene in ("Winter_2-1", "Winter_10-0")
        for n in range(3)
    ]


def gtav(folder):
    return [
        (f"{folder}/rainy/{a}_{b}_{rest}.png", f"{folder}/gt/{a}_{rest}.png", f"{a}_{rest}")
        for a, b, rest in (
            ("0000", "01", "set1_0crop"),
            ("0000", "02", "set1_0crop"),
            ("0011", "03", "set1_2crop"),
        )
    ]


def same_name(rainy, clean, *names):
    return [(f"{rainy}/{name}", f"{clean}/{name}", None) for name in names]


def plain(rainy, clean):
    return [
        (f"{rainy}/{a}", f"{clean}/{b}", None)
        for a, b in (("1.png", "1.png"), ("2.jpg", "2.PNG"), ("10.JPG", "10.bmp"))
    ] + [(f"{rainy}/sub.d/x.1.png", f"{clean}/sub.d/x.1.webp", None)]


ALL_IN_ONE = "AllinOne"
CASES = {
    ("synrain", "train"): same_name(
        "MultiRain/train/rain", "MultiRain/train/norain", "2.jpg", "10.jpg", "a_1.jpg"
    ),
    ("gt-rain", "train"): gt_rain("train"),
    ("gtav-balance", "train"): gtav("GTAV-balance/train"),
    ("gtav-nightrain-crops", "train"): gtav("GTAV-NightRain/crops/train"),
    ("outdoorrain", "train"): same_name(
        f"{ALL_IN_ONE}/rain/train/input",
        f"{ALL_IN_ONE}/rain/train/target",
        "im_1_s80.png",
        "im_2.png",
    ),
    ("raindrop", "train"): same_name(
        f"{ALL_IN_ONE}/raindrop/train/input",
        f"{ALL_IN_ONE}/raindrop/train/target",
        "0_rain.png",
        "1_rain.png",
    ),
    ("snow", "train"): same_name(
        f"{ALL_IN_ONE}/snow/train/input",
        f"{ALL_IN_ONE}/snow/train/target",
        "beautiful_1.jpg",
        "city_2.jpg",
    ),
    ("test100", "test"): multirain("Test100", 99),
    ("rain100L", "test"): multirain("Rain100L", 101),
    ("rain100H", "test"): multirain("Rain100H", 101),
    ("rain200H", "test"): [
        (f"Rain200H/test/rain/X2/norain-{i}x2.png", f"Rain200H/test/norain/norain-{i}.png", None)
        for i in range(1, 201)
    ],
    ("test1200", "test"): multirain("Test1200", 1201),
    ("test2800", "test"): [
        (
            f"MultiRain/test/Test2800/input/{i}_{j}.jpg",
            f"MultiRain/test/Test2800/target/{i}_{j}.jpg",
            str(i),
        )
        for i in range(801, 1001)
        for j in range(1, 15)
    ],
    ("gtrain", "test"): gt_rain("test"),
    ("gtavcrop", "test"): gtav("GTAV-balance/test"),
    ("gtavset3", "test"): [
        (f"gtavset3/test/rainy/{i:04d}_{j:02d}.png", f"gtavset3/test/gt/{i:04d}.png", f"{i:04d}")
        for i in range(3)
        for j in range(10)
    ],
    ("realint", "test"): [(f"Real_Internet/{i}.png", None, None) for i in (1, 2, 12)],
    ("real_ours", "test"): [(f"real-world/ours/{i:03d}.jpg", None, None) for i in range(1, 1083)],
    ("outdoorrain", "test"): [
        (
            f"{ALL_IN_ONE}/rain/test/rain/im_{i}_s80_a04.{suffix}",
            f"{ALL_IN_ONE}/rain/test/gt/im_{i}.png",
            f"im_{i}",
        )
        for i, suffix in (("0001", "png"), ("0002", "jpg"))
    ],
    ("raindrop", "test"): [
        (
            f"{ALL_IN_ONE}/raindrop/test/data/{i}_rain.png",
            f"{ALL_IN_ONE}/raindrop/test/gt/{i}_clean.png",
            None,
        )
        for i in range(58)
    ],
    ("snow100k-L", "test"): same_name(
        f"{ALL_IN_ONE}/snow/test/snowy", f"{ALL_IN_ONE}/snow/test/gt", "a_1.jpg", "b.png"
    ),
    ("rain100-zip", "test"): [
        (f"rainy/rain-{i:03d}.png", f"norain-{i:03d}.png", None) for i in range(1, 101)
    ],
    ("input-target", None): plain("input", "target"),
    ("rain-norain", None): plain("rain", "norain"),
    ("rainy-clean", None): plain("rainy", "clean"),
    ("rainy-gt", None): plain("rainy", "gt"),
    ("lq-gt", None): plain("lq", "gt"),
    ("folders", None): plain("lq", "gt"),
}


def grow(root, name, mode):
    """Make the tree of a case; return its pairs."""
    pairs = CASES[name, mode]
    touch(root, *{file for rainy, clean, _ in pairs for file in (rainy, clean) if file})
    return pairs


def test_every_layout_has_a_case():
    assert [(one.name, one.mode) for one in LAYOUTS] == list(CASES)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_pairs(name, mode, tmp_path):
    expected = grow(tmp_path, name, mode)
    pairs = find_pairs(name, tmp_path, mode=mode)
    assert found(pairs, tmp_path) == expected
    names = [str(PurePosixPath(rainy).with_suffix("")) for rainy, _, _ in expected]
    assert below_root(pairs, tmp_path) == names
    assert len(set(names)) == len(names)


# The large ones differ in nothing but their numbers, which `test_pairs` looks at.
SMALL = [case for case, pairs in CASES.items() if len(pairs) <= 200]


@pytest.mark.parametrize(("name", "mode"), SMALL)
def test_check_finds_nothing_to_complain_about(name, mode, tmp_path):
    expected = grow(tmp_path, name, mode)
    report = check(name, tmp_path, mode)
    assert (report.pairs, report.clean_images, report.skipped) == (
        len(expected),
        len({clean for _, clean, _ in expected if clean}),
        0,
    )
    assert report.defects.errors == {}
    other_number = {
        kind: subjects
        for kind, subjects in report.defects.notes.items()
        if not kind.startswith("other number of")
    }
    assert other_number == {}


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_an_empty_root_says_where_files_should_be(name, mode, tmp_path):
    with pytest.raises(DatasetError) as caught:
        find_pairs(name, tmp_path, mode=mode)
    message = str(caught.value)
    for rainy, clean, _ in CASES[name, mode][:1]:
        for file in filter(None, (rainy, clean)):
            top = PurePosixPath(file).parts[0]
            assert (top if "/" in file else "norain-*") in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_missing_root(name, mode, tmp_path):
    with pytest.raises(DatasetError, match=r"no folder .*nowhere; .* expects"):
        find_pairs(name, tmp_path / "nowhere", mode=mode)


REFERENCED = [case for case in SMALL if CASES[case][0][1]]


@pytest.mark.parametrize(("name", "mode"), REFERENCED)
def test_a_missing_clean_image(name, mode, tmp_path):
    pairs = grow(tmp_path, name, mode)
    gone = pairs[-1][1]
    (tmp_path / gone).unlink()
    if name == "gtavset3":  # the number of clean images is the length of its list
        pairs = pairs[:20]
        assert found(find_pairs(name, tmp_path), tmp_path) == pairs
        return
    left = [pair for pair in pairs if pair[1] != gone]
    with pytest.raises(DatasetError, match=r"rainy image without clean partner: \d+ \("):
        find_pairs(name, tmp_path, mode=mode)
    assert found(find_pairs(name, tmp_path, mode=mode, partial=True), tmp_path) == left


@pytest.mark.parametrize(
    ("name", "mode"), [case for case in SMALL if "{" in find_layout(*case).rainy]
)
def test_a_missing_image_of_a_numbered_set(name, mode, tmp_path):
    pairs = grow(tmp_path, name, mode)
    (tmp_path / pairs[1][0]).unlink()
    with pytest.raises(DatasetError, match="listed rainy image that is missing: 1 "):
        find_pairs(name, tmp_path, mode=mode)
    left = [pairs[0], *pairs[2:]]
    assert found(find_pairs(name, tmp_path, mode=mode, partial=True), tmp_path) == left


# --- names of layouts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_name", "mode", "expected"),
    [
        ("SynRain", None, "synrain (train)"),
        ("Rain13K", None, "synrain (train)"),
        ("Rain-100L", None, "rain100L (test)"),
        ("RAIN200H", "test", "rain200H (test)"),
        ("gt-rain", None, "gt-rain (train)"),
        ("GTRain", None, "gtrain (test)"),
        ("gt-rain", "test", "gtrain (test)"),
        ("gtrain", "train", "gt-rain (train)"),
        ("gtav-balance", None, "gtav-balance (train)"),
        ("gtav-balance", "test", "gtavcrop (test)"),
        ("GTAV_NightRain", None, "gtav-nightrain-crops (train)"),
        ("raindrop", "train", "raindrop (train)"),
        ("raindrop", "test", "raindrop (test)"),
        ("snow", None, "snow (train)"),
        ("snow100k", "test", "snow100k-L (test)"),
        ("real-ours", None, "real_ours (test)"),
        (" folders ", "train", "folders"),
        ("plain", None, "folders"),
    ],
)
def test_names(given_name, mode, expected):
    assert str(find_layout(given_name, mode)) == expected


@pytest.mark.parametrize(
    ("given_name", "mode", "message"),
    [
        ("raindrop", None, r"'raindrop' may be raindrop \(train\) or raindrop \(test\): say the"),
        ("GT_Rain", None, r"gt-rain \(train\) or gtrain \(test\)"),
        ("gtav", None, r"gtav-balance \(train\) or gtavcrop \(test\)"),
        ("test100", "train", r"'test100' is not for train: there is test100 \(test\)"),
        ("synrian", None, "no layout 'synrian'; did you mean 'synrain'"),
        ("", None, "no layout ''"),
        ("-", None, "no layout '-'"),
    ],
)
def test_names_that_say_too_little(given_name, mode, message):
    with pytest.raises(ConfigError, match=message):
        find_layout(given_name, mode)


@settings(deadline=None)
@given(st.sampled_from(LAYOUTS), st.data())
def test_names_in_any_spelling(layout, data):
    letters = [data.draw(st.sampled_from([c.upper(), c.lower(), f"-{c}"])) for c in layout.name]
    assert find_layout("".join(letters), layout.mode) == layout


def test_names_and_aliases_are_unique_in_each_mode():
    for mode in ("train", "test"):
        here = [one for one in LAYOUTS if one.mode in (mode, None)]
        spelt = [_plain(name) for one in here for name in (one.name, *one.aliases)]
        assert len(set(spelt)) == len(spelt)


def test_a_layout_of_ones_own(tmp_path):
    touch(tmp_path, "a/x.png", "b/x.png")
    own = Layout(name="own", mode="train", rainy="a/*.png", clean=SameName("b/*.png"))
    assert below_root(find_pairs(own, tmp_path), tmp_path) == ["a/x"]


# --- rules ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.text("abc0189-", min_size=1), min_size=2, max_size=6))
def test_the_second_token_goes(tokens):
    rule = WithoutToken("gt/*.png")
    left = [tokens[0], *tokens[2:]]
    rainy = PurePosixPath(f"rainy/{'_'.join(tokens)}.png")
    assert rule.partner(rainy) == f"gt/{'_'.join(left)}.png"
    assert rule.scene(rainy) == "_".join(left)


@pytest.mark.parametrize(
    ("rainy", "clean"),
    [
        ("im_0001_s80_a04.png", "im_0001.png"),
        ("im_0001_s80_s90.jpg", "im_0001.png"),
        ("im_0001.png", "im_0001.png"),
        ("a.b_s1.png", "a.b.png"),
    ],
)
def test_the_text_before_the_mark(rainy, clean):
    rule = TextBefore("gt/*.png", mark="_s")
    assert rule.partner(PurePosixPath("rain", rainy)) == f"gt/{clean}"


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**30), unique=True))
def test_numbers_sort_as_numbers(numbers):
    names = [f"folder/{number}.png" for number in numbers]
    assert sorted(names, key=natural_key) == [f"folder/{n}.png" for n in sorted(numbers)]


@settings(deadline=None)
@given(st.lists(st.text("aB1٣_.-/", max_size=8), unique=True), st.randoms())
def test_the_order_of_names_is_total(names, random):
    shuffled = random.sample(names, len(names))
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


# --- traps of the published sets ------------------------------------------------------------------


def test_training_on_gtav_skips_a_sequence(tmp_path):
    folder = "GTAV-balance/train"
    grow(tmp_path, "gtav-balance", "train")
    touch(
        tmp_path,
        f"{folder}/rainy/0011_00_set2_0crop.png",
        f"{folder}/gt/0011_set2_0crop.png",
        f"{folder}/rainy/0011_00_set2_1crop.png",  # without partner, which nobody misses
    )
    assert found(find_pairs("gtav-balance", tmp_path), tmp_path) == CASES["gtav-balance", "train"]
    report = check("gtav-balance", tmp_path)
    assert (report.pairs, report.clean_images, report.skipped) == (3, 2, 1)
    assert report.defects.errors == {}
    assert report.defects.notes == {
        "left out by the layout, `0011_00_set2` in their name": [
            f"{folder}/rainy/0011_00_set2_0crop"
        ],
        "other number of rainy images than published": ["5 instead of 12321"],
        "other number of clean images than published": ["3 instead of 3201"],
    }


def test_testing_on_gtav_skips_nothing(tmp_path):
    folder = "GTAV-balance/test"
    touch(tmp_path, f"{folder}/rainy/0011_00_set2_0crop.png", f"{folder}/gt/0011_set2_0crop.png")
    assert len(find_pairs("gtavcrop", tmp_path)) == 1


def test_only_images_that_are_left_out(tmp_path):
    folder = "GTAV-balance/train"
    touch(tmp_path, f"{folder}/rainy/0011_00_set2_0crop.png", f"{folder}/gt/0011_set2_0crop.png")
    with pytest.raises(DatasetError, match="only images that the layout leaves out"):
        find_pairs("gtav-balance", tmp_path)


def test_the_first_clean_image_of_a_scene(tmp_path):
    scene = "GT-Rain/GT-RAIN_train/Lake"
    touch(tmp_path, *(f"{scene}/Lake-{n}.png" for n in ("R-000", "C-000-b", "C-000-a", "C-001")))
    assert [pair.clean.name for pair in find_pairs("gt-rain", tmp_path)] == ["Lake-C-000-a.png"]
    assert check("gt-rain", tmp_path).defects.notes == {
        "clean image without rainy partner": [f"{scene}/Lake-C-000-b.png"],
        "image beside the rainy ones that the layout does not name": [f"{scene}/Lake-C-001.png"],
        "other number of rainy images than published": ["1 instead of 26124"],
        "other number of clean images than published": ["1 instead of 89"],
    }


def test_a_clean_image_is_not_rainy_whatever_its_scene_is_called(tmp_path):
    touch(tmp_path, *(f"GT-Rain/GT-RAIN_test/R-[1]/R-[1]-{n}.png" for n in ("R-000", "C-000")))
    pairs = find_pairs("gtrain", tmp_path)
    assert [(pair.rainy.name, pair.clean.name) for pair in pairs] == [
        ("R-[1]-R-000.png", "R-[1]-C-000.png")
    ]


def test_a_lower_case_r_is_no_mark_of_rain(tmp_path):
    touch(tmp_path, *(f"GT-Rain/GT-RAIN_test/s/pier-{n}.png" for n in ("R-000", "C-000", "x")))
    assert [pair.rainy.name for pair in find_pairs("gtrain", tmp_path)] == ["pier-R-000.png"]


def test_a_scene_without_a_clean_image(tmp_path):
    grow(tmp_path, "gtrain", "test")
    folder = "GT-Rain/GT-RAIN_test"
    touch(tmp_path, f"{folder}/Fog/Fog-R-0.png", f"{folder}/Fog/Fog-R-1.png")
    assert check("gtrain", tmp_path).defects.errors == {
        "rainy image without clean partner": [
            f"{folder}/Fog/Fog-R-{n}.png: no {folder}/Fog/*C-000*.png" for n in range(2)
        ]
    }


def test_more_images_than_a_numbered_set_lists(tmp_path):
    grow(tmp_path, "test100", "test")
    folder = "MultiRain/test/Test100"
    touch(tmp_path, f"{folder}/input/99.png", f"{folder}/target/99.png")
    assert len(find_pairs("test100", tmp_path)) == 98
    assert check("test100", tmp_path).defects.notes == {
        "clean image without rainy partner": [f"{folder}/target/99.png"],
        "image beside the rainy ones that the layout does not name": [f"{folder}/input/99.png"],
    }


def test_numbers_with_leading_zeros_are_other_names(tmp_path):
    folder = "MultiRain/test/Test100"
    touch(tmp_path, f"{folder}/input/001.png", f"{folder}/target/001.png")
    with pytest.raises(DatasetError, match=r"other images are there, such as 001\.png"):
        find_pairs("test100", tmp_path)


def test_no_partner_at_all(tmp_path):
    touch(tmp_path, "MultiRain/train/rain/1.jpg", "MultiRain/train/norain/2.jpg")
    with pytest.raises(DatasetError, match=r"no complete pair: .*1\.jpg: no .*norain/1\.jpg"):
        find_pairs("synrain", tmp_path, partial=True)


@pytest.mark.parametrize("below", ["MultiRain", "MultiRain/train", "multirain/TRAIN/rain"])
def test_a_root_too_deep(below, tmp_path):
    grow(tmp_path, "synrain", "train")
    inside = tmp_path / below
    inside.mkdir(parents=True, exist_ok=True)
    with pytest.raises(DatasetError) as caught:
        find_pairs("synrain", inside)
    assert str(caught.value).endswith(f"; give {tmp_path} instead")


def test_names_in_another_case(tmp_path):
    touch(tmp_path, "multirain/Train/rain/A.JPG", "multirain/Train/NoRain/a.jpg")
    assert found(find_pairs("synrain", tmp_path), tmp_path) == [
        ("multirain/Train/rain/A.JPG", "multirain/Train/NoRain/a.jpg", None)
    ]


def test_the_exact_name_goes_first(tmp_path):
    touch(tmp_path, "MultiRain/train/rain/A.jpg")
    touch(tmp_path, *(f"MultiRain/train/norain/{name}" for name in ("a.jpg", "A.jpg")))
    assert [pair.clean.name for pair in find_pairs("synrain", tmp_path)] == ["A.jpg"]


def test_hidden_files_and_other_files_do_not_count(tmp_path):
    expected = grow(tmp_path, "snow100k-L", "test")
    folder = tmp_path / "AllinOne/snow/test/snowy"
    touch(folder, "._a_1.jpg", ".DS_Store", "Thumbs.db", "list.txt")
    (folder / "folder.png").mkdir()
    (folder / "nowhere.png").symlink_to("gone.png")
    (folder / "circle.png").symlink_to("circle.png")
    assert found(find_pairs("snow100k-L", tmp_path), tmp_path) == expected
    assert check("snow100k-L", tmp_path).defects.lines() == [
        "other files beside the images: 1 (2 files skipped by their suffix: "
        ".png (a link that leads nowhere) 2)"
    ]


def test_links_count_as_what_they_lead_to(tmp_path):
    expected = grow(tmp_path / "disk", "synrain", "train")
    (tmp_path / "MultiRain").symlink_to(tmp_path / "disk" / "MultiRain")
    assert found(find_pairs("synrain", tmp_path), tmp_path) == expected


def test_images_of_another_suffix_are_named(tmp_path):
    grow(tmp_path, "synrain", "train")
    touch(tmp_path, "MultiRain/train/rain/7.png")
    assert check("synrain", tmp_path).defects.notes[
        "image beside the rainy ones that the layout does not name"
    ] == ["MultiRain/train/rain/7.png"]


def test_two_rainy_images_of_one_name(tmp_path):
    folder = "AllinOne/snow/test"
    touch(tmp_path, *(f"{folder}/{half}/a.{s}" for half in ("snowy", "gt") for s in ("jpg", "png")))
    with pytest.raises(DatasetError, match=r"a\.jpg and .*a\.png differ only in suffix or case"):
        find_pairs("snow100k-L", tmp_path)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    grow(tmp_path, "synrain", "train")

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=r"cannot list the folder .*: Permission denied"):
        find_pairs("synrain", tmp_path)


# --- plain folders --------------------------------------------------------------------------------

STEMS = st.lists(
    st.text("abAB12._ -", min_size=1, max_size=5).filter(lambda t: t[0] not in ". "),
    min_size=1,
    max_size=8,
    unique_by=str.casefold,
)
SUFFIXES = st.sampled_from([".png", ".PNG", ".jpg", ".JPEG", ".bmp", ".webp", ".Tif"])


@settings(deadline=None)
@given(STEMS, st.data())
def test_plain_pairs_hang_on_neither_order_nor_suffix_nor_case(stems, data):
    rainy = {stem: f"Input/{stem}{data.draw(SUFFIXES)}" for stem in stems}
    clean = {stem: f"target/{stem.swapcase()}{data.draw(SUFFIXES)}" for stem in stems}
    files = data.draw(st.permutations([*rainy.values(), *clean.values()]))
    with tempfile.TemporaryDirectory() as folder:
        touch(Path(folder), *files)
        pairs = find_pairs("folders", folder)
        expected = [(rainy[stem], clean[stem], None) for stem in stems]
        assert sorted(found(pairs, Path(folder))) == sorted(expected)
        names = below_root(pairs, Path(folder))
        assert names == sorted((f"Input/{stem}" for stem in stems), key=natural_key)


def test_two_partners_of_one_name(tmp_path):
    touch(tmp_path, "lq/1.png", "gt/1.png", "gt/1.JPG")
    with pytest.raises(DatasetError, match=r"1\.JPG and .*1\.png may both belong to one rainy"):
        find_pairs("folders", tmp_path)


def test_two_rainy_images_of_one_plain_name(tmp_path):
    touch(tmp_path, "lq/a.png", "lq/A.jpg", "gt/a.png")
    with pytest.raises(DatasetError, match=r"A\.jpg and .*a\.png differ only in suffix or case"):
        find_pairs("lq-gt", tmp_path)


def test_plain_images_without_partner(tmp_path):
    touch(tmp_path, "rain/1.png", "rain/x/2.png", "norain/1.jpg", "norain/3.png", "norain/2.png")
    with pytest.raises(DatasetError, match=r"1 pairs are complete, .*rain/x/2\.png: no norain/x/2"):
        find_pairs("folders", tmp_path)
    report = check("folders", tmp_path)
    assert (report.layout, report.pairs) == ("rain-norain", 1)
    assert report.defects.errors == {
        "rainy image without clean partner": ["rain/x/2.png: no norain/x/2.*"]
    }
    assert report.defects.notes == {
        "clean image without rainy partner": ["norain/2.png", "norain/3.png"]
    }


def test_folders_of_two_layouts(tmp_path):
    touch(tmp_path, "rainy/1.png", "clean/1.png", "gt/1.png")
    with pytest.raises(DatasetError, match=r"say rainy-clean:.* or rainy-gt:.* instead of folders"):
        find_pairs("folders", tmp_path)
    assert find_pairs("rainy-gt", tmp_path)[0].clean == tmp_path / "gt/1.png"


# --- sizes ----------------------------------------------------------------------------------------


def image(path, height, width):
    write_image(path, np.zeros((height, width, 3), np.uint8))


def test_sizes(tmp_path):
    for name, clean_width in (("1", 20), ("2", 20), ("3", 21)):
        image(tmp_path / f"input/{name}.png", 10, 20)
        image(tmp_path / f"target/{name}.png", 10, clean_width)
    touch(tmp_path, "input/4.png", "target/4.png")
    assert check("folders", tmp_path).pairs == 4
    report = check("folders", tmp_path, sizes=True)
    assert (report.pairs, report.clean_images, report.sizes) == (2, 2, {"20x10": 2})
    assert report.defects.errors == {
        "rainy and clean image of different size": [
            f"input/3: 20x10, clean 21x10 in {tmp_path / 'target/3.png'}"
        ],
        "image that cannot be read": [
            f"{tmp_path / 'input/4.png'} cannot be decoded: damaged, or not an image"
        ],
    }


def test_sizes_without_reference(tmp_path):
    image(tmp_path / "Real_Internet/1.png", 10, 20)
    report = check("realint", tmp_path, sizes=True)
    assert (report.pairs, report.clean_images, report.sizes) == (1, 0, {"20x10": 1})


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def type_in(monkeypatch, capsys):
    """Run the command as its module does: exit code, text on stdout, lines on stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rainmer.data.layouts", *map(str, arguments)])
        code = 0
        try:
            run_command(command.main)
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return run


def test_command_lists_every_layout(type_in):
    code, out, err = type_in("list")
    assert (code, err) == (0, [])
    heads = [line.partition(",")[0] for line in out.splitlines() if not line.startswith(" ")]
    assert heads == list(map(str, LAYOUTS))
    assert "synrain (train), 13711 pairs" in out
    assert "    rainy  MultiRain/test/Test2800/input/{i}_{j}.jpg (i = 801..1000, j = 1..14)" in out


def test_command_counts(type_in, tmp_path):
    grow(tmp_path, "rain100L", "test")
    grow(tmp_path, "synrain", "train")
    grow(tmp_path, "realint", "test")
    given_sets = [f"{name}:{tmp_path}" for name in ("Rain-100L", "synrain", "realint")]
    code, out, err = type_in("check", *given_sets)
    assert (code, err) == (0, [])
    assert out.splitlines() == [
        f"rain100L (test) in {tmp_path}: 100 pairs, 100 clean images",
        f"synrain (train) in {tmp_path}: 3 pairs, 3 clean images",
        "  note: other number of rainy images than published: 1 (3 instead of 13711)",
        "  note: other number of clean images than published: 1 (3 instead of 13711)",
        f"realint (test) in {tmp_path}: 3 rainy images, no reference",
    ]


def test_command_goes_on_and_ends_with_one_line(type_in, tmp_path):
    pairs = grow(tmp_path, "raindrop", "test")
    for rainy, _, _ in pairs[:5]:
        (tmp_path / rainy).unlink()
    sets = [f"folders:{tmp_path / 'gone'}", f"raindrop:{tmp_path}"]
    code, out, err = type_in("check", *sets, "--mode", "test")
    assert code == 2
    data = "AllinOne/raindrop/test/data"
    assert out.splitlines() == [
        f"raindrop (test) in {tmp_path}: 53 pairs, 53 clean images",
        "  error: listed rainy image that is missing: 5 "
        f"({data}/0_rain.png, {data}/1_rain.png, {data}/2_rain.png, ...)",
        "  note: clean image without rainy partner: 5 (AllinOne/raindrop/test/gt/0_clean.png, "
        "AllinOne/raindrop/test/gt/1_clean.png, AllinOne/raindrop/test/gt/2_clean.png, ...)",
    ]
    assert len(err) == 1
    assert err[0].startswith(f"error: no folder {tmp_path / 'gone'}; folders expects one of")
    assert err[0].endswith(f"raindrop:{tmp_path}: 53 pairs can be used, 5 cannot; see the report")


def test_command_sizes(type_in, tmp_path):
    image(tmp_path / "input/1.png", 10, 20)
    image(tmp_path / "target/1.png", 10, 20)
    code, out, err = type_in("check", f"input-target:{tmp_path}", "--sizes")
    assert (code, err) == (0, [])
    assert out.splitlines()[1] == "  size 20x10: 1"


def test_command_json(type_in, tmp_path):
    grow(tmp_path, "lq-gt", None)
    touch(tmp_path, "lq/99.png")
    code, out, err = type_in("check", f"plain:{tmp_path}", f"synrain:{tmp_path}", "--json")
    assert code == 2
    assert len(err) == 1
    first, second = json.loads(out)
    assert first == {
        "set": f"plain:{tmp_path}",
        "layout": "lq-gt",
        "mode": None,
        "root": str(tmp_path),
        "pairs": 4,
        "clean_images": 4,
        "skipped": 0,
        "expected_pairs": None,
        "expected_clean_images": None,
        "sizes": None,
        "errors": {"rainy image without clean partner": ["lq/99.png: no gt/99.*"]},
        "notes": {},
    }
    assert second["set"] == f"synrain:{tmp_path}"
    assert second["failure"].startswith(f"{tmp_path} does not hold synrain (train)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synrain"], "'synrain' is not NAME:ROOT"),
        ([":/data"], "':/data' is not NAME:ROOT"),
        (["synrain:"], "'synrain:' is not NAME:ROOT"),
        (["nothing:/data"], "no layout 'nothing'"),
        (["raindrop:/data"], "say the mode"),
        (["synrain:\0"], "no folder"),
    ],
)
def test_command_mistakes(type_in, arguments, message):
    code, out, err = type_in("check", *arguments)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]


def test_command_help_has_an_example(type_in):
    code, out, _ = type_in("--help")
    assert code == 0
    assert "python -m rainmer.data.layouts check synrain:/data" in out


# --- the documentation ----------------------------------------------------------------------------


def documented(layout):
    """The row of docs/datasets.md."""
    rainy, clean = layout.describe_rainy(), layout.clean.describe()
    count = "" if layout.pairs is None else f"{layout.pairs:,}"
    return f"| `{layout.name}` | {layout.mode or ''} | `{rainy}` | `{clean}` | {count} |"


def test_documentation_has_every_layout():
    rows = [documented(layout) for layout in LAYOUTS]
    text = DOCS.read_text(encoding="utf-8")
    assert [row for row in rows if row not in text] == []
