"""Options that training and checking the meter share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rainmer import models
from rainmer.cli import add_threads_option, non_negative_int, positive_int, progress_bar
from rainmer.meter.features import encoder_fingerprint, encoder_of
from rainmer.meter.samples import Folders, Samples, collect_samples

__all__ = ["SampleOptions", "add_sample_options", "samples_of"]

_ENCODER = "rainmer-s"


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Options of `add_sample_options`."""

    photos: list[Path]
    day: list[Path]
    night: list[Path]
    rainy: list[Path]
    renderings: int
    seed: int
    cache: Path | None
    quiet: bool


def add_sample_options(parser: argparse.ArgumentParser) -> None:
    """Add the folders of frames and how rain is rendered on them."""
    for name, text in (
        ("photos", "dry photos of any kind"),
        ("day", "dry frames of streets by day"),
        ("night", "dry frames of streets by night"),
        ("rainy", "frames of real rain; those below a folder `night` are of the night"),
    ):
        parser.add_argument(f"--{name}", type=Path, nargs="+", default=[], metavar="DIR", help=text)
    parser.add_argument(
        "--renderings", type=positive_int, default=3, metavar="N", help="for each dry frame; 3"
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the rain; default: 0")
    parser.add_argument(
        "--cache", type=Path, metavar="FILE", help="keeps what was rendered, as .safetensors"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_threads_option(parser)


def samples_of(options: SampleOptions) -> Samples:
    """Render and encode what the options name; see `collect_samples`."""
    network = models.load(_ENCODER)

    def progress(files: Sequence[Any]) -> Iterator[Any]:
        return iter(progress_bar(len(files), quiet=options.quiet, items=files))

    wrap: Callable[[Sequence[Any]], Iterator[Any]] = progress
    return collect_samples(
        Folders(photos=options.photos, day=options.day, night=options.night, rainy=options.rainy),
        encoder_of(network),
        encoder_fingerprint(network),
        renderings=options.renderings,
        seed=options.seed,
        cache=options.cache,
        progress=wrap,
    )
