"""A small detector for whole runs."""

import pytest
import yaml

from tests.eval.trees import NAMES


@pytest.fixture
def few_suffice(monkeypatch):
    """Let tiny sets make claims, for tests of what is claimed."""
    monkeypatch.setattr("eval.scores.means.FEWEST_IMAGES", 0)
    monkeypatch.setattr("eval.scores.means.FEWEST_BOXES", 0)


@pytest.fixture(scope="session")
def detector(tmp_path_factory):
    """A YOLO with random weights for the classes of the drawn scenes."""
    from ultralytics import YOLO
    from ultralytics.utils import ROOT as PACKAGE

    folder = tmp_path_factory.mktemp("detector")
    content = yaml.safe_load((PACKAGE / "cfg/models/v8/yolov8.yaml").read_text())
    content |= {"nc": 3, "scales": {"n": [0.33, 0.0625, 256]}}
    (folder / "yolov8n-tiny.yaml").write_text(yaml.safe_dump(content))
    yolo = YOLO(str(folder / "yolov8n-tiny.yaml"))
    yolo.model.names = dict(NAMES)
    yolo.save(folder / "tiny.pt")
    return folder / "tiny.pt"
