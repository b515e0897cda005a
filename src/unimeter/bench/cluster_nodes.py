"""Three nodes under measurement, or one: the group that a line of the cluster's table loads.

A `Group` is a handful of `MeasuredNode` on free ports of the loopback interface, each with a
directory of its own below one temporary directory. A group of one is started without peers, so
the same measurement gives the figure that a cluster is compared with. Everything is known
from outside: who leads and how far each has applied from GET /metrics, processor time from
/proc. Each process is ended by its own id, also when a line fails.

    with running_group(settings, 3) as group:
        group.leader, group.followers      as they are now
        group.wait_level()                 until all have applied the same
"""

from __future__ import annotations

import contextlib
import secrets
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from unimeter.bench.frames import Tape
from unimeter.bench.load import LoadError
from unimeter.bench.node import MeasuredNode
from unimeter.bench.scenarios import (
    Settings,
    check_totals,
    create_metrics,
    temporary_directory,
)
from unimeter.demo.process import free_port

CLUSTER_ID: Final = "bench"
SETTLE_SECONDS_MAX: Final = 120.0  # for a leader, or for the slowest follower
LOOK_SECONDS: Final = 0.01  # between two looks


def read_metrics(node: MeasuredNode) -> dict[str, float]:
    """What GET /metrics says, by series; empty where nobody answers."""
    with contextlib.suppress(OSError):
        url = f"http://127.0.0.1:{node.http_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        split = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in split if name}
    return {}


class Group:
    """The nodes of one line."""

    def __init__(self, directory: Path, count: int, options: dict[str, str]) -> None:
        """Prepare `count` nodes; nothing is started."""
        shared = {} if count == 1 else _shared_options(directory, count)
        self.nodes = [
            MeasuredNode(
                directory / f"node-{number}",
                {**options, **shared, **({"node_id": str(number)} if shared else {})},
            )
            for number in range(1, count + 1)
        ]

    def start(self) -> None:
        """Start all at once, for new ones wait for each other, and find a leader."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(MeasuredNode.start, self.nodes))
        create_metrics(self.leader)
        self.wait_level()

    def kill(self) -> None:
        """SIGKILL to each that runs."""
        for node in self.nodes:
            node.kill()

    @property
    def running(self) -> list[MeasuredNode]:
        """The nodes that were started and not killed."""
        return [node for node in self.nodes if node.process is not None]

    @property
    def leader(self) -> MeasuredNode:
        """Who leads, as soon as somebody does."""
        give_up = time.monotonic() + SETTLE_SECONDS_MAX
        while time.monotonic() < give_up:
            for node in self.running:
                if read_metrics(node).get("unimeter_leader") == 1.0:
                    return node
            time.sleep(LOOK_SECONDS)
        raise LoadError("no node leads")

    @property
    def followers(self) -> list[MeasuredNode]:
        """All others that run."""
        leader = self.leader
        return [node for node in self.running if node is not leader]

    def wait_level(self) -> None:
        """Return once every running node has applied the same entries, none less."""
        give_up = time.monotonic() + SETTLE_SECONDS_MAX
        while time.monotonic() < give_up:
            found = [read_metrics(node) for node in self.running]
            ends = {seen.get("unimeter_log_index") for seen in found}
            applied = {seen.get("unimeter_applied_index") for seen in found}
            if len(ends) == 1 and ends == applied and None not in ends:
                return
            time.sleep(LOOK_SECONDS)
        raise LoadError("the nodes did not come to the same position")

    def check_totals(self, tape: Tape) -> None:
        """Query every node, so followers too; LoadError unless the counts are the tape's."""
        self.wait_level()
        for node in self.running:
            check_totals(node, tape)

    def cpu_seconds(self) -> list[float]:
        """Processor time of each running node so far, the leader's first."""
        return [node.cpu_seconds() for node in (self.leader, *self.followers)]


def _shared_options(directory: Path, count: int) -> dict[str, str]:
    secret = directory / "secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32))
    peers = ",".join(f"{number}=127.0.0.1:{free_port()}" for number in range(1, count + 1))
    return {"cluster_id": CLUSTER_ID, "cluster_secret_file": str(secret), "peers": peers}


@contextlib.contextmanager
def running_group(
    settings: Settings, count: int, options: dict[str, str] | None = None
) -> Iterator[Group]:
    """A group that has a leader and the metrics; killed and removed afterwards."""
    with temporary_directory(settings) as path:
        group = Group(path, count, options or {})
        try:
            group.start()
            yield group
        finally:
            group.kill()
