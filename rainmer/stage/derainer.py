"""The preprocessing stage: frames of any kind and size in, the same frames without rain out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar, get_args, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rainmer.device import resolve_device
from rainmer.errors import ImageError, RainmerError, SpecError, is_out_of_memory
from rainmer.frames.arrays import download, quantize, unit_range, upload
from rainmer.frames.tiling import Blend, merge_tiles, pad_to_multiple, split_tiles
from rainmer.stage.restorers import CallableRestorer, Restorer
from rainmer.stage.specs import resolve
from rainmer.version import __version__

__all__ = ["Derainer", "Precision", "TileBy"]

Precision = Literal["fp32", "bf16", "fp16"]
TileBy = Literal["long", "short"]

_log = logging.getLogger(__name__)
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SMALLEST_TILE = 64

FrameArray = npt.NDArray[Any]
Frames = TypeVar("Frames", Tensor, FrameArray)


class Derainer:
    """A derainer as a callable: `derainer(frames) -> frames`.

    Frames keep their kind, order, size and type. Sizes that the network cannot take are padded by
    reflection and cropped again; frames of one size run as batches; frames that do not fit into
    memory run in overlapping tiles, blended smoothly. What Rainmer's encoder sees (the query) is
    always the whole frame, once per frame. The output is clamped to the valid range.

    Args:
        spec: What derains: a spec (`rainmer.stage.specs.SPEC_HELP`), or a callable that maps a
            float tensor (B, 3, H, W), RGB, 0..1 to one of the same shape.
        device: `cpu`, `cuda`, `cuda:1`, ...; None takes the best there is.
        precision: `fp32`, or autocast to `bf16` / `fp16`.
        tile: Side of the tiles in pixels; None restores whole frames while they fit.
        overlap: Overlap of neighbouring tiles in pixels.
        batch: Most frames (or tiles) of one network call.
        blend: How overlapping tiles are merged: `smooth`, or `mean` as in the paper's protocol;
            that has `score` for IDT.
        tile_by: The side of a frame that must exceed `tile` for the frame to be tiled: `long`, or
            `short` as in the paper's protocol.
        compiled: Whether networks run under torch.compile, on CUDA as graphs of kernels. The first
            frame of each size then takes minutes (see `warm_up`); sides are padded to multiples of
            32. Networks that cannot be compiled run as they are, with one warning.
        truncate: Whether uint8 results are rounded down, as published numbers of PReNet and others
            of its time are of such images, and not to the nearest level.

    Attributes:
        name: Short name for reports and file names.
        fingerprint: Changes whenever the output may: version, weights, precision, tiles.

    Raises:
        SpecError, WeightsError: The spec cannot be resolved.
        RainmerError: The device does not exist, or an option is out of range.

    Example:
        >>> derainer = Derainer("median", device="cpu")
        >>> derainer(np.zeros((6, 8, 3), np.uint8)).shape
        (6, 8, 3)
    """

    def __init__(
        self,
        spec: str | Callable[[Tensor], Tensor],
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
        tile: int | None = None,
        overlap: int = 32,
        batch: int = 8,
        *,
        blend: Blend = "smooth",
        tile_by: TileBy = "long",
        compiled: bool = False,
        truncate: bool = False,
    ) -> None:
        if precision != "fp32" and precision not in _AUTOCAST:
            raise RainmerError(f"precision must be fp32, bf16 or fp16, but is {precision!r}")
        if not isinstance(batch, int) or batch < 1:
            raise RainmerError(f"batch must be a whole number of at least 1, but is {batch!r}")
        if blend not in get_args(Blend):
            raise RainmerError(f"blend must be {' or '.join(get_args(Blend))}, but is {blend!r}")
        if tile_by not in get_args(TileBy):
            raise RainmerError(f"tile_by must be long or short, but is {tile_by!r}")
        if tile is not None and not 0 <= overlap < tile:
            raise RainmerError(f"overlap must be in 0..tile-1, but is {overlap} of tile {tile}")
        self.device = resolve_device(device)
        self.precision = precision
        self.tile = tile
        self.overlap = overlap
        self.batch = batch
        self.blend = blend
        self.tile_by = tile_by
        self._restorer = self._make_restorer(spec)
        self.compiled = compiled
        self.truncate = truncate
        dtype = _AUTOCAST.get(precision, torch.float32)
        self._restorer.prepare(self.device, dtype, compiled=compiled)
        # Whether all that stayed on a GPU was finite: a flag there that nobody has waited for yet.
        self._finite: Tensor | None = None
        # Most pixels of one call; known only after a call that did not fit.
        self._pixel_budget: int | None = None
        if tile is not None and self._restorer.tileable and tile % self._restorer.size_multiple:
            raise RainmerError(
                f"tile must be a multiple of {self._restorer.size_multiple} for {self.name}, "
                f"but is {tile}"
            )

    @staticmethod
    def _make_restorer(spec: str | Callable[[Tensor], Tensor]) -> Restorer:
        if isinstance(spec, str):
            return resolve(spec)
        if not callable(spec):
            raise SpecError(f"expected a spec or a callable, but got {type(spec).__name__} {spec}")
        name = getattr(spec, "name", None) or getattr(spec, "__name__", type(spec).__name__)
        return CallableRestorer(spec, str(name))

    @property
    def name(self) -> str:
        """Short name for reports and file names."""
        return self._restorer.name

    @property
    def cacheable(self) -> bool:
        """Whether the fingerprint tells all that the output depends on."""
        return self._restorer.cacheable

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change whenever the output may."""
        tiles: tuple[object, ...] | None = None
        if self.tile:
            tiles = (self.tile, self.overlap, self.blend)
            tiles += () if self.tile_by == "long" else (self.tile_by,)
        parts: tuple[object, ...] = (__version__, self._restorer.fingerprint, self.precision, tiles)
        parts += ("compiled",) if self.compiled else ()
        parts += ("truncate",) if self.truncate else ()
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def warm_up(self, height: int, width: int, batch: int | None = None) -> None:
        """Derain black frames, so that the first real ones of this size do not wait.

        What is done only once is loading of kernels, their choice, and compiling.

        Args:
            height: Of the frames to come, in pixels.
            width: Likewise.
            batch: How many come at once; default: the batch of the stage.
        """
        count = batch or self.batch
        self(torch.zeros(count, 3, height, width, dtype=torch.uint8, device=self.device))

    def __repr__(self) -> str:
        return f"Derainer({self.name!r}, device={str(self.device)!r}, precision={self.precision!r})"

    @overload
    def __call__(self, frames: Frames) -> Frames: ...
    @overload
    def __call__(self, frames: Sequence[Frames]) -> list[Frames]: ...

    @torch.no_grad()
    def __call__(self, frames: Any) -> Any:
        """Derain frames.

        Args:
            frames: One frame or many: a tensor (3, H, W) or (B, 3, H, W), an array (H, W, 3) or
                (B, H, W, 3), or a sequence of arrays (H, W, 3) or tensors (3, H, W) of any sizes.
                RGB; uint8 of 0..255 or floating point of 0..1.

        Returns:
            The same kind in the same order, each of the same shape, type and device: what
            comes as tensors on the derainer's device never leaves it (`rainmer.frames.upload`
            brings it there, `check` is for the end). A sequence becomes a list; an empty one an
            empty list.

        Raises:
            ImageError: A frame has another shape or type.
            RainmerError: The derainer gave NaN or infinity, or not even the smallest tile fits
                into memory.
        """
        if not isinstance(frames, Tensor | np.ndarray):
            return self._derain_mixed(list(frames))
        channel_axis = -3 if isinstance(frames, Tensor) else -1
        if frames.ndim not in (3, 4) or frames.shape[channel_axis] != 3:
            raise ImageError(f"expected RGB frames, but got the shape {tuple(frames.shape)}")
        if frames.ndim == 4:
            stacked = self._derain_mixed(list(frames))
            if not stacked:
                return frames
            return torch.stack(stacked) if isinstance(frames, Tensor) else np.stack(stacked)
        return self._derain_mixed([frames])[0]

    def check(self) -> None:
        """Wait for the calls so far and check their results.

        Calls with arrays, and those on the CPU, have done so. Those with tensors of a GPU do not
        wait for it: call this when their results are there anyway.

        Raises:
            RainmerError: The derainer gave NaN or infinity.
        """
        finite, self._finite = self._finite, None
        if finite is not None and not finite:
            raise RainmerError(
                f"{self.name} gave values that are not finite, at precision {self.precision}"
            )

    def _derain_mixed(self, frames: list[Any]) -> list[Any]:
        """Derain frames of any kinds and sizes, those of one size together."""
        restored: list[Any] = [None] * len(frames)
        for group in _groups(frames):
            for start in range(0, len(group), self.batch):
                chosen = group[start : start + self.batch]
                batch = self._upload([frames[i] for i in chosen])
                result = self._restore_batch(unit_range(batch))
                self._check_finite(result, frames[chosen[0]])
                if batch.dtype == torch.uint8:
                    result = quantize(result, truncate=self.truncate)
                else:
                    result = result.to(batch.dtype)
                for i, frame in zip(chosen, _download(result, frames[chosen[0]]), strict=True):
                    restored[i] = frame
        return restored

    def _check_finite(self, result: Tensor, like: Tensor | FrameArray) -> None:
        """Refuse NaN and infinity, at once where that does not wait for a GPU in vain."""
        finite = torch.isfinite(result).all()
        self._finite = finite if self._finite is None else self._finite & finite
        if isinstance(like, np.ndarray) or result.device.type == "cpu":
            self.check()

    def _upload(self, frames: list[Any]) -> Tensor:
        """Stack frames of one kind and size as (B, 3, H, W) on the device, in their own type."""
        if isinstance(frames[0], Tensor):
            return torch.stack(frames).to(self.device)
        return upload(frames, self.device)

    def _restore_batch(self, batch: Tensor) -> Tensor:
        """Restore (B, 3, H, W), float32, 0..1, with fewer pixels at once while memory runs out."""
        while True:
            try:
                with self._autocast():
                    prompts = self._restorer.prompts(batch)
                    return self._restore_within_budget(batch, prompts).clamp(0.0, 1.0)
            except (RuntimeError, MemoryError) as error:
                if "CUDA error" in str(error):
                    reason = str(error).splitlines()[0]
                    raise RainmerError(
                        f"{self.device} failed while {self.name} ran ({reason}); start again, "
                        "or go on with another --device"
                    ) from error
                if not is_out_of_memory(error):
                    raise
                self._lower_budget(batch, error)

    def _restore_within_budget(self, batch: Tensor, prompts: Tensor | None) -> Tensor:
        height, width = batch.shape[-2:]
        tile = self._tile_side(height, width)
        if tile is None:
            return self._call_restorer(batch, prompts)
        # Tiles made smaller for want of memory must still be mostly new: else they never end.
        overlap = self.overlap if tile == self.tile else min(self.overlap, tile // 2)
        tiles, places = split_tiles(batch, (tile, tile), overlap)
        if prompts is not None:
            prompts = prompts.repeat(len(places), *[1] * (prompts.ndim - 1))
        restored = self._call_restorer(tiles, prompts).clamp(0.0, 1.0)
        return merge_tiles(restored, places, (height, width), overlap=overlap, blend=self.blend)

    def _call_restorer(self, batch: Tensor, prompts: Tensor | None) -> Tensor:
        """Call the restorer on as many frames or tiles at once as batch and memory allow."""
        height, width = batch.shape[-2:]
        padded = pad_to_multiple(batch, self._restorer.size_multiple)
        at_once = self.batch
        if self._pixel_budget is not None:
            at_once = max(1, min(at_once, self._pixel_budget // (height * width)))
        parts = []
        for start in range(0, len(padded), at_once):
            part = slice(start, start + at_once)
            part_prompts = prompts[part] if prompts is not None else None
            restored = self._restorer.restore(padded[part], part_prompts)
            parts.append(restored[..., :height, :width].float())
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _tile_side(self, height: int, width: int) -> int | None:
        """Return the side of the tiles, or None when the frame runs whole."""
        if not self._restorer.tileable:
            return None
        side = self.tile
        fits = self._pixel_budget is None or height * width <= self._pixel_budget
        if fits and self.tile_by == "short" and side is not None and min(height, width) <= side:
            return None
        if self._pixel_budget is not None and not fits:
            multiple = self._restorer.size_multiple
            fitting = int(self._pixel_budget**0.5) // multiple * multiple
            side = min(side, fitting) if side else fitting
        if side is None or max(height, width) <= side:
            return None
        return side

    def _lower_budget(self, batch: Tensor, error: BaseException) -> None:
        """Halve the pixels per call after a call that did not fit."""
        height, width = batch.shape[-2:]
        pixels = self._pixel_budget or min(len(batch), self.batch) * height * width
        if self.tile:
            pixels = min(pixels, self.batch * self.tile**2)
        lowered = pixels // 2
        if lowered < _SMALLEST_TILE**2 or (
            not self._restorer.tileable and lowered < height * width
        ):
            raise RainmerError(
                f"{self.name} runs out of memory on {self.device} at {width}x{height} pixels; "
                "use a smaller --batch or --tile, or another --device"
            ) from error
        self._pixel_budget = lowered
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        _log.warning("%s: out of memory, going on with %d pixels at once", self.name, lowered)

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        if self.precision == "fp32":
            yield
            return
        with torch.autocast(self.device.type, dtype=_AUTOCAST[self.precision]):
            yield


def _groups(frames: list[Any]) -> list[list[int]]:
    """Return the indices of frames of equal kind, size and type, each frame checked."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, frame in enumerate(frames):
        is_tensor = isinstance(frame, Tensor)
        if not (is_tensor or isinstance(frame, np.ndarray)):
            raise ImageError(f"expected arrays or tensors, but frame {i} is {type(frame).__name__}")
        shape = tuple(frame.shape)
        if len(shape) != 3 or shape[0 if is_tensor else 2] != 3 or 0 in shape:
            expected = "(3, H, W)" if is_tensor else "(H, W, 3)"
            raise ImageError(f"expected an RGB frame {expected}, but frame {i} is {shape}")
        floating = frame.is_floating_point() if is_tensor else frame.dtype.kind == "f"
        if not (floating or str(frame.dtype).endswith("uint8")):
            raise ImageError(f"expected uint8 or floating point, but frame {i} is {frame.dtype}")
        device = frame.device if is_tensor else None
        groups.setdefault((is_tensor, shape, frame.dtype, device), []).append(i)
    return list(groups.values())


def _download(batch: Tensor, like: Tensor | FrameArray) -> list[Any]:
    """Return the frames of a batch as the kind, and on the device, of one of the inputs."""
    if isinstance(like, Tensor):
        return list(batch.to(like.device))
    return download(batch)
