"""`python -m rainmer.align COMMAND`: bring sets of pairs in line before they are mixed.

`crop` cuts large images, `measure` takes the properties of sets, `balance` draws a part whose rain
is as dense as that of other sets, `plot` shows sets side by side, `leaks` finds images that are in
two sets. All of them go on where an interrupted run stopped, but for `leaks`.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar, get_args

from tqdm import tqdm

from rainmer.cli import make_parser, non_negative_int, positive_int, run_command
from rainmer.data.alignment.balance import (
    DEFAULT_EDGES,
    BalancePlan,
    Keep,
    bin_shares,
    copy_selected,
    densities_of,
    draw,
    other_files,
    plan_balance,
    published_shares,
    selected_files,
    target_shares,
)
from rainmer.data.alignment.crops import CropJob, crop_images, folder_jobs, nightrain_jobs
from rainmer.data.alignment.leaks import (
    HASH_BITS,
    Fingerprint,
    compared_paths,
    find_leaks,
    read_fingerprint,
)
from rainmer.data.alignment.measuring import (
    MeasuredPair,
    SetSummary,
    measure_images,
    read_measured,
    read_summary,
    summarize,
    write_summary,
)
from rainmer.data.alignment.pairs import ImageSet, PairingRule, pair_folders, read_set
from rainmer.data.alignment.plots import Entropy, density_figure, radar_figure, save_figure
from rainmer.data.alignment.published import PUBLISHED_SUMMARIES
from rainmer.data.alignment.work import in_order
from rainmer.errors import DatasetError, OutputError
from rainmer.files import write_bytes, write_text
from rainmer.inputs import real_path

__all__ = ["EXIT_LEAKS", "main"]

EXIT_LEAKS = 1
"""Exit code of `leaks` when it found some; a mistake or a broken image is 2, as everywhere."""

_Item = TypeVar("_Item")

_SELECTION, _PLAN = "selection.csv", "balance.json"
_OUT = Path("runs/align")
_THREADS = min(8, os.cpu_count() or 1)
_NAMED = 3
_SETS_HELP = "ROOT, NAME:ROOT (with rainy|input|rain and clean|gt|target|norain below, or a tree "
_SETS_HELP += "of GT-Rain), or NAME:RAINY:CLEAN"
_EXAMPLE = """\
  python -m rainmer.align crop GTAV-NightRain --out crops --size 512
  python -m rainmer.align crop --rainy wet --clean dry --out crops
  python -m rainmer.align measure crops GT-Rain:GT-RAIN_train --out measured
  python -m rainmer.align balance measured/crops.csv --out GTAV-balance/train --seed 0 --link
  python -m rainmer.align plot measured/crops.json --published --out plots --format png
  python -m rainmer.align leaks GTAV-balance/train GTAV-balance/test --threshold 8"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        RainmerError: What the user can mend. At the end also when images were skipped; the results
            of all others are kept.
        SystemExit: With `EXIT_LEAKS`, when `leaks` found some.
    """
    options = _parse(argv)
    options.run(options)


# --- options --------------------------------------------------------------------------------------


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m rainmer.align",
        "Bring sets of pairs of rainy and clean images in line before they are mixed.",
        _EXAMPLE,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_crop(commands.add_parser("crop", help="cut pairs into squares, as GTAV-NightRain"))
    _add_measure(commands.add_parser("measure", help="rain density and properties of sets"))
    _add_balance(commands.add_parser("balance", help="draw pairs by the rain density of others"))
    _add_plot(commands.add_parser("plot", help="radar of properties, histogram of rain density"))
    _add_leaks(commands.add_parser("leaks", help="images that are in two sets, or twice in one"))
    return parser.parse_args(argv)


def _add_crop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "root", nargs="*", type=Path, metavar="ROOT", help="GTAV-NightRain: holds set1, set2, ..."
    )
    parser.add_argument("--split", default="train", help="of GTAV-NightRain; default: train")
    parser.add_argument("--rainy", type=Path, metavar="DIR", help="rainy images of another set")
    parser.add_argument("--clean", type=Path, metavar="DIR", help="their clean partners")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets rainy/ and gt/"
    )
    parser.add_argument(
        "--size", type=positive_int, default=512, metavar="PX", help="side; default: 512"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N pairs")
    _add_pairing(parser)
    _add_common(parser)
    parser.set_defaults(run=_crop)


def _add_measure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sets", nargs="+", metavar="SET", help=_SETS_HELP)
    parser.add_argument(
        "--out", type=Path, default=_OUT, metavar="DIR", help=f"tables; default: {_OUT}"
    )
    _add_pairing(parser)
    _add_common(parser)
    parser.set_defaults(run=_measure)


def _add_balance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, metavar="CSV", help="the set, as measured")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="rainy/ and gt/")
    parser.add_argument(
        "--reference",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="measured sets (.csv or .json) whose shares count; default: SynRain and GT-Rain, "
        "as published",
    )
    parser.add_argument(
        "--bins",
        nargs="+",
        type=float,
        default=list(DEFAULT_EDGES),
        metavar="EDGE",
        help="upper edges of the bins but the last; default: 0.04 0.08",
    )
    parser.add_argument(
        "--keep",
        choices=get_args(Keep),
        default="heaviest",
        help="the bin that is kept whole: of the densest rain (as published), or the one that "
        "lacks most",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the draw; default: 0")
    parser.add_argument("--link", action="store_true", help="hard links instead of copies")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_balance)


def _add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="measured sets (.json or .csv)"
    )
    parser.add_argument(
        "--published", action="store_true", help="add SynRain, GT-Rain and GTAV-balance"
    )
    parser.add_argument(
        "--out", type=Path, default=_OUT, metavar="DIR", help=f"figures; default: {_OUT}"
    )
    parser.add_argument("--format", choices=("svg", "png"), default="svg", help="default: svg")
    parser.add_argument(
        "--entropy",
        choices=get_args(Entropy),
        default="sum",
        help="of whole sets, as published, or of their images; default: sum",
    )
    parser.set_defaults(run=_plot)


def _add_leaks(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find images of TRAIN in each TEST, and images twice in any of them. Clean images are "
        "compared where both sets have them. Exit code 0: none found, 1: some, 2: a mistake or "
        "broken images."
    )
    parser.add_argument("train", metavar="TRAIN", help=_SETS_HELP + ", or a folder of images")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="the same")
    parser.add_argument(
        "--threshold",
        type=_bits,
        default=8,
        metavar="BITS",
        help="bits of 64 in which near duplicates may differ; default: 8",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=_OUT / "leaks.csv",
        metavar="CSV",
        help=f"default: {_OUT / 'leaks.csv'}",
    )
    parser.add_argument(
        "--show", type=non_negative_int, default=20, metavar="N", help="pairs printed; default: 20"
    )
    _add_pairing(parser)
    _add_common(parser)
    parser.set_defaults(run=_leaks)


def _add_pairing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pairing",
        choices=get_args(PairingRule),
        default="auto",
        help="a clean image has the rainy one's name, or without its second part between _, or "
        "only its first; default: what fits, in this order",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=positive_int, default=_THREADS, metavar="N", help="images at a time"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _bits(text: str) -> int:
    bits = non_negative_int(text)
    if bits >= HASH_BITS // 2:
        raise argparse.ArgumentTypeError(f"{text} is not below {HASH_BITS // 2}: all would match")
    return bits


# --- crop -----------------------------------------------------------------------------------------


def _crop(options: argparse.Namespace) -> None:
    skipped: list[str] = []
    jobs = _crop_jobs(options, skipped)[: options.limit]
    _refuse_inside(options.out, [job.rainy.parent for job in jobs])
    total = len(jobs) + len({job.clean for job in jobs}) + len(skipped)
    images = crop_images(
        jobs, options.out, size=options.size, threads=options.threads, skipped=skipped
    )
    done = list(_bar(images, total, "image", options.quiet))
    crops, before = sum(one.crops for one in done), sum(one.unchanged for one in done)
    text = f"{len(done)} images gave {crops} crops of {options.size} pixels"
    print(f"{text}; {before} were cut before; results in {options.out}")
    _raise_skipped(skipped, total)


def _crop_jobs(options: argparse.Namespace, skipped: list[str]) -> list[CropJob]:
    if options.root and not (options.rainy or options.clean):
        return nightrain_jobs(options.root, options.split, skipped)
    if options.root or not (options.rainy and options.clean):
        raise DatasetError("name folders of GTAV-NightRain, or both --rainy DIR and --clean DIR")
    images = pair_folders("pairs", options.rainy, options.clean, options.pairing)
    if not images.pairs:
        raise DatasetError(_no_pairs(str(options.rainy), images))
    skipped += _unpaired(images)
    return folder_jobs(images)


def _refuse_inside(out: Path, folders: Iterable[Path]) -> None:
    """Refuse results among the images they are made of: the next run would take them for more."""
    results = real_path(out)
    for folder in sorted({real_path(folder) for folder in folders}):
        if results == folder or folder in results.parents:
            raise OutputError(f"--out is inside {folder}, whose images are read: choose another")


# --- measure --------------------------------------------------------------------------------------


def _measure(options: argparse.Namespace) -> None:
    sets = _read_sets(options.sets, options.pairing)
    for one in sets:
        if not one.pairs:
            raise DatasetError(_no_pairs(one.name, one))
    all_skipped: list[str] = []
    rows = []
    for one in sets:
        skipped = _unpaired(one)
        table: Path = options.out / f"{one.name}.csv"
        measuring = measure_images(one, table, threads=options.threads, skipped=skipped)
        measured = list(_bar(measuring, len(one.pairs), "pair", options.quiet, one.name))
        if measured:
            summary = summarize(one.name, measured)
            write_summary(table.with_suffix(".json"), summary, skipped)
            rows.append(_measured_row(summary, measured))
        all_skipped += skipped
    print(_MEASURED_HEAD, *rows, f"results in {options.out}", sep="\n")
    _raise_skipped(all_skipped, sum(len(one.pairs) + len(one.unpaired) for one in sets))


_MEASURED_HEAD = """\
| set | pairs | clean | rain density | <= 0.04 | <= 0.08 | > 0.08 | PSNR (dB) | equal pairs |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def _measured_row(summary: SetSummary, measured: Sequence[MeasuredPair]) -> str:
    shares = bin_shares(densities_of(measured))
    cells = [
        summary.name,
        str(summary.pairs),
        str(summary.distinct_clean),
        f"{summary.rain_density:.4f}",
        *(f"{share:.1%}" for share in shares),
        "none" if summary.psnr_db is None else f"{summary.psnr_db:.2f}",
        str(summary.equal_pairs),
    ]
    return f"| {' | '.join(cells)} |"


# --- balance --------------------------------------------------------------------------------------


def _balance(options: argparse.Namespace) -> None:
    edges = _edges(options.bins)
    measured = read_measured(options.table)
    densities = densities_of(measured)
    shares = target_shares(_reference_shares(options.reference, edges))
    plan = plan_balance(densities, shares, edges, options.keep)
    bins = [indices.tolist() for indices in draw(densities, plan, options.seed, edges)]
    files = selected_files([measured[index] for drawn in bins for index in drawn])
    others = other_files(files, options.out)
    if others:
        raise OutputError(
            f"{options.out} holds {len(others)} files that this selection does not have, such as "
            f"{others[0]}: choose another folder for --out"
        )
    write_text(options.out / _PLAN, json.dumps(_plan_content(options, plan), indent=1) + "\n")
    _write_selection(options.out / _SELECTION, measured, bins)
    skipped: list[str] = []
    copying = copy_selected(files, options.out, link=options.link, skipped=skipped)
    before = sum(_bar(copying, len(files), "file", options.quiet))
    _print_plan(plan, edges)
    print(f"{sum(plan.taken)} pairs; {before} files were there; results in {options.out}")
    _raise_skipped(skipped, len(files))


def _edges(edges: Sequence[float]) -> tuple[float, ...]:
    inside = all(0 < edge < 1 for edge in edges)
    if not inside or any(low >= high for low, high in itertools.pairwise(edges)):
        given = " ".join(map(str, edges))
        raise DatasetError(f"--bins must increase between 0 and 1, not {given}")
    return tuple(edges)


def _reference_shares(paths: Sequence[Path], edges: Sequence[float]) -> list[list[float]]:
    if not paths:
        published = (PUBLISHED_SUMMARIES[name] for name in ("SynRain", "GT-Rain"))
        return [published_shares(summary, edges) for summary in published]
    return [
        bin_shares(densities_of(read_measured(path)), edges)
        if path.suffix.lower() == ".csv"
        else published_shares(read_summary(path), edges)
        for path in paths
    ]


def _plan_content(options: argparse.Namespace, plan: BalancePlan) -> dict[str, object]:
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


def _write_selection(
    path: Path, measured: Sequence[MeasuredPair], bins: Sequence[Sequence[int]]
) -> None:
    """Write the names of the selected pairs, in the order of the draw."""
    rows = [
        (measured[index].pair.name, measured[index].pair.clean_name, place, repr(density))
        for place, drawn in enumerate(bins)
        for index in drawn
        for density in (measured[index].rain_density,)
    ]
    _write_csv(path, [("name", "clean_name", "bin", "rain_density"), *rows])


def _print_plan(plan: BalancePlan, edges: Sequence[float]) -> None:
    print("| rain density | share wanted | pairs there | taken |\n| --- | ---: | ---: | ---: |")
    names = [*(f"up to {edge:g}" for edge in edges), f"above {edges[-1]:g}"]
    for index, name in enumerate(names):
        taken = str(plan.taken[index])
        if plan.taken[index] < plan.wanted[index]:
            taken += f" of {plan.wanted[index]} wanted"
        share, available = plan.shares[index], plan.available[index]
        print(f"| {name} | {share:.2%} | {available} | {taken} |")
    if plan.taken != plan.wanted:
        print("note: a bin has too few pairs for these shares; --keep scarcest takes fewer of all")


# --- plot -----------------------------------------------------------------------------------------


def _plot(options: argparse.Namespace) -> None:
    summaries = [read_summary(path) for path in options.files]
    if options.published:
        summaries += PUBLISHED_SUMMARIES.values()
    if not summaries:
        raise DatasetError("nothing to plot: name measured sets, or add --published")
    radar, density = (options.out / f"{name}.{options.format}" for name in ("radar", "density"))
    save_figure(radar, radar_figure(summaries, options.entropy))
    save_figure(density, density_figure(summaries))
    print(f"{radar}\n{density}")


# --- leaks ----------------------------------------------------------------------------------------


def _leaks(options: argparse.Namespace) -> None:
    sets = _read_sets([options.train, *options.tests], options.pairing)
    skipped: list[str] = []
    known = _fingerprints(sets, options, skipped)
    found = find_leaks(sets[0], sets[1:], known, options.threshold)
    rows = [
        (leak.kind, leak.distance, first, leak.first, second, leak.second)
        for first, second, leak in found
    ]
    head = ("kind", "distance", "first_set", "first", "second_set", "second")
    _write_csv(options.out, [head, *rows])
    for kind, distance, first, one, second, other in rows[: options.show]:
        print(_printable(f"{kind} ({distance} bits): {first}: {one} = {second}: {other}"))
    if len(rows) > options.show:
        print(f"... and {len(rows) - options.show} more in {options.out}")
    between = sum(first != second for first, second, _ in found)
    print(
        f"{len(known)} images compared: {between} leaks between sets, "
        f"{len(found) - between} duplicates within sets; results in {options.out}"
    )
    _raise_skipped(skipped, len(known) + len(skipped))
    if found:
        sys.exit(EXIT_LEAKS)


def _fingerprints(
    sets: Sequence[ImageSet], options: argparse.Namespace, skipped: list[str]
) -> dict[Path, Fingerprint]:
    """Return the fingerprints of all images that are compared."""
    # Between a set without clean images and another, all images are compared.
    bare = any(not one.clean for one in sets)
    paths = [path for one in sets for path in compared_paths(one, everything=bare)]
    known = {}
    work = in_order(read_fingerprint, list(dict.fromkeys(paths)), options.threads)
    for path, result in _bar(work, len(set(paths)), "image", options.quiet):
        if isinstance(result, Exception):
            skipped.append(str(result))
        else:
            known[path] = result
    return known


# --- shared ---------------------------------------------------------------------------------------


def _read_sets(texts: Sequence[str], rule: PairingRule) -> list[ImageSet]:
    sets = [read_set(text, rule) for text in texts]
    for one, text in zip(sets, texts, strict=True):
        if not one.rainy and not one.clean:
            raise DatasetError(f"{text} holds no images")
    names = [one.name.casefold() for one in sets]
    for one in sets:
        if names.count(one.name.casefold()) > 1:
            raise DatasetError(f"two sets are called {one.name}: write NAME:ROOT")
    return sets


def _no_pairs(name: str, images: ImageSet) -> str:
    example = f", such as {images.unpaired[0]}" if images.unpaired else ""
    return f"{name}: no rainy image has a clean partner{example}; see --pairing"


def _unpaired(images: ImageSet) -> list[str]:
    return [f"{path}: no clean partner" for path in images.unpaired]


def _bar(
    items: Iterable[_Item], total: int, unit: str, quiet: bool, name: str | None = None
) -> Iterable[_Item]:
    return tqdm(items, desc=name, total=total, unit=unit, disable=quiet, delay=2)


def _write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # Names of files need not be valid text.
    write_bytes(path, text.getvalue().encode(errors="surrogateescape"))


def _printable(text: str) -> str:
    """Return text that every terminal takes: names of files may hold bytes that are no text."""
    return text.encode(errors="backslashreplace").decode()


def _raise_skipped(skipped: Sequence[str], total: int) -> None:
    """Name every skipped image on stderr, and end with an error if there is one."""
    if not skipped:
        return
    for line in skipped[_NAMED:]:
        tqdm.write(_printable(f"skipped: {line}"), file=sys.stderr)
    named = "; ".join(skipped[:_NAMED])
    more = f"; and {len(skipped) - _NAMED} more, above" if len(skipped) > _NAMED else ""
    raise DatasetError(f"{len(skipped)} of {total} were skipped: {named}{more}")


if __name__ == "__main__":
    run_command(main)
