"""Periods: the helpers callers name them with, and the arithmetic that finds them.

Two halves. The helpers (`current_month` and its kin) make a `Period` from the
caller's clock; they are the published SDK's, and no stored byte depends on
them. The rest is deterministic: a `Calendar` maps an instant to the half-open
period ``[start, end)`` that holds it, from numbers alone.

A zone's rules differ between releases of the time zone database, and two
hosts may have different ones. So `zone_transitions` asks the host's database
once, when a metric is proposed; what it answers goes into the log with the
metric, and every replica builds the `Calendar` from that. No other function
here reads the database or a clock.

A calendar takes one of two forms, because the kernel looks up one per event:

    arithmetic   (origin, length): FIXED periods, and DAY, WEEK, HOUR where the
                 offset from UTC never changes; one division
    boundaries   every start from 2000 to 2100, sorted; one binary search

What a local period is where clocks change:

    day, week, month   starts at the first instant whose local date is that day
                       or later. A midnight skipped by a gap starts at the gap;
                       a midnight shown twice starts at the first; a day that a
                       zone skipped whole (Apia, 2011-12-30) has no period.
    hour               starts whenever the local clock shows a full hour, or
                       jumps over one. So an hour shown twice is two periods of
                       one hour, and in a zone that moves by 30 minutes
                       (Lord Howe) an hour may be 30 or 90 minutes long.

Rejected: computing boundaries per lookup with `zoneinfo` (slow, and not the
same everywhere), and storing a POSIX rule per metric (some zones have none).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from unimeter.errors import InvalidInputError
from unimeter.limits import (
    CYCLE_DAY_MAX,
    CYCLE_DAY_MIN,
    PERIOD_NS_MAX,
    PERIOD_NS_MIN,
    TIMESTAMP_NS_MAX,
    TIMESTAMP_NS_MIN,
    ZONE_TRANSITIONS_MAX,
)
from unimeter.types import Period, PeriodType, Resolution

SECOND_NS: Final = 10**9
HOUR_NS: Final = 3_600 * SECOND_NS
DAY_NS: Final = 86_400 * SECOND_NS
WEEK_NS: Final = 7 * DAY_NS
FIXED_PERIOD_NS_DEFAULT: Final = 30 * DAY_NS
MONDAY_NS: Final = 4 * DAY_NS  # 1970-01-05, the first Monday after the epoch

TRANSITIONS_FROM: Final = 915_148_800  # 1999-01-01: a year before the first timestamp
TRANSITIONS_UNTIL: Final = 4_133_980_800  # 2101-01-01: a year after the last one
UTC_TRANSITIONS: Final = ((TRANSITIONS_FROM, 0),)
OFFSET_SECONDS_MAX: Final = 26 * 3_600  # no zone was ever further from UTC; more is nonsense

Transitions = tuple[tuple[int, int], ...]
"""(UTC seconds from which, seconds east of UTC), the first from 1999-01-01 on."""


# --- the published helpers ----------------------------------------------------


def _now(now: datetime | None) -> datetime:
    return datetime.now(timezone.utc) if now is None else now.astimezone(timezone.utc)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _add_months(moment: datetime, months: int) -> datetime:
    number = moment.year * 12 + moment.month - 1 + months
    return moment.replace(year=number // 12, month=number % 12 + 1)


def current_billing_period(cycle_day: int = 1, *, now: datetime | None = None) -> Period:
    """The current UTC billing month that starts on `cycle_day`.

    As in the published SDK a day outside 1-28 is moved to the nearest of them;
    a metric with such a day is refused, so the range is never one of its periods.
    """
    day = max(CYCLE_DAY_MIN, min(CYCLE_DAY_MAX, cycle_day))
    today = _midnight(_now(now))
    start = today.replace(day=day)
    if start > today:
        start = _add_months(start, -1)
    return Period(start=start, end=_add_months(start, 1))


def last_billing_period(cycle_day: int = 1, *, now: datetime | None = None) -> Period:
    """The billing month before the current one."""
    end = current_billing_period(cycle_day, now=now).start
    return Period(start=_add_months(end, -1), end=end)


def current_month(*, now: datetime | None = None) -> Period:
    """The current calendar month, UTC."""
    return current_billing_period(1, now=now)


def last_month(*, now: datetime | None = None) -> Period:
    """The calendar month before the current one, UTC."""
    return last_billing_period(1, now=now)


def today_utc(*, now: datetime | None = None) -> Period:
    """The current UTC day; a period of PeriodType.DAY."""
    start = _midnight(_now(now))
    return Period(start=start, end=start + timedelta(days=1))


def yesterday_utc(*, now: datetime | None = None) -> Period:
    """The UTC day before the current one."""
    end = today_utc(now=now).start
    return Period(start=end - timedelta(days=1), end=end)


def this_week_utc(*, now: datetime | None = None) -> Period:
    """The current ISO week, Monday to Monday, UTC; a period of PeriodType.WEEK."""
    today = _midnight(_now(now))
    start = today - timedelta(days=today.weekday())
    return Period(start=start, end=start + timedelta(days=7))


def last_week_utc(*, now: datetime | None = None) -> Period:
    """The ISO week before the current one, UTC."""
    end = this_week_utc(now=now).start
    return Period(start=end - timedelta(days=7), end=end)


# --- zones --------------------------------------------------------------------


def _load_zone(zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(zone)
    # A directory of the database ("America") and a path out of it raise these too.
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInputError(
            f"zone {zone!r} is not in this host's time zone database; use an IANA name "
            "such as 'Europe/Berlin' (without a system database: pip install tzdata)"
        ) from error


def _first_change(loaded: ZoneInfo, low: int, high: int) -> int:
    """The first second in (low, high] whose offset is that of `high`, by halving."""
    target = _offset_at(loaded, high)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_at(loaded, middle) == target:
            high = middle
        else:
            low = middle
    return high


def _offset_at(loaded: ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, loaded).utcoffset()
    assert offset is not None
    return offset.days * 86_400 + offset.seconds


@lru_cache(maxsize=64)
def zone_transitions(zone: str) -> Transitions:
    """Every change of the zone's offset from 1999 to 2101, from the host's database.

    Call it only where a metric is proposed: the answer belongs into the log.
    The public interface of `zoneinfo` has no list of changes, so days are
    sampled and a change is found by halving; no zone changes twice in a day.
    """
    if zone == "UTC":
        return UTC_TRANSITIONS
    loaded = _load_zone(zone)
    offset = _offset_at(loaded, TRANSITIONS_FROM)
    found = [(TRANSITIONS_FROM, offset)]
    for day in range(TRANSITIONS_FROM, TRANSITIONS_UNTIL, 86_400):
        following = _offset_at(loaded, day + 86_400)
        if following != offset:
            found.append((_first_change(loaded, day, day + 86_400), following))
            offset = following
    return tuple(found)


def check_transitions(transitions: Sequence[tuple[int, int]]) -> None:
    """Raise InvalidInputError unless the table could have come from `zone_transitions`."""
    if not 1 <= len(transitions) <= ZONE_TRANSITIONS_MAX:
        raise InvalidInputError(
            f"a zone has 1 to {ZONE_TRANSITIONS_MAX} transitions, found {len(transitions)}"
        )
    if transitions[0][0] != TRANSITIONS_FROM:
        raise InvalidInputError(
            f"a zone's first transition is at {TRANSITIONS_FROM}, found {transitions[0][0]}"
        )
    before = TRANSITIONS_FROM - 1
    for second, offset in transitions:
        if not before < second <= TRANSITIONS_UNTIL:
            raise InvalidInputError(f"zone transition at {second} is out of order or after 2101")
        if abs(offset) > OFFSET_SECONDS_MAX:
            raise InvalidInputError(f"zone offset {offset} s is more than a day from UTC")
        before = second


def _spans(transitions: Transitions) -> list[tuple[int, int, int]]:
    """(from, until, offset) in seconds, those that matter from 2000 to 2100."""
    ends = [second for second, _ in transitions[1:]] + [TRANSITIONS_UNTIL + 366 * 86_400]
    # A month that holds 2000-01-01 may start 31 days earlier, on the local clock.
    earliest = TIMESTAMP_NS_MIN // SECOND_NS - 33 * 86_400
    return [
        (start, end, offset)
        for (start, offset), end in zip(transitions, ends, strict=True)
        if end > earliest
    ]


# --- boundaries ---------------------------------------------------------------


def _local_months(cycle_day: int) -> Iterator[int]:
    """Local seconds of every month's `cycle_day`, from before 2000 to after 2100."""
    for number in range(1999 * 12 + 10, 2100 * 12 + 3):
        first = date(number // 12, number % 12 + 1, cycle_day)
        yield (first.toordinal() - date(1970, 1, 1).toordinal()) * 86_400


def _local_steps(step: int, origin: int) -> Iterator[int]:
    """Local seconds of every day or week, from before 2000 to after 2100."""
    low = TIMESTAMP_NS_MIN // SECOND_NS - 16 * 86_400
    high = TIMESTAMP_NS_MAX // SECOND_NS + 16 * 86_400
    yield from range(origin + (low - origin) // step * step, high, step)


def _first_instants(
    local_starts: Iterator[int], spans: list[tuple[int, int, int]]
) -> Iterator[int]:
    """The first UTC second at which the local clock reaches each start.

    Two starts that share an instant lie in one gap; the earlier never showed
    on a local clock, so it gives no period of its own.
    """
    position = 0
    last = None
    for local in local_starts:
        while local - spans[position][2] >= spans[position][1]:
            position += 1
        start, _, offset = spans[position]
        instant = max(start, local - offset)
        if instant != last:
            yield instant
        last = instant


def _hour_instants(spans: list[tuple[int, int, int]]) -> Iterator[int]:
    """UTC seconds at which the local clock shows a full hour or jumps over one."""
    low = TIMESTAMP_NS_MIN // SECOND_NS - 2 * 86_400
    high = TIMESTAMP_NS_MAX // SECOND_NS + 2 * 86_400
    offset_before = spans[0][2]
    for start, end, offset in spans:
        full = start + -(start + offset) % 3_600
        hour_before = -(-(start + offset_before) // 3_600) - 1
        if full != start and (start + offset) // 3_600 > hour_before:
            yield start
        skipped = max(0, low - full) // 3_600
        yield from range(full + skipped * 3_600, min(end, high), 3_600)
        offset_before = offset


def _trimmed(seconds: Iterator[int]) -> array[int]:
    """In nanoseconds, from the last start before 2000 to the first from 2100 on."""
    starts = array("q", [second * SECOND_NS for second in seconds])
    low = bisect_right(starts, TIMESTAMP_NS_MIN) - 1
    high = bisect_left(starts, TIMESTAMP_NS_MAX)
    assert low >= 0 and high < len(starts), "the table must cover 2000 to 2100"
    return starts[low : high + 1]


def _hours_are_regular(spans: list[tuple[int, int, int]]) -> bool:
    """Whether local hours lie a whole number of hours apart throughout."""
    first = spans[0][2]
    return all(
        (offset - first) % 3_600 == 0 and (position == 0 or (start + offset) % 3_600 == 0)
        for position, (start, _, offset) in enumerate(spans)
    )


def _arithmetic(
    kind: PeriodType, period_ns: int, spans: list[tuple[int, int, int]]
) -> tuple[int, int] | None:
    """(origin, length) where every period has the same length, else None.

    0 <= origin < length, so that a kernel may do it in unsigned arithmetic.
    """
    if kind == PeriodType.FIXED:
        return 0, period_ns
    offset_ns = spans[0][2] * SECOND_NS
    if kind == PeriodType.HOUR:
        return (-offset_ns % HOUR_NS, HOUR_NS) if _hours_are_regular(spans) else None
    if kind == PeriodType.CALENDAR or any(span[2] != spans[0][2] for span in spans):
        return None
    if kind == PeriodType.DAY:
        return -offset_ns % DAY_NS, DAY_NS
    return (MONDAY_NS - offset_ns) % WEEK_NS, WEEK_NS


def _boundaries(kind: PeriodType, cycle_day: int, spans: list[tuple[int, int, int]]) -> array[int]:
    if kind == PeriodType.HOUR:
        return _trimmed(_hour_instants(spans))
    if kind == PeriodType.DAY:
        return _trimmed(_first_instants(_local_steps(86_400, 0), spans))
    if kind == PeriodType.WEEK:
        monday = MONDAY_NS // SECOND_NS
        return _trimmed(_first_instants(_local_steps(7 * 86_400, monday), spans))
    return _trimmed(_first_instants(_local_months(cycle_day), spans))


class Calendar:
    """Maps an instant to its period; immutable, made by `make_calendar`.

    Exactly one form is in use: `arithmetic` is ``(origin_ns, length_ns)``, or
    it is None and `boundaries` holds every start, sorted, the first at or
    before 2000-01-01T00:00Z and the last at or after 2100-01-01T00:00Z.
    """

    __slots__ = ("arithmetic", "boundaries", "cycle_day", "kind", "period_ns", "transitions")

    arithmetic: tuple[int, int] | None
    boundaries: array[int]

    def __init__(
        self, kind: PeriodType, cycle_day: int, period_ns: int, transitions: Transitions
    ) -> None:
        assert CYCLE_DAY_MIN <= cycle_day <= CYCLE_DAY_MAX
        assert kind != PeriodType.FIXED or PERIOD_NS_MIN <= period_ns <= PERIOD_NS_MAX
        self.kind = kind
        self.cycle_day = cycle_day
        self.period_ns = period_ns
        self.transitions = transitions
        spans = _spans(transitions)
        self.arithmetic = _arithmetic(kind, period_ns, spans)
        self.boundaries = array("q")
        if self.arithmetic is None:
            self.boundaries = _boundaries(kind, cycle_day, spans)

    def bounds(self, timestamp_ns: int) -> tuple[int, int]:
        """The period ``[start_ns, end_ns)`` that holds the instant (2000 to 2100)."""
        if self.arithmetic is not None:
            origin, length = self.arithmetic
            start = origin + (timestamp_ns - origin) // length * length
            return start, start + length
        position = bisect_right(self.boundaries, timestamp_ns)
        assert 0 < position < len(self.boundaries), f"{timestamp_ns} is not in 2000 to 2100"
        return self.boundaries[position - 1], self.boundaries[position]

    def is_start(self, timestamp_ns: int) -> bool:
        """Whether a period starts (and the one before it ends) at this instant."""
        if self.arithmetic is not None:
            origin, length = self.arithmetic
            return (timestamp_ns - origin) % length == 0
        position = bisect_left(self.boundaries, timestamp_ns)
        return position < len(self.boundaries) and self.boundaries[position] == timestamp_ns

    def tiles_like(self, other: Calendar) -> bool:
        """Whether both cut time at the same instants, whatever they are called."""
        return self is other or (
            self.arithmetic == other.arithmetic and self.boundaries == other.boundaries
        )

    def periods(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
        """Every period that shares an instant with ``[start_ns, end_ns)``, in order."""
        while start_ns < end_ns:
            period = self.bounds(start_ns)
            yield period
            start_ns = period[1]

    def starts(self, start_ns: int, end_ns: int) -> Sequence[int]:
        """Every instant in ``[start_ns, end_ns)`` at which a period starts, in order."""
        if self.arithmetic is not None:
            origin, length = self.arithmetic
            return range(start_ns + (origin - start_ns) % length, end_ns, length)
        low = bisect_left(self.boundaries, start_ns)
        return self.boundaries[low : bisect_left(self.boundaries, end_ns)]

    def inner(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """The largest ``[start, end)`` inside the range made of whole periods.

        Empty (start >= end) where not even one period lies inside.
        """
        first = start_ns if self.is_start(start_ns) else self.bounds(start_ns)[1]
        last = end_ns if self.is_start(end_ns) else self.bounds(end_ns)[0]
        return first, last


@lru_cache(maxsize=1024)
def make_calendar(
    kind: PeriodType, cycle_day: int, period_ns: int, transitions: Transitions
) -> Calendar:
    """The calendar of these rules; equal rules share one, as a table may hold megabytes."""
    return Calendar(kind, cycle_day, period_ns, transitions)


def bucket_calendar(resolution: Resolution, period: Calendar) -> Calendar:
    """The calendar of the buckets that totals of a metric with this period are kept in.

    HOUR and DAY are hours and days of the metric's zone (a FIXED metric has
    none: UTC), PERIOD is the period itself. A period that is not made of whole
    buckets of the wanted size (90 minutes in days; hours in days) gets the
    next smaller size that fits, in the end the period: else the total of a
    period could not be told from its buckets.
    """
    if resolution == Resolution.DAY:
        days = make_calendar(PeriodType.DAY, 1, 0, period.transitions)
        if is_aligned(period, days):
            return days
    if resolution != Resolution.PERIOD:
        hours = make_calendar(PeriodType.HOUR, 1, 0, period.transitions)
        if is_aligned(period, hours):
            return hours
    return period


def _starts_within(calendar: Calendar) -> Iterator[int]:
    for start, _ in calendar.periods(TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX):
        if start >= TIMESTAMP_NS_MIN:
            yield start


@lru_cache(maxsize=1024)
def is_aligned(period: Calendar, bucket: Calendar) -> bool:
    """Whether every period from 2000 to 2100 is made of whole buckets."""
    if period is bucket:
        return True
    if period.arithmetic is not None and bucket.arithmetic is not None:
        origin, length = bucket.arithmetic
        return period.arithmetic[1] % length == 0 and (period.arithmetic[0] - origin) % length == 0
    if bucket.arithmetic is None and period.kind == PeriodType.HOUR:
        return bucket.kind == PeriodType.HOUR and period.transitions == bucket.transitions
    return all(bucket.is_start(start) for start in _starts_within(period))
