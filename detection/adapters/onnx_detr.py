"""DETR and its kin in ONNX files, run by onnxruntime: frames are stretched, nothing is suppressed.

Three layouts of outputs are read: logits (B, Q, C) and boxes (B, Q, 4), as transformers and optimum
export them; labels, boxes and scores for given sizes of frames, as the projects of RT-DETR and
D-FINE export them; and one output of ultralytics' RT-DETR, (B, Q, 6) or (B, Q, 4 + classes).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from detection.adapters.base import AdaptedDetector, Found, Settings
from detection.adapters.onnx_file import OnnxDetectorFile
from detection.names import detector_name
from rainmer.errors import SpecError, WeightsError
from rainmer.frames.arrays import Frame

__all__ = ["OnnxDetr", "load_onnx_detr"]

Values = npt.NDArray[Any]

_DEFAULT_SIZE = 640
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_ULTRALYTICS_ROW = 6  # center, size, score, label


class _Outputs(NamedTuple):
    """Names of the outputs; what is not there is None."""

    boxes: str
    logits: str | None = None
    scores: str | None = None
    labels: str | None = None


def load_onnx_detr(kind: str, rest: str, settings: Settings) -> OnnxDetr:
    """Load a detector by what follows `onnx-detr:` or `onnx-detr-softmax:`, a file.

    Raises:
        SpecError: onnxruntime is not installed, or the size is fixed.
        WeightsError: The file is missing, or its outputs are not those of a DETR.
    """
    return OnnxDetr(Path(rest), settings, softmax=kind.endswith("softmax"), source=f"{kind}:{rest}")


class OnnxDetr(AdaptedDetector):
    """A DETR in an ONNX file.

    Args:
        path: The file. Names of classes come from `PATH.names`, its metadata, a `config.json`
            beside it, or are COCO's; a `preprocessor_config.json` beside it says how pixels are
            normalised.
        settings: How it runs.
        softmax: Whether logits compete, the last one for no object (DETR, YOLOS), and pixels are
            normalised as ImageNet's; otherwise each class has a sigmoid (RT-DETR, D-FINE).
        source: Its spec.

    Raises:
        SpecError, WeightsError: See `load_onnx_detr`.
    """

    def __init__(self, path: Path, settings: Settings, *, softmax: bool, source: str) -> None:
        self.file = OnnxDetectorFile(path, settings.device, source)
        self._softmax = softmax
        self._size_hw = _size(self.file, settings)
        self.file.probe(self._size_hw)
        self._outputs, count = _find_outputs(self.file, softmax=softmax)
        names = self.file.classes(count)
        self._mean, self._std = _normalisation(path, softmax=softmax)
        # ultralytics resizes with OpenCV, all others smooth what they shrink.
        self._smooth = self._outputs.boxes != self._outputs.scores
        parts = ["onnx-detr", self.file.digest, softmax, names, str((self._mean, self._std))]
        super().__init__(
            detector_name(source), names, source=source, parts=parts, settings=settings
        )
        self.imgsz, self.batch = max(self._size_hw), self.file.batch or settings.batch

    @property
    def input_words(self) -> str:
        """The size of the input, for reports."""
        return f"{self._size_hw[1]}x{self._size_hw[0]} px, stretched"

    def input_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the one size of all inputs."""
        return self._size_hw

    def fit(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Frame]:
        """Stretch frames to the input."""
        if not self._smooth:
            return super().fit(frames, input_hw)
        size = input_hw[::-1]
        return [
            np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
            for frame in frames
        ]

    def _find(self, fitted: Sequence[Frame], input_hw: tuple[int, int]) -> list[Found]:
        images = np.stack(fitted).transpose(0, 3, 1, 2)
        if not self.file.levels:
            shape = (1, 3, 1, 1)
            images = (images.astype(np.float32) / 255 - self._mean.reshape(shape)) / (
                self._std.reshape(shape)
            )
        outputs = self.file.run(images, input_hw)
        self._check_finite(*(value for value in outputs.values() if value.dtype.kind == "f"))
        return [
            self._read({name: value[i] for name, value in outputs.items()}, input_hw)
            for i in range(len(fitted))
        ]

    def _read(self, outputs: dict[str, Values], input_hw: tuple[int, int]) -> Found:
        """Read the outputs of one frame."""
        names = self._outputs
        boxes = outputs[names.boxes]
        if names.logits is not None:
            scores, labels, queries = self._scored(outputs[names.logits])
            return Found(_corners(boxes[queries], input_hw), scores, labels)
        if names.scores == names.boxes:  # rows of ultralytics
            corners, rest = _corners(boxes[:, :4], input_hw), boxes[:, 4:]
            if rest.shape[1] == _ULTRALYTICS_ROW - 4:
                return Found(corners, rest[:, 0], rest[:, 1])
            return Found(corners, rest.max(axis=1), rest.argmax(axis=1))
        assert names.scores is not None
        assert names.labels is not None
        return Found(boxes, outputs[names.scores], outputs[names.labels])

    def _scored(self, logits: Values) -> tuple[Values, Values, Values]:
        """Return scores, labels and queries: the best class of each, or the best of all pairs."""
        if self._softmax:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares = (powers / powers.sum(axis=1, keepdims=True))[:, :-1]
            labels = shares.argmax(axis=1)
            return shares.max(axis=1), labels, np.arange(len(logits))
        scores = 1 / (1 + np.exp(-logits.ravel()))
        best = np.argsort(-scores, kind="stable")[: len(logits)]
        queries, labels = np.divmod(best, logits.shape[1])
        return scores[best], labels, queries


def _find_outputs(file: OnnxDetectorFile, *, softmax: bool) -> tuple[_Outputs, int]:
    """Return which output is what, and the number of classes.

    Raises:
        WeightsError: The outputs are not those of a DETR.
    """
    lasts = {name: shape[-1] if shape else None for name, shape in file.outputs.items()}
    named = file.named()
    if file.takes_sizes and {"labels", "boxes", "scores"} <= lasts.keys():
        count = max(named) + 1 if named else 80
        return _Outputs("boxes", scores="scores", labels="labels"), count
    if len(lasts) == 1 and named and file.is_rtdetr is not False:
        ((name, last),) = lasts.items()
        if last in (_ULTRALYTICS_ROW, 4 + len(named)):
            return _Outputs(name, scores=name), max(named) + 1
    threes = [name for name, shape in file.outputs.items() if len(shape) == 3]
    logits = [name for name in threes if "logits" in name.lower()]
    boxes = [name for name in threes if lasts[name] == 4 and name not in logits]
    if boxes and logits and (classes := lasts[logits[0]]):
        count = classes - softmax
        if named and max(named) + 1 != count:
            raise WeightsError(
                f"{file.path} has {classes} logits, but its {len(named)} classes go up to number "
                f"{max(named)}: say onnx-detr{'' if softmax else '-softmax'}:{file.path} if the "
                f"last logit is {'a class' if softmax else 'for no object'}"
            )
        return _Outputs(boxes[0], logits=logits[0]), count
    given = ", ".join(f"{name} {list(shape)}" for name, shape in file.outputs.items())
    hint = f"; for a YOLO say onnx-yolo:{file.path}" if len(lasts) == 1 else ""
    raise WeightsError(
        f"{file.path}: its outputs {given} are not those of a DETR: expected logits (B, Q, C) and "
        "boxes (B, Q, 4); labels, boxes and scores beside an input of sizes; or one output of "
        f"ultralytics' RT-DETR{hint}"
    )


def _size(file: OnnxDetectorFile, settings: Settings) -> tuple[int, int]:
    """Return (height, width) of the input: the file's, the one asked for, or 640."""
    exported = file.described("imgsz")
    usual = exported if isinstance(exported, list | tuple) else [_DEFAULT_SIZE] * 2
    sizes = [side or settings.imgsz or usual[i] for i, side in enumerate(file.size_hw)]
    height, width = int(sizes[0]), int(sizes[1])
    if settings.imgsz is not None and settings.imgsz not in (height, width):
        raise SpecError(
            f"{file.path} takes frames of {width}x{height} only: leave out --imgsz {settings.imgsz}"
        )
    return height, width


def _normalisation(path: Path, *, softmax: bool) -> tuple[Values, Values]:
    """Return mean and deviation of the pixels, 0..1, by channel."""
    mean, deviation = _IMAGENET if softmax else ((0.0,) * 3, (1.0,) * 3)
    config = path.with_name("preprocessor_config.json")
    if config.is_file():
        try:
            content = json.loads(config.read_text(encoding="utf-8"))
            if content.get("do_normalize", True):
                mean, deviation = tuple(content["image_mean"]), tuple(content["image_std"])
            else:
                mean, deviation = (0.0,) * 3, (1.0,) * 3
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"cannot read {config}: {error!r}") from error
    return np.array(mean, np.float32), np.array(deviation, np.float32)


def _corners(boxes: Values, input_hw: tuple[int, int]) -> Values:
    """Turn centers and sizes, in shares of the input, into corners in its pixels."""
    height, width = input_hw
    half = boxes[:, 2:] / 2
    corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    return corners * np.array([width, height, width, height], np.float32)
