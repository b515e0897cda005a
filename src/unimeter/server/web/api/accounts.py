"""Accounts by HTTP: search, and all that one has.

A search finds by an exact name or its beginning, newest accounts first, a page at a time; an
account that is called exactly so comes first. It looks at SCANNED_MAX series at most for one page,
in steps between which others have their turn, so a page may hold fewer rows than asked for: only a
missing cursor is the end.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.responses import Response

from unimeter.accounts import account_text, parse_account
from unimeter.engine import search
from unimeter.keys import Scope
from unimeter.server.web.answers import CURSOR_WANTED, cursor_of, cursor_text, rows
from unimeter.server.web.api import params
from unimeter.server.web.api.metrics import schema_of
from unimeter.server.web.api.schemas import (
    ACCOUNT,
    TEXT,
    TOTAL,
    metric_json,
    rows_schema,
    total_cells,
)
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint, Param
from unimeter.server.web.problems import Problem, bad
from unimeter.types import Account, MetricSchema
from unimeter.wire.messages import MetricList, UsageRealtime, UsageReply

SCANNED_MAX: Final = 500_000  # series looked at for one page: a second, in steps
LIMIT_MAX: Final = 1000


async def find(call: Call) -> Response:
    """Accounts by exact name or beginning."""
    call.principal.check_sees(None, None)
    prefix, most = call.text("q", ""), params.limit(call, LIMIT_MAX, 100)
    position = await _position(call)
    node = call.site.server.node
    cursor = cursor_of(call)
    if len(cursor) not in (0, 8):
        raise bad("cursor", "is none that a page gave", CURSOR_WANTED)
    with node.lock:
        exact = _exact(node.machine, prefix)
        end = search.series_end(node.machine)
    found: list[Account] = [] if cursor else list(exact)
    end = int.from_bytes(cursor, "little") if cursor else end
    scanned = 0
    while end and len(found) < most and scanned < SCANNED_MAX:
        with node.lock:
            some, end = search.step(node.machine, prefix, end)
        scanned += search.SERIES_PER_STEP
        found += [account for account in some if not _is_in(account, exact)]
        await asyncio.sleep(0)
    lines = [[account, account_text(account)] for account in found]
    after = cursor_text(end.to_bytes(8, "little")) if end else ""
    return rows(call, ("account", "text"), lines, position=position, cursor=after)


async def _position(call: Call) -> int:
    """Wait for what the request asks to see; an answer of the node says where it is."""
    request = MetricList(limit=1, **params.read(call))
    _, position = await call.site.gateway.ask(request, call.principal)
    return position


def _exact(machine: Any, text: str) -> list[Account]:
    """The accounts that are called exactly so: the integer, and the string of the same digits."""
    named = parse_account(text)
    both: list[Account] = [named] if isinstance(named, str) else [named, text]
    return [one for one in both if text and search.known_account(machine, one)]


def _is_in(account: Account, some: list[Account]) -> bool:
    return any(type(one) is type(account) and one == account for one in some)


async def show(call: Call) -> Response:
    """The current period's total of every metric that an account has."""
    account = parse_account(call.path("account"))
    principal = call.principal
    if principal.account is not None:
        principal.check_sees(account, next(iter(principal.metrics or ()), None))
    position = await _position(call)
    node = call.site.server.node
    with node.lock:
        codes = search.metrics_of(node.machine, account)
    lines = []
    for code in codes:
        if not principal.sees(account, code):
            continue
        try:
            request = UsageRealtime(account, code, **params.read(call))
            reply, position = await call.site.gateway.ask(request, principal)
            schema = schema_of(call, code)
        except Problem:  # it was deleted meanwhile
            continue
        assert isinstance(reply, UsageReply)
        cells = total_cells(account, schema, reply.start_ns, reply.end_ns, reply.value)
        lines.append([*cells, thresholds(schema, reply.value.alert_flags)])
    more = {"account": account}
    return rows(call, (*TOTAL, "thresholds"), lines, position=position, more=more)


def thresholds(schema: MetricSchema, flags: int) -> list[dict[str, Any]]:
    """A metric's thresholds, and which of them have fired in the period."""
    given: list[dict[str, Any]] = metric_json(schema)["thresholds"]
    return [one | {"fired": bool(flags >> at & 1)} for at, one in enumerate(given)]


_TAG: Final = "accounts"
_Q: Final = Param(
    "q",
    "The name or its beginning; all accounts if none. str:4 finds strings that begin with 4.",
    {"type": "string"},
    example="acme",
)
_THRESHOLDS: Final = {"type": "array", "items": {"type": "object"}}

ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/accounts",
        find,
        Scope.READ,
        "Find accounts",
        "By exact name or its beginning, newest first. A page may hold fewer rows than `limit`, "
        "even none; only a missing cursor means the end.",
        _TAG,
        (_Q, params.limit_param(LIMIT_MAX, 100), *params.LIST),
        answers={200: rows_schema({"account": ACCOUNT, "text": TEXT})},
    ),
    Endpoint(
        "GET",
        "/v1/accounts/{account:path}",
        show,
        Scope.READ,
        "What an account has used",
        "The current period's total of every metric that counted something of it, with its "
        "thresholds. No rows for an account that is not known.",
        _TAG,
        (params.ACCOUNT_PATH, params.FORMAT, *params.READ),
        answers={200: rows_schema({**TOTAL, "thresholds": _THRESHOLDS})},
        takes_portal=True,
    ),
]
