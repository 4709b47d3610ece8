"""`python -m rainmer.meter.train --photos DIR ... --out FILE`: train the head of a rain meter.

One pass renders rain of every kind on dry frames and encodes them; training the head then takes
seconds. A hash of each frame's name keeps a fifth of the frames for the errors that readings carry,
and another for the table that is printed. The gate's threshold is fitted afterwards, by
`python -m eval.gate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rainmer import models
from rainmer.cli import make_parser, parse_options, run_command, set_threads
from rainmer.errors import OutputError
from rainmer.meter.features import encoder_fingerprint
from rainmer.meter.fit import fit_head, held_out_errors, score_table
from rainmer.meter.head import MeterWeights
from rainmer.meter.options import SampleOptions, add_sample_options
from rainmer.meter.samples import samples_of

__all__ = ["main"]

_EXAMPLE = """\
  python -m rainmer.meter.train --photos photos/ --day dry/day --night dry/night --rainy rain/ \\
      --out meter.safetensors"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(SampleOptions):
    """Options of the command."""

    out: Path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        ImageError: A picture cannot be read, or there are too few.
        OutputError: The result cannot be written.
    """
    options = _parse(argv)
    set_threads()
    samples = samples_of(options)
    head = fit_head(samples, seed=options.seed)
    facts = {
        "frames": len(samples.truth),
        "trained_on": int(samples.where(splits="train").sum()),
        "renderings": options.renderings,
        "seed": options.seed,
    }
    weights = MeterWeights(
        head,
        encoder_fingerprint(models.load("rainmer-s")),
        held_out_errors(head, samples),
        facts=facts,
    )
    weights.save(options.out)
    print("\n".join(score_table(head, samples)))
    print(f"\nwrote {options.out}")


def _parse(argv: Sequence[str] | None) -> TrainOptions:
    parser = make_parser(
        "python -m rainmer.meter.train",
        "Train the head of a rain meter on the encoder of rainmer-s, and print what it can tell "
        "on frames that it never saw.",
        _EXAMPLE,
    )
    add_sample_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".safetensors")
    options = parse_options(parser, TrainOptions, argv)
    if options.out.suffix != ".safetensors":
        raise OutputError(f"weights are written as .safetensors, not as {options.out}")
    return options


if __name__ == "__main__":
    run_command(main)
