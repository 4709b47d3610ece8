"""`python -m detection SOURCE --derain SPEC --detector WEIGHTS`: derain and detect."""

from __future__ import annotations

import argparse
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detection.pipeline import StreamError
from detection.run.records import RunFolder
from detection.run.saving import refuse_clashes
from detection.run.sources import Images, Source, find_sources
from detection.run.streams import Streams
from detection.types import DerainCallable
from detection.yolo import YoloDetector, attach
from detection.yolo.letterbox import PAD_VALUE
from rainmer.cli import (
    add_stage_options,
    fraction,
    make_parser,
    positive_int,
    run_command,
    stage_options,
)
from rainmer.device import resolve_device
from rainmer.errors import RainmerError
from rainmer.frames.inputs import raise_failures
from rainmer.stage import Derainer
from rainmer.stage.results import PrecomputedResults, make_derainer
from rainmer.stage.specs import DEFAULT_DERAINER, SPEC_HELP

_EXAMPLE = """\
  python -m detection rainy/ --derain median --detector yolo11n.pt --save --side-by-side
  python -m detection drive.mp4 --derain prenet:prenet.pth --detector yolo11n.pt --save --conf 0.4
  python -m detection left.mp4 right.mp4 --detector yolo11n.pt --save
  python -m detection 0 --derain median --detector yolo11n.pt --limit 500"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: The arguments; None takes those of the process.

    Raises:
        RainmerError: A mistake in the arguments, or a result that cannot be written. At the end
            also when some inputs could not be read to their end; all other results are kept.
    """
    options = _parse(argv)
    sources = find_sources(options.source, options.out)
    derainer = make_derainer(options.derain, **stage_options(options))
    detector = _make_detector(options, derainer)
    folder = options.out or _default_folder(sources[0].name, derainer.name, detector.name)
    resumable = next((source.name for source in sources if isinstance(source, Images)), None)
    if options.save:
        refuse_clashes(sources, folder)
    settings = _settings(options, derainer)
    with RunFolder(folder, settings, detector.names, resumable) as run:
        _leave_out(sources, options.limit, run.done)
        streams = Streams(sources, options, derainer, detector)
        broken: list[str] = []
        try:
            streams.process(run)
        except StreamError as error:
            broken = [f"{name}: {one}" for name, one in error.errors.items()]
        failures = [*broken, *(line for source in sources for line in source.failures)]
        summary = run.finish(failures, streams.timing())
    _print_summary(summary, folder)
    raise_failures(failures, sum(len(source.files) for source in sources))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m detection",
        "Derain images, videos, a camera or a stream, and detect objects in them.",
        _EXAMPLE,
    )
    parser.add_argument(
        "source", nargs="+", help="images, folders, globs, videos, camera number, stream address"
    )
    parser.add_argument(
        "--derain",
        default=DEFAULT_DERAINER,
        metavar="SPEC",
        help=f"one of {SPEC_HELP}; default: {DEFAULT_DERAINER}",
    )
    parser.add_argument(
        "--detector",
        required=True,
        metavar="WEIGHTS",
        help="ultralytics weights or export; a .pt runs code when it is loaded: trust its origin",
    )
    parser.add_argument("--allow-download", action="store_true", help="fetch missing weights")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/detection/<name>")
    parser.add_argument("--save", action="store_true", help="write annotated images or videos")
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="with --save: rainy and derained, each with what the detector finds in it",
    )
    parser.add_argument("--conf", type=fraction, default=0.25, help="lowest score, 0..1")
    parser.add_argument("--iou", type=fraction, default=0.7, help="overlap of boxes, 0..1")
    parser.add_argument("--imgsz", type=positive_int, default=640, metavar="PX")
    parser.add_argument("--max-det", type=positive_int, default=300, metavar="N")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="names or numbers to keep")
    parser.add_argument(
        "--where",
        choices=("frame", "network"),
        default="frame",
        help="derain at native size, or at the detector's size (cheaper)",
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="most frames per source")
    parser.add_argument(
        "--streams",
        type=positive_int,
        default=4,
        metavar="N",
        help="videos read at once, their frames in common batches; default: 4 (live: all)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_stage_options(parser)
    options = parser.parse_args(argv)
    if options.side_by_side and not options.save:
        parser.error("--side-by-side needs --save")
    if options.side_by_side and options.where == "network":
        parser.error("--side-by-side needs --where frame: no derained frame of native size exists")
    return options


def _make_detector(options: argparse.Namespace, derainer: DerainCallable) -> YoloDetector:
    detector = YoloDetector(
        options.detector,
        device=str(resolve_device(options.device)),
        conf=options.conf,
        iou=options.iou,
        imgsz=options.imgsz,
        max_det=options.max_det,
        batch=options.batch,
        allow_download=options.allow_download,
    )
    if options.classes:
        detector.classes = [_label(given, detector.names) for given in options.classes]
    # Setting up takes seconds, which are not the first frame's.
    detector([np.full((64, 64, 3), PAD_VALUE, np.uint8)])
    if options.where == "network":
        attach(detector.yolo, derainer, where="network")
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


def _settings(
    options: argparse.Namespace, derainer: Derainer | PrecomputedResults
) -> dict[str, Any]:
    """Return what results depend on: not the batch, the device or what is printed."""
    left_out = {"allow_download", "batch", "device", "out", "quiet", "streams"}
    settings = {key: value for key, value in vars(options).items() if key not in left_out}
    return {**settings, "derainer": derainer.name, "fingerprint": derainer.fingerprint}


def _leave_out(sources: Sequence[Source], limit: int | None, done: Container[str]) -> None:
    """Take images out that are beyond the limit, or that an interrupted run has done."""
    for source in sources:
        if isinstance(source, Images):
            source.files = [pair for pair in source.files[:limit] if pair[0] not in done]


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
    rate = timing["frames_per_s"] or 0.0
    print(f"ms per frame: {stages}; {timing['wall_s']:.1f} s in all, {rate:.2f} frames/s")
    print(f"results in {folder}")


if __name__ == "__main__":
    run_command(main)
