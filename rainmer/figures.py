"""The style of all figures: ink, colours, markers, and saving to a file.

Matplotlib is imported by the functions that draw: nothing else of `rainmer` needs it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from rainmer.files import write_bytes
from rainmer.fonts import escaped, families_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLORS", "INK", "color_of", "draw_grid", "marker_of", "save_figure", "styled"]

INK = "#16212c"
"""Colour of text, axes and grids."""

COLORS = (
    "#1a73e0",
    "#46a06a",
    "#8c1d0f",
    "#6a1257",
    "#3f9dca",
    "#6a3da8",
    "#7d8a22",
    "#b0806c",
)
"""Colours of series. The first six differ for readers with deutan and protan colour vision too."""

_MARKERS = "osD^vPX*"
_STYLE = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "rainmer",  # reproducible files
    "text.color": INK,
    "text.parse_math": False,  # names may hold $
    "xtick.color": INK,
    "ytick.color": INK,
}
_PNG_DPI = 160

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def color_of(index: int) -> str:
    """Return the colour of a series; they repeat."""
    return COLORS[index % len(COLORS)]


def marker_of(index: int) -> str:
    """Return the marker of a series; they repeat."""
    return _MARKERS[index % len(_MARKERS)]


def draw_grid(axes: Axes, axis: Literal["x", "y", "both"] = "both") -> None:
    """Draw a faint grid behind everything else."""
    axes.grid(axis=axis, color=INK, alpha=0.13, linewidth=0.8)
    axes.set_axisbelow(True)


def styled(draw: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorate a function so that it draws in this style, whatever the process uses elsewhere."""

    @wraps(draw)
    def styled(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with _style():
            return draw(*args, **kwargs)

    return styled


@contextlib.contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    # A font found for names need not have the weight of a title.
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Names may be in any script. For a page the browser finds their glyphs; see `save_figure`.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        try:
            yield
        finally:
            logger.setLevel(level)


@styled
def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure on white, as SVG or PNG by the suffix of `path`; names may be in any script.

    Raises:
        OutputError: The file cannot be written.
    """
    content = io.BytesIO()
    kind = path.suffix.lower().lstrip(".")
    if kind != "svg":  # in an SVG, what shows it finds the fonts
        figure = _legible(figure)
    # Without a date the same figure is the same file.
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type")) if kind == "svg" else None
    figure.savefig(content, format=kind, dpi=_PNG_DPI, facecolor="white", metadata=metadata)
    write_bytes(path, content.getvalue())


def _legible(figure: Figure) -> Figure:
    """Give texts fonts of this machine that have their characters, or escapes where none has."""
    from matplotlib.text import Text

    figure = pickle.loads(pickle.dumps(figure))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if any(escaped(label) != label for label in labels):
            axis.set_ticks(axis.get_ticklocs(), list(map(escaped, labels)))
    for text in figure.findobj(Text):
        text.set_text(escaped(text.get_text()))
        text.set_fontfamily(families_for(text.get_text()))
    return figure
