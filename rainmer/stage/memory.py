"""Restore frames with as many pixels per call as fit into memory, in tiles if necessary."""

from __future__ import annotations

import contextlib
import logging
from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch
from torch import Tensor

from rainmer.errors import RainmerError, is_out_of_memory
from rainmer.frames.tiling import Blend, merge_tiles, pad_to_multiple, split_tiles
from rainmer.stage.restorers import Restorer

__all__ = ["TileBy", "TiledRunner"]

TileBy = Literal["long", "short"]

_SMALLEST_TILE = 64
_log = logging.getLogger(__name__)


class TiledRunner:
    """Runs restorers in batches and tiles, halving the pixels per call when memory runs out.

    Args:
        device: Device of the batches.
        dtype: What autocast computes in; float32 leaves autocast as it is.
        tile, overlap, batch, blend, tile_by: See `rainmer.Derainer`.

    Raises:
        RainmerError: An option is out of range.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        tile: int | None,
        overlap: int,
        batch: int,
        blend: Blend,
        tile_by: TileBy,
    ) -> None:
        if not isinstance(batch, int) or batch < 1:
            raise RainmerError(f"batch must be a whole number of at least 1, but is {batch!r}")
        if blend not in get_args(Blend):
            raise RainmerError(f"blend must be {' or '.join(get_args(Blend))}, but is {blend!r}")
        if tile_by not in get_args(TileBy):
            raise RainmerError(f"tile_by must be long or short, but is {tile_by!r}")
        if tile is not None and not 0 <= overlap < tile:
            raise RainmerError(f"overlap must be in 0..tile-1, but is {overlap} of tile {tile}")
        self.device = device
        self.dtype = dtype
        self.tile = tile
        self.overlap = overlap
        self.batch = batch
        self.blend = blend
        self.tile_by = tile_by
        # Maximum pixels per call; None until a call has run out of memory.
        self._pixel_budget: int | None = None

    def restore(self, restorer: Restorer, batch: Tensor) -> Tensor:
        """Restore (B, 3, H, W), float32, RGB, 0..1; the result is clamped to 0..1.

        Raises:
            RainmerError: Not even the smallest tile fits into memory, or the GPU failed.
        """
        while True:
            try:
                with self._autocast():
                    prompts = restorer.prompts(batch)
                    return self._restore_once(restorer, batch, prompts).clamp(0.0, 1.0)
            except (RuntimeError, MemoryError) as error:
                if "CUDA error" in str(error):
                    reason = str(error).splitlines()[0]
                    raise RainmerError(
                        f"{self.device} failed while {restorer.name} ran ({reason}); start again, "
                        "or go on with another --device"
                    ) from error
                if not is_out_of_memory(error):
                    raise
                self._lower_budget(restorer, batch, error)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _restore_once(
        self,
        restorer: Restorer,
        batch: Tensor,
        prompts: Tensor | None,
    ) -> Tensor:
        height, width = batch.shape[-2:]
        tile = self._tile_side(restorer, height, width)
        if tile is None:
            return self._call(restorer, batch, prompts)
        # Tiles that shrank for lack of memory must still advance by at least half their side.
        overlap = self.overlap if tile == self.tile else min(self.overlap, tile // 2)
        tiles, places = split_tiles(batch, (tile, tile), overlap)
        if prompts is not None:  # the whole frame's prompts, repeated for each tile
            prompts = prompts.repeat(len(places), *[1] * (prompts.ndim - 1))
        restored = self._call(restorer, tiles, prompts).clamp(0.0, 1.0)
        return merge_tiles(restored, places, (height, width), overlap=overlap, blend=self.blend)

    def _call(
        self,
        restorer: Restorer,
        batch: Tensor,
        prompts: Tensor | None,
    ) -> Tensor:
        """Call the restorer on as many frames or tiles at once as batch and memory allow."""
        height, width = batch.shape[-2:]
        padded = pad_to_multiple(batch, restorer.size_multiple)
        at_once = self.batch
        if self._pixel_budget is not None:
            at_once = max(1, min(at_once, self._pixel_budget // (height * width)))
        parts = []
        for start in range(0, len(padded), at_once):
            part = slice(start, start + at_once)
            part_prompts = prompts[part] if prompts is not None else None
            restored = restorer.restore(padded[part], part_prompts)
            parts.append(restored[..., :height, :width].float())
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _tile_side(self, restorer: Restorer, height: int, width: int) -> int | None:
        """Return the side of the tiles in pixels, or None if the frame runs whole."""
        if not restorer.tileable:
            return None
        side = self.tile
        fits = self._pixel_budget is None or height * width <= self._pixel_budget
        if fits and self.tile_by == "short" and side is not None and min(height, width) <= side:
            return None
        if self._pixel_budget is not None and not fits:
            multiple = restorer.size_multiple
            fitting = int(self._pixel_budget**0.5) // multiple * multiple
            side = min(side, fitting) if side else fitting
        if side is None or max(height, width) <= side:
            return None
        return side

    def _lower_budget(self, restorer: Restorer, batch: Tensor, error: BaseException) -> None:
        """Halve the maximum pixels per call, after a call that did not fit.

        Raises:
            RainmerError: Less than the smallest tile remains, or less than a frame that must run
                whole.
        """
        height, width = batch.shape[-2:]
        pixels = self._pixel_budget or min(len(batch), self.batch) * height * width
        if self.tile:
            pixels = min(pixels, self.batch * self.tile**2)
        lowered = pixels // 2
        if lowered < _SMALLEST_TILE**2 or (not restorer.tileable and lowered < height * width):
            raise RainmerError(
                f"{restorer.name} runs out of memory on {self.device} at {width}x{height} pixels; "
                "use a smaller --batch or --tile, or another --device"
            ) from error
        self._pixel_budget = lowered
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        _log.warning("%s: out of memory, going on with %d pixels at once", restorer.name, lowered)
