"""Instants as text: every nanosecond there and back, and nothing guessed."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter import instants
from unimeter.cli.moments import parse_instant
from unimeter.errors import InvalidInputError
from unimeter.instants import NS_MAX, NS_MIN, format_ns, parse_ns
from unimeter.limits import TIMESTAMP_NS_MAX, TIMESTAMP_NS_MIN


@given(st.integers(NS_MIN, NS_MAX))
def test_what_is_written_reads_back(ns: int) -> None:
    assert parse_ns(format_ns(ns)) == ns
    assert parse_ns(format_ns(ns)) == ns  # the second time by what was remembered


@given(st.integers(TIMESTAMP_NS_MIN, TIMESTAMP_NS_MAX - 1))
def test_the_command_line_reads_the_same_instant(ns: int) -> None:
    assert parse_instant(format_ns(ns)) == ns


@given(st.datetimes(timezones=st.sampled_from([timezone.utc])), st.integers(-1439, 1439))
def test_an_offset_is_taken_off(moment: datetime, minutes: int) -> None:
    sign, hours, rest = "-" if minutes < 0 else "+", abs(minutes) // 60, abs(minutes) % 60
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    utc = parse_ns(f"{text}Z")
    if NS_MIN < utc < NS_MAX and moment.year < 2200:
        wanted = max(NS_MIN, utc - minutes * 60 * 10**9)
        assert parse_ns(f"{text}{sign}{hours:02d}:{rest:02d}") == wanted


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 1),  # 0 means "not given" on the wire
        ("0001-01-01T00:00:00Z", NS_MIN),
        ("9999-12-31T23:59:59.999999999Z", NS_MAX),
        ("2026-11-05t10:30:00z", 1_793_874_600 * 10**9),
        ("2026-11-05 10:30:00.1Z", 1_793_874_600_100_000_000),
        ("2026-11-05T10:30:00.000000001Z", 1_793_874_600_000_000_001),
    ],
)
def test_edges(text: str, ns: int) -> None:
    assert parse_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-05",
        "2026-11-05T10:30:00",
        "2026-11-05T10:30Z",
        "2026-11-05T10:30:00.Z",
        "2026-11-05T10:30:00.0000000001Z",
        "2026-11-05T10:30:00.١Z",
        "2026-11-05T10:30:00,5Z",
        "2026-02-30T10:30:00Z",
        "2026-11-05T24:30:00Z",
        "2026-11-05T10:30:60Z",
        "2026-11-05T10:30:00+24:00",
        "2026-11-05T10:30:00+0100",
        "1793874600",
        "２026-11-05T10:30:00Z",
        "2026-11-05T10:30:00Z\n",
    ],
)
def test_what_is_no_instant_is_refused_also_when_its_second_is_known(text: str) -> None:
    parse_ns("2026-11-05T10:30:00Z")
    with pytest.raises(InvalidInputError):
        parse_ns(text)


def test_what_is_remembered_is_bounded() -> None:
    for second in range(instants.SECONDS_KEPT_MAX + 10):
        parse_ns(format_ns((1_793_874_600 + second) * 10**9))
    assert len(instants._known) <= instants.SECONDS_KEPT_MAX
