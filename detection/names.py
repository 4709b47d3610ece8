"""What specs of detectors look like, for parsers and messages: nothing here loads torch."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["DETECTOR_HELP", "KINDS", "detector_name", "detector_title", "split_spec"]

KINDS = (
    "torchvision",
    "hf",
    "onnx-yolo",
    "onnx-yolov5",
    "onnx-yolov8",
    "onnx-yolov10",
    "onnx-detr",
    "onnx-detr-softmax",
    "onnx",
    "python",
)
"""What stands before the first colon of a spec; a path without one is for ultralytics."""

DETECTOR_HELP = (
    "weights or an export of ultralytics (a .pt runs code when it is loaded: trust its origin), "
    "torchvision:MODEL:FILE, hf:FOLDER, onnx-yolo:FILE, onnx-detr:FILE, "
    "onnx:FILE:python:module:decoder, python:module:callable"
)


def split_spec(spec: str) -> tuple[str, str]:
    r"""Split a spec into its kind and what follows; the kind is empty for a path.

    A file or folder that exists under the whole text is a path, and so is `C:\...`.

    >>> split_spec("hf:C:/rtdetr"), split_spec("C:/yolo11n.pt")
    (('hf', 'C:/rtdetr'), ('', 'C:/yolo11n.pt'))
    """
    kind, _, rest = spec.partition(":")
    return (kind, rest) if kind in KINDS and not os.path.exists(spec) else ("", spec)


def detector_name(spec: str) -> str:
    """Return what a detector is called in tables and file names.

    >>> [detector_name(s) for s in ("a/yolo11n.pt", "hf:nets/rtdetr/", "python:mine:Finder")]
    ['yolo11n', 'rtdetr', 'Finder']
    >>> detector_name("torchvision:ssd300_vgg16:a/rain.pth"), detector_name("onnx-yolo:a/b.onnx")
    ('ssd300_vgg16-rain', 'b')
    """
    kind, rest = split_spec(spec)
    if kind == "torchvision":
        model, _, file = rest.partition(":")
        stem = _path(file).stem
        return stem if stem.startswith(model) else "-".join(filter(None, (model, stem)))
    if kind == "hf":
        return _path(rest).name or kind
    if kind == "python":
        return rest.rpartition(":")[2]
    if kind == "onnx":
        rest = rest.partition(":python:")[0]
    return _path(rest).stem


def detector_title(spec: str) -> str:
    """Return what a detector is called in headings: a file of ultralytics with its suffix.

    >>> detector_title("a/yolo11n.pt"), detector_title("hf:nets/rtdetr")
    ('yolo11n.pt', 'rtdetr')
    """
    return detector_name(spec) if split_spec(spec)[0] else Path(spec).name


def _path(text: str) -> Path:
    """Return a path, also one that Windows wrote."""
    return Path(text.replace("\\", "/"))
