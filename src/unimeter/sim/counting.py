"""The independent meter's nouns, and its arithmetic: straight from lists of events.

Owns what a row of the log, a counted event and an alert are, and each aggregation, set of
members and side of a threshold, in the plainest way there is: Python's integers, one list
of events in, one answer out. `model` holds the lists. Refuses to keep anything, and to
know kernels: what is here is the second opinion on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from unimeter.errors import InvalidInputError
from unimeter.limits import TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.types import Account, AggType, AggValue, Direction, MetricSchema, OperationType

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
    refused: int = 0  # an outcome decided before: 10-19, or 1 where its request is not counted


@dataclass(frozen=True)
class Request:
    """One ingest request of an entry. A session of (0, 0) means none."""

    rows: tuple[Row, ...]
    session: tuple[int, int] = (0, 0)
    sequence: int = 0
    has_session: bool = False


@dataclass(frozen=True)
class Counted:
    """One event that is in the totals."""

    index: int  # of the entry that brought it
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
    """One crossing, and the entry in which it happened."""

    position: int
    offset: int
    account: Account
    metric_code: str
    threshold_code: str
    value: int
    timestamp_ns: int
    direction: int
    period_start_ns: int
    index: int = 0


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


def side_number(agg: AggType, events: list[Counted]) -> tuple[int, int] | None:
    """The number a threshold looks at as (numerator, denominator); None = none yet.

    The events are those of the threshold's period, or of all time for members that recur.
    """
    if agg == AggType.COUNT_UNIQUE:
        return len(present(events)), 1
    if agg == AggType.COUNT:
        return len(events), 1
    if agg == AggType.SUM:
        return sum(event.value for event in events), 1
    if not events:
        return None
    if agg == AggType.AVG:
        return sum(event.value for event in events), len(events)
    return summarise(events).number(agg), 1


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
