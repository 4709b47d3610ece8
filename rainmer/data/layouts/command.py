"""What the command prints: the table of layouts, and reports on copies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from rainmer.data.layouts.check import Report, check, to_json, to_lines
from rainmer.data.layouts.options import CheckOptions
from rainmer.data.layouts.table import LAYOUTS, Layout
from rainmer.errors import ConfigError, DatasetError

__all__ = ["run"]


def run(options: CheckOptions | None) -> None:
    """Run the command.

    Raises:
        ConfigError: A name is not a known layout.
        DatasetError: A set has no pair, or not all of them can be used; all reports are printed.
    """
    if options is None:
        for layout in LAYOUTS:
            print("\n".join(_lines(layout)))
    else:
        _check(options)


def _lines(layout: Layout) -> Iterator[str]:
    count = "" if layout.pairs is None else f", {layout.pairs} pairs"
    yield f"{layout}{count}"
    yield f"    rainy  {layout.describe_rainy()}"
    yield f"    clean  {layout.clean.describe()}"
    if layout.skip:
        yield f"    without those with {layout.skip} in their name"
    if layout.aliases:
        yield f"    also called {', '.join(layout.aliases)}"


class _Outcome(NamedTuple):
    """The report on a NAME:ROOT, or the error that prevented it."""

    given: str
    report: Report | None
    failure: str | None

    def as_json(self) -> dict[str, Any]:
        if self.report is None:
            return {"set": self.given, "failure": self.failure}
        return {"set": self.given, **to_json(self.report)}


def _check(options: CheckOptions) -> None:
    sets = [_name_and_root(given) for given in options.sets]
    outcomes = []
    for given, (name, root) in zip(options.sets, sets, strict=True):
        outcome = _outcome(given, name, root, options)
        outcomes.append(outcome)
        if outcome.report is not None and not options.json:
            print("\n".join(to_lines(outcome.report)), flush=True)
    if options.json:
        print(json.dumps([outcome.as_json() for outcome in outcomes], indent=1))
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    if failures:
        raise DatasetError("; ".join(failures))


def _name_and_root(given: str) -> tuple[str, str]:
    name, colon, root = given.partition(":")
    if not (name and colon and root):
        raise ConfigError(f"{given!r} is not NAME:ROOT, such as synrain:/data")
    return name, os.path.expanduser(root)


def _outcome(given: str, name: str, root: str, options: CheckOptions) -> _Outcome:
    try:
        report = check(name, root, options.mode, sizes=options.sizes, progress=not options.quiet)
    except DatasetError as error:
        return _Outcome(given, None, str(error))
    count = sum(map(len, report.defects.errors.values()))
    failure = f"{given}: {report.pairs} pairs can be used, {count} cannot; see the report"
    return _Outcome(given, report, failure if count else None)
