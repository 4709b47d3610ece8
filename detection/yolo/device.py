"""Pass batches that are already on the detector's device to ultralytics."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics import YOLOE
from ultralytics.engine.predictor import BasePredictor
from ultralytics.nn.modules.head import Detect

from detection.timing import Stopwatch
from detection.types import Detections
from detection.yolo.binding import make_class
from detection.yolo.letterbox import Placement, letterbox, place
from detection.yolo.selection import (
    Candidates,
    Selection,
    allowed_labels,
    detections_of,
    plain_head,
)
from rainmer.stage.graphs import CudaEngine, Graphs

__all__ = [
    "DeviceBatch",
    "DeviceResult",
    "device_predictor",
    "letterboxes",
    "network_input",
    "placement_of",
]

_STEPS = ("preprocess", "inference", "postprocess")
_NO_GRAPHS = Graphs()
_Base: Any = object


@dataclass(frozen=True)
class DeviceBatch:
    """A source for `YOLO.predict(source, predictor=device_predictor(yolo))`.

    Attributes:
        frames: (B, 3, H, W), uint8, RGB.
        graphs: Whether to record the network on CUDA, see `DevicePredictor`.
    """

    frames: Tensor
    graphs: bool = True


@dataclass(frozen=True)
class DeviceResult:
    """What `YOLO.predict` returns for a `DeviceBatch`.

    Attributes:
        detections: One for each frame, boxes in its pixels.
        watches: The batch's stopwatches by ultralytics' names of the steps. Without `preprocess`
            that is a part of `inference`.
    """

    detections: list[Detections]
    watches: Mapping[str, Stopwatch]


class DevicePredictor(_Base):  # type: ignore[misc]
    """A mixin for an ultralytics predictor, which then also accepts a `DeviceBatch`.

    Frames are letterboxed on their device, and steps are timed without the synchronisation of
    ultralytics' own loop, whose callbacks do not run. Any other source is processed as usual.

    On CUDA the steps from the frames to the candidates for NMS are recorded as CUDA graphs by
    `rainmer.stage.graphs.Graphs`, for the networks of `plain_head`: some hundred operators then
    take Python's lock once, for which the threads that decode would compete.
    """

    done_warmup: bool  # of ultralytics: whether the network has run once
    graphs: Graphs | None = None  # of this predictor's network

    def __call__(
        self, source: Any = None, model: Any = None, stream: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        """Predict in a source, or in a batch on the device: then a `DeviceResult`."""
        if not isinstance(source, DeviceBatch):
            return super().__call__(source, model, stream, *args, **kwargs)
        with self._lock, torch.inference_mode():
            return self._predict_batch(source.frames.to(self.device), source.graphs)

    def _predict_batch(self, frames: Tensor, graphs: bool) -> DeviceResult:
        if self.model.format == "pt" and self.model.end2end:
            # As in ultralytics' loop: filter classes before keeping the best detections.
            self.model.model.set_head_attr(
                max_det=max(self.args.max_det, 300), agnostic_nms=self.args.agnostic_nms
            )
        # With any image: this is where ultralytics checks the input size.
        self.setup_source(np.zeros((1, 1, 3), np.uint8))
        placement = placement_of(self, (frames.shape[2], frames.shape[3]), one_size=True)
        if not self.done_warmup:
            self.model.warmup(im=network_input(self, letterbox(frames, placement)))
            self.done_warmup = True
        watches = {step: Stopwatch(self.device) for step in _STEPS}
        head = plain_head(self)
        if head is None:
            return self._predict_stock(frames, placement, watches)
        return self._predict_plain(frames, placement, watches, head, graphs)

    def _predict_stock(
        self, frames: Tensor, placement: Placement, watches: dict[str, Stopwatch]
    ) -> DeviceResult:
        """Predict with the network's own post-processing, whatever it is."""
        count, _, height, width = frames.shape
        self.batch = (["frame"] * count, None, None)
        with watches["preprocess"]:
            batch = network_input(self, letterbox(frames, placement))
        with watches["inference"]:
            predictions = self.inference(batch)
        with watches["postprocess"]:
            shapes = np.broadcast_to(np.uint8(0), (height, width, 3))
            results = self.postprocess(predictions, batch, [shapes] * count)
            return DeviceResult(detections_of(results), watches)

    def _predict_plain(
        self,
        frames: Tensor,
        placement: Placement,
        watches: dict[str, Stopwatch],
        head: Detect,
        graphs: bool,
    ) -> DeviceResult:
        """Predict with `Selection`, recorded if possible."""
        args, end2end = self.args, bool(self.model.end2end)
        size_hw = (frames.shape[2], frames.shape[3])
        selection = Selection(size_hw, placement, args.conf, args.agnostic_nms, end2end)
        allowed: tuple[Tensor, ...] = ()
        if args.classes is not None:
            allowed = (allowed_labels(tuple(args.classes), head.nc, self.device),)

        def prepare(frames: Tensor) -> Tensor:
            return network_input(self, letterbox(frames, placement))

        def detect(batch: Tensor, *allowed: Tensor) -> tuple[Tensor, ...]:
            outputs = self.model(batch)[0]
            # The head keeps its grid, and replaces it when the size changes: a recording, which
            # reads it, keeps it as a result of its own.
            return (*selection.candidates(outputs, *allowed), head.anchors, head.strides)

        recorded = self._recorder(graphs)
        if recorded.active:
            del watches["preprocess"]
            label = (selection, head.max_det, head.agnostic_nms, self.model.fp16, _address(head))
            with watches["inference"]:
                found = recorded.run(label, lambda x, *a: detect(prepare(x), *a), frames, *allowed)
        else:
            with watches["preprocess"]:
                batch = prepare(frames)
            with watches["inference"]:
                found = detect(batch, *allowed)
        with watches["postprocess"]:
            detections = selection.choose(Candidates(*found[:3]), args.iou, args.max_det)
        return DeviceResult(detections, watches)

    def _recorder(self, wanted: bool) -> Graphs:
        if not wanted:
            return _NO_GRAPHS
        if self.graphs is None:
            on_cuda = self.device.type == "cuda"
            self.graphs = Graphs(CudaEngine(self.device) if on_cuda else None)
        return self.graphs


def _address(head: Detect) -> int:
    """Return where the weights lie: a graph reads them there, whatever becomes of the network."""
    return int(next(head.parameters()).data_ptr())


def device_predictor(yolo: Any) -> type[Any] | None:
    """Return the predictor class for `DeviceBatch`, the same object for a YOLO object.

    None if the object's own predictor does not letterbox as ultralytics' detectors do, or if the
    object takes another predictor for visual prompts only (YOLOE).
    """
    if isinstance(yolo, YOLOE):
        return None
    stock = yolo._smart_load("predictor")
    if not (isinstance(stock, type) and issubclass(stock, BasePredictor) and letterboxes(stock)):
        return None
    return make_class(f"Device{stock.__name__}", (DevicePredictor, stock))


def letterboxes(predictor: Any) -> bool:
    """Return whether a predictor class prepares frames as ultralytics' detectors do."""
    return (
        predictor.preprocess is BasePredictor.preprocess
        and predictor.pre_transform is BasePredictor.pre_transform
    )


def placement_of(predictor: Any, frame_hw: tuple[int, int], *, one_size: bool) -> Placement:
    """Return where a predictor's letterbox places frames of a size.

    Args:
        predictor: An ultralytics predictor with its model and source set up.
        frame_hw: (height, width) of the frames.
        one_size: Whether all frames of the batch have that size.
    """
    form = predictor.model.format
    any_size = form == "pt" or (getattr(predictor.model, "dynamic", False) and form != "imx")
    return place(
        frame_hw,
        (int(predictor.imgsz[0]), int(predictor.imgsz[1])),
        auto=bool(one_size and predictor.args.rect and any_size and not predictor.scale_fill),
        stretch=bool(predictor.scale_fill),
        stride=int(predictor.model.stride),
    )


def network_input(predictor: Any, letterboxed: Tensor) -> Tensor:
    """Turn a letterboxed uint8 batch into the input of a predictor's network: 0..1."""
    # In the memory order of the stock path, which affects the choice of kernels.
    batch = letterboxed.contiguous()
    return batch.to(torch.half if predictor.model.fp16 else torch.float).div_(255.0)
