"""Rainy Street: synthetic street scenes by day and night, with exact boxes and depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from eval.street.scene import CLASSES, StreetObject, StreetScene, draw_scene
    from eval.street.splits import TEST_DAY, TEST_NIGHT, train_seed, write_split

__all__ = [
    "CLASSES",
    "TEST_DAY",
    "TEST_NIGHT",
    "StreetObject",
    "StreetScene",
    "draw_scene",
    "train_seed",
    "write_split",
]

__getattr__ = lazy_names(
    __name__,
    {
        "eval.street.scene": "CLASSES StreetObject StreetScene draw_scene",
        "eval.street.splits": "TEST_DAY TEST_NIGHT train_seed write_split",
    },
)
