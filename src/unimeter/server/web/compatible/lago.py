"""Lago's events: ``POST /api/v1/events`` with one, ``/api/v1/events/batch`` with many.

Owns Lago's form of an event and of an answer. The code is the metric, the subscription (or the
customer, where an old client sends that) the account, the transaction id the event's key; the
value is ``properties.<field_name>``, and ``properties.operation_type`` adds or removes members.

Lago's clients read the event back from the answer, so it is there, with one member of ours:
``unimeter`` with the outcome. Its own ids (lago_id and the like) are null. A refused event
is Lago's 422 with ``error_details`` by field, and in a batch by index and field; unlike
Lago, the other events of such a batch are stored, and the answer says so. A transaction id
that was seen before is no error here: the event is counted, once.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from starlette.responses import Response

from unimeter.instants import format_ns
from unimeter.keys import Scope
from unimeter.server.web.answers import JSON
from unimeter.server.web.call import Call
from unimeter.server.web.compatible.amounts import Refused, checked, exact_json, moment
from unimeter.server.web.compatible.arrivals import Receipt, receive
from unimeter.server.web.compatible.drafts import Item, Shape
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.problems import POSITION, Problem

ACCOUNTS: Final = ("external_subscription_id", "external_customer_id")
SHAPE: Final = Shape("lago", ACCOUNTS, ("transaction_id",), "timestamp", ("properties",))
UNPROCESSABLE: Final = 422

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_encode = msgspec.json.Encoder(decimal_format="number").encode


class LagoEvent(msgspec.Struct):
    """One event as Lago's clients send it."""

    transaction_id: _Text
    code: _Text
    external_subscription_id: str | None = None
    external_customer_id: str | None = None
    timestamp: Any = None  # Unix seconds, a number or its digits, or RFC 3339
    precise_total_amount_cents: Any = None
    properties: dict[str, Any] | None = None


class LagoBody(msgspec.Struct):
    """The body with one event."""

    event: LagoEvent


class LagoBatch(msgspec.Struct):
    """The body with several."""

    events: list[LagoEvent]


async def one(call: Call, sent: Any) -> Response:
    """Store one event and give it back."""
    try:
        event: LagoEvent = checked(sent, LagoBody).event
        receipt = await receive(call, SHAPE, [Item(0, event.code, sent["event"])])
        if receipt.refusals:
            details = _by_field(receipt)[0]
            raise Problem(UNPROCESSABLE, "refused", receipt.summary(), more={"details": details})
        return _answer({"event": _echo(event, receipt, 0)}, receipt)
    except Problem as problem:
        return failure(problem)


async def batch(call: Call) -> Response:
    """Store several events and give them back."""
    sent = exact_json(await call.tree_body())
    events: list[LagoEvent] = checked(sent, LagoBatch).events
    items = [Item(at, event.code, sent["events"][at]) for at, event in enumerate(events)]
    receipt = await receive(call, SHAPE, items)
    if receipt.refusals:
        found = {str(index): details for index, details in _by_field(receipt).items()}
        more = {"details": found, "unimeter": receipt.body()}
        raise Problem(UNPROCESSABLE, "refused", receipt.summary(), more=more)
    body = {"events": [_echo(event, receipt, at) for at, event in enumerate(events)]}
    return _answer(body, receipt)


def _answer(body: dict[str, Any], receipt: Receipt) -> Response:
    try:
        data = _encode(body)
    except RecursionError:
        # It was read and stored, so it is confirmed; only the echo of such a thing is too much.
        data = b"{}"
    return Response(data, 200, {POSITION: str(receipt.position)}, JSON)


def _echo(event: LagoEvent, receipt: Receipt, index: int) -> dict[str, Any]:
    """The event as Lago gives it back."""
    try:
        ns = receipt.now_ns if event.timestamp is None else moment(event.timestamp, "timestamp")
    except Refused:  # the mapping takes the time from elsewhere
        ns = receipt.now_ns
    return {
        "lago_id": None,
        "lago_customer_id": None,
        "lago_subscription_id": None,
        "transaction_id": event.transaction_id,
        "external_subscription_id": event.external_subscription_id or "",
        "external_customer_id": event.external_customer_id,
        "code": event.code,
        "timestamp": format_ns(ns),
        "precise_total_amount_cents": event.precise_total_amount_cents,
        "properties": event.properties or {},
        "created_at": format_ns(receipt.now_ns),
        "unimeter": {"outcome": receipt.outcomes[index], "position": receipt.position},
    }


def _by_field(receipt: Receipt) -> dict[int, dict[str, list[str]]]:
    """Reasons by the event's index and the field that is wrong."""
    found: dict[int, dict[str, list[str]]] = {}
    for refusal in receipt.refusals:
        name = refusal["field"].rpartition(".")[2] or "code"
        found.setdefault(refusal["index"], {}).setdefault(name, []).append(refusal["reason"])
    return found


def failure(problem: Problem) -> Response:
    """A problem in the words that Lago's clients read."""
    if problem.status not in (400, UNPROCESSABLE):
        return problem.response()
    more = dict(problem.more)
    details = more.pop("details", None) or {
        fault.path.removeprefix("$.") or "body": [fault.reason] for fault in problem.faults
    }
    body = {
        "status": UNPROCESSABLE,
        "error": "Unprocessable Entity",
        "code": "validation_errors",
        "error_details": details,
        "detail": problem.detail,
    }
    return Response(_encode(body | more), UNPROCESSABLE, problem.headers, JSON)


_EVENT: Final = {
    "type": "object",
    "required": ["transaction_id", "code", "timestamp", "unimeter"],
    "properties": {
        "transaction_id": {"type": "string"},
        "external_subscription_id": {"type": "string"},
        "code": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "unimeter": {"type": "object", "description": "the outcome and the log position"},
    },
}
ONE_ANSWER: Final = {"type": "object", "properties": {"event": _EVENT}}
FAILURE: Final = {
    "type": "object",
    "required": ["status", "error", "code", "error_details"],
    "properties": {
        "status": {"type": "integer"},
        "error": {"type": "string"},
        "code": {"type": "string"},
        "error_details": {"type": "object"},
    },
}
MANY_ANSWER: Final = {
    "type": "object",
    "properties": {"events": {"type": "array", "items": _EVENT}},
}

ENDPOINTS = [
    Endpoint(
        "POST",
        "/api/v1/events/batch",
        batch,
        Scope.INGEST,
        "Send events as to Lago",
        "Lago's batch. Refused events are named in a 422; the others of the batch are stored.",
        "compatible",
        body={JSON: LagoBatch},
        answers={200: MANY_ANSWER, 413: None, 415: None, 422: FAILURE},
        failure=failure,
    ),
]
