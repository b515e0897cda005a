"""The independent meter's answers, as of any entry of the log.

Owns the lists that `model` fills (a metric with its counted events, the alerts) and every
question about them. Each answer is computed from the list of events of one account and
metric when asked. Every fact carries the index of the entry that made it one: with `at`, the
answer is the one once that entry was applied and no later one; without, that of everything.

Refuses to change anything. Rejected: a copy of the model per position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unimeter.errors import NotFoundError
from unimeter.limits import TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.periods import Calendar, Transitions, make_calendar, zone_transitions
from unimeter.sim.counting import (
    Alert,
    Counted,
    Filters,
    check_declared,
    check_range,
    clamp,
    matching,
    present,
    summarise,
    within,
)
from unimeter.types import Account, AggType, AggValue, MetricSchema, PeriodType

Side = tuple[int, int] | None
"""What a threshold looks at, as a fraction; None before the first event."""


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
        return (at is None or self.created_index <= at) and self.deleted_at(at) is None

    def deleted_at(self, at: int | None = None) -> int | None:
        """The entry that deleted it, None if none had once entry `at` was applied."""
        gone = self.deleted_index
        return gone if gone is not None and (at is None or gone <= at) else None

    def schema_at(self, at: int | None = None) -> MetricSchema:
        """The definition once entry `at` was applied."""
        return [schema for index, schema in self.schemas if at is None or index <= at][-1]

    def counted(self, account: Account, at: int | None = None) -> list[Counted]:
        """The account's events, in log order."""
        events = self.events.get(account, [])
        return events if at is None else [event for event in events if event.index <= at]


class Answers:
    """What was counted, to be asked."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self.first_events: list[tuple[int, int, Account]] = []
        """(entry index, metric number, account) of every first event, in log order."""
        self.alerts: list[Alert] = []

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
