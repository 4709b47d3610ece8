"""All code that calls ultralytics. Its modules are imported when one of their names is used.

ultralytics is AGPL-3.0; the rest of the toolkit does without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

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

_MODULES = {
    "DerainPredictor": "hooks",
    "DerainValidator": "hooks",
    "RainTrainer": "augment",
    "YoloDetector": "adapter",
    "attach": "hooks",
    "attached": "hooks",
    "detach": "hooks",
    "load_yolo": "adapter",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
