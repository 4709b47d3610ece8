"""The options of `python -m rainmer.views`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rainmer.cli import (
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
)
from rainmer.data.layouts import Mode

__all__ = ["METHODS", "Method", "ViewsOptions", "parse"]

Method = Literal["umap", "tsne", "pca"]
"""How vectors are mapped to the plane."""

METHODS: tuple[Method, ...] = get_args(Method)
_EXAMPLE = """\
  python -m rainmer.views --derain rainmer:rainmer.pth --out views \\
      --sets synthetic:rain100h:/data night:gtav-balance:/data clean:photos/
  python -m rainmer.views --derain rainmer:rainmer.pth --out views --method tsne \\
      --sets 'DDN1:rain14000/*_1.jpg' 'DDN5:rain14000/*_5.jpg'"""


@dataclass(frozen=True, kw_only=True)
class ViewsOptions:
    """Options of the command."""

    derain: str
    sets: list[str]
    out: Path
    mode: Mode | None
    images: int
    replace: bool
    method: Method | None
    seed: int
    device: str | None
    batch: int
    quiet: bool


def parse(argv: Sequence[str] | None) -> ViewsOptions:
    """Parse a command line; see `rainmer.cli.parse_options`."""
    parser = make_parser(
        "python -m rainmer.views",
        "Embed images of data sets with the encoder of a Rainmer network, and show for each view "
        "whether it separates the sets. DIR gets views.csv (vectors and positions in the map), "
        "views.json (measures), and for each view map-VIEW.png and similarity-VIEW.png.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--derain", required=True, metavar="SPEC", help="a Rainmer network: rainmer:WEIGHTS"
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        required=True,
        metavar="NAME:IMAGES",
        help="a name, then a folder or glob of images, or LAYOUT:ROOT for the rainy images of a "
        "known set (python -m rainmer.data.layouts list)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    parser.add_argument(
        "--mode", choices=("train", "test"), help="for names that mean a training and a test set"
    )
    parser.add_argument(
        "--images", type=positive_int, default=500, metavar="N", help="of each set; default: 500"
    )
    parser.add_argument(
        "--replace", action="store_true", help="draw with replacement, as the paper does"
    )
    parser.add_argument(
        "--method", choices=METHODS, help="of the map; default: umap if installed, else pca"
    )
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="of drawing and splits; default: 0"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; default: the best")
    parser.add_argument(
        "--batch", type=positive_int, default=32, metavar="N", help="images at once; default: 32"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parse_options(parser, ViewsOptions, argv)
