"""Does better restoration mean better detection? Gains of both, over derainers and sets.

python -m eval.relation --derain prenet:prenet.pth --sets day.yaml night.yaml --detector yolov8n.pt
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from eval.cli import (
    add_detector_options,
    add_run_options,
    command_line,
)
from eval.relation.output import Relation, write_relation
from eval.relation.report import RelationReport, render_relation
from eval.relation.run import _OWN_LABELS, CONTROLS, Bench, measure, progress, relate, set_up
from eval.relation.words import gain_table, summary_lines
from eval.report.files import now
from eval.rows.derainers import PLACEHOLDER
from rainmer.cli import add_stage_options, fraction, make_parser, run_command
from rainmer.errors import DatasetError, OutputError, RainmerError
from rainmer.files import write_text
from rainmer.stage.specs import DEFAULT_DERAINER, SPEC_HELP

__all__ = ["main"]


_REMARK = (
    "{sets}: no boxes are given, so the detector's own detections on the clean images are the "
    "truth, as in the paper. That is agreement, not accuracy, and it rewards images that look "
    "clean to this very detector; --labeller with a stronger detector is recommended."
)

_EXAMPLE = """\
  python -m eval.relation --derain rainmer-s prenet:prenet-rain100h.pth \\
      --sets day.yaml night.yaml --detector yolov8n.pt
  python -m eval.relation --derain results:theirs/restormer/{set} results:theirs/mprnet/{set} \\
      --sets test100.yaml test1200.yaml --detector yolov8n.pt --labeller yolo11x.pt"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError for what the user can mend."""
    options = _parse(argv)
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    bench = set_up(options)
    with progress(bench) as bar:
        for data in bench.sets:
            try:
                measure(bench, data, bar)
            except OutputError:
                raise  # a full disk concerns all sets
            except RainmerError as error:
                bench.failures[data.name] = str(error)
    if not bench.measured:
        raise DatasetError(f"no set could be measured: {_reasons(bench)}")
    relation = relate(bench)
    write_relation(bench.folder, relation)
    page = render_relation(_report(bench, relation, command_line("eval.relation", argv)))
    write_text(bench.folder / "report.html", page)
    _print_result(relation, bench.folder, as_json=options.json)
    _end_with_defects(bench)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m eval.relation",
        "Relate what derainers gain in PSNR and SSIM to what a detector gains in mAP.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--derain",
        nargs="*",
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; {PLACEHOLDER} in a spec stands for the name of "
        f"each set; alone: {DEFAULT_DERAINER}",
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
    add_stage_options(parser)
    return parser.parse_args(argv)


def _report(bench: Bench, relation: Relation, command: str) -> RelationReport:
    truths = {one.gains.name: one.gains.truth for one in bench.measured}
    own = [name for name, truth in truths.items() if truth == _OWN_LABELS]
    options, detector = bench.options, bench.detector
    return RelationReport(
        rows=relation.rows,
        correlations=relation.correlations,
        detector=Path(bench.detector_name).name,
        truths=truths,
        remarks=[_REMARK.format(sets=", ".join(own))] if own else [],
        notes={one.gains.name: one.notes for one in bench.measured if one.notes},
        failures=relation.failures,
        protocol={
            "input size": f"{detector.imgsz} px, rectangular batches of {detector.batch}",
            "detections from confidence": detector.conf,
            "NMS IoU": detector.iou,
            "mAP": "pycocotools COCOeval, IoU 0.50:0.95",
            "F1 of an image": f"at confidence {options.conf} and IoU 0.5",
            "pseudo-labels from confidence": options.pseudo_conf,
            "bootstrap resamples": options.resamples,
        },
        command=command,
        date=now(),
        environment=relation.environment,
        config=relation.config,
    )


def _print_result(relation: Relation, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print((folder / "metrics.json").read_text(encoding="utf-8"), end="")
        return
    print(gain_table(relation.rows))
    for line in summary_lines(relation.correlations):
        print(line)
    for one in relation.sets:
        if one.gains.truth == _OWN_LABELS:
            print(f"note: {_REMARK.format(sets=one.gains.name)}")
        for note in one.notes:
            print(f"note: {one.gains.name}: {note}")
    print(f"report: {folder / 'report.html'}")


def _reasons(bench: Bench) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in bench.failures.items())


def _end_with_defects(bench: Bench) -> None:
    """Say at the end what is missing from the results, and end with exit code 2 if anything is."""
    problems = []
    if bench.failures:
        problems.append(f"sets that could not be measured: {_reasons(bench)}")
    for one in bench.measured:
        lines = one.data.defects.error_lines()
        if lines:
            problems.append(f"{one.gains.name} has defects: {'; '.join(lines)}")
    if problems:
        raise DatasetError(
            f"finished {len(bench.measured)} sets, results in {bench.folder}; "
            f"but {'; '.join(problems)}"
        )


if __name__ == "__main__":
    run_command(main)
