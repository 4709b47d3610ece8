"""Training of a detector on rendered rain."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from detection.augment.options import FOLDER, AugmentOptions
from detection.yolo.training import parse_arguments, train_on_rain
from rainmer.errors import ConfigError

__all__ = ["run"]

_ARGUMENT = re.compile(r"[A-Za-z_]\w*=")


def run(options: AugmentOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the options, weights or data that cannot be trained with, or
            results that cannot be written.
    """
    # `--rain` takes all words that follow it.
    kinds = [text for text in options.rain if not _ARGUMENT.match(text)]
    arguments = [text for text in options.rain if text not in kinds] + options.arguments
    best = train_on_rain(
        options.model,
        options.data,
        _weights(kinds),
        options.out or FOLDER / Path(options.data).stem,
        parse_arguments(arguments),
        rain_val=options.rain_val,
        allow_download=options.allow_download,
    )
    logging.getLogger(__name__).info("weights: %s", best)


def _weights(texts: Sequence[str]) -> dict[str, float]:
    """Parse kinds of rain `KIND:WEIGHT`.

    Raises:
        ConfigError: One has no weight, or comes twice.
    """
    weights: dict[str, float] = {}
    for text in texts:
        kind, _, weight = text.rpartition(":")
        if kind in weights:
            raise ConfigError(f"--rain: {kind} is given twice")
        try:
            weights[kind] = float(weight)
        except ValueError as error:
            raise ConfigError(f"--rain: {text!r} is no KIND:WEIGHT, such as day:1") from error
    return weights
