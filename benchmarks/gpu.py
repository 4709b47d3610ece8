"""All GPU measurements in one command that keeps a time limit.

python -m benchmarks.gpu --minutes 8 --out gpu

The most important part comes first. A part that fails leaves a line with its error, and the next
part runs. Every number is appended to DIR/gpu.jsonl as soon as it is measured, and a table of all
numbers goes to DIR/gpu.md at the end. When the time is over, the process ends with the results so
far, even in the middle of a part. Without a GPU the same parts run in miniature, which only shows
that they work.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gradients import gradient_cases
from benchmarks.kernels import kernel_cases
from benchmarks.measuring import PUBLISHED, alternate, build, gemm_rate, read_rate, synchronize
from rainmer import Derainer, kernels, models
from rainmer.cli import make_parser, positive_int, run_command
from rainmer.device import resolve_device
from rainmer.errors import RainmerError
from rainmer.files import append_line, make_folder, write_text
from rainmer.rain import RainRenderer, rain_config
from rainmer.stage.specs import DEFAULT_DERAINER
from rainmer.train.config import Stage
from rainmer.train.mixture import Batch, Mixture
from rainmer.train.step import Trainer

__all__ = ["PARTS", "Bench", "main"]

RECORDS = "gpu.jsonl"
TABLE = "gpu.md"
_SECONDS_A_MINUTE = 60.0
_ROUNDS = 7
_SLOW_ROUNDS = 3
_PRECISIONS = ("bf16", "fp32", "fp16")


@dataclass(frozen=True)
class Bench:
    """Settings that all parts share.

    Attributes:
        device: Device of all parts.
        out: Folder of the results.
        deadline_s: Time (`time.monotonic`) at which the process ends.
        images: Folder of clean photos for the training part; None: drawn street scenes.
    """

    device: torch.device
    out: Path
    deadline_s: float
    images: Path | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether this is a full run rather than a miniature."""
        return self.device.type == "cuda"

    @property
    def sizes_hw(self) -> tuple[tuple[int, int], ...]:
        """The sizes (height, width) of frames, the most important first."""
        return ((720, 1280), (384, 640), (1080, 1920)) if self.on_gpu else ((48, 64),)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions of the stage; half precision is very slow on CPUs."""
        return _PRECISIONS if self.on_gpu else _PRECISIONS[:2]

    def record(self, part: str, **values: object) -> None:
        """Append a line to the records and print it. Raises OutputError."""
        line = {"part": part, **values}
        append_line(self.out / RECORDS, line)
        print(json.dumps(line), flush=True)

    def time_ms(self, function: Callable[[], object], rounds: int = _ROUNDS) -> float:
        """Return the median milliseconds of calls after an uncounted one; on a CPU of one."""
        rounds = rounds if self.on_gpu else 1
        taken = alternate({"call": function}, rounds, self.device)["call"]
        return round(1e3 * statistics.median(taken), 3)

    def first_ms(self, function: Callable[[], object]) -> float:
        """Return the milliseconds of a single call, for functions that have not run before."""
        started = time.perf_counter()
        function()
        synchronize(self.device)
        return round(1e3 * (time.perf_counter() - started), 1)


def main(argv: list[str] | None = None) -> None:
    """Run all parts that fit into the time. Raises RainmerError."""
    started_s = time.monotonic()
    options = _parse(argv)
    if options.images is not None and not options.images.is_dir():
        raise RainmerError(f"no folder {options.images}: --images takes a folder of photos")
    bench = Bench(
        resolve_device(options.device),
        make_folder(options.out),
        started_s + _SECONDS_A_MINUTE * options.minutes,
        options.images,
    )
    (bench.out / RECORDS).unlink(missing_ok=True)
    name = torch.cuda.get_device_name(bench.device) if bench.on_gpu else "cpu"
    bench.record("device", device=name, torch=torch.__version__)
    watch = threading.Timer(bench.deadline_s - time.monotonic(), _end_now, (bench,))
    watch.daemon = True
    watch.start()
    for name, part in PARTS.items():
        if options.parts and name not in options.parts:
            continue
        try:
            part(bench)
        except Exception as error:  # noqa: BLE001 (the other parts run after any error)
            bench.record(name, error=f"{type(error).__name__}: {error}"[:300])
        if bench.on_gpu:
            torch.cuda.empty_cache()
    watch.cancel()
    _write_table(bench)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks.gpu",
        "Measure stage, networks, pipeline, rendering and training on a GPU within some minutes.",
        "  python -m benchmarks.gpu --minutes 8 --out gpu",
    )
    parser.add_argument("--minutes", type=positive_int, default=8, metavar="M", help="at most")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), metavar="DIR")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="default: all, in order")
    parser.add_argument("--images", type=Path, metavar="DIR", help="photos for the training part")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: the best")
    return parser.parse_args(argv)


def _end_now(bench: Bench) -> None:
    """End the process at once, even inside a kernel or a compiler."""
    bench.record("end", reason="the minutes are over")
    _write_table(bench)
    os._exit(0)


def _write_table(bench: Bench) -> None:
    """Write all records as a Markdown table: part and measurements."""
    lines = ["| part | what | measured |", "| --- | --- | --- |"]
    for text in (bench.out / RECORDS).read_text(encoding="utf-8").splitlines():
        record = json.loads(text)
        part = record.pop("part")
        facts = {k: v for k, v in record.items() if not isinstance(v, float)}
        numbers = {k: v for k, v in record.items() if isinstance(v, float)}
        cells = [", ".join(f"{k} {v}" for k, v in group.items()) for group in (facts, numbers)]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    write_text(bench.out / TABLE, "\n".join(lines) + "\n")


def _environment(bench: Bench) -> None:
    """Record versions and hardware."""
    from eval.report.files import describe_environment

    bench.record("environment", **describe_environment(bench.device))


def _stage(bench: Bench) -> None:
    """Time the stage: frames on the device, then arrays, at each size and precision."""
    choices = (True, False) if bench.on_gpu else (True,)  # CPUs have no graphs
    for size_hw in bench.sizes_hw:
        for precision, graphs, batch in itertools.product(bench.precisions, choices, (1, 8)):
            derainer = _derainer(bench, precision, graphs=graphs)
            frames = _random_frames(batch, size_hw, bench.device)
            call = functools.partial(derainer, frames)
            bench.record(
                "stage",
                size=_size(size_hw),
                precision=precision,
                graphs=graphs,
                batch=batch,
                kind="tensor",
                first_ms=bench.first_ms(call),
                ms=bench.time_ms(call),
            )
        derainer = _derainer(bench, bench.precisions[0])
        rows = _random_frames(8, size_hw, torch.device("cpu")).permute(0, 2, 3, 1)
        arrays = list(rows.contiguous().numpy())  # as decoders make them
        bench.record(
            "stage",
            size=_size(size_hw),
            precision=derainer.precision,
            batch=8,
            kind="arrays",
            ms=bench.time_ms(lambda: derainer(arrays)),  # noqa: B023 (called at once)
        )


def _derainer(bench: Bench, precision: str, *, graphs: bool = True) -> Derainer:
    return Derainer(DEFAULT_DERAINER, bench.device, precision, graphs=graphs)  # type: ignore[arg-type]


def _equality(bench: Bench) -> None:
    """Compare the stage with the CPU: the largest and the mean difference in levels of 255."""
    frame = _random_frames(1, bench.sizes_hw[0], torch.device("cpu"))
    expected = Derainer(DEFAULT_DERAINER, "cpu", "fp32")(frame).float()
    for precision in bench.precisions:
        derainer = Derainer(DEFAULT_DERAINER, bench.device, precision)  # type: ignore[arg-type]
        difference = (derainer(frame).float() - expected).abs()
        bench.record(
            "equality",
            precision=precision,
            most_levels=difference.max().item(),
            mean_levels=round(difference.mean().item(), 4),
        )


def _training(bench: Bench) -> None:
    """Time steps on prepared batches, and count crops that are rendered while training."""
    from benchmarks.training import (
        RENDERINGS,
        fed,
        rainy_scenes,
        small_trainer,
        ways_to_step,
    )

    shapes = ((128, 32, 4), (256, 32, 1)) if bench.on_gpu else ((32, 2, 2),)
    with tempfile.TemporaryDirectory() as folder:
        scenes = (
            {"scenes": 16, "window": 288}
            if bench.on_gpu
            else {"scenes": 2, "window": 64, "size_hw": (96, 128)}
        )
        mixture = Mixture([rainy_scenes(Path(folder), images=bench.images, **scenes)], seed=0)
        for crop, frames, crops in shapes:
            stage = Stage(steps=10_000, crop=crop, batch=frames, crops_per_frame=crops)
            trainer = small_trainer(stage, bench.device)
            ways = ways_to_step(trainer)
            for rendering in RENDERINGS:
                with fed(trainer, mixture, rendering) as batches:
                    # How a step is launched makes no difference to what renders: the first way.
                    _feed(bench, ways if rendering == "loader" else ways[:1], batches, rendering)


def _feed(bench: Bench, ways: Sequence[Trainer], batches: Iterator[Batch], rendering: str) -> None:
    """Record the rates of batches alone and of each way to step with them."""
    from benchmarks.training import crops_per_s, pass_by, step_with

    seconds = 6.0 if bench.on_gpu else 0.2
    kept = [next(batches)]
    loaded = crops_per_s(batches, pass_by, seconds, bench.device)
    for trainer in ways:
        step = functools.partial(trainer.step, kept)
        first_ms = bench.first_ms(step)
        for _ in range(trainer.graphs.steps_before):
            step()
        bench.record(
            "training",
            crop=kept[0].rainy.shape[-1],
            crops=len(kept[0].rainy),
            rendering=rendering,
            first_ms=first_ms,
            step_ms=bench.time_ms(step, _SLOW_ROUNDS),
            fed_crops_per_s=crops_per_s(batches, step_with(trainer), seconds, bench.device),
            loaded_crops_per_s=loaded,
            graphs=trainer.graphs.replays > 0,
            kernels=trainer.config.kernels,
        )


def _pipeline(bench: Bench) -> None:
    """Time the pipeline with the embedded detector on a decoded video."""
    from benchmarks.pipeline import measure, write_rainy_video
    from detection import YoloDetector
    from eval.street.detector import detector_weights

    size_hw = bench.sizes_hw[0]
    precision = "bf16" if bench.on_gpu else "fp32"
    derainer = Derainer(DEFAULT_DERAINER, bench.device, precision)  # type: ignore[arg-type]
    device = str(bench.device)
    detector = YoloDetector(str(detector_weights()), device=device, imgsz=max(size_hw), batch=8)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "rainy.mp4"
        write_rainy_video(video, size_hw, 64 if bench.on_gpu else 4)
        row = measure(video, derainer, detector, _SLOW_ROUNDS, 8)
    row.pop("seconds")
    bench.record("pipeline", **row)


def _kernels(bench: Bench) -> None:
    """Record the slowest kernels (on a CPU: operators) for a batch of four."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.on_gpu else [])]
    precision = "bf16" if bench.on_gpu else "fp32"
    derainer = _derainer(bench, precision, graphs=False)  # each kernel with its operator
    frames = _random_frames(4, bench.sizes_hw[0], bench.device)
    derainer(frames)
    with profile(activities=activities) as profiler:
        derainer(frames)
        synchronize(bench.device)
    key = "self_device_time_total" if bench.on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    total_us = sum(getattr(event, key) for event in events)
    for event in events[:15]:
        taken_us = getattr(event, key)
        bench.record(
            "kernels",
            name=event.key[:80],
            calls=event.count,
            ms=round(taken_us / 1e3, 3),
            share=round(taken_us / max(total_us, 1e-9), 3),
        )


def _triton(bench: Bench) -> None:
    """Time each kernel of `rainmer.kernels` and its twin; GB/s are those of the kernel's bytes."""
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    repeats = 20 if bench.on_gpu else 1  # or else the wait for the device would weigh too much

    def repeated(call: Callable[[], object]) -> Callable[[], object]:
        return lambda: [call() for _ in range(repeats)]

    cases = kernel_cases(bench.device, bench.sizes_hw[0], dtype)
    crops = (128, 64) if bench.on_gpu else (2, 8)
    for case in itertools.chain(cases, gradient_cases(bench.device, *crops, dtype)):
        with torch.inference_mode():
            first_ms = bench.first_ms(case.call)  # compiles
            us = 1e3 * bench.time_ms(repeated(case.call)) / repeats
            with kernels.twins_only():
                twin_us = 1e3 * bench.time_ms(repeated(case.twin or case.call)) / repeats
        bench.record(
            "triton",
            kernel=case.name,
            shape="x".join(map(str, case.shape)),
            first_ms=first_ms,
            us=round(us, 1),
            twin_us=round(twin_us, 1),
            gbyte_per_s=round(case.moved / us / 1e3, 1),
        )


def _networks(bench: Bench) -> None:
    """Time the published network, and PReNet for comparison, one frame at a time."""
    size_hw = bench.sizes_hw[0]
    for dtype in (torch.bfloat16, torch.float32):
        published = build(PUBLISHED).fuse().to(bench.device, dtype)
        image = torch.rand(1, 3, *size_hw, device=bench.device, dtype=dtype)
        query = torch.rand(1, 3, 128, 128, device=bench.device, dtype=dtype)
        _time_network(bench, "published", functools.partial(published, image, query), dtype)
    prenet = models.build("prenet").eval().to(bench.device)
    image = torch.rand(1, 3, *size_hw, device=bench.device)
    _time_network(bench, "prenet", functools.partial(prenet, image), torch.float32)


def _time_network(bench: Bench, name: str, call: Callable[[], object], dtype: torch.dtype) -> None:
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    with torch.inference_mode():
        milliseconds = bench.time_ms(call, _SLOW_ROUNDS)
    peak = torch.cuda.max_memory_allocated(bench.device) / 2**20 if bench.on_gpu else 0.0
    kind = str(dtype).removeprefix("torch.")
    bench.record("networks", network=name, dtype=kind, ms=milliseconds, peak_mb=round(peak, 1))


def _rendering(bench: Bench) -> None:
    """Time rain rendering into 224-pixel windows on the device."""
    count = 64 if bench.on_gpu else 2
    windows = torch.rand(count, 3, 224, 224, device=bench.device)
    names = [str(i) for i in range(count)]
    for preset in ("day-heavy", "night-heavy", "streaks"):
        renderer = RainRenderer(rain_config(preset))
        call = functools.partial(renderer, windows, names, frame_width=640)
        bench.record("rendering", preset=preset, windows=count, ms=bench.time_ms(call))


def _peaks(bench: Bench) -> None:
    """Measure the peak rates of the device: matrix products and copies."""
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    bench.record(
        "peaks",
        dtype=str(dtype).removeprefix("torch."),
        gflop_per_s=round(gemm_rate(bench.device, dtype) / 1e9, 1),
        gbyte_per_s=round(read_rate(bench.device) / 1e9, 1),
    )


def _tests(bench: Bench) -> None:
    """Run the tests that need a GPU."""
    if not bench.on_gpu:
        return
    left_s = bench.deadline_s - time.monotonic()
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-m", "gpu"]
    log = bench.out / "tests.txt"
    with log.open("w", encoding="utf-8") as output:  # at once: a run cut short keeps its names
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", "tests/rainmer", "tests/detection"],
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=max(1.0, left_s - 2.0),
            check=False,
        )
    last = (log.read_text(encoding="utf-8").strip().splitlines() or ["no output"])[-1]
    bench.record("tests", code=done.returncode, summary=last)


def _compiled(bench: Bench) -> None:
    """Time the stage under torch.compile; compiling takes long, so it comes last."""
    if not bench.on_gpu:
        return
    derainer = Derainer(DEFAULT_DERAINER, bench.device, "bf16", compiled=True)
    call = functools.partial(derainer, _random_frames(1, bench.sizes_hw[0], bench.device))
    first_ms = bench.first_ms(call)
    bench.record("compiled", precision="bf16", batch=1, first_ms=first_ms, ms=bench.time_ms(call))


PARTS: dict[str, Callable[[Bench], None]] = {
    "environment": _environment,
    "stage": _stage,
    "equality": _equality,
    "training": _training,
    "pipeline": _pipeline,
    "kernels": _kernels,
    "triton": _triton,
    "networks": _networks,
    "rendering": _rendering,
    "peaks": _peaks,
    "tests": _tests,
    "compiled": _compiled,
}
"""The parts, in the order in which they run."""


def _random_frames(count: int, size_hw: tuple[int, int], device: torch.device) -> Tensor:
    """Return frames (B, 3, H, W), uint8."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (count, 3, *size_hw), dtype=torch.uint8, generator=generator)
    return frames.to(device)


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"


if __name__ == "__main__":
    run_command(lambda argv: main(None))
