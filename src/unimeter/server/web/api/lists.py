"""Lists by HTTP: stored events, the newest events with their outcomes, alerts.

/v1/events       what counted, oldest first: what a total is made of
/v1/events/tail  everything that was sent, newest first: what is happening
/v1/alerts       crossings by position, after one that was seen
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.responses import Response

from unimeter import limits
from unimeter.engine.records import EventRow
from unimeter.instants import format_ns
from unimeter.keys import Scope, same
from unimeter.server.web import alert_cells
from unimeter.server.web.answers import cursor_of, cursor_text, rows
from unimeter.server.web.api import params
from unimeter.server.web.api.schemas import ACCOUNT, INTEGER, TEXT, TIME, rows_schema
from unimeter.server.web.api.store import REASONS, WORDS
from unimeter.server.web.api.times import Span, current_span, given_span
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint, Param
from unimeter.server.web.problems import bad
from unimeter.storage.newest import SeenPage, newest_events
from unimeter.types import OperationType
from unimeter.wire.messages import (
    AlertsList,
    AlertsListReply,
    EventsList,
    EventsListReply,
    MetricList,
)

TAIL_MAX: Final = 1000
NOT_COUNTED: Final = "not_counted"
_LOST: Final = "a duplicate or refused; why is not kept this far back"
_EVER: Final = Span(limits.TIMESTAMP_NS_MIN, limits.TIMESTAMP_NS_MAX)
_EVENT: Final = {
    "offset": {"type": "integer"},
    "timestamp": TIME,
    "account": ACCOUNT,
    "metric": TEXT,
    "value": INTEGER,
    "operation": {"type": "string", "enum": ["none", "add", "remove"]},
    "properties": {"type": "object", "additionalProperties": {"type": "string"}},
    "id": {"type": ["string", "null"]},
}
_SEEN: Final = {
    **_EVENT,
    "timestamp": {"type": ["string", "null"]},
    "operation": TEXT,
    "outcome": TEXT,
    "reason": {"type": ["string", "null"]},
}


async def events(call: Call) -> Response:
    """Stored events of an account."""
    metric = call.text("metric", "") or None
    account = params.account(call, metric)
    range_ = given_span(call)
    if range_ is None:
        is_current = bool(call.text("period", ""))
        if is_current and metric is None:
            raise bad("period", "is current, and no metric says whose", "a metric, or a range")
        range_ = current_span(call, metric) if is_current and metric else _EVER
    request = EventsList(
        account, metric, *range_, cursor_of(call), params.limit(call), **params.read(call)
    )
    reply, position = await call.site.gateway.ask(request, call.principal)
    assert isinstance(reply, EventsListReply)
    lines = [
        [
            one.offset,
            format_ns(one.timestamp_ns),
            one.account_id,
            one.metric_code,
            one.value,
            one.operation_type.name.lower(),
            one.properties,
            one.id,
        ]
        for one in reply.events
    ]
    cursor = cursor_text(reply.cursor)
    return rows(call, tuple(_EVENT), lines, position=position, cursor=cursor)


async def tail(call: Call) -> Response:
    """The newest events, whatever became of them."""
    metric, account = call.text("metric", "") or None, params.any_account(call)
    call.principal.check_sees(account, metric)
    words = _outcomes(call)
    most = params.limit(call, TAIL_MAX, 100)
    cursor = cursor_of(call).decode("ascii", "replace")
    request = MetricList(limit=1, **params.read(call))
    _, position = await call.site.gateway.ask(request, call.principal)
    store = call.site.server.node.events

    def chooses(row: EventRow, outcome: int | None) -> bool:
        return (
            (account is None or same(row.account, account))
            and (metric is None or row.metric_code == metric)
            and (not words or _word(outcome) in words or ("refused" in words and outcome != 0))
        )

    page = await _aside(call, lambda: newest_events(store, chooses, cursor, most))
    lines = [
        [*_cells(one.offset, one.row), _word(one.outcome), _reason(one.outcome)]
        for one in page.events
    ]
    after = cursor_text(page.cursor.encode())
    return rows(call, tuple(_SEEN), lines, position=position, cursor=after)


def _outcomes(call: Call) -> set[str]:
    words = {word for given in call.texts("outcome") for word in given.split(",") if word}
    known = {*WORDS.values(), NOT_COUNTED, "refused"}
    for word in words - known:
        raise bad("outcome", f"is {word[:40]!r}", ", ".join(sorted(known)))
    return words


def _word(outcome: int | None) -> str:
    return NOT_COUNTED if outcome is None else WORDS.get(outcome, NOT_COUNTED)


def _reason(outcome: int | None) -> str | None:
    return REASONS.get(_word(outcome), _LOST) if outcome != 0 else None


def _cells(offset: int, row: EventRow) -> list[Any]:
    known = row.operation in OperationType.__members__.values()
    return [
        offset,
        format_ns(row.timestamp_ns) if 0 < row.timestamp_ns < 2**63 else None,
        row.account,
        row.metric_code,
        row.value,
        OperationType(row.operation).name.lower() if known else str(row.operation),
        row.properties,
        row.id,
    ]


async def _aside(call: Call, work: Any) -> SeenPage:
    """Have a worker read the log; its failure is raised here."""
    future: asyncio.Future[SeenPage] = call.site.loop.create_future()

    def done(result: SeenPage | Exception) -> None:
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    call.site.server.node.host.aside(work, done)
    return await future


async def alerts(call: Call) -> Response:
    """Alerts after a position."""
    account, metric = params.any_account(call), call.text("metric", "") or None
    call.principal.check_sees(account, metric)
    after = call.integer("after", 0, 0, 2**62)
    request = AlertsList(account, metric, after, params.limit(call), **params.read(call))
    reply, position = await call.site.gateway.ask(request, call.principal)
    assert isinstance(reply, AlertsListReply)
    lines = [alert_cells.alert_cells(one) for one in reply.alerts]
    last = reply.alerts[-1].position if reply.alerts else after
    more = {"more": reply.more, "after": last}
    return rows(call, alert_cells.COLUMNS, lines, position=position, more=more)


_TAG: Final = "events"
_AFTER: Final = Param(
    "after",
    "The position of the last alert that was seen; 0 for all.",
    {"type": "integer", "minimum": 0, "maximum": 2**62, "default": 0},
)
_OUTCOME: Final = Param(
    "outcome",
    "Only these, comma-separated: stored, duplicate, conflict, unknown_metric, ...; `refused` "
    "is everything but stored.",
)
_ALERT: Final = dict.fromkeys(alert_cells.COLUMNS, TEXT) | {
    "position": {"type": "integer"},
    "timestamp": TIME,
    "account": ACCOUNT,
    "direction": {"type": "string", "enum": ["rising", "falling"]},
    "value": INTEGER,
    "period_start": TIME,
    "offset": {"type": "integer"},
}
_ALERTS: Final = rows_schema(_ALERT)

ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/events",
        events,
        Scope.READ,
        "List stored events",
        "What a total is made of: the events of an account that counted, in log order. Of all "
        "time if no range is given.",
        _TAG,
        (
            params.ACCOUNT,
            params.ANY_METRIC,
            *params.RANGE,
            params.limit_param(),
            *params.LIST,
        ),
        answers={200: rows_schema(_EVENT), 404: None, 410: None},
        takes_portal=True,
    ),
    Endpoint(
        "GET",
        "/v1/events/tail",
        tail,
        Scope.READ,
        "The newest events, with what became of them",
        "Everything that was sent, newest first: stored, sent twice, refused with the reason. "
        "A page may hold fewer rows than `limit`, even none; only a missing cursor means the end.",
        _TAG,
        (
            params.ANY_ACCOUNT,
            params.ANY_METRIC,
            _OUTCOME,
            params.limit_param(TAIL_MAX, 100),
            *params.LIST,
        ),
        answers={200: rows_schema(_SEEN), 404: None, 410: None},
    ),
    Endpoint(
        "GET",
        "/v1/alerts",
        alerts,
        Scope.READ,
        "List alerts",
        "By position, from 1 without gaps. `after` of the answer asks for the next page while "
        "`more` is true.",
        "alerts",
        (
            params.ANY_ACCOUNT,
            params.ANY_METRIC,
            _AFTER,
            params.limit_param(),
            params.FORMAT,
            *params.READ,
        ),
        answers={200: _ALERTS, 404: None},
        takes_portal=True,
    ),
]
