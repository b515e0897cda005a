"""Requests that another node has to answer: sent on to the node that leads, and back.

Owns what a node that does not lead remembers of each such request until its client has an
answer, and on the node that leads a stand-in for the client's connection:

    client ─frame─> Connection ──> Forwarder ══peer link══> Stand-in ──> the kernel, handlers
       <──────────────────────────    <══════ replies ═══════╯

The frame goes as it came; only its request id is replaced by one that is unique on the link.
While nobody leads, requests are held and sent as soon as somebody does, so that a failover is a
pause for the client and not an error: for less than a second where the client asks again by
itself (a silent node is one to leave), for several where it does not (version 1).

When the link or the leader is lost, a request may have been carried out without our knowing.
It is sent again to the next leader where a second one can't count twice:

    v2 batch with a session        the session remembers the first
    v1 batch, every event timed    the content keys tell
    a metric or key put, a read    the second changes nothing
    anything else                  the client is told that the outcome is unknown

A leader that says "not I" has done nothing: the request is held again.

Rejected: redirecting clients. The published client follows a redirect once, and not for
every request; and a client that can reach one node may not reach the other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unimeter.server.waiting import OUTCOME_UNKNOWN
from unimeter.wire.framer import (
    REQUEST_HEADER_BYTES,
    RESPONSE_HEADER_BYTES,
    VERSION_1,
    VERSION_2,
    request_with_id,
    response_with_id,
)
from unimeter.wire.messages import ErrorCode, ErrorReply, PacketType, Status
from unimeter.wire.v1_requests import has_all_timestamps
from unimeter.wire.v2_ingest import session_of
from unimeter.wire.v2_on_behalf import packet_type_on_behalf

if TYPE_CHECKING:
    from unimeter.server.connection import Connection

HOLD_SECONDS = 0.8  # the SDK takes a node for silent after a second, and asks another
HOLD_V1_SECONDS = 4.0  # several elections; the published client does not ask again
ANSWER_SECONDS = 5.0  # without a word of the leader; its link back may have lost the reply
HELD_BYTES_MAX = 64 * 1024 * 1024  # of all requests held or sent on; then clients are told to wait
_ERROR_CODE = struct.Struct("<H")
_HEAD = struct.Struct("<BBxxII")
_ONCE = (  # the second finds another world
    PacketType.METRIC_DELETE,
    PacketType.TRANSFER_LEADER,
    PacketType.WEBHOOK_DELETE,
)
_INGEST = (PacketType.INGEST_ASYNC, PacketType.INGEST_SYNC)
NO_LEADER = "no node leads just now; nothing of this was done, send it again"


class Forwarded:
    """One request on its way."""

    __slots__ = (
        "connection",
        "deadline",
        "frame",
        "is_in_doubt",
        "kind",
        "request_id",
        "sent_at",
        "sent_to",
        "version",
    )

    def __init__(
        self, connection: Connection, version: int, kind: int, request_id: int, frame: bytes
    ) -> None:
        self.connection, self.version, self.kind = connection, version, kind
        self.request_id, self.frame = request_id, frame
        self.deadline = self.sent_at = 0.0
        self.sent_to = 0  # the node it was sent to; 0 = it is held
        self.is_in_doubt = False  # a leader that is lost may have carried it out

    @property
    def hold_seconds(self) -> float:
        """How long it may wait for somebody to lead."""
        return HOLD_V1_SECONDS if self.version == VERSION_1 else HOLD_SECONDS

    @property
    def has_session(self) -> bool:
        """Whether it is a session that tells a second one from the first."""
        return self.version == VERSION_2 and self.kind in _INGEST

    @property
    def may_repeat(self) -> bool:
        """Whether carrying it out twice is the same as once."""
        payload = memoryview(self.frame)[REQUEST_HEADER_BYTES:]
        if self.kind == PacketType.ON_BEHALF:
            return packet_type_on_behalf(payload) not in _ONCE
        if self.kind not in _INGEST:
            return self.kind not in _ONCE
        if self.version == VERSION_2:
            return session_of(payload) is not None
        return has_all_timestamps(payload)


class Forwarder:
    """The requests of this node's clients that another node answers."""

    def __init__(
        self,
        send: Callable[[int, bytes], bool],
        clock: Callable[[], float],
        own_id: int,
        loop_back: Callable[[bytes], None],
    ) -> None:
        """`send` brings a frame to a node's stand-in; False when there is no link.

        `loop_back` gives one to a stand-in of this node, whose id is `own_id`.
        """
        self._send, self._clock = send, clock
        self.own_id, self.loop_back = own_id, loop_back
        self._requests: dict[int, Forwarded] = {}
        self._last_id = 0
        self._lead = 0  # another node that leads; 0 = none is known
        self.held_bytes = 0
        self.sent = self.repeated = self.given_up = 0

    def __len__(self) -> int:
        return len(self._requests)

    def take(
        self, connection: Connection, version: int, kind: int, request_id: int, frame: bytes
    ) -> bool:
        """Bring a client's request to the leader; False when too much is on its way already."""
        if self.held_bytes + len(frame) > HELD_BYTES_MAX:
            return False
        request = Forwarded(connection, version, kind, request_id, frame)
        request.deadline = self._clock() + request.hold_seconds
        self._last_id = self._last_id % 0xFFFF_FFFF + 1
        self._requests[self._last_id] = request
        self.held_bytes += len(frame)
        self._try(self._last_id, request)
        return True

    def _try(self, link_id: int, request: Forwarded) -> None:
        if self._lead and self._send(self._lead, request_with_id(request.frame, link_id)):
            request.sent_to, request.sent_at = self._lead, self._clock()
            self.sent += 1

    def lead_changed(self, lead: int) -> None:
        """Another node leads, or (0) none that is known, or this one (0 as well)."""
        if lead == self._lead:
            return
        former, self._lead = self._lead, lead
        for link_id, request in list(self._requests.items()):
            # The former leader may be alive and answer; what may be sent twice need not wait.
            if former and request.sent_to == former and request.may_repeat:
                self._lost(link_id, request)
        self._try_held()

    def _try_held(self) -> None:
        if not self._lead:
            return
        for link_id, request in list(self._requests.items()):
            if not request.sent_to:
                self._try(link_id, request)

    def link_up(self, node_id: int) -> None:
        """There is a link to this node again."""
        if node_id == self._lead:
            self._try_held()

    def link_lost(self, node_id: int) -> None:
        """What was sent there may or may not have been carried out."""
        for link_id, request in list(self._requests.items()):
            if request.sent_to == node_id:
                self._lost(link_id, request)

    def _lost(self, link_id: int, request: Forwarded) -> None:
        if request.may_repeat:
            request.sent_to, request.is_in_doubt = 0, True
            request.deadline = self._clock() + request.hold_seconds
            self.repeated += 1
            self._try(link_id, request)
        else:
            self._give_up(link_id, request)

    def _give_up(self, link_id: int, request: Forwarded) -> None:
        """Tell the client that nobody knows what became of its request."""
        self._forget(link_id)
        self.given_up += 1
        reply = ErrorReply(ErrorCode.OUTCOME_UNKNOWN, OUTCOME_UNKNOWN)
        request.connection.refuse(request.version, request.request_id, reply)

    def replies(self, payload: bytes | memoryview) -> None:
        """Hand the stand-in's response frames to their clients."""
        view = memoryview(payload)
        at = 0
        while at + RESPONSE_HEADER_BYTES <= len(view):
            status, _, link_id, length = _HEAD.unpack_from(view, at)
            end = at + RESPONSE_HEADER_BYTES + length
            self._reply(link_id, status, view[at:end])
            at = end

    def _reply(self, link_id: int, status: int, frame: memoryview) -> None:
        request = self._requests.get(link_id)
        if request is None:
            return  # given up, or answered by an earlier leader after all
        if status == Status.NOT_LEADER:
            request.sent_to = 0  # held: it is sent again with the next news of a leader
            return
        if request.is_in_doubt and _is_forgotten(request.version, status, frame):
            self._give_up(link_id, request)
            return
        self._forget(link_id)
        request.connection.write(response_with_id(frame, request.request_id))

    def _forget(self, link_id: int) -> Forwarded:
        request = self._requests.pop(link_id)
        self.held_bytes -= len(request.frame)
        return request

    def tick(self) -> None:
        """Send again what is held or lost; refuse what was held too long."""
        now = self._clock()
        for link_id, request in list(self._requests.items()):
            if request.connection.is_gone:
                self._forget(link_id)
            elif request.sent_to:
                if now - request.sent_at > ANSWER_SECONDS:
                    self._lost(link_id, request)
            elif now < request.deadline:
                self._try(link_id, request)
            elif request.is_in_doubt:
                self._give_up(link_id, request)
            else:
                self._forget(link_id)
                reply = ErrorReply(ErrorCode.NOT_LEADER, NO_LEADER, 100)
                request.connection.refuse(request.version, request.request_id, reply)

    def let_in(self, take: Callable[[Forwarded], None]) -> None:
        """This node leads now: carry out here what is held.

        What a former leader may have counted goes to a stand-in of this very node: if its
        session is forgotten by now, the refusal must not reach the client as it is, for it
        would say that nothing was counted.
        """
        for link_id, request in list(self._requests.items()):
            if request.sent_to:
                continue
            if request.is_in_doubt and request.has_session:
                request.sent_to, request.sent_at = self.own_id, self._clock()
                self.loop_back(request_with_id(request.frame, link_id))
            else:
                self._forget(link_id)
                take(request)

    def statistics(self) -> dict[str, int]:
        """Requests on their way, sent, sent again after a lost link, given up."""
        return {
            "forwards_waiting": len(self._requests),
            "forwards_sent": self.sent,
            "forwards_repeated": self.repeated,
            "forwards_given_up": self.given_up,
        }


def _is_forgotten(version: int, status: int, frame: memoryview) -> bool:
    """Whether the leader no longer knows the session, and so not whether it was counted."""
    if version != VERSION_2 or status != Status.ERROR:
        return False
    (code,) = _ERROR_CODE.unpack_from(frame, RESPONSE_HEADER_BYTES + 8)  # behind the position
    return code in (ErrorCode.SESSION_EXPIRED, ErrorCode.SEQUENCE_TOO_OLD)


class StandInTransport:
    """What the leader's stand-in connection writes to: the link back to the client's node."""

    def __init__(self, reply: Callable[[bytes], object]) -> None:
        self._reply = reply
        self._is_closed = False

    def write(self, data: bytes) -> None:
        """Send response frames back."""
        if not self._is_closed:
            self._reply(bytes(data))

    def is_closing(self) -> bool:
        """Whether the link is gone."""
        return self._is_closed

    def close(self) -> None:
        """Write nothing more."""
        self._is_closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        """The link has bounds of its own."""
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """A stand-in has no address."""
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The link has bounds of its own."""

    def pause_reading(self) -> None:
        """Whole frames only come in; there is nothing to pause."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""
