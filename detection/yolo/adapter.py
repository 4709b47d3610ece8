"""Detectors of ultralytics as `detection.types.Detector`."""

# ultralytics is untyped: its objects and options are Any.
# ruff: noqa: ANN401

from __future__ import annotations

import contextlib
import os
import pickle
import re
import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from ultralytics import YOLO
from ultralytics.engine.exporter import export_formats
from ultralytics.nn.tasks import BaseModel, YOLOEModel
from ultralytics.utils import checks

from detection.types import Detections
from detection.yolo.binding import is_attached, kept_threads
from detection.yolo.device import DeviceBatch, DeviceResult, device_predictor
from detection.yolo.selection import detections_of
from rainmer.errors import RainmerError, WeightsError, first_sentence
from rainmer.frames.arrays import Frame, reverse_channels
from rainmer.models import is_detector
from rainmer.models.weights import read_weights_file

__all__ = ["YoloDetector", "load_yolo"]

_REMOTE = ("http://", "https://", "ul://", "gs://", "grpc://", "rtsp://")


def load_yolo(
    weights: str | os.PathLike[str], *, task: str | None = None, allow_download: bool = False
) -> Any:
    """Load an ultralytics detector: `.pt`, or any of its export formats.

    A `.pt` of ultralytics is a pickle: loading it runs the code in it, so load only files whose
    origin you trust. Nothing is downloaded or installed unless asked for.

    Args:
        weights: A file or folder. With `allow_download` also a name that ultralytics publishes
            (`yolo11n.pt`) or an address.
        task: The task of an exported model whose file does not contain it.
        allow_download: Whether ultralytics may fetch a missing file.

    Returns:
        An `ultralytics.YOLO` object.

    Raises:
        RainmerError: The file does not exist.
        WeightsError: The file is not a trained model of ultralytics, or needs a missing package.
    """
    named = os.fspath(weights)
    remote = named.startswith(_REMOTE)
    if not remote and os.path.exists(named):  # pathlib raises for invalid names
        # An absolute path: ultralytics replaces a damaged file that bears a published name.
        named = str(Path(named).resolve())
    elif not allow_download:
        raise RainmerError(
            f"no file {named} with detector weights; what ultralytics publishes is only fetched "
            "with allow_download=True (--allow-download)"
        )
    _check_suffix(named)
    with no_automatic_installs(), _clear_errors(named):
        yolo = YOLO(named, task=task)
        if not named.endswith(".pt"):
            _ = yolo.names  # opens an exported model, which otherwise happens at the first frame
    if named.endswith(".pt") and not isinstance(yolo.model, BaseModel):
        raise WeightsError(
            f"{named} holds a {type(yolo.model).__name__}, not a detector of ultralytics"
        )
    _check_classes(yolo.model, named)
    return yolo


def _check_classes(network: Any, named: str) -> None:
    """Refuse a YOLOE that waits for prompts: it would look for classes that are all zeros."""
    waits = isinstance(network, YOLOEModel) and not hasattr(network.model[-1], "lrpc")
    if waits and not hasattr(network, "pe"):
        raise WeightsError(
            f"{named} is a YOLOE without classes: in ultralytics, which fetches MobileCLIP for "
            "their names, call YOLOE(file).set_classes([...]) and save() once, and use that file"
        )


def _check_suffix(named: str) -> None:
    """Refuse what cannot be weights, before ultralytics guesses."""
    suffixes = tuple(export_formats()["Suffix"])
    if named.lower().endswith((".yaml", ".yml")):
        raise WeightsError(f"{named} describes an architecture without weights; give trained ones")
    if "://" not in named and os.path.exists(named) and not named.endswith(suffixes):
        raise WeightsError(
            f"{named} is not a detector that ultralytics loads: expected .pt, or an export such as "
            f".onnx, .torchscript, .engine or an *_openvino_model folder{_derainer_hint(named)}"
        )


@contextlib.contextmanager
def no_automatic_installs() -> Iterator[None]:
    """Keep ultralytics from calling pip inside the block, unless YOLO_AUTOINSTALL asks for it."""
    before = checks.AUTOINSTALL
    checks.AUTOINSTALL = before and "YOLO_AUTOINSTALL" in os.environ
    try:
        yield
    finally:
        checks.AUTOINSTALL = before


@contextlib.contextmanager
def _clear_errors(named: str) -> Iterator[None]:
    """Turn errors of ultralytics and its backends about an unusable file into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # from torch, before it raises
            yield
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"{named} needs the package {error.name}, which is not installed"
        ) from error
    except (
        AttributeError,
        EOFError,
        ImportError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        reason = _reason(error, named) + _derainer_hint(named)
        raise WeightsError(f"cannot load the detector {named}: {reason}") from error


def _derainer_hint(named: str) -> str:
    """Say so where the file holds the weights of a network alone, as those of derainers do."""
    with contextlib.suppress(WeightsError):
        if not is_detector(read_weights_file(named)):
            return (
                "; it holds weights alone, as of a derainer: give it as --derain NETWORK:FILE, or "
                "those of a detector of torchvision as torchvision:MODEL:FILE"
            )
    if os.path.isfile(os.path.join(named, "config.json")):
        return f"; a detector of transformers is hf:{named}"
    return ""


@contextlib.contextmanager
def failures_of(model: Any) -> Iterator[None]:
    """Turn what the backend of an exported model raises while it runs into one line.

    Args:
        model: `YOLO.model`: a network of ultralytics, whose errors pass, or the exported file.
    """
    try:
        yield
    except Exception as error:
        if isinstance(model, BaseModel) or isinstance(error, RainmerError):
            raise
        named = str(model)
        raise WeightsError(f"the detector {named} failed: {_reason(error, named)}") from error


def _reason(error: Exception, named: str) -> str:
    """Return the reason, without the file's name, ultralytics' symbols and torch's advice."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).replace(named, "it").replace("—", "-").encode("ascii", "ignore").decode()
    text = re.sub(r" \(\w+Error: .*", "", first_sentence(text))
    return text.removeprefix("ERROR").strip() or type(error).__name__


class YoloDetector:
    """An ultralytics detector for your own loop, see `detection.types.Detector`.

    Only frames of one size share a batch, so that the detections in a frame do not depend on the
    other frames (ultralytics pads mixed batches to squares).

    Args:
        weights: A file, see `load_yolo`, or an `ultralytics.YOLO` object (attached derainers work).
        device: `cpu`, `cuda:0`, ...; None lets ultralytics choose.
        conf: Lowest score of a detection, 0..1.
        iou: Overlap (IoU) above which the box with the lower score is dropped, 0..1.
        imgsz: Longer side of the detector's input in pixels.
        max_det: Maximum number of detections per frame.
        batch: Maximum number of frames at once.
        classes: Labels to keep; None keeps all.
        graphs: Whether `detect_batch` records a detection network on CUDA, see `DevicePredictor`.
        allow_download: See `load_yolo`.

    Attributes:
        yolo: The `ultralytics.YOLO` object.
        classes: Labels to keep, or None; may be changed.
        graphs: Whether to record; may be changed.
        speed: Mean ms per frame of the calling thread's last call, by step, under ultralytics'
            names; empty before.

    Raises:
        RainmerError, WeightsError: See `load_yolo`; or the model is no detector.
    """

    def __init__(
        self,
        weights: Any,
        device: str | None = None,
        conf: float = 0.25,
        iou: float = 0.7,
        imgsz: int = 640,
        max_det: int = 300,
        batch: int = 8,
        *,
        classes: Sequence[int] | None = None,
        graphs: bool = True,
        allow_download: bool = False,
    ) -> None:
        is_path = isinstance(weights, str | os.PathLike)
        self.yolo = load_yolo(weights, allow_download=allow_download) if is_path else weights
        if self.yolo.task not in ("detect", "segment", "pose", "obb"):
            raise RainmerError(f"a model for the task {self.yolo.task!r} finds no boxes")
        if batch < 1:
            raise RainmerError(f"batch must be at least 1, but is {batch}")
        self.batch = batch
        self.graphs = graphs
        self.classes = list(classes) if classes is not None else None
        self._speeds: dict[int, dict[str, float]] = {}  # by thread
        self._options: dict[str, Any] = {
            "conf": conf,
            "iou": iou,
            "imgsz": imgsz,
            "max_det": max_det,
            "verbose": False,
        }
        if device is not None:
            self._options["device"] = str(device)

    @property
    def name(self) -> str:
        """Name of the weights file without its suffix."""
        return Path(str(self.yolo.model_name or "yolo")).stem

    @property
    def speed(self) -> dict[str, float]:
        """Mean ms per frame of the calling thread's last call, by step."""
        return self._speeds.get(threading.get_ident(), {})

    @property
    def names(self) -> dict[int, str]:
        """The classes, label to name."""
        return dict(self.yolo.names)

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect in frames (H, W, 3), uint8, RGB, of any sizes; same order as given.

        Boxes of oriented detections are their upright bounding boxes.

        Raises:
            WeightsError: A backend of an exported model fails or is not installed.
        """
        found: list[Detections | None] = [None] * len(frames)
        totals: Counter[str] = Counter()
        for chosen in self._batches(frames):
            results = self._predict([frames[i] for i in chosen])
            for i, result, detections in zip(chosen, results, detections_of(results), strict=True):
                found[i] = detections
                totals.update(result.speed)
        self._keep_speed(totals, len(frames))
        return [detections for detections in found if detections is not None]

    @property
    def device(self) -> torch.device | None:
        """Device of `detect_batch`; None if it is not available.

        None with an attached derainer, or a model that does not letterbox. Reading this sets up the
        detector.
        """
        if is_attached(self.yolo):
            return None
        predictor = device_predictor(self.yolo)
        if predictor is None:
            return None
        if not isinstance(self.yolo.predictor, predictor):
            self._predict_batch(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        return cast(torch.device, self.yolo.predictor.device)

    def detect_batch(self, batch: Tensor) -> list[Detections]:
        """Detect in frames that are on a device, with the same results as for arrays.

        Args:
            batch: (B, 3, H, W), uint8, RGB; moved to `device` if it is elsewhere.

        Raises:
            RainmerError: The detector only takes arrays; see `device`.
            WeightsError: A backend of an exported model fails or is not installed.
        """
        if is_attached(self.yolo) or device_predictor(self.yolo) is None:
            raise RainmerError(f"the detector {self.name}, as it is set up, only takes arrays")
        detections: list[Detections] = []
        totals: dict[str, float] = defaultdict(float)
        for part in torch.split(batch, self.batch):
            result = self._predict_batch(part)
            detections += result.detections
            # Only now: reading a stopwatch waits for its step.
            for step, watch in result.watches.items():
                totals[step] += watch.elapsed_ms
        self._keep_speed(totals, len(batch))
        return detections

    def _batches(self, frames: Sequence[Frame]) -> Iterator[list[int]]:
        """Yield the indices of frames of one size, at most `batch` at a time."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, frame in enumerate(frames):
            by_shape.setdefault(frame.shape, []).append(i)
        for indices in by_shape.values():
            for start in range(0, len(indices), self.batch):
                yield indices[start : start + self.batch]

    def _keep_speed(self, totals: Mapping[str, float], count: int) -> None:
        speed = {step: total / count for step, total in totals.items()}
        self._speeds[threading.get_ident()] = speed

    def _predict(self, frames: list[Frame]) -> list[Any]:
        source = [reverse_channels(frame) for frame in frames]
        with self._running():
            return list(self.yolo.predict(source, classes=self.classes, **self._options))

    def _predict_batch(self, batch: Tensor) -> DeviceResult:
        with self._running():
            predicted = self.yolo.predict(
                DeviceBatch(batch, self.graphs),
                predictor=device_predictor(self.yolo),
                classes=self.classes,
                **self._options,
            )
            return cast(DeviceResult, predicted)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        with failures_of(self.yolo.model), no_automatic_installs(), kept_threads():
            yield
