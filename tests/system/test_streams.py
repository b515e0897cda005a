"""Streams through kills of their readers and of the leader: every alert once, in order."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from unimeter import AggType, AlertThreshold, Client, Event, MetricSchema
from unimeter.demo.cluster_process import ClusterProcess

READER = Path(__file__).with_name("stream_reader.py")
READER_KILLS = 100
LEADER_KILLS = 10
BATCH = 4
CALL_SECONDS = 30.0


class Crossings(threading.Thread):
    """Sends events that each cross a threshold, of an account of its own."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__(daemon=True)
        self.addresses = addresses
        self.sent = 0
        self.ending = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with Client(self.addresses, timeout=CALL_SECONDS) as client:
                while not self.ending.is_set():
                    accounts = range(self.sent, self.sent + BATCH)
                    client.ingest([Event(account, "credits", 100) for account in accounts])
                    self.sent += BATCH
                    self.ending.wait(0.01)  # a pace, not a wait for something
        except BaseException as error:
            self.failure = error


class LeaderKiller(threading.Thread):
    """Kills whoever leads, and starts it again, so many times."""

    def __init__(self, cluster: ClusterProcess) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.kills = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while self.kills < LEADER_KILLS:
                leader = self.cluster.wait_leader()
                self.cluster.kill(leader)
                self.kills += 1
                self.cluster.wait_leader(other_than=leader)
                self.cluster.restart(leader)
        except BaseException as error:
            self.failure = error


class Readers:
    """One reader after the other, each with the place at which the one before was killed."""

    def __init__(self, kind: str, addresses: list[str], seed: int) -> None:
        self.kind, self.addresses, self.chance = kind, addresses, random.Random(seed)
        self.place = "0.0"
        self.positions: list[int] = []
        self.kills = 0

    def run(self, alerts: int, last: int = 0) -> None:
        """Let one reader see `alerts` alerts, or all up to the position `last`; kill it."""
        shift = self.chance.randrange(len(self.addresses))
        command = [sys.executable, str(READER), self.kind, self.place, str(shift), *self.addresses]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            seen = 0
            for line in process.stdout:
                seen += self._take(line)
                if seen >= alerts or (last and self.positions and self.positions[-1] >= last):
                    break
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:  # what it had said before
                self._take(line)
        self.kills += 1

    def _take(self, line: str) -> int:
        if not line.endswith("\n"):
            return 0  # it was killed in the middle of the line
        word, *rest = line.split()
        self.place = rest[-1]
        if word == "A":
            self.positions.append(int(rest[0]))
        return word == "A"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sse", "watch"])
def test_killed_readers_see_every_alert_once_while_leaders_are_killed(
    kind: str, tmp_path: Path
) -> None:
    with ClusterProcess(tmp_path / "c") as cluster:
        with Client(cluster.addresses, timeout=CALL_SECONDS) as client:
            schema = MetricSchema("credits", AggType.SUM, thresholds=[AlertThreshold("full", 100)])
            client.metrics.create(schema)
        load, killer = Crossings(cluster.addresses), LeaderKiller(cluster)
        load.start()
        killer.start()
        addresses = cluster.addresses
        if kind == "sse":
            addresses = [f"127.0.0.1:{place.http}" for place in cluster.ports]
        readers = Readers(kind, addresses, seed=5)
        while readers.kills < READER_KILLS or killer.is_alive():
            readers.run(readers.chance.randrange(1, 40))
        load.ending.set()
        load.join(2 * CALL_SECONDS)
        assert load.failure is None and killer.failure is None, (load.failure, killer.failure)
        # Each event crossed once; a batch whose acknowledgement was lost was counted once.
        if readers.positions[-1] < load.sent:  # else the one before saw the last of them
            readers.run(10**9, last=load.sent)
        assert killer.kills == LEADER_KILLS
        assert readers.positions == list(range(1, load.sent + 1))
