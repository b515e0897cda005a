"""The node as the HTTP side sees it: requests of version 2, without a socket.

Owns one connection to this very node whose socket is missing: frames go straight to
`Connection.take_frames`, and what it would write is taken apart here and given to whoever
waits for it. So a request by HTTP is decoded by the same kernel, sent on to the leader by the
same forwarder, waits for the same quorum and is refused with the same words as one on the
binary port; there is no second way into the node.

    handler ─ Request ─> frame ─> Connection ─┬─ this node answers
       ▲                                      └─ or the leader, by way of the forwarder
       └── Response <─ frame <─ write <───────┘

A body may take hours to come. So who asks is looked at again with every request and every batch:
an upload ends with the key that it was begun with.

In a cluster each batch has a session and a sequence, so that the forwarder may send it again
when a leader is lost. A session carries one batch at a time, and idle ones are used again.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Final

from unimeter.control import Actor
from unimeter.errors import BackpressureError
from unimeter.keys import Principal, Scope
from unimeter.server import rights
from unimeter.server.clients import Clients
from unimeter.server.connection import Connection
from unimeter.server.forward import StandInTransport
from unimeter.server.web.problems import position_ahead
from unimeter.wire import v2
from unimeter.wire.failures import exception_of
from unimeter.wire.framer import RESPONSE_HEADER_BYTES, VERSION_2, request_frame
from unimeter.wire.messages import (
    ErrorCode,
    ErrorReply,
    IngestReply,
    PacketType,
    Request,
    Response,
    Status,
)

ANSWER_SECONDS = 30.0  # longer than any wait inside the node; then nobody will answer any more
SESSIONS_IDLE_MAX = 64
ITSELF: Final = Principal("", "node", frozenset(Scope))
"""A question of this node's own, which no key stands behind."""
WAY: ContextVar[str] = ContextVar("way", default="http")
"""By which kind of route the request that is being answered came in (`statistics.WAYS`)."""
ADDRESS: ContextVar[str] = ContextVar("address", default="")
"""Where the request that is being answered comes from, for the trail."""


class Gateway:
    """Asks this node, or by way of it the leader. For one event loop."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self._waiting: dict[int, tuple[int, asyncio.Future[tuple[Response, int]]]] = {}
        self._last_id = 0
        self._sessions: list[tuple[int, int, int]] = []  # idle: (high, low, next sequence)
        self._connection = Connection(clients, is_gateway=True)
        self._transport = _Transport(self)
        self._connection.stand_in_for(self._transport)

    async def ask(self, request: Request, principal: Principal) -> tuple[Response, int]:
        """(response, position). Raises the exception that stands for a refusal.

        What `principal` may not ask is refused here as on the binary port, whatever the
        route has looked at; a change carries its name to the trail. A read of a position that
        nobody has yet is refused at once where this node would know of it.
        """
        self._check(principal)
        kind, payload = v2.encode_request(request)
        rights.may(principal, kind)
        rights.check(principal, request)
        if kind in v2.WITH_ACTOR:
            actor = Actor(principal.key_id, principal.name, "http", ADDRESS.get())
            payload = v2.encode_on_behalf(actor, kind, payload)
            return await self._send(PacketType.ON_BEHALF, payload, reply_kind=kind)
        wanted = getattr(request, "min_position", 0)
        node = self.clients.node
        if wanted > node.replica.raft.last_index and (node.is_alone or node.leads):
            raise position_ahead(wanted, node.machine.applied)  # nobody has it
        try:
            response, position = await self._send(kind, payload)
        except BackpressureError:
            if wanted > node.machine.applied:
                raise position_ahead(wanted, node.machine.applied) from None
            raise
        return rights.shown(principal, response), position

    async def ingest(self, columns: v2.Columns, principal: Principal) -> tuple[IngestReply, int]:
        """Have a batch counted, durably; returns what became of each event, and the position.

        The caller has checked that `principal` may. Raises UnauthenticatedError or
        BackpressureError with nothing stored, or ConnectionError when a leader was lost and the
        outcome is not known.
        """
        self._check(principal)
        if self.clients.directory is None:
            payload = v2.encode_columns(columns)
            return await self._ingest(payload)
        high, low, sequence = self._take_session()
        payload = v2.encode_columns(columns, high, low, sequence)
        answer = await self._ingest(payload)
        if len(self._sessions) < SESSIONS_IDLE_MAX:
            self._sessions.append((high, low, sequence + 1))
        return answer

    def _check(self, principal: Principal) -> None:
        """Whoever was let in when the request came may have lost its key since."""
        if self.clients.auth is not None and principal is not ITSELF:
            self.clients.auth.check_good(principal)

    async def _ingest(self, payload: bytes) -> tuple[IngestReply, int]:
        reply, position = await self._send(PacketType.INGEST_SYNC, payload)
        assert isinstance(reply, IngestReply)
        return reply, position

    def _take_session(self) -> tuple[int, int, int]:
        if self._sessions:
            return self._sessions.pop()
        entropy = self.clients.platform.entropy(16)
        return int.from_bytes(entropy[:8], "big"), int.from_bytes(entropy[8:], "big"), 1

    async def _send(
        self, kind: int, payload: bytes, *, reply_kind: int | None = None
    ) -> tuple[Response, int]:
        """Send one frame; `reply_kind` is how its reply is to be read, if not as its own."""
        while True:
            self._last_id = self._last_id % 0xFFFF_FFFF + 1
            if self._last_id not in self._waiting:
                break
        request_id = self._last_id
        future: asyncio.Future[tuple[Response, int]] = self.clients.loop.create_future()
        self._waiting[request_id] = (kind if reply_kind is None else reply_kind, future)
        node, slot = self.clients.node, self._connection.slot
        self._connection.intake = node.statistics.intakes[WAY.get()]
        tracing = node.tracing if kind == PacketType.INGEST_SYNC else None
        try:
            with nullcontext() if tracing is None else tracing.batch(slot, request_id):
                self._connection.take_frames(request_frame(VERSION_2, kind, request_id, payload))
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await future
        except TimeoutError:
            text = "no answer came in time; whether it was carried out is not known"
            raise exception_of(ErrorReply(ErrorCode.OUTCOME_UNKNOWN, text)) from None
        finally:
            self._waiting.pop(request_id, None)

    def taken(self, data: bytes) -> None:
        """Take what the connection wrote: one or more whole response frames."""
        at = 0
        while at < len(data):
            status, request_id = data[at], int.from_bytes(data[at + 4 : at + 8], "little")
            end = at + RESPONSE_HEADER_BYTES + int.from_bytes(data[at + 8 : at + 12], "little")
            self._answer(status, request_id, data[at + RESPONSE_HEADER_BYTES : end])
            at = end

    def _answer(self, status: int, request_id: int, payload: bytes) -> None:
        kind, future = self._waiting.pop(request_id, (0, None))
        if future is None or future.done():
            return  # whoever asked has gone
        if status == Status.NOT_LEADER and not payload:
            text = "another node leads, or none does yet; nothing was done, send it again"
            future.set_exception(exception_of(ErrorReply(ErrorCode.NOT_LEADER, text, 100)))
            return
        position, response = v2.decode_response(kind, status, payload)
        if isinstance(response, ErrorReply):
            future.set_exception(exception_of(response))
        else:
            future.set_result((response, position))

    def closed(self) -> None:
        """The node ends: nobody gets an answer any more."""
        self._connection.connection_lost(None)
        waiting, self._waiting = self._waiting, {}
        reply = ErrorReply(ErrorCode.OUTCOME_UNKNOWN, "the node is stopping")
        for _, future in waiting.values():
            if not future.done():
                future.set_exception(exception_of(reply))

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def statistics(self) -> dict[str, int]:
        """Requests that wait for an answer, and idle sessions."""
        return {"gateway_waiting": len(self._waiting), "gateway_sessions": len(self._sessions)}


class _Transport(StandInTransport):
    """What the connection takes for its socket; whoever waits is told when it closes."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.taken)
        self._gateway = gateway

    def close(self) -> None:
        """Write nothing more, and answer nobody any more."""
        if not self.is_closing():
            super().close()
            self._gateway.closed()

    abort = close
