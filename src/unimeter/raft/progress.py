"""What a leader knows of one node's log, and how fast it may send to it.

Owns the three ways of sending and the window of what is on its way:

    Probe      one MsgApp with entries per heartbeat, until it is known where the logs part
    Replicate  entries as they come, up to the window; `next` runs ahead of the answers
    Snapshot   nothing: the entries needed are compacted, a snapshot is on its way

               accepted                    rejected, unreachable
    Probe ───────────────► Replicate ────────────────────────────► Probe
      │ entries compacted      │
      └──────► Snapshot ◄──────┘        Snapshot ──► Probe: arrived, or failed

Refuses to send: `replication` does, and asks here whether it may.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Final


class ProgressState(IntEnum):
    """How a leader sends to a node."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2

    def __str__(self) -> str:
        return f"State{self.name.capitalize()}"


PROBE: Final = ProgressState.PROBE
REPLICATE: Final = ProgressState.REPLICATE
SNAPSHOT: Final = ProgressState.SNAPSHOT


class Inflights:
    """The appends with entries that wait for an answer: last index and bytes of each, in order."""

    __slots__ = ("_window", "bytes", "bytes_max", "count_max")

    def __init__(self, count_max: int, bytes_max: int) -> None:
        assert count_max > 0 and bytes_max > 0
        self.count_max = count_max
        self.bytes_max = bytes_max
        self.bytes = 0
        self._window: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._window)

    def is_full(self) -> bool:
        return len(self._window) >= self.count_max or self.bytes >= self.bytes_max

    def add(self, index: int, size: int) -> None:
        assert not self.is_full(), "an append beyond the window"
        assert not self._window or self._window[-1][0] < index
        self._window.append((index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """Forget the appends whose last entry is at most this one: it was acknowledged."""
        window = self._window
        while window and window[0][0] <= index:
            self.bytes -= window.popleft()[1]

    def clear(self) -> None:
        self._window.clear()
        self.bytes = 0


class Progress:
    """One node as its leader sees it."""

    __slots__ = (
        "flow_paused",
        "inflights",
        "match",
        "next",
        "pending_snapshot",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(self, match: int, next_index: int, inflights: Inflights) -> None:
        self.match = match  # equal to ours up to here, and durable there
        self.next = next_index  # first entry to send; match < next
        self.sent_commit = 0  # highest commit index on its way
        self.state = PROBE
        self.pending_snapshot = 0  # index of the snapshot on its way
        self.recent_active = False  # heard from since the last check of the quorum
        self.flow_paused = False  # wait for an answer or a heartbeat's before sending again
        self.inflights = inflights

    def _enter(self, state: ProgressState) -> None:
        self.flow_paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.clear()

    def become_probe(self) -> None:
        """Send one append and wait; after a snapshot that arrived, begin behind it."""
        pending = self.pending_snapshot if self.state is SNAPSHOT else 0
        self._enter(PROBE)
        self.next = max(self.match, pending) + 1
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        self._enter(REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        self._enter(SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def sent_entries(self, count: int, size: int) -> None:
        """Note an append that was sent, with `count` entries from `next` on."""
        if self.state is REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            # At the window's end an append is a probe: one, then wait.
            self.flow_paused = self.inflights.is_full()
        else:
            assert self.state is PROBE
            if count:
                self.flow_paused = True

    def can_bump_commit(self, commit: int) -> bool:
        """Whether sending this commit index could tell the node anything new."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    def maybe_update(self, index: int) -> bool:
        """Note an acknowledged index; False when it is old news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.flow_paused = False
        return True

    def maybe_decrease(self, rejected: int, hint: int) -> bool:
        """Step back after a refused append; False when the refusal is out of date."""
        if self.state is REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
        else:
            # A probe goes out alone, so a genuine refusal is of exactly the entry before next.
            if self.next - 1 != rejected:
                return False
            self.next = max(min(rejected, hint + 1), self.match + 1)
            self.flow_paused = False
        self.sent_commit = min(self.sent_commit, self.next - 1)
        return True

    def is_paused(self) -> bool:
        return self.flow_paused or self.state is SNAPSHOT

    def check_invariants(self) -> None:
        assert self.match < self.next
        assert self.inflights.bytes >= 0
        assert self.state is REPLICATE or not len(self.inflights)

    def __str__(self) -> str:
        words = [str(self.state), f"match={self.match}", f"next={self.next}"]
        if self.is_paused():
            words.append("paused")
        if self.pending_snapshot:
            words.append(f"pendingSnap={self.pending_snapshot}")
        if not self.recent_active:
            words.append("inactive")
        if len(self.inflights):
            full = "[full]" if self.inflights.is_full() else ""
            words.append(f"inflight={len(self.inflights)}{full}")
        return " ".join(words)
