"""Read-only answers: totals, breakdowns, series, accounts, members, alerts.

    plan = plan_total(machine, account, code, start_ns, end_ns, filters)
    if plan.edges:                      # an edge of the range cuts a bucket
        rows = chain of stored, counted events of every edge   (may run in a thread)
    answer = plan.finish(rows)          # rows = () without edges

Totals are kept in buckets. Whole buckets of a range are read at once, while
the machine stands still; where an edge of the range cuts a bucket, the events
of that piece must come from the store, so the plan lists it. For each edge the
host passes `EventStore.rows(edge.account, edge.metric_code, edge.start_ns,
edge.end_ns, plan.from_index, plan.position)`; anything that has `.offset` and
`.row` (engine.records.EventRow) will do. A plan holds copies, so the machine may
go on applying entries before `finish`, and both answer for `plan.position`.

    range     |-----------------------------|
    buckets  |    |    |    |    |    |    |    |
              edge  whole buckets ...  edge

An edge is not listed where memory already knows: the bucket has no events, all
of them are before the piece, or it starts the piece and its newest event is
before the piece's end. The last is the commonest question of all: from the start
of the month until now.

`alert_flags` tell which thresholds fired in any billing period that shares an
instant with the range; they are the account's, whatever the filters.

It refuses to change anything, and to round a range to buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from unimeter.engine.alert_log import AlertLine as AlertLine
from unimeter.engine.alert_log import alert_at as alert_at
from unimeter.engine.alert_log import check_limit
from unimeter.engine.alert_log import list_alerts as list_alerts
from unimeter.engine.answers import COUNT_UNIQUE, Chooser, Filters, Reading
from unimeter.engine.catalog import Metric
from unimeter.engine.cells import (
    STRING,
    Window,
    account_of,
    clamp,
    flags_of,
    is_outside,
    known_total,
    read,
    series_of,
    texts_of,
)
from unimeter.errors import InvalidInputError
from unimeter.limits import PAGE_ITEMS_MAX, TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.periods import make_calendar, zone_transitions
from unimeter.types import Account, AccountTotal, AggType, AggValue, PeriodType

T = TypeVar("T")

ACCOUNTS_PER_PAGE_MAX = 1_000  # read on the thread that counts: 10 ms of it
_WINDOW_KINDS = (PeriodType.HOUR, PeriodType.DAY, PeriodType.WEEK, PeriodType.CALENDAR)


@dataclass(frozen=True, slots=True)
class Edge:
    """A range inside a bucket, to be answered from stored events; account None = of all."""

    account: Account | None
    metric_code: str
    start_ns: int
    end_ns: int


class Plan(Generic[T]):
    """What was read from memory, and what stored events are still needed."""

    __slots__ = ("_finish", "edges", "end_ns", "from_index", "position", "start_ns")

    def __init__(
        self,
        machine: Any,
        metric: Metric,
        start_ns: int,
        end_ns: int,
        edges: list[Edge],
        finish: Callable[[Iterable[Any]], T],
    ) -> None:
        self.position: int = machine.applied  # the log index the answer reflects
        self.from_index = metric.created_index  # earlier ones: a deleted metric of that code
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.edges = edges
        self._finish = finish

    def finish(self, rows: Iterable[Any] = ()) -> T:
        """The answer, from what was read and the edges' events."""
        return self._finish(rows)


# --- edges ---------------------------------------------------------------------------


def _joined(pieces: Iterable[Window]) -> list[Window]:
    """The pieces in order, those that touch made one."""
    joined: list[Window] = []
    for start, end in sorted(pieces):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _edges(account: Account | None, metric: Metric, pieces: Iterable[Window]) -> list[Edge]:
    return [Edge(account, metric.code, start, end) for start, end in _joined(pieces)]


def _add_rows(reading: Reading, rows: Iterable[Any]) -> None:
    for stored in rows:
        row = stored.row
        reading.add_event(row.timestamp_ns, stored.offset, row.value, row.operation, row.properties)


# --- the questions ------------------------------------------------------------------


def plan_total(
    machine: Any,
    account: Account,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    filters: Filters | None = None,
) -> Plan[AggValue]:
    """A total over any range. Unknown accounts have zeros; unknown metrics NotFoundError."""
    metric: Metric = machine.catalog.find(metric_code)
    window = clamp(start_ns, end_ns)
    series = -1 if is_outside(start_ns, end_ns) else series_of(machine, account, metric)
    flags = flags_of(machine, metric, series, *window)
    if not filters:
        value = known_total(machine, metric, series, *window)
        if value is not None:
            value.alert_flags = flags
            return Plan(machine, metric, start_ns, end_ns, [], lambda rows: value)
    chooser = Chooser(metric.schema, filters, (), texts_of(machine, metric))
    reading = read(machine, metric, series, [window], chooser)

    def finish(rows: Iterable[Any]) -> AggValue:
        _add_rows(reading, rows)
        total = reading.value(0)
        total.alert_flags = flags
        return total

    edges = _edges(account, metric, reading.edges)
    return Plan(machine, metric, start_ns, end_ns, edges, finish)


def plan_realtime(machine: Any, account: Account, metric_code: str, now_ns: int) -> Plan[AggValue]:
    """The total of the billing period that holds `now_ns`; its bounds are the plan's."""
    metric: Metric = machine.catalog.find(metric_code)
    now = min(max(now_ns, TIMESTAMP_NS_MIN), TIMESTAMP_NS_MAX - 1)
    start_ns, end_ns = metric.period.bounds(now)
    return plan_total(machine, account, metric_code, start_ns, end_ns)


Breakdown = list[tuple[list[tuple[str, str]], AggValue]]


def plan_breakdown(
    machine: Any,
    account: Account,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    keys: Sequence[str],
    filters: Filters | None = None,
) -> Plan[Breakdown]:
    """One ([(key, value), ...], total) per combination that has events, sorted by values."""
    metric: Metric = machine.catalog.find(metric_code)
    if not keys:
        raise InvalidInputError("a breakdown needs at least one dimension to group by")
    window = clamp(start_ns, end_ns)
    series = -1 if is_outside(start_ns, end_ns) else series_of(machine, account, metric)
    chooser = Chooser(metric.schema, filters, keys, texts_of(machine, metric))
    reading = read(machine, metric, series, [window], chooser)
    flags = flags_of(machine, metric, series, *window)

    def finish(rows: Iterable[Any]) -> Breakdown:
        _add_rows(reading, rows)
        lines = []
        for group in reading.groups():
            total = reading.value(0, group)
            total.alert_flags = flags
            if total.count or total.last_timestamp:
                lines.append((list(zip(keys, group, strict=True)), total))
        return lines

    edges = _edges(account, metric, reading.edges)
    return Plan(machine, metric, start_ns, end_ns, edges, finish)


def plan_series(
    machine: Any,
    account: Account,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    window: int,
    zone: str = "",
    filters: Filters | None = None,
) -> Plan[list[tuple[int, int, AggValue]]]:
    """(start, end, total) of every window of the range, cut to the range.

    `window` 0 hour, 1 day, 2 week, 3 month; `zone` an IANA name, "" = UTC. A zone
    that is not the metric's own is read from this host's database: it shapes
    this answer and nothing that is kept.
    """
    metric: Metric = machine.catalog.find(metric_code)
    windows = _windows(metric, clamp(start_ns, end_ns), window, zone)
    if is_outside(start_ns, end_ns):
        return Plan(machine, metric, start_ns, end_ns, [], lambda rows: [])
    series = series_of(machine, account, metric)
    chooser = Chooser(metric.schema, filters, (), texts_of(machine, metric))
    reading = read(machine, metric, series, windows, chooser)
    flags = [flags_of(machine, metric, series, *each) for each in windows]

    def finish(rows: Iterable[Any]) -> list[tuple[int, int, AggValue]]:
        _add_rows(reading, rows)
        lines = []
        for number, (first, last) in enumerate(windows):
            total = reading.value(number)
            total.alert_flags = flags[number]
            lines.append((first, last, total))
        return lines

    edges = _edges(account, metric, reading.edges)
    return Plan(machine, metric, start_ns, end_ns, edges, finish)


def _windows(metric: Metric, within: Window, window: int, zone: str) -> list[Window]:
    if window not in range(len(_WINDOW_KINDS)):
        raise InvalidInputError(f"window {window!r} is not 0 hour, 1 day, 2 week or 3 month")
    own = zone == metric.schema.zone
    transitions = metric.transitions if own else zone_transitions(zone or "UTC")
    calendar = make_calendar(_WINDOW_KINDS[window], 1, 0, transitions)
    windows: list[Window] = []
    for first, last in calendar.periods(*within):
        if len(windows) == PAGE_ITEMS_MAX:
            raise InvalidInputError(
                f"the range has more than {PAGE_ITEMS_MAX} windows; ask for a shorter range "
                "or a longer window"
            )
        windows.append((max(first, within[0]), min(last, within[1])))
    return windows


def plan_accounts(
    machine: Any,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    cursor: bytes = b"",
    limit: int = ACCOUNTS_PER_PAGE_MAX,
) -> Plan[tuple[list[AccountTotal], bytes]]:
    """A page of accounts with their totals, newest account first, and the next cursor.

    Accounts with events in the range, or members carried into it. A page may
    hold fewer than `limit`, even none; only an empty cursor means the end.
    """
    metric: Metric = machine.catalog.find(metric_code)
    window = clamp(start_ns, end_ns)
    chooser = Chooser(metric.schema, None, (), texts_of(machine, metric))
    link = 0 if is_outside(start_ns, end_ns) else _first_link(machine, metric, cursor)
    known: list[tuple[Account, AggValue]] = []
    readings: dict[Account, Reading] = {}
    for _ in range(min(check_limit(limit), ACCOUNTS_PER_PAGE_MAX)):
        if not link:
            break
        head = machine.counter.totals.series_at(link - 1)
        account = account_of(machine, head[0], head[1])
        value = known_total(machine, metric, link - 1, *window)
        if value is None:
            readings[account] = read(machine, metric, link - 1, [window], chooser)
            value = AggValue()
        value.alert_flags = flags_of(machine, metric, link - 1, *window)
        known.append((account, value))
        link = head[4]
    after = link.to_bytes(8, "little") if link else b""

    def finish(rows: Iterable[Any]) -> tuple[list[AccountTotal], bytes]:
        _add_rows_by_account(readings, rows)
        lines = []
        for account, value in known:
            if account in readings:
                flags, value = value.alert_flags, readings[account].value(0)
                value.alert_flags = flags
            if value.count or value.last_timestamp:
                lines.append(AccountTotal(account, value))
        return lines, after

    pieces = [piece for reading in readings.values() for piece in reading.edges]
    return Plan(machine, metric, start_ns, end_ns, _edges(None, metric, pieces), finish)


def _add_rows_by_account(readings: dict[Account, Reading], rows: Iterable[Any]) -> None:
    for stored in rows:
        reading = readings.get(stored.row.account)
        if reading is not None:
            _add_rows(reading, (stored,))


def _first_link(machine: Any, metric: Metric, cursor: bytes) -> int:
    """The series (row + 1) a page starts at; a cursor must name one of the metric's."""
    if not cursor:
        return int(machine.counter.head_of(metric.number))
    link = int.from_bytes(cursor, "little")
    totals = machine.counter.totals
    if len(cursor) == 8 and 0 < link <= totals.series_count:
        if totals.series_at(link - 1)[1] & ~STRING == metric.number:
            return link
    raise InvalidInputError("this cursor is not one of a list of this metric's accounts")


def plan_members(
    machine: Any,
    account: Account,
    metric_code: str,
    at_ns: int,
    cursor: bytes = b"",
    limit: int = PAGE_ITEMS_MAX,
) -> Plan[tuple[list[int], bytes]]:
    """A page of the members active at `at_ns`, ascending, and the next cursor.

    An operation at that very instant has happened. Members of a metric that
    is not recurring are those of the billing period that holds the instant.
    """
    metric: Metric = machine.catalog.find(metric_code)
    if metric.agg != COUNT_UNIQUE:
        raise InvalidInputError(
            f"metric {metric_code!r} is {AggType(metric.agg).name}; only COUNT_UNIQUE has members"
        )
    page = check_limit(limit)
    above = _member_cursor(cursor)
    instant, after = clamp(at_ns, at_ns + 1)
    window = max(metric.period.bounds(instant)[0], TIMESTAMP_NS_MIN), after
    chooser = Chooser(metric.schema, None, (), texts_of(machine, metric))
    series = -1 if at_ns < TIMESTAMP_NS_MIN else series_of(machine, account, metric)
    reading = read(machine, metric, series, [window], chooser, True)

    def finish(rows: Iterable[Any]) -> tuple[list[int], bytes]:
        _add_rows(reading, rows)
        members = [member for member in reading.members() if above is None or member > above]
        if len(members) <= page:
            return members, b""
        return members[:page], members[page - 1].to_bytes(8, "little", signed=True)

    edges = _edges(account, metric, reading.edges)
    return Plan(machine, metric, *window, edges, finish)


def _member_cursor(cursor: bytes) -> int | None:
    if len(cursor) not in (0, 8):
        raise InvalidInputError("this cursor is not one of a list of members")
    return int.from_bytes(cursor, "little", signed=True) if cursor else None
