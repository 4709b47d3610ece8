"""A run of the command, from its options to what it prints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from eval.cli import result_text
from eval.relation.labels import REMARK
from eval.relation.options import RelationOptions
from eval.relation.output import Relation, write_relation
from eval.relation.report import render_relation
from eval.relation.run import measure_sets, relate, set_up
from eval.relation.words import gain_table, summary_lines
from rainmer.errors import DatasetError
from rainmer.files import write_text

__all__ = ["run"]


def run(options: RelationOptions, command: str) -> None:
    """Run the command; `command` is how it was typed.

    Raises:
        RainmerError: The input is invalid, or parts of it could not be measured.
    """
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    bench = set_up(options)
    measure_sets(bench)
    relation = relate(bench, command)
    write_relation(bench.folder, relation)
    write_text(bench.folder / "report.html", render_relation(relation))
    print(result_text(bench.folder, _result_lines(relation), as_json=options.json))
    _raise_defects(relation, bench.folder)


def _result_lines(relation: Relation) -> Iterator[str]:
    """Yield the lines that are printed after a run."""
    yield gain_table(relation.rows)
    yield from summary_lines(relation.correlations)
    for measured in relation.sets:
        if measured.self_labelled:
            yield f"note: {REMARK.format(sets=measured.gains.name)}"
        for note in measured.notes:
            yield f"note: {measured.gains.name}: {note}"
        for line in measured.data.defects.repair_lines():
            yield f"repaired: {measured.gains.name}: {line}"


def _raise_defects(relation: Relation, folder: Path) -> None:
    """Raise an error that lists what is missing from the results, so the exit code is 2.

    Raises:
        DatasetError: A set could not be measured, or has defects.
    """
    problems = []
    if relation.failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in relation.failures.items())
        problems.append(f"sets that could not be measured: {reasons}")
    for measured in relation.sets:
        lines = measured.data.defects.error_lines()
        if lines:
            problems.append(f"{measured.gains.name} has defects: {'; '.join(lines)}")
    if problems:
        raise DatasetError(
            f"finished {len(relation.sets)} sets, results in {folder}; but {'; '.join(problems)}"
        )
