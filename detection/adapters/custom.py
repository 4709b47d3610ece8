"""The user's own: a detector as a Python callable, and a decoder of an ONNX file's outputs."""

# What a user's code is and returns is Any.
# ruff: noqa: ANN401

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detection.adapters.base import AdaptedDetector, Found, Settings, size_of, to_array
from detection.adapters.onnx_file import OnnxDetectorFile
from detection.adapters.onnx_yolo import LetterboxedFile
from detection.classes import named_classes
from detection.names import detector_name
from detection.types import Detections
from rainmer.errors import RainmerError, SpecError, first_line
from rainmer.frames.arrays import Frame
from rainmer.stage.specs import import_callable

__all__ = ["DecodedFile", "PythonDetector", "load_decoded", "load_python"]

_MARK = ":python:"


def load_python(kind: str, rest: str, settings: Settings) -> PythonDetector:
    """Load the user's detector by what follows `python:`, `module:callable`.

    Raises:
        SpecError: It cannot be imported, is not callable, or names no classes.
    """
    return PythonDetector(import_callable(rest), settings, f"{kind}:{rest}")


def load_decoded(kind: str, rest: str, settings: Settings) -> DecodedFile:
    """Load an ONNX file and its decoder by what follows `onnx:`, `FILE:python:module:callable`.

    Raises:
        SpecError: No decoder is given, or it cannot be used; or onnxruntime is not installed.
        WeightsError: The file is missing or cannot be run.
    """
    file, mark, decoder = rest.rpartition(_MARK)
    if not mark:
        raise SpecError(
            f"{kind}:{rest} does not say what its outputs mean: onnx-yolo:{rest}, "
            f"onnx-detr:{rest}, or {kind}:{rest}{_MARK}module:decoder"
        )
    return DecodedFile(Path(file), import_callable(decoder), settings, f"{kind}:{rest}")


class PythonDetector(AdaptedDetector):
    """A user's own detector.

    It is called with a list of frames, uint8 (H, W, 3), RGB, and returns for each `Detections` or
    `(boxes_xyxy, scores, labels)` in pixels of that frame. Its attribute `names` has the classes.
    It should return weak detections too: those below the confidence asked for are left out here.
    Without an attribute `fingerprint` (any text that changes with its results) no run is resumed.
    It sees frames of native size; with an attribute `size_hw`, (height, width), or a method
    `size_hw(frame_hw)`, they are stretched to it first.

    Args:
        function: The callable.
        settings: How it runs; only `conf`, `max_det` and `batch` mean anything.
        source: Its spec.

    Raises:
        SpecError: It names no classes, or an option does not fit.
    """

    def __init__(self, function: Any, settings: Settings, source: str) -> None:
        if settings.imgsz is not None:
            raise SpecError(f"{source} has a size of its own: leave out --imgsz {settings.imgsz}")
        self._function = function
        parts = ["python", source, _fingerprint(function)]
        super().__init__(
            detector_name(source),
            _classes(function, source),
            source=source,
            parts=parts,
            settings=settings,
        )

    def input_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size that it wants a frame of a size to have; by default that size."""
        wanted = getattr(self._function, "size_hw", size_hw)
        height, width = wanted(size_hw) if callable(wanted) else wanted
        return int(height), int(width)

    def _find(self, fitted: Sequence[Frame], input_hw: tuple[int, int]) -> list[Found]:
        return _results(self._function, (list(fitted),), len(fitted), self.source)


class DecodedFile(LetterboxedFile):
    """An ONNX file whose outputs the user decodes.

    Frames are letterboxed with grey, RGB, 0..1 (uint8: 0..255). The decoder is called with the
    outputs by name and the (height, width) of the input, and returns for each image
    `Detections` or `(boxes_xyxy, scores, labels)` in pixels of the input. Names of classes are its
    attribute `names`, or those of the file's metadata.

    Args:
        path: The file.
        decoder: The callable.
        settings: How it runs.
        source: Its spec.

    Raises:
        SpecError, WeightsError: See `load_decoded`.
    """

    def __init__(self, path: Path, decoder: Any, settings: Settings, source: str) -> None:
        file = OnnxDetectorFile(path, settings.device, source)
        names = file.named() if not hasattr(decoder, "names") else None
        names = named_classes(names) if names else _classes(decoder, source)
        self._decoder = decoder
        parts = ["onnx", file.digest, source, _fingerprint(decoder)]
        super().__init__(file, names, settings, source, parts)

    @property
    def suppression(self) -> str:
        """What drops boxes that overlap, for reports."""
        return "the decoder's own"

    def _find(self, fitted: Sequence[Frame], input_hw: tuple[int, int]) -> list[Found]:
        outputs, placements = self._run(fitted, input_hw)
        found = _results(self._decoder, (outputs, input_hw), len(fitted), self.source)
        moved = []
        for one, frame, placement in zip(found, fitted, placements, strict=True):
            height, width = size_of(frame)
            boxes = to_array(one.boxes).reshape(-1, 4) - [placement.left, placement.top] * 2
            moved.append(one._replace(boxes=boxes.clip(0, [width, height] * 2)))
        return moved


def _fingerprint(function: Any) -> str:
    """Return what it says of itself; otherwise a text that no other run has."""
    return str(getattr(function, "fingerprint", None) or secrets.token_hex())


def _classes(function: Any, source: str) -> dict[int, str]:
    names = getattr(function, "names", None)
    if not isinstance(names, Mapping | list | tuple) or not names:
        raise SpecError(
            f"{source} names no classes: give it an attribute `names`, such as "
            "{0: 'person', 1: 'car'}"
        )
    try:
        return named_classes(names)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{source}: its names must be by label, a number: {error}") from error


def _results(function: Any, arguments: tuple[Any, ...], count: int, source: str) -> list[Found]:
    """Call the user's code, and check what it returns."""
    try:
        returned = list(function(*arguments))
    except RainmerError:
        raise
    except Exception as error:
        raise RainmerError(f"the detector {source} failed: {first_line(error)}") from error
    if len(returned) != count:
        raise RainmerError(
            f"the detector {source} returned {len(returned)} results for {count} frames"
        )
    return [_found(result, source) for result in returned]


def _found(result: Any, source: str) -> Found:
    if isinstance(result, Detections):
        return Found(result.boxes_xyxy, result.scores, result.labels)
    try:
        boxes, scores, labels = (to_array(part) for part in result)
        boxes = boxes.reshape(-1, 4).astype(np.float32)
        if not len(boxes) == len(scores.reshape(-1)) == len(labels.reshape(-1)):
            raise ValueError(f"{len(boxes)} boxes, {scores.size} scores, {labels.size} labels")
    except (TypeError, ValueError) as error:
        raise RainmerError(
            f"the detector {source} must return Detections, or boxes (N, 4), scores (N,) and "
            f"labels (N,), for each frame: {first_line(error)}"
        ) from error
    return Found(boxes, scores.reshape(-1), labels.reshape(-1))
