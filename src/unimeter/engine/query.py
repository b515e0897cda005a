"""Read-only answers (interface; the bodies follow the machine's accessors).

    plan = plan_total(machine, account, code, start_ns, end_ns, filters)
    if plan.edges:                      # rare: an edge of the range cuts a bucket
        rows = chain of stored, counted events of every edge   (may run in a thread)
    answer = plan.finish(rows)          # rows = () without edges

For each edge the host passes `EventStore.rows(edge.account, edge.metric_code,
edge.start_ns, edge.end_ns, plan.from_index, plan.position)`; anything that has
`.offset` and `.row` (engine.records.EventRow) will do. A plan holds copies, so
the machine may go on applying entries before `finish`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from unimeter.types import Account, AccountTotal, AggValue

T = TypeVar("T")
Filters = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Edge:
    """A range inside a bucket, to be answered from stored events."""

    account: Account | None
    metric_code: str
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Plan(Generic[T]):
    """What was read from memory, and what stored events are still needed."""

    position: int  # the log index the answer reflects; scan entries up to it
    from_index: int  # and from this one on: earlier ones are of a deleted metric of that code
    start_ns: int
    end_ns: int
    edges: list[Edge]

    def finish(self, rows: Iterable[Any] = ()) -> T:
        """The answer, from what was read and the edges' events."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class AlertLine:
    """One crossing, as the machine keeps it."""

    position: int
    offset: int
    account: Account
    metric_code: str
    threshold_code: str
    value: int
    timestamp_ns: int
    direction: int
    period_start_ns: int


def plan_total(
    machine: Any,
    account: Account,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    filters: Filters | None = None,
) -> Plan[AggValue]:
    """A total over any range."""
    raise NotImplementedError


def plan_realtime(machine: Any, account: Account, metric_code: str, now_ns: int) -> Plan[AggValue]:
    """The total of the billing period that holds `now_ns`; its bounds are the plan's."""
    raise NotImplementedError


def plan_breakdown(
    machine: Any,
    account: Account,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    keys: Sequence[str],
    filters: Filters | None = None,
) -> Plan[list[tuple[list[tuple[str, str]], AggValue]]]:
    """One ([(key, value), ...], total) per combination that has events, sorted by values."""
    raise NotImplementedError


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

    `window` 0 hour, 1 day, 2 week, 3 month; `zone` an IANA name, "" = UTC.
    """
    raise NotImplementedError


def plan_accounts(
    machine: Any,
    metric_code: str,
    start_ns: int,
    end_ns: int,
    cursor: bytes = b"",
    limit: int = 1000,
) -> Plan[tuple[list[AccountTotal], bytes]]:
    """A page of accounts with their totals, newest account first, and the next cursor."""
    raise NotImplementedError


def plan_members(
    machine: Any,
    account: Account,
    metric_code: str,
    at_ns: int,
    cursor: bytes = b"",
    limit: int = 1000,
) -> Plan[tuple[list[int], bytes]]:
    """A page of the members active at `at_ns`, ascending, and the next cursor."""
    raise NotImplementedError


def list_alerts(
    machine: Any,
    after: int = 0,
    account: Account | None = None,
    metric_code: str | None = None,
    limit: int = 1000,
    since_offset: int = 0,
) -> tuple[list[AlertLine], bool]:
    """Alerts with positions above `after`, in order, and whether more follow."""
    raise NotImplementedError
