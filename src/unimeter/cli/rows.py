"""Files of events, line by line: where each row starts and ends, and what it holds.

A `Source` reads bytes forward, once, and yields a `Row` per record with its
line number and its byte range, so that a run can say ``usage.csv:17`` and go on
at an exact byte. A row that can't be read is a row with a `problem`, never an
exception: one bad line must not hide the thousand good ones after it.

CSV records may span lines inside quotes. A quote that is never closed would
swallow the rest of the file; so a record ends after `RECORD_LINES_MAX` lines,
the line that opened the quote is the bad one, and reading goes on after it.

Lines are bounded by `LINE_BYTES_MAX`: a file without line ends is not a file of
events, and must not be read into memory whole.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from unimeter.cli.fields import BadLine, Fields
from unimeter.cli.pipe import Readable
from unimeter.errors import InvalidInputError
from unimeter.types import Event

Format = Literal["csv", "ndjson"]

LINE_BYTES_MAX = 1024 * 1024
"""Bytes of one line: sixteen properties at their limits fit a hundred times."""

RECORD_LINES_MAX = 100
"""Lines of one CSV record; more is a quote that was never closed."""

BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Row:
    """One record: its first line (from 1), its bytes ``[start, end)``, its event or problem."""

    line: int
    start: int
    end: int
    raw: bytes
    event: Event | None = None
    problem: str = ""


@dataclass(slots=True)
class _Line:
    number: int
    start: int
    raw: bytes


class Source:
    """The rows of one stream; `offset` and `digest` tell what was consumed."""

    def __init__(
        self,
        stream: Readable,
        form: Format,
        fields: Fields,
        identity: str,
        delimiter: str = ",",
    ) -> None:
        self._stream = stream
        self._form = form
        self._fields = fields
        self._identity = identity
        self._delimiter = delimiter
        self._pushed: deque[_Line] = deque()
        self._bound: list[str | None] = []
        self._read_to = 0  # bytes taken from the stream
        self._number = 0  # lines taken from the stream
        self.offset = 0  # bytes of the rows yielded so far
        self.line = 0  # their lines
        self.ends_open = False  # the last row had no line end: it may still grow
        self._hash = hashlib.blake2b(digest_size=16)

    def digest(self) -> str:
        """The hash of the bytes before `offset`."""
        return self._hash.copy().hexdigest()

    def rows(self) -> Iterator[Row]:
        """Every record of the stream, in order; blank lines are passed over."""
        if self._form == "csv" and not self._bound:
            self._read_head()
        while (line := self._take()) is not None:
            row = self._csv_row(line) if self._form == "csv" else self._json_row(line)
            if row is not None:
                self.ends_open = not row.raw.endswith(b"\n")
                yield row

    def skip_to(self, offset: int, line: int) -> None:
        """Go on at `offset`, which a run before this one reached; hashes what is skipped.

        The head of a CSV file is read first: without it cells have no names.
        """
        if self._form == "csv":
            self._read_head()
        assert not self._pushed and offset >= self._read_to, "skipping goes forward"
        left = offset - self._read_to
        while left > 0 and (part := self._stream.read(min(left, LINE_BYTES_MAX))):
            self._hash.update(part)
            left -= len(part)
        self._read_to = self.offset = offset - left
        self._number = self.line = line

    def _read_head(self) -> None:
        line = self._take()
        while line is not None and not line.raw.strip():
            line = self._take()
        if line is None:
            raise InvalidInputError("the file is empty; a CSV file starts with a head")
        try:
            self._bound = self._fields.bind(self._cells([line]))
        except (BadLine, csv.Error) as error:
            raise InvalidInputError(f"the head is not CSV: {error}") from None

    def _take(self) -> _Line | None:
        """The next line, counted as consumed."""
        line = self._pushed.popleft() if self._pushed else self._read_line()
        if line is not None:
            self.offset, self.line = line.start + len(line.raw), line.number
            self._hash.update(line.raw)
        return line

    def _read_line(self) -> _Line | None:
        raw = self._stream.readline(LINE_BYTES_MAX)
        if not raw:
            return None
        while len(raw) % LINE_BYTES_MAX == 0 and not raw.endswith(b"\n"):
            # Over-long: keep reading to its end so that the next line is a line.
            more = self._stream.readline(LINE_BYTES_MAX)
            if not more:
                break
            raw += more
            if len(raw) > 64 * LINE_BYTES_MAX:
                raise InvalidInputError(
                    f"line {self._number + 1} has over {64 * LINE_BYTES_MAX} bytes; "
                    "this is not a file of events"
                )
        self._number += 1
        line = _Line(self._number, self._read_to, raw)
        self._read_to += len(raw)
        return line

    def _json_row(self, line: _Line) -> Row | None:
        if not line.raw.strip():
            return None
        row = Row(line.number, line.start, self.offset, line.raw)
        try:
            found = json.loads(_decoded(line), parse_float=Decimal, parse_constant=_no_constant)
            row.event = self._fields.of_object(found, f"{self._identity}:{row.line}")
        except BadLine as error:
            row.problem = str(error)
        except ValueError as error:
            row.problem = f"not JSON: {error}; write one object per line"
        except RecursionError:
            row.problem = "not an event: nested too deep"
        return row

    def _csv_row(self, line: _Line) -> Row | None:
        if not line.raw.strip():
            return None
        lines = self._record_of(line)
        row = Row(line.number, line.start, 0, b"".join(part.raw for part in lines))
        try:
            cells = self._cells(lines)
            row.event = self._fields.of_cells(self._bound, cells, f"{self._identity}:{row.line}")
        except (BadLine, csv.Error) as error:
            row.problem = str(error)
        row.end = row.start + len(row.raw)
        for _ in lines[1:]:
            self._take()
        return row

    def _record_of(self, first: _Line) -> list[_Line]:
        """The lines of the record that `first` opens; only it, if no line closes its quote.

        A record's quotes are even in number, those inside a cell being doubled.
        The lines after the first are looked at, not taken.
        """
        lines = [first]
        quotes = first.raw.count(b'"')
        while quotes % 2 and len(lines) < RECORD_LINES_MAX:
            ahead = len(lines) - 1
            if ahead == len(self._pushed):
                line = self._read_line()
                if line is None:
                    return [first]
                self._pushed.append(line)
            lines.append(self._pushed[ahead])
            quotes += lines[-1].raw.count(b'"')
        return lines if quotes % 2 == 0 else [first]

    def _cells(self, lines: list[_Line]) -> list[str]:
        texts = [_decoded(line) for line in lines]
        reader = csv.reader(texts, delimiter=self._delimiter, strict=True)
        cells = next(reader)
        if reader.line_num != len(lines):
            raise BadLine("a quote stands inside a cell; write it twice inside quotes")
        return cells


def _decoded(line: _Line) -> str:
    if len(line.raw) > LINE_BYTES_MAX:
        raise BadLine(f"over {LINE_BYTES_MAX} bytes; one event has a few hundred")
    raw = line.raw.removeprefix(BOM) if line.number == 1 else line.raw
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLine(
            f"byte {error.start + 1} of the line is not UTF-8; convert the file"
        ) from None


def _no_constant(name: str) -> None:
    raise BadLine(f"{name} is not a number the meter can keep")
