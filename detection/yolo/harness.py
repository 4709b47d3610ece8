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

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils import nms, ops

from detection.types import Detections, HarnessBatch
from detection.yolo.adapter import failures_of, load_yolo, no_automatic_installs
from detection.yolo.letterbox import PAD_VALUE, Placement, place
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
        self._stride = int(self._model.stride)
        native = self._model.format == "pt"
        self._fixed_size = not (native or getattr(self._model, "dynamic", False))
        self.imgsz = math.ceil(imgsz / self._stride) * self._stride
        self.batch = batch
        if self._fixed_size:
            exported = getattr(self._model, "imgsz", None) or [self.imgsz]
            self.imgsz = int(max(exported))
            self.batch = int((self._model.metadata or {}).get("batch", 1))
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
            [np.full((self.imgsz, self.imgsz, 3), PAD_VALUE, np.uint8)], self._input_hw(None)
        )

    def plan(self, sizes_hw: Sequence[tuple[int, int]]) -> list[HarnessBatch]:
        """Return the batches of `yolo val` for images of these sizes, given in order of path.

        Images are sorted by aspect ratio, and each batch gets the smallest input that fits it,
        plus half a stride (`rect=True`).
        """
        sides = np.asarray(sizes_hw, dtype=np.float64).reshape(-1, 2)
        ratios = sides[:, 0] / sides[:, 1]
        # The same sort as ultralytics', ties included, so that batches hold the same images.
        order = ratios.argsort() if not self._fixed_size else np.arange(len(ratios))
        batches = []
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            batches.append(
                HarnessBatch(tuple(int(i) for i in chosen), self._input_hw(ratios[chosen]))
            )
        return batches

    def _input_hw(self, ratios: npt.NDArray[np.float64] | None) -> tuple[int, int]:
        if self._fixed_size or ratios is None:
            return (self.imgsz, self.imgsz)
        height, width = 1.0, 1.0
        if ratios.max() < 1:
            height = float(ratios.max())
        elif ratios.min() > 1:
            width = 1.0 / float(ratios.min())
        return (self._padded_side(height), self._padded_side(width))

    def _padded_side(self, share: float) -> int:
        return math.ceil(share * self.imgsz / self._stride + 0.5) * self._stride

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
        return [self._fit(frame, input_hw) for frame in frames]

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
        placements = [self._place(size_hw, input_hw) for size_hw in sizes_hw]
        filled = self._fill(list(map(_pad, fitted, placements)))
        batch = torch.from_numpy(filled).to(self.device).permute(0, 3, 1, 2).contiguous()
        with failures_of(self._source):
            predictions = self._model(batch.float() / 255)
        while isinstance(predictions, list | tuple):
            predictions = predictions[0]  # beside boxes come masks and training outputs
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

    def _fit(self, frame: Frame, input_hw: tuple[int, int]) -> Frame:
        """Resize the long side to the input size, then to the letterbox's content size.

        The data set of `val` resizes in the same two steps.
        """
        size_hw = (frame.shape[0], frame.shape[1])
        for target_hw in (self._scaled(size_hw), self._place(size_hw, input_hw).size_hw):
            if target_hw != frame.shape[:2]:
                frame = cv2.resize(frame, target_hw[::-1], interpolation=cv2.INTER_LINEAR)
        return frame

    def _scaled(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size of a frame with its long side scaled to the input size."""
        scale = self.imgsz / max(size_hw)
        if scale == 1:
            return size_hw
        height, width = (min(math.ceil(side * scale), self.imgsz) for side in size_hw)
        return height, width

    def _place(self, size_hw: tuple[int, int], input_hw: tuple[int, int]) -> Placement:
        return place(self._scaled(size_hw), input_hw, scaleup=False)

    def _fill(self, inputs: list[Frame]) -> Frame:
        """Stack inputs; for an export with a fixed batch, fill the rest with grey."""
        if self._fixed_size:
            grey = np.full_like(inputs[0], PAD_VALUE)
            inputs = inputs + [grey] * (self.batch - len(inputs))
        return np.stack(inputs)


def file_fingerprint(weights: str) -> str:
    """Return the SHA-256 of a weights file, or of all files of an exported folder."""
    path = Path(weights)
    files = list_files(path) if path.is_dir() else [path]
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def _pad(fitted: Frame, placement: Placement) -> Frame:
    canvas = np.full((*placement.canvas_hw, 3), PAD_VALUE, np.uint8)
    canvas[placement.content] = fitted
    return canvas


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
