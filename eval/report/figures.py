"""What all figures share: style, series of colours and markers, and their way into a page.

Figures carry no background, and their ink is a placeholder that becomes the page's text colour, so
one figure reads well on light and on dark. Bars and points are mid-tones for the same reason.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.report.tables import shorten
from rainmer.files import write_bytes

__all__ = [
    "INK",
    "WIDTH",
    "color_of",
    "legend",
    "marker_of",
    "ruled",
    "save_png",
    "short",
    "styled",
    "to_svg",
]

INK = "#16212c"
WIDTH = 9.2
"""Width of a figure in inches."""

_SERIES = (
    "#16a085",
    "#d9603b",
    "#5a8dd6",
    "#c9991f",
    "#a86cc4",
    "#7d9a3c",
    "#d4679f",
    "#94714f",
    "#37a3c2",
    "#8a8f98",
)
_MARKERS = "osD^vPX*"
_STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
_LONGEST_NAME = 34
_PNG_DPI = 160

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Draw in the report's style, whatever the process uses elsewhere."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A browser finds glyphs for names in any script; matplotlib only measures them here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def styled(draw: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Make a function that draws do so in the report's style."""

    @wraps(draw)
    def styled(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with _style():
            return draw(*args, **kwargs)

    return styled


def short(name: str) -> str:
    """Cut a long name to what fits beside an axis."""
    return shorten(name, _LONGEST_NAME)


def color_of(index: int) -> str:
    """Return the colour of a series; they repeat."""
    return _SERIES[index % len(_SERIES)]


def marker_of(index: int) -> str:
    """Return the marker of a series; they repeat."""
    return _MARKERS[index % len(_MARKERS)]


def ruled(axes: Axes) -> None:
    """Draw a grid and both zero lines behind the points of a scatter."""
    axes.axhline(0, color=INK, linewidth=1, alpha=0.7)
    axes.axvline(0, color=INK, linewidth=1, alpha=0.7)
    axes.grid(color=INK, alpha=0.13, linewidth=0.8)
    axes.set_axisbelow(True)


def legend(names: Sequence[str], places: Sequence[str]) -> list[Line2D]:
    """Return a legend's entries: a colour per name, and a marker per place if there are several."""
    entries = [
        Line2D([], [], color=color_of(i), marker="o", ls="none", label=short(name))
        for i, name in enumerate(names)
    ]
    if len(places) > 1:
        entries += [
            Line2D([], [], color=INK, marker=marker_of(i), ls="none", label=name)
            for i, name in enumerate(map(short, places))
        ]
    return entries


def to_svg(figure: Figure, name: str, alt: str) -> str:
    """Render a figure as an `<svg>` element for the inside of a page.

    Args:
        figure: The figure, drawn in this style.
        name: Letters, digits and hyphens, another for every figure of a page: it goes before all
            ids, so that no two figures share one.
        alt: What the figure shows, for readers who do not see it.

    Returns:
        The element without XML header. Ink is `currentColor`; text keeps the page's font.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _style():
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style\b.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'\b(?:xlink:)?href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    svg = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--font)", svg)
    opening = f'<svg class="plot" role="img" aria-label="{html.escape(alt)}"'
    view_box = re.search(r'viewBox="[^"]*"', svg)
    shape = view_box.group() if view_box else ""
    return f'{opening} {shape} xmlns="http://www.w3.org/2000/svg">{svg[svg.index(">") + 1 :]}'


def save_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG on white, for a README.

    Raises:
        OutputError: The file cannot be written.
    """
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=_PNG_DPI, facecolor="white")
    write_bytes(path, buffer.getvalue())
