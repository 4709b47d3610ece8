"""A small detector and a small derainer, and their graph as one ONNX file."""

import functools

import pytest
import torch
import yaml
from ultralytics import YOLO

from detection.export import GraphRequest
from rainmer import models
from tests.detection.conftest import calibrate

SMALL = {
    "nc": 3,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C2f", [32, True]],
        [-1, 1, "Conv", [32, 3, 2]],
    ],
    "head": [[[3, 4], 1, "Detect", ["nc"]]],
}


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder with `small.pt`, `prenet.safetensors` and `photos`."""
    folder = tmp_path_factory.mktemp("graph")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    torch.manual_seed(0)
    calibrate(YOLO(str(folder / "small.yaml"))).save(str(folder / "small.pt"))
    models.save_weights(folder / "prenet.safetensors", models.build("prenet", iterations=1))
    return folder


@pytest.fixture(scope="session")
def wanted(small):
    """Make a request for the two: frames of 80x124 for an input of 96x96 at most."""
    return functools.partial(
        GraphRequest,
        derain=f"prenet:{small / 'prenet.safetensors'}",
        detector=str(small / "small.pt"),
        size_hw=(80, 124),
        imgsz=96,
    )
