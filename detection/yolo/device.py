"""Pass batches that are already on the detector's device to ultralytics."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from ultralytics import YOLOE
from ultralytics.engine.predictor import BasePredictor

from detection.timing import Stopwatch
from detection.yolo.binding import make_class
from detection.yolo.letterbox import Placement, letterbox, place

__all__ = ["DeviceBatch", "device_predictor", "letterboxes", "network_input", "placement_of"]

_STEPS = ("preprocess", "inference", "postprocess")
_Base: Any = object


@dataclass(frozen=True)
class DeviceBatch:
    """A source for `YOLO.predict(source, predictor=device_predictor(yolo))`.

    Attributes:
        frames: (B, 3, H, W), uint8, RGB.
    """

    frames: Tensor


class DevicePredictor(_Base):  # type: ignore[misc]
    """A mixin for an ultralytics predictor, which then also accepts a `DeviceBatch`.

    Frames are letterboxed on their device, and steps are timed without the synchronisation of
    ultralytics' own loop, whose callbacks do not run; each result has the batch's stopwatches as
    `watches`, by ultralytics' names of the steps. Any other source is processed as usual. Of
    `Results.orig_img`, only the shape is valid.
    """

    done_warmup: bool  # of ultralytics: whether the network has run once

    def __call__(
        self, source: Any = None, model: Any = None, stream: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        """Predict in a source, or in a batch on the device."""
        if not isinstance(source, DeviceBatch):
            return super().__call__(source, model, stream, *args, **kwargs)
        with self._lock, torch.inference_mode():
            return self._predict_batch(source.frames)

    def _predict_batch(self, frames: Tensor) -> list[Any]:
        count, _, height, width = frames.shape
        if self.model.format == "pt" and self.model.end2end:
            # As in ultralytics' loop: filter classes before keeping the best detections.
            self.model.model.set_head_attr(
                max_det=max(self.args.max_det, 300), agnostic_nms=self.args.agnostic_nms
            )
        # With any image: this is where ultralytics checks the input size.
        self.setup_source(np.zeros((1, 1, 3), np.uint8))
        self.batch = (["frame"] * count, None, None)
        watches = {step: Stopwatch(self.device) for step in _STEPS}
        with watches["preprocess"]:
            placement = placement_of(self, (height, width), one_size=True)
            batch = network_input(self, letterbox(frames.to(self.device), placement))
        if not self.done_warmup:
            self.model.warmup(im=batch)
            self.done_warmup = True
        with watches["inference"]:
            predictions = self.inference(batch)
        with watches["postprocess"]:
            shapes = np.broadcast_to(np.uint8(0), (height, width, 3))
            results = self.postprocess(predictions, batch, [shapes] * count)
        for result in results:
            result.watches = watches
        return cast("list[Any]", results)


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
