"""A whole cluster on this machine: one process for each node, all of them on loopback.

The cluster's demonstration, ``unimeter dev`` and the tests use it. Owns what the
nodes share (the list of peers, the cluster's name, the secret in a file of mode
0600) and the wish list of whoever plays with failures:

    with ClusterProcess(folder) as cluster:         # three nodes, ready
        leader = cluster.wait_leader()
        cluster.kill(leader)                        # SIGKILL
        cluster.wait_leader(other_than=leader)
        cluster.restart(leader)
        cluster.stop(2); cluster.cont(2)            # SIGSTOP, SIGCONT
        cluster.wait_same_index()

Everything it knows of a node's state it reads from that node's own /metrics page, and
not from what its peers have heard of it. A folder that already holds the nodes is
started again as the same cluster.

Refuses to end anything but its own children, by their process ids.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from unimeter.demo.process import POLL_SECONDS, START_SECONDS_MAX, NodeProcess, free_ports

WAIT_SECONDS_MAX: Final = 30.0
SECRET_NAME: Final = "cluster-secret"
CLUSTER_ID: Final = "local"


class Ports(NamedTuple):
    """Where one node listens."""

    clients: int
    http: int
    peers: int


class ClusterProcess:
    """Three or five nodes, each a ``unimeter serve`` of its own; node ids count from 1."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        count: int = 3,
        cluster_id: str = CLUSTER_ID,
        ports: Sequence[Ports] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        """Plan `count` nodes in `folder`; `options` go to each serve. Nothing is started yet."""
        self.folder, self.cluster_id = folder, cluster_id
        self.ports = list(ports) or free_places(count)
        assert len(self.ports) == count, f"{count} nodes and {len(self.ports)} places"
        folder.mkdir(parents=True, exist_ok=True)
        self.secret = folder / SECRET_NAME
        write_secret(self.secret)
        self.nodes = {
            node: NodeProcess(
                folder / f"node-{node}",
                *self._member_options(node),
                *options,
                env=env,
                port=place.clients,
                http_port=place.http,
            )
            for node, place in enumerate(self.ports, 1)
        }

    def _member_options(self, node: int) -> list[str]:
        if len(self.ports) == 1:
            return []
        return [
            *("--node-id", str(node), "--cluster-id", self.cluster_id),
            *("--cluster-secret-file", str(self.secret), "--peers", self.peers),
        ]

    @property
    def peers(self) -> str:
        """The value of --peers, the same for all."""
        pairs = enumerate(self.ports, 1)
        return ",".join(f"{node}=127.0.0.1:{place.peers}" for node, place in pairs)

    @property
    def addresses(self) -> list[str]:
        """What clients connect to, in the order of the node ids."""
        return [node.address for node in self.nodes.values()]

    def __enter__(self) -> ClusterProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- processes ---------------------------------------------------------------------

    def start(self) -> None:
        """Start every node that does not run, and return when all are ready."""
        try:
            for node in self.nodes.values():
                if not node.is_running:
                    node.launch()
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def restart(self, node: int, *, wait: bool = True) -> None:
        """Start a node that was killed or has ended; return when it is ready."""
        process = self.nodes[node]
        process.kill()  # reaps one that ended by itself
        process.launch()
        if wait:
            process.wait_ready()

    def kill(self, node: int) -> None:
        """SIGKILL: no last words, nothing flushed."""
        self.nodes[node].kill()

    def stop(self, node: int) -> None:
        """SIGSTOP: it keeps its connections and says nothing, until `cont`."""
        self.nodes[node].stop()

    def cont(self, node: int) -> None:
        """SIGCONT."""
        self.nodes[node].cont()

    def terminate(self) -> dict[int, int]:
        """SIGTERM to one after the other, stopped ones woken first; return exit statuses."""
        statuses = {}
        for node, process in self.nodes.items():
            if process.is_running:
                process.cont()
                statuses[node] = process.terminate()
        return statuses

    def close(self) -> None:
        """Kill every node that still runs."""
        for process in self.nodes.values():
            process.kill()

    @property
    def running(self) -> list[int]:
        """The nodes whose process is there and not stopped."""
        return [n for n, one in self.nodes.items() if one.is_running and not one.is_stopped]

    # --- what they say -----------------------------------------------------------------

    def wait_ready(
        self, nodes: Iterable[int] | None = None, seconds: float = START_SECONDS_MAX
    ) -> None:
        """Return when GET /ready of each (or of `nodes`) says 200; raise with the words of one
        that does not."""
        for node in self.nodes if nodes is None else nodes:
            self.nodes[node].wait_ready(seconds)

    def leader(self) -> int | None:
        """Return the running node that says it leads, in the newest term; None if none does."""
        found = [
            (figures["unimeter_term"], node)
            for node in self.running
            if (figures := self.nodes[node].figures()) and figures["unimeter_leader"]
        ]
        return max(found)[1] if found else None

    def wait_leader(
        self, *, other_than: int | None = None, seconds: float = WAIT_SECONDS_MAX
    ) -> int:
        """Return the leader as soon as there is one, `other_than` the one that was."""
        found: list[int] = []

        def is_there() -> bool:
            lead = self.leader()
            if lead is not None and lead != other_than:
                found.append(lead)
            return bool(found)

        self._wait(is_there, "no leader", seconds)
        return found[0]

    def applied(self) -> dict[int, int]:
        """Return the log index that each running node has applied; silent ones are left out."""
        found = {node: self.nodes[node].figures() for node in self.running}
        return {n: int(one["unimeter_applied_index"]) for n, one in found.items() if one}

    def wait_same_index(self, seconds: float = WAIT_SECONDS_MAX) -> int:
        """Return the index when all nodes have applied the leader's last entry, and no other.

        Only meaningful once clients are silent.
        """

        def is_same() -> bool:
            found = [self.nodes[node].figures() for node in self.running]
            names = ("unimeter_applied_index", "unimeter_log_index")
            return all(found) and len({one[name] for one in found for name in names}) == 1

        self._wait(is_same, "the nodes did not reach the same index", seconds)
        return next(iter(self.applied().values()))

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > give_up:
                raise TimeoutError(f"{what} within {seconds:g} s; applied: {self.applied()}")
            time.sleep(POLL_SECONDS)

    def tail(self, node: int, lines: int = 20) -> str:
        """Return the last words of a node."""
        with contextlib.suppress(FileNotFoundError):
            text = self.nodes[node].output.read_text(errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""


def free_places(count: int) -> list[Ports]:
    """Return free loopback ports for `count` nodes."""
    ports = free_ports(3 * count)
    return [Ports(*ports[at : at + 3]) for at in range(0, 3 * count, 3)]


def write_secret(path: Path) -> None:
    """Write a new secret that only this user may read; an existing one is kept."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
