"""Running one row: every image of a set through one method, resumable image by image."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from eval.restore.methods import Method
from eval.restore.metrics import ExtraMetrics
from eval.restore.scores import score_image
from eval.restore.sets import RestorationImage, RestorationSet, load_pair
from eval.rows.cache import CachedDerainer
from rainmer.background import prefetch
from rainmer.errors import ImageError
from rainmer.files import append_line, read_lines
from rainmer.frames.arrays import Frame
from rainmer.metrics import Convention
from rainmer.stage import Derainer
from rainmer.stage.results import PrecomputedResults

__all__ = ["ImageScore", "Restored", "RowRunner", "restore_frames"]

_RAINY_BATCH = 8  # images that are read at once where nothing is derained


@dataclass(frozen=True)
class ImageScore:
    """What one row gave for one image.

    `fingerprint` is that of the files it came from. `scores` lacks what cannot be measured: without
    a clean image, whatever compares with it. An image that could not be read or restored has
    `error`.
    """

    name: str
    fingerprint: str
    scores: dict[str, float] = field(default_factory=dict)
    elapsed_ms: float | None = None
    error: str | None = None


_FIELDS = {item.name for item in fields(ImageScore)}


class Restored(NamedTuple):
    """A restored image, uint8 or float32 of 0..1, and the milliseconds it took, if known."""

    image: npt.NDArray[Any]
    elapsed_ms: float | None


@dataclass
class RowRunner:
    """Runs the rows of a comparison.

    Attributes:
        folder: Where results are kept, for resuming.
        conventions: How images are scored.
        unrounded: Score what the derainer gives, not rounded to 8 bits as in a file.
        cache: Root of the cache of derained frames; None: none. Unused with `unrounded`.
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
        images: RestorationSet,
        method: Method | None = None,
        progress: Callable[[int], None] = lambda images: None,
    ) -> dict[str, ImageScore]:
        """Run one row, going on where an interrupted run of the same row stopped.

        Each finished image is appended to a file in `folder`, whose name holds a digest of all that
        the row depends on but the images; these have a fingerprint in their line. So more images
        of a set (a larger `--limit`) only add to it.

        Args:
            images: The set.
            method: What derains; None scores the rainy images.
            progress: Called with the number of images done.

        Returns:
            What came of each image that the method has, by name.

        Raises:
            OutputError: The results cannot be written.
        """
        derainer = None if method is None else method.derainers.get(images.label)
        missing = frozenset() if method is None else method.missing.get(images.label, frozenset())
        name = "rainy" if method is None else method.name
        path = self.folder / f"{images.label}-{name}-{self._key(images, derainer)}.jsonl"
        done = _read_scores(path)
        wanted = [image for image in images.images if image.name not in missing]
        prints = {image.name: image.fingerprint for image in wanted}
        done = {n: score for n, score in done.items() if prints.get(n) == score.fingerprint}
        pending = [image for image in wanted if image.name not in done]
        progress(len(wanted) - len(pending))
        cache = None if self.unrounded else self.cache
        cached = CachedDerainer(derainer, cache) if isinstance(derainer, Derainer) else None
        size = _RAINY_BATCH if derainer is None else derainer.batch
        chunks = [pending[start : start + size] for start in range(0, len(pending), size)]
        batches = (_load(chunk, images.height) for chunk in chunks)
        for loaded in prefetch(batches, ahead=2):
            for item, restored in zip(loaded, self._restore(loaded, derainer, cached), strict=True):
                score = self._score(item, restored, prints[item.image.name])
                append_line(path, asdict(score))
                done[score.name] = score
            progress(len(loaded))
        return {image.name: done[image.name] for image in wanted}

    def derained_frame(self, label: str, method: Method, frame: Frame, name: str) -> Frame:
        """Derain one frame of a set for a picture: rounded to 8 bits, from the cache if there."""
        derainer = method.derainers[label]
        if isinstance(derainer, PrecomputedResults):
            return derainer([frame], [name])[0]
        return CachedDerainer(derainer, self.cache)([frame])[0].frame

    def _restore(
        self,
        loaded: Sequence[_Loaded],
        derainer: Derainer | PrecomputedResults | None,
        cached: CachedDerainer | None,
    ) -> list[Restored | ImageError]:
        """Restore images of one chunk; what has no frame, or a result of another size, fails."""
        frames = [item.rainy for item in loaded if item.rainy is not None]
        names = [item.image.name for item in loaded if item.rainy is not None]
        started = time.perf_counter()
        made: list[Restored | ImageError]
        if isinstance(derainer, PrecomputedResults):
            made = [_read_result(derainer, *pair) for pair in zip(frames, names, strict=True)]
        elif derainer is None or cached is None:
            made = [Restored(frame, None) for frame in frames]
        else:
            made = list(restore_frames(frames, derainer, cached, unrounded=self.unrounded))
        self.derain_s += time.perf_counter() - started if derainer is not None else 0.0
        remaining = iter(made)
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

    def _key(self, images: RestorationSet, derainer: Derainer | PrecomputedResults | None) -> str:
        """Return a digest of all that the row's numbers depend on, but for the images."""
        parts: list[object] = [
            images.layout,
            images.height,
            sorted(self.conventions),
            self.unrounded and derainer is not None,
            "" if derainer is None else derainer.fingerprint,
        ]
        if self.metrics is not None:
            parts.append(self.metrics.fingerprint)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def restore_frames(
    frames: Sequence[Frame],
    derainer: Derainer,
    cached: CachedDerainer,
    *,
    unrounded: bool,
) -> list[Restored]:
    """Derain frames, rounded to 8 bits and cached, or as the derainer gives them."""
    if not frames:
        return []
    if not unrounded:
        return [Restored(done.frame, done.elapsed_ms) for done in cached(frames)]
    started = time.perf_counter()
    floats = [frame.astype(np.float32) / np.float32(255.0) for frame in frames]
    restored = derainer(floats)
    elapsed_ms = 1000.0 * (time.perf_counter() - started) / len(frames)
    return [Restored(image, elapsed_ms) for image in restored]


def _read_result(derainer: PrecomputedResults, frame: Frame, name: str) -> Restored | ImageError:
    """Read a result that somebody made elsewhere: what it took is not known."""
    try:
        return Restored(derainer([frame], [name])[0], None)
    except ImageError as error:
        return error


@dataclass(frozen=True)
class _Loaded:
    """A decoded image with its clean partner, or why it is not there."""

    image: RestorationImage
    rainy: Frame | None = None
    clean: Frame | None = None
    error: str = ""


def _load(images: Sequence[RestorationImage], height: int | None) -> list[_Loaded]:
    loaded = []
    for image in images:
        try:
            loaded.append(_Loaded(image, *load_pair(image, height)))
        except ImageError as error:
            loaded.append(_Loaded(image, error=str(error)))
    return loaded


def _read_scores(path: Path) -> dict[str, ImageScore]:
    """Read the lines of a row's file; what is damaged or failed is done again."""
    scores = {}
    for record in read_lines(path):
        if record.keys() == _FIELDS and _is_whole(record):
            scores[record["name"]] = ImageScore(**record)
    return scores


def _is_whole(record: dict[str, Any]) -> bool:
    values, elapsed = record["scores"], record["elapsed_ms"]
    return (
        isinstance(record["name"], str)
        and isinstance(record["fingerprint"], str)
        and isinstance(values, dict)
        and all(isinstance(v, float) and not math.isnan(v) for v in values.values())
        and (elapsed is None or (isinstance(elapsed, float) and math.isfinite(elapsed)))
        and record["error"] is None
    )
