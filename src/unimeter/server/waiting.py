"""An entry between its proposal and its answer, and how it is refused instead.

Owns what the node remembers of an entry that it proposed until it is applied: its bytes,
and who waits for it: the routes of the requests in an EVENTS entry (slot, request id and
protocol version of each, as the decode kernel noted them), or one callback for a
change of the catalog.

    open entry ──seal──> Waiting ──quorum──> applied ──> replies     (the usual way)
                                 ├─ no space on the disk ──────────> `refuse`: come again
                                 └─ another leader's entry in its place ─> the same
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from unimeter.engine.applied import Applied
from unimeter.errors import BackpressureError
from unimeter.raft.messages import Entry
from unimeter.wire import v1, v2
from unimeter.wire.failures import status_of
from unimeter.wire.framer import VERSION_1, response_frame
from unimeter.wire.messages import ErrorReply, PacketType

NOT_LEADING = "another node leads, or none does yet; nothing of this was stored, send it again"

OUTCOME_UNKNOWN = (
    "the leader was lost while this was on its way; it may or may not be stored. Under the same "
    "session and sequence, or with ids, it can be sent again safely"
)

Counted = tuple[Applied, list[tuple[int, bytes]]]
"""What became of an entry, and its replies."""

Done = Callable[[Applied | BackpressureError, int], None]
"""Called with what became of a proposed entry, and its index, once applied or dropped."""


class Waiting:
    """An entry that was proposed here and is not applied yet."""

    __slots__ = (
        "body",
        "done",
        "events",
        "index",
        "kind",
        "proposed",
        "routes",
        "term",
        "timestamp_ns",
    )

    def __init__(
        self,
        kind: int,
        timestamp_ns: int,
        body: bytes,
        events: int,
        routes: bytes,
        done: Done | None,
    ) -> None:
        self.index = self.term = 0
        self.proposed = 0.0  # when, by the monotonic clock
        self.kind, self.timestamp_ns, self.body, self.events = kind, timestamp_ns, body, events
        self.routes, self.done = routes, done


class Committed(NamedTuple):
    """An entry to apply, who waits for it, and what to call when it and all before it are."""

    entry: Entry
    waiting: Waiting | None
    done: Callable[[], None] | None


def refuse(routes: bytes, position: int, reply: ErrorReply) -> list[tuple[int, bytes]]:
    """The same refusal for every request that `routes` names, as (slot, frame)."""
    frames = []
    for _, place, request_id in struct.iter_unpack("<QQQ", routes):
        version, slot = place >> 32, place & 0xFFFFFFFF
        wire = v1 if version == VERSION_1 else v2
        payload = wire.encode_response(PacketType.INGEST_SYNC, reply, position)
        frames.append(
            (slot, response_frame(version, status_of(reply, version), request_id, payload))
        )
    return frames
