"""Events in CSV: which column is which field, and the columns of a batch.

The first line is the head. A column that has the name of a field (`unimeter.event_fields`, the
names that the command line knows, and timestamp_ns) is that field; any other is a property of
that name. Cells have no type, so an account of digits is the integer (`unimeter.accounts`).

Nothing is guessed: an empty value or time is refused, because a gap in a column is a mistake of
the program that wrote it, and 1 and "now" are the wrong answers to it. An empty property or id is
none.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from unimeter.accounts import parse_account
from unimeter.errors import InvalidInputError
from unimeter.event_fields import NAMES, OPERATIONS, field_of
from unimeter.instants import parse_ns
from unimeter.limits import VALUE_MAX, VALUE_MIN
from unimeter.server.web.ingest_json import WANTED
from unimeter.server.web.problems import Fault
from unimeter.wire import v2

COLUMNS_MAX: Final = 64  # more than any event has properties
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_COUNT: Final = re.compile(r"[0-9]{1,19}")
_NAMES: Final = ", ".join(names[0] for names in NAMES.values())


class BadCell(Exception):
    """One cell can't be read: its field and what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field, self.reason = field, reason

    def fault(self, line: int, index: int | None) -> Fault:
        """The fault, at its line."""
        wanted = WANTED.get(self.field, "as many cells as the head has")
        return Fault(f"line {line}", self.reason, wanted, index, self.field)


def cells_of(text: str) -> list[str]:
    """The cells of one record; BadCell if it is not CSV."""
    try:
        reader = csv.reader(
            [text] if "\n" not in text else text.splitlines(keepends=True), strict=True
        )
        return next(reader, [])
    except csv.Error as error:
        raise BadCell("", f"is not CSV: {error}") from None


class Head:
    """The head of a body: where each field stands."""

    def __init__(self, names: Sequence[str]) -> None:
        """Raises BadCell for a head that names no account or metric, or one thing twice."""
        self.width = len(names)
        self.places: dict[str, int] = {}
        self.tags: list[tuple[str, int]] = []
        if self.width > COLUMNS_MAX:
            raise BadCell("", f"the head has {self.width} columns; {COLUMNS_MAX} are the most")
        for at, name in enumerate(map(str.strip, names)):
            self._bind(name, at)
        for name in ("account", "metric"):
            if name not in self.places:
                raise BadCell(
                    name, f"the head names no {name}; columns are {_NAMES}, others are tags"
                )

    def _bind(self, name: str, at: int) -> None:
        if not name:
            raise BadCell("", f"column {at + 1} of the head has no name")
        field = "timestamp_ns" if name == "timestamp_ns" else field_of(name)
        taken = self.places if field else dict(self.tags)
        if (field or name) in taken or {"timestamp", "timestamp_ns"} <= {field, *self.places}:
            raise BadCell(field or name, f"two columns of the head are the {field or name}")
        if field:
            self.places[field] = at
        else:
            self.tags.append((name, at))


class Batch:
    """Columns that grow row by row."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.accounts: list[int | str] = []
        self.metrics: list[str] = []
        self.values: list[int] = []
        self.times: list[int] = []
        self.properties: list[tuple[tuple[str, str], ...]] = []
        self.operations: list[int] = []
        self.ids: list[str | None] = []

    def add(self, cells: Sequence[str]) -> None:
        """Take one row; BadCell, and nothing taken, if it can't be an event."""
        head = self.head
        if len(cells) != head.width:
            raise BadCell("", f"{len(cells)} cells where the head has {head.width}")
        places = head.places
        at = places.get("value")
        value = 1 if at is None else _value(cells[at])
        instant = _instant(cells, places)
        at = places.get("operation")
        operation = 0 if at is None else _operation(cells[at])
        pairs = tuple((name, cells[at]) for name, at in head.tags if cells[at])
        at = places.get("properties")
        if at is not None and cells[at]:
            pairs += _properties(cells[at])
        self.accounts.append(parse_account(cells[places["account"]]))
        self.metrics.append(cells[places["metric"]])
        self.values.append(value)
        self.times.append(instant)
        self.properties.append(pairs)
        self.operations.append(operation)
        at = places.get("id")
        self.ids.append(None if at is None else cells[at] or None)

    def columns(self) -> v2.Columns:
        """The batch for the node."""
        return v2.Columns(
            self.accounts,
            self.metrics,
            self.values,
            self.times,
            self.properties,
            self.operations,
            self.ids,
        )


def _value(cell: str) -> int:
    found = int(cell) if _INTEGER.fullmatch(cell) else None
    if found is None or not VALUE_MIN <= found <= VALUE_MAX:
        raise BadCell("value", f"the value is {cell[:40]!r}" if cell else "the value is empty")
    return found


def _instant(cells: Sequence[str], places: dict[str, int]) -> int:
    if "timestamp_ns" in places:
        cell = cells[places["timestamp_ns"]]
        found = int(cell) if _COUNT.fullmatch(cell) else -1
        if not 0 <= found < 2**63:
            raise BadCell("timestamp_ns", f"the time is {cell[:40]!r}")
        return found or 1
    if "timestamp" not in places:
        return 0
    try:
        return parse_ns(cells[places["timestamp"]])
    except InvalidInputError as error:
        raise BadCell("timestamp", f"the time {error}") from None


def _operation(cell: str) -> int:
    found = OPERATIONS.get(cell.strip().lower() or "none")
    if found is None:
        raise BadCell("operation", f"the operation is {cell[:40]!r}")
    return int(found)


def _properties(cell: str) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(_decode_pairs(cell).items())
    except (msgspec.DecodeError, RecursionError):
        raise BadCell("properties", f"the properties are {cell[:40]!r}") from None


_decode_pairs: Final = msgspec.json.Decoder(dict[str, str]).decode
