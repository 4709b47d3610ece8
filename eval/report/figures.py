"""Figures of reports: the elements that they share, and their conversion to SVG for a page.

Figures carry no background, and their ink and colours become those of the page, so one figure reads
well on light and on dark.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.report.colors import color_in, on_page
from eval.report.parts import Chart
from eval.report.tables import shorten
from rainmer.figures import INK, draw_grid, marker_of, styled

__all__ = [
    "NARROW",
    "WIDTH",
    "beside",
    "draw_chart",
    "legend",
    "name_bars",
    "ruled",
    "short",
    "spread_legend",
    "to_svg",
]

WIDTH, NARROW = 9.2, 4.1
"""Widths of a figure in inches, on a page and on that of a phone."""

_LONGEST_NAME, _LONGEST_NARROW = 34, 20
_PAGE_FONT = "var(--font)"
_UNPRINTABLE = dict.fromkeys(
    [*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF], "\N{REPLACEMENT CHARACTER}"
)
"""Characters that names may hold, but XML may not."""


def draw_chart(
    draw: Callable[[float], Figure | None], name: str, alt: str, caption: str, title: str = ""
) -> Chart | None:
    """Draw a figure twice, for a page and for that of a phone; None if there is none.

    Args:
        draw: Draws it at a width in inches.
        name: See `to_svg`.
        alt: See `to_svg`.
        caption: See `eval.report.parts.Chart`.
        title: See `eval.report.parts.Chart`.
    """
    figures = draw(WIDTH), draw(NARROW)
    if figures[0] is None or figures[1] is None:
        return None
    wide, narrow = to_svg(figures[0], name, alt), to_svg(figures[1], f"{name}-narrow", alt)
    return Chart(wide, caption, title, narrow)


def beside(figure: Figure, count: int, width: float) -> list[Axes]:
    """Add axes beside each other, or below each other in a narrow figure."""
    shape = (1, count) if width >= WIDTH else (count, 1)
    return list(figure.subplots(*shape, squeeze=False).ravel())


def spread_legend(
    figure: Figure, entries: Sequence[Artist], width: float, columns: int, place: str = "upper"
) -> None:
    """Add a legend above (or below, by `place`) everything, in fewer columns if it is narrow."""
    columns = columns if width >= WIDTH else max(1, columns // 2)
    figure.legend(handles=list(entries), loc=f"outside {place} center", ncols=columns)


def short(name: str, width: float = WIDTH) -> str:
    """Cut a long name to what fits beside an axis of a figure, on one line."""
    return shorten(" ".join(name.split()), _LONGEST_NAME if width >= WIDTH else _LONGEST_NARROW)


def name_bars(axes: Axes, names: Sequence[str]) -> None:
    """Write a name beside each horizontal bar, from top to bottom, and draw a grid behind them."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    draw_grid(axes, "x")


def ruled(axes: Axes) -> None:
    """Draw a grid and both zero lines behind the points of a scatter."""
    axes.axhline(0, color=INK, linewidth=1, alpha=0.7)
    axes.axvline(0, color=INK, linewidth=1, alpha=0.7)
    draw_grid(axes)


def legend(series: Mapping[str, str], places: Sequence[str]) -> list[Line2D]:
    """Return a legend's entries: a colour per name, and a marker per place if there are several.

    Args:
        series: Name to colour, from `eval.report.colors.series_of`.
        places: What markers stand for.
    """
    entries = [
        Line2D([], [], color=color_in(own), marker="o", ls="none", label=short(name))
        for name, own in series.items()
    ]
    if len(places) > 1:
        entries += [
            Line2D([], [], color=INK, marker=marker_of(i), ls="none", label=name)
            for i, name in enumerate(map(short, places))
        ]
    return entries


def to_svg(figure: Figure, name: str, alt: str) -> Markup:
    """Render a figure as an `<svg>` element for the inside of a page.

    Args:
        figure: The figure, drawn in the style of `rainmer.figures`.
        name: Prefix of all ids, unique on the page, so that no two figures share an id; letters,
            digits and hyphens.
        alt: What the figure shows, for readers who do not see it.

    Returns:
        The element without XML header. Ink, colours and font are those of the page.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    styled(FigureCanvasSVG(figure).print_svg)(buffer, metadata=no_metadata)
    root = ElementTree.fromstring(buffer.getvalue().translate(_UNPRINTABLE))
    view_box = root.get("viewBox", "")
    svg = ElementTree.Element(
        "svg",
        {"class": "plot", "role": "img", "aria-label": alt, "viewBox": view_box},
        xmlns="http://www.w3.org/2000/svg",
    )
    svg.extend(root)
    for element in svg.iter():
        element.tag = _without_namespace(element.tag)
        element.attrib = {
            _without_namespace(key): _for_page(_without_namespace(key), value, name)
            for key, value in element.attrib.items()
        }
        for style in element.findall("{*}style"):
            element.remove(style)  # it would apply to the whole page, which has these rules already
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def _without_namespace(name: str) -> str:
    return name.rpartition("}")[2]


def _for_page(key: str, value: str, name: str) -> str:
    """Adapt the value of an attribute: ids and links to them, ink, and the font."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1) if value.startswith("#") else value
    if key == "style":
        value = "; ".join(map(_with_page_font, value.split("; ")))
    return on_page(value.replace("url(#", f"url(#{name}-"))


def _with_page_font(declaration: str) -> str:
    """Replace the family, which older versions of matplotlib write at the end of `font`."""
    key, _, value = declaration.partition(": ")
    if key not in ("font", "font-family"):
        return declaration
    size_before_family, _, _ = value.partition("'")
    return f"{key}: {size_before_family}{_PAGE_FONT}"
