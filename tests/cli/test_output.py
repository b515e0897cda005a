"""The four forms: the same rows under the same names."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from unimeter.cli.output import Form, Sheet, write_lines, write_record, write_sheet

COLUMNS = ("account", "sum", "price", "at", "tags", "note")
ROW = (
    "a[cme]",
    2**100,
    Decimal("0.10"),
    datetime(2026, 11, 5, 10, 30, 0, 500_000, tzinfo=timezone.utc),
    {"k": "v", "l": "w"},
    None,
)


def printed(capsys: pytest.CaptureFixture[str], form: Form, rows: list[tuple[object, ...]]) -> str:
    write_sheet(Sheet(COLUMNS, rows), form)
    return capsys.readouterr().out


def test_json_keeps_integers_and_writes_decimals_with_all_digits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (found,) = json.loads(printed(capsys, "json", [ROW]))
    assert found == {
        "account": "a[cme]",
        "sum": 2**100,
        "price": "0.10",
        "at": "2026-11-05T10:30:00.5Z",
        "tags": {"k": "v", "l": "w"},
        "note": None,
    }


@pytest.mark.parametrize("rows", [[], [ROW], [ROW, ROW]])
def test_json_and_ndjson_hold_the_same_objects(
    capsys: pytest.CaptureFixture[str], rows: list[tuple[object, ...]]
) -> None:
    array = json.loads(printed(capsys, "json", rows))
    lines = [json.loads(line) for line in printed(capsys, "ndjson", rows).splitlines()]
    assert array == lines


def test_csv_has_a_head_and_quotes_what_needs_it(capsys: pytest.CaptureFixture[str]) -> None:
    row = ("a,b", 1, Decimal("1.50"), None, {}, 'say "hi"')
    found = list(csv.reader(io.StringIO(printed(capsys, "csv", [row]))))
    assert found == [list(COLUMNS), ["a,b", "1", "1.50", "", "{}", 'say "hi"']]


def test_a_table_without_a_terminal_is_plain_and_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = printed(capsys, "table", [("x" * 300, 5, None, None, None, None)])
    head, line = text.splitlines()
    assert head.startswith("ACCOUNT") and line.startswith("x" * 300)
    assert "\x1b" not in text


def test_an_empty_table_prints_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    write_sheet(Sheet(COLUMNS, [], "no usage"), "table")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "no usage\n")


def test_one_answer_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    write_record({"sum": 3}, "json")
    assert json.loads(capsys.readouterr().out) == {"sum": 3}


@pytest.mark.parametrize("form", ["table", "json", "ndjson", "csv"])
def test_rows_that_come_one_by_one_are_printed_one_by_one(
    capsys: pytest.CaptureFixture[str], form: Form
) -> None:
    seen = []

    def rows():  # type: ignore[no-untyped-def]
        for number in range(3):
            yield (number,)
            seen.append(capsys.readouterr().out)

    write_lines(("n",), rows(), form)
    assert all(str(number) in text for number, text in enumerate(seen))
