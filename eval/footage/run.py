"""A run of the command: what is set up, and every frame through derainers and detector."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from detection.specs import detector_name, load_detector
from detection.timing import StageTimes, Stopwatch
from detection.tracks import lowest_score
from detection.types import Detections, Detector
from eval.cli import advance, cache_folder, progress_bar
from eval.footage.frames import Footage, FootageFrame, FrameKey, find_footage
from eval.footage.options import FootageOptions
from eval.footage.records import RAINY, FrameRecord, FrameResult, as_boxes, is_valid
from eval.footage.teacher import Teacher
from eval.rows.cache import RowDerainer
from eval.rows.derainers import Derainers
from eval.rows.records import RecordFile
from eval.street.detector import detector_file
from rainmer.background import prefetch
from rainmer.cli import stage_options
from rainmer.device import frames_at_once, resolve_device
from rainmer.errors import ImageError
from rainmer.extras import import_extra
from rainmer.files import file_sha256, make_folder, safe_file_name
from rainmer.frames.inputs import raise_failures
from rainmer.meter import RainMeter, Reading
from rainmer.stage.specs import DEFAULT_DERAINER

__all__ = ["Bench", "look_at_frames", "raise_unreadable", "set_up"]

_GREY = np.full((64, 64, 3), 114, np.uint8)


@dataclass
class Bench:
    """What is set up before the first frame.

    Attributes:
        options: The options of the command.
        footage: The frames.
        detector: The detector.
        detector_fingerprint: Changes with its weights and settings.
        derainers: All derainers by name.
        fingerprints: Their fingerprints.
        teacher: A larger detector; None without one.
        folder: Folder of the results.
        started: `time.perf_counter` when the run began.
        meter: Its values join the timeline.
        times: Times of decoding, deraining and detecting in this run, in ms.
    """

    options: FootageOptions
    footage: Footage
    detector: Detector
    detector_fingerprint: str
    derainers: Mapping[str, RowDerainer]
    fingerprints: Mapping[str, str]
    teacher: Teacher | None
    folder: Path
    started: float
    meter: RainMeter
    times: StageTimes = field(default_factory=StageTimes)

    @property
    def inputs(self) -> list[str]:
        """All inputs, the rainy one first."""
        return [RAINY, *self.derainers]


def set_up(options: FootageOptions) -> Bench:
    """Find the frames, load detectors and derainers, so that mistakes end the run before the work.

    Raises:
        RainmerError: A mistake in the options.
    """
    started = time.perf_counter()
    if not options.stills:
        import_extra("lap", "track", "following things (all but --stills)")
    footage = find_footage(
        options.source,
        options.out,
        fps=options.fps,
        every=options.every,
        limit=options.limit,
        stretch=options.stretch,
    )
    weights = detector_file(options.detector)
    detector = _load_detector(options, weights)
    teacher = None
    if options.teacher is not None:
        file = detector_file(options.teacher)
        larger = _load_detector(options, file)
        teacher = Teacher(larger, detector.names, options.teacher_conf, _fingerprint(larger, file))
    derainers = Derainers(
        list(dict.fromkeys(options.derain or [DEFAULT_DERAINER])),
        stage_options(options),
        cache_folder(options) if options.cache else None,
    )
    rows = {derainer.name: derainer for derainer in derainers.for_set(footage.name)}
    name = safe_file_name(f"{footage.name}-{detector_name(weights)}")
    return Bench(
        options=options,
        footage=footage,
        detector=detector,
        detector_fingerprint=_fingerprint(detector, weights),
        derainers=rows,
        fingerprints=derainers.fingerprints,
        teacher=teacher,
        folder=make_folder(options.out or Path("runs", "footage", name)),
        started=started,
        meter=RainMeter(device=resolve_device(options.device)),
    )


def _plotted(reading: Reading) -> dict[str, float]:
    """Return what the timeline shows of a reading, by name."""
    values = {"rain mm/h": reading.rate_mm_h, "benefit": reading.benefit, "night": reading.night}
    return {name: value for name, value in values.items() if value is not None}


def _load_detector(options: FootageOptions, weights: str) -> Detector:
    detector = load_detector(
        weights,
        resolve_device(options.device),
        conf=lowest_score(options.conf),
        imgsz=options.imgsz,
        batch=options.batch,
        allow_download=options.allow_download,
    )
    detector([_GREY])  # set-up takes seconds, which must not count towards the first frame
    return detector


def _fingerprint(detector: Detector, weights: str) -> str:
    """Return the fingerprint that a detector tells, otherwise the digest of its file."""
    told = getattr(detector, "fingerprint", None)
    return str(told or (file_sha256(weights) if Path(weights).is_file() else weights))


def look_at_frames(bench: Bench) -> list[FrameResult]:
    """Derain every frame, and detect in all its versions.

    What is known is written down frame by frame: an interrupted run resumes where it stopped.

    Returns:
        The frames that could be read, in their order; see also `Footage.failures`.

    Raises:
        ImageError: No frame at all could be read.
        OutputError: The results cannot be written.
    """
    files = {label: _record_file(bench, label) for label in bench.inputs}
    known = {
        label: {r.key: replace(r, derain_earlier=True, detect_earlier=True) for r in file.read()}
        for label, file in files.items()
    }
    results: list[FrameResult] = []
    frames = bench.times.of_items("decode", bench.footage)
    count = bench.footage.count
    with (
        progress_bar(count, quiet=bench.options.quiet, unit="frame") as bar,
        contextlib.closing(prefetch(frames, ahead=2 * bench.options.batch)) as coming,
    ):
        for chunk in _chunks(coming, bench):
            for label in bench.inputs:
                new = [frame for frame in chunk if frame.key not in known[label]]
                records = _records(bench, label, new) if new else []
                files[label].append(*records)
                known[label].update({record.key: record for record in records})
            results += [_result(frame, known) for frame in chunk]
            advance(bar, chunk[-1].shot, len(chunk))
    if not results:
        raise_unreadable(bench.footage)
        raise ImageError(f"{bench.options.source[0]} holds no frame that can be read")
    return results


def raise_unreadable(footage: Footage) -> None:
    """Raise ImageError if files could not be read in full; the message names the first."""
    raise_failures(footage.failures, len(footage.files))


def _chunks(frames: Iterator[FootageFrame], bench: Bench) -> Iterator[list[FootageFrame]]:
    """Yield frames by as many as are computed at once."""
    device = resolve_device(bench.options.device)
    for first in frames:
        height, width = first.image.shape[:2]
        size = frames_at_once(bench.options.batch, (height, width), device)
        yield [first, *itertools.islice(frames, size - 1)]


def _result(
    frame: FootageFrame, known: Mapping[str, Mapping[FrameKey, FrameRecord]]
) -> FrameResult:
    inputs = {label: records[frame.key] for label, records in known.items()}
    height, width = frame.image.shape[:2]
    return FrameResult(frame.key, frame.shot, frame.time_s, (height, width), inputs)


def _records(bench: Bench, label: str, frames: Sequence[FootageFrame]) -> list[FrameRecord]:
    """Run one input of some frames."""
    images = [frame.image for frame in frames]
    derain_ms: list[float | None] = [None] * len(frames)
    earlier = [False] * len(frames)
    if label != RAINY:
        with bench.times.measuring("derain"):
            derained = bench.derainers[label](images, [frame.key.name for frame in frames])
        images, derain_ms = [d.frame for d in derained], [d.elapsed_ms for d in derained]
        earlier = [d.earlier for d in derained]
    with Stopwatch() as watch:
        found = bench.detector(images)
    bench.times.add("detect", watch.elapsed_ms)
    detect_ms = watch.elapsed_ms / len(frames)
    labels = [Detections()] * len(frames) if bench.teacher is None else bench.teacher(images)
    records = [
        FrameRecord(*frame.key, as_boxes(boxes), detect_ms, ms, was_earlier, labels=as_boxes(own))
        for frame, boxes, ms, was_earlier, own in zip(
            frames, found, derain_ms, earlier, labels, strict=True
        )
    ]
    if label == RAINY:
        records = [
            replace(record, meter=_plotted(reading))
            for record, reading in zip(records, bench.meter(images), strict=True)
        ]
    return records


def _record_file(bench: Bench, label: str) -> RecordFile[FrameRecord]:
    """Return the file of an input; it depends on everything that its numbers depend on."""
    parts: list[object] = [
        [_stamp(path) for path in bench.footage.files],
        bench.options.stretch,
        bench.detector_fingerprint,
        bench.options.imgsz,
        lowest_score(bench.options.conf),
        "" if bench.teacher is None else bench.teacher.fingerprint,
    ]
    if label == RAINY:
        parts.append(bench.meter.fingerprint)
        return RecordFile(bench.folder / "rows", "rainy", parts, FrameRecord, is_valid)
    parts.append(bench.derainers[label].fingerprint)
    name = f"derained-{label}"
    return RecordFile(bench.folder / "rows", name, parts, FrameRecord, is_valid)


def _stamp(path: Path) -> list[object]:
    """Return what changes when a file does."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return [str(path), status.st_size, status.st_mtime_ns]
    return [str(path)]
