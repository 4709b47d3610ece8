"""Derain, then detect: the pipeline for your own loop."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from detection.held import HeldBatch
from detection.timing import Stopwatch
from detection.types import (
    DerainCallable,
    Detections,
    Detector,
    DeviceDetector,
    IntArray,
    SourceFrame,
    call_derainer,
    decide,
)
from rainmer import Derainer
from rainmer.background import End, interleave
from rainmer.errors import RainmerError
from rainmer.frames.arrays import Frame, download, stack_in_order, upload
from rainmer.frames.video import DeviceFrame, VideoFrame
from rainmer.meter.meter import place
from rainmer.stage.gate import Decision, GateState

__all__ = ["STAGES", "Pipeline", "Processed", "StreamError"]

STAGES = ("upload", "derain", "letterbox", "detect")
"""The steps of a pipeline that are timed."""

Picture = Frame | Tensor
Source = Iterable[Picture | tuple[str, Picture] | SourceFrame | VideoFrame | DeviceFrame]


class StreamError(RainmerError):
    """Streams that failed; the others ran to their ends.

    Attributes:
        errors: Errors by stream.
    """

    def __init__(self, errors: Mapping[str, Exception]) -> None:
        self.errors = dict(errors)
        lines = [f"{name}: {error}" for name, error in self.errors.items()]
        super().__init__(f"{len(lines)} of the streams failed: {'; '.join(lines)}")


@dataclass(frozen=True, eq=False)
class Processed:
    """One frame that went through the pipeline.

    Attributes:
        name: Name of the frame, or its number.
        size_hw: (height, width) of the frame.
        detections: The detections in `derained`.
        stage_ms: The frame's share of its batch's time in each of `STAGES`, in ms. If frames do not
            stay on a device, `derain` includes the upload. If the detector does not report its
            letterboxing time, `detect` includes it.
        number, time_s, duration_s, captured: Those of the source; see `SourceFrame`.
        decision: Of the derainer's gate, if it has one: whether the frame was derained, and why.
        tracks: (N,) numbers of the detections' objects, below 0: none; None: nothing is followed.
    """

    name: str
    size_hw: tuple[int, int]
    detections: Detections
    stage_ms: Mapping[str, float]
    _rainy: Callable[[], Frame] = field(repr=False)
    _derained: Callable[[], Frame] = field(repr=False)
    number: int | None = None
    time_s: float | None = None
    duration_s: float | None = None
    captured: float | None = None
    decision: Decision | None = None
    tracks: IntArray | None = None

    @property
    def frame(self) -> Frame:
        """The rainy frame (H, W, 3), uint8, RGB; downloaded with its batch if it is on a GPU."""
        return self._rainy()

    @property
    def derained(self) -> Frame:
        """The derained frame, of the same shape.

        If it is still on a GPU, the first access downloads it, together with its whole batch.
        """
        return self._derained()

    @property
    def derain_ms(self) -> float:
        """Time from the frame as given until it is derained, its share of the batch, in ms."""
        return self.stage_ms["upload"] + self.stage_ms["derain"]

    @property
    def detect_ms(self) -> float:
        """Time from the derained frame to its detections, its share of the batch, in ms."""
        return self.stage_ms["letterbox"] + self.stage_ms["detect"]


class Pipeline:
    """A derainer in front of a detector.

    A `rainmer.Derainer` and a `detection.YoloDetector` on CUDA share one upload: derained frames
    stay on the GPU for the detector, and are downloaded only if `Processed.derained` is read. The
    detections are the same.

    Args:
        derainer: Callable `frames -> frames`, as `rainmer.Derainer`.
        detector: Callable `frames -> list[Detections]`, as `detection.YoloDetector`.
        on_device: Whether frames stay on the device between the two; None: on CUDA, if both can.

    Raises:
        RainmerError: `on_device` is True, but one of the two only takes arrays.

    Example:
        >>> import numpy as np
        >>> def finds_nothing(frames):
        ...     return [Detections() for _ in frames]
        >>> pipeline = Pipeline(lambda frames: frames, finds_nothing)
        >>> len(pipeline([np.zeros((4, 6, 3), np.uint8)])[0])
        0
    """

    def __init__(
        self,
        derainer: DerainCallable,
        detector: Detector | DeviceDetector,
        *,
        on_device: bool | None = None,
    ) -> None:
        self.derainer = derainer
        self.detector = detector
        self._stays_on_device = _stays_on_device(derainer, detector, on_device)

    def __call__(
        self, frames: Sequence[Picture], names: Sequence[str] | None = None
    ) -> list[Detections]:
        """Derain frames, uint8, RGB, of any sizes, and detect in them.

        Args:
            frames: Arrays (H, W, 3), or tensors (3, H, W) on the derainer's device.
            names: Their file names, for derainers that need them.

        Returns:
            One `Detections` per frame, boxes in pixels of the frame.
        """
        return [processed.detections for processed in self.process(frames, names)]

    def process(
        self,
        frames: Sequence[Picture],
        names: Sequence[str] | None = None,
        *,
        download: bool = False,
        states: Sequence[GateState | None] | None = None,
    ) -> list[Processed]:
        """Derain frames, detect in them, and return both; see `Processed`.

        Args:
            frames: As of `__call__`.
            names: Their file names, for derainers that need them.
            download: Start downloading `Processed.derained` while the GPU detects.
            states: For a derainer with a gate, the state of each frame's stream, if it has one.
        """
        if not frames:
            return []
        names = list(names) if names is not None else [str(i) for i in range(len(frames))]
        with torch.inference_mode():
            with Stopwatch() as deciding:
                placed = self._placed(frames)
                decisions = decide(self.derainer, placed, states)
            processed = self._process_all(placed, names, decisions, download)
        if decisions is None:
            return processed
        share_ms = deciding.elapsed_ms / len(frames)
        trios = zip(processed, frames, decisions, strict=True)
        return [_decided(*trio, share_ms) for trio in trios]

    def _placed(self, frames: Sequence[Picture]) -> Sequence[Picture]:
        """Upload the frames before a gate reads them, if they are to stay on the device."""
        derainer = self.derainer
        if not (self._stays_on_device and isinstance(derainer, Derainer) and derainer.gate):
            return frames
        return [place(frame, derainer.device) for frame in frames]

    def _process_all(
        self,
        frames: Sequence[Picture],
        names: list[str],
        decisions: list[Decision] | None,
        download: bool,
    ) -> list[Processed]:
        if not self._stays_on_device:
            return self._process_arrays(frames, names, decisions)
        processed: list[Processed | None] = [None] * len(frames)
        for indices in _of_one_size(frames, cast(Derainer, self.derainer).batch):
            batch = self._process_on_device(
                [frames[i] for i in indices],
                [names[i] for i in indices],
                None if decisions is None else [decisions[i] for i in indices],
                download,
            )
            for i, item in zip(indices, batch, strict=True):
                processed[i] = item
        return [item for item in processed if item is not None]

    def run(
        self,
        source: Source,
        batch: int = 8,
        *,
        ahead: int | None = None,
        live: bool = False,
        download: bool = False,
    ) -> Generator[Processed, None, None]:
        """Process a source of frames in batches, while a thread decodes the next ones.

        Args:
            source: Frames (see `__call__`), pairs of name and frame, or `SourceFrame`: a
                `rainmer.frames.video.VideoReader` or `DeviceReader`, a generator, a list. Frames
                without names are counted.
            batch: Maximum number of frames at once.
            ahead: Maximum number of decoded frames that wait; None: two batches.
            live: Do not wait for a batch to fill; process the frames that have arrived.
            download: See `process`.

        Yields:
            One `Processed` per frame, in order. Errors of the source are raised here, after the
            frames before them.

        Raises:
            RainmerError: `batch` is below 1.
        """
        streams = self.run_streams({"": source}, batch, ahead=ahead, live=live, download=download)
        with contextlib.closing(streams):
            try:
                for _, processed in streams:
                    if processed is not None:
                        yield processed
            except StreamError as error:
                raise error.errors[""] from None

    def run_streams(
        self,
        sources: Mapping[str, Source],
        batch: int = 8,
        *,
        ahead: int | None = None,
        at_once: int | None = None,
        live: bool = False,
        download: bool = False,
        admit: Callable[[str, SourceFrame], bool] | None = None,
        closed: threading.Event | None = None,
    ) -> Generator[tuple[str, Processed | None], None, None]:
        """Process several sources at the same time, their frames in shared batches.

        Frames of one size run together, whichever stream they come from; sizes may differ between
        streams and change within one. Each source is read by its own thread.

        Args:
            sources: The sources by name, each as in `run`.
            batch: Maximum number of frames at once, of all streams together.
            ahead: Maximum number of decoded frames that wait, per stream (in total if `live`);
                None: two batches.
            at_once: Maximum number of streams open at a time; None opens all.
            live: Take frames as they arrive, so that a slow stream delays no other. Otherwise
                streams take turns, and batches are the same in every run.
            download: See `process`.
            admit: Called with a stream's name and its frame in its turn: whether to process it.
            closed: Set when the generator is closed; see `rainmer.background.interleave`.

        Yields:
            Pairs of a stream's name and its next `Processed`, each stream in its order; then its
            name and None, once, when it has ended.

        Raises:
            RainmerError: `batch` is below 1.
            StreamError: Streams failed; raised at the end, when the others are complete.
        """
        if batch < 1:
            raise RainmerError(f"batch must be at least 1, but is {batch}")
        errors: dict[str, Exception] = {}
        named = {name: _named(source) for name, source in sources.items()}
        states = {name: GateState() for name in sources}
        ahead = ahead or 2 * batch
        chunks = interleave(named, batch, ahead=ahead, at_once=at_once, live=live, closed=closed)
        with contextlib.closing(chunks):
            for chunk in chunks:
                chunk = [pair for pair in chunk if _is_admitted(*pair, admit)]
                pairs = [(key, item) for key, item in chunk if not isinstance(item, End)]
                results = iter(self._process_pairs(pairs, states, download))
                for stream, item in chunk:
                    if not isinstance(item, End):
                        yield stream, replace(next(results), **_origin(item))
                        continue
                    if isinstance(item.error, Exception):
                        errors[stream] = item.error
                    elif item.error is not None:
                        raise item.error
                    yield stream, None
        if errors:
            raise StreamError(errors) from next(iter(errors.values()))

    def _process_pairs(
        self,
        pairs: Sequence[tuple[str, SourceFrame]],
        states: Mapping[str, GateState],
        download: bool,
    ) -> list[Processed]:
        frames, names = [item.image for _, item in pairs], [item.name for _, item in pairs]
        held = [states[stream] if item.is_moving else None for stream, item in pairs]
        return self.process(frames, names, download=download, states=held)

    def _process_arrays(
        self, given: Sequence[Picture], names: list[str], decisions: list[Decision] | None
    ) -> list[Processed]:
        frames = [download(f[None])[0] if isinstance(f, Tensor) else f for f in given]
        with Stopwatch() as deraining:
            derained = call_derainer(self.derainer, frames, names, decisions)
        with Stopwatch() as detecting:
            detections = self.detector(derained)
        count = len(frames)
        stage_ms = _shares(
            0.0, deraining.elapsed_ms / count, detecting.elapsed_ms / count, self._speed()
        )
        return [
            Processed(
                name,
                _size_hw(frame),
                boxes,
                stage_ms,
                functools.partial(_same, frame),
                functools.partial(_same, result),
            )
            for name, frame, boxes, result in zip(names, frames, detections, derained, strict=True)
        ]

    def _process_on_device(
        self,
        frames: list[Picture],
        names: list[str],
        decisions: list[Decision] | None,
        download: bool,
    ) -> list[Processed]:
        """Process frames of one size on the derainer's device, at most one of its batches."""
        derainer = cast(Derainer, self.derainer)
        with Stopwatch(derainer.device) as uploading:
            rainy = _on_device(frames, derainer.device)
        with Stopwatch(derainer.device) as deraining:
            derained = call_derainer(derainer, rainy, names, decisions)
        held, decoded = HeldBatch(derained), HeldBatch(rainy)
        if download:
            held.start_download()
        with Stopwatch(derainer.device) as detecting:
            detections = cast(DeviceDetector, self.detector).detect_batch(derained)
        derainer.check()
        count = len(frames)
        stage_ms = _shares(
            uploading.elapsed_ms / count,
            deraining.elapsed_ms / count,
            detecting.elapsed_ms / count,
            self._speed(),
        )
        return [
            Processed(
                name,
                _size_hw(frame),
                boxes,
                stage_ms,
                functools.partial(decoded.frame, i)
                if isinstance(frame, Tensor)
                else functools.partial(_same, frame),
                functools.partial(held.frame, i),
            )
            for i, (name, frame, boxes) in enumerate(zip(names, frames, detections, strict=True))
        ]

    def _speed(self) -> Mapping[str, float]:
        """Return the times that the detector reports for its last call: ms per frame, by step."""
        return getattr(self.detector, "speed", {})


def _stays_on_device(
    derainer: DerainCallable, detector: Detector | DeviceDetector, wanted: bool | None
) -> bool:
    if wanted is False:
        return False
    on_cuda = isinstance(derainer, Derainer) and derainer.device.type == "cuda"
    if wanted is None and not on_cuda:
        return False
    able = (
        isinstance(derainer, Derainer)
        and hasattr(detector, "detect_batch")
        and getattr(detector, "device", None) is not None
    )
    if wanted and not able:
        raise RainmerError(
            "on_device needs a rainmer.Derainer and a detector that takes frames on a device, as "
            "a YoloDetector without an attached derainer does"
        )
    # For a detector on another kind of device, arrays are cheaper.
    return able and (bool(wanted) or _device_type(detector) == "cuda")


def _device_type(detector: object) -> str:
    return cast(DeviceDetector, detector).device.type  # type: ignore[union-attr]


def _named(source: Source) -> Iterator[SourceFrame]:
    for i, item in enumerate(source):
        if isinstance(item, SourceFrame):
            yield item
        elif isinstance(item, VideoFrame | DeviceFrame):
            name = str(item.number)
            yield SourceFrame(name, item.image, item.number, item.time_s, item.duration_s)
        elif isinstance(item, tuple):
            yield SourceFrame(*item)
        else:
            yield SourceFrame(str(i), item)


def _origin(frame: SourceFrame) -> dict[str, Any]:
    values = frame._asdict()
    return {key: values[key] for key in ("number", "time_s", "duration_s", "captured")}


def _is_admitted(
    stream: str, item: SourceFrame | End, admit: Callable[[str, SourceFrame], bool] | None
) -> bool:
    return admit is None or isinstance(item, End) or admit(stream, item)


def _on_device(frames: list[Picture], device: torch.device) -> Tensor:
    """Stack frames of one kind and size as (B, 3, H, W) on a device."""
    tensors = [frame for frame in frames if isinstance(frame, Tensor)]
    if tensors:
        in_order = torch.stack if tensors[0].is_contiguous() else stack_in_order
        return in_order(tensors).to(device)
    return upload([frame for frame in frames if not isinstance(frame, Tensor)], device)


def _size_hw(frame: Picture) -> tuple[int, int]:
    height, width = frame.shape[-2:] if isinstance(frame, Tensor) else frame.shape[:2]
    return height, width


def _of_one_size(frames: Sequence[Picture], most: int) -> Iterator[list[int]]:
    """Yield the indices of frames of equal kind and shape, at most `most` at a time."""
    by_shape: dict[tuple[object, ...], list[int]] = {}
    for i, frame in enumerate(frames):
        by_shape.setdefault((type(frame), *frame.shape), []).append(i)
    for indices in by_shape.values():
        for start in range(0, len(indices), most):
            yield indices[start : start + most]


def _shares(
    upload_ms: float, derain_ms: float, detect_ms: float, speed: Mapping[str, float]
) -> dict[str, float]:
    """Split a frame's time into `STAGES`, using the steps that the detector reports.

    One of these may be a derainer attached to the detector.
    """
    letterbox_ms, inner_ms = speed.get("preprocess", 0.0), speed.get("derain", 0.0)
    rest_ms = max(detect_ms - letterbox_ms - inner_ms, 0.0)
    return dict(zip(STAGES, (upload_ms, derain_ms + inner_ms, letterbox_ms, rest_ms), strict=True))


def _decided(
    processed: Processed, frame: Picture, decision: Decision, share_ms: float
) -> Processed:
    """Add a decision to a frame, and the time that it took to the time of deraining."""
    stage_ms = {**processed.stage_ms, "derain": processed.stage_ms["derain"] + share_ms}
    # The frame as given, and nothing that stays on a device.
    rainy = processed._rainy if isinstance(frame, Tensor) else functools.partial(_same, frame)
    decision = replace(decision, frame=None)
    return replace(processed, decision=decision, stage_ms=stage_ms, _rainy=rainy)


def _same(frame: Frame) -> Frame:
    return frame
