"""Nodes that do not belong: each is refused with a sentence, and the cluster goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.clusters import CODE, START, make_metric

from unimeter import Client, Event
from unimeter.demo.cluster_process import ClusterProcess
from unimeter.demo.process import NodeProcess, free_port

WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    with ClusterProcess(tmp_path_factory.mktemp("cluster")) as started:
        make_metric(started.addresses)
        yield started


def stranger(
    cluster: ClusterProcess,
    directory: Path,
    *,
    node: int = 3,
    cluster_id: str = "",
    secret: str = "",
    peers: str = "",
) -> NodeProcess:
    """A process that passes for node 3, which is down, on a directory of its own."""
    file = directory.with_name(directory.name + ".secret")
    file.write_text(secret or cluster.secret.read_text())
    options = ("--node-id", str(node), "--cluster-id", cluster_id or cluster.cluster_id)
    return NodeProcess(
        directory, *options, "--cluster-secret-file", str(file), "--peers", peers or cluster.peers
    )


def wait_for_words(process: NodeProcess, others: ClusterProcess, *words: str) -> None:
    """Return when the stranger or a member has said all of this on one line."""
    outputs = [process.output, *(node.output for node in others.nodes.values())]
    give_up = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < give_up:
        lines = [line for one in outputs if one.exists() for line in one.read_text().splitlines()]
        if any(all(word in line for word in words) for line in lines):
            return
        time.sleep(0.05)
    raise AssertionError("\n".join(one.read_text()[-2000:] for one in outputs if one.exists()))


def check_goes_on(cluster: ClusterProcess, name: str) -> None:
    with Client(cluster.addresses) as client:
        assert client.ingest([Event(name, CODE, 1, START)]).n_stored == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("secret", {"secret": "another secret of thirty-two bytes"}, ("secret",)),
        ("cluster", {"cluster_id": "other"}, ("belongs to cluster",)),
        ("empty", {}, ("another data directory", "unimeter recover")),
    ],
)
def test_a_stranger_under_the_id_of_a_node_that_is_down_is_refused(
    cluster: ClusterProcess,
    tmp_path: Path,
    name: str,
    given: dict[str, str],
    words: tuple[str, ...],
) -> None:
    assert cluster.nodes[3].terminate() == 0
    process = stranger(cluster, tmp_path / "stranger", **given)
    process.launch()
    try:
        wait_for_words(process, cluster, *words)
        check_goes_on(cluster, name)
        assert not process.is_ready()
    finally:
        process.kill()
        cluster.restart(3)


@pytest.mark.slow
def test_a_node_given_other_members_is_refused(cluster: ClusterProcess, tmp_path: Path) -> None:
    assert cluster.nodes[3].terminate() == 0
    first, second, _ = cluster.peers.split(",")
    peers = f"{first},{second},4=127.0.0.1:{free_port()}"
    process = stranger(cluster, tmp_path / "stranger", node=4, peers=peers)
    process.launch()
    try:
        wait_for_words(process, cluster, "the members differ")
        check_goes_on(cluster, "members")
        assert not process.is_ready()
    finally:
        process.kill()
        cluster.restart(3)


@pytest.mark.slow
def test_an_id_that_is_used_twice_is_refused(cluster: ClusterProcess, tmp_path: Path) -> None:
    """The second process listens elsewhere and dials the same peers."""
    first, second, _ = cluster.peers.split(",")
    peers = f"{first},{second},3=127.0.0.1:{free_port()}"
    process = stranger(cluster, tmp_path / "stranger", peers=peers)
    process.launch()
    try:
        wait_for_words(process, cluster, "node id 3 is used twice")
        check_goes_on(cluster, "twice")
        assert not process.is_ready()
        assert cluster.nodes[3].is_ready(), "the one that was there first stays"
    finally:
        process.kill()


@pytest.mark.slow
def test_a_members_directory_is_not_started_alone(cluster: ClusterProcess) -> None:
    assert cluster.nodes[3].terminate() == 0
    alone = NodeProcess(cluster.nodes[3].directory, "--node-id", "3")
    alone.launch()
    try:
        assert alone.process is not None
        assert alone.process.wait(20) == 7
        assert "start it with --peers" in alone.output.read_text()
    finally:
        alone.kill()
        cluster.restart(3)
    check_goes_on(cluster, "alone")
