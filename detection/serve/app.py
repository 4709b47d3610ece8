"""The server's application: what it answers to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from detection.run.sources import Source
from detection.serve.batching import Batcher
from detection.serve.budget import Budget
from detection.serve.engine import Answer, Engine, Kind
from detection.serve.formats import MEDIA_TYPES, Form, Picture, choose_form
from detection.serve.guard import SHARE, Guard
from detection.serve.live import Channel, LiveView
from detection.serve.metrics import CONTENT_TYPE_LATEST, Metrics
from detection.serve.options import Limits, PlayOptions
from detection.serve.page import page_files, render_docs
from detection.serve.requests import Worker
from detection.serve.shown import Shown
from rainmer.cpus import usable_cpus
from rainmer.version import __version__

__all__ = ["Service", "make_app"]

_LONGEST_POLL_S = 10.0
_POLL_S = 0.01
_CLOSED_BY_CLIENT = 499

AskedForm = Annotated[
    Form | None, Query(description="form of the answer; default: what Accept asks for")
]
AskedPicture = Annotated[Picture, Query(description="pictures inside of JSON")]
SourceName = Annotated[str, Path(max_length=255, description="name as of /v1/live")]
Since = Annotated[int, Query(description="only later seconds, Unix time")]
After = Annotated[int, Query(description="only a frame of a higher number")]

_IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One image of any format that is read here, or a form of several.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
        },
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No image, or a damaged form."},
    401: {"description": "No token, or a wrong one."},
    408: {"description": "The request took too long to arrive."},
    413: {"description": "Too many bytes or pixels."},
    415: {"description": "Damaged, or no image of a known format."},
    422: {"description": "An unknown value of a parameter."},
    503: {"description": "The queue is full, or there was no answer in time; see Retry-After."},
}
_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {"content": {media: {} for media in MEDIA_TYPES.values()}, "description": "The answer."}
}
_FORM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"multipart/form-data": {}}, "description": "The frame."}
}
_OF_SOURCES: dict[int | str, dict[str, Any]] = {
    401: _REFUSALS[401],
    404: {"description": "There is no such source."},
}
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "Not yet, or no longer."}}


@dataclass
class Service:
    """What the routes share.

    Attributes:
        engine: The networks.
        batcher: Their queue.
        worker: What takes requests through it.
        view: The live sources.
        metrics: What is counted.
        title: What runs here, in a few words.
        closing: Tells whether the server is shutting down, so that nobody waits for more.
    """

    engine: Engine
    batcher: Batcher
    worker: Worker
    view: LiveView
    metrics: Metrics
    title: str
    closing: Callable[[], bool] = lambda: False

    @contextlib.asynccontextmanager
    async def running(self, _app: FastAPI) -> AsyncIterator[None]:
        """Compute and play from the start of the server to its end."""
        self.batcher.start()
        self.view.start()
        yield
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self.view.close()
        self.batcher.close()
        self.worker.close()


def make_app(
    engine: Engine,
    limits: Limits | None = None,
    *,
    token: str | None = None,
    sources: Sequence[Source] = (),
    play: PlayOptions | None = None,
) -> FastAPI:
    """Build the application around networks.

    Args:
        engine: The networks.
        limits: Of requests.
        token: What requests must bear; None: only this machine can connect.
        sources: What the page shows live.
        play: How.

    Returns:
        The application; its `state.service` is the `Service`.
    """
    limits, metrics = limits or Limits(), Metrics()
    budget = Budget(limits.queue, limits.memory)
    names = engine.detector.names
    batcher = Batcher(engine, limits.wait_s, metrics)
    channels = [
        Channel(source, batcher, names, metrics, play or PlayOptions()) for source in sources
    ]
    service = Service(
        engine,
        batcher,
        Worker(batcher, names, limits, metrics, budget, usable_cpus()),
        LiveView(channels),
        metrics,
        f"{engine.derainer.name} in front of {engine.detector.name}",
    )
    app = FastAPI(
        title="Rainmer",
        version=__version__,
        description=service.title,
        docs_url=None,  # these load scripts from other hosts
        redoc_url=None,
        lifespan=service.running,
        exception_handlers={
            StarletteHTTPException: _tell_refusal,
            RequestValidationError: _tell_mistake,
            ClientDisconnect: _tell_nobody,
            Exception: _tell_failure,
        },
    )
    app.state.service = service
    _add_images(app, service)
    _add_live(app, service)
    _add_operation(app, service)
    app.add_middleware(Guard, token=token, limits=limits, metrics=metrics, budget=budget)
    return app


async def _tell_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _tell_mistake(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)


async def _tell_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=_CLOSED_BY_CLIENT)


async def _tell_failure(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": "the server has failed; its log says how"}, 500)


def _add_images(app: FastAPI, service: Service) -> None:
    """Add the routes that images are sent to."""
    options: dict[str, Any] = {
        "tags": ["images"],
        "openapi_extra": _IMAGE_BODY,
        "responses": {**_PICTURES, **_REFUSALS},
        "response_class": Response,
    }

    @app.post("/v1/derain", summary="Derain images", **options)
    async def derain(
        request: Request,
        format: AskedForm = None,  # noqa: A002 (its name in the address)
        picture: AskedPicture = "png",
    ) -> Response:
        """Return the image without rain; of a form with several images, all of them in JSON."""
        return await _answer(service, request, "derain", format, picture)

    @app.post("/v1/detect", summary="Detect objects in derained images", **options)
    async def detect(
        request: Request,
        format: AskedForm = None,  # noqa: A002
        derain: Annotated[bool, Query(description="false: detect in the rainy image")] = True,
    ) -> Response:
        """Return boxes in pixels of the image as JSON, or drawn on the derained image."""
        return await _answer(service, request, "detect" if derain else "plain", format, None)

    @app.post(
        "/v1/compare",
        summary="Detect with and without deraining",
        **{**options, "responses": {**_FORM, **_REFUSALS}},
    )
    async def compare(request: Request) -> Response:
        """Return a form: record in JSON with all boxes, rainy and derained as JPEG."""
        (first,), _ = await service.worker.compute(request, "compare", most=1)
        if first.answer is None:
            raise HTTPException(*(first.error or (500, "")))
        return await _form_of(service, request, Shown(first.answer, service.worker.names))


async def _answer(
    service: Service, request: Request, kind: Kind, asked: Form | None, picture: Picture | None
) -> Response:
    """Compute a request's images, and answer in the form that it asks for."""
    accept = request.headers.get("accept", "")
    form = choose_form(asked, accept, "png" if kind == "derain" else "json")
    worker = service.worker
    computed, is_form = await worker.compute(request, kind)
    first = computed[0].answer
    if form != "json" and len(computed) == 1 and first is not None:
        content = await worker.encode(first, form, boxes=kind != "derain")
        return Response(content, media_type=MEDIA_TYPES[form], headers=_timing(first))
    if form != "json":
        picture = form
    records = [await worker.record(item, kind, picture) for item in computed]
    if is_form:
        return JSONResponse({"images": records})
    return JSONResponse(records[0], headers=_timing(first))


def _timing(answer: Answer | None) -> dict[str, str]:
    """Return the times of an answer as browsers and programs read them."""
    stages = answer.processed.stage_ms.items() if answer else ()
    return {"Server-Timing": ", ".join(f"{name};dur={ms:.2f}" for name, ms in stages)}


async def _form_of(service: Service, request: Request, shown: Shown) -> Response:
    content, media_type = await service.worker.run(shown.form)
    request.scope[SHARE].take(memory=len(content))  # slow viewers hold it for a while
    return Response(content, headers={"Content-Type": media_type})


def _add_live(app: FastAPI, service: Service) -> None:
    """Add the routes that the page asks for its sources."""
    view, gate = service.view, service.engine.derainer.gate

    @app.get("/v1/live", tags=["live"], summary="All sources", responses=_OF_SOURCES)
    async def sources() -> dict[str, Any]:
        """Return what runs here, and state, counts, rates and times of each source."""
        return {
            "title": service.title,
            "threshold": gate.threshold if gate else None,
            "sources": [channel.summary() for channel in view.channels.values()],
        }

    @app.get(
        "/v1/live/{source}/history",
        tags=["live"],
        summary="A source over time",
        responses=_OF_SOURCES,
    )
    async def history(source: SourceName, since: Since = 0) -> dict[str, Any]:
        """Return means for each second of the last ten minutes."""
        return {"seconds": _channel(view, source).history(since)}

    @app.get(
        "/v1/live/{source}",
        tags=["live"],
        summary="A source's newest frame",
        response_class=Response,
        responses={
            **_FORM,
            **_OF_SOURCES,
            204: {"description": "There was no newer frame for some seconds."},
        },
    )
    async def frame(request: Request, source: SourceName, after: After = 0) -> Response:
        """Return the newest frame, a form as of /v1/compare; wait for it if there is none yet."""
        channel, ends = _channel(view, source), time.monotonic() + _LONGEST_POLL_S
        while channel.newest is None or channel.newest.number <= after:
            if service.closing() or time.monotonic() > ends:
                return Response(status_code=204)
            await asyncio.sleep(_POLL_S)
        return await _form_of(service, request, channel.newest)


def _channel(view: LiveView, name: str) -> Channel:
    if name not in view.channels:
        raise HTTPException(404, "there is no such source")
    return view.channels[name]


def _add_operation(app: FastAPI, service: Service) -> None:
    """Add health, metrics, the page and the documentation."""

    @app.get("/healthz", tags=["operation"], summary="Is the server ready?", responses=_NOT_READY)
    async def health() -> Response:
        """Return 200 once the networks are warm, until the server shuts down; otherwise 503."""
        is_ready = service.batcher.ready.is_set() and not service.closing()
        state = "ready" if is_ready else "shutting down" if service.closing() else "warming up"
        return JSONResponse({"status": state}, 200 if is_ready else 503)

    @app.get("/metrics", tags=["operation"], summary="Numbers for Prometheus")
    async def metrics() -> Response:
        """Return requests, times, batches, the queue, stages and frames of sources."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(render_docs(app.openapi()), media_type="text/html")

    for path, (content, media_type) in page_files().items():
        _add_file(app, path, content, media_type)


def _add_file(app: FastAPI, path: str, content: bytes, media_type: str) -> None:
    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(content, media_type=media_type)
