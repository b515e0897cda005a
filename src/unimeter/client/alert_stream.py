"""A blocking stream: alerts or changes from a socket of its own, over any reconnect.

The server pushes alerts in the order of their positions, missed ones first. The
stream remembers (`feeds`) the place of the last item that it handed out and names it when it
connects again, so nothing is lost; an alert with a position not above it is
dropped, so nothing is repeated.

    connect ── enable(after=7) ──> 8, 9, (lost) ── enable(after=9) ──> 10, ...

Positions are the same on every node, so any node will do. Two things send a stream to
another one though its connection stands: the node says that it knows no leader (it
may be cut off, and would have no news), or it does not answer. Whoever waits on a
quiet stream therefore asks now and then for the map.

The consumer's pace is the stream's: alerts wait in the socket, then at the
server, which closes a connection that falls too far behind; that is one more
reconnect.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from unimeter.client.core import Core, Reply, decode
from unimeter.client.feeds import AlertFeed, Change, Feed, WatchFeed
from unimeter.client.pool import Pool
from unimeter.client.retry import PING_SECONDS, PONG_SECONDS, RETRYABLE_CODES, TIMEOUT_SECONDS
from unimeter.client.stream import Stream, Watch
from unimeter.client.surface import AlertStream
from unimeter.client.transport import AttemptError, Connection
from unimeter.errors import ConnectionError, ServerError
from unimeter.types import AlertRecord
from unimeter.wire import v2
from unimeter.wire.failures import exception_of
from unimeter.wire.framer import ResponseFrame
from unimeter.wire.messages import (
    AlertPushEnable,
    ErrorReply,
    PartitionMap,
    ProtocolError,
)
from unimeter.wire.messages import Watch as WatchRequest

T = TypeVar("T")


class SocketStream(Stream[T]):
    """Items from a node. One thread iterates; any thread may close."""

    def __init__(
        self,
        core: Core,
        lock: threading.Condition,
        pool: Pool,
        feed: Feed[T],
        on_close: Callable[[SocketStream[Any]], None],
    ) -> None:
        self._core, self._lock, self._pool = core, lock, pool
        self._on_close = on_close
        self._feed = feed
        self._connection: Connection | None = None
        self._address = ""
        self._avoid = ""  # where the stream was lost
        self._failures = 0
        self._quiet = 0.0  # seconds waited since a frame came
        self._ping = 0  # request id of a question that was not answered yet
        self._closed = threading.Event()

    def start(self, deadline: float) -> None:
        """Return once the server has confirmed; later alerts can't be missed."""
        if not self._connect(deadline):
            raise ConnectionError("no node confirmed the subscription in time")

    def get(self, timeout: float | None = None) -> T | None:
        """The next item; None when `timeout` seconds passed or the stream is closed."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self._closed.is_set():
            try:
                if self._connection is None:
                    if not self._connect(until):
                        return None
                    continue
                record = self._receive(self._connection, until)
            except TimeoutError:
                if time.monotonic() >= until:
                    return None
            except (OSError, ProtocolError, ServerError):
                self._drop()
            else:
                if record is not None:
                    return record
        return None

    def close(self) -> None:
        """End the subscription; safe from another thread."""
        self._closed.set()
        connection = self._connection
        if connection is not None:
            connection.interrupt()
            connection.close()
        self._on_close(self)

    def _receive(self, connection: Connection, until: float) -> T | None:
        """The item in the next frame; None if the frame holds something else."""
        began = time.monotonic()
        patience = PING_SECONDS + PONG_SECONDS * bool(self._ping) - self._quiet
        try:
            frame = connection.receive(min(until, began + patience))
        except TimeoutError:
            self._quiet += time.monotonic() - began
            if self._quiet >= PING_SECONDS:
                self._is_it_there(connection)
            raise
        self._quiet = 0.0
        return self._take(frame)

    def _is_it_there(self, connection: Connection) -> None:
        """Ask a quiet node for its map, or raise OSError if it has not answered the last time."""
        if not self._ping:
            packet_type, payload = v2.encode_request(PartitionMap())
            until = time.monotonic() + PONG_SECONDS
            self._ping = connection.send(packet_type, payload, until)
        elif self._quiet >= PING_SECONDS + PONG_SECONDS:
            raise ConnectionResetError(f"{connection.address} is silent")

    def _take(self, frame: ResponseFrame) -> T | None:
        if not frame.is_push or frame.status not in self._feed.pushes:
            self._take_map(frame)
            return None
        taken = self._feed.take(frame, self._address)
        return None if taken is None else taken[0]

    def _take_map(self, frame: ResponseFrame) -> None:
        """News of who leads; raise OSError if this node does not know and another may."""
        with self._lock:
            if frame.is_push:
                knows_leader = self._core.on_push(frame.status, frame.payload, self._address)
            else:
                self._ping = 0
                reply = Reply(frame.status, frame.payload)
                knows_leader = self._core.on_pong(reply, self._address)
            if not knows_leader and self._core.has_alternative():
                raise ConnectionResetError(f"{self._address} knows no leader")

    def _connect(self, until: float) -> bool:
        """Connect and enable, as often as it takes; False at `until` or when closed."""
        while not self._closed.is_set():
            attempt_until = min(until, time.monotonic() + TIMEOUT_SECONDS)
            if attempt_until <= time.monotonic():
                return False
            try:
                self._enable(attempt_until)
                return True
            except (AttemptError, OSError, ProtocolError):
                self._drop()
                pause = self._core.pause_after(self._failures)
                self._closed.wait(min(pause, max(0.0, until - time.monotonic())))
        return False

    def _enable(self, until: float) -> None:
        """Ask for what follows the last item handed out, on a new connection."""
        with self._lock:
            step = self._core.stream_attempt(time.monotonic(), until, self._avoid)
        self._address = step.address
        self._connection = connection = self._pool.open_connection(step)
        packet_type, payload = v2.encode_request(self._feed.request())
        request_id = connection.send(packet_type, payload, step.until)
        while (frame := connection.receive(step.until, step.silence)).request_id != request_id:
            # The server confirms before it pushes; anything else here is about routes.
            if frame.is_push and frame.status in self._feed.pushes:
                raise ProtocolError("an item came before the stream was confirmed")
        response = decode(packet_type, Reply(frame.status, frame.payload))[1]
        if isinstance(response, ErrorReply):
            if response.code in RETRYABLE_CODES:
                raise AttemptError(response.text, False)
            self.close()
            raise exception_of(response)
        if self._feed.confirmed(response) is None:
            raise ServerError(f"unexpected reply to a subscription: {response!r}")
        with self._lock:
            self._core.router.answered(self._address)
        self._failures, self._avoid = 0, ""

    def _drop(self) -> None:
        """The connection is of no use any more."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with self._lock:
            self._core.router.failed(self._address, time.monotonic())
        self._avoid = self._address
        self._quiet, self._ping = 0.0, 0
        self._failures += 1


class SocketAlertStream(SocketStream[AlertRecord], AlertStream):
    """Alerts from a node."""

    def __init__(
        self,
        core: Core,
        lock: threading.Condition,
        pool: Pool,
        request: AlertPushEnable,
        on_close: Callable[[SocketStream[Any]], None],
    ) -> None:
        super().__init__(core, lock, pool, AlertFeed(request), on_close)

    @property
    def position(self) -> int:
        """Position of the last alert handed out."""
        return int(self._feed.place)

    def offsets(self) -> dict[str, int]:
        """`position` in the form that `subscribe(since_offset=...)` takes."""
        return {self._address: self.position}


class SocketWatch(SocketStream[Change], Watch):
    """Alerts and changed totals from a node."""

    def __init__(
        self,
        core: Core,
        lock: threading.Condition,
        pool: Pool,
        request: WatchRequest,
        on_close: Callable[[SocketStream[Any]], None],
    ) -> None:
        super().__init__(core, lock, pool, WatchFeed(request), on_close)

    @property
    def position(self) -> str:
        """Where the stream stands."""
        return str(self._feed.place)
