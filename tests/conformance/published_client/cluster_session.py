"""A session of the published client with a cluster that loses a node, and then its majority.

Run as ``python -I -S cluster_session.py FOLDER HOST:PORT,HOST:PORT,HOST:PORT``. It says
what it wants done to the cluster as a line of JSON and waits for a line; its last line is
what it saw. Nothing is judged here: the tests beside this file do that.

The client asks for a new partition map every 30 seconds and at no other time. Where the
session needs a new one it asks by hand (`refresh`), as the client's own timer would.
"""

import asyncio
import json
import sys
from datetime import datetime, timedelta, timezone

FOLDER, ADDRESSES = sys.argv[1], sys.argv[2].split(",")
sys.path.insert(0, FOLDER)

from unimeter import (  # noqa: E402
    AggType,
    AlertThreshold,
    AsyncClient,
    DimensionFilter,
    Event,
    MetricSchema,
    Period,
    protocol,
)

MARCH = Period(datetime(2026, 3, 1, tzinfo=timezone.utc), datetime(2026, 4, 1, tzinfo=timezone.utc))
NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
WAIT_SECONDS = 20
WRITES = 60
SPENT = [(1000, 60, 0), (1000, 60, 1), (1000, 90, 2), (1001, 500, 3)]  # account, value, minute


def say(**words):
    print(json.dumps(words), flush=True)


async def ask_for(what):
    """Have something done to the cluster; return when it is."""
    say(do=what)
    loop = asyncio.get_running_loop()
    return json.loads(await loop.run_in_executor(None, sys.stdin.readline))


async def outcome(call):
    """What the call returns, or the name of what it raises."""
    try:
        return await asyncio.wait_for(call, WAIT_SECONDS)
    except Exception as error:
        return type(error).__name__


def alert(record):
    return [record.account_id, record.threshold_code, record.value_at_cross, record.log_offset]


async def refresh(client, gone):
    """What the client does every 30 seconds, until no row of its map names the lost node."""
    async with asyncio.timeout(WAIT_SECONDS):
        await client._router.bootstrap()
        while gone in client._router.nodes():
            await asyncio.sleep(0.05)
            await client._router.bootstrap()


async def flush(client):
    """Return when every node that is up has applied and pushed all that came before.

    A node pushes before it answers a later question on the same connection.
    """
    payload = protocol.encode_usage_realtime(1000, "spend")
    for address in client._router.nodes():
        try:
            send = client._pool.send(address, protocol.PacketType.USAGE_REALTIME, payload)
            await asyncio.wait_for(send, WAIT_SECONDS)
        except OSError:
            pass


async def taken(client, subscription, count):
    """The next `count` alerts, and whatever else came until all nodes have said all."""
    alerts = [
        alert(await asyncio.wait_for(anext(subscription), WAIT_SECONDS)) for _ in range(count)
    ]
    await flush(client)
    while not subscription._queue.empty():
        alerts.append(alert(await anext(subscription)))
    return alerts


async def first_looks():
    """What each node tells a client that knows only this one."""
    looks = []
    for address in ADDRESSES:
        async with AsyncClient([address]) as client:
            rows = client._router._map
            looks.append(
                {
                    "leaders": sorted({row[0] for row in rows}),
                    "first_replicas": sorted({row[1] for row in rows}),
                    "nodes": sorted(client._router.nodes()),
                }
            )
    return looks


async def write_and_read(client):
    """Each write is read at once, at a replica."""
    wrong = []
    for number in range(WRITES):
        account = number % 16
        at = NOON + timedelta(seconds=number)
        result = await client.ingest([Event(account, "calls", timestamp=at)])
        total = (await client.query(account, "calls", MARCH)).value.count
        if (result.n_stored, total) != (1, number // 16 + 1):
            wrong.append([number, result.n_stored, total])
    tags = [{"model": ["large", "small"][i % 2]} for i in range(10)]
    batch = [
        Event(42, "tokens", 10 + i, NOON + timedelta(seconds=i), properties=tags[i])
        for i in range(10)
    ]
    await client.ingest(batch)
    cells = await client.query_breakdown(42, "tokens", MARCH, group_by=["model"])
    again = await client.ingest(batch)
    return {
        "wrong": wrong,
        "breakdown": sorted([sorted(cell)[0][1], total.sum] for cell, total in cells.items()),
        "again": [again.n_stored, again.n_duplicates],
        "realtime": (await client.query_realtime(42, "tokens")).count,
        "metrics": sorted(schema.code for schema in await client.metrics.list()),
    }


async def alerts_of_a_calm_cluster(client, live):
    for account, value, minute in SPENT:
        at = NOON + timedelta(minutes=minute)
        await client.ingest([Event(account, "spend", value, at)])
    seen = {"live": await taken(client, live, 4)}
    # A program that starts anew catches up with the past, at every node.
    late = await client.alerts.subscribe(account_ids=[1000, 1001, 1002])
    await asyncio.wait_for(asyncio.gather(*late._catchup_tasks), WAIT_SECONDS)
    seen["caught_up"] = sorted(await taken(client, late, 4))
    seen["listed"] = [alert(each) for each in await client.list_alerts(1000)]
    return seen, late


async def lose_the_leader(client, live):
    """The leader is killed: what happens to calls, totals and the live subscription."""
    accounts = range(100, 110)
    seen = {"killed": await ask_for("kill the leader")}
    event = Event(100, "calls", timestamp=NOON)
    first = await outcome(client.ingest([event]))
    seen["at_once"] = first if isinstance(first, str) else first.n_stored
    await refresh(client, seen["killed"])
    seen["after"] = []
    for account in accounts:
        event = Event(account, "calls", timestamp=NOON)
        result = await client.ingest([event])
        again = await client.ingest([event])
        total = (await client.query(account, "calls", MARCH)).value.count
        seen["after"].append([result.n_stored + result.n_duplicates, again.n_duplicates, total])
    await client.ingest([Event(1002, "spend", 150, NOON)])
    seen["live"] = await taken(client, live, 1)
    seen["listed"] = [alert(each) for each in await client.list_alerts(1000)]
    seen["nodes"] = client._router.nodes()
    return seen


async def lose_the_majority(client):
    """One node of three is left: it can promise nothing, and must not seem to."""
    await ask_for("kill another")
    seen = {}
    event = Event(7, "calls", timestamp=NOON + timedelta(days=1))
    calls = {
        "ingest": client.ingest([event]),
        "create": client.metrics.create(MetricSchema("more", AggType.SUM)),
        "query": client.query(42, "tokens", MARCH),
        "realtime": client.query_realtime(42, "tokens"),
        "breakdown": client.query_breakdown(42, "tokens", MARCH, group_by=["model"]),
        "list_alerts": client.list_alerts(1000),
        "metrics": client.metrics.list(),
    }
    answers = await asyncio.gather(*(outcome(call) for call in calls.values()))
    for name, answer in zip(calls, answers, strict=True):
        seen[name] = answer if isinstance(answer, str) else "answered"
    return seen


async def main():
    seen = {"looks": await first_looks()}
    async with AsyncClient(ADDRESSES) as client:
        await client.metrics.create(MetricSchema("calls", AggType.COUNT))
        await client.metrics.create(
            MetricSchema("tokens", AggType.SUM, filters=[DimensionFilter("model", [])])
        )
        thresholds = [AlertThreshold("soft", 100), AlertThreshold("hard", 200)]
        await client.metrics.create(MetricSchema("spend", AggType.SUM, thresholds=thresholds))
        seen["use"] = await write_and_read(client)
        live = await client.alerts.subscribe()
        seen["alerts"], live = await alerts_of_a_calm_cluster(client, live)
        seen["killed"] = await lose_the_leader(client, live)
    survivors = [address for address in ADDRESSES if address != seen["killed"]["killed"]]
    async with AsyncClient(survivors) as client:
        await client.query(42, "tokens", MARCH)
        seen["minority"] = await lose_the_majority(client)
    say(seen=seen)


asyncio.run(main())
