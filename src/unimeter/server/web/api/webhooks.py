"""Webhooks by HTTP: where alerts are sent, how far that has come, and the levers.

    GET    /v1/webhooks                   all of them, without their secrets
    POST   /v1/webhooks                   make one; the answer is the only place with its secret
    GET    /v1/webhooks/{id}
    DELETE /v1/webhooks/{id}
    POST   /v1/webhooks/{id}/pause        send nothing until it is resumed
    POST   /v1/webhooks/{id}/resume       go on where it stood; what failed is tried at once
    POST   /v1/webhooks/{id}/replay       begin again after a position
    POST   /v1/webhooks/{id}/test         send a signed message now; what came of it
    GET    /v1/webhooks/{id}/deliveries   how far, and what is tried again

Reads show the state of the log as this node has applied it; deliveries are made by the node
that leads. A test is sent from the node that is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta
from starlette.responses import Response

from unimeter import limits
from unimeter.accounts import account_of_json
from unimeter.control import POSITION_MAX, Webhook, new_webhook
from unimeter.engine.query import alert_at
from unimeter.keys import Scope
from unimeter.server.node import Node
from unimeter.server.web.answers import answer, rows
from unimeter.server.web.api.params import FORMAT, READ, read
from unimeter.server.web.api.schemas import AccountName, MetricCode
from unimeter.server.web.api.times import time_text
from unimeter.server.web.call import Call, decode
from unimeter.server.web.endpoint import Endpoint, Param
from unimeter.server.web.problems import bad
from unimeter.wire import messages as m

COLUMNS = (
    "id", "url", "state", "paused_reason", "accounts", "metrics", "start", "created",
    "through", "lag", "retrying", "failures", "error",
)  # fmt: skip
_URL_PATTERN = r"^https?://[^\s/?#@\\\x00-\x20\x7f]+([/?#][^\s\x00-\x20\x7f]*)?$"
_SECRET_PATTERN = r"^whsec_([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
LAG_LOOKED_AT = limits.WEBHOOK_SKIPPED_MAX + 1000  # a few milliseconds' work
RETRYING_COLUMNS = ("position", "attempts", "next")


class WebhookBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a new webhook should be."""

    url: Annotated[
        str, Meta(min_length=8, max_length=limits.WEBHOOK_URL_BYTES_MAX, pattern=_URL_PATTERN)
    ]
    accounts: Annotated[list[AccountName], Meta(max_length=limits.WEBHOOK_FILTERS_MAX)] = []
    metrics: Annotated[list[MetricCode], Meta(max_length=limits.WEBHOOK_FILTERS_MAX)] = []
    secret: Annotated[str, Meta(pattern=_SECRET_PATTERN)] | None = None
    after: Annotated[int, Meta(ge=0, le=POSITION_MAX)] | None = None


class PauseBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why."""

    reason: Annotated[str, Meta(max_length=limits.WEBHOOK_REASON_CHARACTERS_MAX)] = ""


class ReplayBody(msgspec.Struct, forbid_unknown_fields=True):
    """From where."""

    after: Annotated[int, Meta(ge=0, le=POSITION_MAX)]


# --- the webhooks --------------------------------------------------------------------


async def list_webhooks(call: Call) -> Response:
    """GET /v1/webhooks."""
    response, position = await call.site.gateway.ask(m.WebhookList(**read(call)), call.principal)
    assert isinstance(response, m.WebhookListReply)
    node = call.site.server.node
    lines = [_cells(node, webhook) for webhook in response.webhooks]
    return rows(call, COLUMNS, lines, position=position)


async def make_webhook(call: Call) -> Response:
    """POST /v1/webhooks."""
    body = await call.json(WebhookBody)
    check_url(body.url)
    entropy = call.site.server.platform.entropy
    accounts = [account_of_json(one) for one in body.accounts]
    record = new_webhook(entropy, body.url, accounts, body.metrics, body.secret, body.after)
    response, position = await call.site.gateway.ask(m.WebhookPut(record), call.principal)
    assert isinstance(response, m.WebhookPutReply)
    shown = _object(call.site.server.node, response.webhook)
    headers = {"Cache-Control": "no-store", "Location": f"/v1/webhooks/{record.id}"}
    body_shown = {"secret": response.webhook.secret, **shown}
    return answer(body_shown, position, status=201, headers=headers)


def check_url(url: str) -> None:
    """Refuse what no request could be sent to; the log's own rules come on top."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise bad("$.url", "is none to send to", "http:// or https://, a host and a path")


async def show_webhook(call: Call) -> Response:
    """GET /v1/webhooks/{id}."""
    node, webhook, position = await _find(call)
    return answer(_object(node, webhook), position)


async def delete_webhook(call: Call) -> Response:
    """DELETE /v1/webhooks/{id}."""
    request = m.WebhookDelete(call.path("id"))
    _, position = await call.site.gateway.ask(request, call.principal)
    return answer(None, position)


async def _find(call: Call) -> tuple[Node, Webhook, int]:
    """(this node, the webhook that the path names, position)."""
    _, position = await call.site.gateway.ask(m.WebhookList(**read(call)), call.principal)
    node = call.site.server.node
    return node, call.site.server.clients.webhooks.find(call.path("id")), position


def _object(node: Node, webhook: Webhook) -> dict[str, Any]:
    return dict(zip(COLUMNS, _cells(node, webhook), strict=True))


def lag_of(node: Node, webhook: Webhook) -> int:
    """Alerts that the webhook wants and that are not known to be delivered.

    What its filter leaves out is passed over without an entry of the log for each, so it is not
    counted. Beyond LAG_LOOKED_AT positions every alert counts: then it is far behind anyway.
    """
    record, delivery = webhook.record, webhook.delivery
    above = max(0, node.last_alert - delivery.through)
    if not record.accounts and not record.metrics:
        return above - len(delivery.done)
    done, looked_at = set(delivery.done), min(above, LAG_LOOKED_AT)
    waiting = above - looked_at
    with node.lock:
        for position in range(delivery.through + 1, delivery.through + looked_at + 1):
            line = alert_at(node.machine, position)
            waiting += position not in done and record.wants(line.account, line.metric_code)
    return waiting


def _cells(node: Node, webhook: Webhook) -> list[Any]:
    record, delivery = webhook.record, webhook.delivery
    return [
        record.id,
        record.url,
        record.state,
        record.paused_reason,
        list(record.accounts),
        list(record.metrics),
        record.start,
        time_text(record.created_ns),
        delivery.through,
        lag_of(node, webhook),
        len(delivery.attempts),
        delivery.failures,
        delivery.error,
    ]


# --- the levers ------------------------------------------------------------------------


async def _control(call: Call, request: m.WebhookControl) -> Response:
    _, position = await call.site.gateway.ask(request, call.principal)
    return answer(_object(call.site.server.node, (await _find(call))[1]), position)


async def pause(call: Call) -> Response:
    """POST /v1/webhooks/{id}/pause."""
    data = await call.body()
    body: PauseBody = decode(data, PauseBody) if data else PauseBody()
    action = m.WebhookAction.PAUSE
    return await _control(call, m.WebhookControl(call.path("id"), action, reason=body.reason))


async def resume(call: Call) -> Response:
    """POST /v1/webhooks/{id}/resume."""
    return await _control(call, m.WebhookControl(call.path("id"), m.WebhookAction.RESUME))


async def replay(call: Call) -> Response:
    """POST /v1/webhooks/{id}/replay."""
    body = await call.json(ReplayBody)
    action = m.WebhookAction.REPLAY
    return await _control(call, m.WebhookControl(call.path("id"), action, after=body.after))


async def test(call: Call) -> Response:
    """POST /v1/webhooks/{id}/test."""
    result = await call.site.server.clients.webhooks.send_trial(call.path("id"))
    return answer(
        {
            "delivered": not result.error,
            "status": result.status or None,
            "error": result.error or None,
        }
    )


async def deliveries(call: Call) -> Response:
    """GET /v1/webhooks/{id}/deliveries."""
    node, webhook, position = await _find(call)
    delivery = webhook.delivery
    lines = [
        (position, attempts, time_text(next_ns))
        for position, (attempts, next_ns) in sorted(delivery.attempts.items())
    ]
    more = {
        "webhook": webhook.id,
        "state": webhook.record.state,
        "paused_reason": webhook.record.paused_reason,
        "through": delivery.through,
        "last_alert": node.last_alert,
        "lag": lag_of(node, webhook),
        "delivered_ahead": len(delivery.done),
        "failures": delivery.failures,
        "error": delivery.error,
        "replays": delivery.epoch,
        "updated": time_text(delivery.updated_ns),
    }
    return rows(call, RETRYING_COLUMNS, lines, position=position, more=more)


# --- the list ----------------------------------------------------------------------------

_TIME = {"type": ["string", "null"], "format": "date-time"}
_COUNT = {"type": "integer", "minimum": 0}
_SHAPE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "url": {"type": "string"},
        "state": {"type": "string", "enum": ["active", "paused"]},
        "paused_reason": {"type": "string"},
        "accounts": {"type": "array", "items": {"type": ["integer", "string"]}},
        "metrics": {"type": "array", "items": {"type": "string"}},
        "start": _COUNT,
        "created": _TIME,
        "through": _COUNT,
        "lag": _COUNT,
        "retrying": _COUNT,
        "failures": _COUNT,
        "error": {"type": "string"},
    },
    "required": list(COLUMNS),
}
_MADE: dict[str, Any] = {
    **_SHAPE,
    "properties": {"secret": {"type": "string"}, **_SHAPE["properties"]},
    "required": ["secret", *COLUMNS],
}
_LISTED: dict[str, Any] = {
    "type": "object",
    "properties": {"rows": {"type": "array", "items": _SHAPE}, "position": _COUNT},
    "required": ["rows"],
}
_DELIVERIES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"position": _COUNT, "attempts": _COUNT, "next": _TIME},
                "required": list(RETRYING_COLUMNS),
            },
        },
        "webhook": {"type": "string"},
        "state": {"type": "string", "enum": ["active", "paused"]},
        "through": _COUNT,
        "last_alert": _COUNT,
        "lag": _COUNT,
        "delivered_ahead": _COUNT,
        "failures": _COUNT,
        "error": {"type": "string"},
        "replays": _COUNT,
        "updated": _TIME,
    },
    "required": ["rows", "webhook", "state", "through", "last_alert", "lag"],
}
_TESTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "delivered": {"type": "boolean"},
        "status": {"type": ["integer", "null"]},
        "error": {"type": ["string", "null"]},
    },
    "required": ["delivered", "status", "error"],
}
_ID_SHAPE = {"type": "string", "pattern": "^wh_[a-z2-7]{12}$"}
_ID = Param(
    "id", "The webhook's id.", _ID_SHAPE, where="path", required=True, example="wh_4fk2p7x2ab3d"
)
_PATH = "/v1/webhooks/{id}"


def _route(
    method: str,
    path: str,
    handler: Callable[[Call], Awaitable[Response]],
    summary: str,
    answers: dict[int, Any],
    body: Any = None,
    params: tuple[Param, ...] = (),
) -> Endpoint:
    return Endpoint(
        method,
        path,
        handler,
        Scope.ADMIN,
        summary,
        tag="webhooks",
        params=(_ID, *params) if "{id}" in path else params,
        body={"application/json": body} if body is not None else {},
        answers=answers | ({404: None} if "{id}" in path else {}),
    )


ENDPOINTS = [
    _route("GET", "/v1/webhooks", list_webhooks, "List webhooks", {200: _LISTED},
           params=(FORMAT, *READ)),
    _route("POST", "/v1/webhooks", make_webhook, "Make a webhook", {201: _MADE, 409: None},
           WebhookBody),
    _route("GET", _PATH, show_webhook, "One webhook", {200: _SHAPE}, params=READ),
    _route("DELETE", _PATH, delete_webhook, "Delete a webhook", {204: None}),
    _route("POST", f"{_PATH}/pause", pause, "Send nothing for a while", {200: _SHAPE}, PauseBody),
    _route("POST", f"{_PATH}/resume", resume, "Go on sending", {200: _SHAPE}),
    _route("POST", f"{_PATH}/replay", replay, "Send again after a position", {200: _SHAPE},
           ReplayBody),
    _route("POST", f"{_PATH}/test", test, "Send a signed test message", {200: _TESTED}),
    _route("GET", f"{_PATH}/deliveries", deliveries, "How far it has come", {200: _DELIVERIES},
           params=(FORMAT, *READ)),
]  # fmt: skip
