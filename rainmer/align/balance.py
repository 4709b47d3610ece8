"""Select a part of a set whose rain is as dense as in reference sets.

Source: the alignment study of Rainmer (ACM MM 2024), which made GTAV-balance from the crops of
GTAV-NightRain; the published seed reproduces the published selection.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rainmer.align.crop import CLEAN, RAINY
from rainmer.align.measure import (
    HISTOGRAM_WIDTH,
    Densities,
    Indices,
    MeasuredPair,
    SetSummary,
    bin_shares,
    bins_of,
    densities_of,
    read_measured,
    read_summary,
)
from rainmer.align.options import DEFAULT_EDGES, Keep
from rainmer.align.published import PUBLISHED_SUMMARIES
from rainmer.errors import DatasetError, OutputError
from rainmer.files import atomic_write, write_csv
from rainmer.folders import list_files

__all__ = [
    "BalancePlan",
    "checked_edges",
    "copy_selected",
    "draw",
    "other_files",
    "plan_balance",
    "published_shares",
    "reference_shares",
    "selected_files",
    "target_shares",
    "write_selection",
]


@dataclass(frozen=True)
class BalancePlan:
    """How many pairs to take from each bin.

    Attributes:
        shares: Wanted share of each bin.
        available: Pairs of each bin.
        wanted: Pairs to take from each bin by the rule.
        whole: Index of the bin that is kept whole.
        total: Total number of wanted pairs, before rounding down.
    """

    shares: tuple[float, ...]
    available: tuple[int, ...]
    wanted: tuple[int, ...]
    whole: int
    total: float

    @property
    def taken(self) -> tuple[int, ...]:
        """Pairs to take from each bin: no more than there are."""
        return tuple(map(min, self.wanted, self.available))


def published_shares(summary: SetSummary, edges: Sequence[float] = DEFAULT_EDGES) -> list[float]:
    """Return the share of pairs in each bin from a set's histogram.

    Raises:
        DatasetError: An edge is not an edge of the histogram.
    """
    counts = summary.rain_density_counts
    ends = [round(edge / HISTOGRAM_WIDTH) for edge in edges]
    if any(
        end > len(counts) or abs(end * HISTOGRAM_WIDTH - edge) > 1e-9
        for end, edge in zip(ends, edges, strict=True)
    ):
        raise DatasetError(
            f"of {summary.name} only a histogram is known: bins must end at multiples of "
            f"{HISTOGRAM_WIDTH} up to {HISTOGRAM_WIDTH * len(counts):g}; or give measured "
            "reference sets"
        )
    sums = np.cumsum([0, *counts])
    inner = np.diff(sums[[0, *ends]]) / summary.pairs
    return [*inner.tolist(), 1.0 - float(inner.sum())]


def target_shares(references: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the mean shares of reference sets, all sets weighted equally.

    The last share is 1 minus the others.
    """
    inner = np.mean([shares[:-1] for shares in references], axis=0)
    last = 1.0
    for share in inner:  # one by one, as published: the last bit decides a rounding down
        last -= float(share)
    return (*map(float, inner), last)


def plan_balance(
    densities: Densities,
    shares: Sequence[float],
    edges: Sequence[float] = DEFAULT_EDGES,
    keep: Keep = "heaviest",
) -> BalancePlan:
    """Return how many pairs a balanced set takes from each bin.

    The bin that is kept whole sets the total: N = its count / its share. Every other bin should
    give N times its share, rounded down, but may have fewer pairs.

    Args:
        densities: Rain densities (N,) of the set to balance.
        shares: Wanted share of each bin.
        edges: As for `bin_shares`.
        keep: `heaviest`: the last bin is kept whole, as published. `scarcest`: the bin that has
            the fewest pairs for its share, so that every other bin has enough.

    Raises:
        DatasetError: The bin to keep is empty, or the references have nothing there.
    """
    counts = np.bincount(bins_of(densities, edges), minlength=len(shares)).tolist()
    whole = len(shares) - 1
    if keep == "scarcest":
        wanted = [index for index, share in enumerate(shares) if share > 0]
        whole = min(wanted, key=lambda index: counts[index] / shares[index])
    if counts[whole] == 0 or shares[whole] <= 0:
        lacking = "the set has" if counts[whole] == 0 else "the reference sets have"
        raise DatasetError(
            f"{lacking} no pair of rain density {_bin_name(whole, edges)}, the bin that is to be "
            "kept whole: choose other --bins"
        )
    total = counts[whole] / shares[whole]
    numbers = [int(total * share) for share in shares]
    numbers[whole] = counts[whole]
    return BalancePlan(tuple(shares), tuple(counts), tuple(numbers), whole, total)


def draw(
    densities: Densities,
    plan: BalancePlan,
    seed: int,
    edges: Sequence[float] = DEFAULT_EDGES,
) -> list[Indices]:
    """Draw pairs from each bin without replacement.

    Bins are processed in order, with NumPy's legacy generator over the ascending indices of the
    bin: the same as seeding the global generator, with every version of NumPy.

    Returns:
        The drawn indices of each bin, in the order of the draw; ascending for the whole bin.
    """
    bins = bins_of(densities, edges)
    generator = np.random.RandomState(seed)
    chosen = []
    for index, number in enumerate(plan.taken):
        inside = np.flatnonzero(bins == index)
        if index != plan.whole:
            inside = generator.choice(inside, number, replace=False)
        chosen.append(inside)
    return chosen


def selected_files(selected: Sequence[MeasuredPair]) -> dict[str, Path]:
    """Return the files of a balanced folder: sources by their path below it, with `/`.

    Raises:
        DatasetError: Two images would have one name.
    """
    files: dict[str, Path] = {}
    folded: dict[str, str] = {}
    for row in selected:
        names = (row.pair.name, row.pair.clean_name)
        for kind, name, source in zip((RAINY, CLEAN), names, row.pair.files, strict=True):
            target = f"{kind}/{name}"
            other = folded.setdefault(target.casefold(), target)
            if other != target or os.path.abspath(files.setdefault(target, source)) != (
                os.path.abspath(source)
            ):
                raise DatasetError(f"{files[other]} and {source} would both become {target}")
    return files


def other_files(files: Mapping[str, Path], out: Path) -> list[Path]:
    """Return the files in the folder of a balanced set that are not part of it."""
    folders = [out / kind for kind in (RAINY, CLEAN)]
    there = [path for folder in folders if folder.is_dir() for path in list_files(folder)]
    return [path for path in there if path.relative_to(out).as_posix() not in files]


def copy_selected(
    files: Mapping[str, Path], out: Path, *, link: bool = False, skipped: list[str]
) -> Iterator[bool]:
    """Copy files into a folder, or link them, without replacing or removing anything.

    Args:
        files: Sources by their path below `out`.
        out: The folder.
        link: Make hard links instead of copies.
        skipped: A line is added for each missing source.

    Yields:
        For each file whether it was there already.

    Raises:
        OutputError: A file of this name with other content is in the way, links are not possible,
            or a file cannot be written.
    """
    for name, source in files.items():
        target = out / name
        if not source.is_file():
            skipped.append(f"no file {source}")
        elif os.path.lexists(target):
            if not _is_copy(target, source):
                raise OutputError(
                    f"{target} exists and is not {source}: choose another folder for --out"
                )
            yield True
        else:
            _copy(source, target, link=link)
            yield False


def _bin_name(index: int, edges: Sequence[float]) -> str:
    return f"above {edges[-1]}" if index == len(edges) else f"up to {edges[index]}"


def _is_copy(target: Path, source: Path) -> bool:
    try:
        one, other = target.stat(), source.stat()
        if os.path.samestat(one, other):
            return True
        if one.st_size != other.st_size:
            return False
        return one.st_mtime_ns == other.st_mtime_ns or target.read_bytes() == source.read_bytes()
    except OSError as error:
        raise OutputError(f"cannot read {target}: {error.strerror}") from error


def _copy(source: Path, target: Path, *, link: bool) -> None:
    with atomic_write(target) as temporary:
        if not link:
            shutil.copy2(source, temporary)
            return
        try:
            os.link(source, temporary)
        except OSError as error:
            raise OutputError(
                f"cannot link {target} to {source}: {error.strerror}; leave out --link to copy"
            ) from error


def checked_edges(edges: Sequence[float]) -> tuple[float, ...]:
    """Return the upper edges of bins as given. Raises DatasetError if they do not increase."""
    inside = all(0 < edge < 1 for edge in edges)
    if not inside or any(low >= high for low, high in itertools.pairwise(edges)):
        given = " ".join(map(str, edges))
        raise DatasetError(f"--bins must increase between 0 and 1, not {given}")
    return tuple(edges)


def reference_shares(paths: Sequence[Path], edges: Sequence[float]) -> list[list[float]]:
    """Return the share of pairs in each bin of measured sets; without paths, of the published sets.

    Args:
        paths: Results of `measure`: a .csv counts exactly, a .json by its histogram.
        edges: As for `bin_shares`.

    Raises:
        DatasetError: A file cannot be read, or an edge is not an edge of the histogram.
    """
    if not paths:
        published = (PUBLISHED_SUMMARIES[name] for name in ("SynRain", "GT-Rain"))
        return [published_shares(summary, edges) for summary in published]
    return [
        bin_shares(densities_of(read_measured(path)), edges)
        if path.suffix.lower() == ".csv"
        else published_shares(read_summary(path), edges)
        for path in paths
    ]


def write_selection(
    path: Path, measured: Sequence[MeasuredPair], bins: Sequence[Sequence[int]]
) -> None:
    """Write the names of the selected pairs, in the order of the draw."""
    rows: list[Sequence[object]] = [("name", "clean_name", "bin", "rain_density")]
    for number, indices in enumerate(bins):
        for index in indices:
            row = measured[index]
            rows.append((row.pair.name, row.pair.clean_name, number, repr(row.rain_density)))
    write_csv(path, rows)
