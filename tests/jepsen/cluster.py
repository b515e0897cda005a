"""The nodes: real `unimeter serve` processes, one at each place of the network.

Everything the harness knows of the command line stands here. A node is started
with its own data directory and the addresses of all; it is ended, stopped and
continued by its own process id and nothing else. A process that ends without
having been told to is kept in `ended`: that alone fails a run.

    place 1   unimeter serve --node-id 1 --bind A1 --port 7001 --http-port 9090
                             --peers 1=A1:7101,2=A2:7101,3=A3:7101 ...
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from tests.jepsen.networks import CLIENTS, Network, call_at

CLIENT_PORT: Final = 7001
PEER_PORT: Final = 7101
HTTP_PORT: Final = 9090
CLUSTER_ID: Final = "jepsen"
READY_SECONDS_MAX: Final = 60.0
LEADER_SECONDS_MAX: Final = 1.0
TAIL_BYTES: Final = 4000  # of a node's output, in the report
# A kill must not find everything in one segment and no snapshot: small ones, often.
SERVE_OPTIONS: Final = ("--segment-bytes", "4MiB", "--snapshot-log-bytes", "1MiB")


class NotSupportedError(Exception):
    """This build of the server cannot run such a cluster."""


class Cluster:
    """The processes of one run."""

    def __init__(self, network: Network, folder: Path, count: int, *options: str) -> None:
        self.network = network
        self.folder = folder
        self.count = count
        self.options = options or SERVE_OPTIONS
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.ended: list[str] = []  # nodes that ended by themselves, with their last words
        self.secret = folder / "cluster-secret"
        if count > 1:
            check_serve_knows_peers()
            self.secret.touch(mode=0o600)
            self.secret.write_text(secrets.token_hex(32) + "\n")

    # --- addresses and the command line --------------------------------------

    def seeds(self) -> list[str]:
        """Return what a client connects to."""
        return [self.seed(node) for node in self._nodes()]

    def seed(self, node: int) -> str:
        """Return one node's address for clients."""
        return f"{self.network.address(node)}:{CLIENT_PORT}"

    def command(self, node: int) -> list[str]:
        """Return the command that runs a node at its place."""
        address = self.network.address(node)
        command = [sys.executable, "-m", "unimeter", "serve"]
        command += ["--data-dir", str(self.folder / f"node-{node}"), "--bind", address]
        command += ["--port", str(CLIENT_PORT), "--http-port", str(HTTP_PORT)]
        command += ["--advertise", self.seed(node), "--insecure", *self.options]
        if self.count > 1:
            peers = [f"{n}={self.network.address(n)}:{PEER_PORT}" for n in self._nodes()]
            command += ["--node-id", str(node), "--cluster-id", CLUSTER_ID]
            command += ["--peers", ",".join(peers), "--cluster-secret-file", str(self.secret)]
        return self.network.command(node, command)

    # --- processes -----------------------------------------------------------

    def start(self, node: int) -> None:
        """Start a node if it does not run; do not wait until it is ready."""
        self._notice_ends()
        if node not in self.processes:
            with self.output(node).open("ab") as output:
                self.processes[node] = subprocess.Popen(
                    self.command(node), stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )

    def start_all(self) -> None:
        """Start every node and wait until each says that it is ready."""
        for node in self._nodes():
            self.start(node)
        self.wait_ready()

    def kill(self, node: int) -> None:
        """SIGKILL: no last words, nothing flushed."""
        self._notice_ends()
        process = self.processes.pop(node, None)
        if process is not None:
            process.kill()
            process.wait()

    def pause(self, node: int) -> None:
        """SIGSTOP: it holds its connections and says nothing."""
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: int) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self._signal(node, signal.SIGCONT)

    def close(self) -> None:
        """Kill every process that still runs, and forget the secret."""
        for node in list(self.processes):
            self.kill(node)
        self.secret.unlink(missing_ok=True)

    # --- what they say -------------------------------------------------------

    def wait_ready(self, seconds: float = READY_SECONDS_MAX) -> None:
        """Wait until every node says 200 to GET /ready; raise with its words if one does not."""
        give_up = time.monotonic() + seconds
        for node in self._nodes():
            while not self._is_ready(node):
                self._notice_ends()
                if node not in self.processes or time.monotonic() > give_up:
                    raise RuntimeError(f"node {node} did not become ready:\n{self.tail(node)}")
                time.sleep(0.05)

    def leader(self) -> int | None:
        """Return the leader that the nodes that answer name most, if any does."""
        if self.count == 1:
            return 1
        names: list[int] = []
        with contextlib.suppress(TimeoutError):
            call_at(self.network, CLIENTS, lambda: self._ask_leader(names), LEADER_SECONDS_MAX)
        return max(sorted(names), key=names.count) if names else None

    def _ask_leader(self, names: list[int]) -> None:
        from unimeter import Client, UnimeterError

        for seed in self.seeds():
            with contextlib.suppress(UnimeterError), contextlib.closing(Client([seed])) as client:
                partitions = client.status(timeout=LEADER_SECONDS_MAX / self.count).partitions
                leader = partitions[0].leader if partitions else 0
                if 1 <= leader <= self.count:
                    names.append(leader)

    def output(self, node: int) -> Path:
        """Return the file of what a node printed."""
        return self.folder / f"node-{node}.output"

    def tail(self, node: int) -> str:
        """Return a node's last words."""
        data = self.output(node).read_bytes() if self.output(node).exists() else b""
        return data[-TAIL_BYTES:].decode(errors="replace")

    def _nodes(self) -> range:
        return range(1, self.count + 1)

    def _is_ready(self, node: int) -> bool:
        url = f"http://{self.network.address(node)}:{HTTP_PORT}/ready"

        def ask() -> bool:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                with opener.open(url, timeout=1) as answer:
                    return bool(answer.status == 200)
            except urllib.error.HTTPError as refusal:
                refusal.close()  # it is the answer itself, with its socket
                return False

        try:
            return call_at(self.network, CLIENTS, ask, 3)
        except OSError:
            return False

    def _signal(self, node: int, number: signal.Signals) -> None:
        self._notice_ends()
        if node in self.processes:
            os.kill(self.processes[node].pid, number)

    def _notice_ends(self) -> None:
        for node, process in list(self.processes.items()):
            if process.poll() is not None:
                del self.processes[node]
                words = f"node {node} ended by itself with {process.returncode}"
                self.ended.append(f"{words}:\n{self.tail(node)}")


def check_serve_knows_peers() -> None:
    """Raise NotSupportedError where `unimeter serve` runs single nodes only."""
    words = subprocess.run(
        [sys.executable, "-m", "unimeter", "serve", "--help"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    if "--peers" not in words.stdout:
        raise NotSupportedError("`unimeter serve` has no --peers yet: use --nodes 1")
