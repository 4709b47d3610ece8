"""Files that do not say, or not fully, what they take: a trial on their device finds out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rainmer.errors import RainmerError, SpecError
from rainmer.frames.arrays import quantize
from rainmer.stage.restorers import ForeignRestorer, larger_by
from rainmer.stage.rules import InputRules

__all__ = ["ScriptedModule", "TriedRestorer"]

_MULTIPLES = (8, 16, 32, 64, 128)
_FIXED = (
    *((side, side) for side in (64, 96, 112, 128, 192, 224, 256, 320, 384, 416, 448, 512, 640)),
    (256, 512), (360, 640), (384, 640), (480, 640), (512, 1024), (720, 1280), (1024, 1024),
)  # fmt: skip
"""Sizes (height, width) in pixels that networks are exported with."""


class ScriptedModule(nn.Module):
    """A TorchScript module of either memory order and of single or half precision.

    Args:
        module: The loaded module.
        channels_last: Whether the module takes (B, H, W, 3).
        levels: Whether it takes and gives uint8.
    """

    def __init__(
        self, module: nn.Module, *, channels_last: bool = False, levels: bool = False
    ) -> None:
        super().__init__()
        self.module = module
        self.channels_last = channels_last
        self.levels = levels
        types = {p.dtype for p in module.parameters() if p.is_floating_point()}
        self._half = types == {torch.float16}

    def forward(self, batch: Tensor) -> object:
        """Call the module with (B, 3, H, W)."""
        batch = batch.half() if self._half else batch
        batch = quantize(batch) if self.levels else batch
        module = cast(Callable[[Tensor], Any], self.module)
        restored = module(batch.permute(0, 2, 3, 1) if self.channels_last else batch)
        if isinstance(restored, tuple | list) and restored:  # stages of a network, the best first
            restored = restored[0]
        if self.channels_last and isinstance(restored, Tensor) and restored.ndim == 4:
            restored = restored.permute(0, 3, 1, 2)
        return restored.float().div(255.0) if self.levels else restored


class TriedRestorer(ForeignRestorer):
    """An exported network, run on grey images to learn what it takes beyond what it declares.

    The trial settles the multiple of free sides, whether several images may go at once, and, for a
    `ScriptedModule`, the memory order and a fixed size. Most networks run at the first trial, an
    image of 72x64. If none succeeds, frames are tried as they come.

    Args:
        function: The network.
        path: Its file.
        fingerprint: See `rainmer.stage.restorers.Restorer`.
        declared: What the file declares.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        path: Path,
        fingerprint: str,
        declared: InputRules,
    ) -> None:
        super().__init__(
            function,
            path.stem,
            source=str(path),
            fingerprint=fingerprint,
            rules=declared,
            tileable=True,
        )
        self._declared = declared
        self._succeeded = True

    @torch.no_grad()
    def prepare(
        self,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
        tile: int | None = None,
    ) -> None:
        """Move the network if it is a module, and find out what it takes.

        Raises:
            SpecError: It enlarges images.
        """
        super().prepare(device, dtype, compiled=compiled, tile=tile)
        orders = (False, True) if isinstance(self.function, ScriptedModule) else (False,)
        for (rules, size_hw), last in itertools.product(_trials(self._declared, tile), orders):
            if isinstance(self.function, ScriptedModule):
                self.function.channels_last = last
            if self._restores(rules.batch or 1, size_hw, device):
                if rules.batch is None and not self._restores(2, size_hw, device):
                    rules = InputRules(rules.multiple, rules.fixed_hw, 1)
                self.rules = rules
                return
        if isinstance(self.function, ScriptedModule):
            self.function.channels_last = False
        self.rules, self._succeeded = self._declared, False

    def _restores(self, count: int, size_hw: tuple[int, int], device: torch.device) -> bool:
        """Tell whether the network restores grey images of a size.

        Raises:
            SpecError: It enlarges them.
        """
        grey = torch.full((count, 3, *size_hw), 0.5, device=device)
        try:
            restored: object = self.function(grey)
        except Exception:  # noqa: BLE001 - of somebody else's code; frames will tell
            return False
        if not isinstance(restored, Tensor):
            return False
        if hint := larger_by(restored, grey):
            raise SpecError(f"{self.source} is of no use here{hint}")
        return restored.shape == grey.shape

    def restore(self, batch: Tensor, prompts: Tensor | None) -> Tensor:
        """Run the network.

        Raises:
            SpecError: See `ForeignRestorer.restore`; with advice, if no trial has succeeded.
        """
        try:
            return super().restore(batch, prompts)
        except RainmerError as error:
            if self._succeeded or None not in self._declared.fixed_hw:
                raise
            raise SpecError(
                f"{error}; if it takes images of one size only, try --tile SIDE"
            ) from error


def _trials(declared: InputRules, tile: int | None) -> Iterator[tuple[InputRules, tuple[int, int]]]:
    """Yield what a network may demand, the least first, each with a size that would then work."""
    height, width = declared.fixed_hw
    for multiple, scale in itertools.product(_MULTIPLES, (1, 4)):
        short = max(64, 2 * multiple) * scale
        rules = InputRules(multiple, declared.fixed_hw, declared.batch)
        yield rules, (height or short, width or short + multiple)
        if height and width:
            return
    for size_hw in (*([(tile, tile)] if tile else []), *_FIXED):
        fixed_hw = (height or size_hw[0], width or size_hw[1])
        yield InputRules(_MULTIPLES[0], fixed_hw, declared.batch), fixed_hw
