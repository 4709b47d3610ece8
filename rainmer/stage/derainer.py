"""The preprocessing stage: frames of any kind and size in, the same frames without rain out."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rainmer.device import has_native_bf16, resolve_device, survive_forks
from rainmer.errors import ImageError, RainmerError, SpecError, WeightsError
from rainmer.frames.arrays import download, quantize, stack_in_order, upload
from rainmer.frames.tiling import Blend
from rainmer.stage.gate import Decision, Gate, Threshold, check_threshold
from rainmer.stage.graphs import CudaEngine, Graphs
from rainmer.stage.memory import TileBy, TiledRunner
from rainmer.stage.restorers import CallableRestorer, Restorer
from rainmer.stage.runtimes import Runtime, with_runtime
from rainmer.stage.specs import resolve, split_gate
from rainmer.version import __version__

__all__ = ["Derainer", "Precision", "TileBy"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

FrameArray = npt.NDArray[Any]
Frames = TypeVar("Frames", Tensor, FrameArray)


class Derainer:
    """A derainer as a callable: `derainer(frames) -> frames`.

    Frames keep their kind, order, size and type. Sizes that the network cannot take are padded by
    reflection and cropped again, frames of one size run in batches, and frames that do not fit into
    memory run in overlapping tiles that are blended smoothly. Rainmer's encoder always sees the
    whole frame (as its query), once per frame. The output is clamped to the valid range.

    Several threads may share a derainer. A process that is forked computes with one CPU thread;
    pickles (as for processes that are spawned) hold the spec and the options, so that files and
    modules must be where they were, or the callable itself.

    Args:
        spec: A spec (`rainmer.stage.specs.SPEC_HELP`), or a callable that maps a float tensor
            (B, 3, H, W), RGB, 0..1 to one of the same shape; `CallableRestorer` in
            `rainmer.stage.restorers` names the attributes by which it says what it takes.
        device: `cpu`, `cuda`, `cuda:1`, ...; None chooses the best one available.
        precision: What networks compute in: `fp32`, `bf16`, `fp16`; `auto`: `bf16` if the device
            has it (`rainmer.device.has_native_bf16`) and the network is known to bear it, else
            `fp32`. `fp16` on a CPU is far slower than `fp32`, which is used instead.
        tile: Side of the tiles in pixels; None restores whole frames while they fit. A network of
            a fixed size gets tiles of that size instead.
        overlap: Overlap of neighbouring tiles in pixels.
        batch: Maximum number of frames (or tiles) per network call.
        blend: How overlapping tiles are merged: `smooth`, or as in the paper's protocol: `mean`,
            and `score` for IDT.
        tile_by: The side of a frame that must exceed `tile` for the frame to be tiled: `long`, or
            `short` as in the paper's protocol.
        graphs: Whether networks of `rainmer.models` run as CUDA graphs where a shape of frames
            comes back, see `rainmer.stage.graphs`: the same bits, in less time for small batches.
        compiled: Whether networks run under torch.compile, on CUDA as graphs of its own. The first
            frame of each size then takes up to minutes (see `warm_up`), and sides are padded to
            multiples of 32. Networks that cannot be compiled run as they are, with one warning.
        truncate: Round uint8 results down instead of to the nearest level. The published numbers
            of PReNet and other networks of its time come from such images.
        gate: `auto`, or a benefit of 0..1, from which frames are derained; all others come back
            as they are, bit for bit, without the network. None derains all. The spec `gate:SPEC`
            is the same. See `rainmer.stage.gate`.
        runtime: What runs a network of `rainmer.models`: `torch`; `openvino` or `onnx` on CPUs,
            exported once into the cache folder (see `rainmer.stage.runtimes`); `auto`: OpenVINO
            where it is installed and the device is a CPU, else torch.

    Attributes:
        name: Short name for reports and file names.
        precision: What is computed in, `fp32`, `bf16` or `fp16`.
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
        precision: Precision = "auto",
        tile: int | None = None,
        overlap: int = 32,
        batch: int = 8,
        *,
        blend: Blend = "smooth",
        tile_by: TileBy = "long",
        graphs: bool = True,
        compiled: bool = False,
        truncate: bool = False,
        gate: Threshold | None = None,
        runtime: Runtime = "torch",
    ) -> None:
        if precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise RainmerError(f"precision must be one of {known}, but is {precision!r}")
        self.device = resolve_device(device)
        self.tile = tile
        self.overlap = overlap
        self.batch = batch
        self.blend = blend
        self.tile_by = tile_by
        self.graphs = graphs
        self.compiled = compiled
        self.truncate = truncate
        self.runtime = runtime
        spec, gate = _split_gate(spec, gate)
        self.gate = None if gate is None else Gate(gate, self.device)
        self._spec = spec
        self._restorer = with_runtime(self._make_restorer(spec), runtime, self.device)
        self.precision = _resolve_precision(precision, self._restorer, self.device)
        dtype = _DTYPES[self.precision]
        self._restorer.prepare(self.device, dtype, compiled=compiled, tile=tile)
        can_record = graphs and self.device.type == "cuda" and self._restorer.recordable
        self._runner = TiledRunner(
            self.device,
            dtype,
            tile=tile,
            overlap=overlap,
            batch=batch,
            blend=blend,
            tile_by=tile_by,
            graphs=Graphs(CudaEngine(self.device) if can_record else None),
        )
        # Of the calling thread: `finite`, a flag on the GPU for its results since its last `check`.
        self._unchecked = threading.local()
        self._check_tile()

    def _check_tile(self) -> None:
        """Refuse tiles that the network cannot take.

        Raises:
            RainmerError: A multiple is demanded that the side is not.
        """
        rules = self._restorer.rules
        if self.tile is None or not self._restorer.tileable:
            return
        if rules.is_fixed:
            if rules.fixed_hw != (self.tile, self.tile):
                size = rules.describe()
                _log.warning("%s takes %s pixels: tiles are of that size", self.name, size)
        elif self.tile % rules.multiple:
            raise RainmerError(
                f"tile must be a multiple of {rules.multiple} for {self.name}, but is {self.tile}"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        options = {name: getattr(self, name) for name in _OPTIONS}
        options["gate"] = None if self.gate is None else self.gate.setting
        state = self.fingerprint if self.cacheable else None
        return _rebuild, (type(self), self._spec, {**options, "device": str(self.device)}, state)

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
        return f"{self.gate.name}-{self._restorer.name}" if self.gate else self._restorer.name

    @property
    def cacheable(self) -> bool:
        """Whether the fingerprint covers everything that the output depends on."""
        return self._restorer.cacheable

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change whenever the output may."""
        tiles: tuple[object, ...] | None = None
        rules = self._restorer.rules
        if rules.is_fixed and self._restorer.tileable:
            height, width = (side or self.tile for side in rules.fixed_hw)
            tiles = (height if height == width else (height, width), self.overlap, self.blend)
        elif self.tile:
            tiles = (self.tile, self.overlap, self.blend)
            tiles += () if self.tile_by == "long" else (self.tile_by,)
        parts: tuple[object, ...] = (__version__, self._restorer.fingerprint, self.precision, tiles)
        parts += ("compiled",) if self.compiled else ()
        parts += ("truncate",) if self.truncate else ()
        parts += (self.gate.fingerprint,) if self.gate else ()
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def without_gate(self) -> Derainer:
        """Return the same derainer, its network shared, that derains every frame."""
        ungated = object.__new__(type(self))
        ungated.__dict__.update({**self.__dict__, "gate": None})
        return ungated

    def warm_up(self, height: int, width: int, batch: int | None = None) -> None:
        """Derain black frames, so that kernels are loaded, compiled and recorded beforehand.

        Best called before other threads work on the GPU: while a graph is recorded, a thread that
        waits for the whole device (`torch.cuda.synchronize`) fails.

        A gate lets them through, too.

        Args:
            height: Height of the expected frames in pixels.
            width: Width of the expected frames in pixels.
            batch: Frames per call; default: the batch of the stage.
        """
        count = batch or self.batch
        black = torch.zeros(count, 3, height, width, dtype=torch.uint8, device=self.device)
        if self.gate is not None:
            self.gate.meter(black)
        with torch.no_grad():
            for _ in range(2 if self._runner.graphs.active else 1):  # the second is recorded
                self._derain_mixed(list(black))

    def __repr__(self) -> str:
        return f"Derainer({self.name!r}, device={str(self.device)!r}, precision={self.precision!r})"

    @overload
    def __call__(
        self, frames: Frames, *, decisions: Sequence[Decision] | None = None
    ) -> Frames: ...
    @overload
    def __call__(
        self, frames: Sequence[Frames], *, decisions: Sequence[Decision] | None = None
    ) -> list[Frames]: ...

    @torch.no_grad()
    def __call__(self, frames: Any, *, decisions: Sequence[Decision] | None = None) -> Any:
        """Derain frames.

        Args:
            frames: One frame or many: a tensor (3, H, W) or (B, 3, H, W), an array (H, W, 3) or
                (B, H, W, 3), or a sequence of arrays (H, W, 3) or tensors (3, H, W) of any sizes.
                RGB; uint8 of 0..255 or floating point of 0..1.
            decisions: Those of `gate.decide`, one for each frame, as for streams; None: a gate
                decides for each frame on its own.

        Returns:
            The same kind in the same order, each of the same shape, type and device. A sequence
            becomes a list. Tensors on the derainer's device never leave it; on a GPU, call `check`
            once their results are needed anyway. (`rainmer.frames.arrays.upload` makes them.)

        Raises:
            ImageError: A frame has another shape or type.
            RainmerError: The derainer gave NaN or infinity, or not even the smallest tile fits
                into memory.
        """
        if not isinstance(frames, Tensor | np.ndarray):
            return self._derain_gated(list(frames), decisions)
        channel_axis = -3 if isinstance(frames, Tensor) else -1
        if frames.ndim not in (3, 4) or frames.shape[channel_axis] != 3:
            raise ImageError(f"expected RGB frames, but got the shape {tuple(frames.shape)}")
        if frames.ndim == 4:
            stacked = self._derain_gated(list(frames), decisions)
            if not stacked:
                return frames
            return torch.stack(stacked) if isinstance(frames, Tensor) else np.stack(stacked)
        return self._derain_gated([frames], decisions)[0]

    def check(self) -> None:
        """Wait for the results of the calling thread and check that they are finite.

        Calls with arrays, and all calls on the CPU, are checked already. Calls with tensors on a
        GPU return without waiting for it; the thread that made them checks them.

        Raises:
            RainmerError: The derainer gave NaN or infinity.
        """
        finite = getattr(self._unchecked, "finite", None)
        self._unchecked.finite = None
        self._refuse_unless(finite)

    def _refuse_unless(self, finite: Tensor | None) -> None:
        if finite is not None and not finite:
            raise RainmerError(
                f"{self._restorer.source} gave values that are not finite, "
                f"at precision {self.precision}"
            )

    def _derain_gated(self, frames: list[Any], decisions: Sequence[Decision] | None) -> list[Any]:
        """Derain the frames that the gate chooses; all, without one."""
        if self.gate is None:
            return self._derain_mixed(frames)
        _groups(frames)  # which refuses what no frame is
        return self.gate.split(frames, decisions, self._derain_mixed)

    def _derain_mixed(self, frames: list[Any], placed: Sequence[Tensor | None] = ()) -> list[Any]:
        """Derain frames of any kinds and sizes, those of one size together.

        Args:
            frames: The frames.
            placed: What of each frame a gate has uploaded already, if anything.
        """
        if self.device.type == "cpu":
            survive_forks()
        restored: list[Any] = [None] * len(frames)
        for group in _groups(frames):
            for start in range(0, len(group), self.batch):
                chosen = group[start : start + self.batch]
                there = [placed[i] for i in chosen] if placed else []
                batch = self._upload([frames[i] for i in chosen], there)
                result, finite = self._runner.restore(self._restorer, batch, self._finish)
                self._check_finite(finite, frames[chosen[0]])
                for i, frame in zip(chosen, _download(result, frames[chosen[0]]), strict=True):
                    restored[i] = frame
        return restored

    def _finish(self, restored: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return restored frames in the type of the given ones, and whether all is finite."""
        finite = torch.isfinite(restored).all()
        if dtype == torch.uint8:
            return quantize(restored, truncate=self.truncate), finite
        return restored.to(dtype), finite

    def _check_finite(self, finite: Tensor, like: Tensor | FrameArray) -> None:
        """Refuse NaN and infinity: at once, unless that would only make the CPU wait for a GPU."""
        if isinstance(like, np.ndarray) or finite.device.type == "cpu":
            self._refuse_unless(finite)
            return
        before = getattr(self._unchecked, "finite", None)
        self._unchecked.finite = finite if before is None else before & finite

    def _upload(self, frames: list[Any], placed: Sequence[Tensor | None]) -> Tensor:
        """Stack frames of one kind and size as (B, 3, H, W) on the device, in their own type."""
        there = [frame for frame in placed if frame is not None]
        if len(there) == len(frames):
            return stack_in_order(there).to(self.device)
        if isinstance(frames[0], Tensor):
            return torch.stack(frames).to(self.device)
        return upload(frames, self.device)


_OPTIONS = (
    "precision", "tile", "overlap", "batch", "blend", "tile_by", "graphs", "compiled", "truncate",
    "runtime",
)  # fmt: skip


def _split_gate(
    spec: str | Callable[[Tensor], Tensor], gate: Threshold | None
) -> tuple[str | Callable[[Tensor], Tensor], Threshold | None]:
    """Take the gate out of a spec. Raises SpecError if an option asks for one, too."""
    if not isinstance(spec, str):
        return spec, gate
    named, gated = split_gate(spec)
    if named is not None and gate is not None:
        raise SpecError(f"{spec} has a gate already: leave out the option, or gate: in the spec")
    return gated, gate if named is None else check_threshold(named)


def _rebuild(
    kind: type[Derainer],
    spec: str | Callable[[Tensor], Tensor],
    options: dict[str, Any],
    fingerprint: str | None,
) -> Derainer:
    """Make the derainer of a pickle.

    Raises:
        WeightsError: It is no longer the same, as its file has changed.
        SpecError, WeightsError, RainmerError: See `Derainer`.
    """
    derainer = kind(spec, **options)
    if fingerprint not in (None, derainer.fingerprint):
        raise WeightsError(f"{spec} has changed since it was pickled")
    return derainer


def _resolve_precision(
    precision: Precision, restorer: Restorer, device: torch.device
) -> Literal["fp32", "bf16", "fp16"]:
    """Choose for `auto`, and replace what a CPU is slow in; see `Derainer`."""
    if precision == "auto":
        if not restorer.takes_bf16:
            return "fp32"
        if has_native_bf16(device):
            return "bf16"
        if device.type == "cuda":
            _log.warning("%s has no bfloat16: computing in float32; fp16 may be faster", device)
        return "fp32"
    if precision == "fp16" and device.type == "cpu":
        _log.warning("fp16 is 16 to 25 times slower than fp32 on a CPU: computing in float32")
        return "fp32"
    return precision


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
