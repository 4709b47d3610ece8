"""The main job: mAP of a detector on rainy, derained and clean images.

python -m eval.detect --derain prenet:prenet.pth --data set.yaml --detector yolov8n.pt
"""

from __future__ import annotations

import functools
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from detection.timing import StageTimes
from detection.types import Where
from detection.yolo.harness import ValidationHarness
from eval.cli import (
    DetectorOptions,
    RunOptions,
    add_detector_options,
    add_run_options,
    advance,
    cache_folder,
    chosen_options,
    command_line,
    progress_bar,
    result_text,
)
from eval.detect.columns import format_table
from eval.detect.comparison import Comparison, compare, row_specs
from eval.detect.diagnosis import Diagnosis, diagnose, write_diagnosis
from eval.detect.error_report import breakdown_section
from eval.detect.output import write_comparison
from eval.detect.report import Report, render_report
from eval.detect.strips import select_strips
from eval.detect.table import Settings
from eval.report.facts import RunFacts
from eval.report.files import describe_environment, now
from eval.report.strips import Strip
from eval.rows.derainers import CONTROL, Derainers
from eval.rows.run import RowSpec
from eval.sets import DetectionSet, load_set
from eval.street.detector import detector_weights
from eval.street.embedded import INPUT_SIZE, street_set
from rainmer.cli import (
    StageOptions,
    add_stage_options,
    fraction,
    make_parser,
    parse_options,
    run_command,
    stage_options,
)
from rainmer.device import resolve_device, usable_cpus
from rainmer.errors import DatasetError
from rainmer.files import make_folder, safe_file_name, write_text
from rainmer.stage.specs import DEFAULT_DERAINER, SPEC_HELP

__all__ = ["main"]

_log = logging.getLogger(__name__)

EMBEDDED_LIMIT = 96  # images of the embedded set, to keep a first run short

_EXAMPLE = """\
  python -m eval.detect --derain prenet:prenet-rain100h.pth --data set.yaml --detector yolov8n.pt
  python -m eval.detect --derain                  # the embedded set and detector"""


@dataclass(frozen=True, kw_only=True)
class DetectOptions(DetectorOptions, RunOptions, StageOptions):
    """The options of the command; see its help."""

    derain: list[str] | None
    data: str | None
    conf: float
    no_control: bool
    union: bool
    where: list[Where]
    no_breakdown: bool


@dataclass(frozen=True)
class _Bench:
    """The parts of a run that are set up before anything is measured.

    Attributes:
        options: The options of the command.
        data: The set, restricted to the conditions and images of the options.
        data_file: Its file.
        detector: The detector in its harness.
        weights: The detector's file or published name.
        derainers: All derainers of the run.
        specs: The rows, rainy first.
        settings: What turns detections into numbers.
        folder: The run's folder.
    """

    options: DetectOptions
    data: DetectionSet
    data_file: Path
    detector: ValidationHarness
    weights: str
    derainers: Derainers
    specs: Sequence[RowSpec]
    settings: Settings
    folder: Path


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
    bench = _set_up(options)
    times = StageTimes()
    comparison = _compare(bench, times)
    strips = select_strips(comparison, options.conf)
    diagnosis = Diagnosis() if options.no_breakdown else diagnose(comparison, options.conf)
    facts = RunFacts(
        command=command_line("eval.detect", argv),
        date=now(),
        environment=describe_environment(resolve_device(options.device)),
        config=_resolved(bench),
        elapsed_s=_elapsed(bench, times, started),
        notes=comparison.notes,
        defects={comparison.data.name: comparison.data.defects},
        protocol=_protocol(bench.detector, bench.settings),
    )
    _write(bench, comparison, diagnosis, strips, facts)
    print(result_text(bench.folder, _result_lines(comparison), as_json=options.json))
    _end_with_defects(comparison, bench.folder)


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
    return parse_options(parser, DetectOptions, argv)


def _set_up(options: DetectOptions) -> _Bench:
    """Load set, detector and derainers, so that mistakes end the run before the work."""
    device = resolve_device(options.device)
    data_file = (
        Path(options.data)
        if options.data
        else street_set(processes=usable_cpus(), quiet=options.quiet)
    )
    weights = options.detector or str(detector_weights())
    data = load_set(data_file, quiet=options.quiet)
    data = data.restricted(options.conditions, _limit(options, data))
    detector = ValidationHarness(
        weights,
        device,
        imgsz=options.imgsz or INPUT_SIZE,
        allow_download=options.allow_download,
    )
    derainers = Derainers(_derainer_texts(options), stage_options(options), cache_folder(options))
    where = tuple(dict.fromkeys(options.where))
    specs = row_specs(data, derainers.for_set(data.name), union=options.union, where=where)
    name = f"{data.name}-{Path(weights).stem}"
    settings = Settings(
        count_conf=options.conf,
        pseudo_conf=options.pseudo_conf,
        resamples=options.resamples,
        seed=options.seed,
        union_iou=detector.iou,
        union_max_det=detector.max_det,
    )
    folder = make_folder(options.out or Path("runs", "detect", safe_file_name(name)))
    return _Bench(options, data, data_file, detector, weights, derainers, specs, settings, folder)


def _limit(options: DetectOptions, data: DetectionSet) -> int | None:
    """Return the limit of images: that of the options; by default part of the embedded set."""
    if options.limit is not None or options.data or len(data.samples) <= EMBEDDED_LIMIT:
        return options.limit
    total = len(data.samples)
    _log.info("%d of the %d embedded images; --limit %d: all", EMBEDDED_LIMIT, total, total)
    return EMBEDDED_LIMIT


def _derainer_texts(options: DetectOptions) -> list[str]:
    """Return the derainers asked for, and the control."""
    texts = [] if options.derain is None else options.derain or [DEFAULT_DERAINER]
    return texts if options.no_control else [*texts, CONTROL]


def _compare(bench: _Bench, times: StageTimes) -> Comparison:
    """Run and score every row, with a bar over all images of all rows."""
    total = len(bench.data.samples) * len(bench.specs)
    with progress_bar(total, quiet=bench.options.quiet) as bar:
        return compare(
            bench.data,
            bench.detector,
            bench.specs,
            bench.folder / "rows",
            bench.settings,
            times=times,
            progress=functools.partial(advance, bar),
        )


def _elapsed(bench: _Bench, times: StageTimes, started: float) -> dict[str, float]:
    """Return the seconds of each stage, and since the start."""
    derainers = {spec.derainer for spec in bench.specs if spec.derainer is not None}
    return {
        "derain": sum(derainer.busy_s for derainer in derainers),
        "detect": times.total_ms("detect") / 1e3,
        "decode": times.total_ms("decode") / 1e3,
        "wall": time.perf_counter() - started,
    }


def _resolved(bench: _Bench) -> dict[str, object]:
    """Return the resolved configuration: the options, and digests of detector and derainers."""
    return {
        **chosen_options(bench.options),
        "data": str(bench.data_file),
        "detector": bench.weights,
        "imgsz": bench.detector.imgsz,
        "detector_fingerprint": bench.detector.fingerprint,
        "derainers": dict(bench.derainers.fingerprints),
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


def _write(
    bench: _Bench,
    comparison: Comparison,
    diagnosis: Diagnosis,
    strips: Sequence[Strip],
    facts: RunFacts,
) -> None:
    """Write every file of the run."""
    write_comparison(bench.folder, comparison, facts)
    write_diagnosis(bench.folder, diagnosis)
    report = Report(
        set_name=bench.data.name,
        detector=Path(bench.weights).name,
        facts=facts,
        rows=comparison.table,
        per_class=comparison.per_class,
        strips=strips,
        count_conf=bench.settings.count_conf,
        pseudo_labels=comparison.pseudo_labels,
        breakdown=breakdown_section(diagnosis),
    )
    write_text(bench.folder / "report.html", render_report(report))


def _result_lines(comparison: Comparison) -> Iterator[str]:
    """Yield what is printed after a run."""
    yield format_table(comparison.table, shutil.get_terminal_size((120, 24)).columns)
    yield from (f"note: {note}" for note in comparison.notes)
    yield from (f"repaired: {line}" for line in comparison.data.defects.repair_lines())


def _end_with_defects(comparison: Comparison, folder: Path) -> None:
    """Say at the end what is missing from the results, and end with exit code 2 if anything is."""
    errors = comparison.data.defects.error_lines()
    if errors:
        raise DatasetError(
            f"finished on {len(comparison.data.samples)} images, results in {folder}; "
            f"but the set has defects: {'; '.join(errors)}"
        )


if __name__ == "__main__":
    run_command(main)
