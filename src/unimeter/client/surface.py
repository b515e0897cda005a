"""The methods of a blocking client, over any way to get an answer.

`Surface` is what a caller sees: the published SDK's methods and names, and
this project's additions after them. It knows nothing of sockets. `Client`
answers over the network and the embedded engine answers from its own memory;
each supplies three private methods (`_ask`, `_ingest`, `_subscribe`) and is
the same to use.

    result = client.query(42, "api_calls", current_month())
             └ questions.usage() ─> _ask() ─> questions.usage_result()

Every method takes `timeout`, the seconds after which it raises
`DeadlineExceededError`; None means the client's default. A list method returns
everything by following pages inside; its `iter_` twin streams them.
`async_surface.py` mirrors this file word for word, with `await`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from unimeter.client import admin_questions, chance, checks, questions
from unimeter.client.administration import Keys, Webhooks
from unimeter.client.core import CreatedInDoubtError
from unimeter.client.questions import FilterValues, Page, Paged
from unimeter.client.stream import Stream, Watch, watch_request
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


class AlertStream(Stream[AlertRecord]):
    """Alerts as they happen. Iterate; `close()` ends the iteration."""

    @property
    @abstractmethod
    def position(self) -> int:
        """Position of the last alert handed out; `subscribe(after=...)` goes on from it."""

    @abstractmethod
    def offsets(self) -> dict[str, int]:
        """`position` in the form that `subscribe(since_offset=...)` takes."""

    def dropped(self) -> int:
        """Always 0: a slow consumer slows the stream and loses nothing."""
        return 0

    def __enter__(self) -> AlertStream:
        return self


class Surface(ABC):
    """What can be asked, sent and changed."""

    _entropy = staticmethod(chance.entropy)

    def __init__(self) -> None:
        self.metrics = Metrics(self)
        self.alerts = Alerts(self)
        self.cluster = Cluster(self)
        self.keys = Keys(self)
        self.webhooks = Webhooks(self)

    @abstractmethod
    def _ask(self, request: Request, account: Account, timeout: float | None) -> _Answered:
        """Get the answer to a request that concerns `account`."""

    @abstractmethod
    def _ingest(
        self, events: Sequence[Event], is_sync: bool, timeout: float | None
    ) -> IngestResult:
        """Send events; the result covers each of them."""

    @abstractmethod
    def _subscribe(self, request: AlertPushEnable, timeout: float | None) -> AlertStream:
        """Open a stream of alerts."""

    @abstractmethod
    def _watch(self, request: WatchRequest, timeout: float | None) -> Watch:
        """Open a stream of alerts and changed totals."""

    def watch(
        self,
        *,
        accounts: Iterable[Account] = (),
        metrics: Iterable[str] = (),
        alerts: bool = True,
        totals: bool = True,
        after: str | int | None = None,
        interval: float = 0.0,
        timeout: float | None = None,
    ) -> Watch:
        """Return a stream of alerts and of totals as they change, over any reconnect.

        Each alert comes once and in order. A total is that of the current billing period, and
        comes with its newest value: what changed ten times between two messages comes once.
        A stream that names accounts begins with their totals. Nothing named = everything, up
        to a bound past which an `Overflow` says to read again. `after` is what
        `Watch.position` gave in an earlier process. `interval` is the least time between two
        messages, in seconds; `timeout` holds for the beginning.
        """
        request = watch_request(accounts, metrics, alerts, totals, after, interval)
        return self._watch(request, timeout)

    @abstractmethod
    def _address(self) -> str:
        """How to name the node in records that say where they come from."""

    def ingest(
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
        `id` can be sent again safely.
        """
        events = checks.event_list(events)
        if not events:
            return IngestResult(0, 0, 0)
        is_sync = delivery == DeliveryMode.SYNC
        return self._ingest(events, is_sync, timeout)

    def query(
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
        reply, position = self._get(request, UsageReply, account_id, timeout)
        return questions.usage_result(reply, period, position)

    def query_breakdown(
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
        return questions.breakdown_result(
            self._get(request, BreakdownReply, account_id, timeout)[0]
        )

    def query_realtime(
        self,
        account_id: Account,
        metric_code: str,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> AggValue:
        """Return the total of the metric's current billing period."""
        request = questions.realtime(account_id, metric_code, linearizable)
        return self._get(request, UsageReply, account_id, timeout)[0].value

    def list_events(
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
        return list(self.iter_events(account_id, since, until, metric_code=metric_code,
                                     linearizable=linearizable, timeout=timeout))  # fmt: skip

    def iter_events(
        self,
        account_id: Account,
        since: datetime,
        until: datetime,
        *,
        metric_code: str | None = None,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> Iterator[EventRecord]:
        """Stream what `list_events` returns; `timeout` holds for each page."""
        request = questions.events(account_id, since, until, metric_code, linearizable)
        for page in self._pages(request, EventsListReply, account_id, timeout):
            yield from page.events

    def list_alerts(
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
        return list(rows)

    def iter_alerts(
        self,
        account_id: Account | None = None,
        since_offset: int = 0,
        *,
        metric_code: str | None = None,
        after: int = 0,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> Iterator[AlertRecord]:
        """Stream what `list_alerts` returns; `timeout` holds for each page."""
        request = questions.alerts(account_id, since_offset, metric_code, after, linearizable)
        for page in self._pages(request, AlertsListReply, account_id or 0, timeout):
            yield from questions.alert_records(page, self._address())

    def accounts(
        self,
        metric_code: str,
        period: Period,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> list[AccountTotal]:
        """Return every account of a metric with its total: the invoice run."""
        return list(
            self.iter_accounts(metric_code, period, linearizable=linearizable, timeout=timeout)
        )

    def iter_accounts(
        self,
        metric_code: str,
        period: Period,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> Iterator[AccountTotal]:
        """Stream what `accounts` returns; `timeout` holds for each page."""
        request = questions.accounts(metric_code, period, linearizable)
        for page in self._pages(request, AccountsReply, 0, timeout):
            yield from page.accounts

    def series(
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
        return questions.series_result(self._get(request, SeriesReply, account_id, timeout)[0])

    def members(
        self,
        account_id: Account,
        metric_code: str,
        at: datetime | None = None,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> list[int]:
        """Return who is a member of a COUNT_UNIQUE metric at a moment (default: now)."""
        return list(
            self.iter_members(
                account_id, metric_code, at, linearizable=linearizable, timeout=timeout
            )
        )

    def iter_members(
        self,
        account_id: Account,
        metric_code: str,
        at: datetime | None = None,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> Iterator[int]:
        """Stream what `members` returns; `timeout` holds for each page."""
        at_ns = time.time_ns() if at is None else to_ns(at, "at")
        request = questions.members(account_id, metric_code, at_ns, linearizable)
        for page in self._pages(request, MembersReply, account_id, timeout):
            yield from page.members

    def status(self, *, timeout: float | None = None) -> ClusterStatusReply:
        """Return what a node says about itself and its cluster; the leader if one is known."""
        return self._get(ClusterStatus(), ClusterStatusReply, 0, timeout)[0]

    def audit(
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
        return self._get(request, AuditListReply, 0, timeout)[0].records

    def _get(
        self, request: Request, kind: type[R], account: Account, timeout: float | None
    ) -> tuple[R, int]:
        """Ask, and insist on the kind of response that belongs to the request."""
        response, position = self._ask(request, account, timeout)
        assert isinstance(response, kind), response
        return response, position

    def _pages(
        self, request: Paged, kind: type[P], account: Account, timeout: float | None
    ) -> Iterator[P]:
        """Ask for page after page."""
        while True:
            page = self._get(request, kind, account, timeout)[0]
            yield page
            if not questions.follow(request, page):
                return


_Answered = tuple[Response, int]


class Metrics:
    """Create, change and list metrics. Reached as ``client.metrics``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def create(self, schema: MetricSchema, *, timeout: float | None = None) -> None:
        """Create a metric. The same again is fine, another of that code AlreadyExistsError."""
        try:
            self._put(schema, PutMode.CREATE, timeout)
        except CreatedInDoubtError:
            if self.get(schema.code, timeout=timeout) != schema:
                raise

    def update(self, schema: MetricSchema, *, timeout: float | None = None) -> None:
        """Change a metric in a way that keeps its history meaningful; see the reference."""
        self._put(schema, PutMode.UPDATE, timeout)

    def put(self, schema: MetricSchema, *, timeout: float | None = None) -> None:
        """Create the metric, or change it if it exists."""
        self._put(schema, PutMode.PUT, timeout)

    def delete(self, code: str, *, timeout: float | None = None) -> None:
        """Delete a metric and its totals; its code is free afterwards."""
        self._surface._get(questions.metric_delete(code), Done, 0, timeout)

    def get(
        self, code: str, *, linearizable: bool = False, timeout: float | None = None
    ) -> MetricSchema:
        """Return one metric in full; `NotFoundError` if there is none."""
        return questions.metric_named(self.iter(linearizable=linearizable, timeout=timeout), code)

    def list(
        self, *, linearizable: bool = False, timeout: float | None = None
    ) -> list[MetricSchema]:
        """Return every metric in full, in the order of creation."""
        return [*self.iter(linearizable=linearizable, timeout=timeout)]

    def iter(
        self, *, linearizable: bool = False, timeout: float | None = None
    ) -> Iterator[MetricSchema]:
        """Stream what `list` returns; `timeout` holds for each page."""
        request = MetricList(linearizable=linearizable)
        for page in self._surface._pages(request, MetricListReply, 0, timeout):
            yield from page.metrics

    def _put(self, schema: MetricSchema, mode: PutMode, timeout: float | None) -> None:
        self._surface._get(questions.metric_put(schema, mode), Done, 0, timeout)


class Alerts:
    """Subscribe to alerts. Reached as ``client.alerts``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def subscribe(
        self,
        *,
        account_ids: Iterable[Account] | None = None,
        metric_codes: Iterable[str] | None = None,
        since_offset: Mapping[str, int] | None = None,
        after: int | None = None,
        buffer_size: int = 64,
        timeout: float | None = None,
    ) -> AlertStream:
        """Return a stream of alerts, each once and in order, over any reconnect.

        It begins after position `after`, or after what `offsets()` returned in an
        earlier process, or for named accounts with their first alert, or now.
        `buffer_size` is kept for programs written for the published SDK.
        """
        assert buffer_size >= 1, buffer_size
        request = questions.push(account_ids, metric_codes, since_offset, after)
        return self._surface._subscribe(request, timeout)


class Cluster:
    """Look at the nodes and move leadership. Reached as ``client.cluster``."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def status(self, *, timeout: float | None = None) -> ClusterStatusReply:
        """Return the cluster as its leader sees it; `nodes` has a `NodeStatus` for each."""
        return self._surface.status(timeout=timeout)

    def transfer_leader(self, node_id: int = 0, *, timeout: float | None = None) -> None:
        """Hand leadership to a node, or to any that is up to date, and return when it leads.

        For maintenance: clients go on without an error. `InvalidInputError` if there is
        no such node.
        """
        self._surface._get(questions.transfer(node_id), Done, 0, timeout)
