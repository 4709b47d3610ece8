"""`python -m rainmer.meter`: a line a source, JSON of every frame, plots and tables."""

import csv
import json

import numpy as np
import pytest

from rainmer.errors import ImageError
from rainmer.frames.images import write_image
from rainmer.meter.__main__ import main
from rainmer.meter.head import QUANTITIES
from tests.rainmer.meter.fakes import random_weights
from tests.videos import record


@pytest.fixture
def frames(tmp_path):
    random_weights().save(tmp_path / "meter.safetensors")
    for number in range(2):
        level = np.full((20, 30, 3), 90 * number, np.uint8)
        write_image(tmp_path / "in" / f"{number}.png", level)
    record(tmp_path / "in" / "drive.mp4", [number / 25 for number in range(5)], rate=25)
    return tmp_path / "in"


def measure(frames, *options):
    weights = frames.parent / "meter.safetensors"
    main([str(frames), "--weights", str(weights), "--device", "cpu", "--quiet", *options])


def test_lines_plots_and_tables(frames, tmp_path, capsys):
    measure(frames, "--out", str(tmp_path / "out"), "--every", "2", "--figure", "svg")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["0.png", "1.png", "drive.mp4"]
    assert lines[2].endswith("medians of 3 frames")
    assert " mm/h" in lines[0]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"images.csv", "images.svg", "drive.mp4.csv", "drive.mp4.svg"}
    rows = list(csv.DictReader((tmp_path / "out" / "drive.mp4.csv").open()))
    assert [float(row["time_s"]) for row in rows] == [0.0, 0.08, 0.16]
    assert {*QUANTITIES, "benefit"} < rows[0].keys()


def test_json_and_what_cannot_be_read(frames, capsys):
    (frames / "2.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="1 of 4 files could not be read"):
        measure(frames, "--json")
    image, _, video = json.loads(capsys.readouterr().out)
    assert image["name"] == "0.png"
    assert 0.0 <= image["rain"] <= 1.0
    assert len(video["frames"]) == 5
    assert video["frames"][1]["intervals"].keys() == {"rate_mm_h"}
