"""An entry between its append and its answer, and how it is refused instead.

Owns what the node remembers of an entry while it becomes durable: its bytes, and
who waits for it: the routes of the requests in an EVENTS entry (slot, request id and
protocol version of each, as the decode kernel noted them), or one callback for a
change of the catalog.

    open entry ──seal──> Waiting ──sync──> applied ──> replies     (the usual way)
                                 └─ no space on the disk ──> `refuse`: come again
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from unimeter.engine.applied import Applied
from unimeter.errors import BackpressureError
from unimeter.wire import v1, v2
from unimeter.wire.failures import status_of
from unimeter.wire.framer import VERSION_1, response_frame
from unimeter.wire.messages import ErrorReply, PacketType

Counted = tuple[Applied, list[tuple[int, bytes]]]
"""What became of an entry, and its replies."""

Done = Callable[[Applied | BackpressureError, int], None]
"""Called with what became of a proposed entry, and its index, once applied or dropped."""


class Waiting:
    """An entry that was appended and is not applied yet."""

    __slots__ = ("body", "done", "events", "index", "kind", "routes", "timestamp_ns")

    def __init__(
        self,
        kind: int,
        timestamp_ns: int,
        body: bytes,
        events: int,
        routes: Any,
        done: Done | None,
    ) -> None:
        self.index = 0
        self.kind, self.timestamp_ns, self.body, self.events = kind, timestamp_ns, body, events
        self.routes, self.done = routes, done


def refuse(routes: bytes, position: int, reply: ErrorReply) -> list[tuple[int, bytes]]:
    """The same refusal for every request that `routes` names, as (slot, frame)."""
    frames = []
    for _, place, request_id in struct.iter_unpack("<QQQ", routes):
        version, slot = place >> 32, place & 0xFFFFFFFF
        wire = v1 if version == VERSION_1 else v2
        payload = wire.encode_response(PacketType.INGEST_SYNC, reply, position)
        frames.append((slot, response_frame(version, status_of(reply), request_id, payload)))
    return frames
