"""Restore frames with as many pixels per call as fit into memory, in tiles if necessary."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch
from torch import Tensor

from rainmer.errors import RainmerError, SpecError, is_out_of_memory
from rainmer.frames.arrays import unit_range
from rainmer.frames.tiling import Blend, merge_tiles, pad_to_size, split_tiles
from rainmer.stage.compiling import fill_batch
from rainmer.stage.graphs import Graphs
from rainmer.stage.restorers import Restorer

__all__ = ["TileBy", "TiledRunner"]

TileBy = Literal["long", "short"]

Finish = Callable[[Tensor, torch.dtype], tuple[Tensor, ...]]

_SMALLEST_TILE = 64
_log = logging.getLogger(__name__)


class TiledRunner:
    """Runs restorers in batches and tiles, halving the pixels per call when memory runs out.

    Several threads may share a runner. They share what it has learnt about the memory, too.

    Args:
        device: Device of the batches.
        dtype: What autocast computes in; float32 leaves autocast as it is.
        tile, overlap, batch, blend, tile_by: See `rainmer.Derainer`.
        graphs: Runs what can be recorded: whole frames at once, of tiles the network.

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
        graphs: Graphs,
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
        self.graphs = graphs
        # Maximum pixels per call; None until a call has run out of memory.
        self._pixel_budget: int | None = None
        self._lock = threading.Lock()

    def restore(self, restorer: Restorer, frames: Tensor, finish: Finish) -> tuple[Tensor, ...]:
        """Restore (B, 3, H, W), RGB, uint8 or 0..1.

        Args:
            restorer: What restores.
            frames: On the device.
            finish: Called with the restored frames, float32 of 0..1, and the frames' type; makes
                of them what is returned.

        Raises:
            RainmerError: Not even the smallest tile fits into memory, or the GPU failed.
        """
        height, width = frames.shape[-2:]
        while True:
            budget = self._pixel_budget
            work = functools.partial(self._restore_all, restorer, finish, budget)
            try:
                if self._tile_hw(restorer, height, width, budget) is None:
                    return self.graphs.run(("frames", budget), work, frames)
                return work(frames)
            except (RuntimeError, MemoryError) as error:
                if "CUDA error" in str(error):
                    reason = str(error).splitlines()[0]
                    raise RainmerError(
                        f"{self.device} failed while {restorer.name} ran ({reason}); start again, "
                        "or go on with another --device"
                    ) from error
                if not is_out_of_memory(error):
                    raise
                with self._lock:
                    if self._pixel_budget == budget:  # or another thread has lowered it since
                        self._lower_budget(restorer, frames, error)

    def _restore_all(
        self, restorer: Restorer, finish: Finish, budget: int | None, frames: Tensor
    ) -> tuple[Tensor, ...]:
        batch = unit_range(frames)
        with self._autocast():
            prompts = restorer.prompts(batch)
            restored = self._restore_once(restorer, batch, prompts, budget).clamp(0.0, 1.0)
        return finish(restored, frames.dtype)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _restore_once(
        self, restorer: Restorer, batch: Tensor, prompts: Tensor | None, budget: int | None
    ) -> Tensor:
        height, width = batch.shape[-2:]
        tile_hw = self._tile_hw(restorer, height, width, budget)
        if tile_hw is None:
            return self._call(restorer, batch, prompts, budget)
        overlap = self.overlap
        if tile_hw != (self.tile, self.tile):
            # Tiles that are not of the user's size must still advance by at least half a side.
            overlap = min(overlap, min(tile_hw) // 2)
        tiles, places = split_tiles(batch, tile_hw, overlap)
        if prompts is not None:  # the whole frame's prompts, repeated for each tile
            prompts = prompts.repeat(len(places), *[1] * (prompts.ndim - 1))
        restored = self._call(restorer, tiles, prompts, budget).clamp(0.0, 1.0)
        return merge_tiles(restored, places, (height, width), overlap=overlap, blend=self.blend)

    def _call(
        self, restorer: Restorer, batch: Tensor, prompts: Tensor | None, budget: int | None
    ) -> Tensor:
        """Call the restorer on as many frames or tiles at once as batch and memory allow."""
        height, width = batch.shape[-2:]
        rules = restorer.rules
        padded = pad_to_size(batch, rules.padded_hw(height, width))
        at_once = rules.batch or self.batch
        if budget is not None and not rules.batch:
            at_once = max(1, min(at_once, budget // (padded.shape[-2] * padded.shape[-1])))
        parts = []
        for start in range(0, len(padded), at_once):
            part = padded[start : start + at_once]
            count = len(part)
            if rules.batch:
                part = fill_batch(part, rules.batch)
            part_prompts = prompts[start : start + at_once] if prompts is not None else None
            inputs = (part,) if part_prompts is None else (part, part_prompts)
            [restored] = self.graphs.run("network", functools.partial(_run, restorer), *inputs)
            parts.append(restored[:count, :, :height, :width].float())
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _tile_hw(
        self, restorer: Restorer, height: int, width: int, budget: int | None
    ) -> tuple[int, int] | None:
        """Return the size of the tiles in pixels, or None if the frame runs whole.

        Raises:
            SpecError: The frame is larger than the only size that the restorer takes, and may not
                be tiled.
        """
        side = self._tile_side(restorer, height, width, budget)
        rules = restorer.rules
        if not rules.is_fixed:
            return (side, side) if side else None
        exceeds = any(
            fixed and length > fixed
            for fixed, length in zip(rules.fixed_hw, (height, width), strict=True)
        )
        if exceeds and not restorer.tileable:
            raise SpecError(
                f"{restorer.source} takes {rules.describe()} pixels only and must not be tiled: a "
                f"frame of {width}x{height} is too large"
            )
        if not exceeds and side is None:
            return None
        return (rules.fixed_hw[0] or side or height, rules.fixed_hw[1] or side or width)

    def _tile_side(
        self, restorer: Restorer, height: int, width: int, budget: int | None
    ) -> int | None:
        """Return the side of the tiles, or None, for a restorer that takes any size."""
        if not restorer.tileable:
            return None
        side = self.tile
        fits = budget is None or height * width <= budget
        if fits and self.tile_by == "short" and side is not None and min(height, width) <= side:
            return None
        if budget is not None and not fits:
            multiple = restorer.rules.multiple
            fitting = int(budget**0.5) // multiple * multiple
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
        padded_height, padded_width = restorer.rules.padded_hw(height, width)
        pixels = self._pixel_budget or min(len(batch), self.batch) * padded_height * padded_width
        least = _SMALLEST_TILE**2
        if self.tile:
            pixels = min(pixels, self.batch * self.tile**2)
        if None not in restorer.rules.fixed_hw:
            least = padded_height * padded_width
            pixels = self._pixel_budget or self.batch * least
        elif not restorer.tileable:
            least = max(least, height * width)
        lowered = pixels // 2
        if lowered < least:
            raise RainmerError(
                f"{restorer.source} runs out of memory on {self.device} at {width}x{height} "
                "pixels; use a smaller --batch or --tile, or another --device"
            ) from error
        self._pixel_budget = lowered
        self.graphs.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        _log.warning("%s: out of memory, going on with %d pixels at once", restorer.name, lowered)


def _run(restorer: Restorer, part: Tensor, prompts: Tensor | None = None) -> tuple[Tensor]:
    return (restorer.restore(part, prompts),)
