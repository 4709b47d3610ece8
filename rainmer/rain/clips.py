"""Rain on videos and numbered frames, with drops that move from frame to frame."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from rainmer.frames.arrays import Frame, to_batch, to_frames
from rainmer.frames.images import read_image
from rainmer.frames.inputs import Input
from rainmer.frames.video import WRITABLE_SUFFIXES, VideoWriter, is_video, open_video
from rainmer.rain import RainRenderer
from rainmer.rain.folder import CLEAN, RAINY
from rainmer.rain.night import is_day
from rainmer.rain.options import RainOptions

__all__ = ["render_input"]


class _Clip(NamedTuple):
    """Frames to render one after the other."""

    name: Path
    frames: Iterator[Frame]
    length: int
    size_hw: tuple[int, int]
    fps: float


def render_input(
    item: Input,
    renderer: RainRenderer,
    options: RainOptions,
    device: torch.device,
    failures: list[str],
) -> None:
    """Render a video, or an image as a still video, and its clean target.

    Args:
        item: The video or image; an image needs `options.video`.
        renderer: The rain.
        options: Where results go, and the length of a still video.
        device: Where to compute.
        failures: A line is added for a video that ends early.

    Raises:
        ImageError: It cannot be read.
    """
    if not is_video(item.path):
        assert options.video is not None
        frame = read_image(item.path)
        height, width = (side - side % 2 for side in frame.shape[:2])  # as codecs require
        count = max(1, round(options.video * options.fps))
        frames = itertools.repeat(frame[:height, :width], count)
        clip = _Clip(item.name, frames, count, (height, width), options.fps)
        _render_clip(clip, renderer, options, device)
        return
    with open_video(item.path) as video:
        clip = _Clip(item.name, iter(video), video.frame_count, video.size_hw, video.fps)
        _render_clip(clip, renderer, options, device)
        if video.early_end:
            failures.append(video.early_end)


def _render_clip(
    clip: _Clip, renderer: RainRenderer, options: RainOptions, device: torch.device
) -> None:
    suffix = clip.name.suffix.lower()
    name = clip.name.with_suffix(suffix if suffix in WRITABLE_SUFFIXES else ".mp4")
    count = 0
    with (
        VideoWriter(options.out / RAINY / name, fps=clip.fps, size_hw=clip.size_hw) as rainy,
        VideoWriter(options.out / CLEAN / name, fps=clip.fps, size_hw=clip.size_hw) as clean,
        tqdm(total=clip.length, unit="frame", disable=options.quiet, delay=2) as bar,
    ):
        while chunk := list(itertools.islice(clip.frames, options.batch)):
            batch = to_batch(chunk, device)
            if count == 0:
                renderer = _fixed_light(renderer, batch)
            times = (torch.arange(len(chunk)) + count) / clip.fps
            rendering = renderer(batch, [clip.name.as_posix()] * len(chunk), time_s=times)
            for frame in to_frames(rendering.rainy):
                rainy.write(frame)
            for frame in to_frames(rendering.clean):
                clean.write(frame)
            count += len(chunk)
            bar.update(len(chunk))
    print(f"rendered {count} frames; results in {options.out / RAINY / name}")


def _fixed_light(renderer: RainRenderer, batch: torch.Tensor) -> RainRenderer:
    """Decide once for a whole video whether it is relit."""
    if renderer.config.relight != "auto":
        return renderer
    config = dataclasses.replace(
        renderer.config, relight="always" if bool(is_day(batch[:1])) else "never"
    )
    return RainRenderer(config, seed=renderer.seed)
