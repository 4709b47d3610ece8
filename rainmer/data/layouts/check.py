"""Count the images of a copy of a set, and compare the counts with the published numbers."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rainmer.data.defects import Defects
from rainmer.data.layouts.pairing import Pair, scan
from rainmer.data.layouts.table import Layout, Mode
from rainmer.errors import ImageError
from rainmer.frames.images import image_size_hw

__all__ = ["Report", "check", "pairs_of_equal_size", "to_json", "to_lines"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A copy of a set in numbers.

    Attributes:
        layout: Name of the layout; for `folders` the variant that was detected.
        mode: What it is for; None: training and test.
        root: The root.
        pairs: Number of usable rainy images.
        clean_images: Number of their distinct clean images.
        skipped: Number of complete pairs that the layout leaves out.
        expected_pairs: Published number of rainy images, with those left out; None: not published.
        expected_clean_images: Published number of distinct clean images, likewise.
        sizes: Number of pairs by size, as "WIDTHxHEIGHT"; None: sizes were not read.
        defects: Errors are unusable rainy images, notes whatever else is worth knowing.
    """

    layout: str
    mode: Mode | None
    root: Path
    pairs: int
    clean_images: int
    skipped: int
    expected_pairs: int | None
    expected_clean_images: int | None
    sizes: Mapping[str, int] | None
    defects: Defects


def check(
    layout: str | Layout,
    root: str | os.PathLike[str],
    mode: Mode | None = None,
    *,
    sizes: bool = False,
    progress: bool = False,
) -> Report:
    """Count the pairs and images of a copy of a set.

    Args:
        layout: Name or alias of a layout, or a layout.
        root: The folder that the layout's paths start from.
        mode: For names of both a training and a test set.
        sizes: Compare the sizes of rainy and clean images too; reads their headers only.
        progress: Show a bar while sizes are read.

    Raises:
        ConfigError: No layout has this name, or several have.
        DatasetError: There is no pair at all.
    """
    content = scan(layout, root, mode=mode)
    published, defects = content.layout, content.defects
    pairs = content.images.pairs
    complete = [*pairs, *content.skipped]
    usable, counts = pairs, None
    if sizes:
        usable, counts = pairs_of_equal_size(pairs, content.root, defects, progress=progress)
    _compare("rainy images", content.listed, published.pairs, defects)
    _compare("clean images", _clean_count(complete), published.clean_images, defects)
    return Report(
        layout=published.name,
        mode=published.mode,
        root=content.root,
        pairs=len(usable),
        clean_images=_clean_count(usable),
        skipped=len(content.skipped),
        expected_pairs=published.pairs,
        expected_clean_images=published.clean_images,
        sizes=counts,
        defects=defects,
    )


def _clean_count(pairs: Sequence[Pair]) -> int:
    return len({pair.clean for pair in pairs} - {None})


def _compare(what: str, count: int, published: int | None, defects: Defects) -> None:
    """Note a number that differs from the published one; such copies are still usable."""
    if published not in (None, count):
        defects.note(f"other number of {what} than published", f"{count} instead of {published}")


def pairs_of_equal_size(
    pairs: Sequence[Pair], root: Path, defects: Defects, *, progress: bool = False
) -> tuple[list[Pair], dict[str, int]]:
    """Return the pairs of readable images of equal size, and their counts by size.

    Args:
        pairs: Pairs; of each image only the header is read.
        root: Folder of the set, which messages leave out.
        defects: An error is added for every other pair, with the names of its files.
        progress: Show a bar.
    """
    size_of = functools.lru_cache(maxsize=None)(image_size_hw)  # many share one clean image
    usable: list[Pair] = []
    counts: dict[str, int] = {}
    for pair in tqdm(pairs, unit="pair", delay=2, disable=not progress):
        try:
            rainy = size_of(pair.rainy)
            clean = rainy if pair.clean is None else size_of(pair.clean)
        except ImageError as error:
            defects.error("image that cannot be read", str(error))
            continue
        if rainy != clean:
            sizes = f"{_size(rainy)}, clean {_size(clean)} in {pair.clean}"
            name = pair.rainy.relative_to(root).with_suffix("").as_posix()
            defects.error("rainy and clean image of different size", f"{name}: {sizes}")
            continue
        usable.append(pair)
        counts[_size(rainy)] = counts.get(_size(rainy), 0) + 1
    return usable, counts


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"


def to_json(report: Report) -> dict[str, Any]:
    """Return plain data: every field, defects in full."""
    plain = {name: value for name, value in vars(report).items() if name != "defects"}
    defects = {"errors": report.defects.errors, "notes": report.defects.notes}
    return {**plain, "root": str(report.root), **defects}


def to_lines(report: Report) -> Iterator[str]:
    """Yield the lines of the text: counts first, then each kind of defect with its first files."""
    mode = f" ({report.mode})" if report.mode else ""
    counts = [f"{report.pairs} pairs", f"{report.clean_images} clean images"]
    if report.clean_images == 0:
        counts = [f"{report.pairs} rainy images", "no reference"]
    if report.skipped:
        counts.append(f"{report.skipped} left out")
    yield f"{report.layout}{mode} in {report.root}: {', '.join(counts)}"
    for size, number in sorted((report.sizes or {}).items(), key=lambda item: -item[1]):
        yield f"  size {size}: {number}"
    yield from (f"  error: {line}" for line in report.defects.error_lines())
    yield from (f"  note: {line}" for line in Defects(notes=report.defects.notes).lines())
