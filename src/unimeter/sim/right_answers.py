"""What a correct node answers to a read, at any position of the log.

Owns the second opinion on `server.handlers` and `engine.query`: a request and a position in,
the response out, computed from the list of counted events. Ranges may cut buckets. The node
is one that has applied exactly so far and stores every event; what others may answer as
well is `answer_checks`' business.

Not covered: requests that change something (`Committed.expected` says what became of
those), HELLO, status and subscriptions. A refusal is its code, without words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.limits import PAGE_ITEMS_MAX, TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.sim.committed import Committed, Stored
from unimeter.sim.counting import Alert, check_range, clamp
from unimeter.types import (
    Account,
    AccountTotal,
    AggType,
    Direction,
    EventRecord,
    OperationType,
    from_ns,
)
from unimeter.wire import messages as m

ACCOUNTS_PAGE_MAX: Final = 1_000
EVENTS_PAGE_MAX: Final = 10 * PAGE_ITEMS_MAX

_EVENT_CURSOR: Final = re.compile(rb"([0-9]{1,19})-([0-9]{1,9})")


# --- one answer ------------------------------------------------------------------------


def answer(log: Committed, request: m.Request, at: int, now_ns: int = 0) -> m.Response:
    """The response at a position; an ErrorReply has no words. `now_ns`: the node's clock."""
    try:
        return _answer(log, request, at, now_ns)
    except NotFoundError:
        return m.ErrorReply(m.ErrorCode.NOT_FOUND)
    except InvalidInputError:
        return m.ErrorReply(m.ErrorCode.INVALID_INPUT)


def _answer(log: Committed, request: m.Request, at: int, now_ns: int) -> m.Response:
    assert isinstance(request, m.Read), f"{type(request).__name__} is no read"
    assert 0 <= at <= log.position, f"position {at} of {log.position}"
    if request.min_position > at:
        return m.ErrorReply(m.ErrorCode.BACKPRESSURE)
    _check_limit(request)
    model = log.model
    match request:
        case m.UsageQuery():
            value = model.total(
                request.account,
                request.metric_code,
                request.start_ns,
                request.end_ns,
                request.filters,
                at,
            )
            return m.UsageReply(value, request.start_ns, request.end_ns)
        case m.UsageRealtime():
            now = min(max(now_ns, TIMESTAMP_NS_MIN), TIMESTAMP_NS_MAX - 1)
            start, end = model.find(request.metric_code, at).calendar.bounds(now)
            value = model.total(request.account, request.metric_code, start, end, None, at)
            return m.UsageReply(value, start, end)
        case m.Breakdown():
            return _breakdown(log, request, at)
        case m.Series():
            return _series(log, request, at)
        case m.Accounts():
            return _accounts(log, request, at)
        case m.Members():
            return _members(log, request, at)
        case m.AlertsList():
            return _alerts(log, request, at)
        case m.MetricList():
            return _metrics(log, request, at)
        case m.EventsList():
            return page_of(request, list(events_of(log, request, at)))
        case m.KeyList() | m.WebhookList() | m.AuditList():
            raise AssertionError("no simulated client asks about administration")


def _check_limit(request: m.Read) -> None:
    limit = getattr(request, "limit", 1)
    most = EVENTS_PAGE_MAX if isinstance(request, m.EventsList) else PAGE_ITEMS_MAX
    if not 1 <= limit <= most:
        raise InvalidInputError(f"limit {limit}")


def _breakdown(log: Committed, request: m.Breakdown, at: int) -> m.Response:
    log.model.find(request.metric_code, at)
    if not request.keys:
        raise InvalidInputError("by nothing")
    lines = log.model.breakdown(
        request.account,
        request.metric_code,
        request.start_ns,
        request.end_ns,
        request.keys,
        request.filters,
        at,
    )
    return m.BreakdownReply([m.BreakdownRow(pairs, value) for pairs, value in lines])


def _series(log: Committed, request: m.Series, at: int) -> m.Response:
    windows = list(windows_of(log, request, at))
    if len(windows) > PAGE_ITEMS_MAX:
        raise InvalidInputError("too many windows")
    lines = log.model.series(
        request.account,
        request.metric_code,
        request.start_ns,
        request.end_ns,
        int(request.window),
        request.zone,
        request.filters,
        at,
    )
    return m.SeriesReply([m.SeriesRow(*line) for line in lines])


def windows_of(log: Committed, request: m.Series, at: int) -> Iterator[tuple[int, int]]:
    """The windows of a series, uncut; at most one more than a page holds."""
    log.model.find(request.metric_code, at)
    check_range(request.start_ns, request.end_ns)
    calendar = log.model.windows(request.metric_code, int(request.window), request.zone, at)
    windows = calendar.periods(*clamp(request.start_ns, request.end_ns))
    return islice(windows, PAGE_ITEMS_MAX + 1)


def _members(log: Committed, request: m.Members, at: int) -> m.Response:
    metric = log.model.find(request.metric_code, at)
    if metric.schema.agg_type != AggType.COUNT_UNIQUE:
        raise InvalidInputError("no members")
    if len(request.cursor) not in (0, 8):
        raise InvalidInputError("no cursor of members")
    members = log.model.members(request.account, request.metric_code, request.at_ns, at)
    if request.cursor:
        last = int.from_bytes(request.cursor, "little", signed=True)
        members = [member for member in members if member > last]
    page = members[: request.limit]
    is_last = len(page) == len(members)
    cursor = b"" if is_last else page[-1].to_bytes(8, "little", signed=True)
    return m.MembersReply(page, cursor)


def _alerts(log: Committed, request: m.AlertsList, at: int) -> m.Response:
    if request.metric_code is not None:
        ever = [one.schema.code for one in log.model.metrics if one.created_index <= at]
        if request.metric_code not in ever:
            raise NotFoundError(request.metric_code)
    chosen = [
        alert
        for alert in log.model.alerts_at(at)
        if alert.position > request.after
        and alert.offset >= request.since_offset
        and request.account in (None, alert.account)
        and request.metric_code in (None, alert.metric_code)
    ]
    page = chosen[: request.limit]
    return m.AlertsListReply([alert_row(alert) for alert in page], len(page) < len(chosen))


def alert_row(alert: Alert) -> m.AlertRow:
    """An alert as it travels."""
    return m.AlertRow(
        offset=alert.offset,
        account=alert.account,
        metric_code=alert.metric_code,
        threshold_code=alert.threshold_code,
        value=alert.value,
        timestamp_ns=alert.timestamp_ns,
        position=alert.position,
        direction=Direction(alert.direction),
        period_start_ns=alert.period_start_ns,
    )


def _metrics(log: Committed, request: m.MetricList, at: int) -> m.Response:
    if len(request.cursor) not in (0, 4):
        raise InvalidInputError("no cursor of metrics")
    after = int.from_bytes(request.cursor, "little")
    live = [metric for metric in log.model.live(at) if metric.number > after]
    page = live[: request.limit]
    cursor = b"" if len(page) == len(live) else page[-1].number.to_bytes(4, "little")
    return m.MetricListReply([metric.schema_at(at) for metric in page], cursor)


# --- accounts ----------------------------------------------------------------------------


def chain_of(log: Committed, request: m.Accounts, at: int) -> list[tuple[int, Account]]:
    """The accounts that a page may go through, newest first, with the number of each.

    Accounts of all metrics are numbered from 1 in the order of their first counted event;
    a cursor is the number of the one that the next page begins with.
    """
    metric = log.model.find(request.metric_code, at)
    check_range(request.start_ns, request.end_ns)
    if request.end_ns <= TIMESTAMP_NS_MIN or request.start_ns >= TIMESTAMP_NS_MAX:
        return []
    first_events = [one for one in log.model.first_events if one[0] <= at]
    chain = [
        (number, account)
        for number, (_, metric_number, account) in enumerate(first_events, start=1)
        if metric_number == metric.number
    ][::-1]
    if not request.cursor:
        return chain
    number = int.from_bytes(request.cursor, "little")
    if len(request.cursor) != 8 or number not in [number for number, _ in chain]:
        raise InvalidInputError("no cursor of this metric's accounts")
    return [one for one in chain if one[0] <= number]


def lines_of(
    log: Committed, request: m.Accounts, accounts: Sequence[tuple[int, Account]], at: int
) -> list[AccountTotal]:
    """The lines of those accounts that have something in the range."""
    totals = log.model.accounts(request.metric_code, request.start_ns, request.end_ns, at)
    return [AccountTotal(name, totals[name]) for _, name in accounts if name in totals]


def _accounts(log: Committed, request: m.Accounts, at: int) -> m.Response:
    chain = chain_of(log, request, at)
    count = min(request.limit, ACCOUNTS_PAGE_MAX)
    cursor = chain[count][0].to_bytes(8, "little") if len(chain) > count else b""
    return m.AccountsReply(lines_of(log, request, chain[:count], at), cursor)


# --- events --------------------------------------------------------------------------------


def events_of(log: Committed, request: m.EventsList, at: int) -> Iterator[Stored]:
    """The stored events of a list from its cursor on."""
    if request.until_ns <= request.since_ns:
        raise InvalidInputError("a range that ends before it starts")
    first = (0, 0)
    if request.cursor:
        found = _EVENT_CURSOR.fullmatch(request.cursor)
        if found is None:
            raise InvalidInputError("no cursor of events")
        first = int(found[1]), int(found[2])
    for one in log.counted(at):
        if (
            (one.index, one.number) >= first
            and one.row.account == request.account
            and request.metric_code in (None, one.row.metric_code)
            and request.since_ns <= one.row.timestamp_ns < request.until_ns
        ):
            yield one


def page_of(request: m.EventsList, events: Sequence[Stored]) -> m.EventsListReply:
    cursor = b""
    if len(events) > request.limit:
        following = events[request.limit]
        cursor = b"%d-%d" % (following.index, following.number)
    return m.EventsListReply([event_record(one) for one in events[: request.limit]], cursor)


def event_record(stored: Stored) -> EventRecord:
    """A counted event as it is listed."""
    row = stored.row
    return EventRecord(
        row.account,
        row.metric_code,
        row.value,
        OperationType(row.operation),
        from_ns(row.timestamp_ns),
        stored.offset,
        dict(row.properties),
        row.id,
        row.timestamp_ns,
    )
