"""One node's log: what is durable and what is not, as one sequence; commit and apply.

Owns the question "which entry stands at this index" and the three marks below, and
with them the rule that a committed entry never changes. Refuses to decide *when* an
entry is committed: that is the leader's, who counts copies.

    │ compacted │ durable (Storage) │ unstable (memory) │
    ────────────┴──────────┬────────┴──────────┬────────┘
       applied ≤ applying ≤ committed   ≤   last_index

An entry between `committed` and `last_index` may still be replaced; `append` is the
only place that does it, and asserts that it never reaches a committed one.

`last_index`, `last_term` and the index from which on that term is known are plain
attributes, not questions to the storage: nearly every message asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unimeter.errors import DataError
from unimeter.raft.messages import NO_LIMIT, Entry, HardState, Snapshot
from unimeter.raft.storage import Compacted, Storage, Unavailable
from unimeter.raft.unstable import Unstable


class RaftLog:
    """The log of one node."""

    __slots__ = (
        "applied",
        "applying",
        "applying_paused",
        "applying_size",
        "applying_size_max",
        "committed",
        "entry_size",
        "last_index",
        "last_term",
        "same_term_from",
        "storage",
        "unstable",
    )

    def __init__(
        self, storage: Storage, applying_size_max: int, entry_size: Callable[[Entry], int]
    ) -> None:
        self.storage = storage
        self.entry_size = entry_size
        self.last_index = storage.last_index()
        self.last_term = storage.term(self.last_index)
        # All entries from here to the last one have the last one's term.
        self.same_term_from = self.last_index
        self.unstable = Unstable(self.last_index + 1)
        before = storage.first_index() - 1
        self.committed = before  # never decreases
        self.applying = before  # handed out to be applied
        self.applied = before  # reported applied
        # Sizes of what is handed out and not reported applied yet.
        self.applying_size = 0
        self.applying_size_max = applying_size_max
        self.applying_paused = False

    def load(self, state: HardState, applied: int) -> None:
        """Take up the marks of the last run.

        The stored commit index may be older than the truth, since it is not synced for its
        own sake; that something was compacted or applied proves that it was committed.
        """
        committed = max(state.commit, applied, self.committed)
        if committed > self.last_index:
            raise DataError(
                f"entries up to {committed} were committed, and the log ends at "
                f"{self.last_index}: entries that were durable are lost"
            )
        self.committed = committed
        if applied:
            self.applied_to(applied, 0)

    # Reading

    def term(self, index: int) -> int:
        """The term at an index; raises Compacted or Unavailable outside of the log."""
        if self.same_term_from <= index <= self.last_index:
            return self.last_term
        known = self.unstable.maybe_term(index)
        if known is not None:
            return known
        if index > self.last_index:
            raise Unavailable(index)
        if index + 1 < self.first_index():
            raise Compacted(index)
        return self.storage.term(index)

    def term_or_zero(self, index: int) -> int:
        """The term at an index, 0 where there is none."""
        try:
            return self.term(index)
        except (Compacted, Unavailable):
            return 0

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at an index has this term; then all before it are equal, §5.3."""
        try:
            return self.term(index) == term
        except (Compacted, Unavailable):
            return False

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends like this may lead a node with this one, §5.4.1."""
        return term > self.last_term or (term == self.last_term and index >= self.last_index)

    def first_index(self) -> int:
        snapshot = self.unstable.snapshot
        return self.storage.first_index() if snapshot is None else snapshot.meta.index + 1

    def has_entries(self) -> bool:
        """Whether there is more than what a snapshot covers."""
        return self.last_index >= self.first_index()

    def snapshot(self) -> Snapshot:
        return self.unstable.snapshot or self.storage.snapshot()

    def entries_from(self, index: int, max_size: int) -> Sequence[Entry]:
        """Entries from an index on, at least one if there is one, within a size."""
        if index > self.last_index:
            return ()
        return self.slice(index, self.last_index + 1, max_size)

    def slice(self, low: int, high: int, max_size: int) -> Sequence[Entry]:
        """The entries [low, high) within a size, but at least one; raises Compacted."""
        unstable = self.unstable
        offset = unstable.offset
        assert low < high <= self.last_index + 1, f"[{low}, {high}) of {self.last_index}"
        if low >= offset:
            return self._limited(unstable.entries[low - offset : high - offset], max_size)
        if low < self.first_index():
            raise Compacted(low)
        stored = self.storage.entries(low, min(high, offset), max_size)
        stored = self._limited(stored, max_size)
        if high <= offset or len(stored) < offset - low:
            return stored
        both = [*stored, *unstable.entries[: high - offset]]
        return self._limited(both, max_size)

    def _limited(self, entries: Sequence[Entry], max_size: int) -> Sequence[Entry]:
        if len(entries) < 2 or max_size == NO_LIMIT:
            return entries
        left = max_size
        for count, entry in enumerate(entries):
            left -= self.entry_size(entry)
            if left < 0 and count:
                return entries[:count]
        return entries

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """The last (index, term) at or before `index` whose term is at most `term`.

        A guess where this log and another part, knowing one entry of the other: whatever
        has a higher term here can't be in the other before that entry. Term 0: unknown.
        """
        while index > 0:
            try:
                ours = self.term(index)
            except (Compacted, Unavailable):
                return index, 0
            if ours <= term:
                return index, ours
            index -= 1
        return 0, 0

    # Writing

    def maybe_append(
        self, index: int, log_term: int, committed: int, entries: Sequence[Entry]
    ) -> int | None:
        """Take a leader's entries after (index, log_term); the last index now equal to its log.

        None when our log does not have that entry: the caller has nothing to lean on.
        Nothing is removed unless an entry *conflicts*: a late, shorter append must not
        cut off entries that a newer one brought and that were acknowledged.
        """
        if not self.matches(index, log_term):
            return None
        last_checked = index + len(entries)
        at = self._first_new(entries)
        if at < len(entries):
            self.append(entries if at == 0 else entries[at:])
        # What follows the last entry checked may be another leader's: never commit past it.
        self.commit_to(min(committed, last_checked))
        return last_checked

    def _first_new(self, entries: Sequence[Entry]) -> int:
        """Position of the first entry that is missing or conflicts here."""
        for at, entry in enumerate(entries):
            if entry.index > self.last_index or not self.matches(entry.index, entry.term):
                return at
        return len(entries)

    def check_committed(self, entries: Sequence[Entry]) -> None:
        """Assert that a leader's entries are the ones that are committed here.

        They are, if its election was right (leader completeness, §5.4.3). If it was not, this
        is the last place where that can be seen before two nodes apply different entries.
        """
        for entry in entries:
            if entry.index > self.committed:
                return
            known = self.term_or_zero(entry.index)  # 0: compacted
            assert known in (0, entry.term), (
                f"entry {entry.index} of term {entry.term} would replace a committed one "
                f"of term {known}"
            )

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries at their indexes; a committed one is never replaced."""
        first, last = entries[0], entries[-1]
        assert first.index > self.committed, (
            f"entry {first.index} would replace a committed one (committed to {self.committed})"
        )
        assert first.index <= self.last_index + 1
        follows = first.index == self.last_index + 1 and first.term == self.last_term
        self.unstable.truncate_and_append(entries)
        if first.term != last.term:
            self.same_term_from = next(e.index for e in entries if e.term == last.term)
        elif not follows:
            self.same_term_from = first.index
        self.last_index, self.last_term = last.index, last.term

    def withdraw(self, index: int) -> Sequence[Entry]:
        """End the log before an entry that is not durable; return what is gone."""
        assert index > self.committed, f"entry {index} is committed"
        gone = self.unstable.withdraw(index)
        if gone:
            self.last_index = index - 1
            self.last_term = self.unstable.maybe_term(index - 1) or self.storage.term(index - 1)
            # Where its term begins is not known any more; it is looked up.
            self.same_term_from = min(self.same_term_from, index - 1)
            if self.last_term != gone[0].term:
                self.same_term_from = index - 1
        return gone

    def restore(self, snapshot: Snapshot) -> None:
        """Replace the log by a snapshot that is ahead of it."""
        assert snapshot.meta.index > self.committed
        self.committed = snapshot.meta.index
        self.unstable.restore(snapshot)
        self.last_index, self.last_term = snapshot.meta.index, snapshot.meta.term
        self.same_term_from = self.last_index

    def commit_to(self, index: int) -> None:
        """Raise the commit index; a lower one is old news."""
        if index > self.committed:
            assert index <= self.last_index, f"commit {index} past the last index {self.last_index}"
            self.committed = index

    # Applying

    def next_committed(self, allow_unstable: bool) -> Sequence[Entry]:
        """What can be applied now, within the limit on entries being applied."""
        if not self.has_next_committed(allow_unstable):
            return ()
        high = self._appliable(allow_unstable) + 1
        return self.slice(self.applying + 1, high, self.applying_size_max - self.applying_size)

    def has_next_committed(self, allow_unstable: bool) -> bool:
        # A snapshot that is not stored yet comes first: it replaces what would be applied.
        if self.applying_paused or self.unstable.snapshot is not None:
            return False
        return self.applying < self._appliable(allow_unstable)

    def _appliable(self, allow_unstable: bool) -> int:
        if allow_unstable:
            return self.committed
        return min(self.committed, self.unstable.offset - 1)

    def accept_applying(self, entries: Sequence[Entry], allow_unstable: bool) -> None:
        """Mark entries as handed out to be applied."""
        index = entries[-1].index
        assert self.applying < index <= self.committed
        self.applying = index
        self.applying_size += self.size(entries)
        # Paused at the limit, and also when the limit cut off what could have come with it.
        self.applying_paused = (
            self.applying_size >= self.applying_size_max or index < self._appliable(allow_unstable)
        )

    def applied_to(self, index: int, size: int) -> None:
        """Mark entries as applied, `size` bytes of them."""
        assert self.applied <= index <= self.committed, (
            f"applied {index} outside of [{self.applied}, {self.committed}]"
        )
        self.applied = index
        self.applying = max(self.applying, index)
        self.applying_size = max(self.applying_size - size, 0)
        self.applying_paused = self.applying_size >= self.applying_size_max

    def size(self, entries: Sequence[Entry]) -> int:
        total = 0
        for entry in entries:
            total += self.entry_size(entry)
        return total

    def check_invariants(self) -> None:
        self.unstable.check_invariants()
        assert self.applied <= self.applying <= self.committed <= self.last_index
        stable = self.unstable.offset + len(self.unstable.entries) - 1
        assert stable == self.last_index, f"last index {self.last_index}, entries end at {stable}"
        for index in range(max(self.same_term_from, self.unstable.offset), self.last_index + 1):
            assert self.unstable.maybe_term(index) == self.last_term
