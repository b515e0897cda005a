"""A billing period in a word: on the command line, in JSON.

hour  day  week  month     of the calendar, in a zone
lifetime                   one period that never ends in practice: a balance
30d  12h  90m  2w          a fixed length, counted from 1970 UTC
"""

from __future__ import annotations

import re
from datetime import timedelta

from unimeter.errors import InvalidInputError
from unimeter.types import LIFETIME, MetricSchema, PeriodType

_DURATION = re.compile(r"(\d{1,12})\s*(s|m|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NAMED = {
    "hour": PeriodType.HOUR,
    "day": PeriodType.DAY,
    "week": PeriodType.WEEK,
    "month": PeriodType.CALENDAR,
}


def parse_period(words: str) -> tuple[PeriodType, timedelta | None]:
    """The period type that `words` name, and the length where it is FIXED."""
    if words in _NAMED:
        return _NAMED[words], None
    if words == "lifetime":
        return PeriodType.FIXED, LIFETIME
    match = _DURATION.fullmatch(words)
    if match is None:
        raise InvalidInputError(
            f"period {words!r} is not understood; write hour, day, week, month, lifetime, "
            "or a duration such as 30d"
        )
    # 30 days is what a metric made with nothing but a code and a type has.
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > LIFETIME.total_seconds():
        raise InvalidInputError(f"period {words!r} is longer than a lifetime; write lifetime")
    return PeriodType.FIXED, None if seconds == 30 * 86_400 else timedelta(seconds=seconds)


def period_word(schema: MetricSchema) -> str:
    """The period as `parse_period` reads it; the day that a month begins on is not in it."""
    if schema.period_type != PeriodType.FIXED:
        return {PeriodType.CALENDAR: "month"}.get(
            schema.period_type, schema.period_type.name
        ).lower()
    if schema.period is None:
        return "30d"
    if schema.period >= LIFETIME:
        return "lifetime"
    seconds = schema.period // timedelta(seconds=1)
    unit = next(unit for unit in ("d", "h", "m", "s") if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"
