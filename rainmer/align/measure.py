"""Rain density and properties of all pairs of a set: a CSV row each, and a summary of the set.

Source: the alignment study of Rainmer (ACM MM 2024); its published code gives the same numbers.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from rainmer.align.options import DEFAULT_EDGES
from rainmer.background import ordered_map
from rainmer.config import from_mapping, to_mapping
from rainmer.data.layouts.pairing import ImageSet, Pair
from rainmer.data.properties import PairProperties, measure_pair, rain_density
from rainmer.errors import ConfigError, DatasetError, ImageError, OutputError
from rainmer.files import make_folder, write_bytes, write_text
from rainmer.frames.images import read_image

__all__ = [
    "HISTOGRAM_WIDTH",
    "Densities",
    "Indices",
    "MeasuredPair",
    "SetSummary",
    "bin_shares",
    "bins_of",
    "densities_of",
    "density_histogram",
    "measure_images",
    "read_measured",
    "read_summary",
    "summarize",
    "write_summary",
]

Densities = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

HISTOGRAM_WIDTH = 0.04
_HISTOGRAM_BINS = 10
_PROPERTIES = tuple(field.name for field in dataclasses.fields(PairProperties))
_COLUMNS = ("name", "clean_name", "rainy", "clean", "stamp", "rain_density", *_PROPERTIES)


@dataclass(frozen=True)
class MeasuredPair:
    """A pair with its measures.

    Attributes:
        pair: The files.
        stamp: Sizes and times of both files when they were measured.
        rain_density: On values of 0..1, by which sets are balanced.
        properties: By which sets are compared; their density is on values of 0..255.
    """

    pair: Pair
    stamp: str
    rain_density: float
    properties: PairProperties


@dataclass(frozen=True, kw_only=True)
class SetSummary:
    """Properties of a whole set, aggregated as published. None: no pair has the property.

    Attributes:
        name: What tables and plots call the set.
        pairs: Number of pairs.
        distinct_clean: Number of distinct file names of clean images, folders left out.
        equal_pairs: Pairs whose images are equal; they have no PSNR.
        clean_entropy_sum: Sum over distinct clean file names, the first of each counts; bits.
        rainy_entropy_sum: Sum over pairs; bits.
        clean_entropy, rainy_entropy: The corresponding means.
        density: Mean rain density on values of 0..255.
        gradient: Mean over `gradient_pairs` pairs: those with rain and a gradient above 0.
        clean_luminance, rainy_luminance: Mean levels, 0..255.
        colourfulness: Mean over `colourfulness_pairs` pairs: those with rain and a value above 0.
        psnr_db: Mean over pairs whose images differ.
        rain_density: Mean rain density on values of 0..1, and its extremes.
        rain_density_counts: Pairs by rain density in bins of 0.04 from 0 to 0.4, the lower edge
            inside; other densities are left out.
    """

    name: str
    pairs: int
    distinct_clean: int
    equal_pairs: int = 0
    clean_entropy_sum: float
    rainy_entropy_sum: float
    clean_entropy: float
    rainy_entropy: float
    density: float
    gradient: float | None
    gradient_pairs: int
    clean_luminance: float
    rainy_luminance: float
    colourfulness: float | None
    colourfulness_pairs: int
    psnr_db: float | None
    rain_density: float
    rain_density_min: float
    rain_density_max: float
    rain_density_counts: tuple[int, ...]


def summarize(name: str, measured: Sequence[MeasuredPair]) -> SetSummary:
    """Aggregate the measures of pairs over their set.

    Means leave out pairs without rain where a property needs rain. Entropies are summed, too: over
    distinct file names for clean images, because many rainy images may share one.

    Raises:
        DatasetError: There is no pair.
    """
    if not measured:
        raise DatasetError(f"the set {name} has no pair to summarize")
    rows = [pair.properties for pair in measured]
    clean: dict[str, float] = {}
    for row in measured:
        clean.setdefault(PurePosixPath(row.pair.clean_name).name, row.properties.clean_entropy)
    gradients = [row.gradient for row in rows if row.gradient is not None]
    colours = [row.colourfulness for row in rows if row.colourfulness is not None]
    psnrs = [row.psnr_db for row in rows if math.isfinite(row.psnr_db)]
    densities = np.array([row.rain_density for row in measured])
    return SetSummary(
        name=name,
        pairs=len(rows),
        distinct_clean=len(clean),
        equal_pairs=len(rows) - len(psnrs),
        clean_entropy_sum=math.fsum(clean.values()),
        rainy_entropy_sum=math.fsum(row.rainy_entropy for row in rows),
        clean_entropy=_mean(list(clean.values())),
        rainy_entropy=_mean([row.rainy_entropy for row in rows]),
        density=_mean([row.density for row in rows]),
        gradient=_mean(gradients) if gradients else None,
        gradient_pairs=len(gradients),
        clean_luminance=_mean([row.clean_luminance for row in rows]),
        rainy_luminance=_mean([row.rainy_luminance for row in rows]),
        colourfulness=_mean(colours) if colours else None,
        colourfulness_pairs=len(colours),
        psnr_db=_mean(psnrs) if psnrs else None,
        rain_density=float(densities.mean()),
        rain_density_min=float(densities.min()),
        rain_density_max=float(densities.max()),
        rain_density_counts=density_histogram(densities),
    )


def density_histogram(densities: npt.NDArray[np.floating[Any]]) -> tuple[int, ...]:
    """Count rain densities in 10 bins on [0, 0.4), lower edge inside, upper outside.

    Example:
        >>> density_histogram(np.array([0.0, 0.03, 0.05, 0.4, 0.7]))[:3]
        (2, 1, 0)
    """
    # Densities are published as float32: an edge is compared as one, too.
    edges = (np.arange(_HISTOGRAM_BINS + 1) * HISTOGRAM_WIDTH).astype(np.float32)
    places = np.searchsorted(edges, densities.astype(np.float32), side="right") - 1
    inside = places[(places >= 0) & (places < _HISTOGRAM_BINS)]
    return tuple(np.bincount(inside, minlength=_HISTOGRAM_BINS).tolist())


def densities_of(measured: Sequence[MeasuredPair]) -> Densities:
    """Return the rain densities (N,) of measured pairs as float32, as they are published."""
    return np.array([row.rain_density for row in measured], np.float32)


def bin_shares(densities: Densities, edges: Sequence[float] = DEFAULT_EDGES) -> list[float]:
    """Return the share of pairs in each bin; an upper edge belongs to its bin.

    Args:
        densities: Rain densities (N,), at least one.
        edges: Upper edges of all bins but the last, increasing.

    Example:
        >>> bin_shares(np.array([0.04, 0.05, 0.08, 0.3], np.float32))
        [0.25, 0.5, 0.25]
    """
    counts = np.bincount(bins_of(densities, edges), minlength=len(edges) + 1)
    return [int(count) / len(densities) for count in counts]


def bins_of(densities: Densities, edges: Sequence[float]) -> Indices:
    """Return the bin of each density (N,), 0 to the number of edges."""
    # An edge as float32, as densities are: one that equals it is inside the lower bin.
    return np.searchsorted(np.asarray(edges, np.float32), densities, side="left")


def measure_images(
    images: ImageSet, table: Path, *, threads: int, skipped: list[str]
) -> Iterator[MeasuredPair]:
    """Measure the pairs of a set into a CSV file, and yield them in order.

    Each row is written before the next pair is yielded. Pairs that the file has already, with equal
    file sizes and times, are not measured again. At the end the file holds exactly the pairs of the
    set, in order.

    Args:
        images: The set.
        table: The CSV file. Paths in it are relative to its folder where they can be.
        threads: Number of pairs at a time.
        skipped: A line is added for each pair that is broken or whose images differ in size.

    Raises:
        DatasetError: The file has other columns.
        OutputError: The file cannot be written.
    """
    make_folder(table.parent)
    before = {row.pair.name: row for row in _read_rows(table)} if table.exists() else {}
    # After an interruption, only complete rows are kept.
    _replace(table, before.values())
    measured = []
    function = functools.partial(_measure, known=before)
    for _, result in ordered_map(
        function, images.pairs, threads, errors=(ImageError, DatasetError)
    ):
        if isinstance(result, Exception):
            skipped.append(str(result))
            continue
        if before.get(result.pair.name) is not result:
            _append(table, _row(result, table.parent))
        measured.append(result)
        yield result
    _replace(table, measured)


def read_measured(table: Path) -> list[MeasuredPair]:
    """Read a CSV file of `measure_images`; a row that an interruption cut is left out.

    Raises:
        DatasetError: The file cannot be read, has other columns, or no rows.
    """
    rows = {row.pair.name: row for row in _read_rows(table)}
    if not rows:
        raise DatasetError(f"{table} holds no pairs; run `python -m rainmer.align measure` again")
    return list(rows.values())


def write_summary(path: Path, summary: SetSummary, skipped: Sequence[str] = ()) -> None:
    """Write a summary as JSON, with a line for each skipped pair. Raises OutputError."""
    content = {**to_mapping(summary), "skipped": list(skipped)}
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_summary(path: Path) -> SetSummary:
    """Read the summary of a set from its JSON, or make it from its CSV file.

    Raises:
        DatasetError: The file cannot be read, or is neither a summary nor such a CSV file.
    """
    if path.suffix.lower() == ".csv":
        return summarize(path.stem, read_measured(path))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise DatasetError(f"{path} is no summary of a set; name the .json or .csv of measure")
        content.pop("skipped", None)
        return from_mapping(SetSummary, content, where=str(path))
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, DatasetError | ConfigError):
            raise
        raise DatasetError(f"{path} is not valid JSON: {error}") from error


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _measure(pair: Pair, *, known: dict[str, MeasuredPair]) -> MeasuredPair:
    """Measure one pair, unless it is known. Raises ImageError or DatasetError."""
    stamp = _stamp(pair)
    before = known.get(pair.name)
    if before and before.stamp == stamp and before.pair.clean_name == pair.clean_name:
        # The files may have had another path then.
        return before if _same_files(before.pair, pair) else dataclasses.replace(before, pair=pair)
    rainy, clean = map(read_image, pair.files)
    if rainy.shape != clean.shape:
        raise DatasetError(
            f"{pair.rainy} is {rainy.shape[1]}x{rainy.shape[0]} pixels, but its clean image "
            f"{pair.clean} {clean.shape[1]}x{clean.shape[0]}"
        )
    return MeasuredPair(pair, stamp, rain_density(rainy, clean), measure_pair(rainy, clean))


def _same_files(first: Pair, second: Pair) -> bool:
    return [*map(os.path.abspath, first.files)] == [*map(os.path.abspath, second.files)]


def _stamp(pair: Pair) -> str:
    try:
        states = [os.stat(path) for path in pair.files]
    except OSError as error:
        raise ImageError(f"cannot read the image {error.filename}: {error.strerror}") from error
    return " ".join(f"{state.st_size}:{state.st_mtime_ns}" for state in states)


def _row(measured: MeasuredPair, base: Path) -> str:
    """Return a pair's line. Numbers are written with all digits, so that reading restores them."""
    pair, properties = measured.pair, dataclasses.astuple(measured.properties)
    return _line(
        [
            pair.name,
            pair.clean_name,
            *(_shown_path(path, base) for path in pair.files),
            measured.stamp,
            repr(measured.rain_density),
            *("" if value is None else repr(value) for value in properties),
        ]
    )


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _shown_path(path: Path, base: Path) -> str:
    """Return a path relative to `base` if they have a folder in common below the disk's root."""
    full, start = os.path.abspath(path), os.path.abspath(base)
    try:
        common = os.path.commonpath([full, start])
    except ValueError:  # on different drives
        return full
    if os.path.dirname(common) == common:
        return full
    return Path(os.path.relpath(full, start)).as_posix()


def _read_rows(table: Path) -> Iterator[MeasuredPair]:
    try:
        text = table.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise DatasetError(f"cannot read {table}: {error.strerror}") from error
    # Names may hold line ends: only the last one shows whether a row was cut.
    lines = csv.reader(io.StringIO(text.rpartition("\n")[0] + "\n", newline=""))
    try:
        if tuple(next(lines, ())) not in (_COLUMNS, ()):
            raise DatasetError(f"{table} is no table of measured pairs: it has other columns")
        for cells in lines:
            measured = _measured(cells, table.parent)
            if measured is not None:
                yield measured
    except csv.Error as error:
        raise DatasetError(f"{table} is no table of measured pairs: {error}") from error


def _measured(cells: Sequence[str], base: Path) -> MeasuredPair | None:
    """Return the pair of a row; None if it is damaged, so that it is measured again."""
    try:
        name, clean_name, rainy, clean, stamp, density, *values = cells
        if len(values) != len(_PROPERTIES):
            return None
        numbers: list[Any] = [None if value == "" else float(value) for value in values]
        pair = Pair(name, base / rainy, base / clean, clean_name)
        return MeasuredPair(pair, stamp, float(density), PairProperties(*numbers))
    except ValueError:
        return None


def _append(table: Path, text: str) -> None:
    try:
        with table.open("ab") as file:
            file.write(text.encode(errors="surrogateescape"))
    except OSError as error:
        raise OutputError(f"cannot write {table}: {error.strerror}") from error


def _replace(table: Path, measured: Iterable[MeasuredPair]) -> None:
    """Write the whole table, all or nothing, unless the file holds it already."""
    rows = [_line(_COLUMNS), *(_row(row, table.parent) for row in measured)]
    content = "".join(rows).encode(errors="surrogateescape")
    if not table.is_file() or table.read_bytes() != content:
        write_bytes(table, content)
