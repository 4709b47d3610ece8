"""A run of the main job: what is set up, what is measured, and the files that are written."""

from __future__ import annotations

import functools
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.specs import MeasuredDetector, detector_name, detector_title, load_measured
from detection.timing import StageTimes
from eval.cli import (
    advance,
    cache_folder,
    chosen_options,
    progress_bar,
)
from eval.detect.alone import padded_by_others, seen_alone
from eval.detect.columns import cost_lines, format_table
from eval.detect.comparison import Comparison, compare, row_specs
from eval.detect.diagnosis import Diagnosis, diagnose, write_diagnosis
from eval.detect.error_report import breakdown_section
from eval.detect.harm import harm_sentences
from eval.detect.model import conditions, part_of
from eval.detect.operating import OperatingRow, cut_results, operating_rows, write_curves
from eval.detect.options import DetectOptions
from eval.detect.output import write_comparison, write_cut
from eval.detect.report import Report, render_report
from eval.detect.strips import Seen, count_changes, select_strips, shown_rows
from eval.detect.table import Settings
from eval.detect.truth import common_categories, match_categories, set_truth
from eval.detect.where import Readings, WhereHelps, find_where, write_where
from eval.detect.where_report import where_section
from eval.report.facts import RunFacts
from eval.report.files import describe_environment, now
from eval.report.timing import TimedOn
from eval.rows.derainers import CONTROL, Derainers
from eval.rows.names import Named, distinct_names, split_label
from eval.rows.run import RowInput, RowSpec
from eval.sets import DetectionSet, load_set
from eval.street.detector import detector_file
from eval.street.embedded import street_set
from rainmer.cli import stage_options
from rainmer.device import resolve_device, usable_cpus
from rainmer.errors import DatasetError
from rainmer.files import make_folder, safe_file_name, write_text
from rainmer.stage.specs import DEFAULT_DERAINER

__all__ = [
    "Bench",
    "Measured",
    "end_with_defects",
    "measure_bench",
    "result_lines",
    "set_up",
]

_log = logging.getLogger(__name__)

_UNION_IOU = 0.7  # of unions, where the detector itself has no NMS
EMBEDDED_LIMIT = 96  # images of the embedded set, to keep a first run short


@dataclass(frozen=True)
class Bench:
    """The parts of one detector's run that are set up before anything is measured.

    Attributes:
        options: The options of the command.
        data: The set, restricted to the conditions and images of the options.
        data_file: Its file.
        detector: The detector in its harness.
        weights: The detector's spec.
        derainers: All derainers of the run.
        specs: The rows, rainy first.
        settings: What turns detections into numbers.
        folder: The run's folder.
        total: Images of the set before a limit.
        readings: Reads images with the rain meter.
    """

    options: DetectOptions
    data: DetectionSet
    data_file: Path
    detector: MeasuredDetector
    weights: str
    derainers: Derainers
    specs: Sequence[RowSpec]
    settings: Settings
    folder: Path
    total: int
    readings: Readings


@dataclass(frozen=True)
class Measured:
    """A finished comparison, how its numbers came about, and where deraining helps."""

    comparison: Comparison
    facts: RunFacts
    where: WhereHelps


def set_up(options: DetectOptions) -> dict[str, Bench]:
    """Load set, detectors and derainers, so that mistakes end the run before the work.

    Returns:
        A bench for each detector, by its name in tables. They share set, derainers and rows. That
        of a single detector has the run's folder; several have one each inside it.

    Raises:
        RainmerError: A mistake in the options or the data.
    """
    device = resolve_device(options.device)
    data_file = (
        Path(options.data)
        if options.data
        else street_set(processes=usable_cpus(), quiet=options.quiet)
    )
    weights = _detector_weights(options)
    data = load_set(data_file, quiet=options.quiet)
    data = data.restricted(options.conditions)
    total = len(data.samples)
    data = data.restricted(limit=_limit(options, data))
    detectors = {
        name: load_measured(
            text, device, imgsz=options.imgsz, allow_download=options.allow_download
        )
        for name, text in weights.items()
    }
    if len(detectors) > 1:
        _check_common_truth(data, detectors)
    derainers = Derainers(_derainer_texts(options), stage_options(options), cache_folder(options))
    where = tuple(dict.fromkeys(options.where))
    specs = row_specs(data, derainers.for_set(data.name), union=options.union, where=where)
    folder = options.out or Path("runs", "detect", safe_file_name("-".join([data.name, *weights])))
    folders = _folders(folder, list(weights))
    readings = Readings(device)
    return {
        name: Bench(
            options,
            data,
            data_file,
            detector,
            weights[name],
            derainers,
            specs,
            _settings(options, detector),
            make_folder(folders[name]),
            total,
            readings,
        )
        for name, detector in detectors.items()
    }


def _detector_weights(options: DetectOptions) -> dict[str, str]:
    """Return the weights of each detector by its name in tables; labels only among several."""
    texts = list(dict.fromkeys(options.detector or ["street"]))
    if len(texts) == 1:
        file = detector_file(texts[0])
        return {detector_name(file): file}
    pairs = [(label, detector_file(text)) for label, text in map(split_label, texts)]
    entries = [Named(label, detector_name(text), text) for label, text in pairs]
    names = distinct_names(entries, "detectors")
    return {name: entry.text for name, entry in zip(names, entries, strict=True)}


def _check_common_truth(data: DetectionSet, detectors: Mapping[str, MeasuredDetector]) -> None:
    """Refuse detectors that cannot be compared, as they have no objects to find in common."""
    if data.annotations is None:
        raise DatasetError(
            f"{data.name} has no boxes: several detectors need a truth that is none of theirs; "
            "give the set annotations, or one detector at a time"
        )
    truths = []
    for name, detector in detectors.items():
        try:
            match = match_categories(data.categories, detector.names, data.aliases)
            truths.append(set_truth(data, match))
        except DatasetError as error:
            raise DatasetError(f"detector {name}: {error}") from error
    if not common_categories(truths):
        raise DatasetError(f"{data.name}: no class with boxes is known to all detectors alike")


def _folders(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    if len(names) == 1:
        return {names[0]: folder}
    return {name: folder / "detectors" / safe_file_name(name) for name in names}


def _settings(options: DetectOptions, detector: MeasuredDetector) -> Settings:
    return Settings(
        count_conf=options.conf,
        pseudo_conf=options.pseudo_conf,
        resamples=options.resamples,
        seed=options.seed,
        union_iou=_UNION_IOU if detector.iou is None else detector.iou,
        union_max_det=detector.max_det,
    )


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


def measure_bench(bench: Bench, command: str, started: float) -> Measured:
    """Compare all rows with one detector, and write every file of its run.

    Args:
        bench: What was set up.
        command: The command line, as it could be typed again.
        started: `time.perf_counter` when this began.

    Raises:
        RainmerError: A mistake in the data, or results cannot be written.
    """
    times = StageTimes()
    derained_s = _derained_s(bench)  # by the runs before this one
    comparison = _compare(bench, times)
    conf = bench.options.conf
    seen = _seen(bench, comparison)
    operating = operating_rows(comparison, bench.settings)
    diagnosis = Diagnosis() if bench.options.no_breakdown else diagnose(comparison, conf)
    environment = describe_environment(resolve_device(bench.options.device))
    where = _where(bench, comparison, diagnosis)
    facts = RunFacts(
        command=command,
        date=now(),
        environment=environment,
        config=_resolved(bench),
        elapsed_s={
            "derain": _derained_s(bench) - derained_s,
            "detect": times.total_ms("detect") / 1e3,
            "decode": times.total_ms("decode") / 1e3,
            "wall": time.perf_counter() - started,
        },
        notes=comparison.notes,
        defects={comparison.data.name: comparison.data.defects},
        protocol=_protocol(bench.detector, bench.settings),
        timed_on=TimedOn.of(
            environment,
            (spec.derainer.precision for spec in bench.specs if spec.derainer is not None),
            (sample.size_hw for sample in comparison.data.samples),
        ),
    )
    _write(bench, Measured(comparison, facts, where), operating, diagnosis, seen)
    return Measured(comparison, facts, where)


def _compare(bench: Bench, times: StageTimes) -> Comparison:
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


def _seen(bench: Bench, comparison: Comparison) -> Seen:
    """Detect again, with a bar, what pictures show and other images of a batch had a say in."""
    rows = shown_rows(comparison)
    inputs = padded_by_others(bench.data, bench.detector)
    with progress_bar(len(inputs) * len(rows), quiet=bench.options.quiet) as bar:
        evaluations = seen_alone(
            comparison, rows, inputs, bench.detector, functools.partial(advance, bar)
        )
    return Seen(comparison, rows, evaluations, bench.options.conf)


def _where(bench: Bench, comparison: Comparison, diagnosis: Diagnosis) -> WhereHelps:
    """Find where deraining helps, with a bar over the images that the meter reads."""
    derained = {change.input for change in diagnosis.images} & {"derained", "derained_clean"}
    if not derained:
        return WhereHelps()
    samples = comparison.data.samples
    files: dict[RowInput, dict[str, Path]] = {
        "derained": {sample.name: sample.rainy for sample in samples}
    }
    if "derained_clean" in derained:
        files["derained_clean"] = {s.name: s.clean for s in samples if s.clean is not None}
    total = sum(map(len, files.values()))
    with progress_bar(total, quiet=bench.options.quiet, name="rain meter") as bar:
        readings = {shown: bench.readings(paths, bar.update) for shown, paths in files.items()}
    return find_where(
        comparison,
        diagnosis.images,
        bench.readings.meter.threshold,
        readings,
        resamples=bench.settings.resamples,
        seed=bench.settings.seed,
    )


def _derained_s(bench: Bench) -> float:
    """Return the seconds spent in derainers so far."""
    derainers = {spec.derainer for spec in bench.specs if spec.derainer is not None}
    return sum(derainer.busy_s for derainer in derainers)


def _resolved(bench: Bench) -> dict[str, object]:
    """Return the resolved configuration: the options, and digests of detector and derainers."""
    return {
        **chosen_options(bench.options),
        "data": str(bench.data_file),
        "detector": bench.weights,
        "imgsz": bench.detector.imgsz,
        "detector_fingerprint": bench.detector.fingerprint,
        "derainers": dict(bench.derainers.fingerprints),
    }


def _protocol(detector: MeasuredDetector, settings: Settings) -> dict[str, object]:
    return {
        **detector.protocol,
        "mAP": "pycocotools COCOeval, IoU 0.50:0.95",
        "bootstrap resamples": settings.resamples,
        "counts confidence": settings.count_conf,
    }


def _write(
    bench: Bench,
    measured: Measured,
    operating: Sequence[OperatingRow],
    diagnosis: Diagnosis,
    seen: Seen,
) -> None:
    """Write every file of the run."""
    comparison, facts, where = measured.comparison, measured.facts, measured.where
    more = {
        "images_total": bench.total,
        "operating": [row.flat() for row in operating],
        **where.flat(),
    }
    write_comparison(bench.folder, comparison, facts, more)
    write_curves(bench.folder, operating)
    cut = cut_results(comparison, operating) if bench.options.equal_false_alarms else {}
    write_cut(bench.folder, cut)
    part = part_of(len(comparison.data.samples), bench.total)
    write_diagnosis(bench.folder, diagnosis)
    write_where(bench.folder, where)
    report = Report(
        set_name=bench.data.name,
        detector=detector_title(bench.weights),
        facts=facts,
        rows=comparison.table,
        per_class=comparison.per_class,
        strips=select_strips(seen),
        tallies=count_changes(seen),
        count_conf=bench.settings.count_conf,
        pseudo_labels=comparison.pseudo_labels,
        breakdown=breakdown_section(diagnosis, part),
        operating=operating,
        where=where_section(where, comparison.table, conditions(comparison.table)[0]),
        total=bench.total,
    )
    write_text(bench.folder / "report.html", render_report(report))


def result_lines(measured: Measured, total: int) -> Iterator[str]:
    """Yield what is printed after a run; `total` is the number of images before a limit."""
    comparison = measured.comparison
    yield format_table(comparison.table, shutil.get_terminal_size((120, 24)).columns)
    yield from cost_lines(comparison.table, measured.facts.timed_on)
    yield from harm_sentences(measured.where.harm, conditions(comparison.table)[0])
    part = part_of(len(comparison.data.samples), total)
    yield from (f"note: {note}" for note in [part, *comparison.notes] if note)
    yield from (f"repaired: {line}" for line in comparison.data.defects.repair_lines())


def end_with_defects(data: DetectionSet, folder: Path) -> None:
    """Say at the end what is missing from the results, and end with exit code 2 if anything is.

    Raises:
        DatasetError: The set has defects.
    """
    errors = data.defects.error_lines()
    if errors:
        raise DatasetError(
            f"finished on {len(data.samples)} images, results in {folder}; "
            f"but the set has defects: {'; '.join(errors)}"
        )
