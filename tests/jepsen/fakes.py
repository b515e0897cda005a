"""Fakes for the harness's own tests: a meter in memory, nodes that are only noted down."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.jepsen.networks import Cut, Loopback

from unimeter import AggValue, DeadlineExceededError, Event, IngestResult, UsageResult


@dataclass
class FakeState:
    """What all clients of one fake cluster share."""

    totals: dict[int, int] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class FakeMeter:
    """Counts right, except for what its faults say, one word a call: then "" for ever.

    "before" and "after": the deadline passes before or after it was counted.
    "lose": it says stored, and does not count. "refuse": it says refused.
    """

    def __init__(self, state: FakeState, faults: Iterator[str] | None = None) -> None:
        self.state = state
        self.faults = faults or iter(())
        self.sent: list[Event] = []

    def ingest(self, events: Sequence[Event], *, timeout: float | None = None) -> IngestResult:
        """Count one event."""
        (event,) = events
        self.sent.append(event)
        fault = next(self.faults, "")
        if fault == "before":
            raise DeadlineExceededError("before")
        if fault == "refuse":
            return IngestResult(0, 0, 0, n_refused=1)
        with self.state.lock:
            if event.id is not None and event.id in self.state.ids:
                return IngestResult(0, 1, 0)
            self.state.ids |= {event.id} if event.id is not None else set()
            if fault != "lose":
                account = int(event.account_id)
                self.state.totals[account] = self.state.totals.get(account, 0) + event.value
        if fault == "after":
            raise DeadlineExceededError("after")
        return IngestResult(1, 0, 0)

    def query(
        self,
        account_id: Any,
        metric_code: str,
        period: Any,
        *,
        linearizable: bool = False,
        timeout: float | None = None,
    ) -> UsageResult:
        """Return a total."""
        if next(self.faults, "") == "before":
            raise DeadlineExceededError("before")
        with self.state.lock:
            return UsageResult(AggValue(sum=self.state.totals.get(int(account_id), 0)))

    def close(self) -> None:
        """Nothing to close."""


class FakeNodes:
    """Notes what is done to nodes; `running` and `paused` say what came of it."""

    def __init__(self, count: int, leader: int | None = None) -> None:
        self.count = count
        self.running = set(range(1, count + 1))
        self.paused: set[int] = set()
        self.deeds: list[str] = []
        self._leader = leader

    def leader(self) -> int | None:
        """Return the node that was said to lead."""
        return self._leader

    def kill(self, node: int) -> None:
        """Note it."""
        self.deeds.append(f"kill {node}")
        self.running.discard(node)
        self.paused.discard(node)

    def start(self, node: int) -> None:
        """Note it."""
        self.deeds.append(f"start {node}")
        self.running.add(node)

    def pause(self, node: int) -> None:
        """Note it."""
        self.deeds.append(f"pause {node}")
        self.paused |= {node} & self.running

    def resume(self, node: int) -> None:
        """Note it."""
        self.deeds.append(f"resume {node}")
        self.paused.discard(node)


class FakeNetwork(Loopback):
    """Can do everything, and does nothing."""

    can_cut = True
    can_slow = True

    def __init__(self) -> None:
        super().__init__("a fake")
        self.cuts: set[Cut] = set()
        self.slow: set[int] = set()

    def set_cuts(self, cuts: set[Cut]) -> None:
        """Note it."""
        self.cuts = cuts

    def set_slow(self, places: set[int]) -> None:
        """Note it."""
        self.slow = places
