"""The main job: mAP of a detector on rainy, derained and clean images.

python -m eval.detect --derain prenet:prenet.pth --data set.yaml --detector yolov8n.pt
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from detection.timing import StageTimes
from detection.yolo.binding import Where
from detection.yolo.harness import ValidationHarness
from eval.cli import (
    add_detector_options,
    add_run_options,
    advance,
    cache_folder,
    chosen_options,
    command_line,
    progress_bar,
)
from eval.detect.comparison import Comparison, compare, row_specs
from eval.detect.diagnosis import Diagnosis, diagnose, write_diagnosis
from eval.detect.error_report import breakdown_section
from eval.detect.output import write_comparison
from eval.detect.report import Report, render_report
from eval.detect.strips import select_strips
from eval.detect.table import Settings
from eval.report.files import describe_environment, now
from eval.report.tables import format_table
from eval.rows.derainers import CONTROL, Derainers
from eval.sets import DetectionSet, load_set
from eval.street.detector import detector_weights
from eval.street.embedded import INPUT_SIZE, street_set
from rainmer.cli import add_stage_options, fraction, make_parser, run_command, stage_options
from rainmer.device import resolve_device
from rainmer.errors import DatasetError
from rainmer.files import make_folder, write_text
from rainmer.stage.specs import DEFAULT_DERAINER, SPEC_HELP

__all__ = ["main"]

_log = logging.getLogger(__name__)

EMBEDDED_LIMIT = 96  # images of the embedded set, to keep a first run short

_EXAMPLE = """\
  python -m eval.detect --derain prenet:prenet-rain100h.pth --data set.yaml --detector yolov8n.pt
  python -m eval.detect --derain                  # the embedded set and detector"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError for what the user can mend."""
    started = time.perf_counter()
    options = _parse(argv)
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    device = resolve_device(options.device)
    inputs = _inputs(options)
    data = load_set(inputs.data, quiet=options.quiet)
    data = data.restricted(options.conditions, _limit(options, data))
    detector = ValidationHarness(
        inputs.detector, device, imgsz=inputs.imgsz, allow_download=options.allow_download
    )
    derainers = _derainers(options)
    rows = derainers.for_set(data.name)
    specs = row_specs(data, rows, union=options.union, where=tuple(dict.fromkeys(options.where)))
    name = f"{data.name}-{Path(inputs.detector).stem}"
    folder = make_folder(options.out or Path("runs", "detect", name))
    settings = Settings(
        count_conf=options.conf,
        pseudo_conf=options.pseudo_conf,
        resamples=options.resamples,
        seed=options.seed,
        union_iou=detector.iou,
        union_max_det=detector.max_det,
    )
    times = StageTimes()
    with progress_bar(len(data.samples) * len(specs), quiet=options.quiet) as bar:
        comparison = compare(
            data,
            detector,
            specs,
            folder / "rows",
            settings,
            times=times,
            progress=lambda label, images: advance(bar, label, images),
        )
    strips = select_strips(comparison, settings.count_conf)
    diagnosis = Diagnosis([], [], [])
    if not options.no_breakdown:
        diagnosis = diagnose(comparison, settings.count_conf)
    elapsed = {
        "derain": sum(derainer.busy_s for derainer in rows),
        "detect": times.total_ms("detect") / 1e3,
        "decode": times.total_ms("decode") / 1e3,
        "wall": time.perf_counter() - started,
    }
    config = _resolved(options, inputs, derainers, detector)
    environment = describe_environment(device)
    write_comparison(folder, comparison, config=config, environment=environment, elapsed=elapsed)
    write_diagnosis(folder, diagnosis)
    report = Report(
        set_name=data.name,
        detector=Path(inputs.detector).name,
        rows=comparison.table,
        per_class=comparison.per_class,
        strips=strips,
        command=command_line("eval.detect", argv),
        date=now(),
        protocol=_protocol(detector, settings),
        notes=comparison.notes,
        environment=environment,
        config=config,
        elapsed=elapsed,
        pseudo_labels=comparison.pseudo_labels,
        breakdown=breakdown_section(diagnosis),
    )
    write_text(folder / "report.html", render_report(report))
    _print_result(comparison, folder, as_json=options.json)
    errors = comparison.data.defects.error_lines()
    if errors:
        raise DatasetError(
            f"finished on {len(comparison.data.samples)} images, results in {folder}; "
            f"but the set has defects: {'; '.join(errors)}"
        )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m eval.detect",
        "Measure whether deraining helps a detector: mAP on rainy, derained and clean images.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--derain",
        nargs="*",
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; alone: {DEFAULT_DERAINER}",
    )
    parser.add_argument(
        "--data", metavar="YAML", help="rainy detection set; default: the embedded street scenes"
    )
    add_detector_options(parser)
    parser.add_argument(
        "--conf", type=fraction, default=0.25, help="confidence of the TP/FP/FN counts"
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
    parser.add_argument("--no-breakdown", action="store_true", help="leave errors by kind out")
    add_run_options(parser, out="runs/detect/SET-DETECTOR", limit="images")
    add_stage_options(parser)
    return parser.parse_args(argv)


class _Inputs(NamedTuple):
    """A set's file, a detector (a file or a published name), and the detector's input size."""

    data: Path
    detector: str
    imgsz: int


def _inputs(options: argparse.Namespace) -> _Inputs:
    """Return set, detector and input size: those asked for, or the embedded ones."""
    return _Inputs(
        Path(options.data)
        if options.data
        else street_set(processes=os.cpu_count() or 1, quiet=options.quiet),
        options.detector or str(detector_weights()),
        options.imgsz or INPUT_SIZE,
    )


def _limit(options: argparse.Namespace, data: DetectionSet) -> int | None:
    """Return the most images to take: as asked for, and not all of the embedded set."""
    if options.limit is not None or options.data or len(data.samples) <= EMBEDDED_LIMIT:
        return options.limit  # type: ignore[no-any-return]
    total = len(data.samples)
    _log.info("%d of the %d embedded images; --limit %d: all", EMBEDDED_LIMIT, total, total)
    return EMBEDDED_LIMIT


def _derainers(options: argparse.Namespace) -> Derainers:
    """Build the derainers asked for, and the control."""
    specs = [] if options.derain is None else options.derain or [DEFAULT_DERAINER]
    if not options.no_control:
        specs = [*specs, CONTROL]
    return Derainers(specs, stage_options(options), cache_folder(options))


def _resolved(
    options: argparse.Namespace,
    inputs: _Inputs,
    derainers: Derainers,
    detector: ValidationHarness,
) -> dict[str, Any]:
    """Return what was run, in full: options, and digests of what files held."""
    return {
        **chosen_options(options),
        "data": str(inputs.data),
        "detector": inputs.detector,
        "imgsz": detector.imgsz,
        "detector_fingerprint": detector.fingerprint,
        "derainers": dict(derainers.fingerprints),
    }


def _protocol(detector: ValidationHarness, settings: Settings) -> dict[str, object]:
    return {
        "input size": f"{detector.imgsz} px, rectangular batches of {detector.batch}",
        "detections from confidence": detector.conf,
        "NMS IoU": detector.iou,
        "detections per image": f"{detector.max_det}, of which COCOeval takes 100",
        "NMS": "external, multi-label",
        "mAP": "pycocotools COCOeval, IoU 0.50:0.95",
        "bootstrap resamples": settings.resamples,
        "counts confidence": settings.count_conf,
    }


def _print_result(comparison: Comparison, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print((folder / "metrics.json").read_text(encoding="utf-8"), end="")
        return
    width = shutil.get_terminal_size((120, 24)).columns
    print(format_table(comparison.table, width))
    for note in comparison.notes:
        print(f"note: {note}")
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    run_command(main)
