"""Rain on videos and numbered frames, with drops that move from frame to frame."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from rainmer.device import frames_at_once
from rainmer.frames.arrays import to_batch, to_frames
from rainmer.frames.images import read_image
from rainmer.frames.inputs import Input
from rainmer.frames.video import (
    WRITABLE_SUFFIXES,
    VideoFrame,
    VideoInfo,
    VideoWriter,
    is_video,
    open_video,
)
from rainmer.rain import RainRenderer
from rainmer.rain.folder import CLEAN, RAINY
from rainmer.rain.night import is_day
from rainmer.rain.options import RainOptions

__all__ = ["render_input"]


class _Clip(NamedTuple):
    """Frames to render one after the other."""

    name: Path
    frames: Iterator[VideoFrame]
    length: int
    size_hw: tuple[int, int]
    fps: float
    source: VideoInfo | None = None


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
        failures: A line is added for a video that could not be read in full.

    Raises:
        ImageError: It cannot be read.
    """
    if not is_video(item.path):
        assert options.video is not None
        frame = read_image(item.path)
        height, width = (side - side % 2 for side in frame.shape[:2])  # as codecs require
        count = max(1, round(options.video * options.fps))
        still = frame[:height, :width]
        frames = (VideoFrame(i, i / options.fps, still) for i in range(count))
        clip = _Clip(item.name, frames, count, (height, width), options.fps)
        _render_clip(clip, renderer, options, device)
        return
    with open_video(item.path, hardware=options.hardware_decoding) as video:
        clip = _Clip(
            item.name, iter(video), video.frame_count, video.size_hw, video.fps, video.info
        )
        _render_clip(clip, renderer, options, device)
        if video.failure:
            failures.append(video.failure)


def _render_clip(
    clip: _Clip, renderer: RainRenderer, options: RainOptions, device: torch.device
) -> None:
    suffix = clip.name.suffix.lower()
    name = clip.name.with_suffix(suffix if suffix in WRITABLE_SUFFIXES else ".mp4")
    open_writer = functools.partial(
        VideoWriter,
        fps=clip.fps,
        size_hw=clip.size_hw,
        source=clip.source,
        codec=options.codec,
        crf=options.crf,
    )
    size = frames_at_once(options.batch, clip.size_hw, device)
    count = 0
    with (
        open_writer(options.out / RAINY / name) as rainy,
        open_writer(options.out / CLEAN / name) as clean,
        tqdm(total=clip.length or None, unit="frame", disable=options.quiet, delay=2) as bar,
    ):
        while chunk := list(itertools.islice(clip.frames, size)):
            batch = to_batch([frame.image for frame in chunk], device)
            if count == 0:
                renderer = _fixed_light(renderer, batch)
            times = torch.tensor([frame.time_s for frame in chunk])
            rendering = renderer(batch, [clip.name.as_posix()] * len(chunk), time_s=times)
            results = zip(to_frames(rendering.rainy), to_frames(rendering.clean), strict=True)
            for frame, (wet, dry) in zip(chunk, results, strict=True):
                rainy.write(wet, frame.time_s, frame.duration_s)
                clean.write(dry, frame.time_s, frame.duration_s)
                bar.update()
            count += len(chunk)
    print(f"rendered {count} frames; results in {options.out / RAINY / name}")


def _fixed_light(renderer: RainRenderer, batch: torch.Tensor) -> RainRenderer:
    """Decide once for a whole video whether it is relit."""
    if renderer.config.relight != "auto":
        return renderer
    config = dataclasses.replace(
        renderer.config, relight="always" if bool(is_day(batch[:1])) else "never"
    )
    return RainRenderer(config, seed=renderer.seed)
