"""Amounts: exact or refused, never rounded."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter.cli.amounts import format_amount, parse_amount
from unimeter.errors import InvalidInputError
from unimeter.limits import VALUE_MAX, VALUE_MIN


@pytest.mark.parametrize(
    ("text", "decimals", "amount"),
    [
        ("12", 0, 12),
        ("-3", 0, -3),
        ("12.50", 2, 1250),
        ("0.1", 6, 100_000),
        ("12.000", 0, 12),
        ("1e3", 0, 1000),
        (" 7 ", 0, 7),
        (5, 2, 500),
        (Decimal("0.07"), 2, 7),
    ],
)
def test_an_amount_is_read_exactly(text: str | int | Decimal, decimals: int, amount: int) -> None:
    assert parse_amount(text, decimals) == amount


def test_decimals_without_a_scale_are_refused_with_the_scale_that_keeps_them() -> None:
    with pytest.raises(InvalidInputError, match="--scale 2"):
        parse_amount("12.55")


def test_more_decimals_than_the_scale_are_refused_and_not_rounded() -> None:
    with pytest.raises(InvalidInputError, match="3 decimals but --scale keeps 2"):
        parse_amount("0.005", 2)


@pytest.mark.parametrize("text", ["", "abc", "1_000", "NaN", "Infinity", "1,5", "١٢", "1e999999"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_amount(text, 2)


def test_an_amount_over_64_bits_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="64-bit"):
        parse_amount(str(2**63))


@given(st.integers(VALUE_MIN, VALUE_MAX), st.integers(0, 18))
def test_what_is_printed_reads_back_as_the_same_amount(amount: int, decimals: int) -> None:
    assert parse_amount(f"{format_amount(amount, decimals)}", decimals) == amount


def test_a_sum_of_128_bits_is_printed_with_all_its_digits() -> None:
    assert str(format_amount(2**127 - 1, 6)) == "170141183460469231731687303715884.105727"
