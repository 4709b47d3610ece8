"""PSNR and SSIM of derainers on test sets, in the conventions that published numbers come in.

python -m eval.restore --derain prenet:prenet.pth --sets rain100H:/data rain100L:/data
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.cli import (
    add_run_options,
    advance,
    cache_folder,
    chosen_options,
    command_line,
    progress_bar,
)
from eval.report.files import describe_environment, now
from eval.restore.comparison import Comparison, RowResult, Settings, compare_sets
from eval.restore.methods import Method, build_methods
from eval.restore.metrics import EXTRA, METRICS, ExtraMetrics, load_metrics
from eval.restore.output import write_comparison
from eval.restore.report import Report, render_report
from eval.restore.rows import RowRunner
from eval.restore.scores import CONVENTIONS
from eval.restore.sets import RestorationSet, load_sets
from eval.restore.strips import select_strips
from eval.restore.texts import format_text
from rainmer.cli import add_stage_options, make_parser, run_command, stage_options
from rainmer.device import resolve_device
from rainmer.errors import DatasetError
from rainmer.files import make_folder, write_text
from rainmer.frames.arrays import Frame
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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError for what the user can mend."""
    started = time.perf_counter()
    options = _parse(argv)
    if options.quiet:
        logging.getLogger().setLevel(logging.WARNING)
    device = resolve_device(options.device)
    extra = _metrics(options)
    metrics = extra.metrics if extra else ()
    sets = load_sets(options.sets, limit=options.limit, progress=not options.quiet)
    methods = build_methods(
        options.derain, sets, _stage(options), allow_missing=options.allow_missing
    )
    folder = make_folder(options.out or Path("runs", "restore", _run_name(sets)))
    runner = RowRunner(
        folder / "rows",
        options.conventions,
        unrounded=options.protocol == "paper",
        cache=cache_folder(options),
        device=device,
        metrics=extra,
    )
    settings = Settings(
        conventions=options.conventions,
        resamples=options.resamples,
        seed=options.seed,
        metrics=metrics,
    )
    with progress_bar(_total(sets, methods), quiet=options.quiet) as bar:
        comparison = compare_sets(
            sets, methods, runner, settings, lambda label, images: advance(bar, label, images)
        )
    strips = select_strips(
        comparison.rows,
        options.conventions[0],
        lambda row, frame, name: _derained(runner, row, frame, name),
        metrics,
    )
    elapsed = {"derain": runner.derain_s, "wall": time.perf_counter() - started}
    config = _resolved(options, methods, extra)
    environment = describe_environment(device)
    write_comparison(
        folder,
        comparison,
        options.conventions,
        metrics,
        config=config,
        environment=environment,
        elapsed=elapsed,
    )
    report = Report(
        rows=comparison.table,
        conventions=options.conventions,
        metrics=metrics,
        scenes=comparison.scenes,
        results=comparison.rows,
        strips=strips,
        command=command_line("eval.restore", argv),
        date=now(),
        protocol=_protocol(options, settings, extra),
        notes=comparison.notes,
        environment=environment,
        config=config,
        elapsed=elapsed,
    )
    write_text(folder / "report.html", render_report(report))
    _print_result(comparison, folder, options)
    errors = comparison.errors()
    if errors:
        raise DatasetError(
            f"finished, results in {folder}; but images were left out: {'; '.join(errors)}"
        )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m eval.restore",
        "Measure how close derained images are to the clean ones: PSNR and SSIM on test sets.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--derain",
        nargs="+",
        required=True,
        metavar="SPEC",
        help=f"derainers to compare: {SPEC_HELP}; results of several sets lie in FOLDER/LABEL",
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
    add_run_options(parser, out="runs/restore/SETS", limit="images of each set")
    add_stage_options(parser)
    stage_overlap = parser.get_default("overlap")
    parser.set_defaults(overlap=None)
    options = parser.parse_args(argv)
    options.conventions = list(dict.fromkeys(options.conventions))
    is_paper = options.protocol == "paper"
    if is_paper and options.truncate:
        parser.error("--truncate is of 8-bit frames, but --protocol paper scores unrounded ones")
    if options.overlap is None:
        options.overlap = PAPER_OVERLAP if is_paper else stage_overlap
    if options.tile is None and is_paper:
        options.tile = PAPER_TILE
    return options


def _metrics(options: argparse.Namespace) -> ExtraMetrics | None:
    """Make the metrics asked for ready; None without one."""
    if not options.metrics:
        return None
    return load_metrics(
        options.metrics, allow_download=options.allow_download, progress=not options.quiet
    )


def _stage(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the derainers."""
    paper = {"blend": "mean", "tile_by": "short"} if options.protocol == "paper" else {}
    return {**stage_options(options), **paper, "truncate": options.truncate}


def _run_name(sets: Sequence[RestorationSet]) -> str:
    name = "-".join(one.label for one in sets)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{sets[0].label[:_LONGEST_NAME]}-and-{len(sets) - 1}-more"


def _total(sets: Sequence[RestorationSet], methods: Sequence[Method]) -> int:
    """Return the number of images that all rows have together."""
    missing = sum(len(names) for method in methods for names in method.missing.values())
    return sum(len(one.images) for one in sets) * (1 + len(methods)) - missing


def _derained(runner: RowRunner, row: RowResult, frame: Frame, name: str) -> Frame:
    """Derain a frame for a picture, as its row did."""
    assert row.method is not None
    return runner.derained_frame(row.images.label, row.method, frame, name)


def _resolved(
    options: argparse.Namespace, methods: Sequence[Method], extra: ExtraMetrics | None
) -> dict[str, Any]:
    """Return what was run, in full: options, and digests of what files held."""
    prints = {
        method.name: {label: one.fingerprint for label, one in method.derainers.items()}
        for method in methods
    }
    weights = {"metrics_weights": extra.digests} if extra else {}
    return {**chosen_options(options), "derainers": prints, **weights}


def _protocol(
    options: argparse.Namespace, settings: Settings, extra: ExtraMetrics | None
) -> dict[str, object]:
    tiles = "none, whole frames"
    if options.tile:
        side = "both sides are" if options.protocol == "paper" else "a side is"
        tiles = f"{options.tile} px where {side} longer, overlap {options.overlap} px"
    return {
        "protocol": options.protocol,
        "scored": _SCORED["truncate" if options.truncate else options.protocol],
        "tiles": tiles,
        "query of Rainmer's encoder": "the whole frame, resized to 128x128 on 8 bits",
        "precision": options.precision,
        "SSIM": "Gaussian window of 11x11, deviation 1.5, inside the image only",
        "bootstrap resamples": settings.resamples,
        **({"other metrics": f"piq {extra.version}"} if extra else {}),
    }


def _print_result(comparison: Comparison, folder: Path, options: argparse.Namespace) -> None:
    if options.json:
        print((folder / "metrics.json").read_text(encoding="utf-8"), end="")
        return
    metrics = [METRICS[name] for name in dict.fromkeys(options.metrics)]
    print(format_text(comparison.table, options.conventions[0], metrics))
    for note in comparison.notes:
        print(f"note: {note}")
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    run_command(main)
