"""The parameters that many routes share: how they are described and how they are read.

Owns one `Param` for each, which the OpenAPI page shows, and beside it the function that reads
it, so that what is promised and what is done stand together.
"""

from __future__ import annotations

from typing import Any, Final

from unimeter import limits
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Param
from unimeter.server.web.problems import POSITION, bad
from unimeter.types import Account

_ACCOUNT_DOC: Final = "Digits are the integer account; str:42 is the string account 42."
_NAME: Final = {"type": "string", "minLength": 1}
_TIME: Final = {"type": "string", "maxLength": 40}

ACCOUNT: Final = Param("account", _ACCOUNT_DOC, _NAME, required=True, example="acme")
ACCOUNT_PATH: Final = Param("account", _ACCOUNT_DOC, where="path", required=True, example="acme")
ANY_ACCOUNT: Final = Param("account", f"Only of this account. {_ACCOUNT_DOC}", example="acme")
METRIC: Final = Param("metric", "The metric's code.", _NAME, required=True, example="api_calls")
ANY_METRIC: Final = Param("metric", "Only of this metric.", example="api_calls")
CODE_PATH: Final = Param(
    "code", "The metric's code.", where="path", required=True, example="api_calls"
)
START: Final = Param(
    "start",
    "From when: RFC 3339 with a zone, a day (midnight UTC), or nanoseconds since 1970.",
    _TIME,
    example="2026-11-01",
)
END: Final = Param("end", "Until when, exclusive.", _TIME, example="2026-12-01")
PERIOD: Final = Param(
    "period",
    "`current` is the billing period that holds now; also what no range at all means.",
    {"type": "string", "enum": ["current"]},
)
RANGE: Final = (START, END, PERIOD)
FILTER: Final = Param(
    "filter",
    "Only events with this value of a dimension, as key:value. Repeated for one key: any of "
    "the values; for several keys: all of them.",
    {"type": "array", "items": {"type": "string", "pattern": "^[^:]+:[\\s\\S]+$"}},
    example=["model:large"],
)
CURSOR: Final = Param("cursor", "What the page before this one gave.")
FORMAT: Final = Param(
    "format",
    "The form of the rows; without it `Accept` decides.",
    {"type": "string", "enum": ["json", "csv", "ndjson"]},
)
MIN_POSITION: Final = Param(
    POSITION,
    "Answer only once this log position is applied here: the position of an earlier answer, "
    "to read your own writes at another node.",
    {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    where="header",
)
LINEARIZABLE: Final = Param(
    "linearizable",
    "Have the quorum confirm that nothing acknowledged is missing.",
    {"type": "boolean"},
)
READ: Final = (MIN_POSITION, LINEARIZABLE)
"""Of every read."""
LIST: Final = (CURSOR, FORMAT, *READ)
"""Of every read that gives pages of rows (and a limit of its own)."""


def limit_param(most: int = limits.PAGE_ITEMS_MAX, default: int = 1000) -> Param:
    """How many rows at most."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Param("limit", "The most rows of one page.", schema)


def limit(call: Call, most: int = limits.PAGE_ITEMS_MAX, default: int = 1000) -> int:
    """How many rows at most."""
    return call.integer("limit", default, 1, most)


def flag(call: Call, name: str) -> bool:
    """A parameter that is true or false; false if it is not there."""
    text = call.text(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise bad(name, f"is {text[:40]!r}", "true or false")
    return text in ("true", "1")


def read(call: Call) -> dict[str, Any]:
    """`min_position` and `linearizable` of a read, for the wire's message."""
    text = call.request.headers.get(POSITION, "0").strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise bad(POSITION, f"is {text[:40]!r}", "the position of an earlier answer")
    position = int(text)
    if position >= 2**63:
        raise bad(POSITION, "is beyond 63 bits", "the position of an earlier answer")
    return {"min_position": position, "linearizable": flag(call, "linearizable")}


def account(call: Call, metric: str | None = None, name: str = "account") -> Account:
    """An account that the caller may see (of `metric`, or of all metrics)."""
    found = call.account(name)
    call.principal.check_sees(found, metric)
    return found


def any_account(call: Call) -> Account | None:
    """An account, or None where the request names none."""
    return call.account() if call.text("account", "") else None


def metric(call: Call) -> str:
    """The code of a metric."""
    return call.text("metric")


def filters(call: Call) -> dict[str, list[str]]:
    """Values by dimension."""
    found: dict[str, list[str]] = {}
    for text in call.texts("filter"):
        key, colon, value = text.partition(":")
        if not colon or not key or not value:
            raise bad("filter", f"is {text[:80]!r}", "key:value")
        if value not in found.setdefault(key, []):
            found[key].append(value)
    if sum(map(len, found.values())) > limits.DIMENSION_VALUES_MAX:
        raise bad("filter", "is given too often", f"at most {limits.DIMENSION_VALUES_MAX} values")
    return found
