"""The SDK against three real nodes whose leader is killed, stopped and asked to hand over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.client.fake_server import wait_until

from unimeter import (
    AggType,
    AlertThreshold,
    AsyncClient,
    Client,
    Event,
    InvalidInputError,
    MetricSchema,
    current_month,
)
from unimeter.demo.cluster_process import ClusterProcess
from unimeter.wire.messages import NodeRole

MONTH = current_month()
THREADS = 4
BATCHES = 60
TIMEOUT = 60


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    with ClusterProcess(tmp_path_factory.mktemp("cluster") / "c") as cluster:
        cluster.wait_leader()
        yield cluster


def kill(cluster: ClusterProcess) -> None:
    node = cluster.wait_leader()
    cluster.kill(node)
    cluster.wait_leader(other_than=node)
    cluster.restart(node)


def stop(cluster: ClusterProcess) -> None:
    node = cluster.wait_leader()
    cluster.stop(node)
    cluster.wait_leader(other_than=node)
    cluster.cont(node)


def leader_named(client: Client) -> int:
    """The leader, if whoever answers names the same one twice; 0 while news still travels."""
    status = client.cluster.status()
    leaders = [one.node_id for one in status.nodes if one.role == NodeRole.LEADER]
    return status.leader if leaders == [status.leader] else 0


def hand_over(cluster: ClusterProcess) -> None:
    node = cluster.wait_leader()
    with Client(cluster.addresses, timeout=TIMEOUT) as client:
        client.cluster.transfer_leader()
        cluster.wait_leader(other_than=node)
        wait_until(lambda: leader_named(client) not in (0, node))
        with pytest.raises(InvalidInputError):
            client.cluster.transfer_leader(99)


@pytest.mark.parametrize("disturb", [kill, stop, hand_over])
def test_no_call_fails_and_every_event_counts_once(
    three: ClusterProcess, disturb: Callable[[ClusterProcess], None]
) -> None:
    errors: list[BaseException] = []
    done = threading.Semaphore(0)
    with Client(three.addresses, timeout=TIMEOUT, read_from="any") as client:
        code = f"sum-{disturb.__name__}"
        client.metrics.create(MetricSchema(code, AggType.SUM))

        def work(account: int) -> None:
            try:
                for number in range(1, BATCHES + 1):
                    result = client.ingest([Event(account, code)] * 3)
                    assert (result.n_stored, result.n_duplicates) == (3, 0)
                    assert client.query(account, code, MONTH).value.sum == 3 * number
                    done.release()
            except BaseException as error:
                errors.append(error)
                done.release(BATCHES)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for _ in range(THREADS * BATCHES // 4):
            assert done.acquire(timeout=TIMEOUT)
        disturb(three)
        for thread in threads:
            thread.join(2 * TIMEOUT)
        assert errors == []
        totals = [client.query(n, code, MONTH, linearizable=True).value for n in range(THREADS)]
        assert [total.sum for total in totals] == [3 * BATCHES] * THREADS


def test_streams_of_alerts_go_on_at_another_node(three: ClusterProcess) -> None:
    alerts = 40

    async def cross(client: AsyncClient, first: int) -> None:
        for account in range(first, first + alerts // 4):
            assert (await client.ingest([Event(account, "m", 10)])).n_stored == 1

    async def main() -> None:
        async with AsyncClient(three.addresses, timeout=TIMEOUT) as client:
            schema = MetricSchema("m", AggType.SUM, thresholds=[AlertThreshold("t", 10)])
            await client.metrics.create(schema)
            with Client(three.addresses, timeout=TIMEOUT) as blocking:
                one = await client.alerts.subscribe(after=0)
                other = blocking.alerts.subscribe(after=0)
                for turn, disturb in enumerate((None, kill, stop, kill)):
                    calls = asyncio.create_task(cross(client, turn * alerts // 4))
                    if disturb is not None:
                        await asyncio.to_thread(disturb, three)
                    await calls
                expected = list(range(1, alerts + 1))
                assert [(await anext(one)).position for _ in expected] == expected
                taken = [other.get(timeout=TIMEOUT) for _ in expected]
                assert [alert.position for alert in taken if alert] == expected
                assert sorted(alert.account_id for alert in taken if alert) == list(range(alerts))
                assert other.get(timeout=0.05) is None

    asyncio.run(asyncio.wait_for(main(), 3 * TIMEOUT))
