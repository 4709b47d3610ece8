"""One request, from its body to its answers."""

from __future__ import annotations

import asyncio
import base64
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from fastapi import HTTPException, Request

from detection.draw import draw_detections
from detection.run.records import record_of
from detection.serve.batching import Batcher, Job
from detection.serve.budget import BUSY_AFTER_S, Budget, Share
from detection.serve.engine import Answer, Kind
from detection.serve.formats import MEDIA_TYPES, Picture
from detection.serve.guard import SHARE
from detection.serve.metrics import Metrics
from detection.serve.options import Limits, held_bytes
from detection.serve.uploads import Upload, decode, read_size, read_uploads
from detection.timing import Stopwatch
from rainmer.frames.images import encode_image

__all__ = ["Computed", "Worker"]

Result = TypeVar("Result")


class Computed(NamedTuple):
    """An image of a request and what came of it.

    Attributes:
        name: What its sender calls it.
        answer: What was computed; None: it could not be.
        error: Why, with the status of HTTP.
    """

    name: str
    answer: Answer | None
    error: tuple[int, str] | None = None


class Worker:
    """Takes the images of requests through decoding, the networks and encoding.

    Args:
        batcher: The networks.
        names: Class names by label.
        limits: What a request may ask for.
        metrics: Where times are counted.
        budget: The room that is left.
        threads: Threads that decode and encode.
    """

    def __init__(
        self,
        batcher: Batcher,
        names: dict[int, str],
        limits: Limits,
        metrics: Metrics,
        budget: Budget,
        threads: int,
    ) -> None:
        self.names = names
        self._batcher = batcher
        self._limits = limits
        self._metrics = metrics
        self._budget = budget
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="images")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    async def compute(
        self, request: Request, kind: Kind, most: int | None = None
    ) -> tuple[list[Computed], bool]:
        """Compute all images of a request.

        Args:
            request: See `read_uploads`.
            kind: What is done.
            most: Most images; None: as many as the limits allow.

        Returns:
            An entry for each image, and whether they came as a form. Only then may an image fail
            without the others.

        Raises:
            HTTPException: The request cannot be read, or asks for too much.
        """
        ends = time.monotonic() + self._limits.seconds
        share: Share = request.scope[SHARE]
        if self._budget.is_full:
            share.take(images=1)  # which says so, before the body is read
        limits = self._limits if most is None else replace(self._limits, images=most)
        uploads, is_form = await read_uploads(request, limits, share)
        share.take(images=len(uploads))
        sizes = [await self.run(_caught, read_size, *pair) for pair in _labelled(uploads)]
        pixels = sum(size[0] * size[1] for size in sizes if isinstance(size, tuple))
        if pixels > self._limits.pixels:
            raise HTTPException(
                413,
                f"a request may have {self._limits.pixels / 1e6:g} million pixels, "
                f"but this has {pixels / 1e6:.4g}",
            )
        share.take(memory=held_bytes(pixels))
        jobs = [
            self._compute_one(kind, upload, label, size)
            for (upload, label), size in zip(_labelled(uploads), sizes, strict=True)
        ]
        left_s = ends - time.monotonic()
        try:
            computed = await asyncio.wait_for(asyncio.gather(*jobs), max(left_s, 0.0))
        except (TimeoutError, asyncio.TimeoutError):
            raise HTTPException(
                503,
                f"there was no answer within {self._limits.seconds:g} s; come again",
                {"Retry-After": str(BUSY_AFTER_S)},
            ) from None
        share.give_images()
        if not is_form and computed[0].error is not None:
            raise HTTPException(*computed[0].error)
        return list(computed), is_form

    async def _compute_one(
        self, kind: Kind, upload: Upload, label: str, size: tuple[int, int] | HTTPException
    ) -> Computed:
        if isinstance(size, HTTPException):
            return Computed(upload.name, None, (size.status_code, size.detail))
        with Stopwatch() as watch:
            frame = await self.run(_caught, decode, upload, label)
        if isinstance(frame, HTTPException):
            return Computed(upload.name, None, (frame.status_code, frame.detail))
        self._metrics.stage("decode", watch.elapsed_ms)
        try:
            done = self._batcher.submit(Job(kind, frame, upload.name))
            answer: Answer = await asyncio.wrap_future(done)
            return Computed(upload.name, answer)
        except Exception:  # noqa: BLE001 - the log has the reason, which may name files here
            return Computed(upload.name, None, (500, f"{label} could not be processed"))

    async def encode(self, answer: Answer, picture: Picture, *, boxes: bool = False) -> bytes:
        """Return the derained frame as an image file, with or without what is found in it."""

        def draw_and_encode() -> bytes:
            frame = answer.processed.derained
            if boxes:
                frame = draw_detections(frame, answer.processed.detections, self.names)
            return encode_image(frame, f".{picture}")

        with Stopwatch() as watch:
            content = await self.run(draw_and_encode)
        self._metrics.stage("encode", watch.elapsed_ms)
        return content

    async def record(
        self, computed: Computed, kind: Kind, picture: Picture | None = None
    ) -> dict[str, Any]:
        """Return an image's entry of an answer in JSON, with the derained picture if asked for."""
        if computed.answer is None or computed.error is not None:
            status, reason = computed.error or (500, "it could not be processed")
            return {"name": computed.name, "status": status, "error": reason}
        record = record_of(computed.answer.processed, self.names)
        if kind == "derain":
            del record["boxes"], record["detect_ms"]
        if picture is not None:
            content = await self.encode(computed.answer, picture, boxes=kind != "derain")
            image = base64.b64encode(content).decode("ascii")
            record |= {"media_type": MEDIA_TYPES[picture], "image": image}
        return record

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401
        """Run a function in one of the threads for images."""
        work = functools.partial(function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _labelled(uploads: list[Upload]) -> list[tuple[Upload, str]]:
    """Return what messages call each image: its place, for a name may hold anything."""
    if len(uploads) == 1:
        return [(uploads[0], "the image")]
    return [(upload, f"image {i}") for i, upload in enumerate(uploads, 1)]


def _caught(function: Callable[..., Result], *arguments: object) -> Result | HTTPException:
    try:
        return function(*arguments)
    except HTTPException as error:
        return error
