"""`python -m eval.street --out DIR --scenes 480`: draw training scenes of Rainy Street as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.street.splits import train_scenes, write_split
from eval.street.yolo_labels import write_yolo_set
from rainmer.cli import make_parser, non_negative_int, parse_options, positive_int, run_command

__all__ = ["main"]

_EXAMPLE = "  python -m eval.street --out street --scenes 480 --first 20000"


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of the command."""

    out: Path
    scenes: int
    first: int
    processes: int | None
    quiet: bool


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises RainmerError for invalid input."""
    options = _parse(argv)
    scenes = train_scenes(options.scenes, options.first)
    parts = {}
    for name, night in (("day", False), ("night", True)):
        parts[name] = [scene for scene in scenes if scene.night == night]
        write_split(
            options.out / name, parts[name], processes=options.processes, quiet=options.quiet
        )
    write_yolo_set(options.out, [name for name, drawn in parts.items() if drawn])


def _parse(argv: Sequence[str] | None) -> _Options:
    parser = make_parser(
        "python -m eval.street",
        "Draw training scenes of Rainy Street, none of the test split: DIR/day and DIR/night get "
        "images/, depth/, labels/ and instances.json; DIR/street.yaml is the set for ultralytics.",
        _EXAMPLE,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where they go")
    parser.add_argument(
        "--scenes", type=positive_int, default=480, metavar="N", help="how many; default: 480"
    )
    parser.add_argument(
        "--first",
        type=non_negative_int,
        default=20_000,
        metavar="I",
        help="index of the first; default: 20000, beyond those of the embedded detector",
    )
    parser.add_argument(
        "--processes",
        type=positive_int,
        metavar="N",
        help="default: one for each usable CPU",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parse_options(parser, _Options, argv)


if __name__ == "__main__":
    run_command(main)
