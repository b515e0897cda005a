"""What an answer looks like: JSON, or rows as JSON, CSV or NDJSON.

Owns the three forms and how each value is written in them, so that no route has a form of its
own. Rows are columns and cells; the reader chooses the form (``?format=`` or ``Accept``):

    json     {"rows": [{...}, ...], "cursor": "...", "position": 17}
    ndjson   one object a line;  the cursor in the header Unimeter-Cursor
    csv      a head and a line a row; the same header

Every answer has the header ``Unimeter-Position``: the log position that it reflects. Integers
that a reader's float would round (beyond 2^53 - 1) are written as strings of digits in JSON.
In CSV a text that a spreadsheet would take for a formula (it begins with = + - @, a tab or a
carriage return), or that begins with an apostrophe, gets an apostrophe in front, so taking
one away gives the text back. Numbers are left as they are.

Refuses to know what the rows are. `Cursor` is opaque: what a page gave is asked for again.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.responses import Response

from unimeter.accounts import EXACT_MAX, account_text, json_account
from unimeter.server.web.call import Call
from unimeter.server.web.problems import POSITION, bad

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv; charset=utf-8"
CURSOR: Final = "Unimeter-Cursor"
CURSOR_WANTED: Final = "the cursor that a page of this very list gave, or none"
FORMATS: Final = ("json", "csv", "ndjson")
_ACCOUNTS: Final = ("account", "accounts")
_RISKY: Final = ("=", "+", "-", "@", "\t", "\r", "'")
_OF_ACCEPT: Final = (("text/csv", "csv"), (NDJSON, "ndjson"), ("application/jsonl", "ndjson"))

_encode = msgspec.json.Encoder().encode


def answer(
    body: Any,
    position: int | None = None,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """A JSON answer; None is an empty one (204 unless another status is given)."""
    given = dict(headers or {})
    if position is not None:
        given[POSITION] = str(position)
    if body is None:
        return Response(b"", 204 if status == 200 else status, given)
    return Response(_encode(exact(body)), status, given, JSON)


def rows(
    call: Call,
    columns: Sequence[str],
    lines: Iterable[Sequence[Any]],
    *,
    position: int | None = None,
    cursor: str = "",
    more: Mapping[str, Any] | None = None,
    form: str = "",
) -> Response:
    """Rows in the form that the reader asked for.

    `lines` are cells in the order of `columns`. `cursor` asks for the next page, "" = none.
    `more` are further members of the JSON object. `form` overrides what the request says.
    """
    form = form or wanted_form(call)
    headers = {"Vary": "Accept"}
    if position is not None:
        headers[POSITION] = str(position)
    if cursor:
        headers[CURSOR] = cursor
    if form == "csv":
        return Response(csv_text(columns, lines).encode(), 200, headers, CSV)
    objects = [exact(dict(zip(columns, line, strict=True))) for line in lines]
    if form == "ndjson":
        return Response(b"".join(_encode(one) + b"\n" for one in objects), 200, headers, NDJSON)
    whole: dict[str, Any] = {"rows": objects}
    if cursor:
        whole["cursor"] = cursor
    if position is not None:
        whole["position"] = position
    return Response(_encode(whole | exact(dict(more or {}))), 200, headers, JSON)


def wanted_form(call: Call) -> str:
    """json, csv or ndjson: the parameter, else what `Accept` names, else JSON."""
    form = call.text("format", "")
    if form:
        if form not in FORMATS:
            raise bad("format", f"is {form[:40]!r}", "json, csv or ndjson")
        return form
    accept = call.request.headers.get("accept", "").lower()
    if JSON not in accept:
        for kind, name in _OF_ACCEPT:
            if kind in accept:
                return name
    return "json"


# --- values ------------------------------------------------------------------------


def exact(value: Any) -> Any:
    """`value` with every integer that a float would round as a string of digits.

    What stands under "account" or "accounts" is written as `accounts` says.
    """
    kind = type(value)
    if kind is int:
        return value if -EXACT_MAX <= value <= EXACT_MAX else str(value)
    if kind is dict:
        return {
            key: accounts_exact(item) if key in _ACCOUNTS else exact(item)
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        return [exact(item) for item in value]
    return value


def accounts_exact(value: Any) -> Any:
    """An account, or several, as they stand in JSON; anything else as `exact` has it."""
    if isinstance(value, list | tuple):
        return [accounts_exact(item) for item in value]
    return json_account(value) if isinstance(value, int | str) else exact(value)


def csv_text(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A head and a line a row, as RFC 4180 has it: lines end in CR LF."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")  # and so a cell with either is quoted
    writer.writerow([csv_cell(name) for name in columns])
    accounts = [at for at, name in enumerate(columns) if name == "account"]
    for line in lines:
        cells = list(line)
        for at in accounts:
            cells[at] = None if cells[at] is None else account_text(cells[at])
        writer.writerow([csv_cell(value) for value in cells])
    return buffer.getvalue()


def csv_cell(value: Any) -> str:
    """One cell: a text that would be a formula is made a text for good."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_RISKY) else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return _encode(exact(value)).decode()  # begins with [ or {


# --- cursors -----------------------------------------------------------------------


def cursor_text(cursor: bytes) -> str:
    """A cursor of the wire as it stands in JSON and in a URL."""
    return base64.urlsafe_b64encode(cursor).decode().rstrip("=")


def cursor_of(call: Call) -> bytes:
    """The cursor that a request gives, b"" if none."""
    text = call.text("cursor", "")
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if text else b""
    except ValueError:
        found = None
    if found is None or len(found) > 200 or cursor_text(found) != text:
        raise bad("cursor", f"{text[:40]!r} is none that a page gave", CURSOR_WANTED)
    return found
