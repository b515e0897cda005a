"""Rows to stdout: as a table, JSON, NDJSON or CSV. Words to stderr.

Every verb that prints data makes a `Sheet`: named columns and rows of plain
values. The names are the keys of the JSON and the head of the CSV, so a script
written against one form reads the other.

| form | shape | when rows are many |
|---|---|---|
| table | aligned columns; colours on a terminal only | all rows are held |
| ``--json`` | one array, or one object where there is one answer | written as they come |
| ``--ndjson`` | one object per line | written as they come |
| ``--csv`` | a head and a line per row | written as they come |

Integers stay integers and a decimal is written with all its digits (in JSON as
a string, because most readers would make a float of it). A missing value is an
empty cell and null.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TextIO

import click

from unimeter.cli.moments import format_instant

if TYPE_CHECKING:
    from rich.table import Table

Form = Literal["table", "json", "ndjson", "csv"]
Row = Sequence[object]

TABLE_WIDTH = 10_000
"""Columns of an imagined terminal: a real one wraps a long line, but no cell is cut short."""


@dataclass(frozen=True)
class Sheet:
    """Named columns and the rows under them; `empty` is said where there are none."""

    columns: tuple[str, ...]
    rows: Iterable[Row]
    empty: str = "nothing found"


def say(words: str) -> None:
    """Tell the person something; never data."""
    click.echo(words, err=True)


def write_sheet(sheet: Sheet, form: Form) -> None:
    """Print all rows in the form that was asked for."""
    if form == "csv":
        _write_csv(sheet, sys.stdout)
    elif form == "json":
        _write_json(sheet)
    elif form == "ndjson":
        for row in sheet.rows:
            click.echo(json_line(dict(zip(sheet.columns, row, strict=True))))
    else:
        _write_table(sheet)


def write_record(record: Mapping[str, object], form: Form) -> None:
    """Print the one answer of a verb that has exactly one."""
    if form in ("json", "ndjson"):
        indent = 2 if form == "json" else None
        click.echo(json.dumps({key: plain(value) for key, value in record.items()}, indent=indent))
    else:
        write_sheet(Sheet(tuple(record), [tuple(record.values())]), form)


def write_lines(columns: Sequence[str], rows: Iterable[Row], form: Form) -> None:
    """Print rows one by one as they happen; JSON becomes NDJSON, because it never ends."""
    if form == "table":
        heads = [name.replace("_", " ").upper() for name in columns]
        for number, row in enumerate(rows):
            if number == 0:  # not before: an error may come instead of a first row
                click.echo(_aligned(columns, heads))
            click.echo(_aligned(columns, [text(value) for value in row]))
    elif form == "csv":
        click.echo(csv_line(columns))
        for row in rows:
            click.echo(csv_line(row))
    else:
        for row in rows:
            click.echo(json_line(dict(zip(columns, row, strict=True))))


def csv_line(row: Row) -> str:
    """One row of CSV without its line end."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([csv_cell(value) for value in row])
    return buffer.getvalue()


WIDTHS = {"file": 31, "time": 24, "position": 8, "direction": 9, "offset": 10, "what": 10}
"""Of columns whose rows are still to come, as wide as their usual cells; others 12."""


def _aligned(columns: Sequence[str], cells: Sequence[str]) -> str:
    padded = (cell.ljust(WIDTHS.get(name, 12)) for name, cell in zip(columns, cells, strict=True))
    return "  ".join(padded).rstrip()


def json_line(record: Mapping[str, object]) -> str:
    """One object on one line."""
    return json.dumps({key: plain(value) for key, value in record.items()}, ensure_ascii=False)


def plain(value: object) -> object:
    """`value` in JSON's types without losing a digit."""
    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def text(value: object) -> str:
    """`value` as a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(text(item) for item in value)
    return str(plain(value))


def csv_cell(value: object) -> str:
    """`value` as a CSV cell: as in a table, but an object is JSON, which reads back."""
    return json.dumps(plain(value)) if isinstance(value, Mapping) else text(value)


def table_of(sheet: Sheet, title: str | None = None) -> Table:
    """The rows as a rich table: numbers to the right, no frame to copy along."""
    from rich.markup import escape
    from rich.table import Table

    rows = [tuple(row) for row in sheet.rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
    for number, name in enumerate(sheet.columns):
        numeric = bool(rows) and all(_is_number(row[number]) for row in rows)
        table.add_column(
            name.replace("_", " ").upper(),
            justify="right" if numeric else "left",
            header_style="bold",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*(escape(text(value)) for value in row))
    return table


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, Decimal)) and not isinstance(value, bool))


def _write_table(sheet: Sheet) -> None:
    from rich.console import Console

    table = table_of(sheet)
    if table.row_count == 0:
        say(sheet.empty)
        return
    if sys.stdout.isatty():
        Console(width=TABLE_WIDTH, highlight=False, soft_wrap=True).print(table)
        return
    # FORCE_COLOR is meant for terminals that don't look like one; a pipe gets no colours.
    console = Console(width=TABLE_WIDTH, highlight=False, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _write_json(sheet: Sheet) -> None:
    opening = "[\n  "
    for row in sheet.rows:
        click.echo(opening + json_line(dict(zip(sheet.columns, row, strict=True))), nl=False)
        opening = ",\n  "
    click.echo("[]" if opening.startswith("[") else "\n]")


def _write_csv(sheet: Sheet, stream: TextIO) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(sheet.columns)
    for row in sheet.rows:
        writer.writerow([csv_cell(value) for value in row])
