"""The OpenAPI document, made from the list of endpoints: what is served is what is described.

Owns the way from an `Endpoint` to OpenAPI 3.1: types of msgspec become components, JSON schemas
stand as they are (and may hold types anywhere), and what every route can answer is added once. A
status that is in neither is a defect that `tests/server/web/test_schemathesis.py` looks for.

    Endpoint, Endpoint, ...  ─>  {"openapi": "3.1.0", "paths": ..., "components": ...}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.responses import Response

from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint, Param
from unimeter.server.web.problems import CONTENT_TYPE, POSITION
from unimeter.version import VERSION

PROBLEM: Final = "Problem"
_REF: Final = "#/components/schemas/{name}"
_CONVERTER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_JSON: Final = "application/json"
_ROWS: Final = ("text/csv", "application/x-ndjson")
_OF_ALL: Final = (400, 401, 403, 429, 503, 504)  # of every route that asks who it is
_OF_BODIES: Final = (408, 413, 415)  # of every route that takes a body
_OF_READS: Final = (412,)  # of every route that takes a position

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What went wrong (RFC 9457). `errors` says where, and what would be right.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:unimeter:problem:invalid-input"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "reason"],
                "properties": {
                    "path": {"type": "string", "description": "$[3].value, line 17, a parameter"},
                    "reason": {"type": "string"},
                    "expected": {"type": "string"},
                    "index": {"type": "integer"},
                    "field": {"type": "string"},
                },
            },
        },
    },
}
_SECURITY: Final[dict[str, Any]] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, um_<id>_<secret>. While there is none, nobody is asked.",
    },
    "session": {"type": "apiKey", "in": "cookie", "name": "unimeter_session"},
    "portal": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "A signed, expiring token that reads one account.",
    },
}
_INTRODUCTION: Final = (
    "The HTTP side of a node: everything that the binary protocol answers, with the same "
    "guarantees. An acknowledged event is on the disks of a majority.\n\n"
    "Integers beyond 2^53 - 1 are written as strings of digits. Times are RFC 3339 in UTC. Lists "
    "come as JSON, CSV or NDJSON (`format`, or `Accept`). In a CSV cell a text that a spreadsheet "
    "would take for a formula has an apostrophe in front. Every refusal is "
    "application/problem+json."
)


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these endpoints."""
    listed = [endpoint for endpoint in endpoints if endpoint.is_listed]
    kinds = _Kinds()
    for endpoint in listed:
        kinds.note(list(endpoint.body.values()))
        kinds.note(list(endpoint.answers.values()))
    kinds.settle()
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in listed:
        at = paths.setdefault(shown_path(endpoint), {})
        at[endpoint.method.lower()] = _operation(endpoint, kinds)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Unimeter",
            "version": VERSION,
            "summary": "Metering of usage events, exact and durable.",
            "description": _INTRODUCTION,
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": kinds.components | {PROBLEM: _PROBLEM},
            "securitySchemes": _SECURITY,
        },
    }


def shown_path(endpoint: Endpoint) -> str:
    """The path in OpenAPI's words."""
    return _CONVERTER.sub(r"{\1}", endpoint.path)


class _Kinds:
    """The msgspec types that endpoints name, and their schemas."""

    def __init__(self) -> None:
        self._found: list[Any] = []
        self._schemas: dict[int, Any] = {}
        self.components: dict[str, Any] = {}

    def note(self, given: Any) -> None:
        """Remember every type inside `given`."""
        if isinstance(given, Mapping):
            for value in given.values():
                self.note(value)
        elif isinstance(given, list | tuple):
            for value in given:
                self.note(value)
        elif not isinstance(given, str | int | float | None):
            self._found.append(given)

    def settle(self) -> None:
        """Make the schemas of all that were noted, in one go: names are then unique."""
        schemas, self.components = msgspec.json.schema_components(self._found, ref_template=_REF)
        self._schemas = {id(kind): one for kind, one in zip(self._found, schemas, strict=True)}

    def schema(self, given: Any) -> Any:
        """`given` with a schema in the place of every type."""
        if isinstance(given, Mapping):
            return {key: self.schema(value) for key, value in given.items()}
        if isinstance(given, list | tuple):
            return [self.schema(value) for value in given]
        return self._schemas.get(id(given), given)


def _operation(endpoint: Endpoint, kinds: _Kinds) -> dict[str, Any]:
    words = re.sub(r"\W+", "_", shown_path(endpoint)).strip("_")
    found: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()}_{words}",
        "summary": endpoint.summary,
        "tags": [endpoint.tag or "more"],
        "parameters": [_parameter(one) for one in parameters(endpoint)],
        "responses": _responses(endpoint, kinds),
        "security": _security(endpoint),
    }
    if endpoint.description:
        found["description"] = endpoint.description
    if endpoint.body:
        content = {kind: {"schema": kinds.schema(one)} for kind, one in endpoint.body.items()}
        found["requestBody"] = {"required": True, "content": content}
    if endpoint.scope is not None:
        found["x-scope"] = str(endpoint.scope)
    return found


def parameters(endpoint: Endpoint) -> list[Param]:
    """The parameters of an endpoint; those of its path are there even if nobody described them."""
    described = {one.name for one in endpoint.params}
    names = [name for name in _CONVERTER.findall(endpoint.path) if name not in described]
    return [*endpoint.params, *(Param(name, "", where="path", required=True) for name in names)]


def _parameter(one: Param) -> dict[str, Any]:
    found: dict[str, Any] = {"name": one.name, "in": one.where, "schema": dict(one.schema)}
    if one.required or one.where == "path":
        found["required"] = True
    if one.doc:
        found["description"] = one.doc
    if one.example is not None:
        found["example"] = one.example
    return found


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]]:
    if endpoint.scope is None:
        return []
    found: list[dict[str, list[str]]] = [{"key": []}, {"session": []}]
    return [*found, {"portal": []}] if endpoint.takes_portal else found


def _responses(endpoint: Endpoint, kinds: _Kinds) -> dict[str, Any]:
    statuses = {status: kinds.schema(kind) for status, kind in endpoint.answers.items()}
    takes_position = any(one.name == POSITION for one in endpoint.params)
    common: tuple[int, ...] = _OF_ALL if endpoint.scope is not None else (400, 503)
    common += _OF_BODIES if endpoint.body else ()
    common += _OF_READS if takes_position else ()
    for status in common:
        statuses.setdefault(status, endpoint.failure_shape)
    if not any(status < 400 for status in statuses):
        statuses[200] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    gives_rows = any(one.name == "format" for one in endpoint.params)
    return {
        str(status): _response(status, statuses[status], gives_rows) for status in sorted(statuses)
    }


def _response(status: int, schema: Any, gives_rows: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(schema, dict) and "content" in schema:
        return found | schema
    if status >= 400:
        given = schema or {"$ref": _REF.format(name=PROBLEM)}
        kind = CONTENT_TYPE if schema is None else _JSON
        return found | {"content": {kind: {"schema": given}}}
    found["headers"] = {
        POSITION: {
            "description": "The log position that the answer reflects.",
            "schema": {"type": "integer"},
        }
    }
    if schema is not None and status != HTTPStatus.NO_CONTENT:
        content: dict[str, Any] = {_JSON: {"schema": schema}}
        if gives_rows:
            content |= {kind: {"schema": {"type": "string"}} for kind in _ROWS}
        found["content"] = content
    return found


async def _openapi(call: Call) -> Response:
    return Response(call.site.openapi(), 200, {"Cache-Control": "no-cache"}, _JSON)


ENDPOINTS = [
    Endpoint(
        "GET",
        "/openapi.json",
        _openapi,
        None,
        "This description",
        tag="about",
        answers={200: {"type": "object"}},
    ),
]
