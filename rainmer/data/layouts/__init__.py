"""The folder layouts of published training and test sets, and which of their files are pairs.

`LAYOUTS` is the table, `find_pairs` reads a set by it, `check` counts what a copy holds:
`python -m rainmer.data.layouts check NAME:ROOT`.
"""

from rainmer.data.layouts.check import Report, check
from rainmer.data.layouts.pairing import ImageSet, Pair, find_pairs
from rainmer.data.layouts.table import LAYOUTS, Layout, Mode, find_layout

__all__ = [
    "LAYOUTS",
    "ImageSet",
    "Layout",
    "Mode",
    "Pair",
    "Report",
    "check",
    "find_layout",
    "find_pairs",
]
