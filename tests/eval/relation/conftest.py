"""Miniature sets, and a detector that needs no weights in the place of ultralytics'."""

import pytest
import torch
import yaml

from eval.relation.__main__ import main
from tests.eval.trees import RectangleDetector, write_tree

FILTERS = [f"python:tests.eval.relation.filters:{name}" for name in ("gauss", "erode", "bright")]


class RectangleHarness(RectangleDetector):
    """Finds rectangles. With `strict` weights it is another detector, with fewer detections."""

    imgsz, batch, conf, iou, max_det = 64, 2, 0.001, 0.7, 300
    device = torch.device("cpu")
    protocol = {  # noqa: RUF012
        "input size": "64 px",
        "detections from confidence": conf,
        "NMS IoU": iou,
    }
    stop = None
    made: list["RectangleHarness"] = []  # noqa: RUF012

    def __init__(self, weights, device, **options):
        super().__init__(stop_after=RectangleHarness.stop)
        self.weights = str(weights)
        self.fingerprint = f"rectangles-{self.weights}"
        RectangleHarness.made.append(self)

    def _detect(self, frame):
        found = super()._detect(frame)
        if "strict" not in self.weights:
            return found
        keep = found.scores > 0.6
        return type(found)(found.boxes_xyxy[keep], found.scores[keep], found.labels[keep])


def write_set(root, name, *, images=8, **options):
    """Write a set of this name with a day and a night half."""
    file = write_tree(root / name, images=images, **options)
    content = yaml.safe_load(file.read_text()) | {"name": name}
    if options.get("conditions", True):
        content["conditions"] = {"day": "day_*", "night": "night_*"}
    file.write_text(yaml.safe_dump(content))
    return file


def run(out, sets, *more, derain=FILTERS, detector="rect.pt", figures=False):
    """Run the command with the rectangle detector and return its folder.

    Figures take most of the time of such a small run; they are drawn where a test looks at them.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not figures:
            for name in ("relation_figure", "save_figure"):
                patch.setattr(f"eval.relation.output.{name}", lambda *drawn: None)
            patch.setattr("eval.relation.report._charts", lambda *rows: [])
        patch.setattr("eval.relation.run.load_measured", RectangleHarness)
        asked = ["--derain", *derain] if derain else []
        main(
            [*asked, "--sets", *map(str, sets), "--detector", detector, "--out", str(out),
             "--device", "cpu", "--resamples", "60", "--no-cache", "--quiet", *more]
        )  # fmt: skip
    return out
