"""An alert as JSON and as a row, the same everywhere: pages, streams, webhooks.

Owns the names of its members and their order. `position` numbers the alerts from 1 without
gaps; `offset` is that of the event that crossed; `value` is the total at the crossing.
"""

from __future__ import annotations

from typing import Any, Final

from unimeter.engine.alert_log import AlertLine
from unimeter.instants import format_ns
from unimeter.types import Direction
from unimeter.wire.messages import AlertRow

COLUMNS: Final = (
    "position",
    "timestamp",
    "account",
    "metric",
    "threshold",
    "direction",
    "value",
    "period_start",
    "offset",
)


def alert_cells(alert: AlertRow | AlertLine) -> list[Any]:
    """The cells of one alert, in the order of `COLUMNS`."""
    return [
        alert.position,
        format_ns(alert.timestamp_ns),
        alert.account,
        alert.metric_code,
        alert.threshold_code,
        Direction(alert.direction).name.lower(),
        alert.value,
        format_ns(alert.period_start_ns),
        alert.offset,
    ]


def alert_object(alert: AlertRow | AlertLine) -> dict[str, Any]:
    """The JSON object of one alert; large integers are still integers (see `answers.exact`)."""
    return dict(zip(COLUMNS, alert_cells(alert), strict=True))
