"""Check published rainy sets and write set files for them.

python -m eval.sets check /data/bdd100k --adapter bdd100k --split val
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.sets.adapters import ADAPTERS, AdapterOptions, adapt
from eval.sets.loading import load_set
from eval.sets.summary import Summary, summary_of_adapted, summary_of_loaded, to_json, to_lines
from eval.sets.writing import write_set
from rainmer.cli import make_parser, run_command
from rainmer.errors import ConfigError, DatasetError

__all__ = ["main"]

_EXAMPLE = """\
  python -m eval.sets list
  python -m eval.sets check /data/bdd100k --adapter bdd100k --split val
  python -m eval.sets write /data/bdd100k --adapter bdd100k --split val --out sets/bdd-rain
  python -m eval.sets check sets/bdd-rain/set.yaml"""


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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        ConfigError: An option is wrong, or none of the adapter's.
        DatasetError: Nothing can be used, or, at the end, the set has defects.
        OutputError: The set file cannot be written.
    """
    match _parse(argv):
        case CheckOptions() as check:
            _check(check)
        case WriteOptions() as write:
            _write(write)
        case None:
            _print_adapters()


def _parse(argv: Sequence[str] | None) -> CheckOptions | WriteOptions | None:
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
    values = vars(parser.parse_args(argv))
    command = values.pop("command")
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


def _print_adapters() -> None:
    for name, adapter in ADAPTERS.items():
        print(f"{name}: {adapter.description}")
        for line in adapter.layout.splitlines():
            print(f"    {line}")
        taken = ", ".join(f"--{option.replace('_', '-')}" for option in sorted(adapter.options))
        print(f"    options: {taken}\n")


def _check(options: CheckOptions) -> None:
    if options.adapter is None:
        summary = summary_of_loaded(load_set(_set_file(options)))
    else:
        summary = summary_of_adapted(adapt(options.adapter, options.root, options.reading))
    if options.json:
        print(json.dumps(to_json(summary), indent=1))
    else:
        print(*to_lines(summary), sep="\n")
    _end(summary, options.root)


def _set_file(options: CheckOptions) -> Path:
    given = sorted(options.reading.given())
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} needs --adapter NAME")
    return Path(options.root)


def _write(options: WriteOptions) -> None:
    data = adapt(options.adapter, options.root, options.reading)
    file = write_set(data, options.out, options.name)
    summary = summary_of_adapted(data)
    print(*to_lines(summary), f"written: {file}", sep="\n")
    _end(summary, options.root)


def _end(summary: Summary, root: str) -> None:
    errors = summary.defects.error_lines()
    if errors:
        raise DatasetError(
            f"{root}: {summary.scenes} scenes can be used, but the set has defects: "
            f"{'; '.join(errors)}"
        )


if __name__ == "__main__":
    run_command(main)
