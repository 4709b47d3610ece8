"""The embedded set: drawn once, rained on at load, and what a run without arguments takes."""

import numpy as np
import pytest

import eval.detect.__main__
import eval.detect.run
from eval.sets import load_set
from eval.street.embedded import street_set
from eval.street.scene import SCENES_VERSION
from eval.street.splits import TEST
from rainmer.frames.images import read_image

FEW = (*TEST[:2], *TEST[64:66])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("street")
    return street_set(folder, scenes=FEW, quiet=True)


@pytest.fixture(scope="module")
def data(file):
    return load_set(file, rendered=file.parent / "rendered")


def test_day_and_night_get_their_rain(data):
    assert not data.defects.lines()
    assert {name: len(ids) for name, ids in data.conditions.items()} == {
        "all": 4,
        "day": 2,
        "night": 2,
    }
    for sample in data.samples:
        rainy, clean = read_image(sample.rainy).astype(int), read_image(sample.clean)
        assert sample.size_hw == (384, 640)
        start = "day-heavy/rainy/day-" if "day-0" in sample.name else "night-h"
        assert sample.name.startswith(start)
        assert np.abs(rainy - clean).mean() > 2


def test_the_clean_half_is_what_was_drawn(data, file):
    for sample in data.samples:
        assert np.array_equal(
            read_image(sample.clean), read_image(file.parent / "images" / sample.clean.name)
        )


def test_nothing_is_drawn_twice(file):
    image = next((file.parent / "images").glob("*.png"))
    before = image.stat().st_mtime_ns
    assert street_set(file.parent, scenes=FEW, quiet=True) == file
    assert image.stat().st_mtime_ns == before


def test_it_is_kept_by_the_version_of_the_scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = street_set(scenes=FEW[:1], quiet=True)
    assert file.parent.name == f"street-{SCENES_VERSION}"
    assert tmp_path in file.parents


def test_the_command_takes_it_where_nothing_is_named(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval.detect.run, "street_set", lambda **options: file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ["--derain", "--out", str(tmp_path / "run"), "--device", "cpu", "--resamples", "20"]
    eval.detect.__main__.main(options)
    printed = capsys.readouterr().out
    assert "day" in printed
    assert "night" in printed
    assert "median" in printed
    assert "rainmer-s" in printed
    assert (tmp_path / "run" / "report.html").is_file()
