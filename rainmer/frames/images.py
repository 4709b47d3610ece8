"""Image files: read, decode, encode, write and list frames."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.ImageOps import exif_transpose
from PIL.TiffImagePlugin import TiffImageFile

from rainmer.errors import ImageError
from rainmer.files import write_bytes
from rainmer.folders import Found, find_files
from rainmer.frames.arrays import Frame, reverse_channels
from rainmer.frames.formats import (
    DECODE_ERRORS,
    IMAGE_SUFFIXES,
    WRITABLE_SUFFIXES,
    Format,
    format_of,
    image_orientation,
    image_size_hw,
)
from rainmer.frames.levels import Stretch, note_once, to_eight_bits

__all__ = [
    "IMAGE_SUFFIXES",
    "decode_image",
    "encode_image",
    "find_images",
    "image_orientation",
    "image_size_hw",
    "list_images",
    "read_image",
    "write_image",
]

_PNG_END = b"IEND\xaeB\x60\x82"
_PNG_DEPTH = 24  # position of the bit depth in a PNG
_DEEP = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
_MOST_PIXELS = 1 << 30
"""OpenCV's default limit, here for Pillow too: ultralytics switches Pillow's own off."""

_REDUCED_IMAGE, _DNG_VERSION = 0x00FE, 0xC612  # tags of TIFF


def read_image(path: str | os.PathLike[str], stretch: Stretch | None = None) -> Frame:
    """Read an image file as a frame (H, W, 3), uint8, RGB.

    The content decides the format, not the suffix. Grayscale becomes three equal channels, alpha is
    dropped, CMYK becomes RGB, and the EXIF orientation is applied, as in OpenCV's colour mode and
    therefore in ultralytics. Of several pages or pictures the first is read. More than 8 bits
    become 8, see `rainmer.frames.levels.to_eight_bits`. Losses are logged, once for each folder.

    Args:
        path: The file.
        stretch: Percentiles that become black and white in images of more than 8 bits.

    Raises:
        ImageError: The file is missing, empty, truncated or not an image, or needs a package.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read the image {path}: {error.strerror}") from error
    return decode_image(content, str(path), stretch)


def decode_image(content: bytes, source: str = "image", stretch: Stretch | None = None) -> Frame:
    """Decode the bytes of an image file; see `read_image`. `source` names it in errors.

    Raises:
        ImageError: The bytes are empty, truncated or not an image.
    """
    if not content:
        raise ImageError(f"{source} is empty (0 bytes); remove it or copy it again")
    if _is_truncated(content):
        raise ImageError(f"{source} is truncated: its end is missing; copy it again")
    kind = format_of(content)
    if kind is not None and kind.by_pillow:
        return _decode_by_pillow(content, kind, source)
    if kind is not None and _may_be_deep(content, kind):
        return reverse_channels(_decode_deep(content, kind, source, stretch))
    bgr = _decode(content, cv2.IMREAD_COLOR, source)
    if bgr is None:
        raise ImageError(f"{source} cannot be decoded: damaged, or not an image")
    return reverse_channels(cast(Frame, bgr))


def _decode(content: bytes, flags: int, source: str) -> npt.NDArray[Any] | None:
    """Decode by OpenCV; None if it cannot."""
    try:
        return cast(
            "npt.NDArray[Any] | None", cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        )
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in error.err:
            raise ImageError(
                f"{source} has more pixels than OpenCV reads; OPENCV_IO_MAX_IMAGE_PIXELS in the "
                "environment changes the limit"
            ) from error
        raise ImageError(f"{source} cannot be decoded: {error.err}") from error


def _may_be_deep(content: bytes, kind: Format) -> bool:
    """Tell whether an image may have more than 8 bits, which two bytes of a PNG say."""
    if kind.name == "PNG":
        return content[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10"
    return kind.name in ("TIFF", "JPEG 2000", "PNM")


def _decode_deep(content: bytes, kind: Format, source: str, stretch: Stretch | None) -> Frame:
    """Decode what may have more than 8 bits to BGR of 8 bits."""
    if kind.name == "TIFF":
        _note_pages(content, source)
    bgr = _decode(content, _DEEP, source)
    if bgr is None and kind.name == "TIFF":
        bgr = _decode_unusual_tiff(content, kind, source)
    if bgr is None:
        raise ImageError(f"{source} cannot be decoded: damaged, or not an image")
    if bgr.dtype == np.uint8:
        return cast(Frame, bgr)
    levels = to_eight_bits(bgr, source, stretch)
    if stretch is None and kind.name == "JPEG 2000":  # of 9..16 bits, which OpenCV scales
        return cast(Frame, _decode(content, cv2.IMREAD_COLOR, source))
    return levels


def _decode_unusual_tiff(content: bytes, kind: Format, source: str) -> npt.NDArray[Any] | None:
    """Decode floats, which OpenCV reads in other modes, and small tiles, which Pillow reads.

    Returns:
        BGR of any depth; None if neither can.
    """
    for flags in (cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH, cv2.IMREAD_UNCHANGED):
        found = _decode(content, flags, source)
        if found is not None:
            return _of_three_channels(found)
    try:
        with kind.open(io.BytesIO(content)) as image:
            deep = image.mode[0] in "IF"
            rgb = _of_three_channels(np.asarray(image if deep else image.convert("RGB")))
    except DECODE_ERRORS:
        return None
    return np.ascontiguousarray(rgb[..., ::-1])


def _of_three_channels(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    channels = image if image.ndim == 3 else image[..., None]
    return channels[..., :3] if channels.shape[2] > 2 else np.repeat(channels[..., :1], 3, axis=2)


def _decode_by_pillow(content: bytes, kind: Format, source: str) -> Frame:
    try:
        with kind.open(io.BytesIO(content)) as image:
            width, height = image.size
            if width * height > _MOST_PIXELS:
                raise ImageError(f"{source} has more pixels than are read: {width}x{height}")
            _note_more(image, source)
            image.load()
            if image.size != (width, height):
                raise ImageError(f"{source} is damaged: its header says {width}x{height} pixels")
            upright: Image.Image = exif_transpose(image) if kind.turns else image
            return np.array(upright.convert("RGB"))
    except ImageError as error:
        named = str(error) if str(error).startswith(source) else f"{source}: {error}"
        raise ImageError(named) from error
    except DECODE_ERRORS as error:
        raise ImageError(f"{source} cannot be decoded: damaged or truncated") from error


def _note_pages(content: bytes, source: str) -> None:
    """Note what else a TIFF holds; damage is left to the decoder."""
    try:
        with TiffImageFile(io.BytesIO(content)) as image:
            if _DNG_VERSION in image.tag_v2 and image.tag_v2.get(_REDUCED_IMAGE, 0) & 1:
                width, height = image.size
                note_once(source, "raw", f"only the preview of {width}x{height} pixels is read")
            else:
                _note_more(image, source)
    except DECODE_ERRORS:
        return


def _note_more(image: ImageFile, source: str) -> None:
    count = getattr(image, "n_frames", 1)
    if count > 1:
        note_once(source, "pages", f"it holds {count} pictures; only the first is read")


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


def find_images(folder: str | os.PathLike[str]) -> Found:
    """Find the image files of a folder and its subfolders, linked ones too.

    Cameras write a photo twice, as .heic or .dng beside .jpg: where the same name is there in a
    format of `WRITABLE_SUFFIXES`, the other file counts as skipped.
    """
    found = find_files(folder, IMAGE_SUFFIXES)
    common = {path.with_suffix("") for path in found.files if _is_common(path)}
    kept = [path for path in found.files if _is_common(path) or path.with_suffix("") not in common]
    for path in set(found.files).difference(kept):
        found.skipped[f"{path.suffix.lower()} (a second format)"] += 1
    return Found(kept, found.skipped, found.unreadable)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted by path; see `find_images`.

    Raises:
        ImageError: The folder does not exist, or it or a subfolder cannot be listed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageError(f"no folder {root}")
    found = find_images(root)
    if found.unreadable:
        raise ImageError(found.unreadable[0])
    return found.files


def _is_common(path: Path) -> bool:
    return path.suffix.lower() in WRITABLE_SUFFIXES
