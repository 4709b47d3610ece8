"""What each command of `python -m rainmer.align` does and prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rainmer.align.balance import (
    BalancePlan,
    checked_edges,
    copy_selected,
    draw,
    other_files,
    plan_balance,
    reference_shares,
    selected_files,
    target_shares,
    write_selection,
)
from rainmer.align.crop import (
    CropJob,
    crop_images,
    folder_jobs,
    nightrain_jobs,
    refuse_results_inside,
)
from rainmer.align.figures import density_figure, radar_figure
from rainmer.align.leaks import Fingerprint, compared_images, find_leaks, read_fingerprint
from rainmer.align.measure import (
    MeasuredPair,
    SetSummary,
    bin_shares,
    densities_of,
    measure_images,
    read_measured,
    read_summary,
    summarize,
    write_summary,
)
from rainmer.align.options import (
    AlignOptions,
    BalanceOptions,
    CropOptions,
    LeaksOptions,
    MeasureOptions,
    PlotOptions,
)
from rainmer.align.published import PUBLISHED_SUMMARIES
from rainmer.background import ordered_map
from rainmer.cli import progress_bar
from rainmer.console import printable
from rainmer.data.layouts.sets import (
    no_pairs_message,
    pair_folders,
    read_sets,
    unpaired_lines,
)
from rainmer.errors import DatasetError, ImageError, OutputError
from rainmer.figures import save_figure
from rainmer.files import write_csv, write_text
from rainmer.frames.inputs import raise_skipped

__all__ = ["EXIT_LEAKS", "run"]

EXIT_LEAKS = 1
"""Exit code of `leaks` if there are leaks; errors and broken images exit with 2, as everywhere."""

_SELECTION, _PLAN = "selection.csv", "balance.json"

_MEASURED_HEAD = """\
| set | pairs | clean | rain density | <= 0.04 | <= 0.08 | > 0.08 | PSNR (dB) | equal pairs |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def run(options: AlignOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the options, or data or results that cannot be read or written.
            Also, at the end, when images were skipped; the results of all others are kept.
        SystemExit: With `EXIT_LEAKS`, if `leaks` finds any.
    """
    match options:
        case CropOptions() as crop:
            _crop(crop)
        case MeasureOptions() as measure:
            _measure(measure)
        case BalanceOptions() as balance:
            _balance(balance)
        case PlotOptions() as plot:
            _plot(plot)
        case LeaksOptions() as leaks:
            _leaks(leaks)


def _crop(options: CropOptions) -> None:
    skipped: list[str] = []
    jobs = _crop_jobs(options, skipped)[: options.limit]
    refuse_results_inside(options.out, [job.rainy.parent for job in jobs])
    total = len(jobs) + len({job.clean for job in jobs}) + len(skipped)
    images = crop_images(
        jobs, options.out, size=options.size, threads=options.threads, skipped=skipped
    )
    cropped = list(progress_bar(total, items=images, quiet=options.quiet))
    crops = sum(image.crops for image in cropped)
    before = sum(image.unchanged for image in cropped)
    text = f"{len(cropped)} images gave {crops} crops of {options.size} pixels"
    print(f"{text}; {before} were cut before; results in {options.out}")
    raise_skipped(skipped, total)


def _crop_jobs(options: CropOptions, skipped: list[str]) -> list[CropJob]:
    if options.root and not (options.rainy or options.clean):
        return nightrain_jobs(options.root, options.split, skipped)
    if options.root or not (options.rainy and options.clean):
        raise DatasetError("name folders of GTAV-NightRain, or both --rainy DIR and --clean DIR")
    images = pair_folders("pairs", options.rainy, options.clean, options.pairing)
    if not images.pairs:
        raise DatasetError(no_pairs_message(str(options.rainy), images))
    skipped += unpaired_lines(images)
    return folder_jobs(images)


def _measure(options: MeasureOptions) -> None:
    sets = read_sets(options.sets, options.pairing)
    for images in sets:
        if not images.pairs:
            raise DatasetError(no_pairs_message(images.name, images))
    all_skipped: list[str] = []
    rows = []
    for images in sets:
        skipped = unpaired_lines(images)
        table = options.out / f"{images.name}.csv"
        pairs = measure_images(images, table, threads=options.threads, skipped=skipped)
        total = len(images.pairs)
        measured = list(
            progress_bar(total, items=pairs, unit="pair", quiet=options.quiet, name=images.name)
        )
        if measured:
            summary = summarize(images.name, measured)
            write_summary(table.with_suffix(".json"), summary, skipped)
            rows.append(_measured_row(summary, measured))
        all_skipped += skipped
    print(_MEASURED_HEAD, *rows, f"results in {options.out}", sep="\n")
    raise_skipped(all_skipped, sum(len(images.rainy) for images in sets))


def _measured_row(summary: SetSummary, measured: Sequence[MeasuredPair]) -> str:
    cells = [
        summary.name,
        str(summary.pairs),
        str(summary.distinct_clean),
        f"{summary.rain_density:.4f}",
        *(f"{share:.1%}" for share in bin_shares(densities_of(measured))),
        "none" if summary.psnr_db is None else f"{summary.psnr_db:.2f}",
        str(summary.equal_pairs),
    ]
    return f"| {' | '.join(cells)} |"


def _balance(options: BalanceOptions) -> None:
    edges = checked_edges(options.bins)
    measured = read_measured(options.table)
    densities = densities_of(measured)
    shares = target_shares(reference_shares(options.reference, edges))
    plan = plan_balance(densities, shares, edges, options.keep)
    bins = [indices.tolist() for indices in draw(densities, plan, options.seed, edges)]
    files = selected_files([measured[index] for indices in bins for index in indices])
    others = other_files(files, options.out)
    if others:
        raise OutputError(
            f"{options.out} holds {len(others)} files that this selection does not have, such as "
            f"{others[0]}: choose another folder for --out"
        )
    write_text(options.out / _PLAN, json.dumps(_plan_content(options, plan), indent=1) + "\n")
    write_selection(options.out / _SELECTION, measured, bins)
    skipped: list[str] = []
    copying = copy_selected(files, options.out, link=options.link, skipped=skipped)
    before = sum(progress_bar(len(files), items=copying, unit="file", quiet=options.quiet))
    _print_plan(plan, edges)
    print(f"{sum(plan.taken)} pairs; {before} files were there; results in {options.out}")
    raise_skipped(skipped, len(files))


def _plan_content(options: BalanceOptions, plan: BalancePlan) -> dict[str, object]:
    return {
        "table": str(options.table),
        "reference": [str(path) for path in options.reference] or ["SynRain", "GT-Rain"],
        "bins": options.bins,
        "keep": options.keep,
        "seed": options.seed,
        "shares": plan.shares,
        "available": plan.available,
        "wanted": plan.wanted,
        "taken": plan.taken,
    }


def _print_plan(plan: BalancePlan, edges: Sequence[float]) -> None:
    print("| rain density | share wanted | pairs there | taken |\n| --- | ---: | ---: | ---: |")
    names = [*(f"up to {edge:g}" for edge in edges), f"above {edges[-1]:g}"]
    rows = zip(names, plan.shares, plan.available, plan.wanted, plan.taken, strict=True)
    for name, share, available, wanted, taken in rows:
        lacking = f" of {wanted} wanted" if taken < wanted else ""
        print(f"| {name} | {share:.2%} | {available} | {taken}{lacking} |")
    if plan.taken != plan.wanted:
        print("note: a bin has too few pairs for these shares; --keep scarcest takes fewer of all")


def _plot(options: PlotOptions) -> None:
    summaries = [read_summary(path) for path in options.files]
    if options.published:
        summaries += PUBLISHED_SUMMARIES.values()
    if not summaries:
        raise DatasetError("nothing to plot: name measured sets, or add --published")
    radar, density = (options.out / f"{name}.{options.format}" for name in ("radar", "density"))
    save_figure(radar, radar_figure(summaries, options.entropy))
    save_figure(density, density_figure(summaries))
    print(f"{radar}\n{density}")


def _leaks(options: LeaksOptions) -> None:
    sets = read_sets([options.train, *options.tests], options.pairing)
    skipped: list[str] = []
    known = _fingerprints(compared_images(sets), options, skipped)
    leaks = find_leaks(sets[0], sets[1:], known, options.threshold)
    rows = [
        (leak.kind, leak.distance, first, leak.first, second, leak.second)
        for first, second, leak in leaks
    ]
    head = ("kind", "distance", "first_set", "first", "second_set", "second")
    write_csv(options.out, [head, *rows])
    for kind, distance, first_set, first, second_set, second in rows[: options.show]:
        line = f"{kind} ({distance} bits): {first_set}: {first} = {second_set}: {second}"
        print(printable(line))
    if len(rows) > options.show:
        print(f"... and {len(rows) - options.show} more in {options.out}")
    between = sum(first_set != second_set for first_set, second_set, _ in leaks)
    print(
        f"{len(known)} images compared: {between} leaks between sets, "
        f"{len(leaks) - between} duplicates within sets; results in {options.out}"
    )
    raise_skipped(skipped, len(known) + len(skipped))
    if leaks:
        sys.exit(EXIT_LEAKS)


def _fingerprints(
    paths: Sequence[Path], options: LeaksOptions, skipped: list[str]
) -> dict[Path, Fingerprint]:
    """Return the fingerprints of images by path; `skipped` gets a line for unreadable ones."""
    known = {}
    work = ordered_map(read_fingerprint, paths, options.threads, errors=(ImageError, DatasetError))
    for path, result in progress_bar(len(paths), items=work, quiet=options.quiet):
        if isinstance(result, Exception):
            skipped.append(str(result))
        else:
            known[path] = result
    return known
