"""The preprocessing stage: frames of any kind and size in, the same frames without rain out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from rainmer.stage.derainer import Derainer, Precision, TileBy

__all__ = ["Derainer", "Precision", "TileBy"]

__getattr__ = lazy_names(
    __name__,
    {
        "rainmer.stage.derainer": "Derainer Precision TileBy",
    },
)
