"""Cut pairs into square crops, as Rainmer's authors cut GTAV-NightRain before balancing it.

Crops are cut side by side from the top-left corner, numbered from 0 row by row; the remainder at
the right and at the bottom is left out.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rainmer.background import ordered_map
from rainmer.data.layouts.pairing import ImageSet, Pair, match_pairs
from rainmer.data.layouts.tree import subfolder
from rainmer.errors import DatasetError, ImageError, OutputError
from rainmer.files import append_line, make_folder, match_key, read_lines, write_text
from rainmer.folders import list_folder, subfolders
from rainmer.frames.arrays import Frame
from rainmer.frames.images import list_images, read_image, write_image
from rainmer.frames.inputs import real_path

__all__ = [
    "CLEAN",
    "RAINY",
    "CropJob",
    "CroppedImage",
    "crop_frame",
    "crop_images",
    "folder_jobs",
    "nightrain_jobs",
    "refuse_results_inside",
]

RAINY, CLEAN = "rainy", "gt"
"""Names of the folders of crops, as published."""

RECORD = "crops.jsonl"

_SET = re.compile(r"set\d+")


@dataclass(frozen=True)
class CropJob:
    """A rainy image to cut, with its clean partner.

    Attributes:
        rainy, clean: The images.
        rainy_stem, clean_stem: First part of the names of their crops, below `RAINY` and `CLEAN`.
            Rainy images with the same clean partner share its stem.
    """

    rainy: Path
    clean: Path
    rainy_stem: str
    clean_stem: str


@dataclass(frozen=True)
class CroppedImage:
    """An image whose crops are written.

    Attributes:
        source: The image.
        crops: Number of crops.
        unchanged: Whether the crops existed before.
    """

    source: Path
    crops: int
    unchanged: bool


@dataclass(frozen=True)
class _Task:
    source: Path
    stem: str  # of the crops, below the folder of results
    size_hw: tuple[int, int] | None  # required size of the image


@dataclass(frozen=True)
class _Record:
    """An image that was cut: an entry of the record file."""

    stem: str
    stamp: list[int]
    size_hw: tuple[int, int]
    crops: int


def crop_frame(frame: Frame, size: int) -> list[Frame]:
    """Return the crops (size, size, 3) of a frame (H, W, 3): none if it is smaller.

    Example:
        >>> import numpy as np
        >>> [crop[0, 0, 0].item() for crop in crop_frame(np.arange(36).reshape(4, 3, 3), 1)][:4]
        [0, 3, 6, 9]
    """
    height, width = frame.shape[:2]
    return [
        frame[top : top + size, left : left + size]
        for top in range(0, height - size + 1, size)
        for left in range(0, width - size + 1, size)
    ]


def nightrain_jobs(
    roots: Sequence[Path], split: str = "train", skipped: list[str] | None = None
) -> list[CropJob]:
    """Find the pairs of GTAV-NightRain and name their crops as published.

    The rainy image `set1/train/rainy/0011_03.png` belongs to `set1/train/gt/0011.png`, and gives
    `rainy/0011_03_set1_0crop.png` and `gt/0011_set1_0crop.png`. Case of folders does not count.

    Args:
        roots: Folders that hold `set1`, `set2`, ..., or one of these folders.
        split: Subfolder of each set.
        skipped: A line is added for each rainy image without a clean partner.

    Raises:
        DatasetError: A root holds no such set.
    """
    jobs: list[CropJob] = []
    for root in roots:
        of_root = [
            job
            for name, folder in _nightrain_sets(root, split)
            for job in _set_jobs(name, folder, [] if skipped is None else skipped)
        ]
        if not of_root:
            raise DatasetError(
                f"{root} holds no pairs of GTAV-NightRain: expected set1/{split}/{RAINY} and "
                f"set1/{split}/{CLEAN}; for two folders of another set use --rainy and --clean"
            )
        jobs += of_root
    return jobs


def folder_jobs(images: ImageSet) -> list[CropJob]:
    """Name the crops of any set so that `clean_keys` pairs them again."""
    jobs = []
    for pair in images.pairs:
        rainy, clean = pair.files
        jobs.append(CropJob(rainy, clean, *_paired_stems(pair)))
    return jobs


def crop_images(
    jobs: Sequence[CropJob],
    out: Path,
    *,
    size: int,
    threads: int,
    skipped: list[str],
) -> Iterator[CroppedImage]:
    """Cut pairs into `out/rainy` and `out/gt`, each clean image once, and yield every image.

    Crops of an earlier run are kept while their image is unchanged, by a record in `out`.

    Args:
        jobs: The pairs.
        out: The folder of results.
        size: Side of the crops in pixels.
        threads: Number of images at a time.
        skipped: A line is added for each image that is broken, smaller than a crop, or differs in
            size from its partner, and for the rainy partners of such a clean image.

    Raises:
        OutputError: Two images would give crops of the same name, `out` holds crops of another
            size or files that are none, or a file cannot be written.
    """
    _refuse_collisions(jobs)
    known = _read_records(make_folder(out), size)
    sizes: dict[str, tuple[int, int]] = {}
    clean = {f"{CLEAN}/{job.clean_stem}": job.clean for job in jobs}
    tasks = [_Task(source, stem, None) for stem, source in clean.items()]
    for task, record, image in _run(tasks, out, size, threads, known, skipped):
        sizes[task.stem] = record.size_hw
        yield image
    tasks = []
    for job in jobs:
        size_hw = sizes.get(f"{CLEAN}/{job.clean_stem}")
        if size_hw is None:
            skipped.append(f"{job.rainy}: its clean image was skipped")
        else:
            tasks.append(_Task(job.rainy, f"{RAINY}/{job.rainy_stem}", size_hw))
    for _, _, image in _run(tasks, out, size, threads, known, skipped):
        yield image


def _nightrain_sets(root: Path, split: str) -> Iterator[tuple[str, Path]]:
    """Yield each set's name and the folder with its rainy and clean images."""
    if not root.is_dir():
        raise DatasetError(f"no folder {root}")
    for folder in (root, *subfolders(root)):
        name = _SET.fullmatch(folder.resolve().name.casefold())
        inner = subfolder(folder, split)
        if name and inner:
            yield name[0], inner


def _set_jobs(set_name: str, folder: Path, skipped: list[str]) -> Iterator[CropJob]:
    rainy, clean = (subfolder(folder, name) for name in (RAINY, CLEAN))
    if rainy is None or clean is None:
        return
    by_key = {match_key(path.relative_to(clean)): path for path in list_images(clean)}
    matching = match_pairs(
        list_images(rainy),
        by_key.values(),
        lambda path: by_key.get(match_key(f"{_scene(path)}.png")),
    )
    skipped += [f"{p}: no clean image {_scene(p)}.png in {clean}" for p in matching.unpaired]
    for path, partner in matching.pairs:
        yield CropJob(path, partner, f"{path.stem}_{set_name}", f"{_scene(path)}_{set_name}")


def _scene(rainy: Path) -> str:
    return rainy.stem.partition("_")[0]


def _paired_stems(pair: Pair) -> tuple[str, str]:
    """Return stems that stay partners when `_0crop` is added to both."""
    rainy, clean = (PurePosixPath(name).with_suffix("") for name in (pair.name, pair.clean_name))
    first, _, rest = rainy.name.partition("_")
    if clean.name.casefold() == first.casefold() != rainy.name.casefold():
        # Paired by the first token: the others must become one, which the pairing drops.
        rainy = rainy.with_name(f"{first}_{rest.replace('_', '-')}")
    return rainy.as_posix(), clean.as_posix()


def _refuse_collisions(jobs: Sequence[CropJob]) -> None:
    for kind in (RAINY, CLEAN):
        taken: dict[str, Path] = {}
        for job in jobs:
            rainy = kind == RAINY
            stem, source = (job.rainy_stem, job.rainy) if rainy else (job.clean_stem, job.clean)
            # Case does not count: on some disks two such files are one.
            other = taken.setdefault(stem.casefold(), source)
            if other != source:
                raise OutputError(
                    f"{other} and {source} would give crops of the same name {stem}: "
                    "cut them into different folders"
                )


def _run(
    tasks: Iterable[_Task],
    out: Path,
    size: int,
    threads: int,
    known: dict[str, _Record],
    skipped: list[str],
) -> Iterator[tuple[_Task, _Record, CroppedImage]]:
    function = functools.partial(_cut, out=out, size=size, known=known)
    for task, result in ordered_map(function, tasks, threads, errors=(ImageError, DatasetError)):
        if isinstance(result, Exception):
            skipped.append(str(result))
            continue
        unchanged = known.get(task.stem) is result
        if not unchanged:
            append_line(out / RECORD, result.__dict__)
        yield task, result, CroppedImage(task.source, result.crops, unchanged)


def _cut(task: _Task, *, out: Path, size: int, known: dict[str, _Record]) -> _Record:
    """Write the crops of one image, unless they are there.

    Raises:
        ImageError: The image is broken, too small, or of another size than asked for.
        OutputError: A crop cannot be written.
    """
    stamp = _stamp(task.source)
    before = known.get(task.stem)
    if before and before.stamp == stamp and _all_exist(before, out):
        _check_size(task, before.size_hw)
        return before
    frame = read_image(task.source)
    size_hw = (frame.shape[0], frame.shape[1])
    _check_size(task, size_hw)
    crops = crop_frame(frame, size)
    if not crops:
        raise ImageError(
            f"{task.source} is {size_hw[1]}x{size_hw[0]} pixels, smaller than a crop of {size}"
        )
    for number, crop in enumerate(crops):
        write_image(_crop_path(out, task.stem, number), crop)
    for number in range(len(crops), before.crops if before else 0):
        # The image has changed and gives fewer crops: the others are from the old image.
        _crop_path(out, task.stem, number).unlink(missing_ok=True)
    return _Record(task.stem, stamp, size_hw, len(crops))


def _check_size(task: _Task, size_hw: tuple[int, int]) -> None:
    if task.size_hw not in (None, size_hw):
        assert task.size_hw is not None
        raise ImageError(
            f"{task.source} is {size_hw[1]}x{size_hw[0]} pixels, but its clean image "
            f"{task.size_hw[1]}x{task.size_hw[0]}"
        )


def _all_exist(record: _Record, out: Path) -> bool:
    return all(_crop_path(out, record.stem, number).is_file() for number in range(record.crops))


def _crop_path(out: Path, stem: str, number: int) -> Path:
    return out / f"{stem}_{number}crop.png"


def _stamp(path: Path) -> list[int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror}") from error
    return [status.st_size, status.st_mtime_ns]


def _read_records(out: Path, size: int) -> dict[str, _Record]:
    """Return the records of images cut before, by the stem of their crops.

    Raises:
        OutputError: The folder holds crops of another size, or images that are not crops.
    """
    path = out / RECORD
    lines = read_lines(path)
    if not lines:
        holding = next((kind for kind in (RAINY, CLEAN) if _has_content(out / kind)), None)
        if holding:
            raise OutputError(
                f"{out / holding} holds files that are no crops of this command: choose another "
                "folder for --out"
            )
        write_text(path, json.dumps({"crop_size": size}) + "\n")
    elif lines[0] != {"crop_size": size}:
        before = lines[0].get("crop_size", "unknown")
        raise OutputError(f"{out} holds crops of size {before}: choose another folder for --out")
    records = (_record(line) for line in lines[1:])
    return {record.stem: record for record in records if record is not None}


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and bool(list_folder(folder))


def _record(line: dict[str, Any]) -> _Record | None:
    """Return a record from its line; None if it is damaged, so that the image is cut again."""
    try:
        record = _Record(**line)
        height, width = record.size_hw
        return _Record(str(record.stem), list(record.stamp), (height, width), int(record.crops))
    except (TypeError, ValueError):
        return None


def refuse_results_inside(out: Path, folders: Iterable[Path]) -> None:
    """Refuse results inside the input folders, where the next run would read them.

    Raises:
        OutputError: `out` is one of the folders, or inside one.
    """
    results = real_path(out)
    for folder in sorted({real_path(folder) for folder in folders}):
        if results == folder or folder in results.parents:
            raise OutputError(f"--out is inside {folder}, whose images are read: choose another")
