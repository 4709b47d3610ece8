"""How close the pipeline comes to the speed of its two networks, from video to video.

python -m benchmarks.pipeline --limit 32 --rounds 3

Deraining alone, detecting alone and the whole pipeline (decode, derain, detect, draw, encode) take
turns in one process on the same frames; medians over rounds. The ratio says how much of
1 / (t_derain + t_detect) the pipeline reaches; the target is 0.9, because decoding and encoding
overlap with the networks. The video shows drawn street scenes in rendered rain. On CUDA the
networks alone are timed on frames that are already on the device. For a video on its own, and for
four at a time, the frames a second are also told without drawing and encoding, beside those of
decoding alone, which a single thread does for each video, and of frames that were decoded before.
On CUDA the detector is also timed without its CUDA graph, alone and behind a video.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.measuring import alternate, parse_size
from detection import Pipeline, Processed, YoloDetector, draw_detections
from eval.report.files import describe_environment
from eval.street import draw_scene
from eval.street.detector import detector_weights
from rainmer import Derainer
from rainmer.background import consume
from rainmer.cli import (
    StageOptions,
    add_stage_options,
    make_parser,
    parse_options,
    positive_int,
    run_command,
    stage_options,
)
from rainmer.files import write_text
from rainmer.frames.arrays import Frame, to_batch, to_frames, upload
from rainmer.frames.video import VideoWriter, open_video
from rainmer.rain import RainRenderer, rain_config
from rainmer.stage.specs import DEFAULT_DERAINER

WANTED = 0.9
_FPS = 25.0
_RENDERED = 8
_STREAMS = 4


@dataclass(frozen=True, kw_only=True)
class _Options(StageOptions):
    """The options of the benchmark."""

    derain: str
    detector: str | None
    sizes: list[tuple[int, int]]
    limit: int
    rounds: int
    out: Path | None


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    derainer = Derainer(options.derain, **stage_options(options))
    detector = YoloDetector(
        options.detector or str(detector_weights()),
        device=str(derainer.device),
        imgsz=max(options.sizes[0]),
        batch=options.batch,
    )
    rows = []
    print(f"{'size':>10} {'derain':>9} {'detect':>9} {'sum':>9} {'pipeline':>9} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for size_hw in options.sizes:
            video = Path(folder) / "rainy.mp4"
            write_rainy_video(video, size_hw, options.limit)
            row = measure(video, derainer, detector, options.rounds, options.batch)
            rows.append(row)
            print(_format(row), flush=True)
            if options.out:
                result = {"environment": describe_environment(derainer.device), "rows": rows}
                write_text(options.out, json.dumps(result, indent=2) + "\n")


def _parse() -> _Options:
    parser = make_parser(
        "python -m benchmarks.pipeline",
        "Time the pipeline beside its networks.",
        "  python -m benchmarks.pipeline --detector yolov8n.pt --limit 32 --out pipeline.json",
    )
    parser.add_argument("--derain", default=DEFAULT_DERAINER, metavar="SPEC")
    parser.add_argument("--detector", metavar="WEIGHTS", help="default: the embedded one")
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=[(384, 640)], metavar="WxH")
    parser.add_argument("--limit", type=positive_int, default=64, metavar="N", help="frames")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--out", type=Path, metavar="JSON")
    add_stage_options(parser)
    return parse_options(parser, _Options, None)


def write_rainy_video(path: Path, size_hw: tuple[int, int], count: int) -> None:
    """Write a video that repeats a few street scenes in rain, because rendering is slow.

    Args:
        path: The video.
        size_hw: (height, width) of its frames, both even.
        count: Number of frames.
    """
    renderer = RainRenderer(rain_config("day-heavy"))
    rainy: list[Frame] = []
    for i in tqdm(range(min(count, _RENDERED)), desc="rendering", delay=2, leave=False):
        clean = to_batch([draw_scene(i, night=False, size_hw=size_hw).image])
        rainy += to_frames(renderer(clean, [f"street-{i}"]).rainy)
    with VideoWriter(path, fps=_FPS, size_hw=size_hw) as writer:
        for i in range(count):
            writer.write(rainy[i % len(rainy)])


def measure(
    video: Path, derainer: Derainer, detector: YoloDetector, rounds: int, batch: int
) -> dict[str, Any]:
    """Time both networks alone and the pipeline, on the same frames.

    Returns:
        Size, number of frames, ms per frame of each network (medians), frames per second of the
        pipeline to a video, of decoding, from one and from several videos to detections, and from
        decoded frames to detections; of one video ms per frame by stage; and the ratio. On CUDA
        also without the detector's graph.
    """
    with open_video(video) as reader:
        frames = [frame.image for frame in reader]
    on_cuda = derainer.device.type == "cuda"
    parts = [frames[start : start + batch] for start in range(0, len(frames), batch)]
    uploaded = [upload(part, derainer.device) for part in parts] if on_cuda else []
    pipeline = Pipeline(derainer, detector)

    def derain() -> None:
        for part in uploaded or parts:
            derainer(part)

    def detect() -> None:
        for tensor in uploaded:
            detector.detect_batch(tensor)
        if not uploaded:
            for part in parts:
                detector(part)

    stage_ms: dict[str, float] = {}
    functions: dict[str, Callable[[], None]] = {
        "derain": derain,
        "detect": detect,
        "pipeline": lambda: run_pipeline(video, pipeline, detector.names, batch),
        "decode": lambda: _decode(video),
        "decoded": lambda: _exhaust(pipeline.run(frames, batch)),
        "watch": lambda: stage_ms.update(_watch(video, pipeline, batch, streams=1)),
        "watch_streams": lambda: _watch(video, pipeline, batch, streams=_STREAMS),
    }
    if on_cuda:
        for name in ("detect", "watch"):
            functions[f"{name}_eager"] = _without_graphs(detector, functions[name])
    with tqdm(total=(rounds + 1) * len(functions), delay=2, leave=False) as bar:
        taken = alternate(
            {k: _counted(f, bar) for k, f in functions.items()}, rounds, derainer.device
        )
    median = {name: statistics.median(seconds) / len(frames) for name, seconds in taken.items()}
    networks_s = median["derain"] + median["detect"]
    return {
        "width": frames[0].shape[1],
        "height": frames[0].shape[0],
        "frames": len(frames),
        "batch": batch,
        "derain_ms": median["derain"] * 1e3,
        "detect_ms": median["detect"] * 1e3,
        "pipeline_fps": 1 / median["pipeline"],
        "decode_fps": 1 / median["decode"],
        "decoded_fps": 1 / median["decoded"],
        "watch_fps": 1 / median["watch"],
        "watch_streams_fps": _STREAMS / median["watch_streams"],
        **{f"watch_{stage}_ms": elapsed_ms for stage, elapsed_ms in stage_ms.items()},
        **_eager(median),
        # Parts of one round are compared, because other load on the machine changes slowly.
        "ratio": statistics.median(
            (derain_s + detect_s) / pipeline_s
            for derain_s, detect_s, pipeline_s in zip(
                *(taken[name] for name in ("derain", "detect", "pipeline")), strict=True
            )
        ),
        "ratio_of_medians": networks_s / median["pipeline"],
        "seconds": taken,
    }


def _without_graphs(detector: YoloDetector, function: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        detector.graphs = False
        function()
        detector.graphs = True

    return call


def _eager(median: dict[str, float]) -> dict[str, float]:
    if "detect_eager" not in median:
        return {}
    return {
        "detect_eager_ms": median["detect_eager"] * 1e3,
        "watch_eager_fps": 1 / median["watch_eager"],
    }


def _counted(function: Callable[[], None], bar: tqdm[Any]) -> Callable[[], None]:
    def call() -> None:
        function()
        bar.update()

    return call


def run_pipeline(video: Path, pipeline: Pipeline, names: dict[int, str], batch: int) -> None:
    """Derain a video, detect objects, and write the frames with boxes to a video beside it."""
    with (
        open_video(video) as reader,
        VideoWriter(video.with_name("found.mp4"), fps=reader.fps, size_hw=reader.size_hw) as writer,
    ):

        def write(processed: Processed) -> None:
            picture: Frame = draw_detections(processed.derained, processed.detections, names)
            writer.write(picture, processed.time_s)

        consume(pipeline.run(reader, batch, download=True), write, 2 * batch)


def _decode(video: Path) -> None:
    with open_video(video) as reader:
        _exhaust(reader)


def _exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def _watch(video: Path, pipeline: Pipeline, batch: int, *, streams: int) -> dict[str, float]:
    """Detect in a video, read by so many streams at once, without writing anything.

    Returns:
        Mean ms per frame of each stage.
    """
    totals: Counter[str] = Counter()
    count = 0
    with contextlib.ExitStack() as stack:
        sources = {str(i): stack.enter_context(open_video(video)) for i in range(streams)}
        for _, processed in pipeline.run_streams(sources, batch):
            if processed is not None:
                totals.update(processed.stage_ms)  # type: ignore[arg-type]
                count += 1
    return {stage: total / count for stage, total in totals.items()}


def _format(row: dict[str, Any]) -> str:
    size = f"{row['width']}x{row['height']}"
    sum_ms = row["derain_ms"] + row["detect_ms"]
    verdict = "reached" if row["ratio"] >= WANTED else "missed"
    eager = (
        f"; without the detector's graph {row['detect_eager_ms']:.1f} ms, "
        f"{row['watch_eager_fps']:.1f} /s"
        if "watch_eager_fps" in row
        else ""
    )
    return (
        f"{size:>10} {row['derain_ms']:6.1f} ms {row['detect_ms']:6.1f} ms {sum_ms:6.1f} ms "
        f"{row['pipeline_fps']:5.2f} /s {row['ratio']:6.3f}  {WANTED} {verdict}; decode "
        f"{row['decode_fps']:.1f} /s, to detections {row['watch_fps']:.1f} /s, "
        f"{_STREAMS} videos {row['watch_streams_fps']:.1f} /s, decoded before "
        f"{row['decoded_fps']:.1f} /s{eager}"
    )


if __name__ == "__main__":
    run_command(lambda _: main())
