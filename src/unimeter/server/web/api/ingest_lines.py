"""Bodies of any length, line by line: NDJSON and CSV.

Owns how a stream becomes batches. Lines are gathered up to HTTP_CHUNK_EVENTS events or
HTTP_CHUNK_BYTES, stored, and forgotten, so a gigabyte costs what a megabyte costs. While a
batch is being stored nothing more is read, and the client's socket fills: that is the whole
flow control. While the node asks to wait, the stream is held, up to a bound.

The answer comes at the end. Of a line that is no event it says the number and the reason; every
line before it is stored and nothing from it on, and the answer says how many that were.

    200  {"stored", "duplicates", "refused", "position", "lines", "refusals": the first 100}
    4xx  a problem, and the same members
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from unimeter import limits
from unimeter.errors import BackpressureError, UnimeterError
from unimeter.server.web.api import ingest_csv, ingest_json
from unimeter.server.web.api.keyed import Keyed
from unimeter.server.web.api.lines import Lines
from unimeter.server.web.api.store import Tally, check_rights, store_part
from unimeter.server.web.call import Call
from unimeter.server.web.problems import Fault, Problem
from unimeter.wire import v2

WAIT_SECONDS_MIN: Final = 0.05
RECORD_LINES_MAX: Final = 100  # lines of one CSV record; more is a quote that was never closed


class Stream:
    """One body on its way into the node."""

    def __init__(self, call: Call, keyed: Keyed) -> None:
        self.call, self._keyed = call, keyed
        call.hold(2 * limits.HTTP_CHUNK_BYTES)  # a batch, and what the next read brings
        self.tally = Tally(outcomes=None, refusals_max=limits.HTTP_REFUSALS_MAX)
        self.lines = 0  # that were taken: stored, or blank

    async def store(self, columns: v2.Columns, lines: int) -> None:
        """Store a batch; `lines` of the body are then done."""
        if columns.values:
            check_rights(self.call.principal, columns)
            await self._patiently(self._keyed.named(columns, self.tally.events))
        self.lines = lines

    async def _patiently(self, columns: v2.Columns) -> None:
        """Hold the stream while the node asks to wait: nothing was stored then."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.HTTP_STREAM_WAIT_SECONDS
        while True:
            try:
                await store_part(self.call, columns, self.tally)
                return
            except BackpressureError as error:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(max(WAIT_SECONDS_MIN, error.retry_after))

    def body(self) -> dict[str, object]:
        """The members of the answer."""
        if not self.tally.position:
            self.tally.position = self.call.site.server.node.machine.applied
        return self.tally.body() | {"lines": self.lines}

    def failed(self, error: Exception) -> Problem:
        """The problem, and what was stored before it."""
        problem = self.tally.failed(error)
        problem.more |= self.body()
        return problem


async def take_ndjson(call: Call, keyed: Keyed) -> Stream:
    """Store a body of one JSON object a line."""
    stream = Stream(call, keyed)
    try:
        await _take_ndjson(stream, Lines(call.chunks()))
    except (UnimeterError, Problem) as error:
        raise stream.failed(error) from error
    return stream


async def _take_ndjson(stream: Stream, lines: Lines) -> None:
    events: list[ingest_json.EventBody] = []
    number = done = size = 0
    try:
        async for group in lines.groups():
            for line in group:
                number += 1
                if line and not line.isspace():
                    if len(line) > limits.HTTP_LINE_BYTES_MAX:
                        raise lines.too_long(number)
                    events.append(_event_of(line, number, stream.tally.events + len(events)))
                    size += len(line)
                done = number
                if len(events) >= limits.HTTP_CHUNK_EVENTS or size >= limits.HTTP_CHUNK_BYTES:
                    some, events, size = events, [], 0
                    await stream.store(ingest_json.columns_of(some), done)
    except Problem:  # what came before the line that can't be read
        await stream.store(ingest_json.columns_of(events), done)
        raise
    await stream.store(ingest_json.columns_of(events), done)


def _decoded(line: bytes) -> ingest_json.EventBody:
    try:
        return ingest_json.decode_one(line)
    except msgspec.ValidationError as error:
        if not ingest_json.is_of_whole(error):
            raise
        return ingest_json.decode_one(ingest_json.with_whole_numbers(line))


def _event_of(line: bytes, number: int, index: int) -> ingest_json.EventBody:
    try:
        event = _decoded(line)
        fault = ingest_json.own_fault(event, f"line {number}", index)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        found = ingest_json.fault_of(error, f"line {number}")
        fault = Fault(found.path, found.reason, found.expected, index, found.field)
    if fault is not None:
        raise ingest_json.problem_of_fault(fault)
    return event


async def take_csv(call: Call, keyed: Keyed) -> Stream:
    """Store a body of CSV with a head."""
    stream = Stream(call, keyed)
    try:
        await _take_csv(stream, _records(Lines(call.chunks())))
    except (UnimeterError, Problem) as error:
        raise stream.failed(error) from error
    return stream


async def _take_csv(stream: Stream, records: AsyncIterator[tuple[int, int, str]]) -> None:
    """(first line, last line, text) by record; the first is the head."""
    rows: _Rows | None = None
    try:
        async for first, last, text in records:
            if rows is None:
                rows = _Rows(_head(text, first), last)
                continue
            rows.add(first, last, text)
            if rows.is_full:
                await rows.store(stream)
    except Problem:  # what came before the record that can't be read
        if rows is not None:
            await rows.store(stream)
        raise
    if rows is None:
        fault = Fault("line 1", "is missing", "a head that names the columns")
        raise ingest_json.problem_of_fault(fault)
    await rows.store(stream)


def _head(text: str, line: int) -> ingest_csv.Head:
    try:
        return ingest_csv.Head(text)
    except ingest_csv.BadCell as error:
        raise ingest_json.problem_of_fault(error.fault(line, None)) from None


class _Rows:
    """Records of a CSV body that are not stored yet, and where they stand."""

    def __init__(self, head: ingest_csv.Head, done: int) -> None:
        self.head, self.done = head, done  # the last line before them
        self._texts: list[str] = []
        self._places: list[tuple[int, int]] = []
        self._size = 0

    def add(self, first: int, last: int, text: str) -> None:
        """One more record."""
        self._texts.append(text)
        self._places.append((first, last))
        self._size += len(text)

    @property
    def is_full(self) -> bool:
        """Whether it is time to store them."""
        return len(self._texts) >= limits.HTTP_CHUNK_EVENTS or self._size >= limits.HTTP_CHUNK_BYTES

    async def store(self, stream: Stream) -> None:
        """Store them; up to one that is no event, and then say so."""
        texts, places, self._texts, self._places, self._size = self._texts, self._places, [], [], 0
        try:
            columns = ingest_csv.columns_of(self.head, texts)
        except ingest_csv.BadCell as error:
            at = error.at
            before = places[at - 1][1] if at else self.done
            fault = error.fault(places[at][0], stream.tally.events + at)
            await stream.store(ingest_csv.columns_of(self.head, texts[:at]), before)
            raise ingest_json.problem_of_fault(fault) from None
        self.done = places[-1][1] if places else self.done
        await stream.store(columns, self.done)


async def _records(lines: Lines) -> AsyncIterator[tuple[int, int, str]]:
    """The records of a CSV body, blank lines passed over; a problem for what is none.

    A record may span lines inside quotes: it is whole when its quotes are even in number.
    """
    number = quotes = size = 0
    parts: list[bytes] = []
    async for group in lines.groups():
        for line in group:
            number += 1
            if not parts and (not line or line.isspace()):
                continue
            parts.append(line)
            size += len(line)
            quotes += line.count(b'"')
            first = number - len(parts) + 1
            if size > limits.HTTP_LINE_BYTES_MAX:
                raise lines.too_long(first)
            if quotes % 2:
                if len(parts) >= RECORD_LINES_MAX:
                    raise _open_quote(first)
                continue
            yield first, number, _text(parts, first)
            parts, quotes, size = [], 0, 0
    if parts:
        raise _open_quote(number - len(parts) + 1)


def _open_quote(line: int) -> Problem:
    fault = Fault(f"line {line}", "opens a quote that is never closed", 'a cell in "quotes"')
    return ingest_json.problem_of_fault(fault)


def _text(parts: list[bytes], line: int) -> str:
    try:
        return b"\n".join(parts).decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        fault = Fault(f"line {line}", f"is not UTF-8 at its byte {error.start + 1}", "UTF-8")
        raise ingest_json.problem_of_fault(fault) from None
