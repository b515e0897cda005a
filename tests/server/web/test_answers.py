"""What an answer looks like: no digit is lost, no cell is a formula, a cursor is its own."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter.server.web.answers import EXACT_MAX, answer, csv_text, cursor_text, exact

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.integers(-(2**127), 2**127))
def test_an_integer_keeps_every_digit_and_is_a_string_where_a_float_would_not(number: int) -> None:
    written = json.loads(bytes(answer({"value": number, "list": [number]}).body))
    assert int(written["value"]) == int(written["list"][0]) == number
    assert isinstance(written["value"], str) == (abs(number) > EXACT_MAX)
    if not isinstance(written["value"], str):
        assert int(float(number)) == number


def test_truth_is_no_integer() -> None:
    assert exact({"a": True, "b": [None, 1.5]}) == {"a": True, "b": [None, 1.5]}


@given(st.lists(texts, min_size=1, max_size=4))
def test_a_cell_is_never_a_formula_and_reads_back(cells: list[str]) -> None:
    (head, row) = csv.reader(io.StringIO(csv_text(["x"] * len(cells), [cells]), newline=""))
    assert head == ["x"] * len(cells)
    for cell, written in zip(cells, row, strict=True):
        assert not written.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert written.removeprefix("'") == cell or written == cell


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (-5, "-5"),
        (2**80, str(2**80)),
        ("-5", "'-5"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("'x", "''x"),
        (None, ""),
        (True, "true"),
        ({"a": 2**60}, '"{""a"":""1152921504606846976""}"'),
        (["=1"], '"[""=1""]"'),
    ],
)
def test_cells(value: Any, written: str) -> None:
    assert csv_text(["x", "y"], [[value, 1]]) == f"x,y\r\n{written},1\r\n"


@given(st.binary(max_size=40))
def test_a_cursor_is_safe_in_a_url(cursor: bytes) -> None:
    text = cursor_text(cursor)
    assert text.isascii() and all(char.isalnum() or char in "-_" for char in text)


def test_an_account_is_written_so_that_it_can_be_read_back() -> None:
    accounts: list[int | str] = [42, "42", 2**53 + 1, str(2**53 + 1), "str:x", "acme"]
    found = exact([{"account": one, "value": 1} for one in accounts])
    written = [42, "42", "9007199254740993", "str:9007199254740993", "str:str:x", "acme"]
    assert [row["account"] for row in found] == written
    assert exact({"accounts": accounts})["accounts"] == written
    rows = csv_text(["account", "value"], [[one, 1] for one in accounts]).splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [
        "42", "str:42", "9007199254740993", "str:9007199254740993", "str:str:x", "acme",
    ]  # fmt: skip
