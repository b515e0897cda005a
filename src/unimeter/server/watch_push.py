"""A stream on the binary protocol: the sink of one connection's watcher.

Owns the frames: alerts go as ALERT_PUSH, totals and what else a stream says as TOTAL_PUSH.
What is sent, and when, is `watcher` and `pumps`. A connection whose client does not read takes
nothing (`is_slow`), so at most one batch waits in its socket's buffer.

A connection has one stream; another WATCH takes the place of the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unimeter.errors import InvalidInputError
from unimeter.limits import STREAM_NAMES_MAX, STREAM_PAIRS_MAX
from unimeter.server.live import Total, interest_of
from unimeter.server.watcher import Batch, Place, Watcher
from unimeter.wire import v2
from unimeter.wire.framer import VERSION_2, push_frame
from unimeter.wire.messages import (
    AlertPush,
    PacketType,
    TotalPush,
    TotalPushKind,
    Watch,
    WatchReply,
)
from unimeter.wire.v2_watch import total_bytes, total_push_payload

if TYPE_CHECKING:
    from unimeter.server.connection import Connection

INTERVAL_MS_MAX = 60_000


class WatchPush:
    """The stream of one connection."""

    def __init__(self, connection: Connection, request: Watch) -> None:
        """Open it; raises for one that asks for too much."""
        check_watch(request)
        self._connection = connection
        self._pumps = connection.clients.pumps
        self._watcher: Watcher = self._pumps.open(
            self,
            interest_of(request.accounts, request.metrics, totals=request.totals),
            wants_alerts=request.alerts,
            place=place_of(request),
            after=request.after,
            interval=request.interval_ms / 1000,
        )

    def reply(self) -> WatchReply:
        """What the request is answered with, before anything is pushed."""
        return WatchReply(*self._watcher.place)

    def ready(self) -> None:
        """The connection's client reads again."""
        self._pumps.ready(self._watcher)

    def close(self) -> None:
        """The connection is gone, or has another stream."""
        self._pumps.close(self._watcher)

    # --- the watcher's sink ------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the client reads."""
        connection = self._connection
        return not (connection.is_slow or connection.transport.is_closing())

    def send(self, batch: Batch) -> None:
        """Write a batch in one piece."""
        node = self._connection.node
        position = node.machine.applied
        frames = []
        for alert in batch.alerts:
            kind, payload = v2.encode_push(AlertPush(alert, node.node_id), position)
            frames.append(push_frame(VERSION_2, kind, payload))
        for total, place in batch.placed():
            payload = total_push_payload(total.position, *place, _bytes_of(total))
            frames.append(push_frame(VERSION_2, PacketType.TOTAL_PUSH, payload))
        if batch.overflow:
            frames.append(_told(TotalPushKind.OVERFLOW, batch.place, position))
        self._connection.write(b"".join(frames))

    def beat(self, place: Place) -> None:
        """Say where the stream stands."""
        position = self._connection.node.machine.applied
        self._connection.write(_told(TotalPushKind.PLACE, place, position))

    def check(self) -> bool:
        """Who may no longer read is hung up on by the connection itself."""
        return not self._connection.transport.is_closing()

    def end(self) -> None:
        """The node stops: its connections are closed."""


def check_watch(request: Watch) -> None:
    """Raise InvalidInputError for a stream that asks for too much."""
    for names, what in ((request.accounts, "accounts"), (request.metrics, "metrics")):
        if len(names) > STREAM_NAMES_MAX:
            raise InvalidInputError(f"a stream names at most {STREAM_NAMES_MAX} {what}")
    if len(request.accounts) * max(1, len(request.metrics)) > STREAM_PAIRS_MAX:
        text = f"a stream names at most {STREAM_PAIRS_MAX} pairs of an account and a metric"
        raise InvalidInputError(text)
    if not 0 <= request.interval_ms <= INTERVAL_MS_MAX:
        raise InvalidInputError(f"the interval of a stream is 0 to {INTERVAL_MS_MAX} ms")
    if not (request.alerts or request.totals):
        raise InvalidInputError("a stream of neither alerts nor totals has nothing to say")


def place_of(request: Watch) -> Place | None:
    """Where a stream goes on; None for one that begins."""
    if request.after is None or request.entry is None:
        return None
    return Place(request.after, request.entry)


def _bytes_of(total: Total) -> bytes:
    """The total as it is written, made once for all who get it."""
    found = total.forms.get("v2")
    if found is None:
        found = total.forms["v2"] = total_bytes(
            TotalPush(
                TotalPushKind.TOTAL,
                0,
                0,
                total.account,
                total.metric_code,
                total.agg,
                total.start_ns,
                total.end_ns,
                total.value,
            )
        )
    return found


def _told(kind: TotalPushKind, place: Place, position: int) -> bytes:
    number, payload = v2.encode_push(TotalPush(kind, *place), position)
    return push_frame(VERSION_2, number, payload)
