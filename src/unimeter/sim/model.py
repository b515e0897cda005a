"""An independent meter: slow, in plain Python, and obviously right.

Owns a second opinion on every answer of the engine. It keeps the list of
counted events and computes each total, set of members and crossing from that
list when asked, with Python's integers. It shares nouns (`types`, `errors`,
`limits`) and calendars with the engine, and not a line of its kernels, so an
error would have to be made twice, in two ways, to go unnoticed.

It refuses to read bytes, check definitions or judge malformed events: it is
told what the log says, entry by entry, in log order:

    put(index, schema, transitions)      a METRIC_PUT that was accepted
    delete(code)                         a METRIC_DELETE that was accepted
    ingest(entry's timestamp, requests)  an EVENTS entry -> outcomes

Everything costs time proportional to the events of one account and metric.
Rejected: keeping running totals here too, which would have the bugs of the
thing it is to check.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.limits import KEY_WINDOW_DAYS, TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.periods import (
    DAY_NS,
    FIXED_PERIOD_NS_DEFAULT,
    Calendar,
    Transitions,
    make_calendar,
    zone_transitions,
)
from unimeter.types import (
    Account,
    AggType,
    AggValue,
    Direction,
    MetricSchema,
    OperationType,
    Outcome,
    PeriodType,
)

Filters = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Row:
    """One event as the log has it."""

    account: Account
    metric_code: str
    value: int
    timestamp_ns: int
    is_given: bool = False  # whether the client gave the timestamp
    operation: int = 0
    properties: tuple[tuple[str, str], ...] = ()
    id: str | None = None
    is_v1: bool = False  # v1 events have no id; their content is their key
    refused: int = 0  # an outcome of 10-19, decided before the log


@dataclass(frozen=True)
class Request:
    """One ingest request of an entry."""

    rows: tuple[Row, ...]
    session: tuple[int, int] = (0, 0)
    sequence: int = 0


@dataclass(frozen=True)
class Counted:
    """One event that is in the totals."""

    offset: int
    value: int
    timestamp_ns: int
    operation: int
    properties: dict[str, str]

    @property
    def order(self) -> tuple[int, int]:
        """By timestamp, then by log order: what LATEST and members go by."""
        return self.timestamp_ns, self.offset


@dataclass(frozen=True)
class Alert:
    """One crossing."""

    position: int
    offset: int
    account: Account
    metric_code: str
    threshold_code: str
    value: int
    timestamp_ns: int
    direction: int
    period_start_ns: int


@dataclass
class Metric:
    """One metric and everything counted for it."""

    number: int
    schema: MetricSchema
    calendar: Calendar
    is_deleted: bool = False
    events: dict[Account, list[Counted]] = field(default_factory=dict)
    fired: dict[tuple[Account, int], list[int]] = field(default_factory=dict)
    """(account, period start) -> positions of the thresholds that fired in it."""


Key = tuple[object, ...]


class Model:
    """The meter. Fed in log order; every answer is computed from scratch."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self.keys: dict[Key, tuple[int, Key]] = {}  # key -> (day, body)
        self.alerts: list[Alert] = []
        self.next_offset = 1

    # --- what the log says -----------------------------------------------------

    def put(self, schema: MetricSchema, transitions: Transitions) -> None:
        """Take an accepted definition: a new metric, or thresholds and values added."""
        for metric in self.metrics:
            if metric.schema.code == schema.code and not metric.is_deleted:
                self._extend(metric.schema, schema)
                return
        length = FIXED_PERIOD_NS_DEFAULT
        if schema.period is not None:
            length = int(schema.period.total_seconds()) * 10**9 + schema.period.microseconds * 1000
        if schema.period_type != PeriodType.FIXED:
            length = 0
        calendar = make_calendar(schema.period_type, schema.billing_cycle_day, length, transitions)
        self.metrics.append(Metric(len(self.metrics) + 1, copy.deepcopy(schema), calendar))

    def _extend(self, old: MetricSchema, new: MetricSchema) -> None:
        for threshold in new.thresholds:
            if threshold.code not in [known.code for known in old.thresholds]:
                old.thresholds.append(threshold)
        for dimension in old.filters:
            for other in new.filters:
                if other.key == dimension.key:
                    added = [value for value in other.values if value not in dimension.values]
                    dimension.values.extend(added)

    def delete(self, code: str) -> None:
        """Take an accepted deletion."""
        self.find(code).is_deleted = True

    def ingest(self, timestamp_ns: int, rows: Iterable[Row]) -> list[Outcome]:
        """Count the events of one entry; its leader's clock showed `timestamp_ns`."""
        outcomes = []
        for row in rows:
            outcomes.append(self._count(row, timestamp_ns // DAY_NS))
            self.next_offset += 1
        return outcomes

    def _count(self, row: Row, day: int) -> Outcome:
        """The outcome of one event, by precedence; counted if it is STORED."""
        if row.refused:
            return Outcome(row.refused)
        live = [m for m in self.metrics if m.schema.code == row.metric_code and not m.is_deleted]
        if not live:
            return Outcome.UNKNOWN_METRIC
        metric = live[0]
        if row.operation and metric.schema.agg_type != AggType.COUNT_UNIQUE:
            return Outcome.OPERATION_NOT_ALLOWED
        properties = dict(row.properties)
        for dimension in metric.schema.filters:
            value = properties.get(dimension.key)
            if dimension.values and value is not None and value not in dimension.values:
                return Outcome.DIMENSION_NOT_ALLOWED
        seen = self._claim(metric, row, day)
        if seen != Outcome.STORED:
            return seen
        event = Counted(self.next_offset, row.value, row.timestamp_ns, row.operation, properties)
        self._store(metric, row.account, event)
        return Outcome.STORED

    def _claim(self, metric: Metric, row: Row, day: int) -> Outcome:
        """Whether the event's key was counted in the window; remembered if not."""
        timestamp = row.timestamp_ns if row.is_given else None
        body: Key = (row.value, row.operation, row.properties, timestamp)
        if row.id is not None:
            key: Key = ("id", metric.number, row.account, row.id)
        elif row.is_v1 and row.is_given:
            key = ("content", metric.number, row.account, *body)
        else:
            return Outcome.STORED
        known = self.keys.get(key)
        if known is not None and day - known[0] <= KEY_WINDOW_DAYS:
            return Outcome.DUPLICATE if known[1] == body else Outcome.CONFLICT
        self.keys[key] = (day, body)
        return Outcome.STORED

    def _store(self, metric: Metric, account: Account, event: Counted) -> None:
        """Add the event to the list, and look at each threshold before and after."""
        period = metric.calendar.bounds(event.timestamp_ns)
        events = metric.events.setdefault(account, [])
        if not metric.schema.thresholds:
            events.append(event)
            return
        before = self._side_numbers(metric, events, period)
        events.append(event)
        after = self._side_numbers(metric, events, period)
        for position, threshold in enumerate(metric.schema.thresholds):
            fired = metric.fired.setdefault((account, period[0]), [])
            if position in fired and not threshold.recurring:
                continue
            assert after is not None
            is_on = is_firing(after, threshold.value, threshold.direction)
            was_on = before is not None and is_firing(before, threshold.value, threshold.direction)
            if is_on and not was_on:
                fired.append(position)
                alert = Alert(
                    len(self.alerts) + 1,
                    event.offset,
                    account,
                    metric.schema.code,
                    threshold.code,
                    after[0] // after[1],
                    event.timestamp_ns,
                    int(threshold.direction),
                    period[0],
                )
                self.alerts.append(alert)

    def _side_numbers(
        self, metric: Metric, events: list[Counted], period: tuple[int, int]
    ) -> tuple[int, int] | None:
        """The number thresholds look at as (numerator, denominator); None = none yet."""
        agg = metric.schema.agg_type
        if agg == AggType.COUNT_UNIQUE:
            if metric.schema.recurring:
                return len(present(events)), 1
            return len(present(within(events, *period))), 1
        value = summarise(within(events, *period))
        if agg in (AggType.COUNT, AggType.SUM):
            return value.number(agg), 1
        if value.count == 0:
            return None
        if agg == AggType.AVG:
            return value.sum, value.count
        return value.number(agg), 1

    # --- answers -----------------------------------------------------------------

    def find(self, code: str) -> Metric:
        """The live metric of that code."""
        for metric in self.metrics:
            if metric.schema.code == code and not metric.is_deleted:
                return metric
        raise NotFoundError(f"no metric {code!r}")

    def total(
        self,
        account: Account,
        code: str,
        start_ns: int,
        end_ns: int,
        filters: Filters | None = None,
    ) -> AggValue:
        """The total over any range."""
        metric = self.find(code)
        check_range(start_ns, end_ns)
        chosen = matching(metric.schema, filters or {})
        events = [event for event in metric.events.get(account, []) if chosen(event)]
        value = self._value(metric, events, start_ns, end_ns)
        value.alert_flags = self.flags(metric, account, start_ns, end_ns)
        return value

    def _value(self, metric: Metric, events: list[Counted], start_ns: int, end_ns: int) -> AggValue:
        if metric.schema.agg_type != AggType.COUNT_UNIQUE:
            return summarise(within(events, start_ns, end_ns))
        members = self._members(metric, events, start_ns, end_ns)
        newest = summarise(within(events, start_ns, end_ns))
        return AggValue(
            count=len(members),
            unique=len(members),
            last_value=newest.last_value,
            last_timestamp=newest.last_timestamp,
        )

    def _members(
        self, metric: Metric, events: list[Counted], start_ns: int, end_ns: int
    ) -> set[int]:
        """The union, over the range's periods, of the members present at their ends."""
        start_ns, end_ns = clamp(start_ns, end_ns)
        found: set[int] = set()
        for first, last in metric.calendar.periods(start_ns, end_ns):
            begin = TIMESTAMP_NS_MIN if metric.schema.recurring else max(first, start_ns)
            found |= present(within(events, begin, min(last, end_ns)))
        return found

    def flags(self, metric: Metric, account: Account, start_ns: int, end_ns: int) -> int:
        """Bit i: threshold i fired in a period that shares an instant with the range."""
        bits = 0
        for first, _ in metric.calendar.periods(*clamp(start_ns, end_ns)):
            for position in metric.fired.get((account, first), []):
                bits |= 1 << position
        return bits

    def breakdown(
        self,
        account: Account,
        code: str,
        start_ns: int,
        end_ns: int,
        keys: Sequence[str],
        filters: Filters | None = None,
    ) -> list[tuple[list[tuple[str, str]], AggValue]]:
        """One total per combination of the keys' values that has events."""
        metric = self.find(code)
        check_range(start_ns, end_ns)
        chosen = matching(metric.schema, filters or {})
        check_declared(metric.schema, keys)
        groups: dict[tuple[str, ...], list[Counted]] = {}
        for event in metric.events.get(account, []):
            if chosen(event):
                values = tuple(event.properties.get(key, "") for key in keys)
                groups.setdefault(values, []).append(event)
        lines = []
        for values in sorted(groups):
            total = self._value(metric, groups[values], start_ns, end_ns)
            if within(groups[values], start_ns, end_ns) or total.count:
                total.alert_flags = self.flags(metric, account, start_ns, end_ns)
                lines.append((list(zip(keys, values, strict=True)), total))
        return lines

    def series(
        self,
        account: Account,
        code: str,
        start_ns: int,
        end_ns: int,
        window: int,
        zone: str = "",
        filters: Filters | None = None,
    ) -> list[tuple[int, int, AggValue]]:
        """A total per hour (0), day (1), week (2) or month (3) of the range."""
        kind = (PeriodType.HOUR, PeriodType.DAY, PeriodType.WEEK, PeriodType.CALENDAR)[window]
        windows = make_calendar(kind, 1, 0, zone_transitions(zone or "UTC"))
        lines = []
        start_ns, end_ns = clamp(start_ns, end_ns)
        for first, last in windows.periods(start_ns, end_ns):
            cut = max(first, start_ns), min(last, end_ns)
            lines.append((*cut, self.total(account, code, *cut, filters)))
        return lines

    def accounts(self, code: str, start_ns: int, end_ns: int) -> dict[Account, AggValue]:
        """Every account with events in the range, or members carried into it."""
        metric = self.find(code)
        lines = {}
        for account, events in metric.events.items():
            total = self.total(account, code, start_ns, end_ns)
            if within(events, start_ns, end_ns) or total.count:
                lines[account] = total
        return lines

    def members(self, account: Account, code: str, at_ns: int) -> list[int]:
        """Who was active at that instant."""
        metric = self.find(code)
        events = metric.events.get(account, [])
        first = metric.calendar.bounds(at_ns)[0]
        begin = TIMESTAMP_NS_MIN if metric.schema.recurring else first
        return sorted(present(within(events, begin, at_ns + 1)))


# --- straight from a list of events ------------------------------------------------


def within(events: Iterable[Counted], start_ns: int, end_ns: int) -> list[Counted]:
    """The events of a half-open range."""
    return [event for event in events if start_ns <= event.timestamp_ns < end_ns]


def summarise(events: list[Counted]) -> AggValue:
    """Every aggregation of the events but the unique ones."""
    if not events:
        return AggValue()
    values = [event.value for event in events]
    newest = max(events, key=lambda event: event.order)
    return AggValue(
        sum=sum(values),
        count=len(values),
        max=max(values),
        min=min(values),
        last_value=newest.value,
        last_timestamp=newest.timestamp_ns,
    )


def present(events: Iterable[Counted]) -> set[int]:
    """The members whose last operation is not REMOVE."""
    last: dict[int, int] = {}
    for event in sorted(events, key=lambda event: event.order):
        last[event.value] = event.operation
    return {member for member, operation in last.items() if operation != OperationType.REMOVE}


def is_firing(number: tuple[int, int], value: int, direction: int) -> bool:
    """Whether numerator / denominator is on the side where the threshold fires."""
    if direction == Direction.RISING:
        return number[0] >= value * number[1]
    return number[0] <= value * number[1]


def matching(schema: MetricSchema, filters: Filters) -> Callable[[Counted], bool]:
    """A test of one event against filters; a filter without values lets all in."""
    check_declared(schema, list(filters))
    wanted = {
        key: [values] if isinstance(values, str) else list(values)
        for key, values in filters.items()
    }

    def is_chosen(event: Counted) -> bool:
        return all(
            not values or event.properties.get(key, "") in values for key, values in wanted.items()
        )

    return is_chosen


def check_declared(schema: MetricSchema, keys: Sequence[str]) -> None:
    """Raise InvalidInputError for a key that is no dimension of the metric, or twice there."""
    declared = [dimension.key for dimension in schema.filters]
    for key in keys:
        if key not in declared or list(keys).count(key) > 1:
            raise InvalidInputError(f"{key!r} is not a dimension, or given twice")


def check_range(start_ns: int, end_ns: int) -> None:
    """Raise InvalidInputError for a range that ends before it starts, or is empty."""
    if end_ns <= start_ns:
        raise InvalidInputError("the range ends before it starts")


def clamp(start_ns: int, end_ns: int) -> tuple[int, int]:
    """The part of the range where events can be."""
    return max(start_ns, TIMESTAMP_NS_MIN), min(end_ns, TIMESTAMP_NS_MAX)
