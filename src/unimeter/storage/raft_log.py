"""The log as the Raft core reads it, over one open data directory.

    core ──entries, term──> RaftLog ──┬─> recent entries in memory
                                      └─> a reader for each follower that is behind ──> wal
    host ──stage, persist_vote──> RaftLog ──> wal, superblock

Owns the answers to the core's questions (`raft.storage.Storage`), and the order of a
stage that replaces entries: the old suffix is gone, durably, before the first new entry
is staged. Refuses to sync and to apply; who drives the core does that.

What the core asks for is mostly what was appended a moment ago, so recent entries stay
in memory, up to a limit in bytes. A follower that is behind reads old entries, one
message after the other: its place in the log stays open between two calls (a `_Reader`
goes on where the last call ended), so catching up costs one read of each byte. Readers
have no names. One is found by the index it would return next.

Entries stay readable after a snapshot, until retention removes them: that is the
product. So `first_index` is the log's, and a snapshot goes to a follower only when
the entries it needs were removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unimeter import limits
from unimeter.engine.machine import Machine
from unimeter.errors import RottenEntryError
from unimeter.raft.messages import ConfState, Entry, HardState, Snapshot, SnapshotMeta, entry_size
from unimeter.raft.storage import Compacted, SnapshotTemporarilyUnavailable, Unavailable
from unimeter.storage.install import Received
from unimeter.storage.recovery import Opened
from unimeter.storage.snapshots import snapshot_path

READERS_MAX = 8  # places kept open: one for each follower, and one that lost its way
_OBJECT_BYTES = 200  # of an entry in memory beside its body


class SyncFirst(Exception):
    """Entries to be replaced are staged and not durable: sync, then stage again."""


class RaftLog:
    """Implements `raft.storage.Storage`. All methods belong to one thread, the host's."""

    def __init__(
        self,
        opened: Opened,
        voters: tuple[int, ...] = (),
        cache_bytes_max: int = limits.LOG_CACHE_BYTES_MAX,
        *,
        can_mend: bool = False,
    ) -> None:
        """Serve the log of an open directory; `voters` are said in snapshots.

        `can_mend`: the host looks at `rotten` and has peers to ask.
        """
        self._can_mend = can_mend
        self._opened, self._wal, self._voters = opened, opened.wal, voters
        self._recent = _Recent(cache_bytes_max)
        self._readers: list[_Reader] = []  # the one used last is last
        self._from_memory = self._from_disk = self._opened_readers = 0
        self._snapshot: Snapshot | None = None
        self.rotten: set[int] = set()  # damaged entries that readers met; a peer has them

    # --- the core's questions ------------------------------------------------------

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Term and vote, what is known to be committed, and the voters."""
        block = self._opened.superblock.current
        commit = max(self._opened.commit_index, self._opened.machine.applied)
        assert commit <= self._wal.last_index
        return HardState(block.term, block.vote, commit), ConfState(self._voters)

    def first_index(self) -> int:
        """Of the oldest entry that is stored."""
        return self._wal.first_index

    def last_index(self) -> int:
        """Of the newest entry that is durable."""
        return self._wal.synced_index

    def term(self, index: int) -> int:
        """The term of an entry from first_index - 1 to last_index."""
        if index < self._wal.first_index - 1:
            raise Compacted(index)
        if index > self._wal.last_index:
            raise Unavailable(index)
        return self._wal.term_of(index)

    def entries(self, low: int, high: int, max_size: int) -> Sequence[Entry]:
        """Entries [low, high), cut where their sizes exceed `max_size`, but at least one.

        From memory at the price of a slice, from disk at that of one read in order;
        what is on disk only must be synced. Raises Compacted below first_index, and
        RottenEntryError at a damaged entry; where it can be mended while the node goes on,
        Compacted as well: it is in `rotten` until a peer's copy has replaced it, and meanwhile
        there is no snapshot either.
        """
        if low < self._wal.first_index:
            raise Compacted(low)
        assert low < high <= self._wal.last_index + 1, f"[{low}, {high}) of {self._wal.last_index}"
        recent = self._recent
        found: list[Entry] = []
        left = max_size
        if low < recent.first_index:
            found, left = self._read(low, min(high, recent.first_index), max_size)
            low += len(found)
            if low < recent.first_index:
                return found
        for entry in recent.slice(low, high):
            left -= entry_size(entry)
            if left < 0 and found:
                break
            found.append(entry)
            self._from_memory += 1
        return found

    def snapshot(self) -> Snapshot:
        """Index and term of the newest snapshot in effect; `data` is the path of its file."""
        index = self._opened.superblock.current.snapshot_index
        if index == 0 or self.first_rotten():
            raise SnapshotTemporarilyUnavailable
        if self._snapshot is None or self._snapshot.meta.index != index:
            meta = SnapshotMeta(index, self._wal.term_of(index), self._voters)
            self._snapshot = Snapshot(meta, snapshot_path(self._opened.path, index))
        return self._snapshot

    def note_rotten(self, index: int) -> None:
        """An entry can't be read: the next start looks at it, and whoever has peers asks them."""
        if index not in self.rotten:
            self._opened.note_rotten(index)
            self.rotten.add(index)

    def first_rotten(self) -> int:
        """The oldest entry that is damaged and still stored, 0 if there is none."""
        first = self._wal.first_index
        # Retention removed the others: nobody can read them, nobody has to mend them.
        self.rotten = {index for index in self.rotten if index >= first}
        return min(self.rotten, default=0)

    def maybe_recent(self, index: int) -> Entry | None:
        """The entry, if it is in memory; reads nothing. For who watches from outside."""
        recent = self._recent
        if len(recent) and recent.first_index <= index <= recent.last_index:
            return recent.slice(index, index + 1)[0]
        return None

    # --- the host's duties ---------------------------------------------------------

    def persist_vote(self, term: int, vote: int) -> None:
        """Make term and vote durable before this returns; nothing is written where they are."""
        block = self._opened.superblock.current
        if (block.term, block.vote) != (term, vote):
            self._opened.superblock.update(term=term, vote=vote)

    def stage(self, entries: Sequence[Entry]) -> None:
        """Append entries that follow on one another, replacing what is stored from the first on.

        Raises SyncFirst, with nothing changed, where something is replaced while
        anything is staged; DiskFullError, with none of `entries` staged, where there is
        no space. Entries that are replaced are gone, durably, when this returns.
        """
        if not entries:
            return
        wal, first = self._wal, entries[0].index
        # That nothing is left out is the log's to check: its sync thread may find the disk full,
        # and drop what is staged, at any moment.
        assert wal.first_index <= first
        if first <= wal.last_index:
            if wal.last_index != wal.synced_index:
                raise SyncFirst
            self._forget_after(first - 1)
            wal.truncate_after(first - 1)
            self._opened.events.forget_after(first - 1)
        self._recent.forget_after(wal.last_index)  # a full disk may have dropped some
        wal.append_all(entries)
        self._recent.extend(entries)

    def install(self, snapshot: Snapshot) -> Machine:
        """Put a peer's snapshot into effect, durably; return its machine.

        `data` is a `Received`, or the path of a whole file, which is then restored here.
        Nothing may be staged.
        """
        received, meta = snapshot.data, snapshot.meta
        if isinstance(received, str):
            received = self._opened.restore_snapshot(received)
        assert isinstance(received, Received), "where the snapshot is"
        assert (received.head.index, received.head.term) == (meta.index, meta.term)
        self._forget_after(0)
        return self._opened.install_snapshot(received)

    def _forget_after(self, index: int) -> None:
        """Entries above `index` are about to be replaced: nobody may be given them any more."""
        self._recent.forget_after(index)
        self._close_readers()

    # --- reading from disk ----------------------------------------------------------

    def _read(self, low: int, high: int, max_size: int) -> tuple[list[Entry], int]:
        """Entries [low, high) from the log's files, within a size, and what is left of it."""
        assert high <= self._wal.synced_index + 1, "an entry that is neither recent nor durable"
        reader = self._reader_at(low)
        found: list[Entry] = []
        left = max_size
        try:
            while reader.next_index < high:
                entry = reader.peek()
                if entry is None:  # it knew the log up to there
                    reader.close()
                    reader = _Reader(self._wal.read(reader.next_index), reader.next_index)
                    continue
                left -= entry_size(entry)
                if left < 0 and found:
                    left += entry_size(entry)
                    break
                found.append(entry)
                reader.advance()
        except FileNotFoundError:
            reader.close()
            if not found:
                raise Compacted(low) from None
        except RottenEntryError as error:
            reader.close()
            if found:
                return found, left
            self.note_rotten(error.index)
            # What is not applied yet may be wanted for that, and there is no way round it:
            # the process stops, and the next start takes the entry from a peer.
            if not self._can_mend or low > self._opened.machine.applied:
                raise
            raise Compacted(low) from error
        except BaseException:
            reader.close()
            raise
        self._from_disk += len(found)
        if reader.next_index < self._recent.first_index:
            self._readers.append(reader)
        else:
            reader.close()  # the follower goes on with what is in memory
        return found, left

    def _reader_at(self, index: int) -> _Reader:
        for reader in self._readers:
            if reader.next_index == index:
                self._readers.remove(reader)
                return reader
        if len(self._readers) >= READERS_MAX:
            self._readers.pop(0).close()
        self._opened_readers += 1
        return _Reader(self._wal.read(index), index)

    def _close_readers(self) -> None:
        for reader in self._readers:
            reader.close()
        self._readers.clear()

    # --- the rest ------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Where the core's entries came from, and what is kept in memory."""
        return {
            "log_cache_entries": len(self._recent),
            "log_cache_bytes": self._recent.bytes,
            "log_entries_from_memory": self._from_memory,
            "log_entries_from_disk": self._from_disk,
            "log_readers": len(self._readers),
            "log_readers_opened": self._opened_readers,
        }

    def close(self) -> None:
        """Close the files that readers keep open."""
        self._close_readers()

    def check_invariants(self) -> None:
        self._recent.check_invariants()
        assert len(self._readers) <= READERS_MAX
        assert len(self._recent) == 0 or self._recent.last_index <= self._wal.last_index


class _Recent:
    """The newest entries of the log, in memory, up to a limit in bytes."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._entries: list[Entry] = []
        self._head = 0  # entries before this place have been let go; the list is cut now and then

    def __len__(self) -> int:
        return len(self._entries) - self._head

    @property
    def first_index(self) -> int:
        """Of the oldest one held; higher than any index where none is."""
        return self._entries[self._head].index if len(self) else 1 << 63

    @property
    def last_index(self) -> int:
        return self._entries[-1].index if len(self) else 0

    def extend(self, entries: Sequence[Entry]) -> None:
        assert not len(self) or entries[0].index == self.last_index + 1
        self._entries.extend(entries)
        self.bytes += sum(map(_held_bytes, entries))
        while self.bytes > self._bytes_max and len(self):
            self.bytes -= _held_bytes(self._entries[self._head])
            self._head += 1
        if self._head > 64 and self._head * 2 > len(self._entries):
            del self._entries[: self._head]
            self._head = 0

    def slice(self, low: int, high: int) -> Sequence[Entry]:
        if not len(self):
            return ()
        start = self._head + low - self.first_index
        assert start >= self._head
        return self._entries[start : start + high - low]

    def forget_after(self, index: int) -> None:
        while len(self) and self._entries[-1].index > index:
            self.bytes -= _held_bytes(self._entries.pop())

    def check_invariants(self) -> None:
        held = self._entries[self._head :]
        assert self.bytes == sum(map(_held_bytes, held))
        assert not held or [entry.index for entry in held] == list(
            range(held[0].index, held[0].index + len(held))
        )


def _held_bytes(entry: Entry) -> int:
    return len(entry.body) + _OBJECT_BYTES


class _Reader:
    """A place in the log from which entries are read in order."""

    def __init__(self, source: Iterator[Entry], next_index: int) -> None:
        self.next_index = next_index
        self._source = source
        self._ahead: Entry | None = None  # read, not taken yet

    def peek(self) -> Entry | None:
        """The next entry; None where the source ends."""
        if self._ahead is None:
            self._ahead = next(self._source, None)
            assert self._ahead is None or self._ahead.index == self.next_index
        return self._ahead

    def advance(self) -> None:
        self._ahead = None
        self.next_index += 1

    def close(self) -> None:
        """Close the file it has open."""
        self._ahead = None
        close = getattr(self._source, "close", None)
        if close is not None:
            close()
