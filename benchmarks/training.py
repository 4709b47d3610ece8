"""The cost of a training step: the network as trained against a plain reading of its blocks.

python -m benchmarks.training --crop 64 --batch 2

Both take turns in one process: the same initial weights, the same random crops, the whole step of
`rainmer.train.step.Trainer` (forward, losses, backward, clipping, Adam). With views, the momentum
encoder also encodes positives and negatives, with the same blocks. Medians over rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from pathlib import Path

import torch

from benchmarks.measuring import PUBLISHED, alternate, build, median_ratio
from benchmarks.plain import plain
from eval.report.files import describe_environment
from rainmer.cli import make_parser, positive_int, run_command
from rainmer.device import resolve_device
from rainmer.files import write_text
from rainmer.train.config import Stage, TrainConfig
from rainmer.train.mixture import Batch
from rainmer.train.step import Trainer

_QUERY = 128
_NEGATIVES = 4


def main() -> None:
    """Run the benchmark."""
    options = _parse()
    device = resolve_device(options.device)
    torch.set_num_threads(options.threads)
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
