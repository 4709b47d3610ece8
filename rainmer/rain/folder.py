"""Render rain into a folder of rainy images, targets and masks; resumable.

The folder holds `rainy/`, `clean/` and `alpha/` with one PNG per image each, and `rain.jsonl` with
what was rendered. The same call resumes an interrupted run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rainmer.background import ordered_map
from rainmer.config import to_mapping
from rainmer.data.depth import read_depth
from rainmer.errors import ImageError
from rainmer.files import append_line, make_folder, read_lines, write_text
from rainmer.frames.arrays import Frame, to_batch, to_frames, upload
from rainmer.frames.images import read_image, write_image
from rainmer.rain.renderer import RainRenderer

__all__ = ["CLEAN", "RAINY", "RenderJob", "RenderedImage", "box_shares", "render_folder"]

RAINY, CLEAN, ALPHA = "rainy", "clean", "alpha"
_KINDS = (RAINY, CLEAN, ALPHA)
RECORD = "rain.jsonl"

_VERSION = 2  # raise it when the same configuration gives other pixels
_HEADER = "rain.json"
_THREADS = 2
_AHEAD = 4  # images decoded ahead, and results waiting to be written

Box = tuple[float, float, float, float]
"""Left, top, width, height in pixels."""


@dataclass(frozen=True)
class RenderJob:
    """An image to render.

    Attributes:
        source: The clean image.
        name: Its path below the searched folder, without suffix: it names the results, and
            determines the rain together with the seed.
        depth: Its depth map, if there is one.
        boxes: Objects whose occlusion is measured.
    """

    source: Path
    name: str
    depth: Path | None = None
    boxes: Sequence[Box] = ()


@dataclass(frozen=True)
class RenderedImage:
    """What was rendered.

    Attributes:
        name: As in the job.
        rate_mm_h: The rain rate it got.
        alpha: Mean share of a pixel that rain covers, 0..1.
        transmission: Mean share of the scene's light that comes through the veil, 0..1.
        occlusion: `alpha` within each box of the job.
        box_transmission: `transmission` within each box.
    """

    name: str
    rate_mm_h: float
    alpha: float
    transmission: float
    occlusion: list[float] = field(default_factory=list)
    box_transmission: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Loaded:
    job: RenderJob
    frame: Frame
    depth_m: np.ndarray[Any, np.dtype[np.float32]] | None


def render_folder(
    jobs: Sequence[RenderJob],
    renderer: RainRenderer,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    batch: int = 1,
    failures: list[str] | None = None,
) -> Iterator[RenderedImage]:
    """Render images into a folder and yield each as soon as its files are written.

    Images that were rendered before, with the same configuration, seed, source and boxes, are
    yielded and not rendered again.

    Args:
        jobs: The images; their names differ.
        renderer: The rain.
        out: The folder.
        device: Where to compute.
        batch: Images of one size rendered at once; the pixels do not depend on it.
        failures: A line is added for each unreadable image; None: the first one raises.

    Raises:
        ImageError: An image or depth map cannot be read, or they differ in size.
        OutputError: A file cannot be written.
    """
    known = _known(renderer, make_folder(out))
    waiting = []
    for job in jobs:
        record = known.get(_job_key(job))
        if record is not None and all(_file(out, kind, job.name).is_file() for kind in _KINDS):
            yield RenderedImage(**record)
        else:
            waiting.append(job)
    with ThreadPoolExecutor(_THREADS) as pool:
        loaded = _read_ahead(waiting, failures)
        for images in _batches(loaded, batch):
            yield from _render(images, renderer, out, device, pool)


def box_shares(values: np.ndarray[Any, np.dtype[np.float32]], boxes: Sequence[Box]) -> list[float]:
    """Return the mean of a map (H, W) within each box, cut at the border; 0 for boxes outside."""
    height, width = values.shape
    shares = []
    for left, top, box_width, box_height in boxes:
        rows = slice(max(0, int(top)), min(height, int(np.ceil(top + box_height))))
        columns = slice(max(0, int(left)), min(width, int(np.ceil(left + box_width))))
        inside = values[rows, columns]
        shares.append(round(float(inside.mean()), 5) if inside.size else 0.0)
    return shares


def _file(out: Path, kind: str, name: str) -> Path:
    return out / kind / f"{name}.png"


def _known(renderer: RainRenderer, out: Path) -> dict[str, dict[str, Any]]:
    """Return the records of images with this rain by job key; those of other rain are deleted."""
    rain = {"version": _VERSION, "seed": renderer.seed, "rain": to_mapping(renderer.config)}
    header = json.dumps(rain, indent=2) + "\n"
    path = out / _HEADER
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != header:
        (out / RECORD).unlink(missing_ok=True)
        write_text(path, header)
    names = {item.name for item in fields(RenderedImage)}
    records = {}
    for line in read_lines(out / RECORD):
        key, record = line.get("key"), line.get("image")
        if isinstance(key, str) and isinstance(record, dict) and record.keys() == names:
            records[key] = record
    return records


def _job_key(job: RenderJob) -> str:
    stats = [_stat(job.source), None if job.depth is None else _stat(job.depth)]
    content = json.dumps([job.name, stats, list(job.boxes)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # reading it raises the error
    return status.st_size, status.st_mtime_ns


def _read_ahead(jobs: Iterable[RenderJob], failures: list[str] | None) -> Iterator[_Loaded]:
    reading = ordered_map(_load, jobs, _THREADS, _AHEAD, errors=(ImageError,))
    with contextlib.closing(reading):
        for _, loaded in reading:
            if not isinstance(loaded, ImageError):
                yield loaded
            elif failures is None:
                raise loaded
            else:
                failures.append(str(loaded))


def _load(job: RenderJob) -> _Loaded:
    frame = read_image(job.source)
    if job.depth is None:
        return _Loaded(job, frame, None)
    depth_m = read_depth(job.depth)
    if depth_m.shape != frame.shape[:2]:
        raise ImageError(
            f"{job.depth} is {depth_m.shape[1]}x{depth_m.shape[0]} pixels, but {job.source} is "
            f"{frame.shape[1]}x{frame.shape[0]}"
        )
    return _Loaded(job, frame, depth_m)


def _batches(loaded: Iterable[_Loaded], size: int) -> Iterator[list[_Loaded]]:
    """Collect neighbours of one shape, all with a depth map or none."""
    alike: list[_Loaded] = []
    for item in loaded:
        if alike and (
            len(alike) == size
            or item.frame.shape != alike[0].frame.shape
            or (item.depth_m is None) != (alike[0].depth_m is None)
        ):
            yield alike
            alike = []
        alike.append(item)
    if alike:
        yield alike


def _render(
    images: Sequence[_Loaded],
    renderer: RainRenderer,
    out: Path,
    device: torch.device | str,
    pool: ThreadPoolExecutor,
) -> list[RenderedImage]:
    maps = [item.depth_m[:, :, None] for item in images if item.depth_m is not None]
    rendering = renderer(
        to_batch([item.frame for item in images], device),
        [item.job.name for item in images],
        depth_m=upload(maps, device) if maps else None,
    )
    files: Mapping[str, list[Frame]] = {
        RAINY: to_frames(rendering.rainy),
        CLEAN: to_frames(rendering.clean),
        ALPHA: to_frames(rendering.alpha.expand(-1, 3, -1, -1)),
    }
    writing = [
        pool.submit(write_image, _file(out, kind, item.job.name), frame)
        for kind, frames in files.items()
        for item, frame in zip(images, frames, strict=True)
    ]
    alphas, transmissions = (
        values[:, 0].cpu().numpy() for values in (rendering.alpha, rendering.transmission)
    )
    rendered = [
        RenderedImage(
            name=item.job.name,
            rate_mm_h=round(rate, 3),
            alpha=round(float(alpha.mean()), 5),
            transmission=round(float(transmission.mean()), 5),
            occlusion=box_shares(alpha, item.job.boxes),
            box_transmission=box_shares(transmission, item.job.boxes),
        )
        for item, rate, alpha, transmission in zip(
            images, rendering.rate_mm_h.tolist(), alphas, transmissions, strict=True
        )
    ]
    for future in writing:
        future.result()
    records = zip(images, rendered, strict=True)
    append_line(out / RECORD, *({"key": _job_key(i.job), "image": r.__dict__} for i, r in records))
    return rendered
