"""Images that come in by a request: its body, or the files of a form."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from detection.serve.budget import Share
from detection.serve.options import Limits
from rainmer.errors import ImageError
from rainmer.frames.arrays import Frame
from rainmer.frames.formats import format_of
from rainmer.frames.images import decode_image, image_size_hw

__all__ = ["Upload", "decode", "read_size", "read_uploads"]


class Upload(NamedTuple):
    """An image as it came.

    Attributes:
        name: What its sender calls it; empty: nothing.
        content: The bytes of the file.
    """

    name: str
    content: bytes


async def read_uploads(request: Request, limits: Limits, share: Share) -> tuple[list[Upload], bool]:
    """Return the images of a request, and whether it was a form.

    Args:
        request: An image as the body, or `multipart/form-data` with images as files.
        limits: How many images there may be.
        share: What takes the bytes.

    Raises:
        HTTPException: There is no image, there are too many, or the form is damaged.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        body = b"".join([chunk async for chunk in _taken(request, share)])
        if not body:
            raise HTTPException(400, "there is no image: send one as the body, or files of a form")
        return [Upload("", body)], False
    parser = MultiPartParser(
        request.headers, _taken(request, share), max_files=limits.images, max_fields=0
    )
    parser.spool_max_size = limits.body  # in memory, where it is counted, not on the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        fields = error.message.startswith("Too many fields")
        reason = "all parts of a form must be files" if fields else error.message
        raise HTTPException(400, reason) from error
    parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
    uploads = [Upload(part.filename or "", await part.read()) for part in parts]
    await form.close()
    if not uploads:
        raise HTTPException(400, "the form holds no file")
    return uploads, True


async def _taken(request: Request, share: Share) -> AsyncGenerator[bytes, None]:
    """Yield the parts of a body, each taken from the budget."""
    async for chunk in request.stream():
        share.take(memory=len(chunk))
        yield chunk


def read_size(upload: Upload, label: str) -> tuple[int, int]:
    """Return (height, width) of an image by its header; nothing is decoded.

    Raises:
        HTTPException: It is no image of a format that is read here: 415.
    """
    try:
        if format_of(upload.content) is None:
            raise ImageError(f"{label} cannot be decoded: damaged, or not an image")
        height, width = image_size_hw(label, upload.content)
    except ImageError as error:
        raise HTTPException(415, str(error)) from error
    return height, width


def decode(upload: Upload, label: str) -> Frame:
    """Decode an image; see `rainmer.frames.images.decode_image`.

    Raises:
        HTTPException: It is damaged: 415.
    """
    try:
        return decode_image(upload.content, label)
    except ImageError as error:
        raise HTTPException(415, str(error)) from error
