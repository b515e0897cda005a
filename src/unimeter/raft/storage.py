"""What the core reads of a log that is already durable, and a log in memory for tests.

Owns the reading side of the contract between core and host. Writing is not here:
the core hands out what to write in `Ready`, and the host writes it with its own
storage, which then has to answer these questions from what is durable.

    compacted │ first_index ......... last_index │ not there
    ──────────┴──────────────────────────────────┴──────────
              ▲ term(first_index - 1) is still known: an append is matched against it

`Compacted` and `Unavailable` are exceptions although the world says no here, not
our code: they are rare, and the common answer stays a bare integer or list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from unimeter.raft.messages import (
    NO_LIMIT,
    ConfState,
    Entry,
    HardState,
    Snapshot,
    SnapshotMeta,
    entry_size,
)


class Compacted(Exception):
    """The entry is gone, included in a snapshot."""


class Unavailable(Exception):
    """The entry is not there yet."""


class SnapshotTemporarilyUnavailable(Exception):
    """A snapshot is not ready; the core asks again after the next heartbeat."""


class Storage(Protocol):
    """The durable log, as the core reads it. Each answer must hold until the host changes it."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        """The state of the last run, and the voters if they are stored."""

    def first_index(self) -> int:
        """Index of the first entry that `entries` can return; last_index + 1 when there is none."""

    def last_index(self) -> int:
        """Index of the last entry, or of the snapshot when there is none."""

    def term(self, index: int) -> int:
        """Term of an entry in [first_index - 1, last_index]; Compacted or Unavailable elsewhere."""

    def entries(self, low: int, high: int, max_size: int) -> Sequence[Entry]:
        """The entries [low, high), cut where their sizes exceed `max_size`, but at least one."""

    def snapshot(self) -> Snapshot:
        """The newest snapshot, or SnapshotTemporarilyUnavailable."""


def limit_size(entries: Sequence[Entry], max_size: int) -> Sequence[Entry]:
    """The longest beginning whose sizes sum to at most `max_size`, but at least one entry."""
    if max_size == NO_LIMIT or len(entries) < 2:
        return entries
    size = 0
    for count, entry in enumerate(entries):
        size += entry_size(entry)
        if size > max_size and count:
            return entries[:count]
    return entries


class MemoryStorage:
    """A durable log that is a list: for tests and the simulator. Writes are at once."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self._snapshot = Snapshot(SnapshotMeta())
        self._before = SnapshotMeta()  # the entry before the first one
        self._entries: list[Entry] = []

    def initial_state(self) -> tuple[HardState, ConfState]:
        return self.hard_state, ConfState(self._snapshot.meta.voters)

    def first_index(self) -> int:
        return self._before.index + 1

    def last_index(self) -> int:
        return self._before.index + len(self._entries)

    def term(self, index: int) -> int:
        at = index - self._before.index
        if at < 0:
            raise Compacted(index)
        if at > len(self._entries):
            raise Unavailable(index)
        return self._entries[at - 1].term if at else self._before.term

    def entries(self, low: int, high: int, max_size: int) -> Sequence[Entry]:
        first = self._before.index + 1
        if low < first:
            raise Compacted(low)
        assert high <= self.last_index() + 1, f"entries up to {high} of {self.last_index()}"
        return limit_size(self._entries[low - first : high - first], max_size)

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries, replacing what is stored from the first of them on."""
        first = self._before.index + 1
        if entries and entries[0].index < first:
            entries = entries[first - entries[0].index :]
        if not entries:
            return
        keep = entries[0].index - first
        assert keep <= len(self._entries), f"gap before {entries[0].index}"
        del self._entries[keep:]
        self._entries.extend(entries)

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot; an older one than ours is ignored."""
        if snapshot.meta.index < self._snapshot.meta.index:
            return
        self._snapshot = snapshot
        self._before = snapshot.meta
        self._entries = []

    def make_snapshot(self, index: int, voters: tuple[int, ...], data: object | None) -> Snapshot:
        """Remember the state at an index as the newest snapshot; the log stays as it is."""
        assert self._snapshot.meta.index <= index <= self.last_index()
        self._snapshot = Snapshot(SnapshotMeta(index, self.term(index), voters), data)
        return self._snapshot

    def compact(self, index: int) -> None:
        """Drop the entries up to and with `index`."""
        if index <= self._before.index:
            raise Compacted(index)
        assert index <= self.last_index(), f"compact to {index} of {self.last_index()}"
        before = SnapshotMeta(index, self.term(index), ())
        del self._entries[: index - self._before.index]
        self._before = before
