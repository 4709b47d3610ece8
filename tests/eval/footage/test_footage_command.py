"""`python -m eval.footage` from files to files."""

import json

import numpy as np
import pandas as pd
import pytest

from eval.sets import load_set
from rainmer.errors import ImageError, RainmerError
from rainmer.frames.images import read_image, write_image
from rainmer.frames.video import VideoWriter, open_video
from rainmer.meter import RainMeter
from tests.eval.detect.conftest import detector  # noqa: F401 (a fixture)
from tests.eval.footage.conftest import Rectangles, write_frames
from tests.eval.pages import Page, check_self_contained


def test_a_run_leaves_every_file(tmp_path, look, capsys):
    write_frames(tmp_path / "drive", 24)
    out = look(
        tmp_path / "drive", "--derain", "median", "soft=blend:0.5:median", "--detector", "rects.pt",
        "--teacher", "teacher.pt", "--fps", "2", "--label-next", "3", "--clip", "2", report=True,
    )  # fmt: skip
    names = {path.name for path in out.iterdir()}
    assert names == {"metrics.json", "metrics.csv", "config.yaml", "report.html", "clip.mp4",
                     "label", "rows"}  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["schema"] == 1
    assert {"environment", "config", "rows", "elapsed_s", "verdicts", "unknown"} <= metrics.keys()
    assert [row["derainer"] for row in metrics["rows"]] == ["", "median", "soft"]
    assert len(metrics["teaching"]) == 9
    table = pd.read_csv(out / "metrics.csv")
    assert len(table) == 48
    for row in metrics["rows"][1:]:
        own = table[table["derainer"] == row["derainer"]]
        assert own["gained"].sum() == row["gained"]
        assert own["lost"].sum() == row["lost"]
        assert own["derained"].sum() == row["detections"]
    text = (out / "report.html").read_text()
    check_self_contained(text)
    assert "What this cannot know" in Page(text).text
    assert "Agreement with the teacher" in Page(text).text
    assert len(text) < 5e6
    with open_video(out / "clip.mp4") as clip:
        assert len(list(clip)) == 4
    data = load_set(out / "label" / "set.yaml")
    assert len(data.samples) == 3
    own = read_image(data.samples[0].rainy)
    number = data.samples[0].name.removeprefix("drive-").removesuffix(".png")
    assert np.array_equal(own, read_image(tmp_path / "drive" / f"{number}.png"))
    printed = capsys.readouterr().out
    assert "steady" in printed
    assert "not known" in printed


def test_every_limit_and_folders(tmp_path, look):
    for name in "ab":
        write_frames(tmp_path / "in" / name, 8)
    out = look(tmp_path / "in", "--derain", "none", "--every", "2", "--limit", "6", "--fps", "10")
    table = pd.read_csv(out / "metrics.csv", dtype={"frame": str})
    assert table["shot"].tolist() == ["in/a"] * 4 + ["in/b"] * 2
    assert table["frame"].tolist() == [f"a/00{n}.png" for n in (0, 2, 4, 6)] + [
        "b/000.png", "b/002.png",
    ]  # fmt: skip
    assert table["time_s"].tolist() == [0.0, 0.2, 0.4, 0.6, 0.0, 0.2]
    metrics = json.loads((out / "metrics.json").read_text())
    assert [shot["tracked"] for shot in metrics["shots"]] == [True, False]
    assert any("each 2th frame" in note for note in metrics["notes"])


def test_an_interrupted_run_goes_on(tmp_path, look, monkeypatch):
    write_frames(tmp_path / "drive", 9)
    arguments = (tmp_path / "drive", "--derain", "median", "--batch", "2", "--clip", "0")
    whole = look(*arguments, out="whole")
    monkeypatch.setattr(Rectangles, "stop_after_frames", 10)
    with pytest.raises(KeyboardInterrupt):
        look(*arguments)
    monkeypatch.setattr(Rectangles, "stop_after_frames", 12)
    out = look(*arguments)
    drop = ["ms_derain", "ms_detect"]
    tables = [pd.read_csv(folder / "metrics.csv").drop(columns=drop) for folder in (whole, out)]
    assert tables[0].equals(tables[1])


def test_files_that_cannot_be_read_are_named_and_the_others_count(tmp_path, look):
    write_frames(tmp_path / "drive", 4)
    (tmp_path / "drive" / "001.png").write_bytes(b"no picture")
    write_image(tmp_path / "drive" / "004.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ImageError, match=r"1 of 5 files.*001\.png"):
        look(tmp_path / "drive", "--derain", "none")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [shot["frames"] for shot in metrics["shots"]] == [3, 1]
    assert "001.png" in metrics["failures"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "no file or folder nowhere"),
        (("0",), "record it to a file first"),
        (("bad",), r"1 of 1 file could not be read.*bad\.mp4"),
        (("drive", "--derain", "medain"), "unknown derainer"),
        (("drive", "--teacher", "blind-teacher.pt"), "knows none of the detector's classes"),
    ],
)
def test_mistakes_are_named(tmp_path, look, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_frames(tmp_path / "drive", 1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.mp4").write_bytes(b"no video")
    kind = type("Kind", (Rectangles,), {
        "__init__": lambda self, weights, device=None, **more: (
            Rectangles.__init__(self, weights, device, **more),
            "blind" in str(weights) and setattr(self, "names", {0: "cat"}),
        )[0],
    })  # fmt: skip
    monkeypatch.setattr("eval.footage.run.load_detector", kind)
    with pytest.raises(RainmerError, match=message):
        look(*arguments)


def test_the_meter_joins_records_table_and_report(tmp_path, look):
    write_frames(tmp_path / "drive", 4)
    out = look(tmp_path / "drive", "--derain", "none", "--clip", "0", report=True)
    table = pd.read_csv(out / "metrics.csv")
    (reading,) = RainMeter(device="cpu")([read_image(tmp_path / "drive" / "000.png")])
    assert table["meter_rain mm/h"][0] == pytest.approx(reading.rate_mm_h, rel=1e-3)
    assert table["meter_night"].between(0, 1).all()
    assert "rain mm/h" in (out / "report.html").read_text()


def test_a_network_of_ultralytics_and_a_video(tmp_path, detector):  # noqa: F811
    """Random weights find nothing: the run says so."""
    from eval.footage.__main__ import main

    with VideoWriter(tmp_path / "drive.mp4", fps=5, size_hw=(48, 64)) as writer:
        for n in range(4):
            writer.write(np.full((48, 64, 3), 40 * n, np.uint8))
    main([str(tmp_path / "drive.mp4"), "--derain", "none", "--detector", str(detector), "--imgsz",
          "64", "--device", "cpu", "--out", str(tmp_path / "out"), "--quiet"])  # fmt: skip
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["rows"][0]["frames"] == 4
    assert metrics["verdicts"][0]["title"] == "nothing is found, so nothing can be said"
