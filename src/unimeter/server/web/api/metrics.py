"""Metrics by HTTP: list, show, create, change, delete.

`POST /v1/metrics` creates; one that exists exactly so is left as it is (200 instead of 201),
because deployment scripts say it each time. `PUT` creates or changes in the ways that keep
history meaningful; the node's refusal is passed on word for word. Changes go to the leader by
way of the gateway, which says on whose behalf, and are answered once they are on a majority.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from starlette.responses import Response

from unimeter import limits
from unimeter.errors import NotFoundError
from unimeter.keys import Scope
from unimeter.server.web.answers import answer, cursor_of, cursor_text, rows
from unimeter.server.web.api import params
from unimeter.server.web.api.schemas import (
    METRIC_COLUMNS,
    MetricBody,
    metric_json,
    metric_of,
    no_metric,
    same_definition,
)
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.problems import Problem, bad
from unimeter.types import MetricSchema
from unimeter.wire.messages import MetricDelete, MetricList, MetricListReply, MetricPut, PutMode

BODY_BYTES_MAX: Final = 1024 * 1024  # 8 dimensions of 1,024 values of 64 bytes each


async def list_metrics(call: Call) -> Response:
    """Every metric that the caller may see."""
    request = MetricList(cursor_of(call), params.limit(call), **params.read(call))
    reply, position = await call.site.gateway.ask(request, call.principal)
    assert isinstance(reply, MetricListReply)
    lines = [tuple(metric_json(one).values()) for one in reply.metrics if _sees(call, one.code)]
    cursor = cursor_text(reply.cursor)
    return rows(call, METRIC_COLUMNS, lines, position=position, cursor=cursor)


def _sees(call: Call, code: str) -> bool:
    metrics = call.principal.metrics
    return metrics is None or code in metrics


async def show(call: Call) -> Response:
    """One metric."""
    code = call.path("code")
    if not _sees(call, code):
        call.principal.check_sees(call.principal.account, code)
    schema, position = await find(call, code)
    return answer(metric_json(schema), position)


async def find(call: Call, code: str) -> tuple[MetricSchema, int]:
    """A metric's definition at the position that the request asks for; a 404 if there is none."""
    request = MetricList(limit=1, **params.read(call))
    _, position = await call.site.gateway.ask(request, call.principal)
    return schema_of(call, code), position


def schema_of(call: Call, code: str) -> MetricSchema:
    """A metric's definition as this node knows it; a 404 if there is none."""
    node = call.site.server.node
    with node.lock:
        try:
            found: MetricSchema = node.machine.catalog.find(code).schema
        except NotFoundError:
            raise no_metric(code) from None
    return found


async def create(call: Call) -> Response:
    """Create a metric."""
    schema = metric_of(await call.json(MetricBody))
    existed = _is_there(call, schema)
    position = await _put(call, schema, PutMode.CREATE)
    place = {"Location": "/v1/metrics/" + quote(schema.code, safe="")}
    body = metric_json(schema)
    return answer(body, position, status=200 if existed else 201, headers=place)


def _is_there(call: Call, schema: MetricSchema) -> bool:
    try:
        return same_definition(schema_of(call, schema.code), schema)
    except Problem:
        return False


async def put(call: Call) -> Response:
    """Create a metric, or change it in a way that keeps its history meaningful."""
    code = call.path("code")
    body = await call.json(MetricBody)
    if body.code != code:
        raise bad("$.code", f"is {body.code[:80]!r}", f"{code[:80]!r}, as in the path")
    schema = metric_of(body)
    position = await _put(call, schema, PutMode.PUT)
    return answer(metric_json(schema), position)


async def _put(call: Call, schema: MetricSchema, mode: PutMode) -> int:
    _, position = await call.site.gateway.ask(MetricPut(schema, mode), call.principal)
    return position


async def delete(call: Call) -> Response:
    """Delete a metric and its totals."""
    request = MetricDelete(call.path("code"))
    _, position = await call.site.gateway.ask(request, call.principal)
    return answer(None, position)


_JSON: Final[dict[str, Any]] = {"application/json": MetricBody}
_TAG: Final = "metrics"
_METRICS: Final = {
    "type": "object",
    "required": ["rows"],
    "properties": {
        "rows": {"type": "array", "items": MetricBody},
        "cursor": {"type": "string"},
        "position": {"type": "integer"},
    },
}

ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/metrics",
        list_metrics,
        Scope.READ,
        "List metrics",
        "In the order of their creation.",
        _TAG,
        (params.limit_param(limits.PAGE_ITEMS_MAX), *params.LIST),
        answers={200: _METRICS},
        takes_portal=True,
    ),
    Endpoint(
        "POST",
        "/v1/metrics",
        create,
        Scope.ADMIN,
        "Create a metric",
        "One that exists exactly so is left as it is (200).",
        _TAG,
        body=_JSON,
        answers={200: MetricBody, 201: MetricBody, 409: None},
    ),
    Endpoint(
        "GET",
        "/v1/metrics/{code:path}",
        show,
        Scope.READ,
        "Show a metric",
        "",
        _TAG,
        (params.CODE_PATH, *params.READ),
        answers={200: MetricBody, 404: None},
        takes_portal=True,
    ),
    Endpoint(
        "PUT",
        "/v1/metrics/{code:path}",
        put,
        Scope.ADMIN,
        "Create or change a metric",
        "Thresholds may be added, values of a dimension appended, the field's name changed.",
        _TAG,
        (params.CODE_PATH,),
        _JSON,
        {200: MetricBody, 409: None},
    ),
    Endpoint(
        "DELETE",
        "/v1/metrics/{code:path}",
        delete,
        Scope.ADMIN,
        "Delete a metric and its totals",
        "Its code is free afterwards.",
        _TAG,
        (params.CODE_PATH,),
        answers={204: None, 404: None},
    ),
]
