"""Disks of real nodes: one lost, one rotten, one that was away for too long."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.system.clusters import CODE, MONTH, START, Load, make_metric

from unimeter import Client, Event
from unimeter.demo.cluster_process import ClusterProcess
from unimeter.storage import layout
from unimeter.storage.disk import OsDisk
from unimeter.storage.segments import Walk, list_segments
from unimeter.storage.verify import verify

WAIT_SECONDS = 60.0
SMALL = ("--segment-bytes", "1MiB", "--snapshot-log-bytes", "1MiB", "--disk-free-bytes-min", "1MiB")
PAGE = 5000  # events of one batch


def until(condition: Callable[[], bool], what: str) -> None:
    """Return when something is so."""
    give_up = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


def follower_of(cluster: ClusterProcess) -> int:
    leader = cluster.wait_leader()
    return next(node for node in cluster.nodes if node != leader)


def store(cluster: ClusterProcess, account: str, pages: int) -> None:
    """Count many events of one account, in large batches."""
    events = [Event(account, CODE, 7, START) for _ in range(PAGE)]
    with Client(cluster.addresses) as client:
        for _ in range(pages):
            assert client.ingest(events).n_stored == PAGE


def recover(cluster: ClusterProcess, node: int) -> subprocess.CompletedProcess[str]:
    """What an operator types for a node that lost its disk."""
    command = [sys.executable, "-m", "unimeter", "recover", "--yes"]
    command += ["--data-dir", str(cluster.nodes[node].directory)]
    options = cluster.nodes[node].options
    for name in ("--node-id", "--cluster-id", "--cluster-secret-file", "--peers"):
        command += [name, options[options.index(name) + 1]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def lose_disk(cluster: ClusterProcess, node: int) -> None:
    cluster.kill(node)
    cluster.nodes[node].directory.rename(cluster.folder / f"lost-{node}")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_node_that_lost_its_disk_is_refused_and_rejoins_after_recover(tmp_path: Path) -> None:
    with ClusterProcess(tmp_path, *SMALL) as cluster:
        make_metric(cluster.addresses)
        store(cluster, "before", 40)
        node = follower_of(cluster)
        with Load(cluster.addresses, clients=4) as load:
            load.wait_for_each(3)
            lose_disk(cluster, node)
            process = cluster.nodes[node]
            process.launch()
            until(
                lambda: "another data directory" in process.output.read_text(),
                "nobody refuses the empty directory",
            )
            load.wait_for_each(3)
            assert not process.is_ready()
            process.kill()
            made = recover(
                cluster, node
            )  # in the directory that serve has made and was refused with
            assert made.returncode == 0, made.stderr
            process.launch()
            until(
                lambda: "this node votes again" in process.output.read_text(),
                "it does not catch up",
            )
            load.wait_for_each(3)
            assert process.is_ready()
            # It votes: with the other follower gone, it and the leader are a majority.
            other = next(n for n in cluster.nodes if n not in (node, cluster.wait_leader()))
            cluster.kill(other)
            load.wait_for_each(3)
            cluster.restart(other)
        load.check_failures()
        cluster.wait_same_index()
        cluster.terminate()
        for one in cluster.nodes.values():
            report = verify(str(one.directory))
            assert report.problems == []
            assert report.events == 40 * PAGE + load.events


def entries_of(directory: Path) -> list[tuple[Path, int, int]]:
    """(file, where its body starts, bytes of it) of every entry of a log."""
    disk, found = OsDisk(), []
    for segment in list_segments(disk, f"{directory}/log", None):
        file = disk.open(segment.path)
        walk = Walk(file, segment)
        for entry in walk:
            start = walk.entry_position + layout.ENTRY_HEADER_BYTES
            found.append((Path(segment.path), start, len(entry.body)))
        file.close()
    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_rotten_entry_is_repaired_from_a_peer_byte_for_byte(tmp_path: Path) -> None:
    with ClusterProcess(tmp_path) as cluster:
        make_metric(cluster.addresses)
        store(cluster, "before", 8)
        cluster.wait_same_index()
        node = follower_of(cluster)
        process = cluster.nodes[node]
        assert process.terminate() == 0
        found = entries_of(process.directory)
        file, start, size = found[len(found) // 2]
        assert size > 1000, "the middle one is a batch"
        whole = file.read_bytes()
        end = found[-1][1] + found[-1][2]
        rotten = bytearray(whole)
        rotten[start + size // 2] ^= 0x10
        file.write_bytes(rotten)
        assert verify(str(process.directory)).problems
        cluster.restart(node)
        assert "is repaired from another node" in process.output.read_text()
        assert file.read_bytes()[:end] == whole[:end]
        store(cluster, "after", 1)
        cluster.wait_same_index()
        cluster.terminate()
        report = verify(str(process.directory))
        assert report.problems == []
        assert report.events == 9 * PAGE


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_node_away_while_the_log_was_removed_catches_up_by_a_snapshot(tmp_path: Path) -> None:
    with ClusterProcess(tmp_path, *SMALL, "--retention-bytes", "2MiB") as cluster:
        make_metric(cluster.addresses)
        store(cluster, "before", 5)
        cluster.wait_same_index()
        node = follower_of(cluster)
        process = cluster.nodes[node]
        cluster.kill(node)
        first_segments = {one.name for one in (process.directory / "log").glob("*.seg")}
        leader = cluster.nodes[cluster.wait_leader()].directory

        def is_removed() -> bool:
            store(cluster, "while it is away", 5)
            there = {one.name for one in (leader / "log").glob("*.seg")}
            return not first_segments & there

        until(is_removed, "retention removes nothing")
        with Load(cluster.addresses, clients=2) as load:
            load.wait_for_each(2)
            process.launch()
            until(
                lambda: "took over the state at entry" in process.output.read_text(),
                "no snapshot came",
            )
            load.wait_for_each(2)
        load.check_failures()
        process.wait_ready()
        cluster.wait_same_index()
        counts = []
        for one in cluster.nodes.values():
            with Client([one.address]) as client:
                total = client.query("while it is away", CODE, MONTH, linearizable=True).value
                counts.append((total.count, client.query("before", CODE, MONTH).value.count))
        assert len(set(counts)) == 1 and counts[0][1] == 5 * PAGE
        cluster.terminate()
        assert verify(str(process.directory)).problems == []
