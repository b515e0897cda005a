"""One client's connection: bytes in, frames to the kernel, replies out.

Owns the order of work for what a socket gave: ingest frames go to the decode
kernel in one call for all of them; any other frame is answered here and now,
from memory. Refuses to know what a request means (`handlers`) or when an event
is durable (`node`).

    buffer_updated ─> builder.feed ─┬─ rest is incomplete ─> held for the next read
                                    ├─ entry is full ──────> node.full(), feed again
                                    ├─ other request ──────> handlers, reply at once
                                    ├─ contradicts itself ─> error reply, go on
                                    ├─ over a limit ───────> error reply, drain, go on
                                    └─ not our protocol ───> close

While the node refuses events or another one leads, frames are walked here instead: each
is told to wait, or sent on whole to the leader. So are those of a client that may not send just
any events: each is held against what it may (`gate`) before the kernel sees it. A read that
has to wait for a position or for the quorum stands in line at `node.reads` and is answered
from there.

On the leader a stand-in (`is_stand_in`) takes what another node sends on. It
answers like any connection but never sends on again: what this node does not lead it
refuses, and the other node tries the next leader.

A client that does not read its replies stops being read once 1 MiB waits for
it, and is cut off when it takes nothing for CONNECTION_STALL_SECONDS or
CONNECTION_OUT_BYTES_MAX wait. Nobody else notices.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from unimeter import limits
from unimeter.engine.decode import (
    FEED_BAD_MAGIC,
    FEED_FULL,
    FEED_MALFORMED,
    FEED_MORE,
    FEED_OTHER,
    FEED_TOO_LARGE,
)
from unimeter.errors import (
    InvalidInputError,
    RangeUnavailableError,
    UnauthenticatedError,
    UnimeterError,
)
from unimeter.server import handlers, rights, tls
from unimeter.server.buffers import Held
from unimeter.server.gate import Gate
from unimeter.server.subscriptions import Subscription
from unimeter.server.watch_push import WatchPush
from unimeter.wire import v1, v2
from unimeter.wire.failures import error_of, status_of
from unimeter.wire.framer import (
    REQUEST_HEADER_BYTES,
    VERSION_1,
    VERSION_2,
    RequestHeader,
    parse_request_header,
    request_frame,
    response_frame,
)
from unimeter.wire.messages import (
    AlertPushEnable,
    AlertPushReply,
    AlertsList,
    AlertsListReply,
    ClusterStatus,
    ErrorCode,
    ErrorReply,
    EventsList,
    EventsListReply,
    Hello,
    PacketType,
    ProtocolError,
    Read,
    Request,
    Response,
    Status,
    TransferLeader,
    Watch,
    WithActor,
)

if TYPE_CHECKING:
    from unimeter.server.clients import Clients

RETRY_AFTER_MS = 250  # disk space is looked at five times a second
V1_LIST_ITEMS_MAX = limits.PAGE_ITEMS_MAX * 10
"""v1 has no pages: a list longer than this is refused, since a cut one would look whole."""
_FOR_LEADER = (*sorted(v2.WITH_ACTOR), PacketType.ON_BEHALF)
OUT_BYTES_HIGH = 1024 * 1024  # waiting replies from which a client is not read any more


def decode(version: int, kind: int, payload: bytes) -> Request:
    """The request in `payload`; ProtocolError for one that this node can't read."""
    if version == VERSION_1:
        request = v1.decode_request(kind, payload)
        if isinstance(request, EventsList):
            request.limit = V1_LIST_ITEMS_MAX
        return request
    if version == VERSION_2:
        return v2.decode_request(kind, payload)
    raise ProtocolError(
        f"version {version} is not known here; this node speaks 1 and 2", ErrorCode.UNSUPPORTED
    )


class Connection(asyncio.BufferedProtocol):
    """The server's end of one socket."""

    __slots__ = (
        "address",
        "builder",
        "clients",
        "gate",
        "held",
        "intake",
        "is_gateway",
        "is_slow",
        "is_stand_in",
        "lists_no_alerts",
        "map_version",
        "node",
        "skip",
        "slot",
        "stalled_bytes",
        "stalled_since",
        "subscription",
        "transport",
        "watching",
    )

    def __init__(
        self, clients: Clients, *, is_stand_in: bool = False, is_gateway: bool = False
    ) -> None:
        self.clients = clients
        self.is_stand_in = is_stand_in
        self.is_gateway = is_gateway  # this process's own HTTP side, which knows who asks
        self.gate = Gate(None)  # another node and this process are let through
        self.lists_no_alerts = False  # v1: another node lists what was missed
        self.map_version = 0  # in which the client asked for the partition map; 0: it did not
        self.node = clients.node
        self.builder = clients.node.builder
        way = "peer" if is_stand_in else "http" if is_gateway else "binary"
        self.intake = clients.node.statistics.intakes[way]
        self.held: bytes | Held | None = None
        self.skip = 0  # bytes still to drain of a frame that was refused
        self.slot = 0
        self.is_slow = False
        self.stalled_bytes = 0
        self.stalled_since = 0.0
        self.subscription: Subscription | None = None
        self.watching: WatchPush | None = None
        self.transport: asyncio.Transport
        self.address = ""

    # --- asyncio's side ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket and a slot."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self.transport.set_write_buffer_limits(high=OUT_BYTES_HIGH)
        self.slot = self.clients.join(self)
        if not self.slot:
            self.transport.abort()
        elif not self.is_own:
            self.gate = self.clients.gate_of(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back everything this connection held."""
        if self.node.tracing is not None:
            self.node.tracing.left(self.slot)
        self._release()
        self.stop_watching()
        self.clients.leave(self)

    def eof_received(self) -> bool:
        """The client sends no more, but may still wait for replies; True keeps the socket."""
        if self.transport.get_extra_info("sslcontext") is not None:
            return False  # TLS has no half of a connection
        return self.clients.close_when_answered(self)

    def pause_writing(self) -> None:
        """The client is not reading: stop reading it until it does."""
        self.is_slow = True
        self.transport.pause_reading()
        self.clients.slow_down(self)

    def resume_writing(self) -> None:
        """The client caught up."""
        self.is_slow = False
        self.clients.speed_up(self)
        if self.subscription is not None:
            self.subscription.pump()
        if self.watching is not None:
            self.watching.ready()

    def stop_watching(self) -> None:
        """End the stream of this connection, if it has one."""
        if self.watching is not None:
            self.watching.close()
            self.watching = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the socket may write next."""
        held = self.held
        if held is None:
            return self.clients.shared
        if isinstance(held, Held):
            return held.view[held.filled :]
        shared = self.clients.shared
        size = len(held)
        shared[:size] = held
        return shared[size:]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the socket gave."""
        self.intake.bytes += nbytes
        held = self.held
        try:
            if held is None:
                self._consume(self.clients.shared, 0, nbytes)
            elif isinstance(held, Held):
                held.filled += nbytes
                self._consume(held.view, 0, held.filled)
            else:
                self._consume(self.clients.shared, 0, len(held) + nbytes)
        except Exception as error:
            # The open entry may be half written: nothing more may be acknowledged.
            self.node.fail(error)

    @property
    def is_own(self) -> bool:
        """Whether another node or this process sends here: they have looked at who asks."""
        return self.is_stand_in or self.is_gateway

    def look_at_key(self) -> None:
        """Keys have changed: go on only if this client would be let in now."""
        if self.gate.is_good or self.transport.is_closing():
            return
        self._error(VERSION_2, 0, self.gate.turn_away())
        self.transport.close()

    # --- frames that come another way ----------------------------------------------

    def stand_in_for(self, transport: object) -> None:
        """Stand on the leader for another node's clients; replies go to `transport`."""
        self.connection_made(cast(asyncio.BaseTransport, transport))

    def take_frames(self, frames: memoryview | bytes) -> None:
        """Take whole frames that another node sent on."""
        # The kernel takes only memory that could be written to.
        data = memoryview(bytearray(frames) if isinstance(frames, bytes) else frames)
        self.intake.bytes += len(data)
        try:
            self._consume(data, 0, len(data))
        except Exception as error:
            self.node.fail(error)

    def take_again(self, frame: bytes) -> None:
        """Take a frame of this client that was held for a leader, which this node now is."""
        skip, self.skip = self.skip, 0
        held, self.held = self.held, None
        gate, self.gate = self.gate, Gate(None)  # it was let through when it came
        self.take_frames(frame)
        self.intake.bytes -= len(frame)  # it was counted when it came
        assert self.held is None, "a held frame is whole"
        self.skip, self.held, self.gate = skip, held, gate

    # --- frames ------------------------------------------------------------------

    def _consume(self, data: memoryview, start: int, end: int) -> None:
        """Work through ``data[start:end]``, which begins at a frame or in one to drain."""
        if self.skip:
            start = self._drain(start, self.skip, end)
        node, builder, slot = self.node, self.builder, self.slot
        if not node.turn_due or not builder.size:
            node.begin_turn()
        if node.refusal:
            node.upkeep.review()
        while start < end:
            if node.refusal or not node.leads or self.gate.is_guarded:
                start, is_rest = self._walk(data, start, end)
                if is_rest:
                    break
                continue
            before = builder.events
            start = builder.feed(data, start, end, slot)
            self.intake.events += builder.events - before
            stop = builder.stop
            if stop == FEED_MORE:
                break
            if stop == FEED_FULL:
                node.full()
            elif stop == FEED_OTHER:
                size = REQUEST_HEADER_BYTES + builder.stop_length
                if size <= limits.FRAME_BYTES_MAX and end - start < size:
                    break
                start = self._other(data, start, end, self._stopped_at())
            elif stop == FEED_TOO_LARGE:
                start = self._refuse_large(start, end, self._stopped_at())
            elif stop == FEED_MALFORMED:
                self._malformed(builder.stop_version, builder.stop_request)
            else:
                assert stop == FEED_BAD_MAGIC
                self._close_foreign(is_tls=data[start] == tls.HELLO)
                return
        if builder.size and not node.turn_due:
            node.request_turn()
        self._keep(data, start, end)

    def _stopped_at(self) -> RequestHeader:
        """The header that the kernel stopped at."""
        builder = self.builder
        return RequestHeader(
            builder.stop_version, builder.stop_type, 0, builder.stop_length, builder.stop_request
        )

    def _keep(self, data: memoryview, start: int, end: int) -> None:
        """Hold the incomplete frame at ``data[start:end]`` until the next read."""
        held = self.held
        if start == end:
            if held is not None:
                self._release()
            return
        if isinstance(held, Held) and start == 0 and end < len(held.view):
            return  # it already lies where the next read goes on
        self._release()
        rest = data[start:end]
        header = parse_request_header(rest)
        frame_bytes = REQUEST_HEADER_BYTES + (header.length if header else 0)
        self.held = self.clients.buffers.hold(rest, frame_bytes)
        if self.held is None:
            self._refuse_unheld(header, start, end)

    def _release(self) -> None:
        if self.held is not None:
            self.clients.buffers.release(self.held)
            self.held = None

    def _drain(self, start: int, size: int, end: int) -> int:
        """Drop `size` bytes from `start` on; what has not arrived is dropped when it does."""
        dropped = min(size, end - start)
        self.skip = size - dropped
        return start + dropped

    def _walk(self, data: memoryview, start: int, end: int) -> tuple[int, bool]:
        """Handle one frame without feeding it: (where the next is, whether to wait for more)."""
        try:
            header = parse_request_header(data[start:end])
        except ProtocolError:
            self._close_foreign(is_tls=data[start] == tls.HELLO)
            return end, False
        if header is None:
            return start, True
        size = REQUEST_HEADER_BYTES + header.length
        if self.gate.is_checked and not self._is_let_through(header):
            return self._drain(start, size, end), False
        if header.packet_type > PacketType.INGEST_SYNC:
            if size <= limits.FRAME_BYTES_MAX and end - start < size:
                return start, True
            return self._other(data, start, end, header), False
        if self._is_read_whole:
            if size > limits.FRAME_BYTES_MAX:
                return self._refuse_large(start, end, header), False
            if end - start < size:
                return start, True
            self._take_batch(header, data, start, start + size)
            return start + size, False
        if self.node.leads:
            self._ask_to_wait(header, self.node.refusal)
        else:
            self._not_leading(header)
        return self._drain(start, size, end), False

    @property
    def _is_read_whole(self) -> bool:
        """Whether a batch is needed in one piece: to be sent on, or to be looked into."""
        if not self.node.leads:
            return not self.is_stand_in
        return self.gate.is_guarded and not self.node.refusal

    def _take_batch(self, header: RequestHeader, data: memoryview, start: int, end: int) -> None:
        """One batch that is let through by its header."""
        if self.gate.is_guarded and not self._may_ingest(header, data[start:end]):
            return
        if self.node.leads:
            self._feed(header, data, start, end)
        else:
            self._send_on(header, bytes(data[start:end]))

    def _feed(self, header: RequestHeader, data: memoryview, start: int, end: int) -> None:
        """Give the kernel exactly one frame, which can be decoded."""
        before = self.builder.events
        while start < end:
            start = self.builder.feed(data, start, end, self.slot)
            if self.builder.stop == FEED_FULL:
                self.intake.events += self.builder.events - before
                self.node.full()
                before = self.builder.events
            elif self.builder.stop != FEED_MORE:
                self._malformed(header.version, header.request_id)
                break
        self.intake.events += self.builder.events - before

    # --- who may what ---------------------------------------------------------------

    def _is_let_through(self, header: RequestHeader) -> bool:
        """Whether this client may send such a frame; if not, it is told why."""
        refusal = self.gate.refusal(header)
        if refusal is not None:
            self._error(header.version, header.request_id, refusal)
        return refusal is None

    def _may_ingest(self, header: RequestHeader, frame: memoryview) -> bool:
        """Whether every event of a batch is open to this client; if not, it is told why."""
        try:
            payload = bytes(frame[REQUEST_HEADER_BYTES:])
            rights.check(self.gate.principal, decode(header.version, header.packet_type, payload))
        except Exception as error:
            self._failed(header, error)
            return False
        return True

    def _log_in(self, hello: Hello) -> None:
        """Who is it? Who shows a key that is not good is told so, and hung up on."""
        try:
            self.gate.log_in(hello)
        except UnauthenticatedError:
            if hello.token:
                # After the reply is written; closing waits for it.
                self.clients.loop.call_soon(self.transport.close)
            raise
        self.clients.logged_in(self)

    # --- what another node answers -------------------------------------------------

    def _send_on(self, header: RequestHeader, frame: bytes) -> None:
        """Bring a whole request to the node that leads."""
        forwarder = self.clients.forwarder
        if forwarder is None or not forwarder.take(
            self, header.version, header.packet_type, header.request_id, frame
        ):
            self._ask_to_wait(header, "too much is on its way to the node that leads")
            return
        self.node.statistics.requests_forwarded += 1

    def _not_leading(self, header: RequestHeader) -> None:
        """Tell the node that sent this on to try another; in both versions alike."""
        self.write(response_frame(header.version, Status.NOT_LEADER, header.request_id))

    def _is_for_leader(self, kind: int) -> bool:
        if self.node.leads:
            return False
        return kind in _FOR_LEADER and (kind != PacketType.ON_BEHALF or self.is_own)

    @property
    def is_gone(self) -> bool:
        """Whether nobody is there any more to take a reply."""
        return self.transport.is_closing()

    def refuse(self, version: int, request_id: int, reply: ErrorReply) -> None:
        """Answer a request with a refusal."""
        self._error(version, request_id, reply)

    # --- refusals ----------------------------------------------------------------

    def _ask_to_wait(self, header: RequestHeader, reason: str) -> None:
        """Nothing of this frame is taken; the client may send it again soon."""
        self.node.statistics.requests_backpressure += 1
        reply = ErrorReply(ErrorCode.BACKPRESSURE, reason, RETRY_AFTER_MS)
        self._error(header.version, header.request_id, reply)

    def _malformed(self, version: int, request_id: int) -> None:
        text = "the frame contradicts itself: its counts and its length disagree"
        self._error(version, request_id, ErrorReply(ErrorCode.MALFORMED, text))

    def _refuse_large(self, start: int, end: int, header: RequestHeader) -> int:
        """Answer a frame over the limits and drain it, so that the connection stays usable."""
        text = (
            f"a frame may have {limits.FRAME_BYTES_MAX} bytes and "
            f"{limits.EVENTS_PER_BATCH_MAX} events; send smaller batches"
        )
        self._error(header.version, header.request_id, ErrorReply(ErrorCode.TOO_LARGE, text))
        return self._drain(start, REQUEST_HEADER_BYTES + header.length, end)

    def _refuse_unheld(self, header: RequestHeader | None, start: int, end: int) -> None:
        """No memory to hold part of this frame: tell the client to wait, drain it."""
        if header is None:
            self.transport.abort()
            return
        self._ask_to_wait(header, "too many bytes of incomplete frames are held")
        self._drain(start, REQUEST_HEADER_BYTES + header.length, end)

    def _close_foreign(self, *, is_tls: bool) -> None:
        """The peer does not speak this protocol; nothing it sends can be told apart."""
        self.node.statistics.closed_bad_magic += 1
        if is_tls:
            self.clients.on_tls_hello(self.gate.address)
        self._release()
        self.transport.close()

    def _error(self, version: int, request_id: int, reply: ErrorReply) -> None:
        self.node.statistics.requests_refused += 1
        self.send(version, request_id, -1, reply, self.node.machine.applied)

    # --- requests other than ingest -----------------------------------------------

    def _other(self, data: memoryview, start: int, end: int, header: RequestHeader) -> int:
        """Answer the whole frame at `start`; return where the next begins."""
        kind, length = header.packet_type, header.length
        if length > limits.FRAME_BYTES_MAX - REQUEST_HEADER_BYTES:
            return self._refuse_large(start, end, header)
        stop = start + REQUEST_HEADER_BYTES + length
        if self.gate.is_checked and not self._is_let_through(header):
            return stop
        if self._is_for_leader(kind):
            if self.is_stand_in:
                self._not_leading(header)
            else:
                self._send_change_on(header, data[start:stop])
            return stop
        try:
            payload = bytes(data[start + REQUEST_HEADER_BYTES : stop])
            header, request = self._request(header, payload)
            self._when_current(header, request, data[start:stop])
        except Exception as error:
            self._failed(header, error)
        return stop

    def _request(self, header: RequestHeader, payload: bytes) -> tuple[RequestHeader, Request]:
        """The request of a frame, and whose it is; raises where this client may not make it."""
        kind, actor = header.packet_type, None
        if kind == PacketType.ON_BEHALF and self.gate.auth is None:
            actor, kind, payload = v2.decode_on_behalf(payload)
            header = header._replace(packet_type=kind)
        elif kind in v2.WITH_ACTOR and not self.is_own:
            actor = self.gate.actor()
        request = decode(header.version, kind, payload)
        if self.gate.is_checked:
            rights.check(self.gate.principal, request)
        if actor is not None:
            assert isinstance(request, WithActor)
            request.actor = actor
        return header, request

    def _send_change_on(self, header: RequestHeader, frame: memoryview) -> None:
        """Bring a change to the node that leads, with the name of who asks for it."""
        version, kind, _, _, request_id = header
        if version == VERSION_2 and kind in v2.WITH_ACTOR:
            payload = frame[REQUEST_HEADER_BYTES:]
            told = v2.encode_on_behalf(self.gate.actor(), kind, payload)
            wrapped = request_frame(VERSION_2, PacketType.ON_BEHALF, request_id, told)
            self._send_on(header, wrapped)
        else:
            self._send_on(header, bytes(frame))

    def _when_current(self, header: RequestHeader, request: Request, data: memoryview) -> None:
        """Answer now, or once this node knows enough for the consistency that is asked for."""
        node = self.node
        if node.tracing is not None:
            node.tracing.asked(self.slot, header.request_id, type(request).__name__)
        if node.is_alone or not isinstance(request, Read):
            self._respond(header, request, b"")
            return
        frame = bytes(data)

        def run() -> None:
            try:
                self._respond(header, request, frame)
            except Exception as error:
                self._failed(header, error)

        def late() -> None:
            text = "this node could not catch up in time; nothing was done, ask again"
            self._ask_to_wait(header, text)

        # Version 1 has no position to send, and reads on any node what another acknowledged.
        if request.linearizable or header.version == VERSION_1:
            node.reads.after_quorum(run, late)
            node.request_turn()
        elif request.min_position > node.machine.applied:
            node.reads.at_position(request.min_position, run, late)
        else:
            self._respond(header, request, frame)

    def _respond(self, header: RequestHeader, request: Request, frame: bytes) -> None:
        version, kind, _, _, request_id = header
        if isinstance(request, Watch):
            self.send(version, request_id, kind, self._watch(request), self.node.machine.applied)
            return

        def done(response: Response, position: int) -> None:
            if isinstance(response, ErrorReply) and self._asks_elsewhere(response.code):
                if self.node.tracing is not None:
                    self.node.tracing.answered(self.slot, request_id, "sent on")
                self._send_on(header, frame)
            else:
                self.send(version, request_id, kind, response, position)

        try:
            with self.node.lock:
                response = self._answer(version, request_id, kind, request, done)
                position = self.node.machine.applied
        except RangeUnavailableError as error:
            done(error_of(error), self.node.machine.applied)
            return
        if response is not None:
            self.send(version, request_id, kind, response, position)
            self.clients.linger()

    def _asks_elsewhere(self, code: ErrorCode) -> bool:
        """Whether the leader may have the events that this node came too late for."""
        is_follower = not (self.node.leads or self.node.is_alone)
        return code == ErrorCode.RANGE_UNAVAILABLE and is_follower and not self.is_stand_in

    def _failed(self, header: RequestHeader, error: Exception) -> None:
        """Answer a request that can't be answered as it is."""
        if isinstance(error, AssertionError):
            raise error  # a broken invariant stops the process
        if not isinstance(error, UnimeterError):
            # A mistake of ours in reading must not take down the node that counts.
            self.clients.platform.log.error(error)
        self._error(header.version, header.request_id, error_of(error))

    def _answer(
        self, version: int, request_id: int, kind: int, request: Request, done: handlers.Done
    ) -> Response | None:
        """The response, or None when it comes later."""
        if kind == PacketType.GET_PARTITION_MAP:
            self.map_version = version
            payload = self.clients.partition_map(version, self)
            if self.node.tracing is not None:
                self.node.tracing.answered(self.slot, request_id)
            self.write(response_frame(version, 0, request_id, payload))
            return None
        if isinstance(request, Hello):
            self._log_in(request)
        if isinstance(request, AlertPushEnable):
            return self._subscribe(version, request)
        if isinstance(request, AlertsList) and self._leaves_alerts_to_others(version):
            return AlertsListReply([])
        self.node.statistics.requests_answered += 1
        if isinstance(request, TransferLeader):
            self.clients.transfer_leader(request.node_id, done, request.actor)
            return None
        if isinstance(request, ClusterStatus):
            return self.clients.complete_status(handlers.cluster_status(self.node))
        return handlers.answer(self.node, request, done)

    def _watch(self, request: Watch) -> Response:
        """Begin this connection's stream; the watchers' state takes the lock by itself."""
        self.stop_watching()
        self.watching = WatchPush(self, request)
        return self.watching.reply()

    def _leaves_alerts_to_others(self, version: int) -> bool:
        """Whether a v1 client asks every node for what it missed, and the leader tells it."""
        if version != VERSION_1 or not self.lists_no_alerts:
            return False
        self.lists_no_alerts = not self.node.leads
        return self.lists_no_alerts

    def _subscribe(self, version: int, request: AlertPushEnable) -> Response:
        """Push alerts to this connection from now on, missed ones first."""
        self.lists_no_alerts = not self.node.leads
        self.subscription = Subscription(self, version, request)
        self.clients.subscribe(self.subscription)
        return AlertPushReply(self.subscription.after)

    # --- out ---------------------------------------------------------------------

    def send(
        self,
        version: int,
        request_id: int,
        kind: int,
        response: Response,
        position: int,
    ) -> None:
        """Write one response in the version that its request of type `kind` came in."""
        wire = v1 if version == VERSION_1 else v2
        if self.gate.is_checked:
            response = rights.shown(self.gate.principal, response)
        if version == VERSION_1 and isinstance(response, EventsListReply) and response.cursor:
            text = f"the list is longer than {V1_LIST_ITEMS_MAX}; ask for a shorter range"
            response = ErrorReply(ErrorCode.TOO_LARGE, text)
        try:
            payload = wire.encode_response(kind, response, position)
        except InvalidInputError as error:
            # An answer that v1 has no room for. It may come from a worker, long after
            # its request, so nobody further up could still answer.
            response = error_of(error)
            payload = wire.encode_response(kind, response, position)
        if self.node.tracing is not None:
            what = response.code.name.lower() if isinstance(response, ErrorReply) else ""
            self.node.tracing.answered(self.slot, request_id, what)
        self.write(response_frame(version, status_of(response, version), request_id, payload))

    def write(self, data: bytes) -> None:
        """Write whole frames; cut the client off if too much waits for it."""
        if self.transport.is_closing():
            return
        self.transport.write(data)
        if self.is_slow:
            waiting = self.transport.get_write_buffer_size()
            if waiting > limits.CONNECTION_OUT_BYTES_MAX:
                self.cut_off()

    def cut_off(self) -> None:
        """Close a connection whose client does not read."""
        self.node.statistics.closed_slow_reader += 1
        self.transport.abort()
