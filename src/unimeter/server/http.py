"""Three pages for the operator: /health, /ready, /metrics.

Owns an HTTP/1.1 responder that knows GET, HEAD and these three paths, on a port of
its own so that a probe needs no word of the wire protocol.

    /health   200 while the process works, 503 once it is stopping after a failure
    /ready    200 when requests are answered: after replay, before shutdown
    /metrics  the node's counters in the Prometheus text format

A request's head is bounded (HEAD_BYTES_MAX) and a connection that says nothing
is closed after IDLE_SECONDS, so a stranger on this port costs little.

Rejected: a web framework for three answers without parameters. When there is an
HTTP API it brings its own server, and these pages move into it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

HEAD_BYTES_MAX = 8192
IDLE_SECONDS = 30.0
TEXT = "text/plain; charset=utf-8"

Page = tuple[HTTPStatus, str, bytes]
"""Status, content type, body."""


class HttpPages:
    """The pages by path, and a protocol for each connection."""

    def __init__(self, pages: dict[str, Callable[[], Page]]) -> None:
        self.pages = pages
        self.open: dict[HttpConnection, None] = {}  # in the order in which they came

    def connection(self) -> HttpConnection:
        """The protocol of a new socket: asyncio calls this."""
        return HttpConnection(self)

    def answer(self, method: str, target: str) -> Page:
        """The page that `method` and `target` ask for."""
        path = target.partition("?")[0]
        if path not in self.pages:
            known = ", ".join(self.pages)
            return HTTPStatus.NOT_FOUND, TEXT, f"there are {known}\n".encode()
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"use GET\n"
        return self.pages[path]()

    def close(self) -> None:
        """Close what is still open."""
        for connection in tuple(self.open):
            connection.transport.abort()


class HttpConnection(asyncio.Protocol):
    """One connection; requests are answered in order, keep-alive by default."""

    def __init__(self, pages: HttpPages) -> None:
        self.pages = pages
        self.head = b""
        self.transport: asyncio.Transport
        self.idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self.pages.open[self] = None
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of it."""
        self.pages.open.pop(self, None)
        if self.idle is not None:
            self.idle.cancel()

    def _wait(self) -> None:
        if self.idle is not None:
            self.idle.cancel()
        self.idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer every whole head that has arrived."""
        self.head += data
        while not self.transport.is_closing():
            head, end, rest = self.head.partition(b"\r\n\r\n")
            if not end:
                break
            self.head = rest
            self._wait()
            self._answer(head.decode("latin-1"))
        if len(self.head) > HEAD_BYTES_MAX:
            self._write("GET", (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TEXT, b""), False)

    def _answer(self, head: str) -> None:
        """Answer one request head."""
        line, *fields = head.split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._write("GET", (HTTPStatus.BAD_REQUEST, TEXT, b"not HTTP/1.1\n"), False)
            return
        names = {}
        for field in fields:
            name, _, value = field.partition(":")
            names[name.strip().lower()] = value.strip().lower()
        keep = names.get("connection", "keep-alive" if words[2] == "HTTP/1.1" else "close")
        has_body = names.get("content-length", "0") != "0" or "transfer-encoding" in names
        page = self.pages.answer(words[0], words[1])
        self._write(words[0], page, keep == "keep-alive" and not has_body)

    def _write(self, method: str, page: Page, keep: bool) -> None:
        """Write a whole response."""
        status, kind, body = page
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self.transport.write(head.encode() + (b"" if method == "HEAD" else body))
        if not keep:
            self.transport.close()
