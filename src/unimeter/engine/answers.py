"""What an answer is put together from: cells that were read and events that were not in one.

Owns the arithmetic of merging, in plain Python: `Tally` for the aggregations
of values, `Roster` for the members of COUNT_UNIQUE, `Chooser` for filters and
groups, `Reading` for one account's part of an answer. It knows neither the
machine nor where events are stored: `query` feeds it cells, and then stored
events for the edges of the range that cut a bucket.

    bucket cells ──────────┐
    combination cells ──┐  │   (chooser: which, and into which group)
    stored events ────┐ │  │
                      └─┴──┴──> (window, group) ──> Tally or Roster ──> AggValue

Members are kept as operations (timestamp, offset, member, removed), at least
the last one of each member and bucket. The state at any instant that is no
inside of a bucket taken whole follows from sorting them, so one sweep answers
all windows and periods of a range.

Rejected: merging members in the kernel. Sets are read rarely and are seldom
large; the common questions are answered from the counts that cells carry.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence

from unimeter.errors import InvalidInputError
from unimeter.periods import Calendar
from unimeter.types import AggType, AggValue, MetricSchema, OperationType

Group = tuple[str, ...]
Filters = Mapping[str, str | Sequence[str]]
Operation = tuple[int, int, int, bool]
"""timestamp, offset, member, removed; sorts by timestamp, then log order."""

NOT_CHOSEN = -1
COUNT_UNIQUE = int(AggType.COUNT_UNIQUE)
REMOVE = int(OperationType.REMOVE)


class Tally:
    """The aggregations of some events; LATEST is by timestamp, then by offset."""

    __slots__ = ("count", "last", "last_offset", "last_timestamp", "max", "min", "sum")

    def __init__(self) -> None:
        self.sum = self.count = self.min = self.max = 0
        self.last = self.last_timestamp = self.last_offset = 0

    def merge(
        self, total: int, count: int, low: int, high: int, last: int, timestamp_ns: int, offset: int
    ) -> None:
        """Add the aggregations of other events."""
        if count == 0:
            return
        self.min = low if self.count == 0 else min(self.min, low)
        self.max = high if self.count == 0 else max(self.max, high)
        self.sum += total
        self.count += count
        if (timestamp_ns, offset) > (self.last_timestamp, self.last_offset):
            self.last, self.last_timestamp, self.last_offset = last, timestamp_ns, offset

    def value(self) -> AggValue:
        """As the answer's type."""
        return AggValue(
            sum=self.sum,
            count=self.count,
            max=self.max,
            last_value=self.last,
            last_timestamp=self.last_timestamp,
            min=self.min,
        )


def active(operations: Iterable[Operation]) -> set[int]:
    """The members whose last operation is not a removal."""
    members: set[int] = set()
    for _, _, member, removed in sorted(operations):
        if removed:
            members.discard(member)
        else:
            members.add(member)
    return members


def sweep(
    operations: list[Operation],
    windows: Sequence[tuple[int, int]],
    calendar: Calendar,
    is_recurring: bool,
) -> list[AggValue]:
    """One value per window: how many members were present at the end of any of its periods.

    Windows are in order and do not overlap. Each period of the calendar starts
    with an empty set, or with the members carried along where `is_recurring`.
    """
    operations.sort()
    members: set[int] = set()
    position, count = 0, len(operations)
    values = []
    for start_ns, end_ns in windows:
        while position < count and operations[position][0] < start_ns:
            _apply(members, operations[position])
            position += 1
        first = position
        found: set[int] = set()
        if is_recurring:
            first_end = min(calendar.bounds(start_ns)[1], end_ns)
            if position == count or operations[position][0] >= first_end:
                found |= members
        while position < count and operations[position][0] < end_ns:
            period_end = min(calendar.bounds(operations[position][0])[1], end_ns)
            if not is_recurring:
                members.clear()
            while position < count and operations[position][0] < period_end:
                _apply(members, operations[position])
                position += 1
            found |= members
        value = AggValue(count=len(found), unique=len(found))
        if position > first:
            value.last_timestamp, _, value.last_value, _ = operations[position - 1]
        values.append(value)
    return values


def _apply(members: set[int], operation: Operation) -> None:
    if operation[3]:
        members.discard(operation[2])
    else:
        members.add(operation[2])


class Chooser:
    """Which events a question is about, and the group each belongs to.

    A dimension that an event does not name has the value "". A filter without
    values lets every event in.
    """

    __slots__ = ("_combinations", "_group_numbers", "_keys", "_positions", "_texts", "_wanted",
                 "groups", "numbers")  # fmt: skip

    def __init__(
        self,
        schema: MetricSchema,
        filters: Filters | None,
        keys: Sequence[str],
        texts: Callable[[int], tuple[str, ...]],
    ) -> None:
        """`texts` gives the values of a combination by its number, one per dimension."""
        declared = [dimension.key for dimension in schema.filters]
        wanted = {key: _values(key, values) for key, values in (filters or {}).items()}
        _check_declared(schema.code, declared, [*wanted, *keys])
        if len(set(keys)) != len(keys):
            raise InvalidInputError(f"group_by {list(keys)!r} names a dimension twice")
        self._positions = {key: declared.index(key) for key in [*wanted, *keys]}
        self._wanted = {key: values for key, values in wanted.items() if values}
        self._keys = tuple(keys)
        self._texts = texts
        self._combinations: dict[int, Group | None] = {}
        self.groups: list[Group] = []  # in the order they were met: a group's number is its place
        self._group_numbers: dict[Group, int] = {}
        self.numbers: dict[int, int] = {}  # combination -> number of its group, or NOT_CHOSEN

    @property
    def is_plain(self) -> bool:
        """Whether every event is chosen, into one group."""
        return not self._wanted and not self._keys

    def of_combination(self, number: int) -> Group | None:
        """The group of a combination, or None if it is filtered out."""
        if number not in self._combinations:
            texts = self._texts(number)
            named = {key: texts[position] for key, position in self._positions.items()}
            self._combinations[number] = self.of_properties(named)
        return self._combinations[number]

    def number(self, combination: int) -> None:
        """Put a combination into `numbers`, and its group into `groups`."""
        group = self.of_combination(combination)
        if group is None:
            self.numbers[combination] = NOT_CHOSEN
            return
        if group not in self._group_numbers:
            self._group_numbers[group] = len(self.groups)
            self.groups.append(group)
        self.numbers[combination] = self._group_numbers[group]

    def of_properties(self, properties: Mapping[str, str]) -> Group | None:
        """The group of an event, or None if it is filtered out."""
        for key, values in self._wanted.items():
            if properties.get(key, "") not in values:
                return None
        return tuple(properties.get(key, "") for key in self._keys)


def _values(key: str, values: str | Sequence[str]) -> tuple[str, ...]:
    found = (values,) if isinstance(values, str) else tuple(values)
    if not all(isinstance(value, str) for value in found):
        raise InvalidInputError(f"filter {key!r}: values must be str, not {values!r}")
    return found


def _check_declared(code: str, declared: Sequence[str], named: Iterable[str]) -> None:
    for key in named:
        if key not in declared:
            shown = ", ".join(map(repr, declared)) or "none"
            raise InvalidInputError(
                f"{key!r} is not a dimension of metric {code!r}, which has {shown}; only "
                "declared dimensions can be filtered or grouped by"
            )


class Reading:
    """One account's part of an answer: a value per window and group."""

    __slots__ = ("_calendar", "_chooser", "_is_recurring", "_is_unique", "_members", "_operations",
                 "_starts", "_swept", "_tallies", "edges", "windows")  # fmt: skip

    def __init__(
        self,
        agg: int,
        is_recurring: bool,
        calendar: Calendar,
        windows: Sequence[tuple[int, int]],
        chooser: Chooser,
    ) -> None:
        assert windows, "an answer has a window"
        self._is_unique = agg == COUNT_UNIQUE
        self._is_recurring = is_recurring
        self._calendar = calendar
        self._chooser = chooser
        self._starts = [start for start, _ in windows]
        self._tallies: dict[tuple[int, Group], Tally] = {}
        self._operations: dict[Group, list[Operation]] = {}
        self._swept: dict[Group, list[AggValue]] = {}
        self._members: dict[Group, list[int]] = {}
        self.windows = windows
        self.edges: list[tuple[int, int]] = []  # ranges whose events come from the store

    def window_of(self, timestamp_ns: int) -> int:
        """The window an instant lies in; before the first, the first."""
        return max(0, bisect_right(self._starts, timestamp_ns) - 1)

    def tally(self, window: int, group: Group) -> Tally:
        """Where values of a window and group are added up."""
        found = self._tallies.get((window, group))
        if found is None:
            found = self._tallies[window, group] = Tally()
        return found

    def operations(self, group: Group) -> list[Operation]:
        """Where operations of a group are collected, of all windows."""
        return self._operations.setdefault(group, [])

    def add_event(
        self,
        timestamp_ns: int,
        offset: int,
        value: int,
        operation: int,
        properties: Mapping[str, str],
    ) -> None:
        """Add a stored event if it lies in an edge and is chosen."""
        if not any(start <= timestamp_ns < end for start, end in self.edges):
            return
        group = self._chooser.of_properties(properties)
        if group is None:
            return
        if self._is_unique:
            self.operations(group).append((timestamp_ns, offset, value, operation == REMOVE))
        else:
            tally = self.tally(self.window_of(timestamp_ns), group)
            tally.merge(value, 1, value, value, value, timestamp_ns, offset)

    def groups(self) -> list[Group]:
        """Every group with something in it, sorted."""
        found = {group for _, group in self._tallies}
        return sorted(found | set(self._operations) | set(self._swept))

    def value(self, window: int, group: Group = ()) -> AggValue:
        """The value of a window and group; zeros if there is nothing."""
        if not self._is_unique:
            tally = self._tallies.get((window, group))
            return AggValue() if tally is None else tally.value()
        if group not in self._swept:
            self._swept[group] = sweep(
                self._operations.get(group, []), self.windows, self._calendar, self._is_recurring
            )
        return self._swept[group][window]

    def settle(self, group: Group, values: list[AggValue], members: list[int]) -> None:
        """Give a group's value per window, and who is present at the end: nothing is missing."""
        assert self._is_unique and not self.edges and len(values) == len(self.windows)
        self._swept[group] = values
        self._members[group] = members

    def members(self) -> list[int]:
        """The members active after all operations, ascending."""
        if () in self._members:
            return self._members[()]
        return sorted(active(self._operations.get((), [])))
