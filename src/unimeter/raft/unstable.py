"""The end of the log that is not known to be durable yet.

Owns entries from the moment they are appended until the host's storage reports
them durable, and a received snapshot until it is stored. Refuses to trust a report
that does not name both term and index of what it is about: between a write and its
completion the same indexes can be overwritten, once or several times.

      durable, in Storage │ being written        │ not handed out
    ──────────────────────┼──────────────────────┼─────────────────
                          offset        in_progress            last + 1

`offset` may lie before the storage's last index: the next write then replaces a
suffix there. Keeping the suffix only in the storage and re-reading it was rejected:
every append of a follower is answered out of what is here.
"""

from __future__ import annotations

from collections.abc import Sequence

from unimeter.raft.messages import Entry, Snapshot


class Unstable:
    """Entries from `offset` on, and perhaps a snapshot just before them."""

    __slots__ = ("entries", "in_progress", "offset", "snapshot", "snapshot_in_progress")

    def __init__(self, offset: int) -> None:
        assert offset > 0
        self.snapshot: Snapshot | None = None
        self.snapshot_in_progress = False
        self.entries: list[Entry] = []  # entries[i] has index offset + i
        self.offset = offset
        self.in_progress = offset  # entries before this one were handed out to be written

    def maybe_term(self, index: int) -> int | None:
        """The term at an index, if it is here."""
        at = index - self.offset
        if at >= 0:
            return self.entries[at].term if at < len(self.entries) else None
        snapshot = self.snapshot
        if snapshot is not None and snapshot.meta.index == index:
            return snapshot.meta.term
        return None

    def next_entries(self) -> list[Entry]:
        """What is to be written and was not handed out yet."""
        return self.entries[self.in_progress - self.offset :]

    def has_next_entries(self) -> bool:
        return self.in_progress - self.offset < len(self.entries)

    def next_snapshot(self) -> Snapshot | None:
        return None if self.snapshot_in_progress else self.snapshot

    def accept_in_progress(self) -> None:
        """Mark all that is here as handed out."""
        self.in_progress = self.offset + len(self.entries)
        self.snapshot_in_progress = self.snapshot is not None

    def stable_to(self, index: int, term: int) -> bool:
        """Forget the entries up to this one, which are durable; False if it is not here any more.

        A completion of entries that were overwritten meanwhile names another term, or an
        index that is gone, and must change nothing: what stands here now is not durable.
        """
        at = index - self.offset
        if not 0 <= at < len(self.entries) or self.entries[at].term != term:
            return False
        del self.entries[: at + 1]
        self.offset = index + 1
        self.in_progress = max(self.in_progress, self.offset)
        return True

    def stable_snapshot_to(self, index: int) -> None:
        if self.snapshot is not None and self.snapshot.meta.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    def restore(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot."""
        self.offset = self.in_progress = snapshot.meta.index + 1
        self.entries = []
        self.snapshot = snapshot
        self.snapshot_in_progress = False

    def truncate_and_append(self, entries: Sequence[Entry]) -> None:
        """Put entries where their indexes belong, dropping what stood there and after."""
        first = entries[0].index
        assert first <= self.offset + len(self.entries), f"gap before entry {first}"
        if first == self.offset + len(self.entries):
            self.entries.extend(entries)
        elif first <= self.offset:
            self.entries = list(entries)
            self.offset = self.in_progress = first
        else:
            del self.entries[first - self.offset :]
            self.entries.extend(entries)
            # What was handed out from here on has been replaced: it must be written again.
            self.in_progress = min(self.in_progress, first)

    def withdraw(self, index: int) -> list[Entry]:
        """Drop the entries from an index on, handed out or not; return them."""
        assert index >= self.offset, f"entry {index} is durable"
        gone = self.entries[index - self.offset :]
        del self.entries[index - self.offset :]
        self.in_progress = min(self.in_progress, self.offset + len(self.entries))
        return gone

    def check_invariants(self) -> None:
        assert self.offset <= self.in_progress <= self.offset + len(self.entries)
        for at, entry in enumerate(self.entries):
            assert entry.index == self.offset + at, f"entry {entry.index} stands at {at}"
        if self.snapshot is not None:
            assert self.snapshot.meta.index < self.offset
