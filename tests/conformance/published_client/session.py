"""One long session with the published client; prints what it saw as JSON.

Run as ``python -I -S session.py FOLDER HOST:PORT``: nothing but the standard library
and FOLDER, where pip put the client, can be imported. This project's own package has
the same import name and must stay out of reach, which is checked first. Nothing is
judged here: the tests beside this file do that.
"""

import asyncio
import importlib.metadata
import json
import sys
from datetime import datetime, timedelta, timezone

FOLDER, ADDRESS = sys.argv[1:3]
sys.path.insert(0, FOLDER)

import unimeter  # noqa: E402
from unimeter import (  # noqa: E402
    AggType,
    AlertThreshold,
    AsyncClient,
    DeliveryMode,
    DimensionFilter,
    Event,
    MetricSchema,
    OperationType,
    Period,
    PeriodType,
    current_month,
)

MARCH = Period(datetime(2026, 3, 1, tzinfo=timezone.utc), datetime(2026, 4, 1, tzinfo=timezone.utc))
NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
WAIT_SECONDS = 10


def value(total):
    return {
        "sum": total.sum,
        "count": total.count,
        "max": total.max,
        "last_value": total.last_value,
        "last_timestamp": total.last_timestamp,
        "alert_flags": total.alert_flags,
    }


def ingested(result):
    return [result.n_stored, result.n_duplicates, result.last_offset]


def alert(record):
    return {
        "node": record.node_addr,
        "offset": record.log_offset,
        "account": record.account_id,
        "metric": record.metric_code,
        "threshold": record.threshold_code,
        "value": record.value_at_cross,
        "at": record.triggered_at.isoformat(),
    }


async def outcome(call):
    """The name of the exception that `call` raises, or what it returns."""
    try:
        return await call
    except Exception as error:
        return type(error).__name__


async def create_metrics(client):
    schemas = [
        MetricSchema("calls", AggType.COUNT),
        MetricSchema(
            "tokens",
            AggType.SUM,
            period_type=PeriodType.CALENDAR,
            billing_cycle_day=1,
            filters=[DimensionFilter("model", ["large", "small"]), DimensionFilter("kind", [])],
        ),
        MetricSchema("peak", AggType.MAX, period_type=PeriodType.DAY),
        MetricSchema("level", AggType.LATEST, period_type=PeriodType.WEEK),
        MetricSchema(
            "seats", AggType.COUNT_UNIQUE, recurring=True, period_type=PeriodType.CALENDAR
        ),
        MetricSchema(
            "spend",
            AggType.SUM,
            thresholds=[AlertThreshold("soft", 100), AlertThreshold("hard", 200, recurring=True)],
        ),
    ]
    for schema in schemas:
        await client.metrics.create(schema)
    return {
        "again": await outcome(client.metrics.create(schemas[0])),
        "other": await outcome(client.metrics.create(MetricSchema("calls", AggType.SUM))),
        "list": [[each.code, int(each.agg_type)] for each in await client.metrics.list()],
    }


async def count(client):
    batch = [Event(42, "calls", timestamp=NOON + timedelta(seconds=i)) for i in range(10)]
    seen = {
        "async": ingested(await client.ingest(batch)),
        "again": ingested(await client.ingest(batch)),
        "half": ingested(await client.ingest([*batch[5:], Event(42, "calls", timestamp=NOON)])),
        "sync": ingested(
            await client.ingest(
                [Event(42, "calls", timestamp=NOON + timedelta(hours=1))],
                delivery=DeliveryMode.SYNC,
            )
        ),
        "untimed": ingested(await client.ingest([Event(7, "calls"), Event(7, "calls")])),
    }
    seen["march"] = value((await client.query(42, "calls", MARCH)).value)
    seen["this_month"] = value((await client.query(7, "calls", current_month())).value)
    seen["realtime"] = value(await client.query_realtime(7, "calls"))
    seen["nobody"] = value((await client.query(99, "calls", MARCH)).value)
    return seen


async def break_down(client):
    batch = []
    for i in range(12):
        tags = {"model": ["large", "small"][i % 2], "kind": ["in", "out", "cached"][i % 3]}
        batch.append(Event(42, "tokens", 100 + i, NOON + timedelta(minutes=i), properties=tags))
    stray = Event(42, "tokens", 5, NOON, properties={"model": "huge"})
    seen = {"ingest": ingested(await client.ingest([*batch, stray]))}
    for name, filters in (
        ("all", None),
        ("large", {"model": "large"}),
        ("large_in", {"model": "large", "kind": "in"}),
        ("none", {"model": "small", "kind": "nothing"}),
    ):
        answer = await client.query(42, "tokens", MARCH, filters=filters)
        seen[name] = value(answer.value)
    for name, keys in (("by_model", ["model"]), ("by_both", ["model", "kind"])):
        cells = await client.query_breakdown(42, "tokens", MARCH, group_by=keys)
        seen[name] = sorted([sorted(cell), total.sum, total.count] for cell, total in cells.items())
    seen["undeclared"] = await outcome(
        client.query_breakdown(42, "tokens", MARCH, group_by=["region"])
    )
    return seen


async def other_aggregations(client):
    for i, number in enumerate((5, 9, 3)):
        at = NOON + timedelta(minutes=i)
        await client.ingest([Event(42, "peak", number, at), Event(42, "level", number, at)])
    for member, operation in ((1, "ADD"), (2, "ADD"), (3, "NONE"), (2, "REMOVE"), (1, "ADD")):
        await client.ingest([Event(42, "seats", member, operation_type=OperationType[operation])])
    day = Period(NOON - timedelta(hours=12), NOON + timedelta(hours=12))
    return {
        "peak": value((await client.query(42, "peak", day)).value),
        "level": value((await client.query(42, "level", MARCH)).value),
        "seats": value(await client.query_realtime(42, "seats")),
        "seats_month": value((await client.query(42, "seats", current_month())).value),
    }


async def watch_alerts(client):
    live = await client.alerts.subscribe(account_ids=[1000, 1001], metric_codes=["spend"])
    first = await client.ingest([Event(1000, "spend", 99, NOON)])
    crossing = await client.ingest(
        [
            Event(1000, "spend", 1, NOON + timedelta(seconds=1)),
            Event(1000, "spend", 150, NOON + timedelta(seconds=2)),
            Event(1002, "spend", 500, NOON),
        ]
    )
    pushed = [alert(await asyncio.wait_for(anext(live), WAIT_SECONDS)) for _ in range(2)]
    seen = {
        "before": ingested(first),
        "crossing": ingested(crossing),
        "pushed": pushed,
        "dropped": live.dropped(),
        "listed": [alert(each) for each in await client.list_alerts(1000)],
        "listed_after": [
            alert(each)
            for each in await client.list_alerts(1000, since_offset=pushed[0]["offset"] + 1)
        ],
        "listed_all": len(await client.list_alerts(0)),
        "flags": value((await client.query(1000, "spend", MARCH)).value)["alert_flags"],
        "offsets": live.offsets(),
    }
    await live.close()
    # A second subscription starts where a saved offset says, as after a restart of the program.
    resumed = await client.alerts.subscribe(
        account_ids=[1000], since_offset={ADDRESS: pushed[1]["offset"]}
    )
    seen["caught_up"] = alert(await asyncio.wait_for(anext(resumed), WAIT_SECONDS))
    await resumed.close()
    return seen


async def unusual_batches(client):
    many = [Event(i, "calls", timestamp=NOON) for i in range(5_000, 13_192)]
    seen = {
        "largest": ingested(await client.ingest(many)),
        "too_large": await outcome(client.ingest([*many, Event(1, "calls")])),
        "unknown": ingested(
            await client.ingest([Event(42, "nothing"), Event(42, "calls"), Event(42, "nothing")])
        ),
        "only_unknown": ingested(await client.ingest([Event(42, "nothing")])),
        "empty": ingested(await client.ingest([])),
    }
    seen["one_of_many"] = value((await client.query(13_191, "calls", MARCH)).value)
    seen["unknown_query"] = await outcome(client.query(42, "nothing", MARCH))
    seen["backwards"] = await outcome(client.query(42, "calls", Period(MARCH.end, MARCH.start)))
    seen["events"] = await outcome(client.list_events(42, MARCH.start, MARCH.end))
    together = await asyncio.gather(
        *(client.ingest([Event(20_000 + i, "calls")]) for i in range(200))
    )
    seen["together"] = sum(each.n_stored for each in together)
    return seen


async def change_and_delete(client):
    more = MetricSchema("calls", AggType.COUNT, thresholds=[AlertThreshold("many", 1_000_000)])
    seen = {
        "update": await outcome(client.metrics.update(more)),
        "bad_update": await outcome(client.metrics.update(MetricSchema("calls", AggType.MAX))),
        "delete": await outcome(client.metrics.delete("calls")),
        "delete_again": await outcome(client.metrics.delete("calls")),
        "query_deleted": await outcome(client.query(42, "calls", MARCH)),
    }
    seen["left"] = [each.code for each in await client.metrics.list()]
    await client.metrics.create(MetricSchema("calls", AggType.SUM))
    seen["anew"] = value((await client.query(42, "calls", MARCH)).value)
    return seen


async def main():
    seen = {
        "file": unimeter.__file__,
        "version": next(
            each.version
            for each in importlib.metadata.distributions(path=[FOLDER])
            if each.metadata["Name"].lower().replace("_", "-") == "unimeter-python"
        ),
    }
    async with AsyncClient([ADDRESS]) as client:
        seen["metrics"] = await create_metrics(client)
        seen["count"] = await count(client)
        seen["breakdown"] = await break_down(client)
        seen["other"] = await other_aggregations(client)
        seen["alerts"] = await watch_alerts(client)
        seen["batches"] = await unusual_batches(client)
        seen["changes"] = await change_and_delete(client)
    print(json.dumps(seen))


asyncio.run(main())
