"""Specs, which name detectors on the command line, and how they become detectors.

| spec | detector |
| --- | --- |
| a path, `street` where a command knows it | what ultralytics loads (AGPL-3.0) |
| `torchvision:MODEL:FILE` | a detector of torchvision (BSD-3-Clause) with its weights |
| `torchvision:MODEL` | the same with torchvision's own weights, from its cache or a download |
| `hf:FOLDER`, `hf:hub:ORG/NAME` | a detector of transformers (Apache-2.0) |
| `onnx-yolo:FILE` | a YOLO; `onnx-yolov5:`, `onnx-yolov8:`, `onnx-yolov10:` name its layout |
| `onnx-detr:FILE`, `onnx-detr-softmax:FILE` | RT-DETR and D-FINE; DETR and YOLOS |
| `onnx:FILE:python:module:callable` | any other ONNX file with a decoder of one's own |
| `python:module:callable` | the user's own |

ultralytics is imported for paths only. Importing this module imports no library of detectors.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
from collections.abc import Iterator
from typing import Protocol, cast

import torch

from detection.adapters.base import AdaptedDetector, DerainedInside, Settings
from detection.names import DETECTOR_HELP, KINDS, detector_name, detector_title, split_spec
from detection.types import DerainCallable, Detector, MeasuringDetector
from rainmer.device import resolve_device
from rainmer.errors import SpecError

__all__ = [
    "DETECTOR_HELP",
    "LoadedDetector",
    "MeasuredDetector",
    "derained_inside",
    "detector_name",
    "detector_title",
    "load_detector",
    "load_measured",
]

_SIZE = 640  # longer side of the input of ultralytics' detectors, unless another is asked for
_IOU = 0.7
_MEASURED_CONF = 0.001  # mAP needs the weak ones, too

_LOADERS = {
    "torchvision": "detection.adapters.torchvision_models:load_torchvision",
    "hf": "detection.adapters.hf:load_hf",
    "onnx-yolo": "detection.adapters.onnx_yolo:load_onnx_yolo",
    "onnx-detr": "detection.adapters.onnx_detr:load_onnx_detr",
    "onnx": "detection.adapters.custom:load_decoded",
    "python": "detection.adapters.custom:load_python",
}
"""Where each kind is loaded."""

_VARIANTS = re.compile(r"v\d+$|-softmax$")  # what kinds of ONNX files may have behind these names

_KIND = re.compile(r"[a-z][a-z0-9_-]+(?=:(?!//))", re.IGNORECASE)  # no drive, no address


class LoadedDetector(Detector, Protocol):
    """A detector whose labels can be chosen, as `load_detector` returns it."""

    classes: list[int] | None
    """Labels to keep, or None for all; may be changed."""


class MeasuredDetector(MeasuringDetector, Protocol):
    """A measuring detector that also tells a report how it measures."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def imgsz(self) -> int | None:
        """Longer side of its input in pixels; None: the network's own rule."""

    @property
    def iou(self) -> float | None:
        """IoU of its NMS, if it can be told; None otherwise."""

    @property
    def max_det(self) -> int:
        """Maximum number of detections per image."""

    @property
    def protocol(self) -> dict[str, object]:
        """How it measures, in words."""


def load_detector(
    spec: str,
    device: str | torch.device | None = None,
    *,
    conf: float = 0.25,
    iou: float | None = None,
    imgsz: int | None = None,
    max_det: int = 300,
    batch: int = 8,
    allow_download: bool = False,
) -> LoadedDetector:
    """Turn a spec into a detector.

    Args:
        spec: See above.
        device: `cpu`, `cuda:0`, ...; None: the best.
        conf: Lowest score of a detection, 0..1.
        iou: Overlap above which the weaker of two boxes of a class is dropped; None: 0.7 for YOLOs,
            the library's own for torchvision. Networks without such a step ignore it.
        imgsz: Longer side of the input in pixels; None: 640 for YOLOs, otherwise the network's own.
        max_det: Maximum number of detections per frame.
        batch: Maximum number of frames at once.
        allow_download: Whether published weights may be fetched.

    Raises:
        SpecError: The spec has no known form, or needs a package that is not installed.
        WeightsError: The weights are missing, unsafe, or do not fit.
    """
    found = resolve_device(device)
    kind, rest = split_spec(spec)
    if kind:
        settings = Settings(
            device=found, conf=conf, iou=iou, imgsz=imgsz, max_det=max_det, batch=batch,
            allow_download=allow_download,
        )  # fmt: skip
        return _adapted(kind, rest, settings)
    _check_path(spec)
    with _ultralytics(spec):
        from detection.yolo.adapter import YoloDetector
    return YoloDetector(
        spec, str(found), conf, _IOU if iou is None else iou, imgsz or _SIZE, max_det, batch,
        allow_download=allow_download,
    )  # fmt: skip


def load_measured(
    spec: str,
    device: str | torch.device | None = None,
    *,
    imgsz: int | None = None,
    batch: int = 16,
    allow_download: bool = False,
) -> MeasuredDetector:
    """Turn a spec into a detector whose mAP can be measured; see `load_detector`."""
    found = resolve_device(device)
    kind, rest = split_spec(spec)
    if kind:
        settings = Settings(
            device=found, conf=_MEASURED_CONF, imgsz=imgsz, batch=batch,
            allow_download=allow_download,
        )  # fmt: skip
        return _adapted(kind, rest, settings)
    _check_path(spec)
    with _ultralytics(spec):
        from detection.yolo.harness import ValidationHarness
    return ValidationHarness(
        spec, found, imgsz=imgsz or _SIZE, batch=batch, allow_download=allow_download
    )


def derained_inside(detector: LoadedDetector, derainer: DerainCallable) -> LoadedDetector:
    """Return a detector that derains at its own resolution, between resizing and detecting.

    Args:
        detector: From `load_detector`; one of ultralytics is changed, see `detection.attach`.
        derainer: Callable `frames -> frames`.
    """
    if isinstance(detector, AdaptedDetector):
        return DerainedInside(detector, derainer)
    from detection.yolo.adapter import YoloDetector
    from detection.yolo.hooks import attach

    attach(cast(YoloDetector, detector).yolo, derainer, where="network")
    return detector


def _adapted(kind: str, rest: str, settings: Settings) -> AdaptedDetector:
    if not rest:
        raise SpecError(f"{kind}: names nothing: expected one of {DETECTOR_HELP}")
    module, _, name = _LOADERS[_VARIANTS.sub("", kind)].partition(":")
    load = getattr(importlib.import_module(module), name)
    return cast(AdaptedDetector, load(kind, rest, settings))


def _check_path(spec: str) -> None:
    """Refuse what looks like a spec of a kind that does not exist."""
    kind = _KIND.match(spec)
    if kind is None or os.path.exists(spec):
        return
    near = difflib.get_close_matches(kind[0].lower(), KINDS, n=1)
    meant = f"did you mean {near[0]}:? " if near else ""
    raise SpecError(
        f"unknown kind of detector {kind[0]!r} in {spec!r}, and no such file: {meant}expected one "
        f"of {DETECTOR_HELP}"
    )


@contextlib.contextmanager
def _ultralytics(spec: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ultralytics":
            raise
        raise SpecError(
            f"the detector {spec} needs the package ultralytics (AGPL-3.0): pip install "
            f"ultralytics, or name another one: {DETECTOR_HELP}"
        ) from error
