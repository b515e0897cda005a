"""uvicorn's HTTP/1.1, with bounds on what a stranger may cost.

Owns the limits that uvicorn leaves to a proxy in front of it, because here is none:

    bytes of a request's head            HEAD_BYTES_MAX              431
    bytes between two pieces of a body   HEAD_BYTES_MAX              431, also of trailers
    requests sent before their turn      PIPELINED_MAX               closed
    seconds to send one                  HEAD_SECONDS                408
    bytes of a body in a while           BODY_BYTES_MIN in BODY_SECONDS   408
    a body that nobody reads any more    LINGER_SECONDS              closed
    an answer that the client leaves     STALL_SECONDS               closed
    a connection that nobody reads       CLOSE_SECONDS               reset
    seconds between two requests         KEEP_ALIVE_SECONDS, STRANGER_SECONDS   closed
    connections in all                   `shares`, `crowd`           the oldest stranger

Each ends the connection, with a status that says why where one can still be sent. Whoever
is being answered is kept with the connection, so that a stream ends when its key is revoked.

A client that offers another protocol (`Upgrade: h2c`, as Java's does) gets HTTP/1.1: its request
is read once more without the offer, because the parser leaves everything behind one unread.

A client may send its next request before the last one is answered. uvicorn then knows the last
request that came; which one is being answered is known here (`_answering`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from unimeter.keys import Principal
from unimeter.server.web.crowd import Crowd
from unimeter.server.web.problems import CONTENT_TYPE, Problem

HEAD_BYTES_MAX: Final = 32 * 1024
HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 30.0
BODY_BYTES_MIN: Final = 512  # in BODY_SECONDS: slower is a client that only holds a place
LINGER_SECONDS: Final = 2.0  # for the rest of a body after its answer; a reset would lose that
STALL_SECONDS: Final = 30.0  # an answer of which the client takes no byte
CLOSE_SECONDS: Final = 10.0  # for the last bytes to be taken
KEEP_ALIVE_SECONDS: Final = 75
STRANGER_SECONDS: Final = 5  # the same after a request without a key
PIPELINED_MAX: Final = 256  # browsers send none, and load generators up to 64
TOO_MANY: Final = 503
NO_METHOD: Final = 405
HEAD_TOO_LARGE: Final = 431
HEAD_TEXT: Final = "the head of a request may have 32 KiB"
OFFERS: Final = (b"connection", b"upgrade", b"http2-settings")  # headers of this connection only
TOO_SLOW: Final = 408
BAD_REQUEST: Final = 400
WORTH_A_RETRY: Final = (TOO_MANY, TOO_SLOW)
KINDS: Final = {
    BAD_REQUEST: "invalid-input",
    NO_METHOD: "method",
    TOO_SLOW: "too-slow",
    HEAD_TOO_LARGE: "too-large",
    TOO_MANY: "wait",
}
LAST_CHUNK: Final = b"0\r\n\r\n"
TLS_HELLO: Final = 0x16  # the first byte of a TLS record that begins a handshake
_LOG = logging.getLogger("unimeter.http")
_LOG.setLevel(logging.ERROR)  # what strangers send is counted and answered, and not worth a line


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        loop: asyncio.AbstractEventLoop,
        crowd: Crowd,
        on_tls_hello: Callable[[str], None] = lambda address: None,
    ) -> None:
        """`on_tls_hello` is told of a client that speaks TLS where none is spoken."""
        super().__init__(config, server_state, {"connection": self}, loop)
        self.logger = _LOG
        self.principal: Principal | None = None  # who was let in to ask what is being answered
        self._crowd = crowd
        self._answering: RequestResponseCycle | None = None
        self._on_tls_hello = on_tls_hello
        self._is_new = True
        self._head_bytes = 0  # of the head that is being sent
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_in_head = True
        self._is_offer = False  # of another protocol: the head that was just read
        self._unframed_bytes = 0  # since the last byte of a body: sizes of chunks, trailers
        self._body_bytes = 0  # since `_body_since`
        self._body_since = 0.0
        self._linger_timer: asyncio.TimerHandle | None = None
        self._stalled_since: float | None = None  # the client does not read
        self._stalled_bytes = 0
        self._closing_since: float | None = None

    # --- asyncio's side ----------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the socket, unless there is no room."""
        super().connection_made(transport)
        if not self._crowd.join(self):
            self._refuse(TOO_MANY, "too many connections")
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of it."""
        self._crowd.leave(self)
        self._stop_waiting()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        if self._answering is not None and self._is_busy:
            self._answering.disconnected = True
            self._answering.message_event.set()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the socket gave."""
        if self.parser is None or self.transport.is_closing():
            return
        if self._is_new:
            self._is_new = False
            if data[0] == TLS_HELLO:
                self._on_tls_hello(self.client[0] if self.client else "")
                self.transport.abort()
                return
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._wait_for_head()
        else:
            self._body_bytes += len(data)
            self._unframed_bytes += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._is_in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(HEAD_TOO_LARGE, HEAD_TEXT)
        elif not self._is_in_head and self._unframed_bytes > HEAD_BYTES_MAX:
            self._refuse(HEAD_TOO_LARGE, "what follows a chunk of a body may have 32 KiB")

    def _feed(self, data: bytes) -> None:
        while data and not self.transport.is_closing():
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._without_offer(data[offer.args[0] :])
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    def _without_offer(self, rest: bytes) -> bytes:
        """What to read in place of a head with an offer, and of what came behind it."""
        method = self.parser.get_method()
        if method == b"CONNECT" or not self._is_offer:
            self._refuse(NO_METHOD, "this is no proxy")
            return b""
        self._is_offer = False
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] not in OFFERS]
        if any(name == b"connection" and b"close" in value.lower() for name, value in self.headers):
            lines.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        return b"\r\n".join([*lines, b"", rest])

    def pause_writing(self) -> None:
        """The client does not read."""
        self._stalled_since = self.loop.time()
        self._stalled_bytes = self.transport.get_write_buffer_size()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._stalled_since = None
        super().resume_writing()

    # --- the parser's side -------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the head; what trails a body is nothing to anybody."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if len(self.pipeline) >= PIPELINED_MAX:
            self.transport.abort()
        if self.transport.is_closing():
            return  # the rest of what was read with it
        if self._parsed_bytes() > HEAD_BYTES_MAX:
            self._refuse(HEAD_TOO_LARGE, HEAD_TEXT)
            return
        if self.parser.should_upgrade():
            self._is_offer = True
            return  # `_feed` reads it again
        self._is_in_head = False
        self._head_bytes = self._body_bytes = self._unframed_bytes = 0
        self._body_since = self.loop.time()
        self._stop_waiting()
        super().on_headers_complete()

    def _parsed_bytes(self) -> int:
        """Bytes of the head, which may have come in one read with what is behind it."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_chunk_header(self) -> None:
        """A chunk of the body begins."""
        self._unframed_bytes = 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._unframed_bytes = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole; what comes now is the next head."""
        if self._is_offer or self.transport.is_closing():
            return
        self._is_in_head = True
        super().on_message_complete()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
            super().on_response_complete()

    def on_response_complete(self) -> None:
        """The answer is written; a client that still sends the body is soon let go."""
        is_known = self.principal is not None
        self.principal = None
        self._crowd.rest(self, is_known=is_known)
        self.timeout_keep_alive = KEEP_ALIVE_SECONDS if is_known else STRANGER_SECONDS
        is_unread = self.cycle.response_complete and not self._is_in_head
        if is_unread and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
            self.flow.resume_reading()
        else:
            super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        self._crowd.work(self)
        super()._start_asgi_task(cycle, app)

    # --- time --------------------------------------------------------------------

    def let_in(self, principal: Principal) -> None:
        """Who asks what is being answered."""
        self.principal = principal
        self._crowd.know(self)

    def look_at_key(self, is_good: Callable[[Principal], bool]) -> None:
        """Keys have changed: end a stream and a body of somebody who is not let in any more.

        A request that came whole still gets its one answer: it may be what revoked the key.
        """
        answering = self._answering
        if self.principal is None or answering is None or answering.response_complete:
            return
        is_long = answering.response_started or answering.more_body
        if is_long and not is_good(self.principal):
            if answering.response_started and answering.chunked_encoding:
                self.transport.write(LAST_CHUNK)  # it ends, and is not cut
            self.transport.close()

    @property
    def _is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._answering is not None and not self._answering.response_complete

    @property
    def _is_streaming(self) -> bool:
        """Whether an answer has begun and goes on."""
        return self._is_busy and self._answering is not None and self._answering.response_started

    def look(self) -> None:
        """Once a second: end what only holds a place."""
        now = self.loop.time()
        if self.transport.is_closing():
            self._look_at_end(now)
            return
        if self._stalled_since is not None:
            self._look_at_reader(now)
        if self._is_in_head or self.flow.read_paused or now - self._body_since < BODY_SECONDS:
            return
        if self._body_bytes < BODY_BYTES_MIN and not self._is_streaming:
            self._refuse(TOO_SLOW, "the body of the request comes too slowly")
        self._body_bytes, self._body_since = 0, now

    def _look_at_end(self, now: float) -> None:
        if self._closing_since is None:
            self._closing_since = now
        elif now - self._closing_since >= CLOSE_SECONDS:
            self.transport.abort()

    def _look_at_reader(self, now: float) -> None:
        assert self._stalled_since is not None
        waiting = self.transport.get_write_buffer_size()
        if waiting < self._stalled_bytes:
            self._stalled_since = now
        elif now - self._stalled_since >= STALL_SECONDS:
            self.transport.abort()
        self._stalled_bytes = waiting

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._is_busy:
            self._wait_for_head()  # its last request is still being answered
        elif self._head_bytes:
            self._refuse(TOO_SLOW, "the head of the request did not come in time")
        else:
            self.transport.close()

    def _refuse(self, status: int, text: str) -> None:
        if self.transport.is_closing():
            return
        if self._is_streaming:
            self.transport.abort()  # in the midst of an answer a status would be a part of it
            return
        body = json.dumps(Problem(status, KINDS[status], text).body()).encode()
        head = b"content-type: %b\r\nconnection: close\r\n" % CONTENT_TYPE.encode()
        if status in WORTH_A_RETRY:
            head += b"retry-after: 1\r\n"
        length = b"content-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + length + body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What the parser can't read is told like any other refusal."""
        self._refuse(BAD_REQUEST, "this is not HTTP/1.1 as RFC 9112 has it")
