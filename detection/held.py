"""Batches that stay on their device until somebody reads them."""

from __future__ import annotations

import threading
from typing import cast

from torch import Tensor

from rainmer.frames.arrays import Download, Frame

__all__ = ["HeldBatch"]


class HeldBatch:
    """A batch that stays on its device until one of its frames is read."""

    def __init__(self, batch: Tensor) -> None:
        self._batch: Tensor | None = batch
        self._download: Download | None = None
        self._frames: list[Frame] | None = None
        self._lock = threading.Lock()

    def start_download(self) -> None:
        """Start downloading the frames, in parallel with further work on the device."""
        if self._batch is not None:
            self._download, self._batch = Download(self._batch), None

    def frame(self, index: int) -> Frame:
        """Return one of the frames; the first call waits for the download of all."""
        with self._lock:
            self.start_download()
            if self._frames is None and self._download is not None:
                self._frames, self._download = self._download.frames(), None
            return cast("list[Frame]", self._frames)[index]
