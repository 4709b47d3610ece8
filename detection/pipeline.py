"""Derain, then detect: the loop of one's own."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from detection.types import DerainCallable, Detections, Detector, call_derainer
from rainmer.errors import RainmerError
from rainmer.frames import Frame

__all__ = ["Pipeline", "Processed", "prefetch"]

Item = TypeVar("Item")
_POLL_S = 0.1


@dataclass(frozen=True, eq=False)
class Processed:
    """One frame that went through the pipeline.

    Attributes:
        name: Name of the frame, or its number.
        frame: As it was given: (H, W, 3), uint8, RGB.
        derained: Of the same shape.
        detections: What the detector found in `derained`.
        derain_ms: The derainer's share of the time, its batch divided by its frames.
        detect_ms: The detector's share, likewise.
    """

    name: str
    frame: Frame
    derained: Frame
    detections: Detections
    derain_ms: float
    detect_ms: float


class Pipeline:
    """A derainer in front of a detector.

    Args:
        derainer: Callable `frames -> frames`, as `rainmer.Derainer`.
        detector: Callable `frames -> list[Detections]`, as `detection.YoloDetector`.

    Example:
        >>> import numpy as np
        >>> def finds_nothing(frames):
        ...     return [Detections() for _ in frames]
        >>> pipeline = Pipeline(lambda frames: frames, finds_nothing)
        >>> len(pipeline([np.zeros((4, 6, 3), np.uint8)])[0])
        0
    """

    def __init__(self, derainer: DerainCallable, detector: Detector) -> None:
        self.derainer = derainer
        self.detector = detector

    def __call__(
        self, frames: Sequence[Frame], names: Sequence[str] | None = None
    ) -> list[Detections]:
        """Derain frames (H, W, 3), uint8, RGB, of any sizes, and detect in them.

        Args:
            frames: The frames.
            names: Their file names, for derainers that need them.

        Returns:
            One `Detections` per frame, boxes in pixels of the frame.
        """
        return [processed.detections for processed in self.process(frames, names)]

    def process(
        self, frames: Sequence[Frame], names: Sequence[str] | None = None
    ) -> list[Processed]:
        """Do the same and return everything; see `Processed`."""
        if not frames:
            return []
        names = list(names) if names is not None else [str(i) for i in range(len(frames))]
        start = time.perf_counter()
        with torch.inference_mode():
            derained = call_derainer(self.derainer, list(frames), names)
        middle = time.perf_counter()
        found = self.detector(derained)
        end = time.perf_counter()
        derain_ms = (middle - start) * 1e3 / len(frames)
        detect_ms = (end - middle) * 1e3 / len(frames)
        rows = zip(names, frames, derained, found, strict=True)
        return [Processed(*row, derain_ms, detect_ms) for row in rows]

    def run(
        self,
        source: Iterable[Frame | tuple[str, Frame]],
        batch: int = 8,
        *,
        ahead: int | None = None,
    ) -> Iterator[Processed]:
        """Go through a source of frames, batch by batch, while a thread decodes the next ones.

        Args:
            source: Frames (H, W, 3), uint8, RGB, or pairs of name and frame: a
                `rainmer.video.VideoReader`, a generator, a list. Frames without names are counted.
            batch: Most frames at once; 1 for the least delay of a live source.
            ahead: Most decoded frames that wait; None allows two batches.

        Yields:
            One `Processed` per frame, in order. Errors of the source are raised here.

        Raises:
            RainmerError: `batch` is below 1.
        """
        if batch < 1:
            raise RainmerError(f"batch must be at least 1, but is {batch}")
        names: list[str] = []
        frames: list[Frame] = []
        with contextlib.closing(prefetch(source, ahead or 2 * batch)) as items:
            for i, item in enumerate(items):
                name, frame = item if isinstance(item, tuple) else (str(i), item)
                names.append(name)
                frames.append(frame)
                if len(frames) == batch:
                    yield from self.process(frames, names)
                    names, frames = [], []
        yield from self.process(frames, names)


def prefetch(source: Iterable[Item], ahead: int) -> Generator[Item, None, None]:
    """Iterate over a source in a thread that is at most `ahead` items in front.

    An error of the source is raised after the items before it. Closing the generator early ends
    the thread with the item that it is busy with.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=ahead)
    closed = threading.Event()

    def put(item: Item | _End) -> bool:
        while not closed.is_set():
            try:
                waiting.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in source:
                if not put(item):
                    return
            put(_End(None))
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            put(_End(error))

    thread = threading.Thread(target=read, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()


@dataclass(frozen=True)
class _End:
    error: BaseException | None
