"""The SDK against the real node, killed and started again under it."""

from __future__ import annotations

import asyncio
import threading

from unimeter import (
    AggType,
    AlertThreshold,
    AsyncClient,
    Client,
    DeliveryMode,
    DimensionFilter,
    Event,
    MetricSchema,
    OperationType,
    PeriodType,
    current_month,
    scale,
    unscale,
)
from unimeter.demo.process import NodeProcess

MONTH = current_month()
THREADS = 4
BATCHES = 40
KILLS = 3


def test_kills_under_threads_lose_nothing_and_count_nothing_twice(node: NodeProcess) -> None:
    errors: list[BaseException] = []
    done = threading.Semaphore(0)
    with Client([node.address], timeout=60) as client:
        client.metrics.create(MetricSchema("m", AggType.SUM))

        def work(account: int) -> None:
            try:
                for number in range(BATCHES):
                    result = client.ingest([Event(account, "m", 1 + number)] * 3)
                    assert (result.n_stored, result.n_duplicates) == (3, 0)
                    done.release()
            except BaseException as error:
                errors.append(error)
                done.release(BATCHES)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            for _ in range(THREADS * BATCHES // (KILLS + 1)):
                assert done.acquire(timeout=60)
            node.kill()
            node.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        expected = 3 * BATCHES * (BATCHES + 1) // 2
        totals = [client.query(n, "m", MONTH).value for n in range(THREADS)]
        assert [total.sum for total in totals] == [expected] * THREADS
        assert [total.count for total in totals] == [3 * BATCHES] * THREADS


def test_kill_under_pipelined_calls_and_a_subscription(node: NodeProcess) -> None:
    async def main() -> None:
        async with AsyncClient([node.address], timeout=60) as client:
            thresholds = [AlertThreshold(f"t{n}", 100 * n) for n in range(1, 7)]
            await client.metrics.create(MetricSchema("m", AggType.SUM, thresholds=thresholds))
            subscription = await client.alerts.subscribe(after=0)

            async def work() -> None:
                for _ in range(20):
                    assert (await client.ingest([Event(1, "m")])).n_stored == 1

            first = [asyncio.create_task(work()) for _ in range(15)]
            assert (await anext(subscription)).threshold_code == "t1"
            await asyncio.to_thread(node.kill)
            await asyncio.to_thread(node.start)
            await asyncio.gather(*first)
            await asyncio.gather(*(work() for _ in range(15)))
            seen = [(await anext(subscription)).threshold_code for _ in range(5)]
            assert seen == ["t2", "t3", "t4", "t5", "t6"]
            assert (await client.query_realtime(1, "m")).sum == 600

    asyncio.run(asyncio.wait_for(main(), 100))


def test_program_written_for_the_published_sdk(node: NodeProcess) -> None:
    """The published README's calls, as they stand there."""

    async def main() -> None:
        client = AsyncClient([node.address])
        await client.connect()
        await client.metrics.create(
            MetricSchema(
                code="compute_seconds",
                agg_type=AggType.SUM,
                period_type=PeriodType.CALENDAR,
                billing_cycle_day=1,
                filters=[DimensionFilter(key="provider", values=["aws", "gcp", "azure"])],
                thresholds=[AlertThreshold(code="soft_cap", value=100_000)],
            )
        )
        await client.metrics.create(MetricSchema(code="seats", agg_type=AggType.COUNT_UNIQUE))
        result = await client.ingest(
            [
                Event(
                    account_id=42,
                    metric_code="compute_seconds",
                    value=scale(1.5),
                    properties={"provider": "aws"},
                    delivery_mode=DeliveryMode.SYNC,
                ),
                Event(
                    account_id=42,
                    metric_code="seats",
                    value=7,
                    operation_type=OperationType.ADD,
                ),
            ]
        )
        print(result.n_stored, result.n_duplicates)
        assert (result.n_stored, result.n_duplicates) == (2, 0)
        usage = await client.query(42, "compute_seconds", MONTH, filters={"provider": "aws"})
        assert unscale(usage.value.sum) == 1.5
        cells = await client.query_breakdown(42, "compute_seconds", MONTH, group_by=["provider"])
        assert {key: value.sum for key, value in cells.items()} == {
            frozenset({("provider", "aws")}): 1_500_000
        }
        assert (await client.query_realtime(42, "seats")).count == 1
        assert len(await client.list_events(42, MONTH.start, MONTH.end)) == 2
        alerts = await client.list_alerts(42, since_offset=0)
        assert [alert.threshold_code for alert in alerts] == ["soft_cap"]
        subscription = await client.alerts.subscribe(account_ids=[42], buffer_size=10)
        async for alert in subscription:
            assert alert.value_at_cross == 1_500_000
            break
        assert list(subscription.offsets()) == [node.address]
        await subscription.close()
        schemas = await client.metrics.list()
        assert [schema.code for schema in schemas] == ["compute_seconds", "seats"]
        await client.metrics.update(schemas[0])
        await client.metrics.delete("compute_seconds")
        await client.close()

    asyncio.run(asyncio.wait_for(main(), 60))
