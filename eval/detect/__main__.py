"""The main job: mAP of a detector on rainy, derained and clean images.

python -m eval.detect --derain prenet:prenet.pth --data set.yaml --detector yolov8n.pt
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import get_args

from detection.types import Where
from eval.cli import add_detector_options, add_run_options, command_line, result_text
from eval.detect.matrix_run import measure_matrix
from eval.detect.run import DetectOptions, end_with_defects, measure_bench, result_lines, set_up
from eval.rows.derainers import CONTROL
from rainmer.cli import add_stage_options, fraction, make_parser, parse_options, run_command
from rainmer.stage.specs import DEFAULT_DERAINER, SPEC_HELP

__all__ = ["main"]

_EXAMPLE = """\
  python -m eval.detect --derain prenet:prenet-rain100h.pth --data set.yaml --detector yolov8n.pt
  python -m eval.detect --derain                  # the embedded set and detector
  python -m eval.detect --derain --detector yolov8n.pt rain=runs/detect/train/weights/best.pt"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the options or the data. At the end also when images could not
            be read; the results of all others are kept.
    """
    started = time.perf_counter()
    options = _parse(argv)
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    command = command_line("eval.detect", argv)
    benches = set_up(options)
    if len(benches) > 1:
        run = measure_matrix(benches, command, started)
        folder, lines, data = run.folder, run.lines, run.data
    else:
        (bench,) = benches.values()
        measured = measure_bench(bench, command, started)
        folder, lines = bench.folder, list(result_lines(measured, bench.total))
        data = measured.comparison.data
    print(result_text(folder, lines, as_json=options.json))
    end_with_defects(data, folder)


def _parse(argv: Sequence[str] | None) -> DetectOptions:
    parser = make_parser(
        "python -m eval.detect",
        "Measure whether deraining helps a detector: mAP on rainy, derained and clean images.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--derain",
        nargs="*",
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; LABEL=SPEC names one, {{set}} in it is the "
        f"set's name; alone: {DEFAULT_DERAINER}",
    )
    parser.add_argument(
        "--data",
        metavar="SET",
        help="set file, YOLO's data.yaml, COCO file, or their folder; default: embedded scenes",
    )
    add_detector_options(parser, several=True)
    parser.add_argument(
        "--conf", type=fraction, default=0.25, help="confidence of the TP/FP/FN counts"
    )
    parser.add_argument(
        "--equal-false-alarms",
        action="store_true",
        help="also write each row's predictions from the confidence on at which it has no more "
        "false detections than the rainy images have at --conf",
    )
    parser.add_argument(
        "--no-control", action="store_true", help=f"leave the control ({CONTROL}) out"
    )
    parser.add_argument(
        "--union",
        action="store_true",
        help="add a row for each derainer: detections of rainy and derained images together",
    )
    parser.add_argument(
        "--where",
        nargs="+",
        choices=get_args(Where),
        default=["frame"],
        help="where to derain: frame, at native size, before the letterbox; network, behind it, at "
        "the detector's resolution (cheaper); both compares them",
    )
    parser.add_argument(
        "--no-breakdown",
        action="store_true",
        help="leave out errors by kind, and where deraining helps",
    )
    add_run_options(parser, out="runs/detect/SET-DETECTOR", limit="images")
    add_stage_options(parser, precision="fp32")
    return parse_options(parser, DetectOptions, argv)


if __name__ == "__main__":
    run_command(main)
