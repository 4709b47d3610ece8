"""`python -m eval.gate measure|fit ...`: fit a gate's threshold to what helps a detector.

`measure` renders rain from none to heavy on pictures, derains, and records for each what the
detector finds before and after. `fit` learns from these records when deraining helps, chooses the
threshold, prints the table, and writes a rain meter that knows it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.yolo import YoloDetector
from eval.gate.fit import choose_threshold, fit_benefit, table
from eval.gate.measure import Trial, dry_trials, find_scenes, measure_scenes
from eval.street.detector import detector_weights
from eval.street.embedded import INPUT_SIZE
from rainmer import models
from rainmer.cli import (
    add_threads_option,
    fraction,
    make_parser,
    non_negative_int,
    parse_options,
    positive_int,
    progress_bar,
    run_command,
)
from rainmer.device import resolve_device
from rainmer.errors import DatasetError, OutputError
from rainmer.files import append_line, read_lines
from rainmer.meter import RainMeter
from rainmer.meter.features import encoder_of
from rainmer.stage import Derainer
from rainmer.stage.specs import DEFAULT_DERAINER

__all__ = ["main"]

_CONF = 0.25
_EXAMPLE = """\
  python -m eval.street --out street --scenes 200 --first 30000
  python -m eval.gate measure street/day street/night --out trials.jsonl
  python -m eval.gate fit trials.jsonl --out meter.safetensors"""


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """The command line; `--help` explains it."""

    verb: str
    input: list[Path]
    out: Path
    derain: str
    detector: str | None
    images: int
    dry: list[Path]
    seed: int
    weights: Path | None
    harm: float
    keep: float
    device: str | None
    quiet: bool


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the arguments, inputs that cannot be read, or too few trials.
    """
    options = _parse(argv)
    (_measure if options.verb == "measure" else _fit)(options)


def _measure(options: GateOptions) -> None:
    detector = YoloDetector(
        options.detector or str(detector_weights()),
        device=str(resolve_device(options.device)),
        conf=_CONF,
        imgsz=INPUT_SIZE,
    )
    derainer = Derainer(options.derain, options.device)
    encoder = encoder_of(models.load(DEFAULT_DERAINER))
    for folder in options.input:
        scenes = find_scenes(folder, detector.names)[: options.images]
        trials = measure_scenes(scenes, derainer, detector, encoder, seed=options.seed)
        bar = progress_bar(len(scenes), quiet=options.quiet, name=folder.name, items=trials)
        for trial in bar:
            append_line(options.out, dataclasses.asdict(trial))
    print(f"{len(read_lines(options.out))} trials in {options.out}")


def _fit(options: GateOptions) -> None:
    if options.out.suffix != ".safetensors":
        raise OutputError(f"weights are written as .safetensors, not as {options.out}")
    meter = RainMeter(options.weights, device="cpu")
    trials = []
    for path in options.input:
        try:
            trials += [Trial(**line) for line in read_lines(path)]
        except TypeError as error:
            raise DatasetError(f"{path} holds no trials of `eval.gate measure`") from error
    encoder = encoder_of(models.load(DEFAULT_DERAINER))
    for folder in options.dry:
        trials += dry_trials(folder, encoder)
    benefit, scores = fit_benefit(trials, meter.weights.head)
    choice = choose_threshold(trials, scores, harm=options.harm, keep=options.keep)
    facts = {"trials": len(trials), **dataclasses.asdict(choice)}
    fitted = dataclasses.replace(benefit, threshold=choice.threshold, facts=facts)
    dataclasses.replace(meter.weights, benefit=fitted.to_mapping()).save(options.out)
    print("\n".join(table(trials, scores, choice.threshold)))
    print(
        f"\nThreshold {choice.threshold:.3f}: {choice.derained:.0%} of the frames are derained, "
        f"{choice.dry_passed:.0%} of the dry ones pass, and {choice.kept:.1%} of the gain is kept. "
        f"Of the measured frames {choice.harmed:.1%} are derained and lose more than they gain; "
        f"with 95 % confidence at most {choice.bound:.1%}."
    )
    print(f"weights: {json.dumps(dict(zip(benefit.inputs, benefit.weights, strict=True)))}")
    print(f"wrote {options.out}")


def _parse(argv: Sequence[str] | None) -> GateOptions:
    parser = make_parser(
        "python -m eval.gate",
        "Fit when deraining helps a detector, and the threshold of the gate.",
        _EXAMPLE,
    )
    parser.add_argument("verb", choices=("measure", "fit"), help="what to do")
    parser.add_argument(
        "input", type=Path, nargs="+", help="measure: folders of scenes or pictures; fit: records"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="records (added to), or weights"
    )
    parser.add_argument("--derain", default=DEFAULT_DERAINER, metavar="SPEC", help="the derainer")
    parser.add_argument(
        "--detector", metavar="WEIGHTS", help="runs code when loaded; default: the embedded one"
    )
    parser.add_argument(
        "--images", type=positive_int, default=75, metavar="N", help="of each folder; default: 75"
    )
    parser.add_argument(
        "--dry",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="fit: further dry frames, which count as if deraining changed nothing",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the rain; default: 0")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="rain meter; default: shipped")
    parser.add_argument(
        "--harm",
        type=fraction,
        default=0.1,
        help="most frames that may lose more than they gain, by the bound; default: 0.1",
    )
    parser.add_argument(
        "--keep", type=fraction, default=0.9, help="share of the gain to keep; default: 0.9"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; default: the best")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_threads_option(parser)
    return parse_options(parser, GateOptions, argv)


if __name__ == "__main__":
    run_command(main)
