"""Rainy frames to calibrate and to compare exports on: photos of a folder, or drawn scenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from rainmer.errors import DatasetError
from rainmer.folders import list_files
from rainmer.frames.arrays import Frame, to_batch, to_frames
from rainmer.frames.images import IMAGE_SUFFIXES, read_image
from rainmer.rain import RainRenderer, rain_config

__all__ = ["rainy_samples"]

_PRESETS = ("day", "night", "day-heavy")
_SHAPES = 60
_SPECKLE = 6.0  # levels


def rainy_samples(
    count: int, size_hw: tuple[int, int], photos: Path | None = None, *, seed: int = 0
) -> list[Frame]:
    """Render rain, by day and by night, on crops of photos or on drawn scenes.

    Args:
        count: How many frames.
        size_hw: Their (height, width) in pixels.
        photos: Folder of photos, of which every k-th is taken; None: scenes are drawn.
        seed: Of scenes and rain.

    Raises:
        DatasetError: The folder holds no images.
        ImageError: A photo cannot be read.
    """
    if photos is None:
        clean = [_draw(seed + i, size_hw) for i in range(count)]
    else:
        files = list_files(photos, IMAGE_SUFFIXES)
        if not files:
            raise DatasetError(f"{photos} holds no images to calibrate with")
        chosen = [files[i * len(files) // count] for i in range(min(count, len(files)))]
        clean = [_crop(read_image(file), size_hw) for file in chosen]
    rainy = []
    for i, frame in enumerate(clean):
        render = RainRenderer(rain_config(_PRESETS[i % len(_PRESETS)]), seed=seed)
        rainy += to_frames(render(to_batch([frame]), [f"sample-{i}"]).rainy)
    return rainy


def _crop(photo: Frame, size_hw: tuple[int, int]) -> Frame:
    """Scale a photo until it covers the size, and cut out its middle."""
    scale = max(size / side for size, side in zip(size_hw, photo.shape[:2], strict=True))
    if scale > 1.0:
        width, height = (int(np.ceil(side * scale)) for side in photo.shape[1::-1])
        photo = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR))
    top, left = ((side - size) // 2 for side, size in zip(photo.shape[:2], size_hw, strict=True))
    return photo[top : top + size_hw[0], left : left + size_hw[1]]


def _draw(seed: int, size_hw: tuple[int, int]) -> Frame:
    """Draw a scene of a sky, a ground and shapes with edges, textures and highlights."""
    random = np.random.default_rng(seed)
    height, width = size_hw
    noise = torch.from_numpy(random.random((1, 3, 4, 6), np.float32))
    smooth = torch.nn.functional.interpolate(noise, size_hw, mode="bilinear")[0]
    image = (60 + 140 * smooth.permute(1, 2, 0).contiguous().numpy()).astype(np.uint8)
    image[height // 2 :] //= 2
    for _ in range(_SHAPES):
        x, y = (int(random.integers(side)) for side in (width, height))
        reach = [int(random.integers(2, max(3, side // 6))) for side in (width, height)]
        color = tuple(int(level) for level in random.integers(0, 256, 3))
        if random.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + reach[0], y + reach[1]), color, -1)
        else:
            cv2.line(image, (x, y), (x + reach[0], y - reach[1]), color, 1 + reach[0] % 3)
    speckle = random.normal(0.0, _SPECKLE, image.shape)
    return np.clip(image + speckle, 0, 255).astype(np.uint8)
