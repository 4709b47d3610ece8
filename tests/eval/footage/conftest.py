"""Footage of drawn rectangles in rain, and a detector that finds them without weights."""

import numpy as np
import pytest

from eval.footage.__main__ import main
from eval.footage.frames import FrameKey
from eval.footage.records import RAINY, FrameRecord, FrameResult, as_boxes
from rainmer.frames.images import write_image
from tests.eval.trees import NAMES, RectangleDetector, rain, scene


class Rectangles(RectangleDetector):
    """The rectangle detector in the place of `load_detector`. `teacher` weights are another one."""

    stop_after_frames = None

    def __init__(self, weights, device=None, **options):
        super().__init__()
        self.name, self.names = str(weights).removesuffix(".pt"), dict(NAMES)
        if "teacher" in self.name:
            self.names = {7: "BLUE thing", 8: "green thing", 9: "bicycle"}
        self.options, self.seen = options, 0

    def __call__(self, frames):
        self.seen += len(frames)
        if self.stop_after_frames is not None and self.seen > self.stop_after_frames:
            raise KeyboardInterrupt
        found = [self._detect(frame) for frame in frames]
        if "teacher" in self.name:
            return [type(f)(f.boxes_xyxy, f.scores, 9 - f.labels) for f in found]
        return found


def write_frames(folder, count, *, size=(48, 64), first=0):
    """Write a drive: one scene that moves, under other rain in every frame."""
    picture, _ = scene(5, size)
    for n in range(first, first + count):
        write_image(folder / f"{n:03d}.png", rain(np.roll(picture, n // 2, axis=1), n))


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Run the command on sources with the rectangle detector; return the folder of results."""
    monkeypatch.setattr("eval.footage.run.load_detector", Rectangles)

    def run(*arguments, report=False, out="out"):
        with pytest.MonkeyPatch.context() as patch:
            if not report:  # it takes most of the time of such a small run
                patch.setattr("eval.footage.finish.render_footage", lambda *_, **__: "")
            main([*map(str, arguments), "--out", str(tmp_path / out), "--device", "cpu",
                  "--quiet", "--resamples", "50"])  # fmt: skip
        return tmp_path / out

    return run


def results(rainy, derained, *, shot="drive", fps=10, name="median", size_hw=(100, 200)):
    """Frames from lists of `Detections`."""
    return [
        FrameResult(
            FrameKey("drive.mp4", f"{n:06d}"),
            shot,
            n / fps,
            size_hw,
            {
                RAINY: FrameRecord("drive.mp4", f"{n:06d}", as_boxes(one), 1.0),
                name: FrameRecord("drive.mp4", f"{n:06d}", as_boxes(other), 1.0, 4.0),
            },
        )
        for n, (one, other) in enumerate(zip(rainy, derained, strict=True))
    ]
