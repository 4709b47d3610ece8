"""The folder layouts of published training and test sets, and which of their files are pairs.

`LAYOUTS` is the table, `find_pairs` reads a set by it, `check.check` counts what a copy holds:
`python -m rainmer.data.layouts check NAME:ROOT`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rainmer.lazy import lazy_names

if TYPE_CHECKING:
    from rainmer.data.layouts.pairing import ImageSet, Pair, find_pairs
    from rainmer.data.layouts.table import LAYOUTS, Layout, Mode, find_layout

__all__ = [
    "LAYOUTS",
    "ImageSet",
    "Layout",
    "Mode",
    "Pair",
    "find_layout",
    "find_pairs",
]

__getattr__ = lazy_names(
    __name__,
    {
        "rainmer.data.layouts.pairing": "ImageSet Pair find_pairs",
        "rainmer.data.layouts.table": "LAYOUTS Layout Mode find_layout",
    },
)
