"""PSNR and SSIM of derainers on test sets, in the conventions of published numbers.

python -m eval.restore --derain prenet:prenet.pth --sets rain100H:/data rain100L:/data
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from eval.cli import (
    RunOptions,
    add_run_options,
    advance,
    cache_folder,
    chosen_options,
    command_line,
    progress_bar,
    result_text,
)
from eval.report.facts import RunFacts
from eval.report.files import describe_environment, now
from eval.report.timing import TimedOn
from eval.restore.comparison import Comparison, RowResult, Settings, compare_sets
from eval.restore.methods import Method, build_methods
from eval.restore.metrics import EXTRA, METRICS, load_metrics
from eval.restore.output import write_comparison
from eval.restore.report import Report, render_report
from eval.restore.rows import RowRunner
from eval.restore.scores import CONVENTIONS
from eval.restore.sets import RestorationSet, load_sets
from eval.restore.strips import Strips, select_strips
from eval.restore.tables import format_text
from eval.rows.derainers import PLACEHOLDER
from rainmer.cli import (
    StageOptions,
    add_stage_options,
    make_parser,
    parse_options,
    run_command,
    stage_options,
)
from rainmer.device import resolve_device
from rainmer.errors import DatasetError
from rainmer.files import make_folder, safe_file_name, write_text
from rainmer.frames.arrays import Frame
from rainmer.metrics import Convention
from rainmer.stage import Derainer
from rainmer.stage.specs import SPEC_HELP

__all__ = ["main"]

PAPER_TILE = 512
PAPER_OVERLAP = 0

_SCORED = {
    "paper": "as the derainer gives it",
    "stage": "rounded to 8 bits, as saved in a PNG file",
    "truncate": "rounded down to 8 bits",
}
_LONGEST_NAME = 80
_DEFAULT_CONVENTIONS = ["official", "matlab"]
_EXAMPLE = """\
  python -m eval.restore --derain prenet:prenet-rain100h.pth --sets rain100H:/data
  python -m eval.restore --derain rainmer:main.pth results:restormer/ --protocol paper \\
      --sets rain100L:/data rain100H:/data test100:/data mine=folders:pairs/
  python -m rainmer.data.layouts list             # the names of sets"""


@dataclass(frozen=True, kw_only=True)
class _Options(RunOptions, StageOptions):
    """The options of the command."""

    derain: list[str]
    sets: list[str]
    conventions: list[Convention]
    metrics: list[str]
    allow_download: bool
    protocol: Literal["stage", "paper"]
    allow_missing: bool
    truncate: bool


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What a run measures, and how."""

    folder: Path
    sets: Sequence[RestorationSet]
    methods: Sequence[Method]
    runner: RowRunner
    settings: Settings


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError for invalid input."""
    started = time.perf_counter()
    options = _parse(argv)
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    bench = _set_up(options)
    comparison, strips = _measure(bench, quiet=options.quiet)
    facts = _facts(options, bench, comparison, command_line("eval.restore", argv), started)
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
    options: _Options, bench: _Bench, comparison: Comparison, command: str, started: float
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


def _parse(argv: Sequence[str] | None) -> _Options:
    parser = make_parser(
        "python -m eval.restore",
        "Measure how close derained images are to the clean ones: PSNR and SSIM on test sets.",
        _EXAMPLE,
    )
    _add_options(parser)
    add_run_options(parser, out="runs/restore/SETS", limit="images of each set")
    add_stage_options(parser, precision="fp32")
    if parser.parse_known_args(argv)[0].protocol == "paper":
        parser.set_defaults(tile=PAPER_TILE, overlap=PAPER_OVERLAP)
    options = parse_options(parser, _Options, argv)
    if options.protocol == "paper" and options.truncate:
        parser.error("--truncate is of 8-bit frames, but --protocol paper scores unrounded ones")
    return replace(options, conventions=list(dict.fromkeys(options.conventions)))


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that are specific to this command."""
    parser.add_argument(
        "--derain",
        nargs="+",
        required=True,
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; LABEL=SPEC names one, {PLACEHOLDER} in it is the "
        "set's label; results of several sets lie in FOLDER/LABEL",
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        required=True,
        metavar="[LABEL=]NAME:ROOT",
        help="test sets: name of a layout (folders: two folders of pairs), folder of the data",
    )
    parser.add_argument(
        "--conventions",
        nargs="+",
        choices=CONVENTIONS,
        default=_DEFAULT_CONVENTIONS,
        metavar="NAME",
        help=f"of {', '.join(CONVENTIONS)}; the first is the main one; "
        f"default: {' '.join(_DEFAULT_CONVENTIONS)}",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=[],
        metavar="NAME",
        help=f"more metrics, of {', '.join(METRICS)}; needs pip install 'rainmer[{EXTRA}]'",
    )
    parser.add_argument(
        "--allow-download", action="store_true", help="fetch the weights that --metrics needs"
    )
    parser.add_argument(
        "--protocol",
        choices=("stage", "paper"),
        default="stage",
        help="stage: as the stage derains, scored as 8-bit files; paper: as the paper's code, "
        f"tiles of {PAPER_TILE} where both sides are longer, no overlap, not rounded",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="take results: that lack images; their rows say so",
    )
    parser.add_argument(
        "--truncate",
        action="store_true",
        help="round derained frames down to 8 bits, as published numbers of PReNet are",
    )


def _set_up(options: _Options) -> _Bench:
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


def _stage(options: _Options) -> dict[str, Any]:
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


def _resolved(options: _Options, bench: _Bench) -> dict[str, object]:
    """Return the full configuration: options, and digests of derainers and metrics' weights."""
    derainers = {
        method.name: {label: derainer.fingerprint for label, derainer in method.derainers.items()}
        for method in bench.methods
    }
    metrics = bench.runner.metrics
    weights = {"metrics_weights": metrics.digests} if metrics else {}
    return {**chosen_options(options), "derainers": derainers, **weights}


def _protocol(options: _Options, bench: _Bench) -> dict[str, object]:
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


if __name__ == "__main__":
    run_command(main)
