"""A derainer in front of a detector, inside YOLO or in your own loop.

`attach(yolo, derainer)` makes an existing YOLO object derain; `Pipeline` works with any detector.
Importing this package does not import ultralytics: only using a name that needs it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detection import yolo as _yolo
from detection.draw import draw_detections, side_by_side
from detection.pipeline import Pipeline, Processed, StreamError
from detection.types import Detections, Detector, DeviceDetector

if TYPE_CHECKING:
    from detection.yolo import (
        DerainPredictor,
        DerainValidator,
        YoloDetector,
        attach,
        attached,
        detach,
        load_yolo,
    )

__all__ = [
    "DerainPredictor",
    "DerainValidator",
    "Detections",
    "Detector",
    "DeviceDetector",
    "Pipeline",
    "Processed",
    "StreamError",
    "YoloDetector",
    "attach",
    "attached",
    "detach",
    "draw_detections",
    "load_yolo",
    "side_by_side",
]


def __getattr__(name: str) -> object:
    if name in _yolo.__all__:
        return getattr(_yolo, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
