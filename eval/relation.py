"""Does better restoration mean better detection? Gains of both, over derainers and sets.

python -m eval.relation --derain prenet:prenet.pth --sets day.yaml night.yaml --detector yolov8n.pt
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from detection.timing import StageTimes
from detection.yolo.harness import ValidationHarness
from eval.cache import CachedDerainer
from eval.cli import (
    add_detector_options,
    add_run_options,
    advance,
    cache_folder,
    chosen_options,
    command_line,
    progress_bar,
)
from eval.comparison import Settings, compare
from eval.files import describe_environment, now
from eval.relating.correlations import correlate
from eval.relating.derainers import PLACEHOLDER, Derainers
from eval.relating.gains import measure_gains
from eval.relating.labels import label_set
from eval.relating.output import Relation, SetFacts, write_relation
from eval.relating.report import RelationReport, render_relation
from eval.relating.words import gain_table, summary_lines
from eval.rows import RowSpec
from eval.sets import DetectionSet, load_set
from eval.street.detector import detector_weights
from eval.street.embedded import INPUT_SIZE, street_set
from rainmer.cli import (
    add_stage_options,
    fraction,
    make_parser,
    resolve_device,
    run_command,
    stage_options,
)
from rainmer.errors import DatasetError, OutputError, RainmerError
from rainmer.files import make_folder, write_text
from rainmer.specs import DEFAULT_DERAINER, SPEC_HELP

__all__ = ["main"]

CONTROLS = ("none", "median")

_LONGEST_NAME = 80
_OWN_LABELS = "pseudo-labels of the detector itself"
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
    bench = _set_up(options)
    with _progress(bench) as bar:
        for data in bench.sets:
            try:
                _measure(bench, data, bar)
            except OutputError:
                raise  # a full disk concerns all sets
            except RainmerError as error:
                bench.failures[data.name] = str(error)
    if not bench.measured:
        raise DatasetError(f"no set could be measured: {_reasons(bench)}")
    relation = _relation(bench)
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


@dataclass
class _Bench:
    """Everything that the sets share, and what has been measured so far."""

    options: argparse.Namespace
    detector_name: str
    detector: ValidationHarness
    labeller: ValidationHarness | None
    derainers: Derainers
    sets: list[DetectionSet]
    folder: Path
    failures: dict[str, str]
    measured: list[SetFacts] = field(default_factory=list)
    times: StageTimes = field(default_factory=StageTimes)
    derain_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)


def _set_up(options: argparse.Namespace) -> _Bench:
    """Load detectors, derainers and sets: what is wrong with them is said before the work."""
    started = time.perf_counter()
    device = resolve_device(options.device)
    detector_name = options.detector or str(detector_weights())
    more: dict[str, Any] = {
        "imgsz": options.imgsz or INPUT_SIZE,
        "allow_download": options.allow_download,
    }
    detector = ValidationHarness(detector_name, device, **more)
    labeller = ValidationHarness(options.labeller, device, **more) if options.labeller else None
    specs = [] if options.derain is None else options.derain or [DEFAULT_DERAINER]
    controls = [] if options.no_control else CONTROLS
    chosen = list(dict.fromkeys([*specs, *controls]))
    derainers = Derainers(chosen, stage_options(options), cache_folder(options))
    if not derainers.names:
        raise RainmerError("--no-control and no --derain: there is nothing to compare")
    sets, failures = _load_sets(options)
    derainers.check_names(sets)
    name = _run_name([data.name for data in sets], Path(detector_name).stem)
    folder = make_folder(options.out or Path("runs", "relation", name))
    return _Bench(
        options, detector_name, detector, labeller, derainers, sets, folder, failures,
        started=started,
    )  # fmt: skip


def _load_sets(options: argparse.Namespace) -> tuple[list[DetectionSet], dict[str, str]]:
    """Read every set; those that cannot be used are returned with the reason."""
    files = options.sets or [street_set(processes=os.cpu_count() or 1, quiet=options.quiet)]
    sets: dict[str, DetectionSet] = {}
    failures: dict[str, str] = {}
    for file in dict.fromkeys(map(str, files)):
        try:
            data = load_set(file, quiet=options.quiet)
            data = data.restricted(options.conditions, options.limit)
            if not data.has_clean:
                raise DatasetError(f"{data.name} has no clean images, hence no PSNR to relate")
            if data.name in sets:
                raise DatasetError(
                    f"another set is called {data.name!r}; give it a name of its own"
                )
        except OutputError:
            raise
        except RainmerError as error:
            failures[file] = str(error)
        else:
            sets[data.name] = data
    if not sets:
        raise DatasetError("; ".join(failures.values()))
    return list(sets.values()), failures


def _run_name(sets: Sequence[str], detector: str) -> str:
    joined = "+".join(sets)
    return f"{joined if len(joined) <= _LONGEST_NAME else f'{len(sets)}-sets'}-{detector}"


def _progress(bench: _Bench) -> tqdm[Any]:
    rows = len(bench.derainers.names) + 2
    total = sum(
        len(data.samples) * (rows + (bench.labeller is not None and data.annotations is None))
        for data in bench.sets
    )
    return progress_bar(total, quiet=bench.options.quiet)


def _measure(bench: _Bench, data: DetectionSet, bar: tqdm[Any]) -> None:
    """Run one set through the comparison of eval.detect, and keep its gains."""
    options = bench.options
    rows_folder = bench.folder / "rows" / data.name

    def count(label: str, images: int) -> None:
        advance(bar, f"{data.name}: {label}", images)

    cached = bench.derainers.for_set(data.name)
    truth = "the set's boxes" if data.annotations is not None else _OWN_LABELS
    if data.annotations is None and bench.labeller is not None:
        truth = f"pseudo-labels of {Path(options.labeller).name}"
        data = label_set(
            data,
            bench.labeller,
            options.pseudo_conf,
            rows_folder,
            times=bench.times,
            progress=lambda images: count("labels", images),
        )
    busy = sum(derainer.busy_s for derainer in cached)
    # Intervals are made with the gains; derained clean images are not needed for them.
    settings = Settings(count_conf=options.conf, pseudo_conf=options.pseudo_conf, resamples=0)
    comparison = compare(
        data,
        bench.detector,
        _row_specs(cached),
        rows_folder,
        settings,
        times=bench.times,
        progress=count,
    )
    bench.derain_s += sum(derainer.busy_s for derainer in cached) - busy
    bar.set_description(f"{data.name}: bootstrap")
    gains = measure_gains(
        comparison,
        truth=truth,
        conf=options.conf,
        resamples=options.resamples,
        seed=options.seed,
    )
    notes = [note for note in comparison.notes if not note.startswith("not measured on clean")]
    bench.measured.append(SetFacts(gains, comparison.data, notes))


def _row_specs(derainers: Sequence[CachedDerainer]) -> list[RowSpec]:
    derained = [RowSpec("derained", derainer) for derainer in derainers]
    return [RowSpec("rainy"), RowSpec("clean"), *derained]


def _relation(bench: _Bench) -> Relation:
    started = time.perf_counter()
    quiet = bench.options.quiet
    with tqdm(desc="correlations", disable=quiet, delay=2, dynamic_ncols=True) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        gains = [one.gains for one in bench.measured]
        correlations = correlate(gains, bench.options.seed, advance)
    return Relation(
        sets=bench.measured,
        correlations=correlations,
        failures=bench.failures,
        config=_resolved(bench),
        environment=describe_environment(bench.detector.device),
        elapsed={
            "derain": bench.derain_s,
            "detect": bench.times.total_ms("detect") / 1e3,
            "decode": bench.times.total_ms("decode") / 1e3,
            "correlate": time.perf_counter() - started,
            "wall": time.perf_counter() - bench.started,
        },
    )


def _resolved(bench: _Bench) -> dict[str, Any]:
    """Return what was run, in full: options, and digests of what files held."""
    return {
        **chosen_options(bench.options),
        "detector": bench.detector_name,
        "imgsz": bench.detector.imgsz,
        "detector_fingerprint": bench.detector.fingerprint,
        "labeller_fingerprint": bench.labeller.fingerprint if bench.labeller else None,
        "derainers": bench.derainers.fingerprints,
    }


def _report(bench: _Bench, relation: Relation, command: str) -> RelationReport:
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


def _reasons(bench: _Bench) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in bench.failures.items())


def _end_with_defects(bench: _Bench) -> None:
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
