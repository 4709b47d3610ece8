"""HTTP connections that nobody can hold open by being slow."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["impatient"]

_POLL_S = 1.0


def impatient(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a limit for everything but the work of the application.

    uvicorn itself waits for ever for headers, for the rest of a body whose request is answered
    already, and for a client that does not read its answer.

    Args:
        seconds: Longest time of each of these.
    """

    class ImpatientProtocol(H11Protocol):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._moved = self.loop.time()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def _watch(self) -> None:
            now, cycle = self.loop.time(), self.cycle
            works = cycle is not None and not cycle.response_complete
            if works and not self.transport.get_write_buffer_size():
                self._moved = now
            elif now - self._moved > seconds:
                self.transport.abort()
                return
            self._timer: Any = self.loop.call_later(min(_POLL_S, seconds / 2), self._watch)

    return ImpatientProtocol
