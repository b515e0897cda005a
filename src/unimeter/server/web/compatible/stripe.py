"""Stripe's meter events: v1 (a form), v2 (JSON) and the v2 stream.

Owns Stripe's form of an event, of an answer and of an error. The event name is the metric,
``payload[stripe_customer_id]`` the account, the identifier the event's key; the value is
``payload[<field_name>]``, else ``payload[value]``, text as Stripe wants it; tags are the
metric's dimensions that the payload has.

    POST /v1/billing/meter_events         form  ─> the event, "billing.meter_event"
    POST /v2/billing/meter_events         JSON  ─> the event, "v2.billing.meter_event"
    POST /v2/billing/meter_event_stream   JSON  ─> {}
    POST /v2/billing/meter_event_session        ─> the token that the stream wants

An event without an identifier gets one made of the request's Idempotency-Key, which Stripe's
clients keep through their retries; without that too, one that is drawn, and then a resend is
another event. An identifier that was seen before is no error: the event is counted, once.

Stripe answers the stream before it looks at the events. Here a refused one is an error that
names it, and the others of the request are stored.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response

from unimeter.errors import ForbiddenError
from unimeter.instants import format_ns
from unimeter.keys import Scope
from unimeter.server.auth import SESSION_SECONDS
from unimeter.server.web.answers import JSON, answer
from unimeter.server.web.call import Call
from unimeter.server.web.compatible.amounts import Refused, checked, exact_json, key, moment
from unimeter.server.web.compatible.arrivals import Receipt, receive
from unimeter.server.web.compatible.drafts import Item, Shape
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.problems import Problem, bad

FORM: Final = "application/x-www-form-urlencoded"
FIELDS_MAX: Final = 256  # of a form: an event has a handful
SHAPE: Final = Shape(
    "stripe", ("payload.stripe_customer_id",), ("identifier",), "timestamp", ("payload",)
)
OPEN: Final = "open"  # the token of a node without keys, which asks for none
_PAYLOAD: Final = re.compile(r"payload\[([^\[\]]+)\]")
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class StripeEvent(msgspec.Struct):
    """One meter event."""

    event_name: _Text
    payload: dict[str, Any]
    identifier: _Text | None = None
    timestamp: Any = None  # Unix seconds in v1, RFC 3339 in v2; both are read in both


class StripeStream(msgspec.Struct):
    """The body of the stream."""

    events: list[StripeEvent]


async def form(call: Call) -> Response:
    """Version 1: one event in a form."""
    sent = form_of(await call.tree_body())
    event: StripeEvent = checked(sent, StripeEvent)
    receipt, identifier = await _one(call, sent, event)
    ns = _time(event, receipt)
    body = _echo("billing.meter_event", event, identifier)
    return answer(
        body | {"created": receipt.now_ns // 10**9, "timestamp": ns // 10**9}, receipt.position
    )


async def event(call: Call) -> Response:
    """Version 2: one event in JSON."""
    sent = exact_json(await call.tree_body())
    event: StripeEvent = checked(sent, StripeEvent)
    receipt, identifier = await _one(call, sent, event)
    times = {"created": format_ns(receipt.now_ns), "timestamp": format_ns(_time(event, receipt))}
    return answer(_echo("v2.billing.meter_event", event, identifier) | times, receipt.position)


async def stream(call: Call) -> Response:
    """Version 2: several events."""
    sent = exact_json(await call.tree_body())
    events: list[StripeEvent] = checked(sent, StripeStream).events
    items = [
        Item(at, event.event_name, _named(call, sent["events"][at], event, at))
        for at, event in enumerate(events)
    ]
    receipt = await receive(call, SHAPE, items)
    if receipt.refusals:
        raise receipt.problem("events[{}]")
    return answer({}, receipt.position)


async def session(call: Call) -> Response:
    """What the stream wants for a key."""
    now = call.site.server.node.clock()
    if call.principal.expires_ns:
        raise ForbiddenError("a session is made from a key, not from another session")
    if call.principal.key_id:
        token, expires = call.site.server.auth.new_session(call.principal)
    else:
        token, expires = OPEN, now // 10**9 + SESSION_SECONDS  # everybody is let in
    return answer(
        {
            "object": "v2.billing.meter_event_session",
            "id": key(["meter event session", token]).removeprefix("b2:"),
            "authentication_token": token,
            "created": format_ns(now),
            "expires_at": format_ns(expires * 10**9),
            "livemode": True,
        },
        headers={"Cache-Control": "no-store"},
    )


async def _one(call: Call, sent: dict[str, Any], event: StripeEvent) -> tuple[Receipt, str]:
    view = _named(call, sent, event, 0)
    receipt = await receive(call, SHAPE, [Item(0, event.event_name, view)])
    if receipt.refusals:
        raise receipt.problem("$")
    return receipt, view["identifier"]


def _named(call: Call, sent: dict[str, Any], event: StripeEvent, at: int) -> dict[str, Any]:
    """The event with an identifier."""
    if event.identifier is not None:
        return sent
    given = call.request.headers.get("idempotency-key", "")
    if given:
        return {**sent, "identifier": key(["idempotency-key", given, str(at)])}
    return {**sent, "identifier": call.site.server.platform.entropy(16).hex()}


def _time(event: StripeEvent, receipt: Receipt) -> int:
    try:
        return receipt.now_ns if event.timestamp is None else moment(event.timestamp, "timestamp")
    except Refused:  # the mapping takes the time from elsewhere
        return receipt.now_ns


def _echo(kind: str, event: StripeEvent, identifier: str) -> dict[str, Any]:
    payload = {
        name: value if isinstance(value, str) else str(value)
        for name, value in event.payload.items()
        if not isinstance(value, dict | list)
    }
    return {
        "object": kind,
        "event_name": event.event_name,
        "identifier": identifier,
        "livemode": True,
        "payload": payload,
    }


def form_of(body: bytes) -> dict[str, Any]:
    """The event that a form describes."""
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"
        )
    except UnicodeDecodeError as error:
        raise bad("body", f"is not UTF-8: byte {error.start}") from None
    except ValueError:
        raise bad("body", f"has more than {FIELDS_MAX} fields") from None
    sent: dict[str, Any] = {}
    payload: dict[str, str] = {}
    for name, value in pairs:
        inner = _PAYLOAD.fullmatch(name)
        if inner is not None:
            payload[inner[1]] = value
        else:
            sent[name] = value
    return {**sent, "payload": payload}


def failure(problem: Problem) -> Response:
    """A problem in the words that Stripe's clients read."""
    first = problem.faults[0] if problem.faults else None
    error = {
        "type": _TYPES.get(
            problem.status, "api_error" if problem.status >= 500 else "invalid_request_error"
        ),
        "code": problem.kind.replace("-", "_"),
        "message": problem.detail,
    }
    if first is not None:
        error["param"] = (first.field or first.path).removeprefix("$.")
    more = {"unimeter": problem.more} if problem.more else {}
    return answer({"error": error | more}, status=problem.status, headers=problem.headers)


ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "code", "message"],
            "properties": {
                "type": {"type": "string"},
                "code": {"type": "string"},
                "message": {"type": "string"},
                "param": {"type": "string"},
            },
        }
    },
}


def _event(created: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["object", "event_name", "identifier", "payload", "created", "timestamp"],
        "properties": {
            "object": {"type": "string"},
            "event_name": {"type": "string"},
            "identifier": {"type": "string"},
            "livemode": {"type": "boolean"},
            "payload": {"type": "object"},
            "created": created,
            "timestamp": created,
        },
    }


_FORM_BODY: Final = {
    "type": "object",
    "required": ["event_name"],
    "properties": {
        "event_name": {"type": "string", "minLength": 1},
        "identifier": {"type": "string", "minLength": 1},
        "timestamp": {"type": "integer"},
        "payload[stripe_customer_id]": {"type": "string"},
        "payload[value]": {"type": "string"},
    },
}
_SESSION: Final = {
    "type": "object",
    "required": ["object", "id", "authentication_token", "created", "expires_at"],
}


def _endpoint(path: str, handler: Any, summary: str, body: Any, answers: Any) -> Endpoint:
    return Endpoint(
        "POST",
        path,
        handler,
        Scope.INGEST,
        summary,
        tag="compatible",
        body=body,
        answers={200: answers, 413: ERROR, 415: ERROR},
        failure=failure,
        failure_shape=ERROR,
    )


ENDPOINTS = [
    _endpoint(
        "/v1/billing/meter_events",
        form,
        "Send an event as to Stripe, v1",
        {FORM: _FORM_BODY},
        _event({"type": "integer"}),
    ),
    _endpoint(
        "/v2/billing/meter_events",
        event,
        "Send an event as to Stripe, v2",
        {JSON: StripeEvent},
        _event({"type": "string", "format": "date-time"}),
    ),
    _endpoint(
        "/v2/billing/meter_event_stream",
        stream,
        "Send events as to Stripe's stream",
        {JSON: StripeStream},
        {"type": "object"},
    ),
    _endpoint(
        "/v2/billing/meter_event_session",
        session,
        "A token for Stripe's stream",
        {},
        _SESSION,
    ),
]
