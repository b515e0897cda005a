"""An independent meter: slow, in plain Python, and obviously right.

Owns a second opinion on every answer of the engine, as of any entry of the log. It keeps
the list of counted events, and computes each total, set of members and crossing from that
list when asked (`model_answers`, `counting`), with Python's integers. It shares nouns
(`types`, `errors`, `limits`) and calendars with the engine, and not a line of its kernels,
so an error would have to be made twice, in two ways, to go unnoticed.

It refuses to read bytes, check definitions, judge malformed events or know sessions: it is
told what the log says, entry by entry, in log order:

    put(schema, transitions, index)      a METRIC_PUT that was accepted
    delete(code, index)                  a METRIC_DELETE that was accepted
    ingest(timestamp_ns, rows, index)    an EVENTS entry -> outcomes

An index left out is the next one. Everything costs time proportional to the events of one
account and metric. Rejected: keeping running totals here too, which would have the bugs of
the thing it is to check.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace

from unimeter.limits import KEY_WINDOW_DAYS
from unimeter.periods import (
    DAY_NS,
    FIXED_PERIOD_NS_DEFAULT,
    Transitions,
    bucket_calendar,
    make_calendar,
)
from unimeter.sim.counting import Alert, Counted, Row, is_firing, side_number
from unimeter.sim.model_answers import Answers, Fired, Metric, Side
from unimeter.types import (
    Account,
    AggType,
    DimensionFilter,
    MetricSchema,
    Outcome,
    PeriodType,
)

Key = tuple[object, ...]


class Model(Answers):
    """The meter. Fed in log order; every answer is computed from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.index = 0
        self.keys: dict[Key, tuple[int, Key]] = {}  # key -> (day, body)
        self.next_offset = 1
        # Different bodies that the engine can't tell apart (`likeness`); by itself, none.
        self.are_alike: Callable[[Key, Key], bool] = lambda one, other: False
        self.look_alikes: list[Row] = []  # called duplicates for that, and not counted

    def put(
        self, schema: MetricSchema, transitions: Transitions, index: int | None = None
    ) -> Metric:
        """Take an accepted definition: a new metric, or thresholds and values added."""
        self.go_to(index)
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
        self.go_to(index)
        self.find(code).deleted_index = self.index

    def ingest(
        self, timestamp_ns: int, rows: Iterable[Row], index: int | None = None
    ) -> list[Outcome]:
        """Count the events of one entry; its leader's clock showed `timestamp_ns`."""
        self.go_to(index)
        return self.count(timestamp_ns, rows)

    def count(self, timestamp_ns: int, rows: Iterable[Row]) -> list[Outcome]:
        """Count events of the entry that `go_to` named; the next ones in the log."""
        outcomes = []
        for row in rows:
            outcomes.append(self._count(row, timestamp_ns // DAY_NS))
            self.next_offset += 1
        return outcomes

    def go_to(self, index: int | None) -> None:
        """Say which entry the next facts come from."""
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
            if known[1] == body:
                return Outcome.DUPLICATE
            if not self.are_alike(known[1], body):
                return Outcome.CONFLICT
            self.look_alikes.append(row)
            return Outcome.DUPLICATE
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
