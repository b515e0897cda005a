"""POST /v1/events: one event, an array, or a stream of lines; an answer for each.

Owns which content type is read by whom. A JSON body is stored whole or not at all as far as its
form goes: one event that is none, and nothing is stored. What the meter refuses (an unknown
metric, a time in 1970) is refused event by event, and the others are counted.

    application/json            one, many            -> outcomes in order
    application/x-ndjson        as many as you like  -> counts, and the first refusals
    text/csv                    as many as you like  -> the same
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from unimeter import limits
from unimeter.errors import UnimeterError
from unimeter.keys import Scope
from unimeter.server.web.answers import answer
from unimeter.server.web.api.ingest_json import BatchBody, EventBody, columns_of, decode_events
from unimeter.server.web.api.ingest_lines import take_csv, take_ndjson
from unimeter.server.web.api.keyed import PARAM, keyed
from unimeter.server.web.api.store import Tally, check_rights, store, store_part
from unimeter.server.web.call import Call
from unimeter.server.web.compatible.cloudevents import (
    BATCH,
    STRUCTURED,
    CloudEvent,
    cloud_events,
    is_cloud_event,
)
from unimeter.server.web.endpoint import Endpoint, Handler
from unimeter.server.web.problems import Problem
from unimeter.wire import v2


async def events(call: Call) -> Response:
    """Store what the body holds."""
    if is_cloud_event(call):
        return await cloud_events(call)
    kind = call.request.headers.get("content-type", "application/json")
    handler = TAKERS.get(kind.partition(";")[0].strip().lower())
    if handler is None:
        known = ", ".join(TAKERS)
        text = f"content-type {kind[:80]!r} is not read here; send one of: {known}"
        raise Problem(415, "unsupported", text)
    return await handler(call)


async def take_json(call: Call) -> Response:
    """One event, or an array of them, or {"events": [...]}."""
    ids = keyed(call)
    found, root = decode_events(await call.body())
    if len(found) <= limits.EVENTS_PER_BATCH_MAX:
        tally = await store(call, ids.named(columns_of(found, root)))
        return answer(tally.body(), tally.position)
    return await _take_many(call, found, root)


async def _take_many(call: Call, found: list[EventBody], root: str) -> Response:
    """More than one batch: in between, others have their turn; the form of all comes first."""
    ids = keyed(call)
    parts: list[v2.Columns] = []
    for start in range(0, len(found), limits.EVENTS_PER_BATCH_MAX):
        some = found[start : start + limits.EVENTS_PER_BATCH_MAX]
        parts.append(ids.named(columns_of(some, root, start), start))
        check_rights(call.principal, parts[-1])
        await asyncio.sleep(0)
    tally = Tally()
    for part in parts:
        try:
            await store_part(call, part, tally)
        except (UnimeterError, Problem) as error:
            raise tally.failed(error) from error
    return answer(tally.body(), tally.position)


async def _take_ndjson(call: Call) -> Response:
    stream = await take_ndjson(call, keyed(call))
    return answer(stream.body(), stream.tally.position)


async def _take_csv(call: Call) -> Response:
    stream = await take_csv(call, keyed(call))
    return answer(stream.body(), stream.tally.position)


TAKERS: Final[dict[str, Handler]] = {
    "application/json": take_json,
    "application/x-ndjson": _take_ndjson,
    "application/ndjson": _take_ndjson,
    "application/jsonl": _take_ndjson,
    "text/csv": _take_csv,
}
"""By content type."""

_COUNTS: Final = {
    "stored": {"type": "integer", "description": "events that are counted now"},
    "duplicates": {"type": "integer", "description": "events that were counted before: a success"},
    "refused": {"type": "integer", "description": "events that are not counted"},
    "position": {"type": "integer", "description": "the log position that holds them"},
    "outcomes": {
        "type": "array",
        "items": {"type": "string"},
        "description": "one for each event, in order: stored, duplicate, or why it was refused",
    },
    "lines": {"type": "integer", "description": "of a stream: lines that were taken"},
    "refusals": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "index": {"type": "integer"},
                "outcome": {"type": "string"},
                "reason": {"type": "string"},
                "account": {},
                "metric": {"type": "string"},
                "id": {"type": ["string", "null"]},
            },
        },
    },
}
STORED: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["stored", "duplicates", "refused", "position", "refusals"],
    "properties": _COUNTS,
}
_TEXT: Final = {"type": "string"}

ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/events",
        events,
        Scope.INGEST,
        "Send events",
        'One event, an array of them or `{"events": [...]}` as JSON; or a stream of any length '
        "as NDJSON or CSV; or CloudEvents (structured, batch, or binary with ce-* headers). The "
        "answer comes when they are on the disks of a majority. A duplicate is a success. An "
        "event that the meter refuses is named in `refusals`; the others count.",
        "events",
        (PARAM,),
        {
            "application/json": {"anyOf": [EventBody, list[EventBody], BatchBody]},
            "application/x-ndjson": _TEXT,
            "text/csv": _TEXT,
            STRUCTURED: CloudEvent,
            BATCH: list[CloudEvent],
        },
        {200: STORED, 408: None, 413: None, 415: None},
    ),
]
