"""Image files: read, decode, encode, write and list frames."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, cast

import cv2
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from rainmer.errors import DatasetError, ImageError
from rainmer.files import write_bytes
from rainmer.folders import list_files
from rainmer.frames.arrays import Frame, reverse_channels

__all__ = [
    "IMAGE_SUFFIXES",
    "decode_image",
    "encode_image",
    "image_orientation",
    "image_size_hw",
    "list_images",
    "read_image",
    "write_image",
]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes (lower case) of the files that `list_images` finds."""

_PNG_END = b"IEND\xaeB\x60\x82"
_EXIF_ORIENTATION = 0x0112
_SWAPS_SIDES = frozenset({5, 6, 7, 8})  # EXIF orientations
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_READERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8", JpegImageFile),
    (b"\x89PNG", PngImageFile),
    (b"BM", BmpImageFile),
    (b"II", TiffImageFile),
    (b"MM", TiffImageFile),
    (b"RIFF", WebPImageFile),
)
"""Readers of image headers by the first bytes of a file."""


def read_image(path: str | os.PathLike[str]) -> Frame:
    """Read an image file as a frame (H, W, 3), uint8, RGB.

    Grayscale becomes three equal channels, alpha is dropped, 16-bit becomes 8-bit by its upper
    byte, CMYK becomes RGB, and the EXIF orientation is applied, as in OpenCV's colour mode and
    therefore in ultralytics.

    Raises:
        ImageError: The file is missing, empty, truncated or not an image.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror}") from error
    return decode_image(content, source=str(path))


def decode_image(content: bytes, source: str = "image") -> Frame:
    """Decode the bytes of an image file; see `read_image`. `source` names it in errors.

    Raises:
        ImageError: The bytes are empty, truncated or not an image.
    """
    if not content:
        raise ImageError(f"{source} is empty (0 bytes); remove it or copy it again")
    if _is_truncated(content):
        raise ImageError(f"{source} is truncated: its end is missing; copy it again")
    try:
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"{source} cannot be decoded: {error.err}") from error
    if bgr is None:
        raise ImageError(f"{source} cannot be decoded: damaged, or not an image")
    return reverse_channels(cast(Frame, bgr))


def _is_truncated(content: bytes) -> bool:
    """Return whether a JPEG or PNG ends early. OpenCV fills the rest with grey silently."""
    if content.startswith(b"\xff\xd8"):
        return content.find(b"\xff\xd9", _first_scan(content)) < 0
    if content.startswith(b"\x89PNG"):
        return _PNG_END not in content
    return False


def _first_scan(content: bytes) -> int:
    """Return where the compressed data of a JPEG starts, or its length if that never comes.

    From there on 0xff is escaped, so an end marker is genuine. Before it there may be the marker
    of an embedded thumbnail; after the end, phones append whole videos.
    """
    position = 2
    while content[position : position + 1] == b"\xff":
        if content[position + 1 : position + 2] == b"\xda":
            return position
        if content[position + 1 : position + 2] == b"\xff":  # fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return len(content)


def image_size_hw(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) of an image file from its header, EXIF orientation applied.

    Raises:
        ImageError: The file is missing or has no image header.
    """
    try:
        with Path(path).open("rb") as file, _open_header(file) as image:
            width, height = image.size
            if isinstance(image, TiffImageFile):  # Pillow versions differ in turning its size
                width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
            turned = image.getexif().get(_EXIF_ORIENTATION) in _SWAPS_SIDES
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror or error}") from error
    except (SyntaxError, ValueError, KeyError, struct.error) as error:
        raise ImageError(f"{path} cannot be decoded: damaged, or not an image") from error
    return (width, height) if turned else (height, width)


def image_orientation(path: str | os.PathLike[str]) -> int:
    """Return the EXIF orientation of an image file, 1..8; 1 where it has none or another number.

    Raises:
        ImageError: The file is missing or has no image header.
    """
    try:
        with Path(path).open("rb") as file, _open_header(file) as image:
            orientation = image.getexif().get(_EXIF_ORIENTATION)
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror or error}") from error
    except (SyntaxError, ValueError, KeyError, struct.error) as error:
        raise ImageError(f"{path} cannot be decoded: damaged, or not an image") from error
    return orientation if orientation in range(1, 9) else 1


def _open_header(file: BinaryIO) -> ImageFile:
    """Open an image with the reader for its format. Raises SyntaxError if it is no such image.

    `PIL.Image.open` is avoided: ultralytics replaces it with a version that tries to install
    another package when it cannot identify a file.
    """
    start = file.read(4)
    file.seek(0)
    for magic, reader in _READERS:
        if start.startswith(magic):
            return reader(file)
    raise SyntaxError("no image format that is known here")


def encode_image(frame: Frame, suffix: str = ".png", quality: int = 95) -> bytes:
    """Encode a frame (H, W, 3), RGB, uint8 as an image file in memory.

    Args:
        frame: The frame.
        suffix: The format: `.png`, `.jpg`, ...
        quality: JPEG quality, 0..100.

    Raises:
        ImageError: OpenCV has no encoder for `suffix`.
    """
    options: list[int] = []
    if suffix.lower() == ".png":
        # Fast encoding matters more than the last tenth of the file size.
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    elif suffix.lower() in {".jpg", ".jpeg"}:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    try:
        done, content = cv2.imencode(suffix, reverse_channels(frame), options)
    except cv2.error as error:
        raise ImageError(f"no encoder for images of type {suffix!r}: use .png or .jpg") from error
    if not done:
        raise ImageError(f"the encoder for {suffix!r} refused an image of shape {frame.shape}")
    return content.tobytes()


def write_image(path: str | os.PathLike[str], frame: Frame) -> None:
    """Write a frame (H, W, 3), RGB, uint8 under a temporary name, then rename it.

    Raises:
        ImageError: There is no encoder for the suffix of `path`.
        OutputError: The file cannot be written.
    """
    write_bytes(path, encode_image(frame, Path(path).suffix))


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted by path.

    Linked folders are searched too; see `rainmer.folders`.

    Raises:
        ImageError: The folder does not exist, or it or a subfolder cannot be listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageError(f"no folder {root}")
    try:
        return list_files(root, IMAGE_SUFFIXES)
    except DatasetError as error:
        raise ImageError(str(error)) from error
