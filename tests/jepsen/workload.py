"""The workload: clients that add to a few counters and read them, and record all of it.

A counter is the SUM of one account; its key in the history is the account. A
client is one SDK client, which is one session to the checkers, used by
THREADS_PER_CLIENT threads, which are its processes. What each does is drawn
from the run's seed; when it happens is up to the machine.

How the SDK's answers are recorded:

    add    stored or duplicate        ok     counted, once
           refused                    fail   counted never
           any exception              info   nobody knows
    read   a total                    ok
           any exception              fail   it read nothing, and changed nothing

Half of the adds carry an id. One of those whose outcome is unknown is sent
again, as the same operation: the id makes that safe, and this is where it is
tested that it does. Exceptions that a fault does not explain (any that is not
the SDK's `UnimeterError`, or says that the caller must change something) are
bugs of the SDK or of this harness; they are kept, and fail the run.

Sizes are 1 to 5, because the counter's checker has to consider every way in
which unknown adds sum up to what was read.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final, Protocol

from tests.jepsen.networks import CLIENTS, Network
from tests.jepsen.recorder import Recorder

from unimeter import (
    LIFETIME,
    AggType,
    AlreadyExistsError,
    Client,
    ClientError,
    Event,
    MetricSchema,
    Period,
    SessionExpiredError,
    UnimeterError,
)

METRIC: Final = "jepsen"
EVER: Final = Period(
    datetime(2000, 1, 1, tzinfo=timezone.utc), datetime(2100, 1, 1, tzinfo=timezone.utc)
)
THREADS_PER_CLIENT: Final = 2
CALL_SECONDS_MAX: Final = 3.0  # longer than an election, shorter than most faults
RESENDS_MAX: Final = 3
SIZES: Final = (1, 2, 3, 4, 5)
PAUSE_SECONDS: Final = (0.0, 0.06)  # between two calls of a process
ADD_SHARE: Final = 0.5
LINEARIZABLE_SHARE: Final = 0.5  # of reads


class Meter(Protocol):
    """The part of the SDK's client that the workload uses."""

    def ingest(self, events: Any, *, timeout: float | None = None) -> Any:
        """Send events."""

    def query(
        self,
        account_id: Any,
        metric_code: str,
        period: Any,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Read a total."""

    def close(self) -> None:
        """Close connections."""


def create_metric(client: Client, timeout: float) -> None:
    """Make the metric that everything is added to."""
    try:
        client.metrics.create(MetricSchema(METRIC, AggType.SUM, period=LIFETIME), timeout=timeout)
    except AlreadyExistsError:
        pass  # an attempt whose answer was lost


def read_total(client: Meter, key: str, *, linearizable: bool, timeout: float) -> int:
    """Return a counter's total."""
    answer = client.query(int(key), METRIC, EVER, linearizable=linearizable, timeout=timeout)
    return int(answer.value.sum)


class Process:
    """What one thread of one client does."""

    def __init__(
        self, number: int, name: str, client: Meter, recorder: Recorder, chance: random.Random
    ) -> None:
        self.number = number
        self.name = name
        self.client = client
        self.recorder = recorder
        self.chance = chance
        self.errors: Counter[str] = Counter()  # that a fault explains, by name
        self.ids = 0

    def step(self, key: str) -> None:
        """Do one operation of a random kind."""
        if self.chance.random() < ADD_SHARE:
            self.add(key, self.chance.choice(SIZES), has_id=self.chance.random() < 0.5)
        else:
            self.read(key, linearizable=self.chance.random() < LINEARIZABLE_SHARE)

    def add(self, key: str, size: int, *, has_id: bool) -> None:
        """Add to a counter; with an id, ask again while the outcome is unknown."""
        self.ids += 1
        event_id = f"{self.number}-{self.ids}" if has_id else None
        event = Event(int(key), METRIC, size, id=event_id)
        self.recorder.record(self.number, self.name, "invoke", "add", key, size)
        for _ in range(RESENDS_MAX if has_id else 1):
            try:
                result = self.client.ingest([event], timeout=CALL_SECONDS_MAX)
            except UnimeterError as error:
                self._expect(error)
                continue
            is_counted = result.n_stored + result.n_duplicates == 1
            self.recorder.record(self.number, self.name, "ok" if is_counted else "fail", "add", key)
            return
        self.recorder.record(self.number, self.name, "info", "add", key)

    def read(self, key: str, *, linearizable: bool) -> None:
        """Read a counter."""
        who = self.number, self.name
        self.recorder.record(*who, "invoke", "read", key, linearizable=linearizable)
        try:
            total = read_total(
                self.client, key, linearizable=linearizable, timeout=CALL_SECONDS_MAX
            )
        except UnimeterError as error:
            self._expect(error)
            self.recorder.record(*who, "fail", "read", key, linearizable=linearizable)
        else:
            self.recorder.record(*who, "ok", "read", key, total, linearizable=linearizable)

    def _expect(self, error: UnimeterError) -> None:
        """Count an error that a fault explains; raise any other again."""
        if isinstance(error, ClientError) and not isinstance(error, SessionExpiredError):
            raise error
        self.errors[type(error).__name__] += 1


class Workload:
    """All clients; they run from `start` to `stop`."""

    def __init__(
        self,
        network: Network,
        recorder: Recorder,
        keys: list[str],
        *,
        seed: int,
        client_count: int,
        make_client: Callable[[], Meter],
    ) -> None:
        self.network = network
        self.recorder = recorder
        self.keys = keys
        self.seed = seed
        self.bugs: list[str] = []
        self.errors: Counter[str] = Counter()  # that faults explain, by name
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._clients = [make_client() for _ in range(client_count)]

    def start(self) -> None:
        """Start a thread for each process."""
        for number in range(len(self._clients) * THREADS_PER_CLIENT):
            thread = threading.Thread(target=self._run, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Let each process finish its operation; one that cannot is an error."""
        self._stop.set()
        for thread in self._threads:
            thread.join(RESENDS_MAX * CALL_SECONDS_MAX + 5)
            if thread.is_alive():
                self.bugs.append("a client did not return long after its deadline")
        for client in self._clients:
            client.close()

    def _run(self, number: int) -> None:
        index = number // THREADS_PER_CLIENT
        chance = random.Random(self.seed * 1_000_003 + number)
        name = f"client-{index}"
        process = Process(number, name, self._clients[index], self.recorder, chance)
        try:
            self.network.enter(CLIENTS)
            while not self._stop.wait(chance.uniform(*PAUSE_SECONDS)):
                process.step(chance.choice(self.keys))
        except Exception as error:  # not the SDK's own: a bug of it or of this harness
            self.bugs.append(f"process {number}: {type(error).__name__}: {error}")
        with self._lock:
            self.errors.update(process.errors)
