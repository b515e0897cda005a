"""Totals by HTTP: one, by window, by dimension, by account; and members.

Each is the wire's own question, so a range may be any range, exact to the event, and the answer
is the binary port's. The largest accounts (`top`) are read page by page: each total is exact, as
of a position that the answer names or a later one, and between two pages others have their turn.
"""

from __future__ import annotations

import heapq
from typing import Any, Final

from starlette.responses import Response

from unimeter import limits
from unimeter.instants import format_ns
from unimeter.keys import Scope
from unimeter.server.web.answers import answer, cursor_of, cursor_text, rows, wanted_form
from unimeter.server.web.api import params
from unimeter.server.web.api.metrics import schema_of
from unimeter.server.web.api.schemas import (
    ACCOUNT,
    INTEGER,
    NUMBERS,
    SPAN,
    TOTAL,
    numbers,
    object_schema,
    rows_schema,
    total_cells,
)
from unimeter.server.web.api.times import given_span, instant, span
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint, Param
from unimeter.server.web.problems import Problem, bad
from unimeter.types import Account, AccountTotal
from unimeter.wire.messages import (
    Accounts,
    AccountsReply,
    Breakdown,
    BreakdownReply,
    Members,
    MembersReply,
    Series,
    SeriesReply,
    UsageQuery,
    UsageRealtime,
    UsageReply,
    Window,
)

TOP_MAX: Final = 1000
TOP_PAGE: Final = 500  # accounts read at once: some 5 ms
TOP_SECONDS: Final = 30.0  # then the answer is that it takes too long
_NUMBERS: Final = tuple(NUMBERS)
_WINDOWS: Final = {window.name.lower(): window for window in Window}


def _asked(call: Call) -> tuple[Account, str]:
    """The account and the metric of a request, which the caller may see."""
    metric = params.metric(call)
    return params.account(call, metric), metric


async def total(call: Call) -> Response:
    """One total."""
    account, metric = _asked(call)
    filters, wanted = params.filters(call), given_span(call)
    request: UsageQuery | UsageRealtime
    if wanted is None and not filters:
        request = UsageRealtime(account, metric, **params.read(call))
    else:
        range_ = wanted or span(call, metric)
        request = UsageQuery(account, metric, *range_, filters, **params.read(call))
    reply, position = await call.site.gateway.ask(request, call.principal)
    assert isinstance(reply, UsageReply)
    schema = schema_of(call, metric)
    cells = total_cells(account, schema, reply.start_ns, reply.end_ns, reply.value)
    if wanted_form(call) != "json":
        return rows(call, tuple(TOTAL), [cells], position=position)
    found = dict(zip(TOTAL, cells, strict=True))
    return answer(found | {"position": position}, position)


async def series(call: Call) -> Response:
    """Totals by window."""
    account, metric = _asked(call)
    word = call.text("window", "day")
    if word not in _WINDOWS:
        raise bad("window", f"is {word[:40]!r}", ", ".join(_WINDOWS))
    range_ = span(call, metric)
    request = Series(
        account,
        metric,
        *range_,
        _WINDOWS[word],
        call.text("zone", ""),
        params.filters(call),
        **params.read(call),
    )
    reply, position = await call.site.gateway.ask(request, call.principal)
    assert isinstance(reply, SeriesReply)
    schema = schema_of(call, metric)
    lines = [
        [format_ns(row.start_ns), format_ns(row.end_ns), *numbers(row.value, schema)]
        for row in reply.rows
    ]
    return rows(call, (*SPAN, *_NUMBERS), lines, position=position)


async def breakdown(call: Call) -> Response:
    """Totals by the values of dimensions."""
    account, metric = _asked(call)
    keys = [key for given in call.texts("group_by") for key in given.split(",") if key]
    if not keys:
        raise bad("group_by", "is missing", "one dimension of the metric, or several: a,b")
    range_ = span(call, metric)
    request = Breakdown(account, metric, *range_, keys, params.filters(call), **params.read(call))
    reply, position = await call.site.gateway.ask(request, call.principal)
    assert isinstance(reply, BreakdownReply)
    schema = schema_of(call, metric)
    if wanted_form(call) == "csv":  # a column a dimension
        lines = [
            [*(value for _, value in row.pairs), *numbers(row.value, schema)] for row in reply.rows
        ]
        return rows(call, (*keys, *_NUMBERS), lines, position=position)
    lines = [[dict(row.pairs), *numbers(row.value, schema)] for row in reply.rows]
    return rows(call, ("group", *_NUMBERS), lines, position=position)


async def top(call: Call) -> Response:
    """The accounts with the largest totals."""
    metric = params.metric(call)
    call.principal.check_sees(None, metric)
    most = params.limit(call, TOP_MAX, 10)
    range_ = span(call, metric)
    loop = call.site.loop
    deadline = loop.time() + TOP_SECONDS
    best: list[tuple[int, int, AccountTotal]] = []  # a heap: the smallest first
    seen, first, cursor = 0, 0, b""
    while True:
        request = Accounts(metric, *range_, cursor, TOP_PAGE, **params.read(call))
        reply, position = await call.site.gateway.ask(request, call.principal)
        assert isinstance(reply, AccountsReply)
        schema = schema_of(call, metric)
        first = first or position
        for line in reply.accounts:
            seen += 1
            entry = (line.value.number(schema.agg_type), -seen, line)
            if len(best) < most:
                heapq.heappush(best, entry)
            elif entry > best[0]:
                heapq.heapreplace(best, entry)
        cursor = reply.cursor
        if not cursor:
            break
        if loop.time() > deadline:
            raise _too_long(seen)
    lines = [[one.account_id, *numbers(one.value, schema)] for _, _, one in sorted(best)[::-1]]
    more = {"accounts": seen, **_span_json(*range_)}
    return rows(call, ("account", *_NUMBERS), lines, position=first, more=more)


def _span_json(start_ns: int, end_ns: int) -> dict[str, Any]:
    return {"start": format_ns(start_ns), "end": format_ns(end_ns)}


def _too_long(seen: int) -> Problem:
    text = (
        f"{seen} accounts were compared in {TOP_SECONDS:.0f} seconds and there are more; ask for "
        "whole buckets of the metric, or take all accounts page by page"
    )
    return Problem(503, "wait", text, headers={"Retry-After": "60"})


async def totals_of_all(call: Call) -> Response:
    """Every account of a metric with its total, page by page: the invoice run."""
    metric = params.metric(call)
    call.principal.check_sees(None, metric)
    range_ = span(call, metric)
    most = params.limit(call, limits.PAGE_ITEMS_MAX, 1000)
    request = Accounts(metric, *range_, cursor_of(call), most, **params.read(call))
    reply, position = await call.site.gateway.ask(request, call.principal)
    assert isinstance(reply, AccountsReply)
    schema = schema_of(call, metric)
    lines = [[one.account_id, *numbers(one.value, schema)] for one in reply.accounts]
    return rows(
        call,
        ("account", *_NUMBERS),
        lines,
        position=position,
        cursor=cursor_text(reply.cursor),
        more=_span_json(*range_),
    )


async def members(call: Call) -> Response:
    """Who is active: the members of a count-unique metric."""
    account, metric = _asked(call)
    now = call.site.server.node.clock()
    request = Members(
        account,
        metric,
        instant(call, "at", min(max(now, limits.TIMESTAMP_NS_MIN), limits.TIMESTAMP_NS_MAX)),
        cursor_of(call),
        params.limit(call),
        **params.read(call),
    )
    reply, position = await call.site.gateway.ask(request, call.principal)
    assert isinstance(reply, MembersReply)
    lines = [[member] for member in reply.members]
    return rows(call, ("member",), lines, position=position, cursor=cursor_text(reply.cursor))


_TAG: Final = "totals"
_OF_ACCOUNT: Final = (params.ACCOUNT, params.METRIC)
_RANGED: Final = (*params.RANGE, params.FILTER, params.FORMAT, *params.READ)
_GONE: Final = {404: None, 410: None}
_WINDOW: Final = Param(
    "window", "The step.", {"type": "string", "enum": list(_WINDOWS), "default": "day"}
)
_ZONE: Final = Param("zone", "IANA zone of days, weeks and months; UTC if none.")
_GROUP_BY: Final = Param(
    "group_by", "Dimensions of the metric: a,b.", required=True, example="model"
)
_AT: Final = Param("at", "When; now if not given.", {"type": "string"})
_TOTAL: Final = object_schema({**TOTAL, "position": {"type": "integer"}})
_GROUP: Final = {"group": {"type": "object", "additionalProperties": {"type": "string"}}}

ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/totals",
        total,
        Scope.READ,
        "The total of an account",
        "Over any range, exact to the event; over the current billing period if none is given.",
        _TAG,
        (*_OF_ACCOUNT, *_RANGED),
        answers={200: _TOTAL, **_GONE},
        takes_portal=True,
    ),
    Endpoint(
        "GET",
        "/v1/series",
        series,
        Scope.READ,
        "Totals by hour, day, week or month",
        "Every window of the range in order, empty ones too.",
        _TAG,
        (*_OF_ACCOUNT, _WINDOW, _ZONE, *_RANGED),
        answers={200: rows_schema({**SPAN, **NUMBERS}), **_GONE},
        takes_portal=True,
    ),
    Endpoint(
        "GET",
        "/v1/breakdown",
        breakdown,
        Scope.READ,
        "Totals by the values of dimensions",
        "One row for each combination that has events. In CSV each dimension is a column.",
        _TAG,
        (*_OF_ACCOUNT, _GROUP_BY, *_RANGED),
        answers={200: rows_schema({**_GROUP, **NUMBERS}), **_GONE},
        takes_portal=True,
    ),
    Endpoint(
        "GET",
        "/v1/top",
        top,
        Scope.READ,
        "The accounts with the largest totals",
        "Exact: all accounts are compared. Where events come in meanwhile, each total is as of "
        "`position` or a little later.",
        _TAG,
        (
            params.METRIC,
            *params.RANGE,
            params.limit_param(TOP_MAX, 10),
            params.FORMAT,
            *params.READ,
        ),
        answers={200: rows_schema({"account": ACCOUNT, **NUMBERS}), **_GONE},
    ),
    Endpoint(
        "GET",
        "/v1/totals/accounts",
        totals_of_all,
        Scope.READ,
        "Every account with its total",
        "The invoice run, page by page. A page may hold fewer rows than `limit`, even none; only "
        "a missing cursor means the end.",
        _TAG,
        (params.METRIC, *params.RANGE, params.limit_param(), *params.LIST),
        answers={200: rows_schema({"account": ACCOUNT, **NUMBERS}), **_GONE},
    ),
    Endpoint(
        "GET",
        "/v1/members",
        members,
        Scope.READ,
        "Who is active",
        "The members of a count-unique metric (seats) at an instant, ascending.",
        _TAG,
        (*_OF_ACCOUNT, _AT, params.limit_param(), *params.LIST),
        answers={200: rows_schema({"member": INTEGER}), **_GONE},
        takes_portal=True,
    ),
]
