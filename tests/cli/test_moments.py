"""Instants and ranges as people write them."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from unimeter.cli.moments import format_ns, parse_instant, parse_range, parse_zone
from unimeter.errors import InvalidInputError

NOW = datetime(2026, 11, 23, 18, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("2026-11-05", "2026-11-05T00:00:00Z"),
        ("2026-11-05T10:30:00Z", "2026-11-05T10:30:00Z"),
        ("2026-11-05 10:30+01:00", "2026-11-05T09:30:00Z"),
        ("2023-11-16 18:15:46.6805901", "2023-11-16T18:15:46.6805901Z"),
        ("2026-11-05T10:30:00.123456789Z", "2026-11-05T10:30:00.123456789Z"),
        ("1700000000", "2023-11-14T22:13:20Z"),
        ("1700000000.5", "2023-11-14T22:13:20.5Z"),
        ("1700000000123", "2023-11-14T22:13:20.123Z"),
        ("1700000000123456", "2023-11-14T22:13:20.123456Z"),
        ("1700000000123456789", "2023-11-14T22:13:20.123456789Z"),
    ],
)
def test_an_instant_keeps_every_digit(text: str, printed: str) -> None:
    assert format_ns(parse_instant(text)) == printed


@pytest.mark.parametrize(
    "text", ["", "yesterday", "12", "1999-12-31", "2100-01-01", "2026-13-01", "10:30", "9" * 19]
)
def test_what_is_no_instant_of_these_years_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_instant(text)


def test_ten_decimals_are_refused_and_not_cut() -> None:
    with pytest.raises(InvalidInputError, match="9 decimals"):
        parse_instant("2026-11-05T10:30:00.1234567891Z")


def test_a_time_without_an_offset_is_in_the_zone() -> None:
    assert format_ns(parse_instant("2026-07-01T12:00", parse_zone("Europe/Berlin"))) == (
        "2026-07-01T10:00:00Z"
    )


@pytest.mark.parametrize("text", ["2026-03-29T02:30", "2026-10-25T02:30"])
def test_a_local_time_that_a_clock_change_skips_or_repeats_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="offset"):
        parse_instant(text, parse_zone("Europe/Berlin"))


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("this-hour", "2026-11-23T18:00:00Z", "2026-11-23T19:00:00Z"),
        ("today", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"),
        ("yesterday", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
        ("this-week", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
        ("last-week", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
        ("this-month", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("last-month", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("last-year", "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2026-12", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2026-02-28", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
    ],
)
def test_a_named_range(name: str, start: str, end: str) -> None:
    found = parse_range(name, timezone.utc, NOW)
    assert (format_ns(found.start_ns), format_ns(found.end_ns)) == (start, end)


def test_a_month_begins_and_ends_at_local_midnights() -> None:
    found = parse_range("2026-10", parse_zone("Europe/Berlin"), NOW)
    assert format_ns(found.start_ns) == "2026-09-30T22:00:00Z"
    assert format_ns(found.end_ns) == "2026-10-31T23:00:00Z"


def test_an_unknown_range_or_zone_is_refused_with_what_there_is() -> None:
    with pytest.raises(InvalidInputError, match="last-month"):
        parse_range("next-month", timezone.utc, NOW)
    with pytest.raises(InvalidInputError, match="IANA"):
        parse_zone("Mars/Olympus")
