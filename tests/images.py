"""Small files of every format of images that is read."""

from __future__ import annotations

import functools
import io

import cv2
import numpy as np
import pillow_heif
from PIL import Image

__all__ = ["FORMATS", "encoded", "float_tiff", "picture", "with_orientation"]

FORMATS = {
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "HEIF": ".heic",
    "JPEG": ".jpg",
    "JPEG2000": ".jp2",
    "MPO": ".mpo",
    "PNG": ".png",
    "PPM": ".ppm",
    "TIFF": ".tif",
    "WEBP": ".webp",
}
"""Pillow's names of the formats, each with a suffix."""

pillow_heif.register_heif_opener()


def picture(size_hw=(30, 40), seed=0):
    """A smooth uint8 picture whose channels differ."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def encoded(image, kind, **options):
    """The bytes of an array or a Pillow image as a file."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def with_orientation(value):
    """Exif data with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def float_tiff(values, orientation=1):
    """A TIFF of float32 values (H, W), which OpenCV's encoder cannot give a tag."""
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.float32)).save(
        buffer, "TIFF", exif=with_orientation(orientation)
    )
    return buffer.getvalue()


@functools.cache
def small_files():
    """A small file of each format, by its suffix; deep, tiled and animated ones too."""
    frame = picture((13, 17))
    files = {suffix: encoded(frame, kind) for kind, suffix in FORMATS.items()}
    deep = (frame[..., 0].astype(np.uint16) << 4) + 7000
    files["16.png"] = cv2.imencode(".png", deep)[1].tobytes()
    files["16.tif"] = cv2.imencode(".tif", deep)[1].tobytes()
    files["16.jp2"] = encoded(Image.fromarray(deep), "JPEG2000")
    files["float.tif"] = float_tiff(frame[..., 0] / 255)
    files["turned.jpg"] = encoded(frame, "JPEG", exif=with_orientation(6))
    files["turned.avif"] = encoded(frame, "AVIF", exif=with_orientation(6))
    more = [Image.fromarray(picture((13, 17), seed)) for seed in (1, 2)]
    for kind in ("GIF", "TIFF", "WEBP"):
        name = f"pages{FORMATS[kind]}"
        files[name] = encoded(frame, kind, save_all=True, append_images=more)
    return files
