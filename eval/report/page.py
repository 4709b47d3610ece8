"""From a template to the text of a page.

A page needs nothing beside itself: figures are inline SVG, pictures inline JPEG. A few lines of
script sort tables and compare pictures; without them a page can be read all the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.report.colors import PALETTE
from eval.report.strips import COLORS, DETAILS
from eval.report.tables import typographic

__all__ = ["LIMIT", "render_page"]

LIMIT = 4_900_000
"""Most characters of a page with pictures; nearly all of them are ASCII."""


def render_page(template: str, **values: object) -> str:
    """Render a page from a template of `eval/report/templates`.

    Args:
        template: The template's file name.
        values: What the template shows. Texts may hold any characters; they are escaped. Pictures
            of `strips` are made smaller until the page is not longer than `LIMIT`.

    Returns:
        The page's text, to be written as UTF-8.
    """
    environment = Environment(
        loader=PackageLoader("eval.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["as_text"] = _as_text
    environment.filters["minus"] = _with_minus_signs
    environment.filters["intervals"] = _set_intervals
    page = environment.get_template(template)
    text = ""
    for detail in DETAILS:
        text = page.render(palette=PALETTE, colors=COLORS, detail=detail, **values)
        if len(text) <= LIMIT or not values.get("strips"):
            break
    return text


def _as_text(mapping: Mapping[str, object]) -> str:
    """Return a mapping as readable JSON; empty when it is."""
    return json.dumps(mapping, indent=2, default=str, ensure_ascii=False) if mapping else ""


def _with_minus_signs(text: str) -> str:
    """Turn hyphens before numbers into minus signs; markup stays as it is."""
    return text if isinstance(text, Markup) else typographic(text)


def _set_intervals(text: str) -> Markup:
    """Set a sentence's intervals apart, each kept on one line, with real minus signs."""
    parts = re.split(r"(\[-?\d[\d.]*, -?\d[\d.]*\])", text.replace(" %", "\N{NO-BREAK SPACE}%"))
    return Markup("").join(
        Markup('<span class="interval">{}</span>').format(typographic(part))
        if index % 2
        else typographic(part)
        for index, part in enumerate(parts)
    )
