"""POST /v1/metrics/dry-run: what a metric would have made of events that are stored.

Owns the request and the answer of `server.dry_run`. Whoever may read everything may try; it
stores nothing. One at a time: a trial is work of a second or two for one of two workers.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.responses import Response

from unimeter import limits
from unimeter.errors import InvalidInputError
from unimeter.instants import format_ns
from unimeter.keys import Scope
from unimeter.server.dry_run import Trial, Tried, prepare
from unimeter.server.web.alert_cells import alert_object
from unimeter.server.web.answers import answer
from unimeter.server.web.api.places import placed
from unimeter.server.web.api.schemas import NUMBERS, MetricBody, metric_json, metric_of, numbers
from unimeter.server.web.api.store import REASONS
from unimeter.server.web.api.times import instant_of
from unimeter.server.web.call import Call
from unimeter.server.web.endpoint import Endpoint
from unimeter.server.web.problems import Problem
from unimeter.types import MetricSchema, OperationType

EVENTS: Final = 10_000  # where the request names no number


class DryRunBody(msgspec.Struct, forbid_unknown_fields=True):
    """A definition and the events to try it on."""

    metric: MetricBody
    source: Annotated[
        str, Meta(description="whose events: a metric's code, or one that was refused as unknown")
    ] = ""
    events: Annotated[int, Meta(ge=1, le=limits.DRY_RUN_EVENTS_MAX)] = EVENTS
    start: str = ""
    end: str = ""


async def dry_run(call: Call) -> Response:
    """Try a definition."""
    body = await call.json(DryRunBody)
    call.principal.check_sees(None, None)
    schema = metric_of(body.metric, "$.metric")
    trial = Trial(
        schema,
        body.source or schema.code,
        body.events,
        instant_of(body.start, "$.start") if body.start else limits.TIMESTAMP_NS_MIN,
        instant_of(body.end, "$.end") if body.end else limits.TIMESTAMP_NS_MAX,
    )
    site = call.site
    if site.is_trying:
        raise Problem(429, "busy", "another dry run is under way", headers={"Retry-After": "1"})
    try:
        log = prepare(site.server.node, trial)
    except InvalidInputError as error:
        raise placed(call.request, error, "$.metric") from None
    future: asyncio.Future[Tried] = site.loop.create_future()

    def then(result: Any) -> None:
        site.is_trying = False
        if future.done():
            return  # whoever asked has gone
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    site.server.clients.aside(log.run, then)
    site.is_trying = True
    return answer(_shown(schema, trial, await future))


def _shown(schema: MetricSchema, trial: Trial, tried: Tried) -> dict[str, Any]:
    names = tuple(NUMBERS)
    return {
        "metric": metric_json(schema),
        "source": trial.source,
        "is_known": tried.is_known,
        "events": tried.events,
        "is_all": tried.is_all,
        "first": format_ns(tried.first_ns) if tried.events else None,
        "last": format_ns(tried.last_ns) if tried.events else None,
        "outcomes": tried.outcomes,
        "refusals": [
            {
                "timestamp": format_ns(row.timestamp_ns),
                "account": row.account,
                "value": row.value,
                "operation": OperationType(row.operation).name.lower(),
                "properties": row.properties,
                "outcome": outcome.name.lower(),
                "reason": REASONS[outcome.name.lower()],
            }
            for row, outcome in tried.refused
        ],
        "accounts": tried.accounts,
        "totals": [
            {"account": one.account_id, **dict(zip(names, numbers(one.value, schema), strict=True))}
            for one in tried.totals
        ],
        "groups": [
            {
                "account": account,
                "group": group,
                **dict(zip(names, numbers(value, schema), strict=True)),
            }
            for account, group, value in tried.groups
        ],
        "alert_count": tried.alert_count,
        "alerts": [alert_object(one) for one in tried.alerts],
    }


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/metrics/dry-run",
        dry_run,
        Scope.READ,
        "Try a metric on stored events",
        "Counts the newest events of a code as the proposed metric would, by the engine itself, "
        "and stores nothing: totals, refusals with their reasons, alerts that would have fired.",
        "metrics",
        body={"application/json": DryRunBody},
        answers={200: {"type": "object"}, 410: None, 413: None},
    ),
]
