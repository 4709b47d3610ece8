"""A run of `python -m detection`, from its options to what it prints."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from detection.pipeline import StreamError
from detection.run.addresses import shown_address
from detection.run.live import Live
from detection.run.options import DetectionOptions, LiveOptions
from detection.run.records import RunFolder
from detection.run.saving import refuse_clashes
from detection.run.sources import Images, Source, find_sources
from detection.run.streams import Streams
from detection.specs import LoadedDetector, derained_inside, load_detector
from detection.tracks import lowest_score
from detection.types import DerainCallable
from detection.yolo.letterbox import PAD_VALUE
from rainmer.cli import stage_options
from rainmer.device import resolve_device
from rainmer.errors import RainmerError
from rainmer.frames.inputs import raise_failures
from rainmer.stage import Derainer
from rainmer.stage.results import PrecomputedResults, make_derainer

__all__ = ["run"]


def run(options: DetectionOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the arguments, or a result that cannot be written. At the end
            also when some inputs could not be read to their end; all other results are kept.
    """
    sources = _find_sources(options)
    derainer = make_derainer(options.derain, gate=options.gate, **stage_options(options))
    detector = _make_detector(options, derainer)
    folder = options.out or _default_folder(sources[0].name, derainer.name, detector.name)
    resumable = next((source.name for source in sources if isinstance(source, Images)), None)
    if options.save:
        refuse_clashes(sources, folder)
    with RunFolder(folder, _settings(options, derainer), detector.names, resumable) as run:
        _leave_out(sources, options.limit, run.done)
        failures, timing = _process(run, Streams(sources, options, derainer, detector))
        failures += [line for source in sources for line in source.failures]
        summary = run.finish(failures, timing)
    _print_summary(summary, folder)
    raise_failures(failures, sum(len(source.files) for source in sources), _unit(sources))


def _find_sources(options: DetectionOptions) -> list[Source]:
    device = resolve_device(options.device) if options.hardware_decoding else None
    # Elsewhere frames are needed as arrays.
    stays = device is not None and device.type == "cuda" and options.where == "frame"
    return find_sources(
        options.source,
        options.out,
        stretch=options.stretch,
        hardware=options.hardware_decoding,
        device=device if stays else None,
        live=options,
        limit=options.limit,
    )


def _process(run: RunFolder, streams: Streams) -> tuple[list[str], dict[str, Any]]:
    """Write the results of all streams; return a line for each that failed, and the times."""
    failures = []
    try:
        streams.process(run)
    except StreamError as error:
        failures = [f"{name}: {reason}" for name, reason in error.errors.items()]
    return failures, streams.timing()


def _make_detector(options: DetectionOptions, derainer: DerainCallable) -> LoadedDetector:
    tracked = {"conf": lowest_score(options.conf)} if options.track else {}
    detector = load_detector(
        options.detector,
        resolve_device(options.device),
        batch=options.batch,
        **{**options.detector_options, **tracked},
    )
    if options.classes:
        detector.classes = [_label(given, detector.names) for given in options.classes]
    # Set-up takes seconds, which must not count towards the first frame.
    detector([np.full((64, 64, 3), PAD_VALUE, np.uint8)])
    if options.where == "network":
        return derained_inside(detector, derainer)
    return detector


def _label(given: str, names: dict[int, str]) -> int:
    """Turn a class name or number into the detector's label."""
    labels = {name.lower(): label for label, name in names.items()}
    if given.lower() in labels:
        return labels[given.lower()]
    if given.isdecimal() and int(given) in names:
        return int(given)
    raise RainmerError(
        f"the detector knows no class {given!r}; it knows {', '.join(names.values())}"
    )


def _default_folder(*parts: str) -> Path:
    name = "-".join(re.sub(r"[^\w.]+", "-", part).strip("-") for part in parts)
    return Path("runs") / "detection" / name


def _settings(options: DetectionOptions, derainer: Derainer | PrecomputedResults) -> dict[str, Any]:
    """Return the options that results depend on: not the batch, the device or the output."""
    left_out = {
        *(
            "allow_download",
            "batch",
            "device",
            "hardware_decoding",
            "out",
            "quiet",
            "show",
            "streams",
        ),
        *(item.name for item in fields(LiveOptions)),  # no live source resumes
    }
    settings = {key: value for key, value in vars(options).items() if key not in left_out}
    settings["source"] = [shown_address(source) for source in options.source]
    settings["precision"] = getattr(derainer, "precision", options.precision)  # what auto chose
    return {**settings, "derainer": derainer.name, "fingerprint": derainer.fingerprint}


def _leave_out(sources: Sequence[Source], limit: int | None, processed: Container[str]) -> None:
    """Remove images beyond the limit, and images that an interrupted run has processed."""
    for source in sources:
        if isinstance(source, Images):
            source.files = [pair for pair in source.files[:limit] if pair[0] not in processed]


def _unit(sources: Sequence[Source]) -> str:
    return "source" if any(isinstance(source, Live) for source in sources) else "file"


def _print_summary(summary: dict[str, Any], folder: Path) -> None:
    rows: list[tuple[str, object]] = [("frames", summary["frames"]), ("boxes", summary["boxes"])]
    rows += [(f"  {name}", count) for name, count in summary["classes"].items()]
    for key, label in (("derain_ms", "ms derain"), ("detect_ms", "ms detect")):
        rows.append((label, "-" if summary[key] is None else f"{summary[key]:.1f}"))
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")
    timing = summary["timing"]
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in timing["stage_ms"].items())
    for name, counts in timing.get("live", {}).items():
        print(
            f"{name}: {counts['received']} frames came, {counts['dropped']} dropped to keep up, "
            f"{counts['damaged']} damaged; {counts['reconnects']} reconnects, "
            f"{counts['offline_s']:.1f} s offline"
        )
    if gate := timing.get("gate"):
        print(f"the gate derained {gate['derained']} of {sum(gate.values())} frames")
    rate = timing["frames_per_s"] or 0.0
    print(f"ms per frame: {stages}; {timing['wall_s']:.1f} s in all, {rate:.2f} frames/s")
    print(f"results in {folder}")
