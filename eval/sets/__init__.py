"""Rainy detection sets, read from YAML files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from eval.sets.config import SetConfig
    from eval.sets.loading import load_set
    from eval.sets.model import ALL, DetectionSet, Sample

__all__ = ["ALL", "DetectionSet", "Sample", "SetConfig", "load_set"]

__getattr__ = lazy_names(
    __name__,
    {
        "eval.sets.config": "SetConfig",
        "eval.sets.loading": "load_set",
        "eval.sets.model": "ALL DetectionSet Sample",
    },
)
