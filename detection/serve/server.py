"""The server process: its socket, and uvicorn around an application."""

from __future__ import annotations

import errno
import os
import socket

import uvicorn
from fastapi import FastAPI

from detection.serve.connection import impatient
from rainmer.errors import RainmerError

__all__ = ["listen", "make_server"]

_BACKLOG = 128
_GRACE_S = 5.0
_MOST_CONNECTIONS = 512


def listen(host: str, port: int) -> socket.socket:
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


def make_server(app: FastAPI, seconds: float) -> uvicorn.Server:
    """Return a server of an application; its `run` takes the sockets.

    Args:
        app: The application.
        seconds: Longest time of a request, and of what is in flight when the server is stopped.
    """
    config = uvicorn.Config(
        app,
        http=impatient(seconds),
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(seconds + _GRACE_S),
    )
    server = uvicorn.Server(config)
    app.state.service.closing = lambda: server.should_exit
    return server
