"""The detector socket: what every detector takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rainmer.errors import RainmerError
from rainmer.frames.arrays import Frame
from rainmer.stage.gate import Decision, Gate, GateState
from rainmer.train.boxes import CropBoxes

__all__ = [
    "NO_TRACK",
    "DerainCallable",
    "Detections",
    "Detector",
    "DeviceDetector",
    "FrozenNetwork",
    "HarnessBatch",
    "MeasuringDetector",
    "NetworkOutputs",
    "SourceFrame",
    "Where",
    "call_derainer",
    "decide",
    "lowest_score",
]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Frames = TypeVar("Frames", Tensor, list[Frame])

Where = Literal["frame", "network"]
"""Where to derain: frames of native size, or frames resized to the detector's resolution."""


NO_TRACK = -1
"""The number of what belongs to no track."""

_LOWEST_SCORE = 0.1


def lowest_score(conf: float) -> float:
    """Return the score down to which a track goes on that began at `conf`."""
    return min(_LOWEST_SCORE, conf / 2)


class SourceFrame(NamedTuple):
    """A frame on its way into a pipeline.

    Attributes:
        name: Its name, for records and for derainers that need names.
        image: uint8, RGB: an array (H, W, 3), or a tensor (3, H, W) on a device.
        number: Its number in a video or stream.
        time_s: When it is shown, in seconds since the start of the video or stream.
        duration_s: How long it is shown, in seconds.
        captured: When it came from a camera, in seconds of Unix time.
    """

    name: str
    image: Frame | Tensor
    number: int | None = None
    time_s: float | None = None
    duration_s: float | None = None
    captured: float | None = None

    @property
    def is_moving(self) -> bool:
        """Whether it belongs to a video or stream, unlike an image."""
        return self.number is not None or self.captured is not None


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections in one frame, checked at construction.

    Args:
        boxes_xyxy: (N, 4), float32: left, top, right, bottom in absolute pixels of the frame that
            the detector was given, continuous (width = right - left).
        scores: (N,), float32, 0..1.
        labels: (N,), int64, class indices from 0.

    Raises:
        ValueError: Shapes do not fit together, a value is not finite, or a label is negative.

    Example:
        >>> len(Detections())
        0
        >>> Detections([[0, 0, 4, 2]], [0.5], [7]).boxes_xyxy.shape
        (1, 4)
    """

    boxes_xyxy: FloatArray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes_xyxy, np.float32)
        boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
        scores = np.asarray(self.scores, np.float32)
        labels = np.asarray(self.labels, np.int64)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"expected boxes (N, 4), but got {boxes.shape}")
        if scores.shape != (len(boxes),) or labels.shape != (len(boxes),):
            raise ValueError(
                f"expected {len(boxes)} scores and labels, but got {scores.shape}, {labels.shape}"
            )
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError("boxes and scores must be finite")
        if (labels < 0).any():
            raise ValueError(f"labels start at 0, but got {labels.min()}")
        for name, value in (("boxes_xyxy", boxes), ("scores", scores), ("labels", labels)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Detections:
        """Return the detections of a mask (N,) or of indices."""
        return Detections(self.boxes_xyxy[keep], self.scores[keep], self.labels[keep])


class Detector(Protocol):
    """A detector: frames in, one `Detections` per frame out.

    Attributes:
        name: Short name for reports and file names.
        names: The detector's classes, label to name.
    """

    @property
    def name(self) -> str:
        """Short name for reports and file names."""

    @property
    def names(self) -> dict[int, str]:
        """The classes, label to name."""

    def __call__(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect in frames (H, W, 3), uint8, RGB, of any sizes; same order as given."""


class DeviceDetector(Detector, Protocol):
    """A detector that also takes frames that are already on a device."""

    @property
    def device(self) -> torch.device | None:
        """Device of `detect_batch`; None if the detector, as it is set up, only takes arrays."""

    def detect_batch(self, batch: Tensor) -> list[Detections]:
        """Detect in frames (B, 3, H, W), uint8, RGB; same detections as in the same arrays."""


@dataclass(frozen=True)
class HarnessBatch:
    """One batch of a measurement.

    Attributes:
        indices: Which images it holds.
        input_hw: Size of the detector's input for them.
    """

    indices: tuple[int, ...]
    input_hw: tuple[int, int]


class MeasuringDetector(Protocol):
    """A detector whose mAP can be measured, such as `detection.yolo.harness.ValidationHarness`.

    Frames of native size are first resized by `fit`, then go to `detect_fitted`; between the two
    they can be derained at the detector's resolution.
    """

    @property
    def names(self) -> Mapping[int, str]:
        """The classes, label to name."""

    @property
    def fingerprint(self) -> str:
        """Changes with weights and settings."""

    def plan(self, sizes_hw: Sequence[tuple[int, int]]) -> Sequence[HarnessBatch]:
        """Return the batches for images of these sizes."""

    def fit(self, frames: Sequence[Frame], input_hw: tuple[int, int]) -> list[Frame]:
        """Resize the frames of one batch to the detector's resolution, without padding."""

    def detect_fitted(
        self,
        fitted: Sequence[Frame],
        sizes_hw: Sequence[tuple[int, int]],
        input_hw: tuple[int, int],
    ) -> list[Detections]:
        """Detect in the resized frames of one batch; boxes in pixels of the sizes before."""


DerainCallable = Callable[..., Any]
"""A derainer: `frames -> frames` of the same kind, order, size and type; see `rainmer.Derainer`.

It is called as `derain(frames)`, or as `derain(frames, names=[...])` with one file name per frame
if its attribute `needs_names` is true. Its attribute `name`, if any, is shown in reports.
"""


def call_derainer(
    derain: DerainCallable,
    frames: Frames,
    names: Sequence[str],
    decisions: Sequence[Decision] | None = None,
) -> Frames:
    """Call a derainer, with the frames' names only if it needs them.

    Args:
        derain: The derainer.
        frames: A list of frames, or a batch.
        names: Of the frames.
        decisions: Of its gate, which are made already; see `rainmer.stage.gate`.

    Raises:
        RainmerError: It returned another kind, size or type: boxes would be in the wrong place.
    """
    needs_names = getattr(derain, "needs_names", False)
    if decisions is not None:
        derained = cast(Any, derain)(frames, decisions=decisions)
    else:
        derained = derain(frames, names=list(names)) if needs_names else derain(frames)
    given, returned = _form(frames), _form(derained)
    if given != returned:
        name = getattr(derain, "name", None) or type(derain).__name__
        raise RainmerError(
            f"the derainer {name} must return frames of the same kind, size and type: it was given "
            f"{given}, but returned {returned}"
        )
    return cast(Frames, derained)


def decide(
    derain: DerainCallable, frames: Sequence[Any], states: Sequence[GateState | None] | None
) -> list[Decision] | None:
    """Return the decisions of a derainer's gate for frames of streams; None: it has none."""
    gate = getattr(derain, "gate", None)
    return gate.decide(frames, states) if isinstance(gate, Gate) else None


def _form(frames: object) -> str:
    """Describe frames by kind, shape and type."""
    if isinstance(frames, Tensor | np.ndarray):
        return f"{type(frames).__name__} {tuple(frames.shape)} of {frames.dtype}"
    if isinstance(frames, list | tuple):
        return f"[{', '.join(_form(frame) for frame in frames)}]"
    return type(frames).__name__


@dataclass(frozen=True)
class NetworkOutputs:
    """What a frozen network makes of a batch of images, with gradients for the images.

    Attributes:
        features: Maps (B, C, h, w) of the chosen layers.
        scores: Logits (B, classes, A) at all anchors; None unless asked for.
        boxes: Logits (B, 4 R, A) of the boxes' sides at all anchors; None unless asked for.
        head_maps: The maps whose pixels are the anchors; empty unless asked for.
    """

    features: list[Tensor]
    scores: Tensor | None = None
    boxes: Tensor | None = None
    head_maps: Sequence[Tensor] = ()


class FrozenNetwork(Protocol):
    """A network in whose features images are compared; it never changes."""

    fingerprint: str
    """Changes with the weights and the layers."""

    def __call__(self, images: Tensor, *, raw: bool = False) -> NetworkOutputs:
        """Run on images (B, 3, H, W), RGB, 0..1, of any size; `raw` asks for the raw outputs."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of its classes; none if it detects nothing."""

    def loss(self, outputs: NetworkOutputs, boxes: CropBoxes) -> Tensor:
        """Return its own training loss of raw outputs, a mean over images."""
