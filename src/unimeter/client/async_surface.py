"""The methods of the asyncio client, over any way to get an answer.

`surface.py` word for word, with `await`: a test holds the two together. Streams
are asynchronous iterators.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from unimeter.client import admin_questions, chance, checks, questions
from unimeter.client.async_administration import AsyncKeys, AsyncWebhooks
from unimeter.client.core import CreatedInDoubtError
from unimeter.client.questions import FilterValues, Page, Paged
from unimeter.client.stream import watch_request
from unimeter.client.subscription import AsyncWatch, Subscription
from unimeter.control import AuditRecord
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
    AlertPushEnable,
    AlertsListReply,
    AuditListReply,
    BreakdownReply,
    ClusterStatus,
    ClusterStatusReply,
    Done,
    EventsListReply,
    MembersReply,
    MetricList,
    MetricListReply,
    PutMode,
    Request,
    Response,
    SeriesReply,
    UsageReply,
    Window,
)
from unimeter.wire.messages import Watch as WatchRequest

R = TypeVar("R", bound=Response)
P = TypeVar("P", bound=Page)


class AsyncSurface(ABC):
    """What can be asked, sent and changed."""

    _time_ns = staticmethod(time.time_ns)
    _entropy = staticmethod(chance.entropy)

    def __init__(self) -> None:
        self.metrics = AsyncMetrics(self)
        self.alerts = AsyncAlerts(self)
        self.cluster = AsyncCluster(self)
        self.keys = AsyncKeys(self)
        self.webhooks = AsyncWebhooks(self)

    @abstractmethod
    async def _ask(
        self, request: Request, account: Account, timeout: float | None
    ) -> tuple[Response, int]:
        """Get the answer to a request that concerns `account`."""

    @abstractmethod
    async def _ingest(
        self, events: Sequence[Event], is_sync: bool, timeout: float | None
    ) -> IngestResult:
        """Send events; the result covers each of them."""

    @abstractmethod
    async def _subscribe(
        self, request: AlertPushEnable, buffer_size: int, timeout: float | None
    ) -> Subscription:
        """Open a stream of alerts."""

    @abstractmethod
    async def _watch(self, request: WatchRequest, timeout: float | None) -> AsyncWatch:
        """Open a stream of alerts and changed totals."""

    async def watch(
        self,
        *,
        accounts: Iterable[Account] = (),
        metrics: Iterable[str] = (),
        alerts: bool = True,
        totals: bool = True,
        after: str | int | None = None,
        interval: float = 0.0,
        timeout: float | None = None,
    ) -> AsyncWatch:
        """Return a stream of alerts and of totals as they change, over any reconnect.

        Each alert comes once and in order. A total is that of the current billing period, and
        comes with its newest value: what changed ten times between two messages comes once.
        A stream that names accounts begins with their totals. Nothing named = everything, up
        to a bound past which an `Overflow` says to read again. `after` is what
        `AsyncWatch.position` gave in an earlier process. `interval` is the least time between
        two messages, in seconds; `timeout` holds for the beginning. What is not taken waits at
        the server.
        """
        request = watch_request(accounts, metrics, alerts, totals, after, interval)
        return await self._watch(request, timeout)

    @abstractmethod
    def _address(self) -> str:
        """How to name the node in records that say where they come from."""

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
        return await self._ingest(events, delivery == DeliveryMode.SYNC, timeout)

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
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> list[EventRecord]:
        """Return every stored event of an account in ``[since, until)``, by offset."""
        rows = self.iter_events(
            account_id,
            since,
            until,
            metric_code=metric_code,
            linearizable=linearizable,
            timeout=timeout,
        )
        return [record async for record in rows]

    async def iter_events(
        self,
        account_id: Account,
        since: datetime,
        until: datetime,
        *,
        metric_code: str | None = None,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[EventRecord]:
        """Stream what `list_events` returns; `timeout` holds for each page."""
        request = questions.events(account_id, since, until, metric_code, linearizable)
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
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> list[AlertRecord]:
        """Return alerts in order: of one account or all, of one metric or all.

        `after` names the position of the last alert already seen;
        `since_offset` the lowest offset of a crossing event.
        """
        rows = self.iter_alerts(
            account_id,
            since_offset,
            metric_code=metric_code,
            after=after,
            linearizable=linearizable,
            timeout=timeout,
        )
        return [record async for record in rows]

    async def iter_alerts(
        self,
        account_id: Account | None = None,
        since_offset: int = 0,
        *,
        metric_code: str | None = None,
        after: int = 0,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[AlertRecord]:
        """Stream what `list_alerts` returns; `timeout` holds for each page."""
        request = questions.alerts(account_id, since_offset, metric_code, after, linearizable)
        async for page in self._pages(request, AlertsListReply, account_id or 0, timeout):
            for record in questions.alert_records(page, self._address()):
                yield record

    async def accounts(
        self,
        metric_code: str,
        period: Period,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> list[AccountTotal]:
        """Return every account of a metric with its total: the invoice run."""
        rows = self.iter_accounts(metric_code, period, linearizable=linearizable, timeout=timeout)
        return [total async for total in rows]

    async def iter_accounts(
        self,
        metric_code: str,
        period: Period,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[AccountTotal]:
        """Stream what `accounts` returns; `timeout` holds for each page."""
        request = questions.accounts(metric_code, period, linearizable)
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
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> list[int]:
        """Return who is a member of a COUNT_UNIQUE metric at a moment (default: now)."""
        rows = self.iter_members(
            account_id, metric_code, at, linearizable=linearizable, timeout=timeout
        )
        return [member async for member in rows]

    async def iter_members(
        self,
        account_id: Account,
        metric_code: str,
        at: datetime | None = None,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[int]:
        """Stream what `members` returns; `timeout` holds for each page."""
        at_ns = self._time_ns() if at is None else to_ns(at, "at")
        request = questions.members(account_id, metric_code, at_ns, linearizable)
        async for page in self._pages(request, MembersReply, account_id, timeout):
            for member in page.members:
                yield member

    async def status(self, *, timeout: float | None = None) -> ClusterStatusReply:
        """Return what a node says about itself and its cluster; the leader if one is known."""
        return (await self._get(ClusterStatus(), ClusterStatusReply, 0, timeout))[0]

    async def audit(
        self,
        *,
        limit: int = 100,
        before: int = 0,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> list[AuditRecord]:
        """Return who changed what, newest first: `limit` records, of entries before `before`.

        Changes of keys, webhooks and metrics and attempts that were refused; a node keeps
        the newest few thousand. `index` of the last record is `before` of the next page.
        """
        request = admin_questions.audit(limit, before, linearizable)
        return (await self._get(request, AuditListReply, 0, timeout))[0].records

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


class AsyncMetrics:
    """Create, change and list metrics. Reached as ``client.metrics``."""

    def __init__(self, surface: AsyncSurface) -> None:
        self._surface = surface

    async def create(self, schema: MetricSchema, *, timeout: float | None = None) -> None:
        """Create a metric. The same again is fine, another of that code AlreadyExistsError."""
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
        await self._surface._get(questions.metric_delete(code), Done, 0, timeout)

    async def get(
        self, code: str, *, linearizable: bool = False, timeout: float | None = None
    ) -> MetricSchema:
        """Return one metric in full; `NotFoundError` if there is none."""
        return questions.metric_named(
            [m async for m in self.iter(linearizable=linearizable, timeout=timeout)], code
        )

    async def list(
        self, *, linearizable: bool = False, timeout: float | None = None
    ) -> list[MetricSchema]:
        """Return every metric in full, in the order of creation."""
        return [schema async for schema in self.iter(linearizable=linearizable, timeout=timeout)]

    async def iter(
        self, *, linearizable: bool = False, timeout: float | None = None
    ) -> AsyncIterator[MetricSchema]:
        """Stream what `list` returns; `timeout` holds for each page."""
        request = MetricList(linearizable=linearizable)
        async for page in self._surface._pages(request, MetricListReply, 0, timeout):
            for schema in page.metrics:
                yield schema

    async def _put(self, schema: MetricSchema, mode: PutMode, timeout: float | None) -> None:
        await self._surface._get(questions.metric_put(schema, mode), Done, 0, timeout)


class AsyncAlerts:
    """Subscribe to alerts. Reached as ``client.alerts``."""

    def __init__(self, surface: AsyncSurface) -> None:
        self._surface = surface

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
        request = questions.push(account_ids, metric_codes, since_offset, after)
        return await self._surface._subscribe(request, buffer_size, timeout)


class AsyncCluster:
    """Look at the nodes and move leadership. Reached as ``client.cluster``."""

    def __init__(self, surface: AsyncSurface) -> None:
        self._surface = surface

    async def status(self, *, timeout: float | None = None) -> ClusterStatusReply:
        """Return the cluster as its leader sees it; `nodes` has a `NodeStatus` for each."""
        return await self._surface.status(timeout=timeout)

    async def transfer_leader(self, node_id: int = 0, *, timeout: float | None = None) -> None:
        """Hand leadership to a node, or to any that is up to date, and return when it leads.

        For maintenance: clients go on without an error. `InvalidInputError` if there is
        no such node.
        """
        await self._surface._get(questions.transfer(node_id), Done, 0, timeout)
