"""Detectors and frames of the detection tests. Nothing here needs weights or the network."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from ultralytics import YOLO

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CONFIGS = {
    "detect": "yolov8n.yaml",
    "segment": "yolov8n-seg.yaml",
    "pose": "yolov8n-pose.yaml",
    "obb": "yolov8n-obb.yaml",
    "classify": "yolov8n-cls.yaml",
}


def make_yolo(task: str = "detect", seed: int = 0) -> YOLO:
    """Make a detector with random weights whose scores differ and depend on the picture."""
    return copy.deepcopy(_build_yolo(task, seed))


@functools.cache
def _build_yolo(task: str, seed: int) -> YOLO:
    torch.manual_seed(seed)
    return calibrate(YOLO(CONFIGS[task]))


def calibrate(yolo: YOLO) -> YOLO:
    """Change fresh weights so that scores differ and depend on the picture."""
    rainy = [make_frame(128, 128, seed) for seed in range(4)]
    frames = np.stack(rainy + [cv2.blur(frame, (3, 3)) for frame in rainy])
    batch = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    _calibrate_norms(yolo.model, batch)
    if yolo.task != "classify":
        head = yolo.model.model[-1]
        for boxes, classes in zip(head.cv2, head.cv3, strict=True):
            _calibrate_output(yolo.model, classes[-1], batch, mean=-3.0, std=1.0)
            _calibrate_output(yolo.model, boxes[-1], batch, mean=0.0, std=0.5)
            # Sides fall off from the near bins on: boxes of a few cells, not whole frames.
            boxes[-1].bias.data -= 0.4 * torch.arange(16.0).repeat(4)
    return yolo


def _calibrate_norms(network: torch.nn.Module, batch: Tensor) -> None:
    """Set the batch norms to real statistics: untrained ones let every signal die away."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momentum = norms[0].momentum
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(batch)
    for norm in norms:
        norm.momentum = momentum
    network.eval()


def _calibrate_output(
    network: torch.nn.Module, conv: torch.nn.Conv2d, batch: Tensor, mean: float, std: float
) -> None:
    """Shift each channel of a head's last layer to a mean, scale all to a deviation."""
    outputs = []
    handle = conv.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        network(batch)
        handle.remove()
        (output,) = outputs
        factor = std / (output - output.mean(dim=(0, 2, 3), keepdim=True)).std()
        conv.weight.mul_(factor)
        conv.bias.copy_((conv.bias - output.mean(dim=(0, 2, 3))) * factor + mean)


class Blur:
    """A derainer that does something: a 3x3 mean, on arrays and tensors alike."""

    name = "blur"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frames):
        self.calls += 1
        if isinstance(frames, list):
            return [cv2.blur(frame, (3, 3)) for frame in frames]
        if frames.dtype == torch.uint8:
            return torch.stack([_blur_bytes(frame) for frame in frames])
        padded = torch.nn.functional.pad(frames, (1, 1, 1, 1), mode="reflect")
        return torch.nn.functional.avg_pool2d(padded, 3, stride=1)


def _blur_bytes(frame: Tensor) -> Tensor:
    array = frame.permute(1, 2, 0).contiguous().cpu().numpy()
    return torch.from_numpy(cv2.blur(array, (3, 3))).permute(2, 0, 1).to(frame.device)


def make_frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw a picture with edges and noise, uint8, RGB."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST)
    noise = rng.integers(0, 8, frame.shape, dtype=np.uint8)
    return cv2.add(frame, noise)


@pytest.fixture
def blur() -> Blur:
    return Blur()


def table_of(detections):
    """Return detections as rows (N, 6): box, score and label, as ultralytics has them."""
    columns = (detections.boxes_xyxy, detections.scores[:, None], detections.labels[:, None])
    return np.concatenate(columns, axis=1)
