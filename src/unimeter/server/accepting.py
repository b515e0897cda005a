"""Accepting on a port that speaks TLS: the first byte decides who is let into the handshake.

    accept ─> first byte ─┬─ a TLS hello ─> handshake ─> the port's protocol
                          ├─ our magic ───> an error frame: "this port speaks TLS"
                          ├─ a letter ────> HTTP 400: use https://
                          └─ anything else: closed

Owns what a client costs that has not shaken hands: a bounded number (`shares`) at a time, with
those that are being told why they can't; the oldest goes first, and none takes longer than
HANDSHAKE_SECONDS. The byte is only looked at (MSG_PEEK), so
whoever takes the socket next reads from the beginning.

Ports without TLS use the loop's own (`Platform.listen`). Rejected: it here as well, with an `ssl`
argument. A client without TLS would see a closed connection and no reason, and the certificate
could not be changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from unimeter.server.platform import ACCEPTS_MAX
from unimeter.server.tls import HANDSHAKE_SECONDS, HELLO, SHUTDOWN_SECONDS, reason_of
from unimeter.wire import v1, v2
from unimeter.wire.failures import status_of
from unimeter.wire.framer import (
    REQUEST_HEADER_BYTES,
    VERSION_1,
    VERSION_2,
    parse_request_header,
    response_frame,
)
from unimeter.wire.messages import ErrorCode, ErrorReply, ProtocolError

NO_FILES_SECONDS: Final = 0.5  # until accepting is tried again without a free descriptor
REFUSAL_SECONDS: Final = 2.0
MENTION_SECONDS: Final = 60.0
SPEAKS_TLS: Final = "this port speaks TLS: connect with tls=... (--tls, https://)"
_HTTP_REFUSAL: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b"
)


class Mentions:
    """Sentences for the operator, each kind at most once a minute."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say, self._clock = say, clock
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def mention(self, kind: str, sentence: str) -> None:
        """Say it, unless its kind was just said."""
        now = self._clock()
        if now - self._said.get(kind, float("-inf")) < MENTION_SECONDS:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said[kind] = now
        more = self._unsaid.pop(kind, 0)
        self._say(f"{sentence} (and {more} more)" if more else sentence)


class Acceptor:
    """A listening socket whose clients shake hands first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        context: Callable[[], ssl.SSLContext],
        mentions: Mentions,
        handshakes_max: int,
    ) -> None:
        """Accept from now on; `context` gives the one for a connection that has just come."""
        self._handshakes_max = handshakes_max
        self._loop, self._listening = loop, listening
        self._protocol, self._context, self._mentions = protocol, context, mentions
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}  # for their first byte
        self._shaking: dict[asyncio.Task[None], None] = {}
        self._refusals: dict[PlainRefusal, None] = {}
        self._is_closed = False
        self.handshakes_failed = self.refused_plain = 0
        loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more; what has shaken hands goes on."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._listening.fileno())
        for waiting in list(self._waiting):
            self._drop(waiting)
        for task in list(self._shaking):
            task.cancel()
        for refusal in list(self._refusals):
            refusal.abort()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                taken, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor is free: the others need time to go
                self._loop.remove_reader(self._listening.fileno())
                self._loop.call_later(NO_FILES_SECONDS, self._accept_again)
                return
            taken.setblocking(False)
            self._waiting[taken] = self._loop.call_later(HANDSHAKE_SECONDS, self._drop, taken)
            self._loop.add_reader(taken.fileno(), self._peek, taken)
            self._bound()

    def _accept_again(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def _bound(self) -> None:
        """The oldest goes first, so that a crowd can't keep a client out for long."""
        if self._count <= self._handshakes_max:
            return
        if self._refusals:
            next(iter(self._refusals)).abort()
        elif self._shaking and len(self._shaking) >= len(self._waiting):
            next(iter(self._shaking)).cancel()
        else:
            self._drop(next(iter(self._waiting)))

    @property
    def _count(self) -> int:
        return len(self._waiting) + len(self._shaking) + len(self._refusals)

    def _leave(self, taken: socket.socket) -> None:
        """Nobody waits for the first byte of this one any more."""
        self._waiting.pop(taken).cancel()
        self._loop.remove_reader(taken.fileno())

    def _drop(self, taken: socket.socket) -> None:
        self._leave(taken)
        taken.close()

    def _peek(self, taken: socket.socket) -> None:
        try:
            first = taken.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if not first:
            self._drop(taken)
            return
        self._leave(taken)
        is_tls = first[0] == HELLO
        task = self._loop.create_task(self._shake(taken) if is_tls else self._refuse(taken))
        self._shaking[task] = None
        task.add_done_callback(self._shaken)

    def _shaken(self, task: asyncio.Task[None]) -> None:
        self._shaking.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "a handshake broke", "exception": task.exception()}
            )

    async def _shake(self, taken: socket.socket) -> None:
        peer = _peer_of(taken)
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                taken,
                ssl=self._context(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):  # the loop has a copy of it, which ends with this
                taken.shutdown(socket.SHUT_RDWR)
            taken.close()
            raise
        except (OSError, EOFError) as error:
            taken.close()
            self.handshakes_failed += 1
            sentence = f"a TLS handshake with {peer} failed: {reason_of(error)}"
            self._mentions.mention("handshake", sentence)

    async def _refuse(self, taken: socket.socket) -> None:
        self.refused_plain += 1
        sentence = f"{_peer_of(taken)} does not speak TLS, and this port speaks nothing else"
        self._mentions.mention("plain", sentence)
        refusal = PlainRefusal(self._loop, self._refusals)
        await self._loop.connect_accepted_socket(lambda: refusal, taken)

    def statistics(self) -> dict[str, int]:
        """Handshakes under way and failed, clients that did not begin one."""
        return {
            "handshakes": self._count,
            "handshakes_failed": self.handshakes_failed,
            "refused_plain": self.refused_plain,
        }


def _peer_of(taken: socket.socket) -> str:
    try:
        return str(taken.getpeername()[0])
    except OSError:
        return "a client"


class PlainRefusal(asyncio.Protocol):
    """A connection without TLS: told why in its own language, then closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, refusals: dict[PlainRefusal, None]) -> None:
        """It is one of `refusals` until its socket is closed."""
        self._loop, self._refusals = loop, refusals
        self._data = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a whole header, and not for long."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self._loop.call_later(REFUSAL_SECONDS, self._transport.abort)
        self._refusals[self] = None

    def data_received(self, data: bytes) -> None:
        """Answer the first header."""
        if self._transport.is_closing():
            return
        self._data += data[: REQUEST_HEADER_BYTES - len(self._data)]
        if len(self._data) < REQUEST_HEADER_BYTES and not self._data[:1].isalpha():
            return
        answer = plain_refusal(self._data)
        if answer:
            self._transport.write(answer)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._timer.cancel()
        self._refusals.pop(self, None)

    def abort(self) -> None:
        """Somebody else needs its place."""
        self._refusals.pop(self, None)
        self._transport.abort()


def plain_refusal(head: bytes) -> bytes:
    """What to answer to the first bytes of somebody who does not speak TLS; b"" if nothing."""
    if head[:1].isalpha():
        text = b"this port speaks TLS: use https://\n"
        return _HTTP_REFUSAL % (len(text), text)
    try:
        header = parse_request_header(head)
    except ProtocolError:
        return b""
    if header is None or header.request_id == 0:
        return b""
    reply = ErrorReply(ErrorCode.UNSUPPORTED, SPEAKS_TLS)
    version = VERSION_1 if header.version == VERSION_1 else VERSION_2
    wire = v1 if version == VERSION_1 else v2
    payload = wire.encode_response(header.packet_type, reply, 0)
    return response_frame(version, status_of(reply, version), header.request_id, payload)
