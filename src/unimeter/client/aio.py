"""`AsyncClient`: the asyncio SDK, many calls on one connection.

Every method is that of `surface.py`, with `await`. Concurrent calls share one
connection to a node: each sends its frame at once and waits for the reply that
carries its request id. Frames of one loop turn leave in one write.

    ingest() ─┐                                      ┌─> reply 7
    ingest() ─┼─> window: session and sequence ─> connection ─> reply 8
    query()  ─┘   (full: wait in line)               └─> reply 9

All decisions are the `Core`'s. This module waits: for a place in a session's
window, for a reply, for the pause before a resend, and for nothing longer than
the call's deadline.

Rejected: a connection per call. Sixteen batches that travel together share the
server's write and its sync; one after the other they would wait for sixteen.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from unimeter.client import chance, checks, questions
from unimeter.client.core import (
    Answer,
    Batch,
    Call,
    Core,
    CreatedInDoubtError,
    Pause,
    ingest_reply,
)
from unimeter.client.outcomes import Tally
from unimeter.client.questions import FilterValues, Page, Paged
from unimeter.client.retry import CONNECT_SECONDS, TIMEOUT_SECONDS, check_timeout
from unimeter.client.routing import parse_seeds, partition_of
from unimeter.client.sessions import Ticket
from unimeter.client.streams import Link, LinkLost, Links
from unimeter.client.subscription import Subscription
from unimeter.errors import ClientError, DeadlineExceededError, UnimeterError
from unimeter.types import (
    Account,
    AccountTotal,
    AggValue,
    AlertRecord,
    DeliveryMode,
    Event,
    EventRecord,
    IngestResult,
    MetricSchema,
    Period,
    SeriesPoint,
    UsageResult,
    to_ns,
)
from unimeter.wire.messages import (
    AccountsReply,
    AlertsListReply,
    BreakdownReply,
    ClusterStatus,
    ClusterStatusReply,
    Done,
    EventsListReply,
    MembersReply,
    MetricList,
    MetricListReply,
    PartitionMap,
    PutMode,
    Request,
    Response,
    SeriesReply,
    UsageReply,
    Window,
)

__all__ = ["AsyncAlerts", "AsyncClient", "AsyncMetrics", "Subscription"]

BATCHES_AHEAD = 4  # of one divided call: enough to keep the server busy while one is encoded

R = TypeVar("R", bound=Response)
P = TypeVar("P", bound=Page)


class AsyncClient:
    """A connection to a node or cluster, for programs with an event loop.

        async with AsyncClient(["localhost:7001"]) as client:
            await client.ingest([Event(42, "api_calls")])

    Belongs to one event loop. Connects at the first call, or at `connect()` and
    `async with`, which raise `ConnectionError` early.
    """

    def __init__(
        self, seeds: str | Sequence[str] = "localhost:7001", *, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """Remember where to connect; `timeout` is the deadline of calls that name none."""
        self._timeout = check_timeout(timeout)
        self._core = Core(parse_seeds(seeds), chance.identity, chance.fraction)
        self._links = Links(self._core)
        self._waiting: deque[asyncio.Future[None]] = deque()  # for a place in a window
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        self._pid = os.getpid()
        self.metrics = AsyncMetrics(self)
        self.alerts = AsyncAlerts(self)

    # --- life ----------------------------------------------------------------

    async def connect(self, timeout: float = CONNECT_SECONDS) -> None:
        """Reach a node now, or raise `ConnectionError` after `timeout` seconds."""
        await self._ask(PartitionMap(), 0, timeout)

    async def close(self) -> None:
        """Close every connection and subscription; calls under way fail."""
        self._closed = True
        for subscription in list(self._subscriptions):
            await subscription.close()
        await self._links.close()

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def statistics(self) -> dict[str, int]:
        """Connections, requests in flight, sessions, callers waiting for a window."""
        return {
            **self._links.statistics(),
            **self._core.sessions.statistics(),
            "waiting": len(self._waiting),
        }

    @property
    def cluster_id(self) -> bytes:
        """The 16 bytes that name the log this client last spoke to; empty before the first call."""
        return self._core.cluster_id

    # --- methods, as in surface.py -------------------------------------------

    async def ingest(
        self,
        events: Iterable[Event],
        *,
        delivery: DeliveryMode = DeliveryMode.ASYNC,
        timeout: float | None = None,
    ) -> IngestResult:
        """Send events and return once they are durable and counted.

        Each event has an outcome in the result; refused ones do not hold up the
        rest. A resend inside this call can't count twice. After
        `DeadlineExceededError` the outcome is unknown, and only events with an
        `id` can be sent again safely. Calls may run concurrently.
        """
        events = checks.event_list(events)
        if not events:
            return IngestResult(0, 0, 0)
        self._check_usable()
        refused = checks.check_events(events)
        is_sync = delivery == DeliveryMode.SYNC
        is_sync = is_sync or any(e.delivery_mode == DeliveryMode.SYNC for e in events)
        deadline = self._deadline(timeout)
        tally = Tally(events, refused)
        batches = self._plan(events, refused)
        if len(batches) == 1:
            answers = [await self._settle(batches[0], is_sync, deadline)]
        else:
            answers = await self._send_all(batches, is_sync, deadline)
        errors = []
        for batch, answer in zip(batches, answers, strict=True):
            if isinstance(answer, Answer):
                tally.add(batch.indexes, ingest_reply(answer), answer.position)
            else:
                errors.append(answer)
        if errors:
            tally.explain(errors[0])
            raise errors[0]
        return tally.result()

    async def query(
        self,
        account_id: Account,
        metric_code: str,
        period: Period,
        *,
        filters: FilterValues | None = None,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> UsageResult:
        """Return an account's total over any range, exactly.

        Includes everything this client was told is stored. `linearizable` also
        includes what others were told, at the price of a round of the quorum.
        """
        request = questions.usage(account_id, metric_code, period, filters, linearizable)
        reply, position = await self._get(request, UsageReply, account_id, timeout)
        return questions.usage_result(reply, period, position)

    async def query_breakdown(
        self,
        account_id: Account,
        metric_code: str,
        period: Period,
        *,
        group_by: Sequence[str],
        filters: FilterValues | None = None,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> dict[frozenset[tuple[str, str]], AggValue]:
        """Return totals per combination of the values of the dimensions in `group_by`."""
        request = questions.breakdown(
            account_id, metric_code, period, group_by, filters, linearizable
        )
        reply, _ = await self._get(request, BreakdownReply, account_id, timeout)
        return questions.breakdown_result(reply)

    async def query_realtime(
        self,
        account_id: Account,
        metric_code: str,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> AggValue:
        """Return the total of the metric's current billing period."""
        request = questions.realtime(account_id, metric_code, linearizable)
        reply, _ = await self._get(request, UsageReply, account_id, timeout)
        return reply.value

    async def list_events(
        self,
        account_id: Account,
        since: datetime,
        until: datetime,
        *,
        metric_code: str | None = None,
        timeout: float | None = None,
    ) -> list[EventRecord]:
        """Return every stored event of an account in ``[since, until)``, by offset."""
        rows = self.iter_events(account_id, since, until, metric_code=metric_code, timeout=timeout)
        return [record async for record in rows]

    async def iter_events(
        self,
        account_id: Account,
        since: datetime,
        until: datetime,
        *,
        metric_code: str | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[EventRecord]:
        """Stream what `list_events` returns; `timeout` holds for each page."""
        request = questions.events(account_id, since, until, metric_code)
        async for page in self._pages(request, EventsListReply, account_id, timeout):
            for record in page.events:
                yield record

    async def list_alerts(
        self,
        account_id: Account | None = None,
        since_offset: int = 0,
        *,
        metric_code: str | None = None,
        after: int = 0,
        timeout: float | None = None,
    ) -> list[AlertRecord]:
        """Return alerts in order: of one account or all, of one metric or all.

        `after` names the position of the last alert already seen;
        `since_offset` the lowest offset of a crossing event.
        """
        rows = self.iter_alerts(
            account_id, since_offset, metric_code=metric_code, after=after, timeout=timeout
        )
        return [record async for record in rows]

    async def iter_alerts(
        self,
        account_id: Account | None = None,
        since_offset: int = 0,
        *,
        metric_code: str | None = None,
        after: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[AlertRecord]:
        """Stream what `list_alerts` returns; `timeout` holds for each page."""
        request = questions.alerts(account_id, since_offset, metric_code, after)
        async for page in self._pages(request, AlertsListReply, account_id or 0, timeout):
            for record in questions.alert_records(page, self._core.router.address(0, 0)):
                yield record

    async def accounts(
        self, metric_code: str, period: Period, *, timeout: float | None = None
    ) -> list[AccountTotal]:
        """Return every account of a metric with its total: the invoice run."""
        rows = self.iter_accounts(metric_code, period, timeout=timeout)
        return [total async for total in rows]

    async def iter_accounts(
        self, metric_code: str, period: Period, *, timeout: float | None = None
    ) -> AsyncIterator[AccountTotal]:
        """Stream what `accounts` returns; `timeout` holds for each page."""
        request = questions.accounts(metric_code, period)
        async for page in self._pages(request, AccountsReply, 0, timeout):
            for total in page.accounts:
                yield total

    async def series(
        self,
        account_id: Account,
        metric_code: str,
        period: Period,
        *,
        window: str | Window = Window.DAY,
        zone: str = "",
        filters: FilterValues | None = None,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> list[SeriesPoint]:
        """Return a total per window ("hour", "day", "week" or "month") of the range."""
        request = questions.series(
            account_id, metric_code, period, window, zone, filters, linearizable
        )
        reply, _ = await self._get(request, SeriesReply, account_id, timeout)
        return questions.series_result(reply)

    async def members(
        self,
        account_id: Account,
        metric_code: str,
        at: datetime | None = None,
        *,
        timeout: float | None = None,
    ) -> list[int]:
        """Return who is a member of a COUNT_UNIQUE metric at a moment (default: now)."""
        rows = self.iter_members(account_id, metric_code, at, timeout=timeout)
        return [member async for member in rows]

    async def iter_members(
        self,
        account_id: Account,
        metric_code: str,
        at: datetime | None = None,
        *,
        timeout: float | None = None,
    ) -> AsyncIterator[int]:
        """Stream what `members` returns; `timeout` holds for each page."""
        at_ns = time.time_ns() if at is None else to_ns(at, "at")
        request = questions.members(account_id, metric_code, at_ns)
        async for page in self._pages(request, MembersReply, account_id, timeout):
            for member in page.members:
                yield member

    async def status(self, *, timeout: float | None = None) -> ClusterStatusReply:
        """Return what the node says about itself."""
        return (await self._get(ClusterStatus(), ClusterStatusReply, 0, timeout))[0]

    # --- batches -------------------------------------------------------------

    def _plan(self, events: Sequence[Event], refused: Mapping[int, object]) -> list[Batch]:
        indexes: Sequence[int] = range(len(events))
        if refused:
            indexes = [index for index in indexes if index not in refused]
            events = [events[index] for index in indexes]
        return self._core.plan(events, indexes, time.time_ns())

    async def _send_all(
        self, batches: list[Batch], is_sync: bool, deadline: float
    ) -> list[Answer | UnimeterError]:
        """Send batches in order, a few at a time; each has an answer or an error in the end."""
        results: dict[int, Answer | UnimeterError] = {}
        todo = iter(enumerate(batches))

        async def work() -> None:
            for number, batch in todo:
                results[number] = await self._settle(batch, is_sync, deadline)

        await asyncio.gather(*(work() for _ in range(min(BATCHES_AHEAD, len(batches)))))
        return [results[number] for number in range(len(batches))]

    async def _settle(self, batch: Batch, is_sync: bool, deadline: float) -> Answer | UnimeterError:
        """Send one batch; return its answer, or the error that ended it."""
        try:
            ticket = await self._wait_for_ticket(deadline)
            call = None
            try:
                now = asyncio.get_running_loop().time()
                call = self._core.ingest(batch, ticket, is_sync, now, deadline)
                return await self._carry_out(call)
            finally:
                (call.ticket if call is not None else ticket).resolve()
                self._wake_next()
        except UnimeterError as error:
            return error

    async def _wait_for_ticket(self, deadline: float) -> Ticket:
        """Wait in line for a sequence number."""
        ticket = None if self._waiting else self._core.sessions.maybe_take()
        is_first = False
        while ticket is None:
            await self._wait_in_line(is_first, deadline)
            is_first = True  # a newcomer may be quicker; then we are next
            ticket = self._core.sessions.maybe_take()
        return ticket

    async def _wait_in_line(self, is_first: bool, deadline: float) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if is_first:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        try:
            async with asyncio.timeout_at(deadline):
                await place
        except TimeoutError:
            raise DeadlineExceededError(
                "every session's window was full until the deadline; nothing was sent"
            ) from None
        finally:
            self._leave_line(place)

    def _leave_line(self, place: asyncio.Future[None]) -> None:
        """Out of the line; a turn that came too late is passed on."""
        if place in self._waiting:
            self._waiting.remove(place)
        elif sys.exc_info()[0] is not None:
            self._wake_next()

    def _wake_next(self) -> None:
        """A number was given back: let the first in line try."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return

    # --- one call ------------------------------------------------------------

    async def _ask(
        self, request: Request, account: Account, timeout: float | None
    ) -> tuple[Response, int]:
        self._check_usable()
        now = asyncio.get_running_loop().time()
        call = self._core.call(request, partition_of(account), now, self._deadline(timeout))
        answer = await self._carry_out(call)
        return answer.response, answer.position

    async def _carry_out(self, call: Call) -> Answer:
        """Do what the call says until it is over."""
        loop = asyncio.get_running_loop()
        while True:
            step = call.step(loop.time())
            if isinstance(step, Pause):
                await asyncio.sleep(step.until - loop.time())
                self._check_usable()
                continue
            try:
                link: Link = await self._links.get(step.address, step.until)
                reply = await link.exchange(call.packet_type, call.payload, step.until)
            except LinkLost as lost:
                call.on_lost(lost.reason, loop.time(), lost.was_sent)
                continue
            answer = call.on_reply(reply, loop.time())
            if answer is not None:
                return answer

    async def _get(
        self, request: Request, kind: type[R], account: Account, timeout: float | None
    ) -> tuple[R, int]:
        """Ask, and insist on the kind of response that belongs to the request."""
        response, position = await self._ask(request, account, timeout)
        assert isinstance(response, kind), response
        return response, position

    async def _pages(
        self, request: Paged, kind: type[P], account: Account, timeout: float | None
    ) -> AsyncIterator[P]:
        """Ask for page after page."""
        while True:
            page = (await self._get(request, kind, account, timeout))[0]
            yield page
            if not questions.follow(request, page):
                return

    # --- checks --------------------------------------------------------------

    def _deadline(self, timeout: float | None) -> float:
        seconds = self._timeout if timeout is None else check_timeout(timeout)
        return asyncio.get_running_loop().time() + seconds

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientError("this AsyncClient is closed; make a new one")
        if os.getpid() != self._pid:
            raise ClientError(
                "this AsyncClient was made before a fork and its session belongs to the parent "
                "process; make a new one in the child"
            )


class AsyncMetrics:
    """Create, change and list metrics. Reached as ``client.metrics``."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, schema: MetricSchema, *, timeout: float | None = None) -> None:
        """Create a metric. `AlreadyExistsError` if there is one of that code."""
        try:
            await self._put(schema, PutMode.CREATE, timeout)
        except CreatedInDoubtError:
            if await self.get(schema.code, timeout=timeout) != schema:
                raise

    async def update(self, schema: MetricSchema, *, timeout: float | None = None) -> None:
        """Change a metric in a way that keeps its history meaningful; see the reference."""
        await self._put(schema, PutMode.UPDATE, timeout)

    async def put(self, schema: MetricSchema, *, timeout: float | None = None) -> None:
        """Create the metric, or change it if it exists."""
        await self._put(schema, PutMode.PUT, timeout)

    async def delete(self, code: str, *, timeout: float | None = None) -> None:
        """Delete a metric and its totals; its code is free afterwards."""
        await self._client._get(questions.metric_delete(code), Done, 0, timeout)

    async def get(self, code: str, *, timeout: float | None = None) -> MetricSchema:
        """Return one metric in full; `NotFoundError` if there is none."""
        return questions.metric_named([m async for m in self.iter(timeout=timeout)], code)

    async def list(self, *, timeout: float | None = None) -> list[MetricSchema]:
        """Return every metric in full, in the order of creation."""
        return [schema async for schema in self.iter(timeout=timeout)]

    async def iter(self, *, timeout: float | None = None) -> AsyncIterator[MetricSchema]:
        """Stream what `list` returns; `timeout` holds for each page."""
        async for page in self._client._pages(MetricList(), MetricListReply, 0, timeout):
            for schema in page.metrics:
                yield schema

    async def _put(self, schema: MetricSchema, mode: PutMode, timeout: float | None) -> None:
        await self._client._get(questions.metric_put(schema, mode), Done, 0, timeout)


class AsyncAlerts:
    """Subscribe to alerts. Reached as ``client.alerts``."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def subscribe(
        self,
        *,
        account_ids: Iterable[Account] | None = None,
        metric_codes: Iterable[str] | None = None,
        since_offset: Mapping[str, int] | None = None,
        after: int | None = None,
        buffer_size: int = 64,
        timeout: float | None = None,
    ) -> Subscription:
        """Return a stream of alerts, each once and in order, over any reconnect.

        It begins after position `after`, or after what `offsets()` returned in an
        earlier process, or for named accounts with their first alert, or now.
        At most `buffer_size` alerts wait here; further ones wait at the server.
        """
        client = self._client
        client._check_usable()
        request = questions.push(account_ids, metric_codes, since_offset, after)
        subscription = Subscription(client._core, request, buffer_size, client._subscriptions)
        await subscription.start(client._deadline(timeout))
        return subscription
