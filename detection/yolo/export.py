"""Detectors of ultralytics as modules for exporters, and what their files must tell ultralytics."""

# ultralytics is untyped: its objects and options are Any.

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from ultralytics import __version__
from ultralytics.nn.modules import OBB, Detect
from ultralytics.utils import ASSETS

from detection.yolo.adapter import YoloDetector
from rainmer.errors import WeightsError

__all__ = ["PHOTOS", "YoloGraph", "stride_of", "yolo_metadata"]

PHOTOS: Path = ASSETS
"""The folder of the photos that come with ultralytics: people, a bus."""

_LEAST_STRIDE = 32


class YoloGraph(nn.Module):
    """The network of an ultralytics detector with its decoding, for inputs of one size.

    Args:
        detector: The detector, whose network is copied.
        input_hw: (height, width) of the network's input in pixels.
        batch: Number of images.
        count: Most detections of a head that chooses them itself.
        dtype: What the network computes in; boxes are decoded in float32.

    Attributes:
        stride: Sides of inputs are multiples of it, in pixels.
        end_to_end: Whether the head chooses the detections itself, without NMS.
        names: The classes, label to name.

    Raises:
        WeightsError: The detector is no YOLO network with upright boxes, or is an export already.
    """

    def __init__(
        self,
        detector: YoloDetector,
        input_hw: tuple[int, int],
        *,
        batch: int = 1,
        count: int = 300,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        network: Any = detector.yolo.model
        head: Any = network.model[-1] if hasattr(network, "model") else None
        if not isinstance(head, Detect) or isinstance(head, OBB):
            kind = "is an export already" if head is None else f"ends in {type(head).__name__}"
            raise WeightsError(
                f"the detector {detector.name} cannot be part of a graph: it {kind}; a .pt file of "
                "a YOLO network with upright boxes can"
            )
        self.stride = stride_of(detector)
        self.names = detector.names
        self.dtype = dtype
        self.network: Any = copy.deepcopy(network).float()
        if hasattr(self.network, "end2end"):
            self.network.end2end = False  # as `predict` does, where the head has both ways
        self.network = self.network.fuse(verbose=False).eval()
        self.network.requires_grad_(False)
        head = self.network.model[-1]
        self.end_to_end = bool(head.end2end)
        head.export, head.format, head.shape = True, "onnx", None
        head.max_det = count
        with torch.no_grad():  # places of the anchors become constants
            self.network(torch.zeros(batch, 3, *input_hw))
        self.network.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Run on images (B, 3, H, W), RGB, 0..1.

        Returns:
            What ultralytics' own exports give, float32: (B, 4 + classes, A), centre, width and
            height of the boxes in pixels of the input, then scores of all anchors; of an end-to-end
            head (B, N, 6), left, top, right, bottom, score, label.
        """
        predictions = self.network(images.to(self.dtype))
        while isinstance(predictions, list | tuple):
            predictions = predictions[0]  # beside boxes come masks
        if self.end_to_end:
            return cast(Tensor, predictions[..., :6].float())
        return cast(Tensor, predictions[:, : 4 + len(self.names)].float())


def stride_of(detector: YoloDetector) -> int:
    """Return what sides of a detector's input are multiples of: ultralytics takes 32 or more."""
    return max(_LEAST_STRIDE, int(max(getattr(detector.yolo.model, "stride", [_LEAST_STRIDE]))))


def yolo_metadata(
    graph: YoloGraph, input_hw: tuple[int, int], *, batch: int, nms: bool
) -> dict[str, str]:
    """Return what `YOLO(FILE)` reads from an export of boxes, as ultralytics writes it."""
    facts: Mapping[str, object] = {
        "description": "derainer and detector in one graph",
        "version": __version__,
        "stride": graph.stride,
        "task": "detect",
        "head": type(graph.network.model[-1]).__name__,
        "batch": batch,
        "imgsz": list(input_hw),
        "names": graph.names,
        "args": {"batch": batch, "nms": nms},
        "channels": 3,
        "end2end": graph.end_to_end,
    }
    return {key: str(value) for key, value in facts.items()}
