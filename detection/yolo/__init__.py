"""All code that calls ultralytics. Its modules are imported when one of their names is used.

ultralytics is AGPL-3.0; the rest of the toolkit does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from detection.yolo.adapter import YoloDetector, load_yolo
    from detection.yolo.augment import RainTrainer
    from detection.yolo.hooks import (
        DerainPredictor,
        DerainValidator,
        attach,
        attached,
        detach,
    )

__all__ = [
    "DerainPredictor",
    "DerainValidator",
    "RainTrainer",
    "YoloDetector",
    "attach",
    "attached",
    "detach",
    "load_yolo",
]

__getattr__ = lazy_names(
    __name__,
    {
        "detection.yolo.adapter": "YoloDetector load_yolo",
        "detection.yolo.augment": "RainTrainer",
        "detection.yolo.hooks": "DerainPredictor DerainValidator attach attached detach",
    },
)
