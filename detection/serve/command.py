"""A run of `python -m detection.serve`, from its options to its end."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

from detection.run.sources import find_sources
from detection.serve.options import ServeOptions
from detection.specs import load_detector
from rainmer.cli import stage_options
from rainmer.device import resolve_device
from rainmer.errors import RainmerError, SpecError, first_line
from rainmer.extras import import_extra
from rainmer.stage import Derainer
from rainmer.stage.results import open_results
from rainmer.stage.specs import split_gate

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["run"]

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


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
    from detection.serve.server import listen

    with listen(options.host, options.port) as listener:
        _serve(_make_app(options), listener, options)


def _make_app(options: ServeOptions) -> FastAPI:
    from detection.serve.app import make_app
    from detection.serve.engine import Engine

    sources = find_sources(options.source, live=options)
    derainer = Derainer(options.derain, gate=options.gate, **stage_options(options))
    detector = load_detector(
        options.detector,
        resolve_device(options.device),
        batch=options.batch,
        **options.detector_options,
    )
    return make_app(
        Engine(derainer, detector),
        options.limits,
        token=options.read_token(),
        sources=sources,
        play=options,
    )


def _serve(app: FastAPI, listener: socket.socket, options: ServeOptions) -> None:
    from detection.serve.server import make_server

    service, server = app.state.service, make_server(app, options.request_timeout)
    threading.Thread(target=_announce, args=(server, service, listener), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # the way in which a server ends
        server.run(sockets=[listener])
    if service.batcher.failure is not None:
        raise RainmerError(f"the networks cannot be used: {first_line(service.batcher.failure)}")
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
