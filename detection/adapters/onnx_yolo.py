"""YOLOs in ONNX files, run by onnxruntime: the layouts of YOLOv5, YOLOv8 and YOLOv10.

Frames are prepared as ultralytics prepares them for `val`, so that an export is measured as its
network is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from detection.adapters.base import AdaptedDetector, Found, Settings, size_of
from detection.adapters.onnx_file import OnnxDetectorFile
from detection.names import detector_name
from detection.types import HarnessBatch
from detection.yolo.letterbox import Placement
from detection.yolo.rectangles import Rectangles, stack
from rainmer.errors import SpecError, WeightsError
from rainmer.frames.arrays import Frame

__all__ = ["LetterboxedFile", "OnnxYolo", "load_onnx_yolo", "placed"]

Layout = Literal["v5", "v8", "v10"]

_IOU = 0.7
_DEFAULT_SIZE, _DEFAULT_STRIDE = 640, 32
_MOST_CHOSEN = (
    1000  # a head that chooses itself gives a few hundred rows, one with anchors thousands
)
_MOST_CANDIDATES = 30000  # as ultralytics
_BOX = 4


class _Shape(NamedTuple):
    """How an output is read: its layout, and the number of classes; None: rows name them."""

    layout: Layout
    classes: int | None


def load_onnx_yolo(kind: str, rest: str, settings: Settings) -> OnnxYolo:
    """Load a detector by what follows `onnx-yolo:`, a file; `onnx-yolov5:` names the layout.

    Raises:
        SpecError: onnxruntime or torchvision is not installed, or the size is fixed.
        WeightsError: The file is missing or its outputs are not those of the layout.
    """
    layout = cast(Layout | None, kind.removeprefix("onnx-yolo") or None)
    return OnnxYolo(Path(rest), settings, layout, f"{kind}:{rest}")


class LetterboxedFile(AdaptedDetector):
    """A detector in an ONNX file whose input is letterboxed as ultralytics does for `val`.

    Args:
        file: The file.
        names: Its classes.
        settings: How it runs; `imgsz` must fit a fixed size.
        source: Its spec.
        parts: See `AdaptedDetector`.
    """

    def __init__(
        self,
        file: OnnxDetectorFile,
        names: dict[int, str],
        settings: Settings,
        source: str,
        parts: Sequence[object],
    ) -> None:
        self.file = file
        self.inputs = _inputs(file, settings)
        super().__init__(
            detector_name(source), names, source=source, parts=parts, settings=settings
        )
        self.imgsz, self.batch = self.inputs.imgsz, self.inputs.batch

    @property
    def protocol(self) -> dict[str, object]:
        """How it is measured, for reports."""
        shape = "squares" if self.inputs.square else "rectangular batches"
        return {**super().protocol, "input size": f"{self.imgsz} px, {shape} of {self.batch}"}

    def input_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the input that a frame of a size has by itself."""
        return self.inputs.input_hw(np.array([size_hw[0] / size_hw[1]]))

    def plan(self, sizes_hw: Sequence[tuple[int, int]]) -> list[HarnessBatch]:
        """Return the batches of `yolo val`; see `Rectangles.plan`."""
        return self.inputs.plan(sizes_hw)

    def fit(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Frame]:
        """Resize frames to their part of the input, without the grey padding."""
        return [self.inputs.fit(frame, input_hw) for frame in frames]

    def _batches(self, frames: Sequence[Frame]) -> Iterator[HarnessBatch]:
        # Of one size each: in a batch of `val` padding follows the other frames.
        yield from super().plan([size_of(frame) for frame in frames])

    def _run(
        self, fitted: Sequence[Frame], input_hw: tuple[int, int]
    ) -> tuple[dict[str, npt.NDArray[Any]], list[Placement]]:
        """Return the outputs for fitted frames, and where these lay in their input."""
        placements = [placed(frame, input_hw) for frame in fitted]
        images = stack(fitted, placements).transpose(0, 3, 1, 2)
        scaled = images if self.file.levels else images.astype(np.float32) / 255
        outputs = self.file.run(scaled, input_hw)
        self._check_finite(*(value for value in outputs.values() if value.dtype.kind == "f"))
        return outputs, placements


class OnnxYolo(LetterboxedFile):
    """A YOLO in an ONNX file.

    Args:
        path: The file. Names of classes come from `PATH.names`, its metadata, or are COCO's.
        settings: How it runs.
        layout: Of its output; None: told by its shape. `v5`: (B, A, 5 + classes) with an
            objectness; `v8`: (B, 4 + classes, A); `v10`: (B, N, 6), chosen by the network.
        source: Its spec.

    Raises:
        SpecError, WeightsError: See `load_onnx_yolo`.
    """

    def __init__(self, path: Path, settings: Settings, layout: Layout | None, source: str) -> None:
        file = OnnxDetectorFile(path, settings.device, source)
        task = file.metadata.get("task", "detect")
        if task not in ("detect", "segment", "pose"):
            raise WeightsError(f"{path} is a model for {task}: it gives no upright boxes")
        if file.is_rtdetr:
            raise WeightsError(f"{path} is an RT-DETR: say onnx-detr:{path}")
        self._ops = _operations(source)
        file.probe(_inputs(file, settings).input_hw())
        self._shape = _read_shape(file, layout)
        named = file.named()
        count = self._shape.classes
        if count is None:  # the rows name labels, and nothing tells how many there are
            count = max(named) + 1 if named else 80
        parts = ["onnx-yolo", file.digest, self._shape.layout, file.classes(count)]
        super().__init__(file, file.classes(count), settings, source, parts)
        self.iou = None if self._shape.layout == "v10" else settings.iou or _IOU

    @property
    def suppression(self) -> str:
        """What drops boxes that overlap, for reports."""
        return super().suppression if self._shape.layout == "v10" else "external, multi-label"

    def _find(self, fitted: Sequence[Frame], input_hw: tuple[int, int]) -> list[Found]:
        outputs, placements = self._run(fitted, input_hw)
        rows = next(iter(outputs.values()))
        if self._shape.layout == "v8":
            rows = rows.transpose(0, 2, 1)
        return [self._found(*pair) for pair in zip(rows, placements, strict=True)]

    def _found(self, rows: npt.NDArray[np.float32], placement: Placement) -> Found:
        """Read the rows of one frame: all that is likely enough, suppressed where needed."""
        layout, count = self._shape
        if layout == "v10":
            rows = rows[rows[:, _BOX] >= self.conf]
            return Found(_inside(rows[:, :_BOX], placement), rows[:, _BOX], rows[:, _BOX + 1])
        first = _BOX + (layout == "v5")
        likely = rows[:, first : first + (count or 0)]
        if layout == "v5":
            likely = likely * rows[:, _BOX : _BOX + 1]
        places, labels = np.nonzero(likely > self.conf)
        scores = likely[places, labels]
        order = np.argsort(-scores, kind="stable")[:_MOST_CANDIDATES]
        places, labels, scores = places[order], labels[order], scores[order]
        boxes = _corners(rows[places, :_BOX])
        keep = self._suppressed(boxes, scores, labels)
        return Found(_inside(boxes[keep], placement), scores[keep], labels[keep])

    def _suppressed(
        self,
        boxes: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        apart = boxes + labels[:, None].astype(np.float32) * 7680  # classes do not overlap
        kept = self._ops.nms(torch.from_numpy(apart), torch.from_numpy(scores), self.iou)
        return cast("npt.NDArray[np.int64]", kept.numpy())


def _operations(source: str) -> Any:  # noqa: ANN401
    try:
        from torchvision import ops
    except ImportError as error:
        raise SpecError(
            f"{source} needs the package torchvision, for its NMS: pip install torchvision"
        ) from error
    return ops


def _inputs(file: OnnxDetectorFile, settings: Settings) -> Rectangles:
    """Return how frames become inputs: rectangles, or the squares that the file demands."""
    stride = int(file.described("stride") or _DEFAULT_STRIDE)
    exported = file.described("imgsz")
    usual = max(exported) if isinstance(exported, list | tuple) else _DEFAULT_SIZE
    fixed = [side for side in file.size_hw if side is not None]
    if fixed:
        if len(set(fixed)) > 1:
            raise WeightsError(
                f"{file.path} takes {file.size_hw[0]}x{file.size_hw[1]}: export it with a square "
                "or a dynamic size"
            )
        if settings.imgsz not in (None, fixed[0]):
            raise SpecError(
                f"{file.path} takes frames of {fixed[0]} px only: leave out --imgsz "
                f"{settings.imgsz}"
            )
        return Rectangles(fixed[0], stride, file.batch or settings.batch, square=True)
    imgsz = math.ceil((settings.imgsz or usual) / stride) * stride
    return Rectangles(imgsz, stride, file.batch or settings.batch)


def _read_shape(file: OnnxDetectorFile, layout: Layout | None) -> _Shape:
    """Tell the layout by the shape of the first output.

    Raises:
        WeightsError: It fits no layout, or not the one that was named.
    """
    shape, *others = file.outputs.values()
    named = file.named()
    if any(len(other) == 3 and other[-1] == _BOX for other in others):
        raise WeightsError(
            f"{file.path} has logits and boxes, as a DETR: say onnx-detr:{file.path}, or "
            f"onnx-detr-softmax:{file.path}"
        )
    if len(shape) == 3:
        found = _fitting(shape[1], shape[2], len(named) if named else None, layout)
        if found is not None:
            return found
    raise WeightsError(
        f"{file.path}: its output {next(iter(file.outputs))} {list(shape)} is not that of a YOLO"
        f"{layout or ''}: expected (B, 4 + classes, A), (B, A, 5 + classes) or (B, N, 6)"
        + (f" with {len(named)} classes" if named else "")
    )


def _fitting(
    middle: int | None, last: int | None, classes: int | None, layout: Layout | None
) -> _Shape | None:
    """Return the first layout that two axes fit; further channels are masks or points."""
    chosen = last == _BOX + 2 and (middle is None or middle <= _MOST_CHOSEN)
    if layout in (None, "v10") and chosen:
        return _Shape("v10", None)
    if layout in (None, "v8") and middle and middle > _BOX and (last is None or last > middle):
        count = classes or middle - _BOX
        if middle >= _BOX + count:
            return _Shape("v8", count)
    if layout in (None, "v5") and last and last > _BOX + 1 and (middle is None or middle > last):
        count = classes or last - _BOX - 1
        if last >= _BOX + 1 + count:
            return _Shape("v5", count)
    return None


def placed(frame: Frame, input_hw: tuple[int, int]) -> Placement:
    """Return where a fitted frame lies in its input: in the middle, an odd pixel behind it."""
    height, width = size_of(frame)
    return Placement(
        (height, width), (input_hw[0] - height) // 2, (input_hw[1] - width) // 2, input_hw
    )


def _corners(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn centers and sizes into corners."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _inside(boxes: npt.NDArray[np.float32], placement: Placement) -> npt.NDArray[np.float32]:
    """Move boxes from pixels of the input to those of the fitted frame, clipped to it."""
    height, width = placement.size_hw
    moved = boxes - np.array([placement.left, placement.top] * 2, np.float32)
    return cast("npt.NDArray[np.float32]", moved.clip(0, np.array([width, height] * 2, np.float32)))
