"""One row of a file to one event: which column is which field.

The fields of an event and the names they are known by:

    account     account, account_id          required, or --account
    metric      metric, metric_code          required, or --metric
    value       value                        1 if there is no such column
    timestamp   timestamp, time              the time the run began if none
    operation   operation, operation_type    none, add, remove
    id          id                           made from file and line if missing
    properties  properties, tags             NDJSON: an object of texts

``--column FIELD=NAME`` names a column that is called otherwise. In CSV every
other column is a property of that name; in NDJSON another name is refused,
because a misspelt "acount" must not become a tag. ``--ignore`` drops a column.

Nothing is guessed and nothing is rounded: `BadLine` says what is wrong with a
row and what to do, and the row is not counted until that is done. An empty
value or time is refused too: a gap in a column is a mistake of the program
that wrote it, and 1 and "now" are the wrong answers to it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timezone, tzinfo
from decimal import Decimal
from typing import Any

from unimeter.cli.amounts import parse_amount
from unimeter.cli.moments import parse_instant
from unimeter.cli.options import parse_account
from unimeter.errors import InvalidInputError
from unimeter.event_fields import NAMES as NAMES
from unimeter.event_fields import OPERATIONS
from unimeter.types import Account, Event, OperationType, from_ns

_OPERATIONS: dict[Any, OperationType] = {
    None: OperationType.NONE,
    "": OperationType.NONE,
    **OPERATIONS,
}


class BadLine(Exception):
    """One line can't become an event; the text says what is wrong and what to do."""


@dataclass
class PreciseEvent(Event):
    """An event whose time has more digits than a datetime keeps."""

    exact_ns: int = 0

    def timestamp_ns(self) -> int:
        """The time with all nine decimals."""
        return self.exact_ns


@dataclass(frozen=True)
class Fields:
    """How rows become events; made once from a run's options."""

    columns: Mapping[str, str] = field(default_factory=dict)  # field -> column name
    ignored: frozenset[str] = frozenset()
    account: Account | None = None
    metric: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    decimals: int = 0
    zone: tzinfo = timezone.utc
    begun_ns: int = 0  # the time of rows without one; 0 = when they are read

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in NAMES:
                raise InvalidInputError(
                    f"--column {name}=...: no such field; there are: {', '.join(NAMES)}"
                )

    def digest(self) -> str:
        """What makes an event of a line another event: options that name, not mend.

        Scale and zone are left out: who repeats a run to correct them must be
        told of a conflict, not billed twice.
        """
        chosen = [
            sorted(self.columns.items()),
            sorted(self.properties.items()),
            self.metric,
            [type(self.account).__name__, self.account],
        ]
        return hashlib.blake2b(json.dumps(chosen).encode(), digest_size=16).hexdigest()

    def field_of(self, column: str) -> str | None:
        """The field a column holds; None if it is not one."""
        for name, known in NAMES.items():
            wanted = (self.columns[name],) if name in self.columns else known
            if column in wanted:
                return name
        return None

    def bind(self, header: Sequence[str]) -> list[str | None]:
        """The field of each CSV column: ``=KEY`` for a property, None for one ignored."""
        bound = [self._bind_one(column.strip()) for column in header]
        named = [name for name in bound if name is not None]
        for name in named:
            if named.count(name) > 1:
                raise InvalidInputError(
                    f"two columns are {name.lstrip('=')!r} in the head {','.join(header)!r}; "
                    "rename one or --ignore it"
                )
        for name, wanted in self.columns.items():
            if name not in named:
                raise InvalidInputError(f"--column {name}={wanted}: the head has no such column")
        self._check_complete(named, f"the head {','.join(header)!r}")
        return bound

    def _bind_one(self, column: str) -> str | None:
        if column in self.ignored or ("*" in self.ignored and self.field_of(column) is None):
            return None
        if not column:
            raise InvalidInputError("a column of the head has no name; name it or mend the head")
        return self.field_of(column) or f"={column}"

    def _check_complete(self, named: Sequence[str], where: str) -> None:
        for name, constant in (("account", self.account), ("metric", self.metric)):
            if name not in named and constant is None:
                raise InvalidInputError(
                    f"{where} names no {name}; add the column, give --{name}, "
                    f"or say which it is: --column {name}=NAME"
                )

    def of_cells(self, bound: Sequence[str | None], cells: Sequence[str], made_id: str) -> Event:
        """The event of one CSV row."""
        if len(cells) != len(bound):
            raise BadLine(
                f"{len(cells)} cells where the head has {len(bound)}; "
                "quote cells that hold the delimiter"
            )
        row: dict[str, object] = {}
        properties = dict(self.properties)
        for name, cell in zip(bound, cells, strict=True):
            if name is None:
                continue
            if name == "account":
                # A cell has no type, unlike JSON: digits are an integer account.
                row[name] = parse_account(cell) if cell else cell
            elif not name.startswith("="):
                row[name] = cell
            elif cell:
                properties[name[1:]] = cell
        if "properties" in row:
            properties.update(_texts(_json_cell(row.pop("properties"))))
        return self._event(row, properties, made_id)

    def of_object(self, found: object, made_id: str) -> Event:
        """The event of one NDJSON line."""
        if not isinstance(found, dict):
            raise BadLine("not a JSON object; write one {...} per line")
        row: dict[str, object] = {}
        for column, value in found.items():
            name = self.field_of(column)
            if column in self.ignored or (name is None and "*" in self.ignored):
                continue
            if name is None:
                raise BadLine(
                    f"no field is called {column!r}; put it into properties, "
                    f"--ignore {column}, or say which it is: --column FIELD={column}"
                )
            if name in row:
                raise BadLine(f"{name} is given twice; keep one")
            if value is not None:
                row[name] = value
        properties = {**self.properties, **_texts(row.pop("properties", {}))}
        return self._event(row, properties, made_id)

    def _event(self, row: Mapping[str, object], properties: dict[str, str], made_id: str) -> Event:
        try:
            instant = self._instant(row)
            return PreciseEvent(
                account_id=self._account(row),
                metric_code=self._metric(row),
                value=self._value(row),
                timestamp=from_ns(instant),
                operation_type=_operation(row.get("operation")),
                properties=properties,
                id=_identity(row.get("id")) or made_id,
                exact_ns=instant,
            )
        except InvalidInputError as error:
            raise BadLine(str(error)) from None

    def _account(self, row: Mapping[str, object]) -> Account:
        given = row.get("account", self.account)
        if given is None or given == "":
            raise BadLine("no account; add it or give --account")
        if "account" not in row:
            return given if isinstance(given, int) else str(given)
        if isinstance(given, bool) or not isinstance(given, (int, str)):
            raise BadLine(f"account {given} is neither an integer nor a text")
        if isinstance(given, int) and not 0 <= given < 2**64:
            raise BadLine(f"account {given} is not an unsigned 64-bit integer; write it as a text")
        return given

    def _metric(self, row: Mapping[str, object]) -> str:
        given = row.get("metric", self.metric)
        if not isinstance(given, str) or not given:
            raise BadLine("no metric; add its code or give --metric")
        return given

    def _value(self, row: Mapping[str, object]) -> int:
        given = row.get("value", 1)
        if given == "":
            raise BadLine("value is empty; write a number, 1 for one event")
        if isinstance(given, bool) or not isinstance(given, (int, str, Decimal)):
            raise BadLine(f"value {given} is not a number")
        return parse_amount(given, self.decimals)

    def _instant(self, row: Mapping[str, object]) -> int:
        if "timestamp" not in row:
            # A live pipe's events happen as they are read; a file's at one fixed time.
            return self.begun_ns or time.time_ns()
        given = row["timestamp"]
        if given == "":
            raise BadLine("timestamp is empty; write a time, or --ignore the column")
        if isinstance(given, bool) or not isinstance(given, (int, str, Decimal)):
            raise BadLine(f"timestamp {given} is neither a text nor a number")
        return parse_instant(f"{given:f}" if isinstance(given, Decimal) else str(given), self.zone)


def _operation(given: object) -> OperationType:
    word = given.strip().lower() if isinstance(given, str) else given
    if isinstance(word, (str, type(None))) and word in _OPERATIONS:
        return _OPERATIONS[word]
    raise BadLine(f"operation {given} is not none, add or remove")


def _identity(given: object) -> str | None:
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, (int, str)):
        raise BadLine(f"id {given} is not a text")
    return str(given)


def _json_cell(cell: object) -> object:
    if cell == "":
        return {}
    try:
        return json.loads(str(cell))
    except ValueError:
        raise BadLine(f'properties {cell} is not JSON; write {{"key": "value"}}') from None


def _texts(given: object) -> dict[str, str]:
    if not isinstance(given, dict):
        raise BadLine(f'properties {given} is not an object; write {{"key": "value"}}')
    texts: dict[str, str] = {}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise BadLine(f'property {key} is {value}, not a text; write "{value}" in quotes')
        texts[key] = str(value)
    return texts
