"""Rainy Street: synthetic street scenes by day and night, with exact boxes and depth."""

from __future__ import annotations

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
