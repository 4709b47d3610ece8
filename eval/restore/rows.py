"""Running one row: every image of a set through one method, resumable image by image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from eval.restore.methods import Method
from eval.restore.metrics import ExtraMetrics
from eval.restore.scores import score_image
from eval.restore.sets import RestorationSet, load_pair
from eval.rows.cache import CachedDerainer
from eval.rows.records import RecordFile, is_finite_number
from rainmer.background import prefetch
from rainmer.data.layouts import Pair
from rainmer.errors import ImageError
from rainmer.frames.arrays import Frame
from rainmer.metrics import Convention
from rainmer.stage import Derainer
from rainmer.stage.results import PrecomputedResults

__all__ = ["ImageScore", "Restored", "RowRunner", "restore_frames"]

_RAINY_BATCH = 8  # images that are read at once where nothing is derained


@dataclass(frozen=True)
class ImageScore:
    """What one row measured on one image.

    Attributes:
        name: The image's name.
        fingerprint: Changes when the rainy or the clean file does.
        scores: By name of the measure. Without a clean image, measures that need one are missing.
        elapsed_ms: Time of the derainer; None where nothing was derained, or the time is unknown.
        error: Why the image could not be read or restored; None: it could.
    """

    name: str
    fingerprint: str
    scores: dict[str, float] = field(default_factory=dict)
    elapsed_ms: float | None = None
    error: str | None = None


class Restored(NamedTuple):
    """A restored image, uint8 or float32 of 0..1, and the milliseconds it took, if known."""

    image: npt.NDArray[Any]
    elapsed_ms: float | None


@dataclass
class RowRunner:
    """Runs the rows of a comparison.

    Attributes:
        folder: Where the files of rows are kept, for resuming.
        conventions: How images are scored.
        unrounded: Score the derainer's output as it is, not rounded to 8 bits as in a file.
        cache: Root of the cache of derained frames; None: no cache. Unused with `unrounded`.
        device: Where scores are computed.
        metrics: What is measured beside PSNR and SSIM, if anything.
        derain_s: Seconds spent in derainers so far.
    """

    folder: Path
    conventions: Sequence[Convention]
    unrounded: bool = False
    cache: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    metrics: ExtraMetrics | None = None
    derain_s: float = 0.0

    def run(
        self,
        image_set: RestorationSet,
        method: Method | None = None,
        progress: Callable[[int], None] = lambda images: None,
    ) -> dict[str, ImageScore]:
        """Run one row; resume it where an interrupted run stopped.

        Each finished image is appended to a file in `folder`. The file's name holds a digest of
        everything that the row depends on except the images; each line holds the fingerprint of
        its image. So a larger `--limit` only adds lines, and a changed image is scored again.

        Args:
            image_set: The set.
            method: What derains; None scores the rainy images.
            progress: Called with the number of images just finished.

        Returns:
            The score of each image that the method has, by name.

        Raises:
            OutputError: The file cannot be written.
        """
        label = image_set.label
        derainer = None if method is None else method.derainers.get(label)
        missing = frozenset() if method is None else method.missing.get(label, frozenset())
        wanted = [image for image in image_set.images if image.name not in missing]
        fingerprints = {image.name: image.fingerprint for image in wanted}
        records = self._records(image_set, "rainy" if method is None else method.name, derainer)
        scores = {
            record.name: record
            for record in records.read()
            if fingerprints.get(record.name) == record.fingerprint
        }
        pending = [image for image in wanted if image.name not in scores]
        progress(len(wanted) - len(pending))
        cache = None if self.unrounded else self.cache
        cached = CachedDerainer(derainer, cache) if isinstance(derainer, Derainer) else None
        size = _RAINY_BATCH if derainer is None else derainer.batch
        chunks = [pending[start : start + size] for start in range(0, len(pending), size)]
        batches = (_load(chunk, image_set.height) for chunk in chunks)
        for loaded in prefetch(batches, ahead=2):
            for item, restored in zip(loaded, self._restore(loaded, derainer, cached), strict=True):
                score = self._score(item, restored, fingerprints[item.image.name])
                records.append(score)
                scores[score.name] = score
            progress(len(loaded))
        return {image.name: scores[image.name] for image in wanted}

    def derained_frame(self, label: str, method: Method, frame: Frame, name: str) -> Frame:
        """Derain one frame of a set for a picture: rounded to 8 bits, from the cache if there."""
        derainer = method.derainers[label]
        if isinstance(derainer, PrecomputedResults):
            return derainer([frame], [name])[0]
        return CachedDerainer(derainer, self.cache)([frame])[0].frame

    def _records(
        self, image_set: RestorationSet, name: str, derainer: Derainer | PrecomputedResults | None
    ) -> RecordFile[ImageScore]:
        """Return the file of a row, named by all that its numbers depend on but the images."""
        parts: list[object] = [
            image_set.layout,
            image_set.height,
            sorted(self.conventions),
            self.unrounded and derainer is not None,
            "" if derainer is None else derainer.fingerprint,
        ]
        if self.metrics is not None:
            parts.append(self.metrics.fingerprint)
        return RecordFile(self.folder, f"{image_set.label}-{name}", parts, ImageScore, _is_complete)

    def _restore(
        self,
        loaded: Sequence[_Loaded],
        derainer: Derainer | PrecomputedResults | None,
        cached: CachedDerainer | None,
    ) -> list[Restored | ImageError]:
        """Restore one chunk of images.

        An image that could not be read, or whose result has another size, gives an error.
        """
        frames = [item.rainy for item in loaded if item.rainy is not None]
        names = [item.image.name for item in loaded if item.rainy is not None]
        started = time.perf_counter()
        restored: list[Restored | ImageError]
        if isinstance(derainer, PrecomputedResults):
            restored = [_read_result(derainer, *pair) for pair in zip(frames, names, strict=True)]
        elif derainer is None or cached is None:
            restored = [Restored(frame, None) for frame in frames]
        else:
            restored = [*restore_frames(frames, derainer, cached, unrounded=self.unrounded)]
        self.derain_s += time.perf_counter() - started if derainer is not None else 0.0
        remaining = iter(restored)
        return [
            next(remaining) if item.rainy is not None else ImageError(item.error) for item in loaded
        ]

    def _score(
        self, item: _Loaded, restored: Restored | ImageError, fingerprint: str
    ) -> ImageScore:
        name = item.image.name
        if isinstance(restored, ImageError):
            return ImageScore(name, fingerprint, error=str(restored))
        scores = {}
        if item.clean is not None:
            scores = score_image(restored.image, item.clean, self.conventions, self.device)
        if self.metrics is not None:
            scores |= self.metrics(restored.image, item.clean, self.device)
        return ImageScore(name, fingerprint, scores, restored.elapsed_ms)


def restore_frames(
    frames: Sequence[Frame],
    derainer: Derainer,
    cached: CachedDerainer,
    *,
    unrounded: bool,
) -> list[Restored]:
    """Derain frames: rounded to 8 bits and cached, or unrounded as the derainer returns them."""
    if not frames:
        return []
    if not unrounded:
        return [Restored(result.frame, result.elapsed_ms) for result in cached(frames)]
    started = time.perf_counter()
    floats = [frame.astype(np.float32) / np.float32(255.0) for frame in frames]
    restored = derainer(floats)
    elapsed_ms = 1000.0 * (time.perf_counter() - started) / len(frames)
    return [Restored(image, elapsed_ms) for image in restored]


def _read_result(derainer: PrecomputedResults, frame: Frame, name: str) -> Restored | ImageError:
    """Read a result that was computed elsewhere, so its time is unknown."""
    try:
        return Restored(derainer([frame], [name])[0], None)
    except ImageError as error:
        return error


@dataclass(frozen=True)
class _Loaded:
    """A decoded image with its clean partner, or the error of reading them."""

    image: Pair
    rainy: Frame | None = None
    clean: Frame | None = None
    error: str = ""


def _load(images: Sequence[Pair], height: int | None) -> list[_Loaded]:
    loaded = []
    for image in images:
        try:
            loaded.append(_Loaded(image, *load_pair(image, height)))
        except ImageError as error:
            loaded.append(_Loaded(image, error=str(error)))
    return loaded


def _is_complete(record: ImageScore) -> bool:
    """Tell whether a record read from a file is whole; failed images are tried again."""
    return (
        isinstance(record.name, str)
        and isinstance(record.fingerprint, str)
        and isinstance(record.scores, dict)
        and all(isinstance(v, float) and not math.isnan(v) for v in record.scores.values())
        and (record.elapsed_ms is None or is_finite_number(record.elapsed_ms))
        and record.error is None
    )
