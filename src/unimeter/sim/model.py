"""An independent meter: slow, in plain Python, and obviously right.

Owns a second opinion on every answer of the engine, as of any entry of the log. It keeps
the list of counted events and computes each total, set of members and crossing from that
list when asked (`counting`), with Python's integers. It shares nouns (`types`, `errors`,
`limits`) and calendars with the engine, and not a line of its kernels, so an error would
have to be made twice, in two ways, to go unnoticed.

It refuses to read bytes, check definitions, judge malformed events or know sessions: it is
told what the log says, entry by entry, in log order:

    put(schema, transitions, index)      a METRIC_PUT that was accepted
    delete(code, index)                  a METRIC_DELETE that was accepted
    ingest(timestamp_ns, rows, index)    an EVENTS entry -> outcomes

An index left out is the next one. Every answer takes `at`, the index of an entry: then it
is the answer once that entry was applied, and no later one. Without it, of everything.

Everything costs time proportional to the events of one account and metric.
Rejected: keeping running totals here too, which would have the bugs of the thing it is to
check. Also rejected: a copy of the model per position; each fact carries the index at which
it became one instead, and is left out of answers from before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from unimeter.errors import NotFoundError
from unimeter.limits import KEY_WINDOW_DAYS, TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.periods import (
    DAY_NS,
    FIXED_PERIOD_NS_DEFAULT,
    Calendar,
    Transitions,
    bucket_calendar,
    make_calendar,
    zone_transitions,
)
from unimeter.sim.counting import (
    Alert,
    Counted,
    Filters,
    Row,
    check_declared,
    check_range,
    clamp,
    is_firing,
    matching,
    present,
    side_number,
    summarise,
    within,
)
from unimeter.types import (
    Account,
    AggType,
    AggValue,
    DimensionFilter,
    MetricSchema,
    Outcome,
    PeriodType,
)

Key = tuple[object, ...]
Side = tuple[int, int] | None


@dataclass(frozen=True)
class Fired:
    """A threshold fired, in which period and entry."""

    position: int  # of the threshold, from 0
    start_ns: int
    end_ns: int
    index: int


@dataclass
class Metric:
    """One metric and everything counted for it."""

    number: int
    calendar: Calendar
    bucket: Calendar
    transitions: Transitions
    created_index: int
    schemas: list[tuple[int, MetricSchema]]  # (entry that defined it, definition)
    deleted_index: int | None = None
    events: dict[Account, list[Counted]] = field(default_factory=dict)
    by_period: dict[tuple[Account, int], list[Counted]] = field(default_factory=dict)
    """The same events by (account, period start): lists to look through, no numbers."""
    fired: dict[Account, list[Fired]] = field(default_factory=dict)
    sides: dict[tuple[Account, int], tuple[int, Side]] = field(default_factory=dict)
    """What thresholds looked at last: (length of the list of events, number)."""

    @property
    def schema(self) -> MetricSchema:
        """The newest definition."""
        return self.schemas[-1][1]

    def is_live(self, at: int | None = None) -> bool:
        """Whether it existed once entry `at` was applied."""
        if at is None:
            return self.deleted_index is None
        return self.created_index <= at and (self.deleted_index is None or at < self.deleted_index)

    def schema_at(self, at: int | None = None) -> MetricSchema:
        """The definition once entry `at` was applied."""
        return [schema for index, schema in self.schemas if at is None or index <= at][-1]

    def counted(self, account: Account, at: int | None = None) -> list[Counted]:
        """The account's events, in log order."""
        events = self.events.get(account, [])
        return events if at is None else [event for event in events if event.index <= at]


class Model:
    """The meter. Fed in log order; every answer is computed from scratch."""

    def __init__(self) -> None:
        self.index = 0
        self.metrics: list[Metric] = []
        self.first_events: list[tuple[int, int, Account]] = []
        """(entry index, metric number, account) of every first event, in log order."""
        self.keys: dict[Key, tuple[int, Key]] = {}  # key -> (day, body)
        self.alerts: list[Alert] = []
        self.next_offset = 1

    # --- what the log says -----------------------------------------------------

    def put(
        self, schema: MetricSchema, transitions: Transitions, index: int | None = None
    ) -> Metric:
        """Take an accepted definition: a new metric, or thresholds and values added."""
        self._go_to(index)
        for metric in self.metrics:
            if metric.schema.code == schema.code and metric.is_live():
                metric.schemas.append((self.index, extended(metric.schema, schema)))
                return metric
        length = FIXED_PERIOD_NS_DEFAULT
        if schema.period is not None:
            length = (schema.period.days * 86_400 + schema.period.seconds) * 10**9
            length += schema.period.microseconds * 1000
        if schema.period_type != PeriodType.FIXED:
            length = 0
        calendar = make_calendar(schema.period_type, schema.billing_cycle_day, length, transitions)
        metric = Metric(
            len(self.metrics) + 1,
            calendar,
            bucket_calendar(schema.resolution, calendar),
            transitions,
            self.index,
            [(self.index, copy.deepcopy(schema))],
        )
        self.metrics.append(metric)
        return metric

    def delete(self, code: str, index: int | None = None) -> None:
        """Take an accepted deletion."""
        self._go_to(index)
        self.find(code).deleted_index = self.index

    def ingest(
        self, timestamp_ns: int, rows: Iterable[Row], index: int | None = None
    ) -> list[Outcome]:
        """Count the events of one entry; its leader's clock showed `timestamp_ns`."""
        self._go_to(index)
        outcomes = []
        for row in rows:
            outcomes.append(self._count(row, timestamp_ns // DAY_NS))
            self.next_offset += 1
        return outcomes

    def _go_to(self, index: int | None) -> None:
        following = self.index + 1
        assert index is None or index >= following, f"entry {index} after {self.index}"
        self.index = following if index is None else index

    def _count(self, row: Row, day: int) -> Outcome:
        """The outcome of one event, by precedence; counted if it is STORED."""
        if row.refused:
            return Outcome(row.refused)
        live = [m for m in self.metrics if m.schema.code == row.metric_code and m.is_live()]
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
        event = Counted(
            self.index, self.next_offset, row.value, row.timestamp_ns, row.operation, properties
        )
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
        """Add the event to the lists, and look at each threshold before and after."""
        start_ns, end_ns = metric.calendar.bounds(event.timestamp_ns)
        if account not in metric.events:
            metric.events[account] = []
            self.first_events.append((self.index, metric.number, account))
        of_period = metric.by_period.setdefault((account, start_ns), [])
        has_thresholds = bool(metric.schema.thresholds)
        before = self._side(metric, account, start_ns) if has_thresholds else None
        metric.events[account].append(event)
        of_period.append(event)
        if not has_thresholds:
            return
        after = self._side(metric, account, start_ns)
        assert after is not None
        fired = metric.fired.setdefault(account, [])
        known = [one.position for one in fired if one.start_ns == start_ns]
        for position, threshold in enumerate(metric.schema.thresholds):
            if position in known and not threshold.recurring:
                continue
            is_on = is_firing(after, threshold.value, threshold.direction)
            was_on = before is not None and is_firing(before, threshold.value, threshold.direction)
            if is_on and not was_on:
                fired.append(Fired(position, start_ns, end_ns, self.index))
                alert = Alert(
                    len(self.alerts) + 1,
                    event.offset,
                    account,
                    metric.schema.code,
                    threshold.code,
                    after[0] // after[1],
                    event.timestamp_ns,
                    int(threshold.direction),
                    start_ns,
                    self.index,
                )
                self.alerts.append(alert)

    def _side(self, metric: Metric, account: Account, start_ns: int) -> Side:
        """The number thresholds look at in a period of the account.

        Computed from the list of events, unless that list is as long as when it was last
        computed: lists are only appended to, so one of the same length is the same list.
        """
        if metric.schema.recurring:
            events, key = metric.events[account], (account, 0)
        else:
            events, key = metric.by_period[account, start_ns], (account, start_ns)
        length, side = metric.sides.get(key, (-1, None))
        if length != len(events):
            side = side_number(metric.schema.agg_type, events)
            metric.sides[key] = len(events), side
        return side

    # --- answers -----------------------------------------------------------------

    def find(self, code: str, at: int | None = None) -> Metric:
        """The metric of that code that is live at the position."""
        for metric in self.metrics:
            if metric.schema.code == code and metric.is_live(at):
                return metric
        raise NotFoundError(f"no metric {code!r}")

    def live(self, at: int | None = None) -> list[Metric]:
        """All metrics that are live at the position, in the order of creation."""
        return [metric for metric in self.metrics if metric.is_live(at)]

    def alerts_at(self, at: int | None = None) -> list[Alert]:
        """Every crossing up to the position, in order."""
        return [alert for alert in self.alerts if at is None or alert.index <= at]

    def accounts_of(self, metric: Metric, at: int | None = None) -> list[Account]:
        """Every account with a counted event, in the order of their first ones."""
        return [
            account
            for index, number, account in self.first_events
            if number == metric.number and (at is None or index <= at)
        ]

    def total(
        self,
        account: Account,
        code: str,
        start_ns: int,
        end_ns: int,
        filters: Filters | None = None,
        at: int | None = None,
    ) -> AggValue:
        """The total over any range."""
        metric = self.find(code, at)
        check_range(start_ns, end_ns)
        chosen = matching(metric.schema, filters or {})
        events = [event for event in metric.counted(account, at) if chosen(event)]
        return self._total(metric, account, events, start_ns, end_ns, at)

    def _total(
        self,
        metric: Metric,
        account: Account,
        events: list[Counted],
        start_ns: int,
        end_ns: int,
        at: int | None,
    ) -> AggValue:
        """The total of these events, with the account's flags."""
        value = summarise(within(events, start_ns, end_ns))
        if metric.schema.agg_type == AggType.COUNT_UNIQUE:
            count = len(self._members(metric, events, start_ns, end_ns))
            value = AggValue(
                count=count,
                unique=count,
                last_value=value.last_value,
                last_timestamp=value.last_timestamp,
            )
        value.alert_flags = self.flags(metric, account, start_ns, end_ns, at)
        return value

    def _members(
        self, metric: Metric, events: list[Counted], start_ns: int, end_ns: int
    ) -> set[int]:
        """The union, over the range's periods, of the members present at their ends.

        A period without events adds nobody: it has no members, or, where they recur, those
        of the period before. So the range's first period and those with events are enough.
        """
        start_ns, end_ns = clamp(start_ns, end_ns)
        if start_ns >= end_ns:
            return set()
        periods = {metric.calendar.bounds(start_ns): None}
        for event in within(events, start_ns, end_ns):
            periods[metric.calendar.bounds(event.timestamp_ns)] = None
        found: set[int] = set()
        for first, last in periods:
            begin = TIMESTAMP_NS_MIN if metric.schema.recurring else max(first, start_ns)
            found |= present(within(events, begin, min(last, end_ns)))
        return found

    def flags(
        self, metric: Metric, account: Account, start_ns: int, end_ns: int, at: int | None = None
    ) -> int:
        """Bit i: threshold i fired in a period that shares an instant with the range."""
        start_ns, end_ns = clamp(start_ns, end_ns)
        bits = 0
        for fired in metric.fired.get(account, []):
            shares = max(fired.start_ns, start_ns) < min(fired.end_ns, end_ns)
            if shares and (at is None or fired.index <= at):
                bits |= 1 << fired.position
        return bits

    def breakdown(
        self,
        account: Account,
        code: str,
        start_ns: int,
        end_ns: int,
        keys: Sequence[str],
        filters: Filters | None = None,
        at: int | None = None,
    ) -> list[tuple[list[tuple[str, str]], AggValue]]:
        """One total per combination of the keys' values that has events."""
        metric = self.find(code, at)
        check_range(start_ns, end_ns)
        chosen = matching(metric.schema, filters or {})
        check_declared(metric.schema, keys)
        groups: dict[tuple[str, ...], list[Counted]] = {}
        for event in metric.counted(account, at):
            if chosen(event):
                values = tuple(event.properties.get(key, "") for key in keys)
                groups.setdefault(values, []).append(event)
        lines = []
        for values in sorted(groups):
            total = self._total(metric, account, groups[values], start_ns, end_ns, at)
            if within(groups[values], start_ns, end_ns) or total.count:
                lines.append((list(zip(keys, values, strict=True)), total))
        return lines

    def windows(self, code: str, window: int, zone: str, at: int | None = None) -> Calendar:
        """The calendar of hours (0), days (1), weeks (2) or months (3) of a zone."""
        metric = self.find(code, at)
        kind = (PeriodType.HOUR, PeriodType.DAY, PeriodType.WEEK, PeriodType.CALENDAR)[window]
        is_own = zone == metric.schema.zone
        transitions = metric.transitions if is_own else zone_transitions(zone or "UTC")
        return make_calendar(kind, 1, 0, transitions)

    def series(
        self,
        account: Account,
        code: str,
        start_ns: int,
        end_ns: int,
        window: int,
        zone: str = "",
        filters: Filters | None = None,
        at: int | None = None,
    ) -> list[tuple[int, int, AggValue]]:
        """A total per hour (0), day (1), week (2) or month (3) of the range."""
        windows = self.windows(code, window, zone, at)
        lines = []
        start_ns, end_ns = clamp(start_ns, end_ns)
        for first, last in windows.periods(start_ns, end_ns):
            cut = max(first, start_ns), min(last, end_ns)
            lines.append((*cut, self.total(account, code, *cut, filters, at)))
        return lines

    def accounts(
        self, code: str, start_ns: int, end_ns: int, at: int | None = None
    ) -> dict[Account, AggValue]:
        """Every account with events in the range, or members carried into it; newest first."""
        metric = self.find(code, at)
        lines = {}
        for account in reversed(self.accounts_of(metric, at)):
            total = self.total(account, code, start_ns, end_ns, None, at)
            if within(metric.counted(account, at), start_ns, end_ns) or total.count:
                lines[account] = total
        return lines

    def members(self, account: Account, code: str, at_ns: int, at: int | None = None) -> list[int]:
        """Who was active at that instant."""
        metric = self.find(code, at)
        if at_ns < TIMESTAMP_NS_MIN:
            return []
        at_ns = min(at_ns, TIMESTAMP_NS_MAX - 1)
        first = metric.calendar.bounds(at_ns)[0]
        begin = TIMESTAMP_NS_MIN if metric.schema.recurring else first
        return sorted(present(within(metric.counted(account, at), begin, at_ns + 1)))


def extended(old: MetricSchema, new: MetricSchema) -> MetricSchema:
    """The old definition with what the new one adds, behind what was there."""
    thresholds = list(old.thresholds)
    for threshold in new.thresholds:
        if threshold.code not in [known.code for known in old.thresholds]:
            thresholds.append(copy.deepcopy(threshold))
    dimensions = []
    for dimension in old.filters:
        values = list(dimension.values)
        for other in new.filters:
            if other.key == dimension.key:
                values += [value for value in other.values if value not in dimension.values]
        dimensions.append(DimensionFilter(dimension.key, values))
    return replace(old, thresholds=thresholds, filters=dimensions, field_name=new.field_name)
