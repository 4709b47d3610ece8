"""The options of `python -m eval.sets`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rainmer.cli import make_parser, parse_options

__all__ = ["AdapterOptions", "CheckOptions", "SetsOptions", "WriteOptions", "parse"]

_EXAMPLE = """\
  python -m eval.sets list
  python -m eval.sets check /data/bdd100k --adapter bdd100k --split val
  python -m eval.sets write /data/bdd100k --adapter bdd100k --split val --out sets/bdd-rain
  python -m eval.sets check sets/bdd-rain/set.yaml"""


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Options of reading a folder. An adapter takes some of these, see `Adapter`."""

    images: Path | None = None
    """Folder of the rainy images, where they are not in the expected place."""
    clean: Path | None = None
    """Folder of the clean images."""
    annotations: Path | None = None
    """File or folder of the boxes."""
    split: str | None = None
    """Only this split, such as `val`; default: every split that is there."""
    weather: tuple[str, ...] = ()
    """Weathers to keep, in the words of the set; default: rain, see `Adapter.weather`."""
    allow_list: Path | None = None
    """Text file with one image name a line: only these are kept."""
    turns: Path | None = None
    """Text file with `name degrees` lines: clockwise turns from the labels to the image."""
    names: tuple[str, ...] = ()
    """Class names of YOLO labels, in the order of their numbers."""

    def given(self) -> frozenset[str]:
        """Return the names of the options that differ from their default."""
        return frozenset(
            field.name
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of `check`: a folder and `adapter`, or a set file and no adapter."""

    root: str
    adapter: str | None
    json: bool
    reading: AdapterOptions


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """Options of `write`."""

    root: str
    adapter: str
    out: str
    name: str | None
    reading: AdapterOptions


SetsOptions = CheckOptions | WriteOptions | None
"""None for `list`."""


def parse(argv: Sequence[str] | None) -> SetsOptions:
    """Return the options of `check` or `write`; None for `list`."""
    parser = make_parser(
        "python -m eval.sets", "Check published rainy sets and write set files for them.", _EXAMPLE
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the adapters, with the layout that each expects")
    check = commands.add_parser("check", help="print what a set holds, and every defect")
    check.add_argument("root", metavar="ROOT", help="set file, folder, data.yaml, COCO file")
    check.add_argument("--adapter", metavar="NAME", help="how to read a folder; see list")
    check.add_argument("--json", action="store_true", help="print JSON instead of text")
    write = commands.add_parser("write", help="write set.yaml and instances.json for eval.detect")
    write.add_argument("root", metavar="ROOT", help="folder of the set")
    write.add_argument("--adapter", metavar="NAME", required=True, help="see list")
    write.add_argument("--out", metavar="DIR", required=True, help="where the two files go")
    write.add_argument("--name", help="of the set in reports; default: the adapter's")
    for command in (check, write):
        _add_adapter_options(command)
    return parse_options(parser, _sets_options, argv)


def _sets_options(command: str, **values: Any) -> SetsOptions:  # noqa: ANN401 (argparse's)
    if command == "list":
        return None
    names = [field.name for field in dataclasses.fields(AdapterOptions)]
    given = {name: values.pop(name) for name in names}
    given |= {name: tuple(given[name]) for name in ("weather", "names")}
    reading = AdapterOptions(**given)
    if command == "check":
        return CheckOptions(**values, reading=reading)
    return WriteOptions(**values, reading=reading)


def _add_adapter_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("adapter")
    group.add_argument("--images", type=Path, metavar="DIR", help="folder of the rainy images")
    group.add_argument("--clean", type=Path, metavar="DIR", help="folder of the clean images")
    group.add_argument(
        "--annotations", type=Path, metavar="PATH", help="file or folder of the boxes"
    )
    group.add_argument("--split", help="only this one, such as val; default: all that are there")
    group.add_argument(
        "--weather", nargs="+", default=[], help="bdd100k, acdc, dawn: which to keep"
    )
    group.add_argument(
        "--allow-list", type=Path, metavar="FILE", help="one image name a line: only these"
    )
    group.add_argument(
        "--turns", type=Path, metavar="FILE", help="mpid-rid: `name degrees` lines, clockwise"
    )
    group.add_argument("--names", nargs="+", default=[], help="yolo: class names, in order")
