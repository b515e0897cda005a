"""OpenMeter's ``POST /api/v1/events``, and Lago's on the same path.

Owns the path that both products chose, and tells them apart by content: Lago wraps its event in
``{"event": {...}}``, OpenMeter sends CloudEvents, one or an array, under three content types.

OpenMeter answers 204 without a body, so there is no room to say that one of a batch was refused.
Then the answer is a 400 in its own error form (problem+json), which names each refused
event and says that the others are stored. Sending the whole batch again is safe: those are
duplicates. Without refusals it is 204, whether events were new or not.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from unimeter.keys import Scope
from unimeter.server.web.answers import JSON, answer
from unimeter.server.web.call import Call
from unimeter.server.web.compatible import lago
from unimeter.server.web.compatible.amounts import exact_json
from unimeter.server.web.compatible.arrivals import receive
from unimeter.server.web.compatible.cloudevents import (
    BATCH,
    SHAPE,
    STRUCTURED,
    CloudEvent,
    items_of,
    kind_of,
)
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.problems import Problem

KINDS: Final = (JSON, STRUCTURED, BATCH)


async def events(call: Call) -> Response:
    """CloudEvents of OpenMeter's clients, or one event of Lago's."""
    kind = kind_of(call)
    if kind not in KINDS:
        text = f"content-type {kind[:60]!r} is not read here; send one of: {', '.join(KINDS)}"
        raise Problem(415, "unsupported", text)
    sent = exact_json(await call.tree_body())
    if kind == JSON and is_lago(sent):
        return await lago.one(call, sent)
    receipt = await receive(call, SHAPE, items_of(sent))
    if receipt.refusals:
        raise receipt.problem("$[{}]" if isinstance(sent, list) else "$")
    return answer(None, receipt.position)


def is_lago(sent: Any) -> bool:
    """Whether the body is an event of Lago's."""
    return isinstance(sent, dict) and "event" in sent and "specversion" not in sent


ENDPOINTS = [
    Endpoint(
        "POST",
        "/api/v1/events",
        events,
        Scope.INGEST,
        "Send events as to OpenMeter or Lago",
        "CloudEvents as OpenMeter's clients send them (204), or `{\"event\": {...}}` as Lago's do "
        "(200). What maps and what does not is in the guide to migration.",
        "compatible",
        body={
            STRUCTURED: CloudEvent,
            BATCH: list[CloudEvent],
            JSON: {"anyOf": [CloudEvent, list[CloudEvent], lago.LagoBody]},
        },
        answers={204: None, 200: lago.ONE_ANSWER, 413: None, 415: None, 422: lago.FAILURE},
    ),
    *lago.ENDPOINTS,
]
