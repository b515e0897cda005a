"""Instants and ranges as people write them.

An instant is text of ISO 8601 (``2026-11-05``, ``2026-11-05T10:30:00.123456789Z``,
``2026-11-05 10:30+01:00``) or a count since 1970 UTC in seconds, milliseconds,
microseconds or nanoseconds. Which unit a count has follows from its size: the
meter takes the years 2000 to 2100 only, and in those the four units never
overlap. All nine decimals are kept; no float is involved.

Text without an offset is in the zone of ``--zone``, UTC unless said otherwise,
and so are the names of ranges (``this-month``, ``2026-11``). A local time that
a clock change skips or repeats is refused rather than guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from unimeter.errors import InvalidInputError
from unimeter.limits import TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.types import Period, from_ns, to_ns

NAMED_RANGES = (
    "this-hour",
    "today",
    "yesterday",
    "this-week",
    "last-week",
    "this-month",
    "last-month",
    "this-year",
    "last-year",
)

_UNITS_NS = (10**9, 10**6, 10**3, 1)  # seconds, milliseconds, microseconds, nanoseconds
_COUNT = re.compile(r"\d{9,19}(\.\d{1,9})?")
_FRACTION = re.compile(r"(?<=:\d\d)[.,](\d+)")


def parse_zone(name: str) -> tzinfo:
    """The IANA zone of that name."""
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInputError(
            f"zone {name!r} is not known here; write an IANA name such as Europe/Berlin"
        ) from None


def parse_instant(text: str, zone: tzinfo = timezone.utc) -> int:
    """Nanoseconds since 1970 UTC for what was written."""
    text = text.strip()
    instant = _count_ns(text) if _COUNT.fullmatch(text) else _iso_ns(text, zone)
    if not TIMESTAMP_NS_MIN <= instant < TIMESTAMP_NS_MAX:
        raise InvalidInputError(f"time {text!r} is outside the years 2000 to 2099")
    return instant


def _count_ns(text: str) -> int:
    for unit in _UNITS_NS:
        instant = Decimal(text) * unit
        if TIMESTAMP_NS_MIN <= instant < TIMESTAMP_NS_MAX:
            return int(instant)
    raise InvalidInputError(
        f"time {text!r} is outside the years 2000 to 2099 in seconds, ms, µs and ns"
    )


def _iso_ns(text: str, zone: tzinfo) -> int:
    fraction = _FRACTION.search(text)
    digits = fraction.group(1) if fraction else ""
    if len(digits) > 9:
        raise InvalidInputError(f"time {text!r} has more than 9 decimals; nanoseconds are kept")
    # datetime keeps six decimals, so the fraction is cut out and added in ns.
    whole = text if fraction is None else text[: fraction.start()] + text[fraction.end() :]
    try:
        moment = datetime.fromisoformat(whole)
    except ValueError:
        raise InvalidInputError(
            f"time {text!r} is not understood; write 2026-11-05T10:30:00Z or 2026-11-05"
        ) from None
    return to_ns(in_zone(moment, zone)) + int(digits.ljust(9, "0") or 0)


def in_zone(moment: datetime, zone: tzinfo) -> datetime:
    """`moment` in UTC; without an offset it is read as a local time of `zone`."""
    if moment.tzinfo is not None:
        return moment.astimezone(timezone.utc)
    early, late = moment.replace(tzinfo=zone), moment.replace(tzinfo=zone, fold=1)
    if early.utcoffset() != late.utcoffset() and moment.time() != datetime.min.time():
        raise InvalidInputError(
            f"{moment} does not exist or happens twice in {zone}: the clock changes there; "
            "write the offset too, such as +01:00"
        )
    return early.astimezone(timezone.utc)


@dataclass(frozen=True)
class Range:
    """A half-open range in nanoseconds, with datetimes for the SDK."""

    start_ns: int
    end_ns: int

    @property
    def period(self) -> Period:
        return Period(from_ns(self.start_ns), from_ns(self.end_ns))


def parse_range(name: str, zone: tzinfo, now: datetime) -> Range:
    """The range a name, a year, a month or a day stands for."""
    if name == "this-hour":
        return this_hour(now)
    first, after = _named_days(name, now.astimezone(zone)) or _calendar_days(name)
    return Range(_midnight(first, zone), _midnight(after, zone))


def this_hour(now: datetime) -> Range:
    """The running hour of UTC."""
    start = now.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)
    return Range(to_ns(start), to_ns(start + timedelta(hours=1)))


def _midnight(day: date, zone: tzinfo) -> int:
    return to_ns(in_zone(datetime(day.year, day.month, day.day), zone))


def _named_days(name: str, local: datetime) -> tuple[date, date] | None:
    today = local.date()
    monday = today - timedelta(days=today.weekday())
    month = today.replace(day=1)
    year = today.replace(month=1, day=1)
    ranges = {
        "today": (today, today + timedelta(days=1)),
        "yesterday": (today - timedelta(days=1), today),
        "this-week": (monday, monday + timedelta(days=7)),
        "last-week": (monday - timedelta(days=7), monday),
        "this-month": (month, _next_month(month)),
        "last-month": ((month - timedelta(days=1)).replace(day=1), month),
        "this-year": (year, year.replace(year=year.year + 1)),
        "last-year": (year.replace(year=year.year - 1), year),
    }
    return ranges.get(name)


def _calendar_days(text: str) -> tuple[date, date]:
    try:
        if re.fullmatch(r"\d{4}", text):
            first = date(int(text), 1, 1)
            return first, first.replace(year=first.year + 1)
        if re.fullmatch(r"\d{4}-\d{2}", text):
            first = date.fromisoformat(f"{text}-01")
            return first, _next_month(first)
        day = date.fromisoformat(text)
        return day, day + timedelta(days=1)
    except ValueError:
        raise InvalidInputError(
            f"period {text!r} is not understood; write a year, 2026-11, 2026-11-05, or one of: "
            + ", ".join(NAMED_RANGES)
        ) from None


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def format_instant(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC, with the decimals that are there and no more."""
    if moment is None:
        return None
    utc = moment.astimezone(timezone.utc)
    text = utc.strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{utc.microsecond:06d}".rstrip("0") if utc.microsecond else ""
    return f"{text}{fraction}Z"


def format_ns(ns: int) -> str:
    """ISO 8601 in UTC with all nine decimals that are there and no more."""
    seconds, fraction = divmod(ns, 10**9)
    text = from_ns(seconds * 10**9).strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{fraction:09d}".rstrip("0") if fraction else "") + "Z"
