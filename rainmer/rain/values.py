"""What each image of a batch draws from its kind of rain: the values of the fields."""

from __future__ import annotations

import copy
import functools
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from rainmer.rain.config import RANGES, RainConfig
from rainmer.rain.randomness import uniform

__all__ = ["Values"]

_OVER_LOGARITHM = frozenset({"layer_density", "layer_strength", "layer_length"})
_ROWS = {name: row for row, name in enumerate(RANGES)}
_STREAMS = [zlib.crc32(name.encode()) for name in RANGES]


class Values:
    """The fields' values for each image of a batch.

    Args:
        configs: The kind of rain of each image; all of one structure (`RainConfig.structure`).
        keys: Random keys of the images (B,).
        frame_widths: Longer side in pixels of the frame that each image is a part of.
        times: Time of each exposure in seconds (B,).
    """

    def __init__(
        self,
        configs: Sequence[RainConfig],
        keys: Tensor,
        frame_widths: Sequence[int],
        times: Tensor,
    ) -> None:
        self.kind = configs[0]
        """A configuration of the structure that all have."""
        self.keys, self.frame_widths, self.times = keys, list(frame_widths), times
        self.frame_width = torch.tensor(self.frame_widths, dtype=torch.float64, device=keys.device)
        """The same in double precision (B,): what is derived from it then rounds once."""
        self._configs = list(configs)
        rows = torch.tensor([_limits(config) for config in configs])  # (B, 2, F)
        self._low, self._spread = rows.permute(1, 2, 0).contiguous().to(keys.device).unbind()
        self._streams = torch.tensor(_STREAMS, device=keys.device)[:, None]
        self._shares: dict[int, Tensor] = {}  # by index, of all fields at once (F, B)
        self._rows: Tensor | None = None

    @property
    def focal_px(self) -> Tensor:
        """Focal length in pixels (B,)."""
        return self("focal") * self.frame_width.float()

    def __call__(self, name: str, index: int = 0) -> Tensor:
        """Return the values of a field (B,); other indices are other values of it."""
        row = _ROWS[name]
        if index not in self._shares:
            self._shares[index] = uniform(self.keys, index, self._streams)
        share = self._shares[index][row]
        if name in _OVER_LOGARITHM:
            return self._low[row] * self._spread[row] ** share
        return self._low[row] + self._spread[row] * share

    def map(self, name: str) -> Tensor:
        """Return the values of a field as (B, 1, 1, 1)."""
        return self(name)[:, None, None, None]

    def having(self, name: str) -> Values | None:
        """Return the values of the images whose field may be above 0; None: it is 0 in all."""
        rows = [i for i, config in enumerate(self._configs) if config.limits(name)[1] > 0]
        if len(rows) in (0, len(self._configs)):
            return self if rows else None
        some = copy.copy(self)
        some._rows = torch.tensor(rows, device=self.keys.device)
        some._configs = [self._configs[row] for row in rows]
        some.frame_widths = [self.frame_widths[row] for row in rows]
        for part in ("keys", "times", "frame_width"):
            setattr(some, part, getattr(self, part)[some._rows])
        for part in ("_low", "_spread"):
            setattr(some, part, getattr(self, part)[:, some._rows])
        some._shares = {index: share[:, some._rows] for index, share in self._shares.items()}
        return some

    def of(self, whole: Tensor) -> Tensor:
        """Return these images' part of a batch from which `having` took them."""
        return whole if self._rows is None else whole[self._rows]

    def put(self, whole: Tensor, part: Tensor) -> Tensor:
        """Return a batch from which `having` took these images, with another part of them."""
        return part if self._rows is None else whole.index_copy(0, self._rows, part)


@functools.lru_cache(maxsize=256)
def _limits(config: RainConfig) -> tuple[list[float], list[float]]:
    """Return the smallest value of each field, and the difference or ratio to the largest."""
    low, high = zip(*(config.limits(name) for name in RANGES), strict=True)
    spread = [
        most / least if name in _OVER_LOGARITHM else most - least
        for name, least, most in zip(RANGES, low, high, strict=True)
    ]
    return list(low), spread
