"""Images that someone else derained, matched by file name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rainmer.errors import ImageError, SpecError
from rainmer.files import match_key
from rainmer.frames.arrays import to_batch
from rainmer.frames.images import list_images, read_image
from rainmer.stage.restorers import digest

__all__ = ["ResultsRestorer"]


class ResultsRestorer:
    """Images that were derained elsewhere, matched to the frames by path without suffix.

    In a flat folder of results, the file name alone decides.
    """

    tileable = False
    needs_names = True
    cacheable = False  # they are files already
    size_multiple = 1

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SpecError(f"results:{folder}: no such folder")
        self.name = f"results-{folder.resolve().name}"
        self._folder = folder
        self._by_key: dict[str, list[Path]] = {}
        paths = list_images(folder)
        for path in paths:
            self._by_key.setdefault(match_key(path.relative_to(folder)), []).append(path)
        self._is_flat = all(path.parent == folder for path in paths)
        self._taken: dict[Path, str] = {}
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        self.fingerprint = digest("results", stats)

    def prepare(
        self, device: torch.device, dtype: torch.dtype = torch.float32, *, compiled: bool = False
    ) -> None:
        """Do nothing: the images are read to the device of each batch."""

    def prompts(self, batch: Tensor) -> Tensor | None:
        """Return None: nothing is computed per frame."""
        return None

    def restore(self, batch: Tensor, prompts: Tensor | None, names: Sequence[str] | None) -> Tensor:
        """Read the images of these names.

        Raises:
            SpecError: Names are not given, or a name has no image of its own.
            ImageError: An image has another size than the frame.
        """
        if names is None:
            raise SpecError(f"{self.name} needs file names: it cannot derain frames without names")
        paths = [self.find(name) for name in names]
        frames = [read_image(path) for path in paths]
        for path, frame in zip(paths, frames, strict=True):
            if frame.shape[:2] != batch.shape[-2:]:
                raise ImageError(
                    f"{path} is {frame.shape[1]}x{frame.shape[0]} pixels, but its "
                    f"rainy image is {batch.shape[-1]}x{batch.shape[-2]}"
                )
        return to_batch(frames, batch.device)

    def find(self, name: str) -> Path:
        """Return the result of a frame.

        Raises:
            SpecError: There is none, there are several, or another frame has it.
        """
        key = match_key(name)
        found = self._candidates(key)
        if len(found) != 1:
            problem = f"{len(found)} images are" if found else "no image is"
            raise SpecError(f"{problem} named {Path(name).with_suffix('')} in {self._folder}")
        owner = self._taken.setdefault(found[0], key)
        if owner != key:
            raise SpecError(f"{found[0]} is the result of both {owner} and {key}; use subfolders")
        return found[0]

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
