"""The blocking client's sockets: idle ones to use again, new ones greeted.

Owns which connection a thread uses. A connection is lent to one caller at a
time and comes back only after a whole reply was read from it; after anything
else it is closed, because a late reply would be taken for the next one's.

    take(address) ─> idle, last in first out ─> give_back
                 └─> connect, greet ───────────┘

The core is shared with the client and guarded by the client's lock.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, cast

from unimeter.client.core import Core, Send, greeting
from unimeter.client.retry import RELEASE
from unimeter.client.transport import AttemptError, Connection, PushHandler
from unimeter.wire.framer import ResponseFrame

if TYPE_CHECKING:
    from ssl import SSLContext

IDLE_CONNECTIONS_MAX = 16  # per address; more threads than that open and close their own
IDLE_SECONDS_UNCHECKED = 0.2  # an idle connection older than this is looked at before use


class Pool:
    """Connections by address."""

    def __init__(self, core: Core, lock: threading.Condition) -> None:
        self._core, self._lock = core, lock
        self._idle: dict[str, list[Connection]] = {}
        self._closed = False

    def take(self, step: Send) -> tuple[Connection, bool]:
        """A connection for one caller and whether it is new, or AttemptError."""
        while True:
            try:
                connection = self._idle[step.address].pop()
            except (KeyError, IndexError):
                return self.open_connection(step), True
            idle_seconds = time.monotonic() - connection.used
            if idle_seconds < IDLE_SECONDS_UNCHECKED or connection.is_alive():
                return connection, False
            connection.close()

    def give_back(self, connection: Connection) -> None:
        """The connection is ready for another caller."""
        with self._lock:
            idle = self._idle.setdefault(connection.address, [])
            if not self._closed and len(idle) < IDLE_CONNECTIONS_MAX:
                idle.append(connection)
                return
        connection.close()

    def open_connection(self, step: Send) -> Connection:
        """Connect and greet, or raise AttemptError."""
        address = step.address
        handler, tls = self._push_handler(address), cast("SSLContext | None", self._core.tls)
        connection = Connection(address, step.until, handler, step.connect, tls)
        try:
            for request in greeting(RELEASE, self._core.token):
                packet_type, reply = connection.ask(request, step.until, step.silence)
                with self._lock:
                    self._core.on_greeting(packet_type, reply, address)
        except BaseException as error:
            connection.close()
            if isinstance(error, AttemptError) or getattr(error, "retryable", False):
                raise AttemptError(str(error), False) from error  # no request was sent yet
            raise
        return connection

    def _push_handler(self, address: str) -> PushHandler:
        def take(frame: ResponseFrame) -> None:
            with self._lock:
                self._core.on_push(frame.status, frame.payload, address)

        return take

    def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        with self._lock:
            self._closed = True
            connections = [connection for idle in self._idle.values() for connection in idle]
            self._idle = {}
        for connection in connections:
            connection.close()

    @property
    def idle_count(self) -> int:
        """Connections that nobody uses."""
        return sum(len(connections) for connections in self._idle.values())
