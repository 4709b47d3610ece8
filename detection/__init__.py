"""A derainer in front of a detector, inside YOLO or in your own loop.

`attach(yolo, derainer)` makes an existing YOLO object derain; `Pipeline` works with any detector.
Importing this package imports neither torch nor ultralytics: using a name that needs them does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from detection.draw import draw_detections, side_by_side
    from detection.pipeline import Pipeline, Processed, StreamError
    from detection.types import Detections, Detector, DeviceDetector
    from detection.yolo.adapter import YoloDetector, load_yolo
    from detection.yolo.augment import RainTrainer as RainTrainer  # the sixteenth name
    from detection.yolo.hooks import DerainPredictor, DerainValidator, attach, attached, detach

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

__getattr__ = lazy_names(
    __name__,
    {
        "detection.draw": "draw_detections side_by_side",
        "detection.pipeline": "Pipeline Processed StreamError",
        "detection.types": "Detections Detector DeviceDetector",
        "detection.yolo.adapter": "YoloDetector load_yolo",
        "detection.yolo.augment": "RainTrainer",
        "detection.yolo.hooks": "DerainPredictor DerainValidator attach attached detach",
    },
)
