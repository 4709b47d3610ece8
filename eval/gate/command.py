"""Measuring of trials, and fitting of the threshold to them."""

from __future__ import annotations

import dataclasses
import json

from detection.specs import load_detector
from eval.gate.fit import choose_threshold, fit_benefit, table
from eval.gate.measure import Trial, dry_trials, find_scenes, measure_scenes
from eval.gate.options import GateOptions
from eval.street.detector import detector_weights
from rainmer import models
from rainmer.cli import progress_bar
from rainmer.device import resolve_device
from rainmer.errors import DatasetError, OutputError
from rainmer.files import append_line, read_lines
from rainmer.meter import RainMeter
from rainmer.meter.features import encoder_of
from rainmer.stage import Derainer
from rainmer.stage.specs import DEFAULT_DERAINER

__all__ = ["run"]

_CONF = 0.25


def run(options: GateOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the arguments, inputs that cannot be read, or too few trials.
    """
    (_measure if options.verb == "measure" else _fit)(options)


def _measure(options: GateOptions) -> None:
    detector = load_detector(
        options.detector or str(detector_weights()), resolve_device(options.device), conf=_CONF
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
