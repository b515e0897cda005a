"""A client of protocol version 1: no sessions, no ids, no positions.

Owns what users of the published client do, frame by frame: connect to one node, ask for the
partition map, send a batch to the leader it names, ask its first replica. When no reply
comes they send the same bytes on another connection. That is safe where every event has a
timestamp, as the node then knows an event by its content; batches without are never sent
again.

    connect ── map ──> leader ── frame ──> no reply ── same frame ──> another node

Status 6 (backpressure) says that nothing was stored. Any other failure leaves the outcome
unknown: version 1 has no word for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from unimeter.client.routing import parse_address, partition_of
from unimeter.errors import (
    BackpressureError,
    DeadlineExceededError,
    InvalidInputError,
    UnimeterError,
)
from unimeter.sim.chance import Chance
from unimeter.sim.clients import CLOSING_SECONDS, SimClient
from unimeter.sim.plans import Ask, Send, Step
from unimeter.types import Event
from unimeter.wire import v1, v1_layout
from unimeter.wire.framer import VERSION_1, ResponseFrame, ResponseFramer, request_frame
from unimeter.wire.messages import (
    ErrorCode,
    ErrorReply,
    Ingest,
    IngestRow,
    PartitionMap,
    PartitionMapReply,
    ProtocolError,
    Request,
    Response,
)

ATTEMPT_SECONDS: Final = 2.0  # without a reply, until the user takes it for lost
ATTEMPTS: Final = 4  # while faults happen
PAUSE_SECONDS: Final = 0.2

Outcome = tuple[Response | None, UnimeterError | None]


class OldLink(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: Any = None
        self._framer = ResponseFramer()
        self._request_id = 0
        self._reply: asyncio.Future[ResponseFrame] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport, self.is_open = transport, True

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._framer.receive_data(data)
        try:
            while (frame := self._framer.next_frame()) is not None:
                reply = self._reply
                if frame.request_id == self._request_id and reply and not reply.done():
                    reply.set_result(frame)
        except ProtocolError as error:
            self.connection_lost(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self.is_open = False
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionResetError("closed"))

    async def exchange(self, packet_type: int, payload: bytes) -> ResponseFrame:
        """Send a request and wait for its reply; OSError or TimeoutError if none comes."""
        if not self.is_open:
            raise ConnectionResetError("closed")
        self._request_id += 1
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(request_frame(VERSION_1, packet_type, self._request_id, payload))
        async with asyncio.timeout(ATTEMPT_SECONDS):
            return await self._reply

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
        self.is_open = False


class OldClient(SimClient):
    """An application with the published client."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._unsettled: list[list[Event]] = []  # timed batches without an answer

    def open(self, chance: Chance, time_ns: Callable[[], int]) -> None:
        self._turn = chance.below(len(self.addresses))
        self._links: dict[str, OldLink] = {}
        self._routes: PartitionMapReply | None = None

    async def do(self, step: Step) -> None:
        if self._unsettled and self.chance.hit(0.5):
            await self._send(self._unsettled.pop(0), ATTEMPTS)
        if isinstance(step, Send):
            await self._send(step.events, ATTEMPTS)
        elif isinstance(step, Ask):
            await self._ask(step.request, ATTEMPTS)
        else:
            raise AssertionError(f"version 1 has no {step}")

    async def close(self) -> None:
        attempts = round(CLOSING_SECONDS / PAUSE_SECONDS)
        for batch in [*self._unsettled, self.plan.closing]:
            self._unsettled = [other for other in self._unsettled if other is not batch]
            await self._send(batch, attempts)
        for link in self._links.values():
            link.abort()

    # --- calls -------------------------------------------------------------------------

    async def _send(self, events: list[Event], attempts: int) -> None:
        may_resend = all(event.timestamp for event in events)
        if may_resend:
            self._unsettled.append(events)
        rows = [row_of(event) for event in events]
        record = self._begin("ingest", None, events, attempts)
        response, error = await self._carry_out(Ingest(rows), attempts, may_resend)
        if error is None:
            self._unsettled = [batch for batch in self._unsettled if batch is not events]
            self.history.answer(record, response, 0)
        else:
            self.history.fail(record, error)

    async def _ask(self, request: Request, attempts: int) -> None:
        record = self._begin(type(request).__name__, request, [], attempts)
        response, error = await self._carry_out(request, attempts, True)
        if error is None:
            self.history.answer(record, response, 0)
        else:
            self.history.fail(record, error)

    def _begin(
        self, what: str, request: Request | None, events: Sequence[Event], attempts: int
    ) -> Any:
        # An attempt connects, asks for the map and then asks: each may take its time.
        seconds = min(CLOSING_SECONDS, attempts * (3 * ATTEMPT_SECONDS + PAUSE_SECONDS))
        return self.history.begin(
            self.name,
            self.process,
            what,
            request=request,
            events=events,
            version=VERSION_1,
            timeout=seconds,
        )

    async def _carry_out(self, request: Request, attempts: int, may_resend: bool) -> Outcome:
        """The reply to a request, sent as often as that is safe."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CLOSING_SECONDS
        packet_type, payload = v1.encode_request(request)
        in_doubt = False
        for attempt in range(attempts):
            if loop.time() >= until:
                break
            if attempt:
                await asyncio.sleep(PAUSE_SECONDS)
            address = self._address(request, attempt)
            link = await self._maybe_link(address)
            if link is None:
                continue
            try:
                frame = await link.exchange(packet_type, payload)
                response = v1.decode_response(packet_type, frame.status, frame.payload)[1]
            except (OSError, TimeoutError):
                in_doubt = True
                self._forget(address)
            else:
                if not isinstance(response, ErrorReply):
                    return response, None
                if response.code not in (ErrorCode.BACKPRESSURE, ErrorCode.REDIRECT):
                    return self._refused(request, frame)
                self._forget(address)
            if in_doubt and not may_resend:
                break
        if in_doubt:
            return None, DeadlineExceededError("no reply")
        return None, BackpressureError("the node asked to wait, or none was there")

    def _refused(self, request: Request, frame: ResponseFrame) -> Outcome:
        """Status 2: a whole batch that was refused has its counts; else nobody knows."""
        if isinstance(request, Ingest):
            if len(frame.payload) == v1_layout.INGEST_REPLY.size:
                return v1.decode_response(1, 0, frame.payload)[1], None
            return None, DeadlineExceededError("status 2")
        return ErrorReply(ErrorCode.NONE), InvalidInputError("status 2")

    # --- nodes -------------------------------------------------------------------------

    def _address(self, request: Request, attempt: int) -> str:
        """The map's node at first; then whoever is there."""
        if attempt == 0 and self._routes is not None:
            partition = partition_of(getattr(request, "account", None) or 0)
            route = self._routes.routes[partition]
            is_read = not isinstance(request, Ingest)
            named = [*route.replicas, route.leader] if is_read else [route.leader]
            if named and named[0]:
                return named[0]
        self._turn += 1
        return self.addresses[self._turn % len(self.addresses)]

    async def _maybe_link(self, address: str) -> OldLink | None:
        """A connection whose node has told its map."""
        link = self._links.get(address)
        if link is not None and link.is_open:
            return link
        host, port = parse_address(address)
        link = OldLink()
        made = link
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: made, host, port)
            packet_type, payload = v1.encode_request(PartitionMap())
            frame = await link.exchange(packet_type, payload)
            routes = v1.decode_response(packet_type, frame.status, frame.payload)[1]
        except (OSError, TimeoutError):
            link.abort()
            return None
        if isinstance(routes, PartitionMapReply):
            self._routes = routes
        self._links[address] = link
        return link

    def _forget(self, address: str) -> None:
        self._routes = None
        link = self._links.pop(address, None)
        if link is not None:
            link.abort()


def row_of(event: Event) -> IngestRow:
    """An event as version 1 carries it."""
    return IngestRow(
        event.account_id,
        event.metric_code,
        event.value,
        event.timestamp_ns(),
        int(event.operation_type),
        tuple(event.properties.items()),
    )
