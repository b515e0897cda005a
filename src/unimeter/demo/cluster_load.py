"""The clients of the cluster's demonstration: they send all the time and never look away.

Each is a thread with an SDK client of its own and accounts of its own, so it always
knows what their totals must be, whatever the others do. It

- sends a batch of the four uses at a steady pace, and measures how long each call took;
- sends some payments a second time on purpose, under their ids: duplicates, not money;
- asks now and then for a balance it has just changed, half of the clients from any
  node: the answer must hold everything that was acknowledged to it.

A call that fails is a failure of the demonstration: the SDK has to outlast an election.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from unimeter import Client, Event, UnimeterError
from unimeter.demo.workload import (
    MONTH,
    Expected,
    Tags,
    api_events,
    compute_event,
    credit_event,
    seat_event,
)

BATCHES_PER_SECOND: Final = 25  # of each client
BATCH_REQUESTS: Final = 60  # things that happen; a call to a model is three events
CHECK_EVERY: Final = 5  # batches
RESENT_SHARE: Final = 0.3  # of batches, with payments that were sent before
REMEMBERED: Final = 200  # payments that may be sent again
CALL_SECONDS_MAX: Final = 30.0  # longer than any fault, so that the SDK itself outlasts it
MAKERS: Final = (api_events, compute_event, seat_event, credit_event)
WEIGHTS: Final = (20, 40, 20, 20)


@dataclass
class Counts:
    """What became of one client's calls."""

    events: int = 0  # acknowledged as stored
    resent: int = 0  # sent again on purpose
    duplicates: int = 0  # found by the cluster
    refused: int = 0
    checks: int = 0  # balances asked for
    wrong: list[str] = field(default_factory=list)  # and not as they must be
    failures: list[str] = field(default_factory=list)


class Sender(threading.Thread):
    """One client."""

    def __init__(self, number: int, addresses: list[str], seed: int, stop: threading.Event) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.number, self.addresses, self.stopping = number, addresses, stop
        self.chance = random.Random(f"{seed} {number}")
        self.counts = Counts()
        self.expected = Expected()
        self.calls: list[tuple[float, float]] = []  # (start, end), by time.monotonic
        self.call_began = 0.0  # of the one under way; 0 = none
        self._payments: deque[Event] = deque(maxlen=REMEMBERED)
        self._made = 0

    def run(self) -> None:
        """Send until told to stop."""
        reads = "any" if self.number % 2 else "leader"
        try:
            with Client(self.addresses, timeout=CALL_SECONDS_MAX, read_from=reads) as client:
                due = time.monotonic()
                while not self.stopping.wait(max(0.0, due - time.monotonic())):
                    self._send(client)
                    if len(self.calls) % CHECK_EVERY == 0:
                        self._check(client)
                    due = max(due + 1 / BATCHES_PER_SECOND, time.monotonic())
        except Exception as error:  # a thread that ends unseen would look like success
            self.counts.failures.append(f"{self.name} ended: {type(error).__name__}: {error}")

    def _send(self, client: Client) -> None:
        fresh = list(self._make_events())
        again = self._pick_payments()
        started = self.call_began = time.monotonic()
        try:
            result = client.ingest(fresh + again)
        except UnimeterError as error:
            self.counts.failures.append(f"{self.name}: {type(error).__name__}: {error}")
            return
        finally:
            self.call_began = 0.0
            self.calls.append((started, time.monotonic()))
        counts = self.counts
        counts.events += result.n_stored
        counts.duplicates += result.n_duplicates
        counts.refused += result.n_refused
        counts.resent += len(again)
        for event in fresh:
            self.expected.add(event)
        self._payments.extend(event for event in fresh if event.id is not None)

    def _make_events(self) -> Iterator[Event]:
        """The next things that happen to this client's accounts, in the order of their times."""
        for _ in range(BATCH_REQUESTS):
            self._made += 1
            (maker,) = self.chance.choices(MAKERS, WEIGHTS)
            at = MONTH.start + timedelta(milliseconds=self._made)
            for event in maker(self.chance, self._made, at):
                yield replace(event, account_id=f"{event.account_id}-of-{self.number}")

    def _pick_payments(self) -> list[Event]:
        if not self._payments or self.chance.random() > RESENT_SHARE:
            return []
        # Each at most once in a call: which of two equal ones is the duplicate is no matter here.
        count = min(3, len(self._payments))
        return self.chance.sample(list(self._payments), count)

    def _check(self, client: Client) -> None:
        """Ask for a balance just changed; it must hold all that was acknowledged."""
        if not self._payments:
            return
        account = self._payments[-1].account_id
        must = self.expected.sums["credits", account, Tags()]
        try:
            found = client.query(account, "credits", MONTH).value.sum
        except UnimeterError as error:
            self.counts.failures.append(f"{self.name}: query: {type(error).__name__}: {error}")
            return
        self.counts.checks += 1
        if found != must:
            self.counts.wrong.append(f"{account}: credits {found}, acknowledged {must}")


class Load:
    """All clients together."""

    def __init__(self, addresses: list[str], seed: int, count: int) -> None:
        self._stop = threading.Event()
        self.senders = [Sender(number, addresses, seed, self._stop) for number in range(count)]

    def start(self) -> None:
        """Begin to send."""
        for sender in self.senders:
            sender.start()

    def stop(self) -> None:
        """Let every call under way end, and no other begin."""
        self._stop.set()
        for sender in self.senders:
            sender.join(2 * CALL_SECONDS_MAX)
            assert not sender.is_alive(), f"{sender.name} did not end"

    @property
    def counts(self) -> Counts:
        """The sum of all."""
        every = [sender.counts for sender in self.senders]
        return Counts(
            events=sum(one.events for one in every),
            resent=sum(one.resent for one in every),
            duplicates=sum(one.duplicates for one in every),
            refused=sum(one.refused for one in every),
            checks=sum(one.checks for one in every),
            wrong=[line for one in every for line in one.wrong],
            failures=[line for one in every for line in one.failures],
        )

    def longest_call(self, began: float, ended: float) -> float:
        """Return the seconds of the longest call that overlapped a stretch of time."""
        now = time.monotonic()
        longest = 0.0
        for sender in self.senders:
            calls = [call for call in list(sender.calls) if call[1] >= began and call[0] <= ended]
            open_since = sender.call_began
            if open_since and open_since <= ended:
                calls.append((open_since, now))
            longest = max([longest, *(end - start for start, end in calls)])
        return longest

    def expected(self) -> Expected:
        """Return what all totals must be; accounts of different clients are different."""
        total = Expected()
        for sender in self.senders:
            total.sums.update(sender.expected.sums)
            total.members.update(sender.expected.members)
        return total
