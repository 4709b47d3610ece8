"""A run of the command: what is set up and measured, and what is printed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.cli import (
    advance,
    cache_folder,
    chosen_options,
    progress_bar,
    result_text,
)
from eval.report.facts import RunFacts
from eval.report.files import describe_environment, now
from eval.report.timing import TimedOn
from eval.restore.comparison import Comparison, RowResult, Settings, compare_sets
from eval.restore.methods import Method, build_methods
from eval.restore.metrics import load_metrics
from eval.restore.options import RestoreOptions
from eval.restore.output import write_comparison
from eval.restore.report import Report, render_report
from eval.restore.rows import RowRunner
from eval.restore.sets import RestorationSet, load_sets
from eval.restore.strips import Strips, select_strips
from eval.restore.tables import format_text
from rainmer.cli import stage_options
from rainmer.device import resolve_device
from rainmer.errors import DatasetError
from rainmer.files import make_folder, safe_file_name, write_text
from rainmer.frames.arrays import Frame
from rainmer.stage import Derainer

__all__ = ["run"]

_SCORED = {
    "paper": "as the derainer gives it",
    "stage": "rounded to 8 bits, as saved in a PNG file",
    "truncate": "rounded down to 8 bits",
}

_LONGEST_NAME = 80


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What a run measures, and how."""

    folder: Path
    sets: Sequence[RestorationSet]
    methods: Sequence[Method]
    runner: RowRunner
    settings: Settings


def run(options: RestoreOptions, command: str) -> None:
    """Run the command; `command` is how it was typed. Raises RainmerError for invalid input."""
    started = time.perf_counter()
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    bench = _set_up(options)
    comparison, strips = _measure(bench, quiet=options.quiet)
    facts = _facts(options, bench, comparison, command, started)
    write_comparison(bench.folder, comparison, bench.settings, facts)
    report = Report(comparison=comparison, settings=bench.settings, facts=facts, strips=strips)
    write_text(bench.folder / "report.html", render_report(report))
    settings = bench.settings
    main, timed_on = settings.conventions[0], facts.timed_on
    table = format_text(comparison.table, main, settings.metrics, timed_on)
    notes = (f"note: {note}" for note in comparison.notes)
    print(result_text(bench.folder, [table, *notes], as_json=options.json))
    _refuse_incomplete(comparison, bench.folder)


def _facts(
    options: RestoreOptions, bench: _Bench, comparison: Comparison, command: str, started: float
) -> RunFacts:
    environment = describe_environment(bench.runner.device)
    derainers = [d for method in bench.methods for d in method.derainers.values()]
    scores = [score for row in comparison.rows for score in row.scores.values() if score.size]
    return RunFacts(
        command=command,
        date=now(),
        environment=environment,
        config=_resolved(options, bench),
        elapsed_s={"derain": bench.runner.derain_s, "wall": time.perf_counter() - started},
        notes=comparison.notes,
        protocol=_protocol(options, bench),
        timed_on=TimedOn.of(
            environment,
            (derainer.precision for derainer in derainers if isinstance(derainer, Derainer)),
            ((score.size[0], score.size[1]) for score in scores),
        ),
    )


def _set_up(options: RestoreOptions) -> _Bench:
    """Load sets, derainers and metrics, so that mistakes end the run early."""
    device = resolve_device(options.device)
    metrics = None
    if options.metrics:
        metrics = load_metrics(
            options.metrics, allow_download=options.allow_download, progress=not options.quiet
        )
    sets = load_sets(options.sets, limit=options.limit, progress=not options.quiet)
    methods = build_methods(
        options.derain, sets, _stage(options), allow_missing=options.allow_missing
    )
    folder = make_folder(options.out or Path("runs", "restore", safe_file_name(_run_name(sets))))
    runner = RowRunner(
        folder / "rows",
        options.conventions,
        unrounded=options.protocol == "paper",
        cache=cache_folder(options),
        device=device,
        metrics=metrics,
    )
    settings = Settings(
        conventions=options.conventions,
        resamples=options.resamples,
        seed=options.seed,
        metrics=metrics.metrics if metrics else (),
    )
    return _Bench(folder=folder, sets=sets, methods=methods, runner=runner, settings=settings)


def _measure(bench: _Bench, *, quiet: bool) -> tuple[Comparison, Strips]:
    """Measure all rows, and derain the images that the report shows."""

    def derain(row: RowResult, frame: Frame, name: str) -> Frame:
        assert row.method is not None
        return bench.runner.derained_frame(row.image_set.label, row.method, frame, name)

    with progress_bar(_total(bench), quiet=quiet) as bar:
        comparison = compare_sets(
            bench.sets,
            bench.methods,
            bench.runner,
            bench.settings,
            lambda label, images: advance(bar, label, images),
        )
    main = bench.settings.conventions[0]
    return comparison, select_strips(comparison.rows, main, derain, bench.settings.metrics)


def _stage(options: RestoreOptions) -> dict[str, Any]:
    """Return the arguments of the derainers."""
    paper = {"blend": "mean", "tile_by": "short"} if options.protocol == "paper" else {}
    return {**stage_options(options), **paper, "truncate": options.truncate}


def _run_name(sets: Sequence[RestorationSet]) -> str:
    name = "-".join(image_set.label for image_set in sets)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{sets[0].label[:_LONGEST_NAME]}-and-{len(sets) - 1}-more"


def _total(bench: _Bench) -> int:
    """Return the total number of images over all rows."""
    missing = sum(len(names) for method in bench.methods for names in method.missing.values())
    images = sum(len(image_set.images) for image_set in bench.sets)
    return images * (1 + len(bench.methods)) - missing


def _resolved(options: RestoreOptions, bench: _Bench) -> dict[str, object]:
    """Return the full configuration: options, and digests of derainers and metrics' weights."""
    derainers = {
        method.name: {label: derainer.fingerprint for label, derainer in method.derainers.items()}
        for method in bench.methods
    }
    metrics = bench.runner.metrics
    weights = {"metrics_weights": metrics.digests} if metrics else {}
    return {**chosen_options(options), "derainers": derainers, **weights}


def _protocol(options: RestoreOptions, bench: _Bench) -> dict[str, object]:
    """Return the facts that the report states about the measurement."""
    tiles = "none, whole frames"
    if options.tile:
        side = "both sides are" if options.protocol == "paper" else "a side is"
        tiles = f"{options.tile} px where {side} longer, overlap {options.overlap} px"
    metrics = bench.runner.metrics
    return {
        "protocol": options.protocol,
        "scored": _SCORED["truncate" if options.truncate else options.protocol],
        "tiles": tiles,
        "query of Rainmer's encoder": "the whole frame, resized to 128x128 on 8 bits",
        "precision": options.precision,
        "SSIM": "Gaussian window of 11x11, deviation 1.5, inside the image only",
        "bootstrap resamples": bench.settings.resamples,
        **({"other metrics": f"piq {metrics.version}"} if metrics else {}),
    }


def _refuse_incomplete(comparison: Comparison, folder: Path) -> None:
    """Raise DatasetError if images were left out."""
    errors = comparison.errors()
    if errors:
        raise DatasetError(
            f"finished, results in {folder}; but images were left out: {'; '.join(errors)}"
        )
