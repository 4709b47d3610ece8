"""The measuring harness: ultralytics' validation pre- and post-processing for frames in memory.

All rows of a comparison use it, so that only their pixels differ. It follows `yolo val`
step by step (resize of the long side, rectangular batches sorted by aspect ratio, letterbox that
never enlarges, multi-label NMS); `predict` differs in each of these.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from ultralytics import RTDETR
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils import nms, ops

from detection.types import Detections, HarnessBatch
from detection.yolo.adapter import failures_of, load_yolo, no_automatic_installs
from detection.yolo.letterbox import PAD_VALUE, Placement
from detection.yolo.rectangles import Rectangles, stack
from rainmer.device import resolve_device
from rainmer.errors import RainmerError
from rainmer.files import file_sha256
from rainmer.folders import list_files
from rainmer.frames.arrays import Frame

__all__ = ["ValidationHarness"]

_HORIZONTAL_TASKS = frozenset({"detect", "segment", "pose"})


class ValidationHarness:
    """A YOLO detector measured as `yolo val` measures it.

    Args:
        weights: What ultralytics loads. A `.pt` file of ultralytics is a pickle, which runs
            code when it is loaded: use files you trust.
        device: cpu, cuda, ...
        imgsz: Long side of the detector's input in pixels.
        conf: Lowest score kept.
        iou: IoU threshold of the NMS.
        max_det: Maximum number of detections per image.
        batch: Images per batch.
        allow_download: Whether ultralytics may fetch missing weights.

    Attributes:
        names: The detector's classes, label to name.
        fingerprint: Changes with weights and settings.

    Raises:
        RainmerError: The weights are missing, not a detector, or give no upright boxes.
    """

    def __init__(
        self,
        weights: str,
        device: str | torch.device = "cpu",
        *,
        imgsz: int = 640,
        conf: float = 0.001,
        iou: float = 0.7,
        max_det: int = 300,
        batch: int = 16,
        allow_download: bool = False,
    ) -> None:
        yolo = load_yolo(weights, allow_download=allow_download)
        if yolo.task not in _HORIZONTAL_TASKS:
            raise RainmerError(f"{weights} is a model for {yolo.task}: it gives no upright boxes")
        self._source = yolo.model
        # The end-to-end head of newer models has no NMS; every row uses the external one.
        with no_automatic_installs():
            self._model = AutoBackend(
                yolo.model,
                device=resolve_device(device),
                verbose=False,
                end2end=False,
            ).eval()
        self.names: dict[int, str] = {int(k): str(v) for k, v in self._model.names.items()}
        self.device: torch.device = self._model.device
        self.conf, self.iou, self.max_det = conf, iou, max_det
        self._class_count = 0 if yolo.task == "detect" else len(self.names)
        self.inputs = self._inputs(imgsz, batch, stretch=isinstance(yolo, RTDETR))
        self.imgsz, self.batch = self.inputs.imgsz, self.inputs.batch
        settings = (
            file_fingerprint(yolo.ckpt_path or weights),
            self.imgsz,
            conf,
            iou,
            max_det,
            self.batch,
        )
        self.fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
        # The first call takes longer, which must not count towards the first images.
        self.detect(
            [np.full((self.imgsz, self.imgsz, 3), PAD_VALUE, np.uint8)], self.inputs.input_hw()
        )

    def _inputs(self, imgsz: int, batch: int, *, stretch: bool) -> Rectangles:
        """Return how frames become inputs; an export may have fixed that."""
        stride = int(self._model.stride)
        imgsz = math.ceil(imgsz / stride) * stride
        self._fills = not (self._model.format == "pt" or getattr(self._model, "dynamic", False))
        if not self._fills:
            return Rectangles(imgsz, stride, batch, square=stretch, stretch=stretch)
        exported = getattr(self._model, "imgsz", None) or [imgsz]
        batch = int((self._model.metadata or {}).get("batch", 1))
        return Rectangles(int(max(exported)), stride, batch, square=True, stretch=stretch)

    @property
    def protocol(self) -> dict[str, object]:
        """How the detector is measured, for reports."""
        stretched = self.inputs.stretch
        return {
            "input size": f"{self.imgsz} px, "
            f"{'squares' if stretched else 'rectangular batches'} of {self.batch}",
            "detections from confidence": self.conf,
            "NMS IoU": "-" if stretched else self.iou,
            "detections per image": f"{self.max_det}, of which COCOeval takes 100",
            "NMS": "none: the network's own choice" if stretched else "external, multi-label",
        }

    def plan(self, sizes_hw: Sequence[tuple[int, int]]) -> list[HarnessBatch]:
        """Return the batches of `yolo val` for images of these sizes; see `Rectangles.plan`."""
        return self.inputs.plan(sizes_hw)

    def detect(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Detections]:
        """Detect in the frames of one batch.

        Args:
            frames: Arrays (H, W, 3), uint8, RGB.
            input_hw: From the batch's plan.

        Returns:
            Detections in pixels of each frame, best first, clipped to the frame.
        """
        sizes_hw = [(frame.shape[0], frame.shape[1]) for frame in frames]
        return self.detect_fitted(self.fit(frames, input_hw), sizes_hw, input_hw)

    def fit(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Frame]:
        """Resize frames to their part of the detector's input, without the grey padding.

        Args:
            frames: Arrays (H, W, 3), uint8, RGB.
            input_hw: From the batch's plan.
        """
        return [self.inputs.fit(frame, input_hw) for frame in frames]

    @torch.inference_mode()
    def detect_fitted(
        self,
        fitted: Sequence[Frame],
        sizes_hw: Sequence[tuple[int, int]],
        input_hw: tuple[int, int],
    ) -> list[Detections]:
        """Detect in frames that `fit` has resized, possibly derained since.

        Args:
            fitted: Arrays (h, w, 3), uint8, RGB, of the sizes that `fit` gave them.
            sizes_hw: (height, width) of each frame before it was resized.
            input_hw: From the batch's plan.

        Returns:
            Detections in pixels of each frame before it was resized; see `detect`.
        """
        if not fitted:
            return []
        placements = [self.inputs.place(size_hw, input_hw) for size_hw in sizes_hw]
        filled = stack(fitted, placements, self.batch if self._fills else 0)
        batch = torch.from_numpy(filled).to(self.device).permute(0, 3, 1, 2).contiguous()
        with failures_of(self._source):
            predictions = self._model(batch.float() / 255)
        while isinstance(predictions, list | tuple):
            predictions = predictions[0]  # beside boxes come masks and training outputs
        if self.inputs.stretch:
            return [
                self._chosen(*pair) for pair in zip(predictions.float(), sizes_hw, strict=False)
            ]
        outputs = nms.non_max_suppression(
            predictions,
            self.conf,
            self.iou,
            nc=self._class_count,
            multi_label=True,
            max_det=self.max_det,
            # Beyond its time limit it drops images, and numbers would depend on the machine.
            max_time_img=math.inf,
        )
        return [
            _to_detections(output, size_hw, placement)
            for output, size_hw, placement in zip(outputs, sizes_hw, placements, strict=False)
        ]

    def _chosen(self, output: Tensor, size_hw: tuple[int, int]) -> Detections:
        """Return what RT-DETR has chosen itself: rows of a box, its score and its label.

        Args:
            output: (N, 6), best first; center and size of boxes in shares of the frame.
            size_hw: Of the frame.
        """
        height, width = size_hw
        kept = output[output[:, 4] > self.conf][: self.max_det]
        boxes = ops.xywh2xyxy(kept[:, :4]) * kept.new_tensor([width, height, width, height])
        boxes = ops.clip_boxes(boxes, (height, width))
        return Detections(
            boxes.cpu().numpy(), kept[:, 4].cpu().numpy(), kept[:, 5].long().cpu().numpy()
        )


def file_fingerprint(weights: str) -> str:
    """Return the SHA-256 of a weights file, or of all files of an exported folder."""
    path = Path(weights)
    files = list_files(path) if path.is_dir() else [path]
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def _to_detections(output: Tensor, size_hw: tuple[int, int], placement: Placement) -> Detections:
    height, width = size_hw
    gain = (placement.size_hw[0] / height, placement.size_hw[1] / width)
    boxes = ops.scale_boxes(
        placement.canvas_hw,
        output[:, :4].clone(),
        (height, width),
        ratio_pad=(gain, (placement.left, placement.top)),
    )
    return Detections(
        boxes.float().cpu().numpy(),
        output[:, 4].float().cpu().numpy(),
        output[:, 5].long().cpu().numpy(),
    )
