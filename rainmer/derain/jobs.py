"""Which files the command derains, and which of them already have results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rainmer.errors import OutputError
from rainmer.files import make_folder, write_text
from rainmer.frames.formats import result_suffix
from rainmer.frames.inputs import find_inputs, real_path
from rainmer.frames.levels import Stretch
from rainmer.frames.video import WRITABLE_SUFFIXES, is_video
from rainmer.stage import Derainer
from rainmer.stage.results import PrecomputedResults

__all__ = ["RECORD_NAME", "Job", "due_jobs", "find_jobs", "mark_partial"]

RECORD_NAME = ".derain.json"
"""File in the output folder that says which derainer made its results."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to derain.

    Attributes:
        source: The rainy image or video.
        name: Its path below the folder, or below the fixed part of the glob, that matched it.
        target: Where the result goes.
    """

    source: Path
    name: Path
    target: Path


def find_jobs(inputs: Sequence[str], out: Path, suffix: str | None = None) -> list[Job]:
    """Find the files to derain and where their results go.

    Args:
        inputs: Files, folders (searched with their subfolders, hidden ones and `out` left out), and
            globs.
        out: Folder of the results.
        suffix: Suffix of the results of images; None keeps each input's, or takes .png
            where it cannot be written.

    Returns:
        In the order of the inputs, sorted within each; a file that is found twice is taken once.

    Raises:
        ImageError: An input does not exist, or holds no image and no video.
        OutputError: Two results would have the same name, or one would replace an input.
    """
    jobs: dict[Path, Job] = {}
    for text in inputs:
        if os.path.isdir(text) and real_path(Path(text)) == real_path(out):
            raise OutputError(f"--out is the input folder {text} itself: choose another folder")
        for item in find_inputs(text, out):
            target = out / item.name.with_suffix(_target_suffix(item.path, suffix))
            jobs.setdefault(real_path(item.path), Job(item.path, item.name, target))
    by_target: dict[Path, Job] = {}
    for job in jobs.values():
        target = real_path(job.target)
        if target in jobs:
            raise OutputError(
                f"the result of {job.source} would replace the input {job.target}: "
                "choose another folder for --out"
            )
        other = by_target.setdefault(target, job)
        if other is not job:
            raise OutputError(
                f"{other.source} and {job.source} would both become {job.target}: "
                "derain them into different folders"
            )
    return list(jobs.values())


def _target_suffix(source: Path, suffix: str | None) -> str:
    if not is_video(source):
        return suffix or result_suffix(source)
    return source.suffix if source.suffix.lower() in WRITABLE_SUFFIXES else ".mp4"


def due_jobs(
    jobs: list[Job],
    out: Path,
    derainer: Derainer | PrecomputedResults,
    *,
    side_by_side: bool,
    overwrite: bool,
    stretch: Stretch | None = None,
) -> list[Job]:
    """Return the jobs without a result of this derainer and layout, and record both in the folder.

    Args:
        jobs: All jobs.
        out: Folder of the results.
        derainer: The stage.
        side_by_side: Whether results show rainy and derained next to each other.
        stretch: How images of more than 8 bits are read.
        overwrite: Return all jobs, and replace files that are not results of this command, too.

    Raises:
        OutputError: The folder has a file of a result's name, but no record that it is a result.
    """
    record = make_folder(out) / RECORD_NAME
    taken = next((job.target for job in jobs if os.path.exists(job.target)), None)
    if taken and not record.is_file() and not overwrite:
        raise OutputError(
            f"{taken} exists and is not a result of this command: choose another folder for --out, "
            "or add --overwrite"
        )
    layout = {"derainer": derainer.fingerprint, "side_by_side": side_by_side}
    content = json.dumps(layout | ({"stretch": stretch} if stretch else {}), indent=2)
    if overwrite or not record.is_file() or record.read_bytes() != content.encode():
        write_text(record, content)
    since = record.stat().st_mtime_ns
    return [job for job in jobs if not _is_done(job, since)]


def _is_done(job: Job, since: int) -> bool:
    with contextlib.suppress(OSError):
        modified = job.target.stat().st_mtime_ns
        return modified >= since and modified >= job.source.stat().st_mtime_ns
    return False


def mark_partial(job: Job) -> None:
    """Date a result back, whose input could not be read in full: it counts as due in the next run.

    The input may be whole by then; if it is not, the next run says the same again.
    """
    source = job.source.stat()
    os.utime(job.target, (source.st_atime, source.st_mtime - 1))
