"""Readings of files, and what is printed and drawn of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.cli import progress_bar
from rainmer.errors import ImageError
from rainmer.files import make_folder, safe_file_name, write_csv
from rainmer.frames.images import read_image
from rainmer.frames.inputs import Input, find_inputs, raise_failures, real_path
from rainmer.frames.video import is_video, open_video
from rainmer.meter.figures import draw_readings
from rainmer.meter.head import QUANTITIES
from rainmer.meter.meter import RainMeter, Reading
from rainmer.meter.options import MeterOptions

__all__ = ["run"]

_BATCH = 8
_COLUMNS = (*QUANTITIES, "benefit")


@dataclass(frozen=True)
class Measured:
    """The readings of one source: its name, and time or number with the reading of each frame."""

    name: str
    is_video: bool
    times: list[float]
    readings: list[Reading]


def run(options: MeterOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the arguments, or a result that cannot be written. At the end
            also when some inputs could not be read to their end; all others are measured.
    """
    out = None if options.out is None else make_folder(options.out)
    found = {
        real_path(item.path): item for text in options.input for item in find_inputs(text, out)
    }
    inputs = list(found.values())[: options.limit]
    meter = RainMeter(options.weights, device=options.device)
    failures: list[str] = []
    bar = progress_bar(len(inputs), quiet=options.quiet, unit="file", items=inputs)
    sources = list(_measure(bar, meter, options, failures))
    if options.json:
        print(json.dumps([_as_mapping(source) for source in sources], indent=1))
    else:
        print("\n".join(_lines(sources)))
    if out is not None:
        _write(sources, out, options.figure)
        if not options.json:
            print(f"results in {out}")
    raise_failures(failures, len(inputs))


def _measure(
    inputs: Iterable[Input], meter: RainMeter, options: MeterOptions, failures: list[str]
) -> Iterator[Measured]:
    """Yield the readings of each file; add a line to `failures` for each unreadable one."""
    for item in inputs:
        name = item.name.as_posix()
        try:
            if is_video(item.path):
                times, readings = _measure_video(item.path, meter, options.every, failures)
                if readings:
                    yield Measured(name, True, times, readings)
            else:
                yield Measured(name, False, [0.0], meter([read_image(item.path)]))
        except ImageError as error:
            failures.append(str(error))


def _measure_video(
    path: Path, meter: RainMeter, every: int, failures: list[str]
) -> tuple[list[float], list[Reading]]:
    times: list[float] = []
    readings: list[Reading] = []
    with open_video(path) as video:
        frames = []
        for index, frame in enumerate(video):
            if index % every:
                continue
            times.append(frame.time_s)
            frames.append(frame.image)
            if len(frames) == _BATCH:
                readings += meter(frames)
                frames = []
        readings += meter(frames)
        if video.failure:
            failures.append(video.failure)
    return times, readings


def _as_mapping(source: Measured) -> dict[str, object]:
    frames = [reading.as_mapping() for reading in source.readings]
    if not source.is_video:
        return {"name": source.name, **frames[0]}
    timed = [{"time_s": time, **frame} for time, frame in zip(source.times, frames, strict=True)]
    return {"name": source.name, "frames": timed}


def _lines(sources: Sequence[Measured]) -> Iterator[str]:
    """Yield a line for each source: medians, with the median interval of each in brackets."""
    width = max((len(source.name) for source in sources), default=0)
    for source in sources:
        parts = [f"{source.name:<{width}}"]
        for name, label, scale, unit in _SHOWN:
            value, low, high = (
                scale * statistics.median(numbers)
                for numbers in zip(*(_triple(r, name) for r in source.readings), strict=True)
            )
            parts.append(f"{label} {value:.3g} [{low:.3g}, {high:.3g}]{unit}")
        if source.is_video:
            parts.append(f"medians of {len(source.readings)} frames")
        yield "  ".join(parts)


_SHOWN = (
    ("rate_mm_h", "rate", 1.0, " mm/h"),
    ("coverage", "streaks", 100.0, " %"),
    ("transmission", "transmission", 1.0, ""),
    ("drops", "drops", 100.0, " %"),
    ("night", "night", 1.0, ""),
    ("rain", "rain", 1.0, ""),
)


def _triple(reading: Reading, name: str) -> tuple[float, float, float]:
    value = getattr(reading, name)
    return (value, *reading.intervals.get(name, (value, value)))


def _write(sources: Sequence[Measured], out: Path, kind: str) -> None:
    """Write a plot and a CSV for each video, and for all images together."""
    groups = [source for source in sources if source.is_video]
    images = [source for source in sources if not source.is_video]
    names = {id(group): [f"{time:.3f}" for time in group.times] for group in groups}
    if images:
        joined = Measured(
            "images", False, list(map(float, range(len(images)))), [i.readings[0] for i in images]
        )
        groups.append(joined)
        names[id(joined)] = [image.name for image in images]
    for group in groups:
        stem = safe_file_name(group.name)
        head = "time_s" if group.is_video else "name"
        rows = [
            [key, *(getattr(reading, column) for column in _COLUMNS)]
            for key, reading in zip(names[id(group)], group.readings, strict=True)
        ]
        write_csv(out / f"{stem}.csv", [[head, *_COLUMNS], *rows])
        axis = "seconds" if group.is_video else "image"
        picture = out / f"{stem}.{kind}"
        draw_readings(group.times, group.readings, picture, axis=axis, title=group.name)
