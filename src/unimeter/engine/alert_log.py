"""The alerts that the machine keeps, as answers: chosen, in order, page by page.

Alerts are numbered from 1 in the order of the log and never go, so a position is
all a subscriber has to remember. Offsets of their events grow with positions, which
is how version 1 of the protocol resumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unimeter.engine.catalog import Metric
from unimeter.engine.cells import STRING, account_of
from unimeter.errors import InvalidInputError, NotFoundError
from unimeter.limits import PAGE_ITEMS_MAX
from unimeter.types import Account, AggType


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


def check_limit(limit: int) -> int:
    if limit < 1:
        raise InvalidInputError(f"limit {limit} must be at least 1")
    return min(limit, PAGE_ITEMS_MAX)


def alert_at(machine: Any, position: int) -> AlertLine:
    """The alert of that position, from 1 to the number of alerts."""
    assert 1 <= position <= machine.counter.alert_count
    offset, account, metric_word, threshold, value, count, timestamp_ns, period = (
        machine.counter.alert_at(position - 1)
    )
    metric: Metric = machine.catalog.metrics[(metric_word & ~STRING) - 1]
    code, _, _, direction = metric.thresholds[threshold]
    return AlertLine(
        position=position,
        offset=offset,
        account=account_of(machine, account, metric_word),
        metric_code=metric.code,
        threshold_code=code,
        value=value // count if metric.agg == AggType.AVG else value,
        timestamp_ns=timestamp_ns,
        direction=direction,
        period_start_ns=period,
    )


def list_alerts(
    machine: Any,
    after: int = 0,
    account: Account | None = None,
    metric_code: str | None = None,
    limit: int = PAGE_ITEMS_MAX,
    since_offset: int = 0,
) -> tuple[list[AlertLine], bool]:
    """Alerts with positions above `after`, in order, and whether more follow.

    `since_offset` leaves out those of earlier events. A deleted metric's alerts
    are still found by its code.
    """
    page = check_limit(limit)
    if metric_code is not None and not any(
        metric.code == metric_code for metric in machine.catalog.metrics
    ):
        raise NotFoundError(f"there never was a metric {metric_code!r}")
    position = max(after, _alerts_before(machine, since_offset))
    lines: list[AlertLine] = []
    while position < machine.counter.alert_count:
        position += 1
        line = alert_at(machine, position)
        if account is not None and line.account != account:
            continue
        if metric_code is not None and line.metric_code != metric_code:
            continue
        if len(lines) == page:
            return lines, True
        lines.append(line)
    return lines, False


def _alerts_before(machine: Any, offset: int) -> int:
    """How many alerts are of events before `offset`; offsets grow with positions."""
    low, high = 0, int(machine.counter.alert_count)
    while low < high:
        middle = (low + high) // 2
        if machine.counter.alert_at(middle)[0] < offset:
            low = middle + 1
        else:
            high = middle
    return low
