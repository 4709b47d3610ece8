"""What the HTML reports share: templates, filters, and picture strips as parts of a page.

A page needs nothing beside itself: figures are inline SVG, pictures inline JPEG, no script runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.report.strips import Strip, StripGroup
from eval.report.tables import typographic

__all__ = ["as_text", "render_page", "strip_group"]


def render_page(template: str, **values: object) -> str:
    """Render a page from a template of `eval/report/templates`.

    Args:
        template: The template's file name.
        values: What the template shows. Texts may hold any characters; they are escaped.

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
    environment.filters["as_text"] = as_text
    environment.filters["minus"] = typographic
    environment.filters["intervals"] = _set_intervals
    return environment.get_template(template).render(**values)


def as_text(mapping: Mapping[str, object]) -> str:
    """Return a mapping as readable JSON; empty when it is."""
    return json.dumps(mapping, indent=2, default=str, ensure_ascii=False) if mapping else ""


def strip_group(kind: str, title: str, strips: Sequence[Strip]) -> StripGroup:
    """Put strips below a title."""
    return StripGroup(title, strips, kind)


def _set_intervals(text: str) -> Markup:
    """Set a sentence's intervals apart, each kept on one line, with real minus signs."""
    parts = re.split(r"(\[-?\d[\d.]*, -?\d[\d.]*\])", text.replace(" %", "\N{NO-BREAK SPACE}%"))
    return Markup("").join(
        Markup('<span class="interval">{}</span>').format(typographic(part))
        if index % 2
        else typographic(part)
        for index, part in enumerate(parts)
    )
