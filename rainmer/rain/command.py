"""A run of the command: still images, clips and videos."""

from __future__ import annotations

import os
from pathlib import Path

from rainmer.config import read_yaml
from rainmer.device import resolve_device
from rainmer.errors import ConfigError, ImageError, OutputError
from rainmer.files import match_key
from rainmer.frames.inputs import Input, find_inputs, raise_failures, real_path
from rainmer.frames.video import is_video
from rainmer.rain import RainConfig, RainRenderer, rain_config
from rainmer.rain.clips import render_input
from rainmer.rain.options import RainOptions
from rainmer.rain.stills import render_stills

__all__ = ["run"]


def run(options: RainOptions) -> None:
    """Run the command.

    Raises:
        RainmerError: A mistake in the options, or data or results that cannot be read or written.
            Also, at the end, when some inputs could not be read; all others are rendered.
    """
    renderer = RainRenderer(_config(options), seed=options.seed)
    inputs = _inputs(options)
    device = resolve_device(options.device)
    failures: list[str] = []
    clips = [item for item in inputs if is_video(item.path) or options.video is not None]
    stills = [item for item in inputs if item not in clips]
    if stills:
        render_stills(stills, renderer, options, device, failures)
    for clip in clips:
        try:
            render_input(clip, renderer, options, device, failures)
        except ImageError as error:
            failures.append(str(error))
    raise_failures(failures, len(inputs))


def _config(options: RainOptions) -> RainConfig:
    changes = {} if options.rain is None else read_yaml(options.rain)
    if "preset" in changes:
        raise ConfigError(f"{options.rain}: preset: give it as --preset")
    if options.rate is not None:
        changes["rate_mm_h"] = options.rate
    return rain_config(options.preset, **changes)


def _inputs(options: RainOptions) -> list[Input]:
    """Return the inputs, each once.

    Raises:
        ImageError: An argument does not exist, or holds nothing to render.
        OutputError: Two inputs would give results of the same name, or results would become inputs.
    """
    inputs: dict[Path, Input] = {}
    for text in options.input:
        if os.path.isdir(text) and real_path(Path(text)) == real_path(options.out):
            raise OutputError(f"--out is the input folder {text} itself: choose another folder")
        for item in find_inputs(text, options.out):
            inputs.setdefault(real_path(item.path), item)
    by_key: dict[str, Input] = {}
    for item in inputs.values():
        other = by_key.setdefault(match_key(item.name), item)
        if other is not item:
            raise OutputError(
                f"{other.path} and {item.path} would get results of the same name: "
                "render them into different folders"
            )
    return list(inputs.values())[: options.limit]
