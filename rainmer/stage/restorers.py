"""Restorers, which derain float batches behind the stage: networks, functions, blends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rainmer import models
from rainmer.errors import RainmerError, SpecError, is_out_of_memory
from rainmer.frames.arrays import quantize
from rainmer.frames.resize import resize_bilinear
from rainmer.models.rainmer import QUERY_SIZE_HW, SparseUNet
from rainmer.stage.compiling import SIZE_BUCKET, Compiled
from rainmer.stage.rules import InputRules

__all__ = [
    "BlendRestorer",
    "CallableRestorer",
    "ForeignRestorer",
    "FunctionRestorer",
    "NetworkRestorer",
    "Restorer",
    "digest",
    "first_line",
    "larger_by",
    "make_query",
    "median_filter",
]

_ANY_INPUT = InputRules()


class Restorer(Protocol):
    """What the stage runs: a float batch in, the restored batch of the same shape out.

    Attributes:
        name: Short name for reports and file names.
        source: What error messages call it: its file, or its name.
        fingerprint: Changes whenever the output may: the key of caches.
        rules: Which input `restore` takes; final after `prepare`.
        tileable: Whether a frame may be restored in tiles.
        cacheable: Whether `fingerprint` covers everything that the output depends on.
        takes_bf16: Whether it is known to compute well in bfloat16, so that `auto` may choose it.
        recordable: Whether `prompts` and `restore` may run as a CUDA graph: the same operations for
            every input of a shape, without waiting for the device; final after `prepare`.
    """

    name: str
    source: str
    fingerprint: str
    rules: InputRules
    tileable: bool
    cacheable: bool
    takes_bf16: bool
    recordable: bool

    def prepare(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
        tile: int | None = None,
    ) -> None:
        """Get ready for inference on a device.

        The other methods may run in several threads at once.

        Args:
            device: Where the batches will be.
            dtype: Type to compute in. Restorers may leave it to autocast, which is on during
                `prompts` and `restore` for types other than float32.
            compiled: Whether to use torch.compile where possible.
            tile: Side of the tiles that the user asks for, in pixels.
        """

    def prompts(self, batch: Tensor) -> Tensor | None:
        """Return what is computed once per whole frame (B, ...), or None if nothing is."""

    def restore(self, batch: Tensor, prompts: Tensor | None) -> Tensor:
        """Restore (B, 3, H, W), RGB, 0..1."""


class NetworkRestorer:
    """A network of `rainmer.models`, in eval mode, channels-last, and fused where it can be.

    A fused network has its own rules for reduced precision, with float32 where it matters, so
    autocast does not apply to it.
    """

    tileable = True
    cacheable = True
    takes_bf16 = True

    def __init__(self, network: models.Network, name: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.name = self.source = name
        self.fingerprint = models.weights_fingerprint(network)
        if isinstance(network, SparseUNet):  # fused networks round differently
            self.fingerprint = digest("fused", self.fingerprint)
        self.rules = InputRules(network.size_multiple)
        self.recordable = True
        self._run: Callable[..., Tensor] = self.network

    def prepare(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
        tile: int | None = None,
    ) -> None:
        """Fuse and move the network; see `Restorer.prepare`."""
        if isinstance(self.network, SparseUNet):
            self.network = self.network.fuse().to(dtype)
        self._run = self.network.to(device)
        if compiled:
            self._run = Compiled(self.network)
            self.recordable = False  # it records its own graphs
            self.rules = InputRules(math.lcm(self.network.size_multiple, SIZE_BUCKET))

    def prompts(self, batch: Tensor) -> Tensor | None:
        """Encode the query, the whole frame resized, once per frame."""
        if not isinstance(self.network, models.Rainmer):
            return None
        with self._precision(batch.device):
            return self.network.prompts(make_query(batch))

    def restore(self, batch: Tensor, prompts: Tensor | None) -> Tensor:
        """Run the network."""
        extra = {} if prompts is None else {"prompts": prompts}
        with self._precision(batch.device):
            return self._run(batch, **extra)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        if self.network.fused:
            return torch.autocast(device.type, enabled=False)
        return contextlib.nullcontext()


class FunctionRestorer:
    """A function of one batch: a control such as `median`, or code of somebody else.

    Args:
        function: Restores (B, 3, H, W); a module, if it has weights to move.
        name: For reports.
        source: See `Restorer`; None: the name.
        fingerprint: See `Restorer`; None: the name alone decides.
        rules: Which input the function takes.
        tileable: See `Restorer`.
    """

    cacheable = True
    recordable = False

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        name: str,
        *,
        source: str | None = None,
        fingerprint: str | None = None,
        rules: InputRules = _ANY_INPUT,
        tileable: bool = False,
    ) -> None:
        self.function = function
        self.name = name
        self.source = source or name
        self.fingerprint = fingerprint or digest("function", name)
        self.rules = rules
        self.tileable = tileable
        self.takes_bf16 = bool(getattr(function, "supports_bfloat16", False))

    def prepare(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
        tile: int | None = None,
    ) -> None:
        """Move the function if it is a module; other functions follow their input's device."""
        if isinstance(self.function, nn.Module):
            self.function.to(device)

    def prompts(self, batch: Tensor) -> Tensor | None:
        """Return None: nothing is computed per frame."""
        return None

    def restore(self, batch: Tensor, prompts: Tensor | None) -> Tensor:
        """Call the function and check its result.

        Raises:
            SpecError: The result is no floating-point tensor of the batch's shape.
        """
        restored = self.function(batch)
        expected = f"{self.source} must return a floating-point tensor {tuple(batch.shape)}, 0..1"
        if not isinstance(restored, Tensor):
            raise SpecError(f"{expected}, but returned {type(restored).__name__}")
        if restored.shape != batch.shape or not restored.is_floating_point():
            got = f"{restored.dtype} {tuple(restored.shape)}".removeprefix("torch.")
            raise SpecError(f"{expected}, but returned {got}{larger_by(restored, batch)}")
        return restored


class ForeignRestorer(FunctionRestorer):
    """Code of somebody else: all that it raises becomes one line with its name or file.

    The function may have two more attributes: `supports_half` and `supports_bfloat16` tell whether
    it runs in reduced precision. Without them it does if it is asked to; `auto` asks only functions
    that say so.
    """

    def prepare(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
        tile: int | None = None,
    ) -> None:
        """Move the function if it is a module.

        Raises:
            SpecError: The function does not support the type.
        """
        flag, precision = {
            torch.float16: ("supports_half", "fp16"),
            torch.bfloat16: ("supports_bfloat16", "bf16"),
        }.get(dtype, ("", ""))
        if flag and not getattr(self.function, flag, True):
            raise SpecError(f"{self.source} does not support {precision}: use --precision fp32")
        super().prepare(device, dtype, compiled=compiled, tile=tile)

    def restore(self, batch: Tensor, prompts: Tensor | None) -> Tensor:
        """Call the function.

        Raises:
            SpecError: The function raised (its error in one line), or its result is unusable.
            MemoryError: The function ran out of memory: the stage retries with less at once.
        """
        try:
            return super().restore(batch, prompts)
        except (RainmerError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            if "CUDA error" in str(error):
                raise  # of the device: the stage says so
            size = f"{batch.shape[-1]}x{batch.shape[-2]}"
            raise SpecError(f"{self.source} failed: {first_line(error)} (at {size})") from error


class CallableRestorer(ForeignRestorer):
    """A user's own callable.

    Without an attribute `fingerprint` (any text that changes with the output) nothing is cached
    or reused from an earlier run, as its code may have changed, or a file that it reads. What it
    takes it may say by the attributes `size_multiple`, `fixed_size` (height, width), `fixed_batch`
    and `tileable`; see `InputRules` and `ForeignRestorer`.

    Raises:
        SpecError: An attribute makes no sense.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], name: str, source: str | None = None
    ) -> None:
        known = getattr(function, "fingerprint", None)
        self.cacheable = known is not None
        rules = _declared_rules(function, source or name)
        parts = (name, known or secrets.token_hex())
        super().__init__(
            function,
            name,
            source=source,
            fingerprint=digest(*parts) if rules == _ANY_INPUT else digest(*parts, rules),
            rules=rules,
            tileable=bool(getattr(function, "tileable", False)),
        )


def _declared_rules(function: object, source: str) -> InputRules:
    if isinstance(function, models.Network):  # they pad by themselves
        return _ANY_INPUT
    try:
        height, width = getattr(function, "fixed_size", (None, None))
        return InputRules(
            getattr(function, "size_multiple", 1),
            (height, width),
            getattr(function, "fixed_batch", None),
        )
    except (SpecError, TypeError, ValueError) as error:
        raise SpecError(f"{source}: {error}") from error


class BlendRestorer:
    """A weighted mean of another restorer's output and the rainy frame.

    y = share * restored + (1 - share) * rainy, which weakens the restorer's mistakes and its
    benefit.

    Args:
        share: Weight of the restored frame, 0..1.
        restorer: The restorer to blend.
    """

    def __init__(self, share: float, restorer: Restorer) -> None:
        self.share = share
        self.restorer = restorer
        self.name = f"blend-{share:g}-{restorer.name}"
        self.source = restorer.source
        self.fingerprint = digest("blend", share, restorer.fingerprint)
        self.rules = restorer.rules
        self.tileable = restorer.tileable
        self.cacheable = restorer.cacheable
        self.takes_bf16 = restorer.takes_bf16
        self.recordable = restorer.recordable

    def prepare(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
        tile: int | None = None,
    ) -> None:
        """Prepare the restorer."""
        self.restorer.prepare(device, dtype, compiled=compiled, tile=tile)
        self.rules = self.restorer.rules
        self.recordable = self.restorer.recordable

    def prompts(self, batch: Tensor) -> Tensor | None:
        """Return what the restorer computes once per frame."""
        return self.restorer.prompts(batch)

    def restore(self, batch: Tensor, prompts: Tensor | None) -> Tensor:
        """Restore, clamp to 0..1 as the stage does, and blend."""
        restored = self.restorer.restore(batch, prompts).to(batch.dtype).clamp(0.0, 1.0)
        return torch.lerp(batch, restored, self.share)


def larger_by(restored: Tensor, batch: Tensor) -> str:
    """Return a hint for errors if a result (B, 3, H, W) is a multiple of its input's size."""
    if restored.ndim != 4 or restored.shape[-1] <= batch.shape[-1]:
        return ""
    (factor, rest), (other, other_rest) = (
        divmod(restored.shape[axis], batch.shape[axis]) for axis in (-2, -1)
    )
    enlarges = factor == other and not rest and not other_rest
    return f": it enlarges frames {factor} times, so it is no derainer" if enlarges else ""


def make_query(batch: Tensor) -> Tensor:
    """Shrink whole frames (B, 3, H, W), RGB, 0..1 to the queries (B, 3, 128, 128) of an encoder.

    On 8-bit levels and without antialiasing, as in Rainmer's evaluation protocol.
    """
    return resize_bilinear(quantize(batch), QUERY_SIZE_HW).float().div(255.0)


def median_filter(batch: Tensor) -> Tensor:
    """Filter (B, 3, H, W) by the 5x5 median per channel, borders repeated: a trivial baseline."""
    if batch.device.type == "cpu":
        images = batch.float().permute(0, 2, 3, 1).contiguous().numpy()
        filtered = np.stack([cv2.medianBlur(image, 5) for image in images])
        return torch.from_numpy(filtered).permute(0, 3, 1, 2)
    padded = F.pad(batch, (2, 2, 2, 2), mode="replicate")
    return padded.unfold(2, 5, 1).unfold(3, 5, 1).flatten(-2).median(dim=-1).values


def first_line(error: BaseException) -> str:
    """Return an error's type and the line of its text that says most."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    # TorchScript's texts begin with a trace of its code and end with the error itself.
    said = lines[-1] if "TorchScript" in lines[0] else lines[0]
    return said if said.startswith("RuntimeError: ") else f"{type(error).__name__}: {said}"


def digest(*parts: object) -> str:
    """Return the SHA-256 of plain values (others by their text), as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()
