"""The cost of a training step: the network as trained against a plain reading of its blocks.

python -m benchmarks.training --crop 64 --batch 2

Both take turns in one process: the same initial weights, the same random crops, the whole step of
`rainmer.train.step.Trainer` (forward, losses, backward, clipping, Adam). With views, the momentum
encoder also encodes positives and negatives, with the same blocks. Medians over rounds.

python -m benchmarks.training --feed 0 1 2 --seconds 20

counts instead the crops that loading gives in a second, rain rendered, with so many processes (0: a
thread for each CPU but one), and those that a training of `rainmer-s` takes from them;
`--rendering loader device` compares who renders.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import PUBLISHED, alternate, build, median_ratio, synchronize
from benchmarks.plain import plain
from eval.report.files import describe_environment
from eval.street import draw_scene
from rainmer import models
from rainmer.cli import make_parser, non_negative_int, positive_int, run_command
from rainmer.device import resolve_device, usable_cpus
from rainmer.files import write_text
from rainmer.frames.images import write_image
from rainmer.stage.specs import DEFAULT_DERAINER
from rainmer.train.config import DataConfig, OptimiserConfig, Stage, TrainConfig
from rainmer.train.loader import Loader, loader_processes, sample_shape
from rainmer.train.mixture import Batch, Mixture
from rainmer.train.sources import RainChoice, RenderedConfig, RenderedSource
from rainmer.train.step import Trainer

RENDERINGS = ("loader", "device")
_QUERY = 128
_NEGATIVES = 4


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    device = resolve_device(options.device)
    torch.set_num_threads(options.threads)
    if options.feed is not None:
        _compare_feeds(options, device)
        return
    rows = []
    print(f"crops {options.crop}, batch {options.batch}, {device}, {options.threads} threads")
    parts = ((0.0, "restoration only"), (0.1, "with views"))
    for contrast_weight, what in parts[:1] if options.no_views else parts:
        row = _measure(options, device, contrast_weight)
        rows.append({"what": what, **row})
        plain_s, own_s = (statistics.median(row[name]) for name in ("plain", "network"))
        ratio = median_ratio(row["plain"], row["network"])
        print(f"{what:17} plain {plain_s:7.2f} s  network {own_s:7.2f} s  {ratio:.2f}x", flush=True)
    if options.out:
        facts = {"crop": options.crop, "batch": options.batch}
        result = {"environment": describe_environment(device), **facts, "rows": rows}
        write_text(options.out, json.dumps(result, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = make_parser(
        "python -m benchmarks.training",
        "Time a training step of the published network.",
        "  python -m benchmarks.training --crop 64 --batch 2",
    )
    parser.add_argument("--crop", type=positive_int, default=64)
    parser.add_argument("--batch", type=positive_int, default=2)
    parser.add_argument("--no-views", action="store_true", help="only the restoration")
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--threads", type=positive_int, default=torch.get_num_threads())
    parser.add_argument("--device", default=None)
    parser.add_argument(
        "--feed", type=non_negative_int, nargs="+", metavar="N", help="loading processes to try"
    )
    parser.add_argument(
        "--rendering",
        nargs="+",
        choices=RENDERINGS,
        default=["loader"],
        help="who does, for --feed",
    )
    parser.add_argument("--seconds", type=positive_int, default=20, help="of each rate of --feed")
    parser.add_argument("--out", type=Path, metavar="JSON")
    return parser.parse_args()


def _measure(
    options: argparse.Namespace, device: torch.device, contrast_weight: float
) -> dict[str, list[float]]:
    """Return the seconds per step of both networks."""
    config = TrainConfig(
        name="benchmark",
        variant="detgalpha",
        stages=(Stage(steps=10_000, crop=options.crop, batch=options.batch),),
        contrast_weight=contrast_weight,
    )
    network = build(PUBLISHED).to(device).train()
    trainers = {
        "plain": Trainer(plain(network), config),
        "network": Trainer(copy.deepcopy(network).to(memory_format=torch.channels_last), config),
    }
    batch = _random_batch(options.batch, options.crop)
    for trainer in trainers.values():
        trainer.fill_archives([batch] * (1 + _NEGATIVES))
    return alternate(
        {
            name: lambda trainer=trainer: trainer.step([batch])  # type: ignore[misc]
            for name, trainer in trainers.items()
        },
        options.rounds,
        device,
    )


def _compare_feeds(options: argparse.Namespace, device: torch.device) -> None:
    """Print and write the rates of each number of processes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        mixture = Mixture([rainy_scenes(Path(folder), scenes=8, window=options.crop * 2)], seed=0)
        stage = Stage(steps=10_000, crop=options.crop, batch=options.batch, crops_per_frame=4)
        for count, rendering in itertools.product(options.feed, options.rendering):
            trainer = small_trainer(stage, device, processes=count, rendering=rendering)
            rates = {}
            with fed(trainer, mixture) as batches:
                for name, use in (("loaded", pass_by), ("trained", step_with(trainer))):
                    rates[name] = crops_per_s(batches, use, options.seconds, device)
            rows.append({"processes": count, "rendering": rendering, **rates})
            print(
                f"{count} processes, {rendering} renders: {rates['loaded']} crops/s loaded, "
                f"{rates['trained']} trained",
                flush=True,
            )
    if options.out:
        facts = {"crop": options.crop, "batch": options.batch, "crops_per_frame": 4}
        result = {"environment": describe_environment(device), **facts, "rows": rows}
        write_text(options.out, json.dumps(result, indent=2) + "\n")


def rainy_scenes(
    folder: Path,
    *,
    scenes: int,
    window: int,
    images: Path | None = None,
    size_hw: tuple[int, int] = (384, 640),
) -> RenderedSource:
    """Return photos in rain of several kinds, or drawn scenes of a size if none are given."""
    if images is None:
        images = folder
        for i in range(scenes):
            write_image(
                folder / f"{i}.png", draw_scene(i, night=bool(i % 2), size_hw=size_hw).image
            )
    rain = {name: RainChoice() for name in ("day-heavy", "night-heavy", "streaks", "none")}
    config = RenderedConfig(images=str(images), rain=rain, window=window, frame_width=(400, 900))
    return RenderedSource("photos", config)


def small_trainer(stage: Stage, device: torch.device, **data: Any) -> Trainer:  # noqa: ANN401 (fields of DataConfig)
    """Return a training of `rainmer-s`.

    Args:
        stage: Sizes of its samples.
        device: In bfloat16 on a GPU.
        data: Changes of how samples are loaded.
    """
    network = models.load(DEFAULT_DERAINER).to(device).train()
    network.to(memory_format=torch.channels_last)
    config = TrainConfig(
        name="benchmark",
        variant="chralpha",
        data=DataConfig(negatives=1, threads=max(1, usable_cpus() - 1), **data),
        stages=(stage,),
        precision="fp32" if device.type == "cpu" else "bf16",
        graphs="auto",
        optimiser=OptimiserConfig(lr=1e-6, warmup=0),
    )
    return Trainer(network, config)


@contextlib.contextmanager
def fed(
    trainer: Trainer, mixture: Mixture, rendering: str | None = None
) -> Iterator[Iterator[Batch]]:
    """Fill a training's archives, and give it batches that are loaded ahead.

    Args:
        trainer: Its configuration says how.
        mixture: The samples.
        rendering: Who renders rain; None: as configured.
    """
    (stage,), data, device = trainer.config.stages, trainer.config.data, trainer.device
    loader = Loader(
        mixture,
        threads=data.threads,
        processes=loader_processes(data, device),
        pin=device.type == "cuda",
        renders_on=device if (rendering or data.rendering) == "device" else None,
        windows=data.rendering_ahead,
    )
    numbers = (range(start, start + stage.batch) for start in itertools.count(0, stage.batch))
    shape = sample_shape(stage, data.query, data.negatives)
    with contextlib.closing(loader), contextlib.closing(loader.batches(numbers, shape)) as batches:
        trainer.fill_archives([next(batches) for _ in range(1 + data.negatives)])
        yield batches


def pass_by(batch: Batch) -> None:
    """Use a batch for nothing."""


def step_with(trainer: Trainer) -> Callable[[Batch], object]:
    """Return what trains on a batch."""
    return lambda batch: trainer.step([batch])


def ways_to_step(trainer: Trainer) -> list[Trainer]:
    """Return a trainer, on a GPU one without kernels, and one that does not record its steps."""
    changes = [{"kernels": False}] if trainer.device.type == "cuda" else []
    if trainer.graphs.active:
        changes.append({"graphs": False})
    return [trainer] + [
        Trainer(copy.deepcopy(trainer.network), dataclasses.replace(trainer.config, **change))
        for change in changes
    ]


def crops_per_s(
    batches: Iterator[Batch], use: Callable[[Batch], object], seconds: float, device: torch.device
) -> float:
    """Use batches for some time, and return crops a second.

    As much time passes uncounted before, because what was loaded ahead is no rate.
    """
    for _ in range(2):
        crops, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            batch = next(batches)
            use(batch)
            crops += len(batch.rainy)
        synchronize(device)
        rate = crops / (time.perf_counter() - started)
    return round(rate, 1)


def _random_batch(count: int, crop: int) -> Batch:
    generator = torch.Generator().manual_seed(1)

    def images(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    query = (3, _QUERY, _QUERY)
    return Batch(
        rainy=images(count, 3, crop, crop),
        clean=images(count, 3, crop, crop),
        query=images(count, *query),
        query_clean=images(count, *query),
        blurred=images(count, _NEGATIVES, *query),
    )


if __name__ == "__main__":
    run_command(lambda _: main())
