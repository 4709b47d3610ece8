"""Hooks of MkDocs: pages that come from elsewhere in the repository, and links to them.

README and cards become pages, the command reference comes from the parsers' own help, the API
reference from the docstrings. Links of a repository lead to the same thing on the site.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
_MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "rainmer/weights/rainmer-s.md": "cards/rainmer-s.md",
    "rainmer/weights/rainmer-s-restore.md": "cards/rainmer-s-restore.md",
}
"""Pages of the site that lie outside `docs`: their path in the repository and on the site."""

_MODULES = (
    "rainmer.stage.derainer",
    "rainmer.stage.gate",
    "rainmer.stage.restorers",
    "rainmer.stage.specs",
    "rainmer.export.exporting",
    "rainmer.export.graph",
    "rainmer.export.request",
    "rainmer.frames.arrays",
    "rainmer.frames.images",
    "rainmer.frames.video",
    "rainmer.meter.meter",
    "rainmer.models.rainmer",
    "rainmer.models.rainmer_config",
    "rainmer.rain.config",
    "rainmer.rain.renderer",
    "rainmer.train.config",
    "rainmer.train.losses",
    "rainmer.train.run",
    "rainmer.train.sources",
    "rainmer.train.step",
    "rainmer.data.properties",
    "rainmer.metrics",
    "rainmer.errors",
    "detection.pipeline",
    "detection.types",
    "detection.yolo.adapter",
    "detection.yolo.harness",
    "detection.yolo.hooks",
    "detection.yolo.training",
    "detection.tune.config",
    "eval.detect.comparison",
    "eval.sets.loading",
    "eval.sets.model",
)
"""Modules of the API reference."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that lie outside `docs`."""
    for source, target in _MOVED.items():
        text = (_ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=text))
    for name in _MODULES:
        text = f"# {name}\n\n::: {name}\n"
        files.append(File.generated(config, _reference(name), content=text))
    for path in ("LICENSE", *_configurations()):
        target = f"files/{path}" + ("" if Path(path).suffix else ".txt")
        files.append(File.generated(config, target, abs_src_path=str(_ROOT / path)))
    files.append(File.generated(config, "commands.md", content="\n".join(_commands())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of the repository lead to the pages of the site."""
    site = page.file.src_uri
    here = {target: source for source, target in _MOVED.items()}.get(site, f"docs/{site}")

    def moved(link: re.Match[str]) -> str:
        opening, target, anchor, closing = link.groups()
        if ":" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        there = posixpath.relpath(_place(path), posixpath.dirname(site) or ".")
        return f"{opening}{there}{anchor or ''}{closing}"

    return _LINK.sub(moved, markdown)


def _place(path: str) -> str:
    """Return where a file of the repository is on the site."""
    if path in _MOVED:
        return _MOVED[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith(".py"):
        return _reference(path.removesuffix(".py").replace("/", "."))
    return f"files/{path}" + ("" if Path(path).suffix else ".txt")


def _reference(module: str) -> str:
    return f"reference/{module}.md"


def _configurations() -> Iterator[str]:
    for folder, _, names in os.walk(_ROOT / "configs"):
        for name in names:
            yield (Path(folder) / name).relative_to(_ROOT).as_posix()


def _commands() -> Iterator[str]:
    """Yield the lines of the command reference: what each command prints for `--help`."""
    from rainmer.commands import VERBS, dispatch

    yield "# Commands"
    os.environ["COLUMNS"] = "100"
    for verb in VERBS:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            dispatch([verb, "--help"])
        yield f"\n## rainmer {verb}\n\n```text\n{printed.getvalue().strip()}\n```"
