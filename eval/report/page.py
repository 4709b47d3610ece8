"""What the HTML reports share: templates, filters, and picture strips as parts of a page.

A page needs nothing beside itself: figures are inline SVG, pictures inline JPEG, no script runs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.report.strips import Panel, Strip, encode_panel
from eval.report.tables import typographic

__all__ = ["as_text", "render_page", "strip_group"]


def render_page(template: str, **values: object) -> str:
    """Render a page from a template of `eval/templates`.

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


def strip_group(kind: str, title: str, strips: Sequence[Strip]) -> dict[str, Any]:
    """Encode strips that share a heading.

    Args:
        kind: `gain`, `loss` or another word, which decides the colour of the tags.
        title: The heading.
        strips: In the order in which they are shown.
    """
    return {"kind": kind, "title": title, "strips": list(map(_show_strip, strips))}


def _set_intervals(text: str) -> Markup:
    """Set a sentence's intervals apart, each kept on one line, with real minus signs."""
    parts = re.split(r"(\[-?\d[\d.]*, -?\d[\d.]*\])", text.replace(" %", "\N{NO-BREAK SPACE}%"))
    return Markup("").join(
        Markup('<span class="interval">{}</span>').format(typographic(part))
        if index % 2
        else typographic(part)
        for index, part in enumerate(parts)
    )


def _show_strip(strip: Strip) -> dict[str, Any]:
    return {
        "image": strip.image,
        "condition": strip.condition,
        "derainer": strip.derainer,
        "gain": _gain(strip),
        "panels": [_show_panel(strip, panel) for panel in strip.panels],
    }


def _gain(strip: Strip) -> str:
    if not strip.gain:
        return "no change"
    unit = strip.unit.removesuffix("s") if abs(strip.gain) == 1 else strip.unit
    return f"{strip.gain:+.4g} {unit}"


def _show_panel(strip: Strip, panel: Panel) -> dict[str, str]:
    content = base64.b64encode(encode_panel(panel)).decode("ascii")
    return {
        "title": panel.title,
        "facts": panel.facts,
        "alt": f"{strip.image}, {panel.title}: {panel.facts}",
        "source": f"data:image/jpeg;base64,{content}",
    }
