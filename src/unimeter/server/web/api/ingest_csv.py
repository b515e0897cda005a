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
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from unimeter.accounts import parse_account
from unimeter.errors import InvalidInputError
from unimeter.event_fields import NAMES, OPERATIONS, field_of
from unimeter.instants import parse_ns
from unimeter.limits import VALUE_MAX, VALUE_MIN
from unimeter.server.web.api.ingest_json import WANTED
from unimeter.server.web.problems import Fault
from unimeter.wire import v2

T = TypeVar("T")
COLUMNS_MAX: Final = 64  # more than any event has properties
_INTEGERS: Final = re.compile(r"[0-9-]+")  # of a column in one: `int` takes more than digits
_COUNT: Final = re.compile(r"[0-9]{1,19}")
_NAMES: Final = ", ".join(names[0] for names in NAMES.values())


class BadCell(Exception):
    """One row can't be an event: which (from 0), its field, and what is wrong."""

    def __init__(self, field: str, reason: str, at: int = 0) -> None:
        super().__init__(reason)
        self.field, self.reason, self.at = field, reason, at

    def fault(self, line: int, index: int | None) -> Fault:
        """The fault, at its line."""
        wanted = WANTED.get(self.field, "as many cells as the head has")
        return Fault(f"line {line}", self.reason, wanted, index, self.field)


def cells_of(records: Sequence[str]) -> list[list[str]]:
    """The cells of each record; BadCell if they are not CSV."""
    try:
        found = list(csv.reader(records, strict=True))
    except csv.Error as error:
        raise BadCell("", f"is not CSV: {error}") from None
    if len(found) != len(records):
        raise BadCell("", "has a quote that ends where it should not")
    return found


class Head:
    """The head of a body: where each field stands."""

    def __init__(self, record: str) -> None:
        """Raises BadCell for a head that names no account or metric, or one thing twice."""
        (names,) = cells_of([record])
        self.width = len(names)
        self.places: dict[str, int] = {}
        self.tags: list[tuple[str, int]] = []
        if self.width > COLUMNS_MAX:
            raise BadCell("", f"the head has {self.width} columns; {COLUMNS_MAX} are the most")
        for at, name in enumerate(map(str.strip, names)):
            self._bind(name, at)
        for name in ("account", "metric"):
            if name not in self.places:
                raise BadCell(name, f"the head names no {name}; columns are {_NAMES}, others tags")

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


def columns_of(head: Head, records: Sequence[str]) -> v2.Columns:
    """The batch of some records; BadCell says which of them is no event.

    A column is read at once, as in a batch of good rows nothing depends on the row; only where
    that fails are rows looked at one by one.
    """
    try:
        return _columns(head, cells_of(records))
    except BadCell:
        for at, record in enumerate(records):
            try:
                _columns(head, cells_of([record]))
            except BadCell as error:
                error.at = at
                raise
        raise


def _columns(head: Head, rows: Sequence[Sequence[str]]) -> v2.Columns:
    widths = set(map(len, rows)) - {head.width}
    if widths:
        raise BadCell("", f"{min(widths)} cells where the head has {head.width}")
    columns = list(zip(*rows, strict=True)) or [()] * head.width
    given = {field: columns[at] for field, at in head.places.items()}
    return v2.Columns(
        accounts=_each(given["account"], parse_account),
        metric_codes=given["metric"],
        values=_values(given["value"]) if "value" in given else [1] * len(rows),
        timestamps_ns=_instants(given),
        properties=_tags(head, columns, given.get("properties")),
        operations=_each(given["operation"], _operation) if "operation" in given else None,
        ids=[cell or None for cell in given["id"]] if "id" in given else None,
    )


def _each(cells: Sequence[str], read: Callable[[str], T]) -> list[T]:
    """What `read` makes of each cell; cells that repeat are read once."""
    known = {cell: read(cell) for cell in dict.fromkeys(cells)}
    return [known[cell] for cell in cells]


def _values(cells: Sequence[str]) -> list[int]:
    try:
        if _INTEGERS.fullmatch("".join(cells)) or not cells:
            found = [int(cell) for cell in cells]
            if not found or VALUE_MIN <= min(found) <= max(found) <= VALUE_MAX:
                return found
    except ValueError:
        pass
    cell = cells[0]
    raise BadCell("value", f"the value is {cell[:40]!r}" if cell else "the value is empty")


def _instants(given: Mapping[str, Sequence[str]]) -> list[int] | None:
    if "timestamp_ns" in given:
        return [_count(cell) for cell in given["timestamp_ns"]]
    if "timestamp" not in given:
        return None
    try:
        return [parse_ns(cell) for cell in given["timestamp"]]
    except InvalidInputError as error:
        raise BadCell("timestamp", f"the time {error}") from None


def _count(cell: str) -> int:
    found = int(cell) if _COUNT.fullmatch(cell) else -1
    if not 0 <= found < 2**63:
        raise BadCell("timestamp_ns", f"the time is {cell[:40]!r}")
    return found or 1


def _operation(cell: str) -> int:
    found = OPERATIONS.get(cell.strip().lower() or "none")
    if found is None:
        raise BadCell("operation", f"the operation is {cell[:40]!r}")
    return int(found)


Pairs = tuple[tuple[str, str], ...]


def _tags(
    head: Head, columns: Sequence[Sequence[str]], objects: Sequence[str] | None
) -> list[Pairs] | None:
    """The properties of each row; sets of tags that repeat are made once."""
    if not head.tags and objects is None:
        return None
    names = [name for name, _ in head.tags]
    cells = [columns[at] for _, at in head.tags] + ([] if objects is None else [objects])
    known: dict[tuple[str, ...], Pairs] = {}
    found = []
    for row in zip(*cells, strict=True):
        pairs = known.get(row)
        if pairs is None:
            pairs = tuple(pair for pair in zip(names, row, strict=False) if pair[1])
            if objects is not None and row[-1]:
                pairs += _properties(row[-1])
            known[row] = pairs
        found.append(pairs)
    return found


def _properties(cell: str) -> Pairs:
    try:
        return tuple(_decode_pairs(cell).items())
    except (msgspec.DecodeError, RecursionError):
        raise BadCell("properties", f"the properties are {cell[:40]!r}") from None


_decode_pairs: Final = msgspec.json.Decoder(dict[str, str]).decode
