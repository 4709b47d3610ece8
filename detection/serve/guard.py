"""What stands before every request: who may ask, how much, and for how long."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detection.serve.budget import Budget
from detection.serve.metrics import Metrics
from detection.serve.options import LOOPBACK, Limits

__all__ = ["OPEN_PATHS", "SHARE", "Guard"]

SHARE = "rainmer.share"

OPEN_PATHS = frozenset({"/", "/page.css", "/page.js", "/docs", "/openapi.json", "/healthz"})
"""What needs no token: texts that are the same for everybody, and whether the server is ready."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_SECURITY = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]


class Guard:
    """Refuses what may not come in, before its body is read, and counts what goes out.

    Without a token only this machine can connect; then pages of other hosts, which a browser on
    this machine may show, are refused by the headers `Host` and `Origin`.

    Args:
        app: What answers the others.
        token: What requests must bear; None: nothing.
        hosts: The names by which this server may be called without a token.
        limits: How large a body may be, and how long it may take.
        metrics: Where answers are counted.
        budget: Of which each request gets a share, the entry `SHARE` of its scope, until it is
            answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        hosts: Collection[str] = LOOPBACK,
        limits: Limits,
        metrics: Metrics,
        budget: Budget,
    ) -> None:
        self._app = app
        self._budget = budget
        self._token = token
        self._hosts = hosts
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; other events pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_SECURITY]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                with self._budget.share() as scope[SHARE]:
                    await self._app(scope, _Body(receive, self._limits), answer)
            else:
                await refusal(scope, receive, answer)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - begun)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._token is None:
            if _host(f"//{headers.get(b'host', '')}") not in self._hosts:
                return _refuse(403, f"without a token this server answers to {LOOPBACK[0]} only")
            if b"origin" in headers and _host(headers[b"origin"]) not in self._hosts:
                return _refuse(403, "pages of other hosts may not ask this server")
        elif scope["path"] not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", "").partition(" ")
            is_right = hmac.compare_digest(given.strip().encode(), self._token.encode())
            if scheme.lower() != "bearer" or not is_right:
                return _refuse(
                    401,
                    "this needs the header Authorization: Bearer TOKEN, with the right token",
                    {"WWW-Authenticate": "Bearer"},
                )
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length) > self._limits.body:
            return _refuse(413, too_long(self._limits))
        return None


class _Body:
    """Receives a body that may neither be too long nor take too long."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._ends = time.monotonic() + limits.seconds
        self._length = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:  # whoever asks now waits for the end of the connection
            return await self._receive()
        try:
            left_s = max(self._ends - time.monotonic(), 0.0)
            message: dict[str, Any] = dict(await asyncio.wait_for(self._receive(), left_s))
        except (TimeoutError, asyncio.TimeoutError):
            raise HTTPException(
                408,
                f"the request did not arrive within {self._limits.seconds:g} s",
                {"Connection": "close"},
            ) from None
        self._length += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._length > self._limits.body:
            raise HTTPException(413, too_long(self._limits), {"Connection": "close"})
        return message


def too_long(limits: Limits) -> str:
    """Say how long a body may be."""
    return f"a request may have at most {limits.body / 1e6:g} MB"


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _refuse(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)
