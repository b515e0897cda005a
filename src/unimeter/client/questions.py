"""From a method's arguments to a request, and from a reply to what it returns.

Owns everything that `Client`, `AsyncClient` and the embedded engine must do in
the same way without any waiting: checking arguments, turning datetimes into
nanoseconds, following the pages of a list. Each question is a pure function
here, so the three differ in nothing but how a request gets its reply.

A period's bounds must name their zone and its end must follow its start; an
account or a metric code is checked before anything is sent. Filters take one
value or several per dimension: several mean "any of these".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from unimeter.client.checks import check_account, check_metric_code, check_schema
from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.types import (
    Account,
    AggValue,
    AlertRecord,
    MetricSchema,
    Period,
    SeriesPoint,
    UsageResult,
    from_ns,
    to_ns,
)
from unimeter.wire.messages import (
    Accounts,
    AccountsReply,
    AlertPushEnable,
    AlertsList,
    AlertsListReply,
    Breakdown,
    BreakdownReply,
    EventsList,
    EventsListReply,
    Members,
    MembersReply,
    MetricDelete,
    MetricList,
    MetricListReply,
    MetricPut,
    PutMode,
    Series,
    SeriesReply,
    TransferLeader,
    UsageQuery,
    UsageRealtime,
    UsageReply,
    Window,
)

FilterValues = Mapping[str, str | Sequence[str]]


# --- requests ----------------------------------------------------------------


def usage(
    account_id: Account,
    metric_code: str,
    period: Period,
    filters: FilterValues | None,
    linearizable: bool,
) -> UsageQuery:
    """The request for a total."""
    start_ns, end_ns = bounds(period)
    return UsageQuery(
        check_account(account_id),
        check_metric_code(metric_code),
        start_ns,
        end_ns,
        filter_lists(filters),
        linearizable=linearizable,
    )


def breakdown(
    account_id: Account,
    metric_code: str,
    period: Period,
    group_by: Sequence[str],
    filters: FilterValues | None,
    linearizable: bool,
) -> Breakdown:
    """The request for totals per combination of dimension values."""
    start_ns, end_ns = bounds(period)
    return Breakdown(
        check_account(account_id),
        check_metric_code(metric_code),
        start_ns,
        end_ns,
        text_list(group_by, "group_by"),
        filter_lists(filters),
        linearizable=linearizable,
    )


def realtime(account_id: Account, metric_code: str, linearizable: bool) -> UsageRealtime:
    """The request for the current billing period's total."""
    return UsageRealtime(
        check_account(account_id), check_metric_code(metric_code), linearizable=linearizable
    )


def events(
    account_id: Account,
    since: datetime,
    until: datetime,
    metric_code: str | None,
    linearizable: bool,
) -> EventsList:
    """The request for the first page of an account's stored events."""
    since_ns, until_ns = bounds(Period(since, until), "since", "until")
    code = None if metric_code is None else check_metric_code(metric_code)
    account = check_account(account_id)
    return EventsList(account, code, since_ns, until_ns, linearizable=linearizable)


def alerts(
    account_id: Account | None,
    since_offset: int,
    metric_code: str | None,
    after: int,
    linearizable: bool,
) -> AlertsList:
    """The request for the first page of alerts."""
    return AlertsList(
        None if account_id is None else check_account(account_id),
        None if metric_code is None else check_metric_code(metric_code),
        count_of(after, "after"),
        since_offset=count_of(since_offset, "since_offset"),
        linearizable=linearizable,
    )


def accounts(metric_code: str, period: Period, linearizable: bool) -> Accounts:
    """The request for the first page of an invoice run."""
    start_ns, end_ns = bounds(period)
    code = check_metric_code(metric_code)
    return Accounts(code, start_ns, end_ns, linearizable=linearizable)


def series(
    account_id: Account,
    metric_code: str,
    period: Period,
    window: str | Window,
    zone: str,
    filters: FilterValues | None,
    linearizable: bool,
) -> Series:
    """The request for a time series."""
    start_ns, end_ns = bounds(period)
    if not isinstance(zone, str):
        raise InvalidInputError(f"zone must be an IANA name such as 'UTC', not {zone!r}")
    return Series(
        check_account(account_id),
        check_metric_code(metric_code),
        start_ns,
        end_ns,
        window_of(window),
        zone,
        filter_lists(filters),
        linearizable=linearizable,
    )


def members(account_id: Account, metric_code: str, at_ns: int, linearizable: bool) -> Members:
    """The request for the first page of a seat list."""
    code = check_metric_code(metric_code)
    return Members(check_account(account_id), code, at_ns, linearizable=linearizable)


def metric_put(schema: MetricSchema, mode: PutMode) -> MetricPut:
    """The request that creates or changes a metric."""
    return MetricPut(check_schema(schema), mode)


def transfer(node_id: int) -> TransferLeader:
    """The request that hands leadership to a node."""
    if isinstance(node_id, bool) or not isinstance(node_id, int) or not 0 <= node_id <= 255:
        raise InvalidInputError(f"node_id must be an int from 0 to 255, not {node_id!r}")
    return TransferLeader(node_id)


def metric_delete(code: str) -> MetricDelete:
    """The request that deletes a metric."""
    return MetricDelete(check_metric_code(code))


def push(
    account_ids: Iterable[Account] | None,
    metric_codes: Iterable[str] | None,
    since_offset: Mapping[str, int] | None,
    after: int | None,
) -> AlertPushEnable:
    """The request that starts a subscription.

    Where to begin: after the position given; else after the highest position in
    a dict that `Subscription.offsets()` returned; else, for named accounts,
    with their first alert (as the published SDK does); else from now on.
    """
    account_list = [check_account(account) for account in account_ids or ()]
    if after is not None:
        after = count_of(after, "after")
    elif since_offset:
        after = max(count_of(value, "since_offset") for value in since_offset.values())
    elif account_list:
        after = 0
    codes = [check_metric_code(code) for code in metric_codes or ()]
    return AlertPushEnable(after, account_list, codes)


# --- arguments ---------------------------------------------------------------


def bounds(period: Period, start: str = "period.start", end: str = "period.end") -> tuple[int, int]:
    """A period in nanoseconds; raise InvalidInputError if it is empty or has no zone."""
    if not isinstance(period, Period):
        raise InvalidInputError(
            f"period must be a Period, not {type(period).__name__}; "
            "use current_month() or Period(start, end)"
        )
    start_ns, end_ns = to_ns(period.start, start), to_ns(period.end, end)
    if end_ns <= start_ns:
        raise InvalidInputError(f"{end} {period.end} is not after {start} {period.start}")
    return start_ns, end_ns


def filter_lists(filters: FilterValues | None) -> dict[str, list[str]]:
    """Filters with a list per dimension."""
    if not filters:
        return {}
    if not isinstance(filters, Mapping):
        raise InvalidInputError(f"filters must be a dict such as {{'region': 'eu'}}: {filters!r}")
    lists = {}
    for key, values in filters.items():
        if not isinstance(key, str):
            raise InvalidInputError(f"a filter's key must be a str, not {key!r}")
        lists[key] = [values] if isinstance(values, str) else text_list(values, f"filter {key!r}")
    return lists


def text_list(texts: Sequence[str], what: str) -> list[str]:
    """A non-empty list of strings; one string is not taken for a list of letters."""
    listed = [] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if not listed or not all(isinstance(text, str) for text in listed):
        raise InvalidInputError(f"{what} must be a non-empty list of str, not {texts!r}")
    return listed


def window_of(window: str | Window) -> Window:
    """A window by its name."""
    if isinstance(window, Window):
        return window
    if isinstance(window, str) and window.upper() in Window.__members__:
        return Window[window.upper()]
    names = ", ".join(repr(name.lower()) for name in Window.__members__)
    raise InvalidInputError(f"window {window!r} is none of {names}")


def count_of(number: int, what: str) -> int:
    """A position or offset: an int from 0 up."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise InvalidInputError(f"{what} must be an int from 0 up, not {number!r}")
    return number


# --- pages and results -------------------------------------------------------

Paged = EventsList | Accounts | Members | MetricList | AlertsList
Page = EventsListReply | AccountsReply | MembersReply | MetricListReply | AlertsListReply


def follow(request: Paged, page: Page) -> bool:
    """Turn `request` into the one for the next page; False when this was the last."""
    if isinstance(request, AlertsList):
        assert isinstance(page, AlertsListReply)
        if not page.more or not page.alerts:
            return False
        request.after = page.alerts[-1].position
        return True
    assert not isinstance(page, AlertsListReply)
    if not page.cursor:
        return False
    assert page.cursor != request.cursor, "a page that leads back to itself"
    request.cursor = page.cursor
    return True


def usage_result(reply: UsageReply, period: Period, position: int) -> UsageResult:
    """A total with the range that was asked for, in the caller's own datetimes."""
    return UsageResult(reply.value, period.start, period.end, position)


def breakdown_result(reply: BreakdownReply) -> dict[frozenset[tuple[str, str]], AggValue]:
    """Totals by set of (key, value) pairs."""
    return {frozenset(row.pairs): row.value for row in reply.rows}


def series_result(reply: SeriesReply) -> list[SeriesPoint]:
    """One point per window, in order."""
    return [SeriesPoint(from_ns(r.start_ns), from_ns(r.end_ns), r.value) for r in reply.rows]


def alert_records(reply: AlertsListReply, address: str) -> list[AlertRecord]:
    """The alerts of a page, as coming from the node at `address`."""
    return [row.record(address) for row in reply.alerts]


def metric_named(metrics: Iterable[MetricSchema], code: str) -> MetricSchema:
    """The metric of that code; raise NotFoundError if there is none."""
    for schema in metrics:
        if schema.code == code:
            return schema
    raise NotFoundError(f"metric {code!r} does not exist")
