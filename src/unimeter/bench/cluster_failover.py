"""How long a client waits when the leader dies.

Eight SDK clients, each a thread with an account of its own, ingest one event after the
other. The leader is ended by SIGKILL; every client goes on until it has had an
acknowledgement well after it. What counts is the longest time between two successive
acknowledgements of one client, retries of the SDK included: that is what its program sees.
Then the node is started again, and the next round kills whoever leads by then.

A killed process is noticed at once, because its host refuses connections. A host that is
gone says nothing at all; for that stands a second kind of round, in which the leader is
stopped by SIGSTOP and killed only after the clients have gone on without it.

A round counts only if every call ended with its event stored, or a duplicate of itself, and
in the end each account's total on each node is the number of its acknowledgements.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from unimeter import Client, Event
from unimeter.bench.cluster_nodes import Group, running_group
from unimeter.bench.frames import METRICS
from unimeter.bench.load import LoadError
from unimeter.bench.node import MeasuredNode
from unimeter.bench.report import Figure
from unimeter.bench.scenarios import Settings
from unimeter.periods import today_utc, yesterday_utc
from unimeter.types import Period

CLIENTS: Final = 8
ROUNDS: Final = 5
CALM_SECONDS: Final = 1.0  # of load before the kill, and of acknowledgements after it
CALL_SECONDS_MAX: Final = 30.0
CODE: Final = METRICS[0].code  # counts events
WAYS: Final[list[tuple[signal.Signals, str, float | None]]] = [
    (signal.SIGKILL, "killed", 1.5),
    (signal.SIGSTOP, "silent", None),
]


@dataclass
class Payer:
    """One client's thread, and when each of its events was acknowledged."""

    account: int
    seeds: list[str]
    stopping: threading.Event
    acknowledged: list[float] = field(default_factory=list)
    error: Exception | None = None

    def run(self) -> None:
        """Ingest until told to stop; the error that ended it otherwise is kept."""
        try:
            with Client(self.seeds, timeout=CALL_SECONDS_MAX) as client:
                while not self.stopping.is_set():
                    result = client.ingest([Event(self.account, CODE)])
                    if result.n_stored + result.n_duplicates != 1:
                        raise LoadError(f"account {self.account}: an event got {result}")
                    self.acknowledged.append(time.monotonic())
        except Exception as error:  # told to the thread that waits
            self.error = error

    def longest_pause(self, since: float) -> float:
        """Seconds between two acknowledgements, of which the second came after `since`."""
        pairs = itertools.pairwise(self.acknowledged)
        return max((late - early for early, late in pairs if late > since), default=0.0)


class Crowd:
    """All clients together."""

    def __init__(self, group: Group, clients: int) -> None:
        seeds = [node.address for node in group.nodes]
        self._stopping = threading.Event()
        self.payers = [Payer(1 + n, seeds, self._stopping) for n in range(clients)]
        self._threads = [threading.Thread(target=payer.run) for payer in self.payers]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_beyond(self, moment: float) -> None:
        """Return once each has an acknowledgement later than `moment`."""
        give_up = moment + 2 * CALL_SECONDS_MAX
        for payer in self.payers:
            while not (payer.acknowledged and payer.acknowledged[-1] > moment):
                if payer.error is not None:
                    raise LoadError(f"a client gave up: {payer.error}") from payer.error
                if time.monotonic() > give_up:
                    raise LoadError("a client got no acknowledgement")
                time.sleep(0.01)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def lose_leader(group: Group, crowd: Crowd, calm: float, number: signal.Signals) -> float:
    """One round, with SIGKILL or SIGSTOP: the longest pause that any client saw."""
    crowd.wait_beyond(time.monotonic() + calm)
    leader = group.leader
    lost = time.monotonic()
    os.kill(leader.pid, number)
    # A pause that began before this moment ends with the acknowledgement waited for here.
    crowd.wait_beyond(lost + calm)
    pause = max(payer.longest_pause(lost) for payer in crowd.payers)
    leader.kill()
    leader.start()
    return pause


def check_payers(node: MeasuredNode, crowd: Crowd) -> None:
    """LoadError unless each account's total on this node is what was acknowledged."""
    period = Period(yesterday_utc().start, today_utc().end)
    with Client([node.address]) as client:
        for payer in crowd.payers:
            found = client.query(payer.account, CODE, period).value.count
            if found != len(payer.acknowledged):
                raise LoadError(
                    f"account {payer.account}: {len(payer.acknowledged)} acknowledged, "
                    f"{found} in total on {node.address}"
                )


def failover(settings: Settings, rounds: int = ROUNDS, calm: float = CALM_SECONDS) -> list[Figure]:
    """Lose the leader `rounds` times in each of two ways, under the load of eight clients."""
    figures = []
    with running_group(settings, 3) as group:
        crowd = Crowd(group, CLIENTS)
        crowd.start()
        try:
            for number, what, target in WAYS:
                pauses = [lose_leader(group, crowd, calm, number) for _ in range(rounds)]
                figures += describe(pauses, what, target)
        finally:
            crowd.stop()
        group.wait_level()
        for node in group.nodes:
            check_payers(node, crowd)
    return figures


def describe(pauses: list[float], what: str, target: float | None) -> list[Figure]:
    """The best, the median and the worst round."""
    name = f"leader {what}, {CLIENTS} clients: longest pause of any"
    note = f"{len(pauses)} times; every event counted once, on every node"
    return [
        Figure(f"{name}: best", min(pauses), "s"),
        Figure(f"{name}: median", median(pauses), "s"),
        Figure(f"{name}: worst", max(pauses), "s", target, False, note),
    ]
