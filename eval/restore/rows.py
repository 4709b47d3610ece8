"""Running a row: each image of a set through a method, resumable image by image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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

_RAINY_BATCH = 8  # images read at once where nothing is derained


@dataclass(frozen=True)
class ImageScore:
    """The measurements of a row on an image.

    Attributes:
        name: The image's name.
        fingerprint: Changes when the rainy or the clean file changes.
        scores: Scores by name of the measure; without a clean image, only no-reference ones.
        elapsed_ms: Time of the derainer in milliseconds; None if nothing was derained, or the time
            is unknown.
        earlier: Whether an earlier run took that time.
        size: Height and width of the image in pixels.
        error: Why the image could not be read or restored; None on success.
    """

    name: str
    fingerprint: str
    scores: dict[str, float] = field(default_factory=dict)
    elapsed_ms: float | None = None
    earlier: bool = False
    size: list[int] = field(default_factory=list)
    error: str | None = None


class Restored(NamedTuple):
    """A restored image, uint8 or float32 of 0..1, and the milliseconds it took, if known.

    `earlier` says that an earlier run took them.
    """

    image: npt.NDArray[Any]
    elapsed_ms: float | None
    earlier: bool = False


@dataclass
class RowRunner:
    """Runs the rows of a comparison.

    Attributes:
        folder: Folder of the rows' files, for resuming.
        conventions: How images are scored.
        unrounded: Score the derainer's output unrounded, instead of rounded to 8 bits as in a file.
        cache: Root of the cache of derained frames; None: no cache. Unused with `unrounded`.
        device: Device that computes scores.
        metrics: Metrics besides PSNR and SSIM, or None.
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
        """Run a row; resume it where an interrupted run stopped.

        Each finished image is appended to a file in `folder`. The file's name holds a digest of
        everything that the row depends on except the images; each line holds the fingerprint of
        its image. Thus a larger `--limit` only adds lines, and a changed image is scored again.

        Args:
            image_set: The set.
            method: The method; None scores the rainy images.
            progress: Called with the number of images just finished.

        Returns:
            The scores of all images that the method has, by name.

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
            record.name: replace(record, earlier=True)
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
        """Derain a frame of a set for a picture: rounded to 8 bits, from the cache if present."""
        derainer = method.derainers[label]
        if isinstance(derainer, PrecomputedResults):
            return derainer([frame], [name])[0]
        return CachedDerainer(derainer, self.cache)([frame])[0].frame

    def _records(
        self, image_set: RestorationSet, name: str, derainer: Derainer | PrecomputedResults | None
    ) -> RecordFile[ImageScore]:
        """Return the file of a row, named by everything its numbers depend on except the images."""
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
        """Restore a chunk of images.

        Images that could not be read, or whose results have another size, get an error.
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
        size = list(restored.image.shape[:2])
        return ImageScore(name, fingerprint, scores, restored.elapsed_ms, restored.earlier, size)


def restore_frames(
    frames: Sequence[Frame],
    derainer: Derainer,
    cached: CachedDerainer,
    *,
    unrounded: bool,
) -> list[Restored]:
    """Derain frames: rounded to 8 bits and cached, or unrounded as returned by the derainer."""
    if not frames:
        return []
    if not unrounded:
        return [Restored(r.frame, r.elapsed_ms, r.earlier) for r in cached(frames)]
    started = time.perf_counter()
    floats = [frame.astype(np.float32) / np.float32(255.0) for frame in frames]
    restored = derainer(floats)
    elapsed_ms = 1000.0 * (time.perf_counter() - started) / len(frames)
    return [Restored(image, elapsed_ms) for image in restored]


def _read_result(derainer: PrecomputedResults, frame: Frame, name: str) -> Restored | ImageError:
    """Read a precomputed result, whose time is unknown."""
    try:
        return Restored(derainer([frame], [name])[0], None)
    except ImageError as error:
        return error


@dataclass(frozen=True)
class _Loaded:
    """A decoded image and its clean partner, or the error of reading them."""

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
    """Tell whether a record from a file is complete; failed images are tried again."""
    return (
        isinstance(record.name, str)
        and isinstance(record.fingerprint, str)
        and isinstance(record.scores, dict)
        and all(isinstance(v, float) and not math.isnan(v) for v in record.scores.values())
        and (record.elapsed_ms is None or is_finite_number(record.elapsed_ms))
        and isinstance(record.earlier, bool)
        and isinstance(record.size, list)
        and all(type(side) is int for side in record.size)
        and record.error is None
    )
