"""Load on a cluster of real processes: SDK clients that are told nothing of its failures.

    with Load(cluster.addresses) as load:
        load.wait_for_each(10)           # ten more acknowledgements of every client
        cluster.kill(leader)
        load.wait_for_each(1)
    load.check(cluster)                  # no call failed, every total is what was acknowledged

Each client has an account of its own and sends events without ids, one batch after the
other: only the session tells a batch that was sent twice. Nothing waits for a time to pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from types import TracebackType

from unimeter import AggType, Client, Event, MetricSchema, Period
from unimeter.demo.cluster_process import ClusterProcess
from unimeter.storage.verify import verify

CLIENTS = 8
BATCH = 10
CALL_SECONDS = 10.0  # the deadline of a call, which none may miss
WAIT_SECONDS = 60.0
START = datetime(2026, 3, 1, tzinfo=timezone.utc)
MONTH = Period(START, START + timedelta(days=30))
CODE = "credits"


def make_metric(addresses: Sequence[str]) -> None:
    """Create the metric that the load is counted by."""
    with Client(list(addresses)) as client:
        client.metrics.create(MetricSchema(CODE, AggType.SUM))


class Sender(threading.Thread):
    """One client."""

    def __init__(self, load: Load, account: str) -> None:
        super().__init__(name=account, daemon=True)
        self.load, self.account = load, account
        self.batches = 0  # acknowledged
        self.acknowledged_at = time.monotonic()
        self.longest_pause = 0.0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with Client(self.load.addresses, timeout=CALL_SECONDS) as client:
                while not self.load.is_ending:
                    events = [Event(self.account, CODE, 7, START) for _ in range(self.load.batch)]
                    result = client.ingest(events)
                    assert result.n_refused == 0, result.refusals
                    assert result.n_stored + result.n_duplicates == self.load.batch
                    self._note()
        except BaseException as error:
            self.failure = error
            self.load.tell()

    def _note(self) -> None:
        now = time.monotonic()
        if self.batches:
            self.longest_pause = max(self.longest_pause, now - self.acknowledged_at)
        self.acknowledged_at = now
        self.batches += 1
        self.load.tell()


class Load:
    """All clients together, and what must be true of them."""

    def __init__(
        self, addresses: Sequence[str], clients: int = CLIENTS, batch: int = BATCH
    ) -> None:
        self.addresses = list(addresses)
        self.batch = batch
        self.is_ending = False
        self._changed = threading.Condition()
        self.senders = [Sender(self, f"team-{n}") for n in range(clients)]

    def __enter__(self) -> Load:
        for sender in self.senders:
            sender.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.is_ending = True
        for sender in self.senders:
            sender.join(2 * CALL_SECONDS)

    def tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for_each(self, batches: int) -> None:
        """Return when every client has had so many more acknowledgements."""
        wanted = [sender.batches + batches for sender in self.senders]

        def is_there() -> bool:
            self.check_failures()
            pairs = zip(self.senders, wanted, strict=True)
            return all(sender.batches >= least for sender, least in pairs)

        with self._changed:
            assert self._changed.wait_for(is_there, WAIT_SECONDS), "the clients do not go on"

    def check_failures(self) -> None:
        """No call of any client has failed."""
        failed = {one.account: one.failure for one in self.senders if one.failure is not None}
        assert not failed, failed

    @property
    def longest_pause(self) -> float:
        """Of any client, in seconds, between two acknowledgements."""
        return max(sender.longest_pause for sender in self.senders)

    @property
    def events(self) -> int:
        """Acknowledged, of all clients together."""
        return self.batch * sum(sender.batches for sender in self.senders)

    def check(self, cluster: ClusterProcess) -> None:
        """No call failed; each total is what was acknowledged, on every node and its disk."""
        self.check_failures()
        with Client(self.addresses, timeout=CALL_SECONDS) as client:
            for sender in self.senders:
                query = client.query(sender.account, CODE, MONTH, linearizable=True)
                count = self.batch * sender.batches
                assert (query.value.count, query.value.sum) == (count, 7 * count), sender.account
        cluster.wait_same_index()
        statuses = cluster.terminate()
        assert set(statuses.values()) == {0}, statuses
        for node in cluster.nodes.values():
            report = verify(str(node.directory))
            assert report.problems == []
            assert report.events == self.events
