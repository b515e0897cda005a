"""Every total once more, in plain Python, from the stored events that counted.

Owns an adding-up that shares no line with the engine's kernels: dictionaries,
Python's integers, one event after the other. `verify` holds it against the
engine's answers. It takes from the engine only what the log says by itself: the
decoded events, the metrics' definitions and calendars.

    (metric, account) -> bucket   -> sum, count, min, max, last
                      -> dimensions' values -> the same over everything
                      -> member operations (COUNT_UNIQUE)

Where retention has removed the oldest events, adding up starts from the base
snapshot: a bucket's first later event takes over what the engine held for it. Sets
of members can't be taken over in that way and are left out then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unimeter.engine import cells, query
from unimeter.engine.records import EventsBody
from unimeter.types import Account, AggType, OperationType

if TYPE_CHECKING:
    from unimeter.engine.catalog import Metric
    from unimeter.engine.machine import Machine

Cell = list[int]  # sum, count, min, max, last value, last timestamp, last offset
Series = tuple[int, Account]  # metric number, account
_BEFORE_ALL = -1


class Recount:
    """The totals of the events that it was shown."""

    def __init__(self, machine: Machine) -> None:
        """`machine` stands where adding up begins, and is read while it applies the log."""
        self.events = 0
        self.starts_from_zero = machine.applied <= 1
        self._machine = machine
        self._buckets: dict[Series, dict[int, Cell]] = {}
        self._groups: dict[Series, dict[tuple[str, ...], Cell]] = {}
        self._operations: dict[Series, dict[int, list[tuple[int, int, int, bool]]]] = {}
        self._bounds: dict[int, tuple[int, int]] = {}  # the bucket last met, by metric

    # --- adding up ---------------------------------------------------------------

    def take_over(self, body: EventsBody) -> None:
        """Before an entry is applied: remember what the engine holds for its buckets."""
        if self.starts_from_zero:
            return
        for number in range(body.event_count):
            row = body.event(number)
            metric = self._metric(row.metric_code)
            if metric is None or row.refused or metric.agg == AggType.COUNT_UNIQUE:
                continue
            buckets = self._buckets.setdefault((metric.number, row.account), {})
            start = self._bucket_start(metric, row.timestamp_ns)
            if start not in buckets:
                buckets[start] = self._held(metric, row.account, start)

    def add(self, body: EventsBody, is_counted: Callable[[int], bool]) -> None:
        """After an entry is applied: add the events of it that counted."""
        for number in range(body.event_count):
            if not is_counted(number):
                continue
            row = body.event(number)
            metric = self._metric(row.metric_code)
            assert metric is not None, "an event counted for a metric that is not there"
            self.events += 1
            self._add_event(metric, row, body.first_offset + number)

    def _add_event(self, metric: Metric, row: Any, offset: int) -> None:
        series = (metric.number, row.account)
        start = self._bucket_start(metric, row.timestamp_ns)
        if metric.agg == AggType.COUNT_UNIQUE:
            operation = (row.timestamp_ns, offset, row.value, row.operation == OperationType.REMOVE)
            self._operations.setdefault(series, {}).setdefault(start, []).append(operation)
            return
        cell = self._buckets.setdefault(series, {}).setdefault(start, _empty())
        _count(cell, row.value, row.timestamp_ns, offset)
        if metric.dimensions:
            keys = [dimension.key for dimension in metric.schema.filters]
            group = tuple(row.properties.get(key, "") for key in keys)
            cell = self._groups.setdefault(series, {}).setdefault(group, _empty())
            _count(cell, row.value, row.timestamp_ns, offset)

    def _metric(self, code: str) -> Metric | None:
        number = self._machine.catalog.by_code.get(code.encode())
        return None if number is None else self._machine.catalog.metrics[number - 1]

    def _bucket_start(self, metric: Metric, timestamp_ns: int) -> int:
        low, high = self._bounds.get(metric.number, (0, 0))
        if not low <= timestamp_ns < high:
            low, high = self._bounds[metric.number] = metric.bucket.bounds(timestamp_ns)
        return low

    def _held(self, metric: Metric, account: Account, start: int) -> Cell:
        found = _engine_cell(self._machine, metric, account, start)
        return _empty() if found is None else found

    # --- comparing ---------------------------------------------------------------

    def compare(self, say: Callable[[str], None], tick: Callable[[int], None]) -> int:
        """Hold every total against the engine's; return how many were compared."""
        compared = self._compare_buckets(say, tick)
        if self.starts_from_zero:
            compared += self._compare_whole(say, tick, compared)
            compared += self._compare_members(say, tick, compared)
            compared += self._compare_series(say)
        return compared

    def _compare_buckets(self, say: Callable[[str], None], tick: Callable[[int], None]) -> int:
        compared = 0
        for (number, account), buckets in self._buckets.items():
            metric = self._machine.catalog.metrics[number - 1]
            for start, cell in buckets.items():
                found = _engine_cell(self._machine, metric, account, start)
                if found is None and cell[1] == 0:
                    continue  # met before a base, by an event that then did not count
                if found != cell:
                    say(_differ(metric.code, account, f"bucket at {start}", cell, found))
                compared += 1
            tick(compared)
        return compared

    def _compare_whole(
        self, say: Callable[[str], None], tick: Callable[[int], None], before: int
    ) -> int:
        """Each account's total over all time, and by dimensions, as a query answers it."""
        compared = 0
        for (number, account), buckets in self._buckets.items():
            metric = self._machine.catalog.metrics[number - 1]
            if metric.deleted:
                continue
            whole = _merged(buckets.values())
            answer = query.plan_total(self._machine, account, metric.code, *_ALL_TIME).finish()
            found = [answer.sum, answer.count, answer.min, answer.max, answer.last_value]
            if found != whole[:5]:
                say(_differ(metric.code, account, "total", whole[:5], found))
            compared += 1
            groups = self._groups.get((number, account), {})
            if groups:
                compared += self._compare_groups(metric, account, groups, say)
            tick(before + compared)
        return compared

    def _compare_groups(
        self,
        metric: Metric,
        account: Account,
        groups: dict[tuple[str, ...], Cell],
        say: Callable[[str], None],
    ) -> int:
        keys = [dimension.key for dimension in metric.schema.filters]
        plan = query.plan_breakdown(self._machine, account, metric.code, *_ALL_TIME, keys)
        found = {tuple(value for _, value in pairs): each for pairs, each in plan.finish()}
        for group, cell in groups.items():
            answer = found.pop(group, None)
            seen = None if answer is None else [answer.sum, answer.count, answer.min, answer.max]
            if seen != cell[:4]:
                say(_differ(metric.code, account, f"{dict(zip(keys, group))}", cell[:4], seen))  # noqa: B905
        for group in found:
            say(_differ(metric.code, account, f"{group}", None, "a total"))
        return len(groups)

    def _compare_members(
        self, say: Callable[[str], None], tick: Callable[[int], None], before: int
    ) -> int:
        """Each billing period's number of members, as a query answers it."""
        compared = 0
        for (number, account), buckets in self._operations.items():
            metric = self._machine.catalog.metrics[number - 1]
            if metric.deleted:
                continue
            operations = sorted(one for bucket in buckets.values() for one in bucket)
            periods = sorted({metric.period.bounds(one[0]) for one in operations})
            for start, end in periods:
                count = _members(operations, metric.recurring, start, end)
                plan = query.plan_total(self._machine, account, metric.code, start, end)
                if plan.finish().count != count:
                    found = plan.finish().count
                    say(_differ(metric.code, account, f"members of {start}", count, found))
                compared += 1
            tick(before + compared)
        return compared

    def _compare_series(self, say: Callable[[str], None]) -> int:
        """No account may have a total that no event explains."""
        seen = len(self._buckets) + len(self._operations)
        found = self._machine.statistics()["series"]
        if found != seen:
            say(f"the engine has totals of {found} accounts and metrics, the events of {seen}")
        return 1


_ALL_TIME = (0, 1 << 62)


def _empty() -> Cell:
    return [0, 0, 0, 0, 0, _BEFORE_ALL, 0]


def _count(cell: Cell, value: int, timestamp_ns: int, offset: int) -> None:
    cell[2] = value if cell[1] == 0 else min(cell[2], value)
    cell[3] = value if cell[1] == 0 else max(cell[3], value)
    cell[0] += value
    cell[1] += 1
    if timestamp_ns >= cell[5]:  # log order decides between equal timestamps
        cell[4:] = [value, timestamp_ns, offset]


def _merged(cells: Any) -> Cell:
    whole = _empty()
    for total, count, low, high, last, timestamp_ns, offset in cells:
        whole[2] = low if whole[1] == 0 else min(whole[2], low)
        whole[3] = high if whole[1] == 0 else max(whole[3], high)
        whole[0] += total
        whole[1] += count
        if (timestamp_ns, offset) > (whole[5], whole[6]):
            whole[4:] = [last, timestamp_ns, offset]
    return whole


def _members(
    operations: list[tuple[int, int, int, bool]], recurring: bool, start: int, end: int
) -> int:
    """Members whose last operation (within the period, or ever if recurring) is no removal."""
    last = {
        member: removed
        for timestamp_ns, _, member, removed in operations
        if timestamp_ns < end and (recurring or timestamp_ns >= start)
    }
    return sum(not removed for removed in last.values())


def _engine_cell(machine: Any, metric: Metric, account: Account, start: int) -> Cell | None:
    """The engine's own bucket, read as it lies."""
    totals, series = machine.counter.totals, cells.series_of(machine, account, metric)
    row = totals.cell_row(series, 0, start) if series >= 0 else -1
    return list(totals.cell_at(row)[3:10]) if row >= 0 else None


def _differ(code: str, account: Account, where: str, expected: object, found: object) -> str:
    return (
        f"metric {code!r}, account {account!r}, {where}: the events add up to {expected}, "
        f"the engine says {found}"
    )
