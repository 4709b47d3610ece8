"""Images that someone else derained (`results:FOLDER`), matched to frames by file name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rainmer import __version__
from rainmer.errors import ImageError, RainmerError, SpecError
from rainmer.files import match_key
from rainmer.frames.arrays import Frame, to_frames, unit_range, upload
from rainmer.frames.images import list_images, read_image
from rainmer.stage.derainer import Derainer
from rainmer.stage.restorers import digest
from rainmer.stage.specs import split_blend, split_gate

__all__ = ["PrecomputedResults", "make_derainer", "open_results"]


class PrecomputedResults:
    """A folder of derained images in place of a derainer; frames are looked up by file name.

    Names match by path without suffix; in a flat folder of results the file name alone decides.
    Where a command or `detection.attach` takes a derainer and knows file names, it takes this too.

    Args:
        folder: The derained images.
        shares: Weights 0..1 of blends with the rainy frame, the outermost first; see
            `rainmer.stage.restorers.BlendRestorer`.
        batch: How many frames to look up at once.

    Attributes:
        name: `results-` and the folder's name.
        fingerprint: Changes whenever a file in the folder does.

    Raises:
        SpecError: There is no such folder.
    """

    needs_names = True
    """Makes `detection` pass file names; see `detection.types.DerainCallable`."""

    def __init__(self, folder: Path, shares: Sequence[float] = (), batch: int = 8) -> None:
        if not folder.is_dir():
            raise SpecError(f"results:{folder}: no such folder")
        self.batch = batch
        self._folder, self._shares = folder, tuple(shares)
        self._by_key: dict[str, list[Path]] = {}
        paths = list_images(folder)
        for path in paths:
            self._by_key.setdefault(match_key(path.relative_to(folder)), []).append(path)
        self._is_flat = all(path.parent == folder for path in paths)
        self._taken: dict[Path, str] = {}
        self.name = f"results-{folder.resolve().name}"
        stats = [(str(path), *_stat(path)) for path in paths]
        fingerprint = digest("results", stats)
        for share in reversed(self._shares):
            self.name = f"blend-{share:g}-{self.name}"
            fingerprint = digest("blend", share, fingerprint)
        # The same batch as a `rainmer.Derainer` with default options.
        parts = (__version__, fingerprint, "fp32", None)
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def __call__(self, frames: Sequence[Frame] | Tensor, names: Sequence[str]) -> list[Frame]:
        """Return the derained images of frames.

        Args:
            frames: The rainy frames (H, W, 3), uint8, RGB.
            names: Their file names.

        Raises:
            SpecError: A name has no image, several, or one that another name has taken.
            ImageError: An image cannot be read, or has another size than its frame.
            RainmerError: There are more or fewer names than frames.
        """
        if isinstance(frames, Tensor):
            raise SpecError(f"{self.name} has derained frames of native size only")
        if len(names) != len(frames):
            raise RainmerError(f"got {len(names)} names for {len(frames)} frames")
        paths = [self.find(name) for name in names]
        derained = [read_image(path) for path in paths]
        for path, frame, rainy in zip(paths, derained, frames, strict=True):
            if frame.shape != rainy.shape:
                raise ImageError(
                    f"{path} is {frame.shape[1]}x{frame.shape[0]} pixels, but its "
                    f"rainy image is {rainy.shape[1]}x{rainy.shape[0]}"
                )
        return [self._blend(*pair) for pair in zip(frames, derained, strict=True)]

    def _blend(self, rainy: Frame, derained: Frame) -> Frame:
        if not self._shares:
            return derained
        before, after = (unit_range(upload([frame])) for frame in (rainy, derained))
        for share in reversed(self._shares):
            after = torch.lerp(before, after, share)
        return to_frames(after)[0]

    def find(self, name: str) -> Path:
        """Return the derained image of a frame.

        Raises:
            SpecError: There is none, there are several, or another frame has it.
        """
        key = match_key(name)
        paths = self._candidates(key)
        if len(paths) != 1:
            problem = f"{len(paths)} images are" if paths else "no image is"
            raise SpecError(f"{problem} named {Path(name).with_suffix('')} in {self._folder}")
        owner = self._taken.setdefault(paths[0], key)
        if owner != key:
            raise SpecError(f"{paths[0]} is the result of both {owner} and {key}; use subfolders")
        return paths[0]

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the names that have no result.

        Raises:
            SpecError: A name has several results, or two names share one.
        """
        lacking = []
        for name in names:
            if self._candidates(match_key(name)):
                self.find(name)
            else:
                lacking.append(name)
        return lacking

    def _candidates(self, key: str) -> list[Path]:
        return self._by_key.get(key) or (
            self._by_key.get(key.rpartition("/")[2], []) if self._is_flat else []
        )


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a link that leads nowhere, which says so when it is read
        return 0, 0
    return status.st_size, status.st_mtime_ns


def open_results(spec: str, batch: int = 8) -> PrecomputedResults | None:
    """Open the folder of `results:FOLDER`, blends of it included; None for any other spec.

    Raises:
        SpecError: There is no such folder, or a blend makes no sense.
    """
    shares = []
    kind, _, rest = spec.partition(":")
    while kind == "blend":
        share, blended = split_blend(rest)
        shares.append(share)
        kind, _, rest = blended.partition(":")
    return PrecomputedResults(Path(rest), shares, batch) if kind == "results" and rest else None


def make_derainer(spec: str, **stage: Any) -> Derainer | PrecomputedResults:  # noqa: ANN401
    """Build what a spec stands for, for callers that know the file names of their frames.

    Args:
        spec: See `rainmer.stage.specs.SPEC_HELP`.
        stage: Further arguments of `rainmer.Derainer`; results need only `batch`.

    Raises:
        SpecError, WeightsError, RainmerError: See `rainmer.Derainer` and `PrecomputedResults`.
    """
    results = open_results(split_gate(spec)[1], stage.get("batch", 8))
    if results is None:
        return Derainer(spec, **stage)
    if split_gate(spec)[0] is not None or stage.get("gate") is not None:
        raise SpecError(f"{spec}: results are derained already, so a gate would save nothing")
    return results
