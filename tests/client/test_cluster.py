"""Both clients against three nodes that die, fall silent and change their leader."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from tests.client.fake_server import FakeCluster, FakeServer, wait_until

from unimeter import (
    AggType,
    AsyncClient,
    Client,
    ClientError,
    ConnectionError,
    DeadlineExceededError,
    Event,
    InvalidInputError,
    MetricSchema,
    current_month,
)
from unimeter.client import alert_stream, retry, subscription
from unimeter.wire.messages import (
    AlertPushEnable,
    ErrorCode,
    ErrorReply,
    Ingest,
    NodeRole,
    PartitionMap,
    TransferLeader,
    UsageQuery,
)

MONTH = current_month()


class Blocking:
    """`AsyncClient` with the methods of `Client`, so that one test holds for both."""

    def __init__(self, seeds: list[str], **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(seeds, **options)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def __enter__(self) -> Blocking:
        self.run(self._client.connect())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **named: self.run(method(*args, **named))


Connect = Callable[..., Any]


@pytest.fixture(params=[Client, Blocking], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent node is given up soon, so that no test waits a second for it."""
    monkeypatch.setattr(retry, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(retry, "CONNECT_SECONDS_CLUSTER", 0.3)


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address where connecting hangs: a listener whose queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield f"127.0.0.1:{address[1]}"
        for filler in fillers:
            filler.close()


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address where a connection stands and nobody ever answers, as of a stopped process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def ingests(node: FakeServer) -> list[Ingest]:
    return [request for request in node.seen if isinstance(request, Ingest)]


# --- finding the leader ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_leader_is_found_from_any_seed(cluster: FakeCluster, connect: Connect, seed: int) -> None:
    cluster.lead(cluster.nodes[2])
    with connect([cluster.addresses[seed]]) as client:
        assert client.ingest([Event(1, "m")]).n_stored == 1
    assert len(ingests(cluster.nodes[2])) == 1


def test_all_seeds_but_one_may_be_dead_or_hang(
    cluster: FakeCluster, connect: Connect, black_hole: str, deaf: str, quick: None
) -> None:
    with FakeServer() as gone:
        dead = gone.address
    with connect([dead, black_hole, deaf, cluster.addresses[1]]) as client:
        assert client.ingest([Event(1, "m")]).n_stored == 1
    assert len(ingests(cluster.nodes[0])) == 1


def test_wrong_map_does_not_keep_a_request_from_the_seed(
    fake: FakeServer, connect: Connect, black_hole: str, quick: None
) -> None:
    with FakeServer() as gone:
        fake.leader, fake.members = gone.address, [gone.address, black_hole]
    with connect([fake.address]) as client:
        assert client.ingest([Event(1, "m")]).n_stored == 1
        asked = fake.seen.count(PartitionMap())
        assert client.ingest([Event(1, "m")]).n_stored == 1
        assert fake.seen.count(PartitionMap()) == asked, "it was the first choice this time"


# --- losing the leader ---------------------------------------------------------------------------


def test_leader_that_dies_with_a_counted_batch_is_followed_and_the_reply_remembered(
    cluster: FakeCluster, connect: Connect
) -> None:
    first, second, _ = cluster.nodes
    with connect(cluster.addresses) as client:
        client.ingest([Event(1, "m")])
        cluster.memory.faults = [lambda _: cluster.kill(first, second)]
        began = time.monotonic()
        assert client.ingest([Event(1, "m", 5)]).n_stored == 1
        assert time.monotonic() - began < 0.5
        assert client.ingest([Event(1, "m")]).n_stored == 1
    assert cluster.memory.totals[1, "m"] == 7
    assert len(ingests(second)) == 2
    sequences = [(r.session_lo, r.sequence) for r in ingests(first) + ingests(second)]
    assert len(set(sequences)) == 3 and len(sequences) == 4


def test_no_call_fails_while_a_leader_appears_within_the_deadline(
    cluster: FakeCluster, connect: Connect
) -> None:
    cluster.forget_leader()
    third = cluster.nodes[2]

    def elect() -> None:
        third.wait_for(lambda: sum(len(ingests(node)) for node in cluster.nodes) >= 6)
        cluster.lead(third)

    with connect(cluster.addresses) as client:
        election = threading.Thread(target=elect)
        election.start()
        assert client.ingest([Event(1, "m")]).n_stored == 1
        election.join()
    assert cluster.memory.totals[1, "m"] == 1
    assert all(ingests(node) for node in cluster.nodes), "each was asked"


def test_without_a_leader_the_deadline_is_kept_and_nothing_was_done(
    cluster: FakeCluster, connect: Connect
) -> None:
    cluster.forget_leader()
    with connect(cluster.addresses) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionError, match=r"nothing was done.*no leader is known"):
            client.ingest([Event(1, "m")], timeout=0.4)
        assert 0.3 < time.monotonic() - began < 2.0
    assert cluster.memory.totals == {}


def test_silent_leader_is_given_up_and_the_batch_resent_elsewhere(
    cluster: FakeCluster, connect: Connect, quick: None
) -> None:
    first, second, _ = cluster.nodes
    with connect(cluster.addresses) as client:
        client.ingest([Event(1, "m")])
        first.thawed.clear()
        began = time.monotonic()
        assert client.ingest([Event(1, "m", 5)]).n_stored == 1
        assert time.monotonic() - began < 2.0
        asked = cluster.maps_asked()
        assert client.query(1, "m", MONTH).value.sum == 6
        assert cluster.maps_asked() == asked, "the next call does not try it again first"
        first.thawed.set()  # the batch it was sent is carried out late, and is a repeat
        first.wait_for(lambda: len(ingests(first)) == 2)
    assert cluster.memory.totals[1, "m"] == 6
    assert len(ingests(second)) == 1


def test_silence_of_all_nodes_ends_at_the_deadline_in_doubt(
    cluster: FakeCluster, connect: Connect, quick: None
) -> None:
    with connect(cluster.addresses) as client:
        client.ingest([Event(1, "m")])
        for node in cluster.nodes:
            node.thawed.clear()
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="may or may not"):
            client.ingest([Event(1, "m")], timeout=0.6)
        assert 0.5 < time.monotonic() - began < 2.0


def test_stopping_node_hands_its_client_over(cluster: FakeCluster, connect: Connect) -> None:
    cluster.memory.faults = [ErrorReply(ErrorCode.SHUTTING_DOWN, "stopping")]
    with connect(cluster.addresses) as client:
        assert client.ingest([Event(1, "m")]).n_stored == 1
    assert len(ingests(cluster.nodes[0])) == 1
    assert cluster.memory.totals[1, "m"] == 1


def test_outcome_that_the_forwarder_does_not_know_is_asked_again(
    cluster: FakeCluster, connect: Connect
) -> None:
    cluster.memory.faults = [ErrorReply(ErrorCode.OUTCOME_UNKNOWN, "the leader was lost")]
    with connect(cluster.addresses) as client:
        assert client.ingest([Event(1, "m")]).n_stored == 1
        cluster.memory.read_faults = [ErrorReply(ErrorCode.OUTCOME_UNKNOWN, "the leader was lost")]
        assert client.query(1, "m", MONTH).value.sum == 1


def test_node_that_is_silent_to_the_question_for_its_map_leaves_no_doubt(
    connect: Connect, quick: None
) -> None:
    with FakeCluster(2) as cluster:
        first, second = cluster.nodes
        cluster.lead(second)
        with connect([second.address]) as client:
            client.ingest([Event(1, "m")])
            cluster.kill(first, second)
            first._thread.join()
            cluster.lead(first, push=True)
            client.ingest([Event(1, "m")])  # takes the push, if it did not come before
            second.thawed.clear()
            with pytest.raises(ConnectionError, match="nothing was done"):
                client.ingest([Event(1, "m")], timeout=0.7)
        assert cluster.memory.totals[1, "m"] == 2


# --- hearing of the leader ----------------------------------------------------------------------


def test_push_that_came_while_a_connection_was_idle_changes_the_leader(
    cluster: FakeCluster, connect: Connect
) -> None:
    first, second, _ = cluster.nodes
    with connect(cluster.addresses) as client:
        client.ingest([Event(1, "m")])
        cluster.lead(second, push=True)
        client.ingest([Event(1, "m")])  # may still go to the first: the push is met on the way
        before = len(ingests(second))
        client.ingest([Event(1, "m")])
        assert len(ingests(second)) == before + 1
    assert cluster.memory.totals[1, "m"] == 3
    assert first.accepted == 1, "a push is no reason to connect again"


def test_idle_connection_with_a_push_is_used_again_by_the_blocking_client(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unimeter.client.pool.IDLE_SECONDS_UNCHECKED", -1.0)
    first, second, _ = cluster.nodes
    with Client(cluster.addresses) as client:
        client.ingest([Event(1, "m")])
        cluster.lead(second, push=True)
        (idle,) = client._pool._idle[first.address]
        select.select([idle._socket], [], [], 10)
        client.ingest([Event(1, "m")])  # to the first: the push is taken when it is picked
        client.ingest([Event(1, "m")])
    assert first.accepted == 1 and len(ingests(second)) == 1


def test_push_wakes_the_asyncio_client_before_its_next_call(cluster: FakeCluster) -> None:
    second = cluster.nodes[1]

    async def main() -> None:
        async with AsyncClient(cluster.addresses) as client:
            await client.ingest([Event(1, "m")])
            cluster.lead(second, push=True)
            while client._core.router.choose(0, 0.0) != second.address:
                await asyncio.sleep(0.001)
            await client.ingest([Event(1, "m")])

    asyncio.run(asyncio.wait_for(main(), 30))
    assert len(ingests(second)) == 1


def test_calls_in_flight_move_to_the_new_leader_together(cluster: FakeCluster) -> None:
    first, second, _ = cluster.nodes
    cluster.memory.faults = [None] * 20 + [lambda _: cluster.kill(first, second)]

    async def main() -> None:
        async with AsyncClient(cluster.addresses) as client:
            calls = (client.ingest([Event(n, "m")]) for n in range(100))
            results = await asyncio.gather(*calls)
            assert sum(result.n_stored for result in results) == 100

    asyncio.run(asyncio.wait_for(main(), 30))
    assert sum(cluster.memory.totals.values()) == 100
    maps = [node.seen.count(PartitionMap()) for node in cluster.nodes[1:]]
    assert sum(maps) < 20, "not one question for a map by each call"


# --- reads and the cluster -----------------------------------------------------------------------


def test_reads_from_any_node_carry_the_position_of_the_last_write(
    cluster: FakeCluster, connect: Connect
) -> None:
    with connect(cluster.addresses, read_from="any") as client:
        client.ingest([Event(1, "m")])
        for account in range(6):
            client.query(account, "m", MONTH)
    reads = [[r for r in node.seen if isinstance(r, UsageQuery)] for node in cluster.nodes]
    assert [len(each) for each in reads] == [2, 2, 2]
    assert {read.min_position for each in reads for read in each} == {1}


def test_where_to_read_from_is_one_of_two_words() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidInputError, match="'leader' or 'any'"):
            kind("localhost:1", read_from="nearest")


def test_status_lists_the_nodes_and_leadership_can_be_handed_over(cluster: FakeCluster) -> None:
    with Client(cluster.addresses) as client:
        status = client.cluster.status()
        assert [node.node_id for node in status.nodes] == [1, 2, 3]
        assert status.nodes[0].role == NodeRole.LEADER
        client.cluster.transfer_leader(2)
        client.cluster.transfer_leader()
        cluster.memory.read_faults = [ErrorReply(ErrorCode.INVALID_INPUT, "no node 9")]
        with pytest.raises(InvalidInputError, match="no node 9"):
            client.cluster.transfer_leader(9)
        with pytest.raises(InvalidInputError, match="0 to 255"):
            client.cluster.transfer_leader(256)

    async def main() -> None:
        async with AsyncClient(cluster.addresses) as client:
            await client.cluster.transfer_leader(3)
            assert len((await client.cluster.status()).nodes) == 3

    asyncio.run(main())
    asked = [r.node_id for _, r in cluster.memory.requests if isinstance(r, TransferLeader)]
    assert asked == [2, 0, 9, 3]


def test_embedded_meter_has_nobody_to_hand_leadership_to() -> None:
    import unimeter

    with unimeter.open() as meter, pytest.raises(ClientError, match="alone"):
        meter.cluster.transfer_leader()


def test_metric_changes_survive_a_failover(cluster: FakeCluster) -> None:
    first, second, _ = cluster.nodes
    with Client(cluster.addresses) as client:
        client.metrics.create(MetricSchema("m", AggType.SUM))
        cluster.memory.read_faults = [lambda _: cluster.kill(first, second)]
        client.metrics.create(MetricSchema("n", AggType.SUM))
        cluster.memory.read_faults = [ErrorReply(ErrorCode.OUTCOME_UNKNOWN, "leader lost")]
        client.metrics.delete("n")
        assert [metric.code for metric in client.metrics.list()] == ["m"]


# --- alerts -------------------------------------------------------------------------------------


class Alerts:
    """A subscription of either client: `take` gives positions."""

    def __init__(self, client: Any) -> None:
        self._client = client
        if isinstance(client, Client):
            self._stream: Any = client.alerts.subscribe(after=0)
        else:
            self._stream = client.run(client._client.alerts.subscribe(after=0))

    def take(self, count: int) -> list[int]:
        if isinstance(self._client, Client):
            return [next(self._stream).position for _ in range(count)]
        return [self._client.run(anext(self._stream)).position for _ in range(count)]


def subscribed(node: FakeServer) -> bool:
    return any(isinstance(request, AlertPushEnable) for request in node.seen)


def push_alerts(cluster: FakeCluster, count: int = 1) -> None:
    """Alerts happen: every node that is up has them."""
    for _ in range(count):
        row = cluster.nodes[0].alert()
        for node in cluster.nodes[1:]:
            for connection, request in list(node.subscribers):
                node._push(connection, request, row)


def test_stream_goes_on_at_another_node_without_loss_or_repetition(
    cluster: FakeCluster, connect: Connect
) -> None:
    first, second, third = cluster.nodes
    cluster.memory.push_times = 2
    with connect(cluster.addresses) as client:
        alerts = Alerts(client)
        push_alerts(cluster, 3)
        assert alerts.take(2) == [1, 2]
        cluster.kill(first, second)
        push_alerts(cluster, 2)
        assert alerts.take(3) == [3, 4, 5]
        cluster.kill(second, third)
        push_alerts(cluster, 2)
        assert alerts.take(2) == [6, 7]
    assert subscribed(second) and subscribed(third)


def test_stream_leaves_a_node_that_knows_no_leader(
    cluster: FakeCluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (alert_stream, subscription):
        monkeypatch.setattr(module, "PING_SECONDS", 1000.0)  # the push alone must do
    first, second, _ = cluster.nodes
    with connect(cluster.addresses) as client:
        alerts = Alerts(client)
        push_alerts(cluster)
        assert alerts.take(1) == [1]
        cluster.lead(second)
        first.knows_leader = False
        first.push_map()
        news = threading.Thread(
            target=lambda: (wait_until(lambda: subscribed(second)), push_alerts(cluster))
        )
        news.start()
        first.subscribers.clear()  # it is cut off: it has no news
        assert alerts.take(1) == [2]
        news.join()
    assert subscribed(second)


def ask_every(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Streams of either client ask a quiet node whether it is there, and wait as long for it."""
    for module in (alert_stream, subscription):
        monkeypatch.setattr(module, "PING_SECONDS", seconds)
        monkeypatch.setattr(module, "PONG_SECONDS", seconds)


def test_quiet_stream_asks_if_its_node_lives_and_leaves_a_silent_one(
    cluster: FakeCluster, connect: Connect, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_every(monkeypatch, 0.1)
    first, second, _ = cluster.nodes
    with connect(cluster.addresses) as client:
        alerts = Alerts(client)
        asked = first.seen.count(PartitionMap())

        def stop_then_alert() -> None:
            wait_until(lambda: first.seen.count(PartitionMap()) > asked + 2)
            first.thawed.clear()
            first.subscribers.clear()
            wait_until(lambda: bool(second.subscribers))
            push_alerts(cluster)

        helper = threading.Thread(target=stop_then_alert)
        helper.start()
        assert alerts.take(1) == [1]
        helper.join()


def test_stream_of_a_single_node_that_answers_is_not_disturbed(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_stream, "PING_SECONDS", 0.01)
    with Client([fake.address]) as client, client.alerts.subscribe() as stream:
        asked = fake.seen.count(PartitionMap())
        assert stream.get(timeout=0.1) is None
        fake.push_map()
        fake.alert()
        record = stream.get(timeout=10)
        assert record is not None and record.position == 1
        assert fake.seen.count(PartitionMap()) > asked and len(fake.subscribers) == 1


def test_stream_of_a_single_node_that_forgot_it_begins_again(
    fake: FakeServer, connect: Connect, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Started again while it could not be reached, so that no reset came: the link is silent.
    ask_every(monkeypatch, 0.05)
    with connect([fake.address]) as client:
        alerts = Alerts(client)

        def forget_then_alert() -> None:
            before = len(fake.connections)
            fake.thawed.clear()
            fake.subscribers.clear()
            wait_until(lambda: len(fake.connections) > before)
            fake.thawed.set()
            wait_until(lambda: bool(fake.subscribers))
            fake.alert()

        helper = threading.Thread(target=forget_then_alert)
        helper.start()
        assert alerts.take(1) == [1]
        helper.join()
