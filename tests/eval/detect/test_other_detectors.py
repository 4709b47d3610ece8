"""Detectors of several kinds in one report, by their specs."""

import json

import pytest

from eval.detect.__main__ import main
from rainmer.errors import RainmerError
from tests.eval.trees import NAMES, RectangleDetector, write_tree


class Finder:
    """A user's own detector: bright rectangles."""

    names = NAMES
    fingerprint = "finder"

    def __call__(self, frames):
        return [RectangleDetector()._detect(frame) for frame in frames]


class Halves(Finder):
    """The same, at half the size."""

    fingerprint = "halves"

    def size_hw(self, frame_hw):
        return frame_hw[0] // 2, frame_hw[1] // 2


SPECS = (f"python:{__name__}:Finder", f"python:{__name__}:Halves")


def test_several_kinds_share_a_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("eval.detect.run.render_report", lambda *_: "")  # takes most of the time
    file, out = write_tree(tmp_path / "set", images=4), tmp_path / "run"
    main(["--data", str(file), "--detector", *SPECS, "--where", "frame", "network",
          "--out", str(out), "--device", "cpu", "--resamples", "20", "--no-cache", "--quiet",
          "--no-breakdown"])  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["matrix"]["detectors"] == ["Finder", "Halves"]
    assert metrics["config"]["imgsz"] == {"Finder": None, "Halves": None}
    rows = {(row["detector"], row["input"], row["derainer"]): row["mAP"] for row in metrics["rows"]}
    assert rows["Finder", "clean", ""] > rows["Halves", "clean", ""] > 0
    # Frames of native size are derained where they are, whichever place is asked for.
    assert rows["Finder", "derained", "median"] == rows["Finder", "derained", "network-median"]
    assert rows["Halves", "derained", "median"] != rows["Halves", "derained", "network-median"]
    page = (out / "report.html").read_text()
    assert "Derain, switch, or both?" in page
    assert " switch " in capsys.readouterr().out


def test_a_detector_that_fails_ends_in_one_line(tmp_path):
    with pytest.raises(RainmerError, match="unknown kind of detector 'pyton'"):
        main(["--data", str(write_tree(tmp_path / "set", images=2)), "--detector", "pyton:a:b",
              "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"])  # fmt: skip
