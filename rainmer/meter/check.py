"""`python -m rainmer.meter.check --photos DIR ...`: the table of docs/gate.md, measured again.

The same frames as in training are rendered, and only those count that trained nothing. Further
folders, given by `--also`, show what the meter and the gate make of them as a whole.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer.cli import (
    make_parser,
    parse_options,
    positive_int,
    progress_bar,
    run_command,
    set_threads,
)
from rainmer.errors import ConfigError, ImageError
from rainmer.frames.images import list_images, read_image
from rainmer.meter.fit import score_table
from rainmer.meter.meter import RainMeter, Reading
from rainmer.meter.options import SampleOptions, add_sample_options
from rainmer.meter.samples import samples_of

__all__ = ["main"]

_EXAMPLE = """\
  python -m rainmer.meter.check --photos photos/ --day dry/day --night dry/night --rainy rain/
  python -m rainmer.meter.check --also dry:coco128/images rain100h:coco128-rain100h/rainy"""


@dataclass(frozen=True, kw_only=True)
class CheckOptions(SampleOptions):
    """Options of the command."""

    weights: Path | None
    also: list[str]
    limit: int | None
    device: str | None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        RainmerError: A picture or the weights cannot be read, or nothing is given.
    """
    options = _parse(argv)
    set_threads()
    meter = RainMeter(options.weights, device=options.device)
    if options.photos or options.day or options.night or options.rainy:
        head = meter.weights.head
        print("\n".join(score_table(head, samples_of(options))), "\n")
    elif not options.also:
        raise ConfigError("give folders to check: --photos, --day, --night, --rainy, or --also")
    if options.also:
        print(_HEADER)
    for text in options.also:
        name, _, folder = text.rpartition(":")
        paths = list_images(Path(folder))[: options.limit]
        if not paths:
            raise ImageError(f"{folder} holds no image")
        bar = progress_bar(len(paths), quiet=options.quiet, name=name, items=paths)
        print(_row(name or folder, [meter([read_image(path)])[0] for path in bar], meter))


def _parse(argv: Sequence[str] | None) -> CheckOptions:
    parser = make_parser(
        "python -m rainmer.meter.check",
        "Measure a rain meter on frames that it was not trained on.",
        _EXAMPLE,
    )
    add_sample_options(parser)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: the shipped head")
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="NAME:DIR", help="folders to show as a whole"
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="the first N of each")
    parser.add_argument("--device", help="cpu, cuda, ...; default: the best")
    return parse_options(parser, CheckOptions, argv)


_HEADER = (
    "| folder | frames | gate derains | rain > 50 % | rate mm/h | coverage | transmission | drops "
    "| night > 50 % |\n| --- |" + " ---: |" * 8
)


def _row(name: str, readings: Sequence[Reading], meter: RainMeter) -> str:
    def share(count: int) -> str:
        return f"{count / len(readings):.1%}"

    least = None if meter.benefit is None else meter.benefit.threshold
    derained = sum(least is not None and (item.benefit or 0.0) >= least for item in readings)
    medians = [
        statistics.median(getattr(item, field) for item in readings)
        for field in ("rate_mm_h", "coverage", "transmission", "drops")
    ]
    cells = [
        str(len(readings)),
        "-" if least is None else share(derained),
        share(sum(item.rain > 0.5 for item in readings)),
        f"{medians[0]:.1f}",
        *(f"{median:.3f}" for median in medians[1:]),
        share(sum(item.night > 0.5 for item in readings)),
    ]
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    run_command(main)
