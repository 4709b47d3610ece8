"""The texts of the page and of the documentation, read once."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["page_files", "render_docs"]

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def page_files() -> dict[str, tuple[bytes, str]]:
    """Return the files of the page by their addresses, each with its media type."""
    folder = resources.files(__name__)
    return {
        path: (folder.joinpath(name).read_bytes(), media_type)
        for path, (name, media_type) in _FILES.items()
    }


def render_docs(schema: dict[str, Any]) -> str:
    """Render an OpenAPI schema as a page that needs no script and no other host."""
    environment = Environment(
        loader=PackageLoader(__name__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(groups=_groups, kind=_kind)
    return environment.get_template("docs.html").render(schema=schema)


def _groups(paths: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Return the routes by their tag, each with its path and method."""
    groups: dict[str, list[tuple[Any, ...]]] = {}
    for path, methods in paths:
        for method, route in methods.items():
            groups.setdefault(route["tags"][0], []).append((path, method, route))
    return groups


def _kind(schema: dict[str, Any]) -> str:
    """Return in words what a parameter may be."""
    if "anyOf" in schema:
        return ", ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    return ", ".join(schema["enum"]) if "enum" in schema else str(schema["type"])
