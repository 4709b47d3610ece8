"""`python -m detection SOURCE --derain SPEC --detector WEIGHTS`: derain and detect."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from detection.draw import draw_detections, side_by_side
from detection.pipeline import STAGES, Pipeline, Processed, StreamError
from detection.records import RECORD_NAME, RunFolder
from detection.sources import Images, Live, Source, find_sources
from detection.timing import StageTimes
from detection.types import Detections
from detection.yolo import YoloDetector, attach
from detection.yolo.letterbox import PAD_VALUE, place
from rainmer import Derainer
from rainmer.background import consume
from rainmer.cli import (
    add_stage_options,
    fraction,
    make_parser,
    positive_int,
    run_command,
    stage_options,
)
from rainmer.errors import OutputError, RainmerError
from rainmer.frames import Frame, write_image
from rainmer.inputs import raise_failures, real_path
from rainmer.specs import DEFAULT_DERAINER, SPEC_HELP
from rainmer.video import VideoWriter

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
    derainer = Derainer(options.derain, **stage_options(options))
    detector = _make_detector(options, derainer)
    folder = options.out or _default_folder(sources[0].name, derainer.name, detector.name)
    resumable = next((source.name for source in sources if isinstance(source, Images)), None)
    if options.save:
        _refuse_clashes(sources, folder)
    settings = _settings(options, derainer)
    with RunFolder(folder, settings, detector.names, resumable) as run:
        _leave_out(sources, options.limit, run.done)
        streams = _Streams(sources, options, derainer, detector)
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


def _make_detector(options: argparse.Namespace, derainer: Derainer) -> YoloDetector:
    detector = YoloDetector(
        options.detector,
        device=str(derainer.device),
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


def _refuse_clashes(sources: Sequence[Source], folder: Path) -> None:
    """Check that saved results replace neither each other, nor an input or a file of others.

    Raises:
        OutputError: Names what would.
    """
    inputs = {real_path(path) for source in sources for _, path in source.files}
    is_ours = (folder / RECORD_NAME).is_file()
    by_target: dict[Path, Path] = {}
    for path, target in _saved_files(sources, folder):
        if real_path(target) in inputs:
            raise OutputError(
                f"the result of {path} would replace the input {target}: "
                "choose another folder for --out"
            )
        if not is_ours and os.path.lexists(target):
            raise OutputError(
                f"{target} exists and is not a result of this command: choose another folder for "
                "--out"
            )
        other = by_target.setdefault(target, path)
        if other is not path:
            raise OutputError(
                f"{other} and {path} would both become {target}: run the command on each alone, "
                "with different folders for --out"
            )


def _saved_files(sources: Sequence[Source], folder: Path) -> Iterator[tuple[Path, Path]]:
    for source in sources:
        for name, path in source.files:
            yield path, _saved_file(source, name, folder)


def _saved_file(source: Source, name: str, folder: Path) -> Path:
    """Return where an annotated image, or the video of other sources, goes."""
    if isinstance(source, Images):
        return folder / "images" / name
    return folder / Path(name).with_suffix(".mp4")


def _settings(options: argparse.Namespace, derainer: Derainer) -> dict[str, Any]:
    """Return what results depend on: not the batch, the device or what is printed."""
    left_out = {"allow_download", "batch", "device", "out", "quiet", "streams"}
    settings = {key: value for key, value in vars(options).items() if key not in left_out}
    return {**settings, "derainer": derainer.name, "fingerprint": derainer.fingerprint}


def _leave_out(sources: Sequence[Source], limit: int | None, done: Container[str]) -> None:
    """Take images out that are beyond the limit, or that an interrupted run has done."""
    for source in sources:
        if isinstance(source, Images):
            source.files = [pair for pair in source.files[:limit] if pair[0] not in done]


class _Result(NamedTuple):
    """What is handed to the thread that writes; without `processed`, the source has ended."""

    source: str
    processed: Processed | None
    in_rainy: Detections | None


class _Streams:
    """All sources on their way through the pipeline, in three stages at once.

    Threads decode, one per source; the calling one derains and detects; another draws and writes.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        options: argparse.Namespace,
        derainer: Derainer,
        detector: YoloDetector,
    ) -> None:
        self._sources = {source.name: source for source in sources}
        self._options = options
        self._derainer = derainer
        self._detector = detector
        # At network size the detector derains by itself.
        self._pipeline = Pipeline(_unchanged if options.where == "network" else derainer, detector)
        self._times = StageTimes()
        self._frames = 0
        self._wall_s = 0.0

    def process(self, run: RunFolder) -> None:
        """Write the results of all sources.

        Raises:
            StreamError: Sources broke off; the results of all others are complete.
        """
        start = time.perf_counter()
        limit = self._options.limit
        counts = [
            min(source.count or limit or 0, limit or source.count)
            for source in self._sources.values()
        ]
        with (
            contextlib.ExitStack() as open_savers,
            tqdm(
                total=sum(counts) if all(counts) else None,
                desc=next(iter(self._sources)) if len(counts) == 1 else f"{len(counts)} sources",
                unit="frame",
                delay=2,
                disable=self._options.quiet,
            ) as bar,
        ):
            savers = {
                source.name: open_savers.enter_context(
                    _Saver(
                        source,
                        self._options,
                        self._derainer.name,
                        self._detector.names,
                        run.folder,
                    )
                )
                for source in self._sources.values()
            }

            def write(result: _Result) -> None:
                self._write(result, savers[result.source], run)
                bar.update(result.processed is not None)

            try:
                consume(self._detected(), write, 2 * self._options.batch)
            finally:
                self._wall_s = time.perf_counter() - start

    def timing(self) -> dict[str, Any]:
        """Return ms per frame of each stage, seconds in all, and frames per second."""
        return {
            "stage_ms": {
                stage: round(self._times.total_ms(stage) / max(self._frames, 1), 3)
                for stage in ("decode", *STAGES, "write")
            },
            "wall_s": round(self._wall_s, 3),
            "frames_per_s": round(self._frames / self._wall_s, 3) if self._wall_s else None,
        }

    def _write(self, result: _Result, saver: _Saver, run: RunFolder) -> None:
        if result.processed is None:
            saver.close()
            return
        with self._times.measuring("write"):
            saver.save(result.processed, result.in_rainy)
            run.add(result.source, result.processed)
        for stage, elapsed_ms in result.processed.stage_ms.items():
            self._times.add(stage, elapsed_ms)
        self._frames += 1

    def _detected(self) -> Iterator[_Result]:
        """Derain and detect; in the rainy frame too if both are shown."""
        lives = sum(isinstance(source, Live) for source in self._sources.values())
        frames = {
            # Live sources first: they cannot wait until a video ends.
            name: self._times.of_items("decode", itertools.islice(source, self._options.limit))
            for name, source in sorted(
                self._sources.items(), key=lambda item: not isinstance(item[1], Live)
            )
        }
        streams = self._pipeline.run_streams(
            frames,
            self._options.batch,
            at_once=max(lives, self._options.streams),
            live=bool(lives),
            download=self._options.save,
        )
        with contextlib.closing(streams):
            for name, processed in streams:
                in_rainy = None
                if self._options.side_by_side and processed is not None:
                    (in_rainy,) = self._detector([processed.frame])
                yield _Result(name, processed, in_rainy)


def _unchanged(frames: list[Frame]) -> list[Frame]:
    return frames


class _Saver(contextlib.ExitStack):
    """Writes annotated frames: images under their names, videos as one file.

    A video has the size of its first frame; frames of another are fitted into it.
    """

    def __init__(
        self,
        source: Source,
        options: argparse.Namespace,
        derainer: str,
        names: dict[int, str],
        folder: Path,
    ) -> None:
        super().__init__()
        self._source = source
        self._options = options
        self._derainer = derainer
        self._names = names
        self._folder = folder
        self._video: VideoWriter | None = None

    def save(self, processed: Processed, in_rainy: Detections | None) -> None:
        """Draw and write a frame, beside the rainy one if there are detections in that."""
        if not self._options.save:
            return
        picture = self._compose(processed, in_rainy)
        if self._source.fps is None:
            write_image(_saved_file(self._source, processed.name, self._folder), picture)
            return
        if self._video is None:
            picture = _with_even_sides(picture)
            path = _saved_file(self._source, self._source.name, self._folder)
            size_hw = (picture.shape[0], picture.shape[1])
            self._video = self.enter_context(
                VideoWriter(path, fps=self._source.fps, size_hw=size_hw)
            )
        self._video.write(_fitted(picture, self._video.size_hw))

    def _compose(self, processed: Processed, in_rainy: Detections | None) -> Frame:
        names = self._names
        annotated = draw_detections(processed.derained, processed.detections, names)
        if in_rainy is None:
            return annotated
        captions = [
            f"rainy: {_boxes(len(in_rainy))}",
            f"{self._derainer}: {_boxes(len(processed.detections))}",
        ]
        return side_by_side(
            [draw_detections(processed.frame, in_rainy, names), annotated], captions
        )


def _with_even_sides(frame: Frame) -> Frame:
    """Repeat the last row or column where a side is odd: video codecs need even ones."""
    odd_rows, odd_columns = frame.shape[0] % 2, frame.shape[1] % 2
    return np.pad(frame, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")


def _fitted(frame: Frame, size_hw: tuple[int, int]) -> Frame:
    """Bring a frame to a video's size: odd sides repeated, others scaled and set on black."""
    if frame.shape[:2] == size_hw:
        return frame
    frame = _with_even_sides(frame)
    if frame.shape[:2] == size_hw:
        return frame
    placement = place((frame.shape[0], frame.shape[1]), size_hw)
    canvas = np.zeros((*size_hw, 3), np.uint8)
    canvas[placement.content] = cv2.resize(frame, placement.size_hw[::-1])
    return canvas


def _boxes(count: int) -> str:
    return f"{count} box" if count == 1 else f"{count} boxes"


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
