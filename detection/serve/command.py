"""A run of `python -m detection.serve`, from its options to its end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from detection.run.sources import find_sources
from detection.serve.options import ServeOptions
from detection.yolo import YoloDetector
from rainmer.cli import stage_options
from rainmer.device import resolve_device
from rainmer.errors import RainmerError, SpecError
from rainmer.extras import import_extra
from rainmer.stage import Derainer
from rainmer.stage.results import open_results
from rainmer.stage.specs import split_gate

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["run"]

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
_MOST_CONNECTIONS = 1024
_BACKLOG = 128
_GRACE_S = 5.0


def run(options: ServeOptions) -> None:
    """Serve until an interruption; requests in flight are answered.

    Raises:
        RainmerError: A mistake in the options, a port that is taken, or networks that cannot be
            used.
    """
    for package in _PACKAGES:
        import_extra(package, "serve", "python -m detection.serve")
    if open_results(split_gate(options.derain)[1]) is not None:
        raise SpecError(f"{options.derain}: a server needs a derainer that computes, not results")
    with _listen(options.host, options.port) as listener:
        _serve(_make_app(options), listener, options)


def _make_app(options: ServeOptions) -> FastAPI:
    from detection.serve.app import make_app
    from detection.serve.engine import Engine

    sources = find_sources(options.source, live=options)
    derainer = Derainer(options.derain, gate=options.gate, **stage_options(options))
    detector = YoloDetector(
        options.detector,
        device=str(resolve_device(options.device)),
        conf=options.conf,
        iou=options.iou,
        imgsz=options.imgsz,
        max_det=options.max_det,
        batch=options.batch,
        allow_download=options.allow_download,
    )
    return make_app(
        Engine(derainer, detector),
        options.limits,
        token=options.read_token(),
        sources=sources,
        play=options,
    )


def _listen(host: str, port: int) -> socket.socket:
    """Bind a socket, before anything is loaded.

    Raises:
        RainmerError: The address is not this machine's, or its port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise RainmerError(f"--host {host} is no address: {why}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let a second server in
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise RainmerError(
                f"port {port} of {host} is taken, perhaps by another server: choose another --port"
            ) from error
        raise RainmerError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return listener


def _serve(app: FastAPI, listener: socket.socket, options: ServeOptions) -> None:
    import uvicorn

    from detection.serve.connection import impatient

    config = uvicorn.Config(
        app,
        http=impatient(options.request_timeout),
        ws="none",
        log_config=None,
        access_log=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(options.request_timeout + _GRACE_S),
    )
    server = uvicorn.Server(config)
    service = app.state.service
    service.closing = lambda: server.should_exit
    threading.Thread(target=_announce, args=(server, service, listener), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # the way in which a server ends
        server.run(sockets=[listener])
    if service.batcher.failure is not None:
        raise RainmerError(f"the networks cannot be used: {service.batcher.failure}")
    print(f"stopped after {server.server_state.total_requests} requests")


def _announce(server: Any, service: Any, listener: socket.socket) -> None:  # noqa: ANN401
    """Say where the server is once it is ready; end it if the networks cannot be used."""
    host, port = listener.getsockname()[:2]
    while not service.batcher.ready.wait(0.1):
        if service.batcher.failure is not None:
            server.should_exit = True
            return
    shown = f"[{host}]" if ":" in host else host
    print(f"{service.title}: ready on http://{shown}:{port}/", flush=True)
