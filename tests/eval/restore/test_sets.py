import cv2
import numpy as np
import pytest

from eval.restore.sets import load_pair, load_sets, parse_set, resize_to_height
from rainmer.errors import ConfigError, DatasetError, ImageError
from rainmer.frames.images import write_image
from tests.eval.restore.trees import grey, pair, write_pairs, write_scenes


@pytest.mark.parametrize(
    ("text", "label", "layout"),
    [
        ("rain100L:/data", "rain100L", "rain100L"),
        ("Rain-100-h:/data", "rain100H", "rain100H"),
        ("gtav:/data", "gtavcrop", "gtavcrop"),
        ("folders:/data/my pairs", "my pairs", "folders"),
        ("mine=folders:/a=b:c", "mine", "folders"),
        ("H=rain100H:/data", "H", "rain100H"),
    ],
)
def test_sets_are_named(text, label, layout):
    spec = parse_set(text)
    assert (spec.label, spec.layout.name) == (label, layout)
    assert str(spec.root).startswith("/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rain100L", "is not NAME:ROOT"),
        ("rain100L:", "is not NAME:ROOT"),
        (":/data", "is not NAME:ROOT"),
        ("=folders:/data", "is not NAME:ROOT"),
        ("rain100K:/data", "no layout 'rain100K'; .*rain100"),
        ("synrain:/data", "'synrain' is not for test"),
        ("a/b=folders:/data", "no plain name"),
        ("..=folders:/data", "no plain name"),
    ],
)
def test_sets_that_are_none(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_set(text)


def test_two_sets_of_one_name_are_refused(tmp_path):
    write_pairs(tmp_path)
    texts = [f"a=folders:{tmp_path}", f"A=folders:{tmp_path}"]
    with pytest.raises(ConfigError, match="two sets are called 'a': write LABEL=NAME:ROOT"):
        load_sets(texts)


def test_suffixes_and_case_may_differ(tmp_path):
    write_pairs(tmp_path, 2, rainy="Input/{}.JPG", clean="target/{}.png")
    (one,) = load_sets([f"folders:{tmp_path}"])
    assert [image.name for image in one.images] == ["1.JPG", "2.JPG"]
    assert [image.clean.name for image in one.images] == ["1.png", "2.png"]
    assert one.layout == "input-target"
    assert not one.defects.errors


def test_names_start_below_the_folder_of_the_rainy_images(tmp_path):
    write_scenes(tmp_path, scenes=("only",))
    (one,) = load_sets([f"gtrain:{tmp_path}"])
    assert [image.name for image in one.images] == ["only/only-R-000.png", "only/only-R-001.png"]
    assert {image.scene for image in one.images} == {"only"}


def test_scenes_are_told_from_single_images(tmp_path):
    write_scenes(tmp_path)
    write_pairs(tmp_path / "pairs")
    scenes, pairs = load_sets([f"gtrain:{tmp_path}", f"folders:{tmp_path / 'pairs'}"])
    assert scenes.has_scenes
    assert not pairs.has_scenes


def test_what_does_not_fit_is_written_down(tmp_path):
    write_pairs(tmp_path, 5)
    (tmp_path / "target/2.png").unlink()
    write_image(tmp_path / "target/3.png", pair(3)[1][:-1, :-1])
    write_image(tmp_path / "target/extra.png", grey())
    (tmp_path / "input/4.png").write_bytes(b"")
    (one,) = load_sets([f"folders:{tmp_path}"])
    assert [image.name for image in one.images] == ["1.png", "5.png"]
    errors = " ".join(one.defects.error_lines())
    assert "input/2.png: no target/2" in errors
    assert f"input/3: 32x24, clean 31x23 in {tmp_path / 'target/3.png'}" in errors
    assert "4.png" in errors
    assert one.defects.notes == {"clean image without rainy partner": ["target/extra.png"]}


def test_a_set_without_a_usable_pair_is_an_error(tmp_path):
    write_pairs(tmp_path, 1)
    write_image(tmp_path / "target/1.png", grey(size=(8, 8)))
    with pytest.raises(DatasetError, match="different size"):
        load_sets([f"folders:{tmp_path}"])
    (tmp_path / "empty" / "input").mkdir(parents=True)
    (tmp_path / "empty" / "target").mkdir()
    with pytest.raises(DatasetError, match="does not hold"):
        load_sets([f"folders:{tmp_path / 'empty'}"])
    with pytest.raises(DatasetError, match="no folder"):
        load_sets([f"rain100L:{tmp_path / 'nowhere'}"])


def test_a_limit_spreads_over_the_names(tmp_path):
    write_pairs(tmp_path, 9)
    (one,) = load_sets([f"folders:{tmp_path}"], limit=3)
    assert [image.name for image in one.images] == ["1.png", "4.png", "7.png"]
    assert one.available == 9


def test_gtavset3_is_resized_first(tmp_path):
    folder = tmp_path / "gtavset3" / "test"
    rng = np.random.default_rng(0)
    wet, dry = rng.integers(0, 256, (2, 100, 171, 3), np.uint8)
    write_image(folder / "gt" / "0000.png", dry)
    for j in range(10):
        write_image(folder / "rainy" / f"0000_{j:02d}.png", wet)
    (one,) = load_sets([f"gtavset3:{tmp_path}"])
    assert one.height == 512
    rainy, clean = load_pair(one.images[0], one.height)
    width = int(171 / 100 * 512)
    assert rainy.shape == clean.shape == (512, width, 3)
    np.testing.assert_array_equal(clean, cv2.resize(dry, (width, 512)))


def test_a_narrow_image_keeps_a_column():
    assert resize_to_height(grey(size=(2000, 1)), 512).shape == (512, 1, 3)


def test_sizes_that_change_after_the_look_at_headers(tmp_path):
    write_pairs(tmp_path, 1)
    (one,) = load_sets([f"folders:{tmp_path}"])
    write_image(tmp_path / "target/1.png", grey(size=(8, 8)))
    with pytest.raises(ImageError, match=r"input/1.png is 32x24 .*target/1.png is 8x8"):
        load_pair(one.images[0], None)
