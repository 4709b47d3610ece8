"""A gate in the pipeline and in the command: records, counts, streams, drawings."""

import json

import numpy as np
import pytest
import torch

from detection import Detections, Pipeline
from detection.__main__ import main
from detection.run.saving import note
from detection.types import SourceFrame
from rainmer import Derainer
from rainmer.frames.images import write_image
from rainmer.stage.gate import Gate
from tests.detection.conftest import make_yolo
from tests.rainmer.meter.fakes import LevelMeter


def finds_nothing(frames):
    return [Detections() for _ in frames]


@pytest.fixture
def pipeline():
    derainer = Derainer(lambda batch: 1.0 - batch, device="cpu")
    derainer.gate = Gate(0.6, meter=LevelMeter())
    return Pipeline(derainer, finds_nothing)


def clip(levels, number=True):
    frames = (np.full((8, 10, 3), level, np.uint8) for level in levels)
    return [SourceFrame(str(i), f, i if number else None) for i, f in enumerate(frames)]


def test_streams_have_hysteresis_of_their_own_and_images_none(pipeline):
    sources = {
        "wet": clip([200, 100, 100]),
        "dry": clip([20, 100, 100]),
        "images": clip([200, 100, 100], number=False),
    }
    derained = {name: [] for name in sources}
    for name, processed in pipeline.run_streams(sources, batch=4):
        if processed is not None:
            derained[name].append(processed.decision.derain)
            is_derained = processed.derained[0, 0, 0] != processed.frame[0, 0, 0]
            assert is_derained == processed.decision.derain
            assert processed.derain_ms > 0
    assert derained == {
        "wet": [True, True, True],
        "dry": [False, False, False],
        "images": [True, False, False],
    }
    assert (pipeline.derainer.gate.derained, pipeline.derainer.gate.passed) == (4, 5)
    # Another run begins anew.
    again = [processed.decision.derain for processed in pipeline.run(clip([100]))]
    assert again == [False]


class Forgets(LevelMeter):
    """Wipes out the arrays once it has read the frames: whoever uploads them again gets nothing."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __call__(self, frames):
        readings = super().__call__(frames)
        for array in self.arrays:
            array[:] = 0
        return readings


class KeepsLevels:
    """A detector on a device, which keeps the highest level of each frame that it is shown."""

    device = torch.device("cpu")

    def __init__(self):
        self.seen = []

    def __call__(self, frames):
        self.seen += [int(frame.max()) for frame in frames]
        return finds_nothing(frames)

    def detect_batch(self, batch):
        return self(batch)


@pytest.mark.parametrize("on_device", [True, False])
def test_frames_are_uploaded_once_for_gate_and_network(pipeline, on_device):
    wet, dry = (np.full((8, 10, 3), level, np.uint8) for level in (200, 20))
    detector = KeepsLevels()
    pipeline = Pipeline(pipeline.derainer, detector, on_device=on_device)
    pipeline.derainer.gate = Gate(0.6, meter=Forgets([wet, dry]))
    processed = pipeline.process([wet, dry])
    assert [item.decision.derain for item in processed] == [True, False]
    assert detector.seen[0] == 55
    # A frame that passes is not needed on the device where the detector takes arrays.
    assert detector.seen[1] == (20 if on_device else 0)
    assert [item.decision.frame for item in processed] == [None, None]
    assert processed[0].frame is wet


def test_the_command_writes_readings_and_counts(tmp_path, capsys):
    write_image(tmp_path / "in" / "0.png", np.full((40, 60, 3), 90, np.uint8))
    make_yolo().save(tmp_path / "random.pt")
    fixed = ["--device", "cpu", "--imgsz", "64", "--quiet", "--derain", "median", "--save"]
    weights = ["--detector", str(tmp_path / "random.pt")]
    for where, gate in (("frame", "0"), ("network", "1")):
        out = tmp_path / where
        options = ["--gate", gate, "--where", where, "--out", str(out)]
        main([str(tmp_path / "in"), *weights, *fixed, *options])
        count = 1 if gate == "0" else 0
        assert f"the gate derained {count} of 1 frames" in capsys.readouterr().out
        timing = json.loads((out / "run.json").read_text())["summary"]["timing"]
        assert timing["gate"] == {"derained": count, "passed": 1 - count}
    record = json.loads((tmp_path / "frame" / "detections.jsonl").read_text())
    assert record["derained"] is True
    assert {"rate_mm_h", "rain", "benefit", "intervals"} <= record["meter"].keys()


def test_a_threshold_out_of_range_is_one_line(capsys):
    for value in ("1.5", "often", "nan"):
        with pytest.raises(SystemExit) as ended:
            main(["in", "--detector", "x.pt", "--gate", value])
        assert ended.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_note_says_what_was_decided(pipeline):
    (decision,) = pipeline.derainer.gate.decide([np.full((8, 10, 3), 20, np.uint8)])
    assert note(decision).startswith("passed: rain 0%, 0 mm/h")
