"""TorchScript files, which do not say what they take: a trial on their device finds out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rainmer.errors import WeightsError
from rainmer.files import file_sha256
from rainmer.stage.restorers import ForeignRestorer, digest, first_line, larger_by
from rainmer.stage.rules import InputRules

__all__ = ["ScriptedRestorer"]

_MULTIPLES = (8, 16, 32, 64, 128)
_FIXED = (
    *((side, side) for side in (64, 96, 112, 128, 192, 224, 256, 320, 384, 416, 448, 512, 640)),
    (256, 512), (360, 640), (384, 640), (480, 640), (512, 1024), (720, 1280), (1024, 1024),
)  # fmt: skip
"""Sizes (height, width) in pixels that networks are traced with, each costs a trial."""


class ScriptedRestorer(ForeignRestorer):
    """A TorchScript file as a restorer of tiles.

    `prepare` runs it on grey images to learn which memory order (channels first or last), sizes and
    numbers of frames it takes: files that were traced often work at one size only. Most run at the
    first trial, an image of 72x64.

    Args:
        module: The loaded module.
        path: Its file.
    """

    def __init__(self, module: nn.Module, path: Path) -> None:
        self._takes = _Layouts(module)
        super().__init__(
            self._takes,
            path.stem,
            source=str(path),
            fingerprint=digest("torchscript", file_sha256(path)),
            rules=InputRules(_MULTIPLES[0]),
            tileable=True,
        )

    @torch.no_grad()
    def prepare(
        self, device: torch.device, dtype: torch.dtype = torch.float32, *, compiled: bool = False
    ) -> None:
        """Move the module and find out what it takes.

        Raises:
            WeightsError: It fails on every trial, or gives larger images.
        """
        super().prepare(device, dtype, compiled=compiled)
        first: str | None = None
        for rules, size_hw in _trials():
            for channels_last in (False, True):
                self._takes.channels_last = channels_last
                error = self._try((1, 3, *size_hw), device)
                if error is None:
                    several = self._try((2, 3, *size_hw), device) is None
                    batch = None if several else 1
                    self.rules = InputRules(rules.multiple, rules.fixed_hw, batch)
                    return
                first = first or error
        raise WeightsError(
            f"{self.source} restores one image (1, 3, H, W) at none of the sizes that were tried; "
            f"at 72x64: {first}"
        )

    def _try(self, shape: tuple[int, ...], device: torch.device) -> str | None:
        """Return why the module does not restore grey images of a shape, or None if it does."""
        grey = torch.full(shape, 0.5, device=device)
        try:
            restored = self._takes(grey)
        except Exception as error:  # noqa: BLE001 - of the module's own code; told in the end
            return first_line(error)
        if not isinstance(restored, Tensor):
            return f"it returned {type(restored).__name__}"
        if hint := larger_by(restored, grey):
            raise WeightsError(f"{self.source} is of no use here{hint}")
        if restored.shape != grey.shape:
            return f"it returned {tuple(restored.shape)} for {shape}"
        return None


class _Layouts(nn.Module):
    """A module of either memory order and of single or half precision, called in one way."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.channels_last = False
        types = {p.dtype for p in module.parameters() if p.is_floating_point()}
        self._half = types == {torch.float16}

    def forward(self, batch: Tensor) -> object:
        batch = batch.half() if self._half else batch
        module = cast(Callable[[Tensor], Any], self.module)
        restored = module(batch.permute(0, 2, 3, 1) if self.channels_last else batch)
        if isinstance(restored, tuple | list) and restored:  # stages of a network, the best first
            restored = restored[0]
        if self.channels_last and isinstance(restored, Tensor) and restored.ndim == 4:
            return restored.permute(0, 3, 1, 2)
        return restored


def _trials() -> Iterator[tuple[InputRules, tuple[int, int]]]:
    """Yield what a module may demand, the least first, each with a size that would work."""
    for multiple, scale in itertools.product(_MULTIPLES, (1, 4)):
        short = max(64, multiple) * scale
        yield InputRules(multiple), (short, short + multiple)
    for size_hw in _FIXED:
        yield InputRules(fixed_hw=size_hw), size_hw
