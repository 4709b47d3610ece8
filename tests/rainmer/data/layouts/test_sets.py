"""Which images stand for a set."""

import numpy as np
import pytest

from rainmer.data.layouts import ImageSet
from rainmer.data.layouts.sets import draw_images, find_set
from rainmer.errors import ConfigError, DatasetError, ImageError, OutputError
from rainmer.frames.images import write_image


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "sub/c.png", "out/map.png", "rain/1.png", "norain/1.png"):
        write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    return tmp_path


def names(images):
    return [path.name for path in images.rainy]


def test_a_folder_with_its_subfolders_but_without_results(folder):
    found = find_set(f"mine:{folder}", out=folder / "out")
    assert (found.name, found.source) == ("mine", str(folder))
    assert names(found) == ["a.jpg", "b.png", "1.png", "1.png", "c.png"]


def test_a_glob(folder):
    assert names(find_set(f"mine:{folder}/*.png")) == ["b.png"]


def test_the_rainy_images_of_a_layout(folder):
    found = find_set(f"mine:folders:{folder}")
    assert [path.parent.name for path in found.rainy] == ["rain"]


def test_the_mode_decides_only_where_a_name_means_two_layouts(tmp_path):
    for part in ("train/rainy", "train/gt", "test/rainy", "test/gt"):
        name = "0001_set1_0.png" if part.endswith("gt") else "0001_00_set1_0.png"
        write_image(tmp_path / "GTAV-balance" / part / name, np.zeros((4, 4, 3), np.uint8))
    train, test, other = (
        find_set(f"mine:{name}:{tmp_path}", mode=mode).rainy[0].parts[-3]
        for name, mode in (("gtav", "train"), ("gtav", "test"), ("gtavcrop", "train"))
    )
    assert (train, test, other) == ("train", "test", "test")


def test_a_folder_with_a_colon_is_a_folder_first(folder):
    write_image(folder / "x:y" / "d.png", np.zeros((4, 4, 3), np.uint8))
    assert names(find_set(f"mine:{folder}/x:y")) == ["d.png"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ConfigError, "is not NAME:FOLDER"),
        ("{here}", ConfigError, "is not NAME:FOLDER"),
        (":{here}", ConfigError, "is not NAME:FOLDER"),
        ("mine:", ConfigError, "is not NAME:FOLDER"),
        ("mine:{here}/nothing", ImageError, "no file or folder"),
        ("mine:{here}/empty", ImageError, "holds no images"),
        ("mine:{here}/out", OutputError, "is the folder of a set"),
        ("mine:foldrs:{here}", ConfigError, "did you mean 'folders'"),
        ("mine:synrain:{here}", DatasetError, "does not hold synrain"),
    ],
)
def test_what_is_no_set(folder, text, error, message):
    (folder / "empty").mkdir()
    with pytest.raises(error, match=message):
        find_set(text.format(here=folder), out=folder / "out")


def test_videos_are_no_images(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(DatasetError, match="holds no images"):
        find_set(f"mine:{tmp_path}")


def drawn(count, total=10, **options):
    images = ImageSet(name="mine", unpaired=range(total))
    return draw_images(images, count, **{"seed": 0, **options})


def test_drawing_without_replacement():
    assert drawn(10) == drawn(99) == list(range(10))
    assert drawn(4) == drawn(4) == sorted(set(drawn(4)))
    assert len(drawn(4)) == 4
    assert len({tuple(drawn(4, seed=seed)) for seed in range(5)}) > 1


def test_drawing_with_replacement_gives_as_many_as_asked_for():
    many = drawn(500, replace=True)
    assert len(many) == 500
    assert set(many) == set(range(10))
