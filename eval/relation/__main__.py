"""Does better restoration mean better detection? Gains of both, over derainers and sets.

python -m eval.relation --derain prenet:prenet.pth --sets day.yaml night.yaml --detector yolov8n.pt
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.cli import add_detector_options, add_run_options, command_line, result_text
from eval.relation.labels import REMARK
from eval.relation.output import Relation, write_relation
from eval.relation.report import render_relation
from eval.relation.run import RelationOptions, measure_sets, relate, set_up
from eval.relation.words import gain_table, summary_lines
from eval.report.tables import CONTROLS
from eval.rows.derainers import PLACEHOLDER
from rainmer.cli import add_stage_options, fraction, make_parser, parse_options, run_command
from rainmer.errors import DatasetError
from rainmer.files import write_text
from rainmer.stage.specs import DEFAULT_DERAINER, SPEC_HELP

__all__ = ["main"]

_EXAMPLE = """\
  python -m eval.relation --derain rainmer-s prenet:prenet-rain100h.pth \\
      --sets day.yaml night.yaml --detector yolov8n.pt
  python -m eval.relation --derain results:theirs/restormer/{set} results:theirs/mprnet/{set} \\
      --sets test100.yaml test1200.yaml --detector yolov8n.pt --labeller yolo11x.pt"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        RainmerError: The input is invalid, or parts of it could not be measured.
    """
    options = parse_options(_parser(), RelationOptions, argv)
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    bench = set_up(options)
    measure_sets(bench)
    relation = relate(bench, command_line("eval.relation", argv))
    write_relation(bench.folder, relation)
    write_text(bench.folder / "report.html", render_relation(relation))
    print(result_text(bench.folder, _result_lines(relation), as_json=options.json))
    _raise_defects(relation, bench.folder)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "python -m eval.relation",
        "Relate what derainers gain in PSNR and SSIM to what a detector gains in mAP.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--derain",
        nargs="*",
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; LABEL=SPEC names one, {PLACEHOLDER} in it is the "
        f"set's name; alone: {DEFAULT_DERAINER}",
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="YAML",
        help="rainy detection sets with clean images, with or without boxes; default: the "
        "embedded street scenes",
    )
    add_detector_options(parser)
    parser.add_argument(
        "--labeller",
        metavar="WEIGHTS",
        help="another, stronger detector that makes the pseudo-labels of sets without boxes; "
        "default: the detector itself, as in the paper",
    )
    parser.add_argument(
        "--conf", type=fraction, default=0.25, help="confidence of the F1 of single images"
    )
    parser.add_argument(
        "--no-control",
        action="store_true",
        help=f"leave the controls ({', '.join(CONTROLS)}) out",
    )
    add_run_options(
        parser, out="runs/relation/SETS-DETECTOR", limit="images a set", printed="metrics.json"
    )
    add_stage_options(parser, precision="fp32")
    return parser


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


if __name__ == "__main__":
    run_command(main)
