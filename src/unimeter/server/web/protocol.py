"""uvicorn's HTTP/1.1, with bounds on what a stranger may cost.

Owns four limits that uvicorn leaves to a proxy in front of it, because here is none: bytes of
a request's head, seconds to send one, seconds of silence between requests, connections in all.
Each ends the connection with a status that says so where a status can still be sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

HEAD_BYTES_MAX = 32 * 1024
HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75
CONNECTIONS_MAX = 4096
TOO_MANY = 503
HEAD_TOO_LARGE = 431
HEAD_TOO_SLOW = 408


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._head_bytes = 0  # of the head that is being sent
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the socket, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            self._refuse(TOO_MANY, "too many connections")
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the socket gave."""
        if self.parser is None or self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._wait_for_head()
        super().data_received(data)
        if self._is_in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(HEAD_TOO_LARGE, "the head of a request may have 32 KiB")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._is_in_head = False
        self._head_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole; what comes now is the next head."""
        self._is_in_head = True
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse(HEAD_TOO_SLOW, "the head of the request did not come in time")
        else:
            self.transport.close()

    def _refuse(self, status: int, text: str) -> None:
        if self.transport.is_closing():
            return
        body = text.encode()
        head = b"content-type: text/plain; charset=utf-8\r\nretry-after: 1\r\nconnection: close\r\n"
        length = b"content-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + length + body)
        self.transport.close()
