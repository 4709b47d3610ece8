"""A run of the command: sets and derainers, measured set by set."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from detection.timing import StageTimes
from detection.yolo.harness import ValidationHarness
from eval.cli import (
    advance,
    cache_folder,
    chosen_options,
    progress_bar,
)
from eval.detect.comparison import compare
from eval.detect.table import Settings
from eval.relation.correlations import correlate
from eval.relation.gains import measure_gains
from eval.relation.labels import label_set
from eval.relation.output import Relation, SetFacts
from eval.report.files import describe_environment
from eval.rows.cache import RowDerainer
from eval.rows.derainers import Derainers
from eval.rows.run import RowSpec
from eval.sets import DetectionSet, load_set
from eval.street.detector import detector_weights
from eval.street.embedded import INPUT_SIZE, street_set
from rainmer.cli import stage_options
from rainmer.device import resolve_device
from rainmer.errors import DatasetError, OutputError, RainmerError
from rainmer.files import make_folder
from rainmer.stage.specs import DEFAULT_DERAINER

__all__ = ["CONTROLS", "Bench", "measure", "progress", "relate", "resolved", "set_up"]


CONTROLS = ("none", "median")


_LONGEST_NAME = 80


_OWN_LABELS = "pseudo-labels of the detector itself"


@dataclass
class Bench:
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


def set_up(options: argparse.Namespace) -> Bench:
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
    return Bench(
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


def progress(bench: Bench) -> tqdm[Any]:
    """Create the bar over all frames that are to be derained and detected."""
    rows = len(bench.derainers.names) + 2
    total = sum(
        len(data.samples) * (rows + (bench.labeller is not None and data.annotations is None))
        for data in bench.sets
    )
    return progress_bar(total, quiet=bench.options.quiet)


def measure(bench: Bench, data: DetectionSet, bar: tqdm[Any]) -> None:
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
    bench.measured.append(SetFacts(gains, comparison.data, comparison.data_notes))


def _row_specs(derainers: Sequence[RowDerainer]) -> list[RowSpec]:
    derained = [RowSpec("derained", derainer) for derainer in derainers]
    return [RowSpec("rainy"), RowSpec("clean"), *derained]


def relate(bench: Bench) -> Relation:
    """Relate gains in restoration to gains in mAP, over all rows measured."""
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
        config=resolved(bench),
        environment=describe_environment(bench.detector.device),
        elapsed={
            "derain": bench.derain_s,
            "detect": bench.times.total_ms("detect") / 1e3,
            "decode": bench.times.total_ms("decode") / 1e3,
            "correlate": time.perf_counter() - started,
            "wall": time.perf_counter() - bench.started,
        },
    )


def resolved(bench: Bench) -> dict[str, Any]:
    """Return what was run, in full: options, and digests of what files held."""
    return {
        **chosen_options(bench.options),
        "detector": bench.detector_name,
        "imgsz": bench.detector.imgsz,
        "detector_fingerprint": bench.detector.fingerprint,
        "labeller_fingerprint": bench.labeller.fingerprint if bench.labeller else None,
        "derainers": bench.derainers.fingerprints,
    }
