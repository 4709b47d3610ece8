"""Formats of image files, told by their content, and what their headers say."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from rainmer.errors import ImageError

__all__ = [
    "DECODE_ERRORS",
    "IMAGE_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "Format",
    "format_of",
    "image_orientation",
    "image_size_hw",
    "orientation_of",
    "result_suffix",
]

WRITABLE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes (lower case) of the images that are written."""

IMAGE_SUFFIXES = WRITABLE_SUFFIXES | {
    *(".avif", ".dng", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe", ".mpo"),
    *(".pbm", ".pgm", ".pnm", ".ppm"),
}
"""Suffixes (lower case) of the files that `list_images` finds: ultralytics' and a few more."""

DECODE_ERRORS = (
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise on damaged files."""

_HEADER_BYTES = 4096
_TIFF_MAGIC = 42
_EXIF_ORIENTATION = 0x0112
_SWAPS_SIDES = frozenset({5, 6, 7, 8})  # EXIF orientations
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)


@dataclass(frozen=True)
class Format:
    """A format of image files.

    `Image.open` is avoided: ultralytics replaces it with a version that tries to install another
    package when it cannot identify a file.

    Attributes:
        name: Its name.
        open: Reads the header of a file; the pixels are decoded when they are asked for.
        by_pillow: Decoded by Pillow, otherwise by OpenCV.
        turns: Its EXIF orientation applies; decoders of the others turn the image themselves, or
            the format has none.
    """

    name: str
    open: Callable[[BinaryIO], ImageFile]
    by_pillow: bool = False
    turns: bool = False


def _open_heif(file: BinaryIO) -> ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageError('HEIC needs another package: pip install "rainmer[heif]"') from error
    return cast(ImageFile, HeifImageFile(file))


_AVIF = Format("AVIF", AvifImageFile, by_pillow=True, turns=True)
_HEIF = Format("HEIC", _open_heif, by_pillow=True)
_JPEG_2000 = Format("JPEG 2000", Jpeg2KImageFile)
_TIFF = Format("TIFF", TiffImageFile, turns=True)
_FORMATS = (
    (re.compile(rb"\xff\xd8"), Format("JPEG", JpegImageFile, turns=True)),
    (re.compile(rb"\x89PNG"), Format("PNG", PngImageFile, turns=True)),
    (re.compile(rb"BM"), Format("BMP", BmpImageFile)),
    (re.compile(rb"II|MM"), _TIFF),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), Format("WebP", WebPImageFile, turns=True)),
    (re.compile(rb"GIF8"), Format("GIF", GifImageFile, by_pillow=True)),
    (re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  "), _JPEG_2000),
    (re.compile(rb"P[1-6]\s"), Format("PNM", PpmImageFile)),
)
"""Formats by the first bytes of a file."""


def result_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix of the result of an image: its own, or .png for what is not written.

    >>> result_suffix("a.JPG"), result_suffix("a.heic")
    ('.JPG', '.png')
    """
    suffix = Path(path).suffix
    return suffix if suffix.lower() in WRITABLE_SUFFIXES else ".png"


def format_of(content: bytes) -> Format | None:
    """Return the format of a file by its first bytes, whatever it is called; None if unknown."""
    if content[4:8] == b"ftyp":
        size = min(int.from_bytes(content[:4], "big"), _HEADER_BYTES)
        brands = {content[i : i + 4] for i in range(8, size, 4)}
        if brands & {b"avif", b"avis"}:
            return _AVIF
        return _HEIF if brands & _HEIF_BRANDS else None
    return next((kind for start, kind in _FORMATS if start.match(content)), None)


def image_size_hw(path: str | os.PathLike[str], content: bytes | None = None) -> tuple[int, int]:
    """Return (height, width) of an image file from its header, EXIF orientation applied.

    Args:
        path: The file.
        content: Its bytes, if they are here already; `path` then only names it in errors.

    Raises:
        ImageError: The file is missing or has no image header, or a package is.
    """
    with _opened(path, content) as (kind, image):
        width, height = image.size
        if isinstance(image, TiffImageFile):  # Pillow versions differ in turning its size
            width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
        turned = orientation_of(kind, image) in _SWAPS_SIDES
    return (width, height) if turned else (height, width)


def image_orientation(path: str | os.PathLike[str]) -> int:
    """Return the EXIF orientation that reading an image applies, 1..8; 1 where it has none.

    Raises:
        ImageError: The file is missing or has no image header, or a package is.
    """
    with _opened(path) as (kind, image):
        return orientation_of(kind, image)


def orientation_of(kind: Format, image: ImageFile) -> int:
    """Return the orientation of an opened image, 1..8."""
    if not kind.turns:
        return 1
    if kind.by_pillow:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    elif isinstance(image, TiffImageFile):
        orientation = image.tag_v2.get(_EXIF_ORIENTATION)
    else:
        exif = image.info.get("exif", b"")
        if not exif and isinstance(image, PngImageFile) and image.fp is not None:
            exif = _png_exif(image.fp)
        orientation = _exif_orientation(exif)
    return cast(int, orientation) if orientation in range(1, 9) else 1


def _png_exif(file: IO[bytes]) -> bytes:
    """Find the Exif data of a PNG that has them behind its pixels, without decoding those."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            return file.read(length)
        file.seek(length + 4, os.SEEK_CUR)
    return b""


def _exif_orientation(exif: bytes) -> int | None:
    """Return the orientation that OpenCV finds in Exif data.

    `getexif` would also believe XMP, and fails where other tags are damaged.
    """
    data = exif.removeprefix(b"Exif\0\0")
    order = "<" if data.startswith(b"II") else ">"
    try:
        magic, start = struct.unpack_from(f"{order}2xHI", data)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for number in range(count if magic == _TIFF_MAGIC else 0):
            entry = f"{order}H6xH"
            tag, value = struct.unpack_from(entry, data, start + 2 + 12 * number)
            if tag == _EXIF_ORIENTATION:
                return cast(int, value)
    except struct.error:  # it ends too early
        pass
    return None


@contextmanager
def _opened(
    path: str | os.PathLike[str], content: bytes | None = None
) -> Iterator[tuple[Format, ImageFile]]:
    try:
        with Path(path).open("rb") if content is None else io.BytesIO(content) as file:
            kind = format_of(file.read(_HEADER_BYTES))
            file.seek(0)
            if kind is None:
                raise SyntaxError("no image format that is known here")
            with kind.open(file) as image:
                yield kind, image
    except ImageError as error:
        raise ImageError(f"cannot read the image {path}: {error}") from error
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror or error}") from error
    except DECODE_ERRORS as error:
        raise ImageError(f"{path} cannot be decoded: damaged, or not an image") from error
