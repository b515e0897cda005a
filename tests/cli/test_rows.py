"""Lines of a file: each becomes an event or a problem with its number."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimeter.cli.fields import Fields
from unimeter.cli.moments import format_ns
from unimeter.cli.rows import Format, Row, Source
from unimeter.errors import InvalidInputError
from unimeter.types import OperationType

FIELDS = Fields(account=1, metric="m", begun_ns=1_700_000_000 * 10**9)


def read(data: bytes, form: Format = "csv", fields: Fields = FIELDS) -> list[Row]:
    return list(Source(io.BytesIO(data), form, fields, "f").rows())


def test_a_csv_row_has_its_fields_and_the_other_columns_as_properties() -> None:
    data = b"account_id,metric,value,timestamp,operation,id,model,kind\n" + (
        b"acme,tokens,380,2026-11-05T10:30:00.000000001Z,add,e1,large,\n"
    )
    (row,) = read(data, fields=Fields())
    assert row.event is not None
    assert (row.line, row.event.account_id, row.event.metric_code) == (2, "acme", "tokens")
    assert (row.event.value, row.event.id) == (380, "e1")
    assert row.event.operation_type == OperationType.ADD
    assert row.event.properties == {"model": "large"}
    assert format_ns(row.event.timestamp_ns()) == "2026-11-05T10:30:00.000000001Z"


def test_a_row_without_an_id_gets_one_from_the_file_and_its_line() -> None:
    rows = read(b"value\n1\n\n2\n")
    assert [row.event.id for row in rows if row.event] == ["f:2", "f:4"]
    assert [(row.start, row.end) for row in rows] == [(6, 8), (9, 11)]


def test_digits_are_an_integer_account_and_a_prefix_makes_them_a_string() -> None:
    rows = read(b"account\n42\n007\nstr:42\n", fields=Fields(metric="m"))
    assert [row.event.account_id for row in rows if row.event] == [42, "007", "42"]


def test_json_keeps_the_types_it_was_written_with() -> None:
    rows = read(b'{"account": 42}\n{"account": "42", "value": 1.0}\n', "ndjson", Fields(metric="m"))
    assert [row.event.account_id for row in rows if row.event] == [42, "42"]
    assert [row.event.value for row in rows if row.event] == [1, 1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"value\nx", "not a number"),
        (b"value\n1.5", "--scale 1"),
        (b"value\n", "empty"),
        (b"value,timestamp\n1,", "timestamp is empty"),
        (b"value,timestamp\n1,soon", "not understood"),
        (b"value,operation\n1,join", "not none, add or remove"),
        (b"value\n1,2", "2 cells where the head has 1"),
        (b"value\n\xff", "UTF-8"),
        (b'value,a\n1,x"y"z', ""),
        (b"account,metric,value\n,m,1", "no account"),
        (b"account,metric,value\n1,,1", "no metric"),
        (b"value,properties\n1,{", "not JSON"),
    ],
)
def test_a_bad_csv_line_says_what_is_wrong(line: bytes, words: str) -> None:
    data = line + b"\n"
    if line == b"value\n":
        data = b'value\n""\n'
    rows = read(data, fields=Fields(account=1, metric="m"))
    if words:
        assert [words in row.problem for row in rows] == [True], rows
        assert rows[0].line == 2 and rows[0].event is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"[1]", "not a JSON object"),
        (b"{", "not JSON"),
        (b'{"acount": 1}', "no field is called 'acount'"),
        (b'{"value": NaN}', "NaN"),
        (b'{"value": true}', "not a number"),
        (b'{"value": 1e400}', "not a number the meter"),
        (b'{"account": -1}', "unsigned 64-bit"),
        (b'{"account": [1]}', "neither"),
        (b'{"id": 1.5}', "id 1.5"),
        (b'{"properties": {"a": 1.5}}', "in quotes"),
        (b'{"properties": 3}', "not an object"),
        (b'{"timestamp": true}', "neither"),
        (b"[" * 100_000, ""),
    ],
)
def test_a_bad_ndjson_line_says_what_is_wrong(line: bytes, words: str) -> None:
    (row,) = read(line + b"\n", "ndjson")
    assert row.event is None
    assert words in row.problem


def test_a_cell_may_hold_line_ends_and_the_next_line_keeps_its_number() -> None:
    rows = read(b'value,note\n1,"two\nlines"\n2,x\n')
    assert [(row.line, row.event is not None) for row in rows] == [(2, True), (4, True)]


def test_a_quote_that_is_never_closed_costs_one_line() -> None:
    rows = read(b'value,note\n1,"open\n2,x\n3,y\n')
    assert [(row.line, bool(row.problem)) for row in rows] == [(2, True), (3, False), (4, False)]


def test_an_open_quote_does_not_reach_further_than_a_record_may() -> None:
    rows = read(b'value,note\n1,"open\n' + b"2,x\n" * 300 + b'3,"again\n')
    assert [row.line for row in rows if row.problem] == [2, 303]
    assert len(rows) == 302


def test_a_head_without_an_account_is_refused_with_the_options_that_name_one() -> None:
    with pytest.raises(InvalidInputError, match="--account"):
        read(b"value\n1\n", fields=Fields(metric="m"))


@pytest.mark.parametrize("head", [b"value,value\n", b"value,,a\n", b"account,account_id\n", b""])
def test_a_head_that_is_not_clear_is_refused(head: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read(head + b"1\n" if head else b"")


def test_a_column_can_be_named_and_another_ignored() -> None:
    fields = Fields(
        columns={"value": "ContextTokens", "timestamp": "TIMESTAMP"},
        ignored=frozenset({"GeneratedTokens"}),
        account=7,
        metric="tokens",
        properties={"kind": "context"},
    )
    data = b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
    (row,) = read(data, fields=fields)
    assert row.event is not None
    assert (row.event.value, row.event.properties) == (374, {"kind": "context"})
    with pytest.raises(InvalidInputError, match="no such column"):
        read(data, fields=Fields(columns={"value": "Tokens"}, account=7, metric="tokens"))


def test_going_on_at_an_offset_yields_the_rows_that_were_left() -> None:
    data = b"value,id\n" + b"".join(b"%d,e%d\n" % (n, n) for n in range(50))
    rows = read(data)
    for cut in (0, 1, 25, 49):
        source = Source(io.BytesIO(data), "csv", FIELDS, "f")
        source.skip_to(rows[cut].start, rows[cut].line - 1)
        left = list(source.rows())
        assert [row.line for row in left] == [row.line for row in rows[cut:]]
        assert left == rows[cut:]


@given(st.binary(max_size=200), st.sampled_from(["csv", "ndjson"]))
def test_every_byte_belongs_to_a_row_a_blank_line_or_the_head(data: bytes, form: Format) -> None:
    """Whatever the bytes are, no line is lost and nothing but a bad head raises."""
    prefix = b"value\n" if form == "csv" else b""
    source = Source(io.BytesIO(prefix + data), form, FIELDS, "f")
    rows = list(source.rows())
    assert source.offset == len(prefix) + len(data)
    kept = b"".join(row.raw for row in rows)
    blank = [line for line in data.split(b"\n") if not line.strip()]
    assert len(kept) >= len(data) - sum(len(line) + 1 for line in blank)
    assert all((row.event is None) == bool(row.problem) for row in rows)
