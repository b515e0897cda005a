"""Periods against `zoneinfo`: the same instants, found another way."""

from __future__ import annotations

import itertools
import random
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimeter import periods
from unimeter.errors import InvalidInputError
from unimeter.limits import PERIOD_NS_MAX, PERIOD_NS_MIN, TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN
from unimeter.periods import (
    DAY_NS,
    FIXED_PERIOD_NS_DEFAULT,
    HOUR_NS,
    SECOND_NS,
    UTC_TRANSITIONS,
    Calendar,
    bucket_calendar,
    check_transitions,
    is_aligned,
    make_calendar,
    zone_transitions,
)
from unimeter.types import Period, PeriodType, Resolution, from_ns, to_ns

UTC = timezone.utc
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # moved its clocks at 00:01 until 2011
    "America/Sao_Paulo",  # midnights in gaps
    "America/Havana",
    "Asia/Kathmandu",  # +05:45, never moves
    "Asia/Kolkata",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Pyongyang",
    "Africa/Casablanca",  # moves back for a month
    "Africa/Cairo",
    "America/Caracas",
    "Antarctica/Troll",
    "Australia/Lord_Howe",  # moves by 30 minutes
    "Pacific/Apia",  # skipped 2011-12-30
    "Pacific/Chatham",
    "Pacific/Kiritimati",
]


def ns(*when: int) -> int:
    return to_ns(datetime(*when, tzinfo=UTC))  # type: ignore[misc,arg-type]


def calendar_of(kind: PeriodType, zone: str = "UTC", cycle_day: int = 1) -> Calendar:
    return make_calendar(kind, cycle_day, 0, zone_transitions(zone))


def local_date(zone: str, second: int) -> date:
    return datetime.fromtimestamp(second, ZoneInfo(zone)).date()


# --- helpers --------------------------------------------------------------------


def test_month_helpers_agree_with_the_published_sdk() -> None:
    now = datetime(2024, 1, 15, 13, 5, 6, 7, tzinfo=UTC)
    assert periods.current_month(now=now) == Period(
        datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
    )
    assert periods.last_month(now=now) == Period(
        datetime(2023, 12, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
    )
    december = datetime(2024, 12, 31, 23, 59, tzinfo=UTC)
    assert periods.current_month(now=december).end == datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cycle_day", "start", "end"),
    [
        (1, (2024, 1, 1), (2024, 2, 1)),
        (15, (2024, 1, 15), (2024, 2, 15)),
        (16, (2023, 12, 16), (2024, 1, 16)),
        (99, (2023, 12, 28), (2024, 1, 28)),
        (-3, (2024, 1, 1), (2024, 2, 1)),
    ],
)
def test_billing_period_helper_clamps_the_day_as_published(
    cycle_day: int, start: tuple[int, int, int], end: tuple[int, int, int]
) -> None:
    now = datetime(2024, 1, 15, tzinfo=UTC)
    found = periods.current_billing_period(cycle_day, now=now)
    assert found == Period(datetime(*start, tzinfo=UTC), datetime(*end, tzinfo=UTC))
    before = periods.last_billing_period(cycle_day, now=now)
    assert before.end == found.start and before.start.day == found.start.day


def test_day_and_week_helpers() -> None:
    now = datetime(2024, 3, 3, 23, 0, tzinfo=UTC)  # a Sunday
    assert periods.today_utc(now=now).start == datetime(2024, 3, 3, tzinfo=UTC)
    assert periods.yesterday_utc(now=now).end == datetime(2024, 3, 3, tzinfo=UTC)
    assert periods.this_week_utc(now=now).start == datetime(2024, 2, 26, tzinfo=UTC)
    assert periods.last_week_utc(now=now).start == datetime(2024, 2, 19, tzinfo=UTC)


def test_helpers_use_the_clock_when_not_told_a_time() -> None:
    today = periods.today_utc()
    assert today.start <= datetime.now(UTC) and today.end - today.start == timedelta(days=1)


def test_helpers_give_periods_of_the_calendars() -> None:
    now = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
    pairs = [
        (periods.today_utc(now=now), calendar_of(PeriodType.DAY)),
        (periods.this_week_utc(now=now), calendar_of(PeriodType.WEEK)),
        (periods.current_month(now=now), calendar_of(PeriodType.CALENDAR)),
        (periods.current_billing_period(17, now=now), calendar_of(PeriodType.CALENDAR, "UTC", 17)),
    ]
    for period, calendar in pairs:
        assert calendar.bounds(to_ns(now)) == (to_ns(period.start), to_ns(period.end))


# --- zones ----------------------------------------------------------------------


@pytest.mark.parametrize("zone", ZONES)
def test_transitions_give_the_offset_zoneinfo_gives(zone: str) -> None:
    transitions = zone_transitions(zone)
    check_transitions(transitions)
    loaded = ZoneInfo(zone)
    generator = random.Random(zone)
    near = [second + shift for second, _ in transitions for shift in (-1, 0, 1)]
    spread = [generator.randrange(946_684_800, 4_102_444_800) for _ in range(500)]
    for second in near[3:] + spread:
        offset = [value for start, value in transitions if start <= second][-1]
        expected = datetime.fromtimestamp(second, loaded).utcoffset()
        assert expected == timedelta(seconds=offset), from_ns(second * SECOND_NS)


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "", "America", "../../etc/passwd", "/etc/passwd", "Eu\0rope"]
)
def test_unknown_zone_is_refused_with_its_name(zone: str) -> None:
    with pytest.raises(InvalidInputError, match="zone"):
        zone_transitions(zone)


@pytest.mark.parametrize(
    "table",
    [
        (),
        ((0, 0),),
        ((periods.TRANSITIONS_FROM, 0), (periods.TRANSITIONS_FROM, 3600)),
        ((periods.TRANSITIONS_FROM, 100_000),),
        ((periods.TRANSITIONS_FROM, 0), (periods.TRANSITIONS_UNTIL + 1, 0)),
        tuple((periods.TRANSITIONS_FROM + i, i % 2) for i in range(1025)),
    ],
)
def test_nonsense_transitions_are_refused(table: periods.Transitions) -> None:
    with pytest.raises(InvalidInputError):
        check_transitions(table)


# --- calendars in UTC -------------------------------------------------------------


def test_fixed_periods_start_at_1970() -> None:
    calendar = make_calendar(PeriodType.FIXED, 1, FIXED_PERIOD_NS_DEFAULT, UTC_TRANSITIONS)
    assert calendar.arithmetic == (0, 30 * DAY_NS)
    start, end = calendar.bounds(ns(2026, 11, 23))
    assert start % (30 * DAY_NS) == 0 and end - start == 30 * DAY_NS
    assert start <= ns(2026, 11, 23) < end


def test_a_lifetime_is_one_period() -> None:
    lifetime = make_calendar(PeriodType.FIXED, 1, PERIOD_NS_MAX, UTC_TRANSITIONS)
    assert lifetime.bounds(TIMESTAMP_NS_MIN) == lifetime.bounds(TIMESTAMP_NS_MAX - 1)
    assert lifetime.bounds(TIMESTAMP_NS_MAX - 1)[1] < 2**63


@settings(max_examples=50, deadline=None)
@given(st.integers(PERIOD_NS_MIN, PERIOD_NS_MAX))
def test_every_fixed_period_fits_64_bits(period_ns: int) -> None:
    calendar = Calendar(PeriodType.FIXED, 1, period_ns, UTC_TRANSITIONS)
    start, end = calendar.bounds(TIMESTAMP_NS_MAX - 1)
    assert 0 <= start < TIMESTAMP_NS_MAX <= end < 2**63


def test_utc_days_weeks_and_hours_are_arithmetic() -> None:
    assert calendar_of(PeriodType.DAY).arithmetic == (0, DAY_NS)
    assert calendar_of(PeriodType.HOUR).arithmetic == (0, HOUR_NS)
    week = calendar_of(PeriodType.WEEK)
    assert week.arithmetic is not None
    assert from_ns(week.bounds(ns(2024, 3, 3, 23))[0]) == datetime(2024, 2, 26, tzinfo=UTC)
    assert week.is_start(ns(2024, 2, 26)) and not week.is_start(ns(2024, 2, 25))


@pytest.mark.parametrize("cycle_day", [1, 2, 15, 28])
def test_months_start_at_the_cycle_day(cycle_day: int) -> None:
    calendar = calendar_of(PeriodType.CALENDAR, "UTC", cycle_day)
    assert calendar.arithmetic is None
    for start in calendar.boundaries:
        moment = from_ns(start)
        assert (moment.day, moment.hour, moment.minute, moment.second) == (cycle_day, 0, 0, 0)
    months = 1200 if cycle_day == 1 else 1201
    assert len(calendar.boundaries) == months + 1


def test_leap_day_lies_in_february() -> None:
    calendar = calendar_of(PeriodType.CALENDAR)
    assert calendar.bounds(ns(2024, 2, 29, 12)) == (ns(2024, 2, 1), ns(2024, 3, 1))
    assert calendar.bounds(ns(2000, 2, 29)) == (ns(2000, 2, 1), ns(2000, 3, 1))


# --- calendars in zones -------------------------------------------------------------


def expected_day_start(zone: str, day: date) -> int:
    """The first second whose local date is `day` or later, by stepping minutes."""
    middle = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    second = middle - 30 * 3600
    while local_date(zone, second) < day:
        second += 900
    second -= 900
    while local_date(zone, second) < day:
        second += 60
    return second


@pytest.mark.parametrize("zone", ZONES)
def test_local_days_start_at_their_first_instant(zone: str) -> None:
    calendar = calendar_of(PeriodType.DAY, zone)
    changes = [local_date(zone, second) for second, _ in zone_transitions(zone)[1:]]
    generator = random.Random(zone)
    sample = [date(2000, 1, 2) + timedelta(generator.randrange(36_500)) for _ in range(10)]
    near = generator.sample(changes, min(len(changes), 12))
    for day in sample + [day + timedelta(shift) for day in near for shift in (0, 1)]:
        if not date(2000, 1, 1) < day < date(2099, 12, 31):
            continue
        start = expected_day_start(zone, day) * SECOND_NS
        assert calendar.is_start(start), (zone, day)
        assert calendar.bounds(start)[0] == start
        assert calendar.bounds(start - 1)[1] == start


@pytest.mark.parametrize("zone", ZONES)
def test_no_local_day_starts_where_the_date_does_not_grow(zone: str) -> None:
    calendar = calendar_of(PeriodType.DAY, zone)
    newest = date(1999, 1, 1)
    for start, _ in calendar.periods(ns(2005, 1, 1), ns(2013, 1, 1)):
        found = local_date(zone, start // SECOND_NS)
        assert found > newest, (zone, from_ns(start))
        newest = found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("kind", list(PeriodType)[1:])
def test_periods_tile_the_century(zone: str, kind: PeriodType) -> None:
    calendar = calendar_of(kind, zone, 3)
    if calendar.arithmetic is not None:
        assert 0 <= calendar.arithmetic[0] < calendar.arithmetic[1]
    if calendar.arithmetic is None:
        starts = calendar.boundaries
        assert starts[0] <= TIMESTAMP_NS_MIN < starts[1]
        assert starts[-2] < TIMESTAMP_NS_MAX <= starts[-1]
        assert all(a < b for a, b in itertools.pairwise(starts))
    for edge in (TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX - 1):
        start, end = calendar.bounds(edge)
        assert start <= edge < end


@pytest.mark.parametrize("zone", ZONES)
def test_weeks_and_months_start_at_local_days(zone: str) -> None:
    days = calendar_of(PeriodType.DAY, zone)
    assert is_aligned(calendar_of(PeriodType.WEEK, zone), days)
    assert is_aligned(calendar_of(PeriodType.CALENDAR, zone, 28), days)
    for start, _ in calendar_of(PeriodType.WEEK, zone).periods(ns(2009, 1, 1), ns(2013, 1, 1)):
        assert local_date(zone, start // SECOND_NS).isoweekday() == 1 or zone == "Pacific/Apia"
    for start, _ in calendar_of(PeriodType.CALENDAR, zone, 5).periods(
        ns(2009, 1, 1), ns(2013, 1, 1)
    ):
        assert local_date(zone, start // SECOND_NS).day == 5


@pytest.mark.parametrize("zone", ZONES)
def test_days_start_at_local_hours(zone: str) -> None:
    assert is_aligned(calendar_of(PeriodType.DAY, zone), calendar_of(PeriodType.HOUR, zone))


@pytest.mark.parametrize("zone", ZONES)
def test_local_hours_show_a_full_hour_or_follow_a_jump(zone: str) -> None:
    calendar = calendar_of(PeriodType.HOUR, zone)
    loaded = ZoneInfo(zone)
    jumps = {second for second, _ in zone_transitions(zone)}
    for start, end in calendar.periods(ns(2011, 3, 1), ns(2011, 11, 15)):
        moment = datetime.fromtimestamp(start // SECOND_NS, loaded)
        assert moment.minute == 0 or start // SECOND_NS in jumps
        assert end - start <= 2 * HOUR_NS


def test_a_skipped_day_has_no_period() -> None:
    days = calendar_of(PeriodType.DAY, "Pacific/Apia")
    # Apia went from 2011-12-29T23:59:59-10 to 2011-12-31T00:00:00+14.
    assert days.bounds(ns(2011, 12, 30, 9)) == (ns(2011, 12, 29, 10), ns(2011, 12, 30, 10))
    assert days.bounds(ns(2011, 12, 30, 10)) == (ns(2011, 12, 30, 10), ns(2011, 12, 31, 10))
    assert local_date("Pacific/Apia", ns(2011, 12, 30, 10) // SECOND_NS) == date(2011, 12, 31)


def test_days_of_23_and_25_hours() -> None:
    days = calendar_of(PeriodType.DAY, "Europe/Berlin")
    assert days.bounds(ns(2024, 3, 31, 12)) == (ns(2024, 3, 30, 23), ns(2024, 3, 31, 22))
    assert days.bounds(ns(2024, 10, 27, 12)) == (ns(2024, 10, 26, 22), ns(2024, 10, 27, 23))


def test_a_midnight_in_a_gap_starts_at_the_gap() -> None:
    days = calendar_of(PeriodType.DAY, "America/Sao_Paulo")
    # 2018-11-04 began at 01:00 local, 03:00 UTC.
    assert days.bounds(ns(2018, 11, 4, 12))[0] == ns(2018, 11, 4, 3)


def test_a_midnight_shown_twice_starts_at_the_first() -> None:
    days = calendar_of(PeriodType.DAY, "America/Havana")
    # 2024-11-03: 00:00 CDT (04:00 UTC), at 01:00 back to 00:00 CST.
    assert days.bounds(ns(2024, 11, 3, 5, 30)) == (ns(2024, 11, 3, 4), ns(2024, 11, 4, 5))
    st_johns = calendar_of(PeriodType.DAY, "America/St_Johns")
    # 2010-11-07: midnight 02:30 UTC, one minute later back to 23:01 of the 6th.
    assert st_johns.bounds(ns(2010, 11, 7, 3))[0] == ns(2010, 11, 7, 2, 30)


def test_hours_of_a_zone_with_whole_offsets_are_utc_hours() -> None:
    assert calendar_of(PeriodType.HOUR, "Europe/Berlin").arithmetic == (0, HOUR_NS)
    assert calendar_of(PeriodType.HOUR, "America/New_York").arithmetic == (0, HOUR_NS)


def test_hours_of_kathmandu_start_a_quarter_past() -> None:
    hours = calendar_of(PeriodType.HOUR, "Asia/Kathmandu")
    assert hours.arithmetic == (15 * 60 * SECOND_NS, HOUR_NS)
    assert hours.bounds(ns(2024, 5, 1, 10, 20)) == (ns(2024, 5, 1, 10, 15), ns(2024, 5, 1, 11, 15))
    days = calendar_of(PeriodType.DAY, "Asia/Kathmandu")
    assert days.bounds(ns(2024, 5, 1, 10, 20))[0] == ns(2024, 4, 30, 18, 15)


def test_hours_of_lord_howe_are_cut_and_stretched_by_thirty_minutes() -> None:
    hours = calendar_of(PeriodType.HOUR, "Australia/Lord_Howe")
    assert hours.arithmetic is None
    # 2024-04-07 at 02:00 +11 (15:00 UTC) the clock goes back to 01:30 +10:30.
    assert hours.bounds(ns(2024, 4, 6, 15, 10)) == (ns(2024, 4, 6, 14), ns(2024, 4, 6, 15, 30))
    # 2024-10-06 at 02:00 +10:30 (15:30 UTC) it goes forward to 02:30 +11.
    assert hours.bounds(ns(2024, 10, 5, 15, 40)) == (ns(2024, 10, 5, 15, 30), ns(2024, 10, 5, 16))


# --- ranges -------------------------------------------------------------------------


def test_inner_gives_the_whole_periods_of_a_range() -> None:
    days = calendar_of(PeriodType.DAY)
    assert days.inner(ns(2024, 1, 1), ns(2024, 1, 3)) == (ns(2024, 1, 1), ns(2024, 1, 3))
    assert days.inner(ns(2024, 1, 1, 1), ns(2024, 1, 3, 1)) == (ns(2024, 1, 2), ns(2024, 1, 3))
    start, end = days.inner(ns(2024, 1, 1, 1), ns(2024, 1, 1, 2))
    assert start >= end


def test_periods_lists_those_that_touch_the_range() -> None:
    months = calendar_of(PeriodType.CALENDAR)
    found = list(months.periods(ns(2024, 1, 31), ns(2024, 3, 1)))
    assert found == [(ns(2024, 1, 1), ns(2024, 2, 1)), (ns(2024, 2, 1), ns(2024, 3, 1))]
    assert not list(months.periods(ns(2024, 1, 31), ns(2024, 1, 31)))


def test_equal_rules_share_one_calendar() -> None:
    assert calendar_of(PeriodType.DAY, "Europe/Berlin") is calendar_of(
        PeriodType.DAY, "Europe/Berlin"
    )


@pytest.mark.parametrize(
    ("period", "resolution", "wanted"),
    [
        ((PeriodType.FIXED, FIXED_PERIOD_NS_DEFAULT), Resolution.DAY, PeriodType.DAY),
        ((PeriodType.FIXED, FIXED_PERIOD_NS_DEFAULT), Resolution.HOUR, PeriodType.HOUR),
        ((PeriodType.FIXED, FIXED_PERIOD_NS_DEFAULT), Resolution.PERIOD, PeriodType.FIXED),
        ((PeriodType.FIXED, 36 * HOUR_NS), Resolution.DAY, PeriodType.HOUR),
        ((PeriodType.FIXED, 90 * 60 * SECOND_NS), Resolution.DAY, PeriodType.FIXED),
        ((PeriodType.FIXED, 90 * 60 * SECOND_NS), Resolution.HOUR, PeriodType.FIXED),
        ((PeriodType.HOUR, 0), Resolution.DAY, PeriodType.HOUR),
        ((PeriodType.DAY, 0), Resolution.DAY, PeriodType.DAY),
        ((PeriodType.WEEK, 0), Resolution.DAY, PeriodType.DAY),
        ((PeriodType.CALENDAR, 0), Resolution.HOUR, PeriodType.HOUR),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Australia/Lord_Howe", "America/St_Johns"])
def test_buckets_fit_into_periods(
    period: tuple[PeriodType, int], resolution: Resolution, wanted: PeriodType, zone: str
) -> None:
    kind, length = period
    transitions = UTC_TRANSITIONS if kind == PeriodType.FIXED else zone_transitions(zone)
    calendar = make_calendar(kind, 1, length, transitions)
    buckets = bucket_calendar(resolution, calendar)
    assert buckets.kind == wanted
    assert is_aligned(calendar, buckets)


def test_ninety_minutes_are_not_made_of_days_or_hours() -> None:
    calendar = make_calendar(PeriodType.FIXED, 1, 90 * 60 * SECOND_NS, UTC_TRANSITIONS)
    assert not is_aligned(calendar, calendar_of(PeriodType.DAY))
    assert not is_aligned(calendar, calendar_of(PeriodType.HOUR))
    assert not is_aligned(calendar_of(PeriodType.HOUR), calendar_of(PeriodType.DAY))
    assert not is_aligned(calendar_of(PeriodType.DAY, "Europe/Berlin"), calendar_of(PeriodType.DAY))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(list(PeriodType)[1:]),
    st.integers(TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX - 1),
    st.integers(1, 28),
)
def test_an_instant_lies_in_exactly_its_period(
    zone: str, kind: PeriodType, instant: int, cycle_day: int
) -> None:
    calendar = calendar_of(kind, zone, cycle_day)
    start, end = calendar.bounds(instant)
    assert start <= instant < end
    assert calendar.is_start(start) and calendar.is_start(end)
    assert calendar.bounds(start) == (start, end)
    if start >= TIMESTAMP_NS_MIN and kind not in (PeriodType.HOUR, PeriodType.FIXED):
        local = datetime.fromtimestamp(start // SECOND_NS, ZoneInfo(zone))
        inside = datetime.fromtimestamp(instant // SECOND_NS, ZoneInfo(zone))
        # The date may fall back behind the start's where a midnight is shown twice.
        assert local.date() <= inside.date() + timedelta(days=1)
