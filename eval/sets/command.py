"""What the command prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

from eval.sets.adapters import ADAPTERS, adapt
from eval.sets.loading import load_set
from eval.sets.options import CheckOptions, SetsOptions, WriteOptions
from eval.sets.summary import Summary, summary_of_adapted, summary_of_loaded, to_json, to_lines
from eval.sets.writing import write_set
from rainmer.errors import ConfigError, DatasetError

__all__ = ["run"]


def run(options: SetsOptions) -> None:
    """Run the command.

    Raises:
        ConfigError: An option is wrong, or none of the adapter's.
        DatasetError: Nothing can be used, or, at the end, the set has defects.
        OutputError: The set file cannot be written.
    """
    match options:
        case CheckOptions() as check:
            _check(check)
        case WriteOptions() as write:
            _write(write)
        case None:
            _print_adapters()


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
