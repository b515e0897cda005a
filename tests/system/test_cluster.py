"""Real processes that are killed, stopped and restarted under load.

``UNIMETER_LEADER_KILLS=100`` is the full run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.clusters import CODE, MONTH, START, Load, make_metric

from unimeter import Client, Event, UnimeterError
from unimeter.demo.cluster_process import ClusterProcess

LEADER_KILLS = int(os.environ.get("UNIMETER_LEADER_KILLS", "5"))
SMALL = ("--segment-bytes", "1MiB", "--disk-free-bytes-min", "1MiB")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcess]:
    with ClusterProcess(tmp_path, *SMALL) as started:
        make_metric(started.addresses)
        yield started


@pytest.mark.slow
@pytest.mark.timeout(120 + 20 * LEADER_KILLS)
def test_no_acknowledged_event_is_lost_with_its_leader(
    cluster: ClusterProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = []
    with Load(cluster.addresses) as load:
        for _ in range(LEADER_KILLS):
            load.wait_for_each(3)
            leader = cluster.wait_leader()
            cluster.kill(leader)
            killed.append(leader)
            load.wait_for_each(3)
            cluster.restart(leader)
        load.wait_for_each(3)
    with capsys.disabled():
        print(f"\n{LEADER_KILLS} leaders killed, longest pause {load.longest_pause:.2f} s")
    assert len(killed) == LEADER_KILLS
    load.check(cluster)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_leader_that_stands_still_is_replaced_and_comes_back_as_a_follower(
    cluster: ClusterProcess,
) -> None:
    with Load(cluster.addresses) as load:
        for _ in range(2):
            load.wait_for_each(3)
            leader = cluster.wait_leader()
            cluster.stop(leader)
            stopped = time.monotonic()
            cluster.wait_leader(other_than=leader)
            while time.monotonic() - stopped < 3.0:
                load.wait_for_each(1)
            cluster.cont(leader)
            load.wait_for_each(3)
    load.check(cluster)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nodes_are_restarted_one_after_the_other_without_a_failed_call(
    cluster: ClusterProcess,
) -> None:
    with Load(cluster.addresses) as load:
        for node in (1, 2, 3):
            load.wait_for_each(3)
            assert cluster.nodes[node].terminate() == 0
            load.wait_for_each(3)
            cluster.restart(node)
        load.wait_for_each(3)
    load.check(cluster)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_five_nodes_survive_two_and_say_nothing_with_three_lost(tmp_path: Path) -> None:
    with ClusterProcess(tmp_path, *SMALL, count=5) as cluster:
        make_metric(cluster.addresses)
        with Load(cluster.addresses) as load:
            load.wait_for_each(3)
            first = cluster.wait_leader()
            cluster.kill(first)
            load.wait_for_each(3)
            second = cluster.wait_leader(other_than=first)
            cluster.kill(second)
            load.wait_for_each(3)
        load.check_failures()
        third = cluster.wait_leader()
        cluster.kill(third)
        with (
            Client(cluster.addresses, timeout=3.0) as client,
            pytest.raises(UnimeterError),
        ):
            client.ingest([Event("late", CODE, 1, START)])
        cluster.restart(second)
        with Client(cluster.addresses) as client:
            result = client.ingest([Event("later", CODE, 1, START, id="once")])
            assert result.n_stored == 1
            late = client.query("late", CODE, MONTH, linearizable=True).value.count
            assert late in (0, 1), "the call that failed may have been stored, once at most"
            for sender in load.senders:
                value = client.query(sender.account, CODE, MONTH, linearizable=True).value
                assert value.count == load.batch * sender.batches
        cluster.restart(first)
        cluster.restart(third)
        cluster.wait_same_index()
