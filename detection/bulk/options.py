"""The options of `python -m detection.bulk`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from detection.run.options import DetectorOptions, add_detector_options
from rainmer.cli import (
    StageOptions,
    add_gate_option,
    add_stage_options,
    make_parser,
    parse_options,
    positive_int,
)
from rainmer.frames.levels import Stretch, add_stretch_option
from rainmer.stage.names import add_derain_option

__all__ = ["BulkOptions", "parse"]

_EXAMPLE = """\
  python -m detection.bulk rainy/ --out found --detector yolo11n.pt --actors 2
  python -m detection.bulk s3://fleet/shards --out s3://fleet/found --detector /nets/yolo11n.pt
  RAY_ADDRESS=10.0.0.1:6379 python -m detection.bulk /mnt/shards --out /mnt/found \\
      --detector /mnt/yolo11n.pt --derain gate:rainmer-s --save-derained jpg"""


@dataclass(frozen=True, kw_only=True)
class BulkOptions(StageOptions, DetectorOptions):
    """The command line, option by option; `--help` explains them."""

    input: str
    out: str
    derain: str
    gate: Literal["auto"] | float | None
    stretch: Stretch | None
    image_column: str
    id_column: str | None
    save_derained: Literal["png", "jpg"] | None
    max_pixels: int
    actors: int | None
    cpus: int | None
    gpus: float
    part: int | None
    memory: float
    limit: int | None
    quiet: bool


def parse(argv: Sequence[str] | None) -> BulkOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m detection.bulk",
        "Derain and detect in masses of images: in folders, tar shards (WebDataset) and Parquet "
        "files, here or in a bucket (s3://, gs://). Boxes go to Parquet files, a row for every "
        "image. Actors of Ray Data do the work, on this machine or on the cluster that "
        "RAY_ADDRESS names. The same command goes on after an interruption.",
        _EXAMPLE,
    )
    parser.add_argument("input", metavar="IN", help="folder, tar or Parquet file; path or address")
    parser.add_argument(
        "--out", required=True, metavar="OUT", help="folder of the results; path or address"
    )
    add_derain_option(parser)
    add_gate_option(parser)
    add_detector_options(parser)
    _add_image_options(parser)
    _add_fleet_options(parser)
    parser.add_argument(
        "--limit", type=positive_int, metavar="N", help="only the first N images or shards"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_stage_options(parser)
    return parse_options(parser, BulkOptions, argv)


def _add_image_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-column", default="image", metavar="NAME", help="of Parquet files; default: image"
    )
    parser.add_argument(
        "--id-column", metavar="NAME", help="of Parquet files; default: the file and the row"
    )
    parser.add_argument(
        "--save-derained",
        nargs="?",
        const="png",
        choices=("png", "jpg"),
        help="write the derained images, too, as tar shards; without a type: png",
    )
    parser.add_argument(
        "--max-pixels",
        type=positive_int,
        default=100_000_000,
        metavar="N",
        help="larger images are not decoded; default: %(default)s",
    )
    add_stretch_option(parser)


def _add_fleet_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fleet")
    group.add_argument(
        "--actors",
        type=positive_int,
        metavar="N",
        help="processes that derain and detect; default: one for each GPU, else for each CPU, "
        "at most 8",
    )
    group.add_argument(
        "--cpus",
        type=positive_int,
        metavar="N",
        help="CPUs of each actor, which decode and, without a GPU, compute; default: all of this "
        "machine shared out, 4 on a cluster",
    )
    group.add_argument(
        "--gpus",
        type=_gpus,
        default=1.0,
        metavar="N",
        help="GPUs of each actor, where there are any; 0.5: two actors share one; default: 1",
    )
    group.add_argument(
        "--part",
        type=positive_int,
        metavar="N",
        help="images of a file of results, which an interruption loses at most for each actor; "
        "default: 256, fewer where there are few images",
    )
    group.add_argument(
        "--memory",
        type=float,
        default=0.2,
        metavar="GB",
        help="of Ray's object store on this machine; images do not go through it; default: 0.2",
    )


def _gpus(text: str) -> float:
    value = float(text)
    if not 0 < value <= 16:
        raise argparse.ArgumentTypeError(f"{text} is not a number of GPUs")
    return value
