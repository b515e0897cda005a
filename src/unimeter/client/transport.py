"""One blocking connection: a frame out, a frame in, with a time limit.

Owns the socket and the request ids. An attempt that ends without a reply
raises `AttemptError`, which says whether any byte of the request may have
reached the server: only then is the request's outcome in doubt.

A message that the server starts itself may come before any reply and while the
connection is idle. It is handed to `on_push` when it is met; most are news about
who leads.

Small writes go out at once (TCP_NODELAY): a metering call is one small frame
and waits for its reply, so there is nothing to gather.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Callable

from unimeter.client.access import reason_of
from unimeter.client.core import Reply
from unimeter.client.retry import CONNECT_SECONDS_MAX
from unimeter.client.routing import parse_address
from unimeter.wire import v2
from unimeter.wire.framer import VERSION_2, ResponseFrame, ResponseFramer, request_frame
from unimeter.wire.messages import ProtocolError, Request

READ_BYTES = 64 * 1024
KEEPALIVE = (
    ("TCP_KEEPIDLE", 15),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
)  # seconds, seconds, count
TIMEOUT_SLACK_SECONDS = 0.05  # how far a socket's timeout may be off before it is set anew

PushHandler = Callable[[ResponseFrame], None]


def set_options(connected: socket.socket) -> None:
    """Send at once; find out within half a minute that a silent peer is gone."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def connected(place: tuple[str, int], seconds: float, tls: ssl.SSLContext | None) -> socket.socket:
    """A socket that is connected, and has shaken hands if it is to speak TLS. Raises OSError."""
    plain = socket.create_connection(place, seconds)
    try:
        set_options(plain)
        return plain if tls is None else tls.wrap_socket(plain, server_hostname=place[0])
    except BaseException:
        plain.close()
        raise


class AttemptError(Exception):
    """An attempt ended without a reply."""

    def __init__(self, reason: str, was_sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.was_sent = was_sent  # some bytes of the request may have arrived


class Connection:
    """A socket to one node, with one request in flight at most."""

    def __init__(
        self,
        address: str,
        until: float,
        on_push: PushHandler | None = None,
        connect_seconds: float = CONNECT_SECONDS_MAX,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connect, or raise AttemptError."""
        self.address = address
        self.used = time.monotonic()
        self._on_push = on_push
        self._framer = ResponseFramer()
        self._request_id = 0
        seconds = min(connect_seconds, max(0.001, until - self.used))
        try:
            self._socket = connected(parse_address(address), seconds, tls)
        except OSError as error:
            reason = reason_of(error, tls)
            raise AttemptError(f"can't connect to {address}: {reason}", False) from error
        self._seconds = seconds

    def ask(self, request: Request, until: float, silence: float = math.inf) -> tuple[int, Reply]:
        """Send a request as it is, outside any call: a greeting, a map."""
        packet_type, payload = v2.encode_request(request)
        return packet_type, self.exchange(packet_type, payload, until, silence)

    def exchange(
        self, packet_type: int, payload: bytes, until: float, silence: float = math.inf
    ) -> Reply:
        """Send a request and wait for its reply, or raise AttemptError.

        Waits until `until`, and no longer than `silence` seconds without a byte.
        """
        was_sent = until > time.monotonic()
        try:
            request_id = self.send(packet_type, payload, until)
            while True:
                received = self.receive(until, silence)
                if received.request_id == request_id:
                    self.used = time.monotonic()
                    return Reply(received.status, received.payload)
                self._take_push(received)
        except TimeoutError:
            raise AttemptError(f"no reply from {self.address} in time", was_sent) from None
        except (OSError, ProtocolError) as error:
            reason = f"connection to {self.address} lost: {error}"
            raise AttemptError(reason, was_sent) from error

    def send(self, packet_type: int, payload: bytes, until: float) -> int:
        """Send a request and return its id. Raises OSError."""
        self._request_id = request_id = self._request_id % 0xFFFF_FFFF + 1
        frame = request_frame(VERSION_2, packet_type, request_id, payload)
        self._limit(until)
        self._socket.sendall(frame)
        return request_id

    def receive(self, until: float, silence: float = math.inf) -> ResponseFrame:
        """Wait for the next frame, whatever it is. Raises OSError, or TimeoutError."""
        while (frame := self._framer.next_frame()) is None:
            self._limit(min(until, time.monotonic() + silence))
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("closed by the server")
            self._framer.receive_data(data)
        return frame

    def is_alive(self) -> bool:
        """Whether the server has not closed the connection, as far as can be seen without asking.

        Takes the pushes that came while it was idle. A reply that nobody waits for
        means that this connection is out of step: it is not to be used again.
        """
        self._socket.settimeout(0)
        self._seconds = 0.0
        try:
            while data := self._socket.recv(READ_BYTES):
                self._framer.receive_data(data)
                while (frame := self._framer.next_frame()) is not None:
                    if not frame.is_push:
                        return False
                    self._take_push(frame)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except (OSError, ProtocolError):
            pass
        return False

    def _take_push(self, frame: ResponseFrame) -> None:
        if frame.is_push and self._on_push is not None:
            self._on_push(frame)

    def interrupt(self) -> None:
        """Wake up a thread that waits on this connection; it sees an OSError."""
        try:
            # Not the method of an SSLSocket, which would go on in plain.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Close the socket. May be repeated."""
        self._socket.close()

    def _limit(self, until: float) -> None:
        """Give the socket the time that is left, sparing the system call if it has it already."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if not left <= self._seconds <= left + TIMEOUT_SLACK_SECONDS:
            self._seconds = left + TIMEOUT_SLACK_SECONDS / 2
            self._socket.settimeout(self._seconds)
