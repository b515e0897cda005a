"""Amounts and times of other products: exact, or refused with the reason."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.json_values import json_values

from unimeter.limits import VALUE_MAX, VALUE_MIN
from unimeter.server.web.compatible.amounts import (
    Refused,
    amount,
    canonical,
    exact_json,
    key,
    member,
    moment,
)
from unimeter.types import Outcome

NOON = 1_793_880_000 * 10**9


@pytest.mark.parametrize(
    ("value", "scale", "counted"),
    [
        (25, 0, 25),
        ("25", 0, 25),
        ("25.0", 0, 25),
        ("-25", 0, -25),
        ("+25", 0, 25),
        ("2.5e1", 0, 25),
        (Decimal("0.75"), 2, 75),
        ("0.75", 2, 75),
        ("0.1", 1, 1),
        (0.1, 1, 1),
        (1e3, 0, 1000),
        ("1.000", 3, 1000),
        ("0e999", 18, 0),
        (VALUE_MAX, 0, VALUE_MAX),
        (str(VALUE_MIN), 0, VALUE_MIN),
    ],
)
def test_what_is_whole_is_counted(value: Any, scale: int, counted: int) -> None:
    assert amount(value, scale, "value") == counted


@pytest.mark.parametrize(
    ("value", "scale"),
    [
        ("0.5", 0),
        ("0.125", 2),
        (0.1 + 0.2, 2),
        (VALUE_MAX + 1, 0),
        (VALUE_MIN - 1, 0),
        ("1e9999", 0),
        ("1e-9999", 18),
        (1e300, 0),
        ("9" * 100, 0),
        (float("nan"), 0),
        (float("inf"), 0),
        ("NaN", 0),
        ("٣", 0),
        ("1_000", 0),
        (" 5", 0),
        ("", 0),
        (True, 0),
        (None, 0),
        ([1], 0),
        ({"a": 1}, 0),
    ],
)
def test_what_is_not_is_refused_and_never_rounded(value: Any, scale: int) -> None:
    with pytest.raises(Refused) as caught:
        amount(value, scale, "data.value")
    assert caught.value.outcome is Outcome.BAD_VALUE
    assert caught.value.field == "data.value"


@given(
    st.integers(-(10**22), 10**22),
    st.integers(-24, 24),
    st.integers(0, 18),
)
def test_an_amount_is_the_number_times_the_power_of_ten_or_nothing(
    digits: int, exponent: int, scale: int
) -> None:
    text = f"{digits}e{exponent}"
    right = Fraction(digits) * Fraction(10) ** (exponent + scale)
    fits = right.denominator == 1 and VALUE_MIN <= right <= VALUE_MAX
    for value in (text, exact_json(f"{digits}.0e{exponent}".encode())):
        try:
            assert amount(value, scale, "value") == right
            assert fits
        except Refused:
            assert not fits


@given(json_values(st.none() | st.booleans() | st.integers() | st.text()))
def test_json_without_fractions_is_read_as_python_reads_it(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is in no UTF-8
    assert exact_json(data) == value


def test_a_fraction_of_absurd_length_stays_text_and_is_refused() -> None:
    for text in (b"1e99999999999999999999", b"0." + b"1" * 5000):
        with pytest.raises(Refused):
            amount(exact_json(text), 18, "value")


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-05T12:00:00Z",
        "2026-11-05T13:00:00+01:00",
        1_793_880_000,
        "1793880000",
        "1793880000.0",
        Decimal("1793880000.000"),
    ],
)
def test_a_time_is_rfc_3339_or_unix_seconds(value: Any) -> None:
    assert moment(value, "time") == NOON


def test_decimals_of_unix_seconds_are_kept() -> None:
    assert moment("1793880000.123456789", "time") == NOON + 123_456_789


@pytest.mark.parametrize("value", ["2026-11-05T12:00:00", "noon", "", None, True, 1e300, [1]])
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(Refused) as caught:
        moment(value, "time")
    assert caught.value.outcome is Outcome.BAD_TIMESTAMP


def test_a_key_is_itself_where_it_fits_and_a_hash_that_tells_parts_apart_where_not() -> None:
    assert key(["a"]) == "a"
    assert key(["x" * 64]) == "x" * 64
    hashed = [key(["x" * 65]), key(["a", "b"]), key(["ab", ""]), key(["", "ab"]), key(["ä" * 40])]
    assert len(set(hashed)) == len(hashed)
    assert all(len(one) <= 64 for one in hashed)


def test_members_with_names_get_the_same_number_every_time() -> None:
    assert member("user_7") == member("user_7")
    assert member("user_7") != member("user_8")
    assert member("42") == member(42)
    assert 0 <= member("user_7") < 2**63


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"a": 1, "b": Decimal("1.50")}) == canonical({"b": Decimal("1.50"), "a": 1})
