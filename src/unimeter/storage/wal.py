"""The write-ahead log: numbered entries in zero-filled segments, synced in groups.

    log/0000000000000001.seg    entries 1.. of this node, in order, then zeros
    log/000000000000a41f.seg    the segment that goes on where the first ends (`active`)
    log/spare.tmp               the next one, being filled with zeros (`spare`)
    synced                      an index that was durable once (`witness`)

Owns the order of writes. An entry is *staged* by `append` (a list in memory),
*durable* after `sync` (one durable write for everything staged), and
may be acknowledged only then. Refuses to retry a failed sync, and to write where
it is not sure that the file is blank.

Rolling to the next segment: the prepared file gets its head and its first entries
while it still has a temporary name, is synced, renamed, and the directory synced;
only then are those entries durable. So a file with a log's name is always whole
at its start, and exists only when everything before it is durable.

A full disk: a segment is made before it is needed, so "no space" shows before an
entry was accepted (`append` refuses). If it shows later, nothing of the failed
group stays on disk (its place is made blank and synced before anyone is told), so
that a batch that was refused and sent again can't be found twice after a crash.

Reading, and what a group's bytes are, stand in `stored` and `active`; what lies
behind the last whole entry is judged in `tail`.

Rejected: growing files (183 instead of 127 microseconds a sync), segments named by
a counter (saves a rename per 64 MiB, hides which entries a file holds).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from unimeter import limits
from unimeter.errors import CorruptionError, RottenEntryError
from unimeter.raft.messages import NOOP
from unimeter.storage import layout, tail
from unimeter.storage.active import ActiveSegment, count_that_fits
from unimeter.storage.disk import Disk, DiskFullError, FatalStorageError
from unimeter.storage.layout import SEGMENT_HEADER_BYTES, Identity, SegmentHead, Witnessed
from unimeter.storage.repair import repair_in, segment_of
from unimeter.storage.segments import (
    MARK_BYTES,
    RESTORE_ADVICE,
    Entry,
    Segment,
    Walk,
    list_segments,
    remove_segments,
    segment_path,
    split_removed,
)
from unimeter.storage.spare import Spare
from unimeter.storage.stored import StoredSegments
from unimeter.storage.terms import Terms
from unimeter.storage.witness import Witness, read_witness

__all__ = ["Entry", "Identity", "LogBase", "Wal", "WalLimits"]

_SPARE_STARTS_AT = 8  # prepare the next segment when an eighth of this one is used
_READ_WINDOW_BYTES = 1024 * 1024  # one read of `read`, which may be asked for one entry
_TERM_WINDOW_BYTES = 64 * 1024


@dataclass(frozen=True)
class WalLimits:
    """Bounds of a log, injectable so that tests reach the edges soon."""

    segment_bytes: int = limits.SEGMENT_BYTES
    segment_bytes_first: int = 4 * 1024 * 1024  # a log starts small; sizes double from here
    mark_bytes: int = MARK_BYTES  # between remembered places of entries
    background: bool = True  # prepare segments in a thread (False: on the spot)


@dataclass(frozen=True)
class LogBase:
    """The entry that a log goes on after although it never held it: a snapshot's last one."""

    index: int = 0
    term: int = 0
    timestamp_ns: int = 0


class Wal:
    """The log of one data directory.

    `append` and `sync` may be called from different threads, and `read` from any.
    Order of an entry's life: append (staged, nothing durable), sync (durable, may
    be acknowledged), read.
    """

    def __init__(
        self, disk: Disk, path: str, identity: Identity, bounds: WalLimits, base: LogBase
    ) -> None:
        """Use `open`."""
        self.last_index = base.index  # of the newest staged or synced entry
        self.synced_index = base.index  # everything up to here is durable
        self.last_timestamp_ns = base.timestamp_ns  # of the newest staged or synced entry
        self.last_term = base.term
        self.full = False  # the disk is full; appends are refused until `try_resume` is True
        self.cut_bytes = 0  # of a torn tail, cut at opening
        self._disk, self._identity, self._bounds = disk, identity, bounds
        self._directory, self._witness_path = f"{path}/log", f"{path}/synced"
        self._spare = Spare(disk, f"{self._directory}/spare.tmp", background=bounds.background)
        self._base = base
        self._stored = StoredSegments(disk, [], base.index)
        self._active: ActiveSegment | None = None  # the last of them, open for writing
        self._witness: Witness | None = None
        # Where the machine stands; without one, as in tests, all that is noted is believed.
        self.applied_index: Callable[[], int] = lambda: self.synced_index
        self._noted_commit = 0  # as `note_commit` was told
        self._commit = 0  # of the run before
        self._staged: list[Entry] = []
        self._staged_bytes = 0
        self._terms = Terms()  # where they change; the last run ends at last_index
        self._stage_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._failure: FatalStorageError | None = None
        self._syncs = self._synced_bytes = self._sync_ns = self._rolls = 0

    @property
    def first_index(self) -> int:
        """Of the oldest entry stored; in an empty log, of the one that comes first."""
        return self._stored.first_index

    @property
    def commit_hint(self) -> int:
        """Entries up to here, as this log holds them, are committed.

        Never above what is applied. A commit index can be heard of together with the
        entries that it is about, while this log still has others in their place.
        """
        self._commit = max(self._commit, min(self._noted_commit, self.applied_index()))
        return self._commit

    # --- opening ---------------------------------------------------------------

    @classmethod
    def open(
        cls,
        disk: Disk,
        path: str,
        identity: Identity,
        bounds: WalLimits | None = None,
        kept_index: int = 1,
        base: LogBase = LogBase(),
    ) -> Wal:
        """Open the log in the data directory `path`; cut a torn tail, refuse a rotten one.

        Segments that end before `kept_index` were being removed, and so may have been
        the entries above the witness's index: that is finished. Checks every head and
        every entry of the last segment. The segments before it are checked when they
        are read. Without any segment the log goes on after `base`.
        """
        wal = cls(disk, path, identity, bounds or WalLimits(), base)
        disk.make_directory(wal._directory)
        _remove_temporary(disk, wal._directory)
        gone, kept = split_removed(list_segments(disk, wal._directory, identity), kept_index)
        for segment in gone:
            disk.remove(segment.path)
        for segment in kept:
            segment.mark_bytes = wal._bounds.mark_bytes
        wal._stored = StoredSegments(disk, kept, base.index)
        witness = read_witness(disk, wal._witness_path)
        if not kept and witness.index > base.index:
            raise CorruptionError(
                wal._directory,
                0,
                f"segments up to entry {witness.index}",
                "no segment",
                RESTORE_ADVICE,
            )
        try:
            wal._load(witness)
        except BaseException:
            wal.close()
            raise
        return wal

    def _load(self, witness: Witnessed) -> None:
        """Take over what is stored."""
        if witness.is_cutting:
            self._remove_after(witness.index)
        for segment in self._stored.all:
            if segment.head.parent_term:
                self._terms.note(segment.first_index - 1, segment.head.parent_term)
        if self._stored.all:
            self._open_last(witness.index)
        elif self._base.index:
            self._terms.note(self._base.index, self._base.term)
        self._commit = min(witness.commit, self.synced_index)
        self._witness = Witness(self._disk, self._witness_path, self.synced_index, self._commit)
        if witness.is_cutting:
            self._witness.end_cut()

    def _open_last(self, witness: int) -> None:
        segment = self._stored.all[-1]
        if self._active is None:
            file = self._disk.open(segment.path, write=True)
            self._active = ActiveSegment(file, segment)
        file = self._active.file
        walk = Walk(file, segment)
        term, doubtful = 0, 0
        for entry in walk:
            if entry.index > witness and not doubtful:
                doubtful = walk.entry_position
            if entry.term != term:
                term = entry.term
                self._terms.note(entry.index, term)
        if tail.check_tail(file, walk, witness, self._witness_path):
            self.cut_bytes = tail.cut(file, walk.position, walk.limit)
        self._active.take_over_from(walk)
        self._go_on_after_active(walk.next_index - 1)
        # What was read may still be in the page cache only: the process before this one
        # may have been killed between its write and its sync, or its sync may have failed.
        # After a failed one the kernel takes those pages for clean, and no sync writes them
        # (Rebello and others, "Can Applications Recover from fsync Failures?", USENIX ATC
        # 2020): so they are written again. Durable means durable.
        if doubtful:
            tail.write_again(file, doubtful, walk.position)
        file.sync()

    def _go_on_after_active(self, index: int) -> None:
        """The active segment ends with entry `index`, or there is none."""
        self.last_index = self.synced_index = index
        self.last_term, self.last_timestamp_ns = self._durable_term, self._durable_timestamp_ns

    # --- appending -------------------------------------------------------------

    @property
    def staged_bytes(self) -> int:
        """Bytes appended and not yet synced."""
        return self._staged_bytes

    def append(
        self, index: int, term: int, kind: int, timestamp_ns: int, body: bytes | memoryview
    ) -> None:
        """Stage one entry (index must be last_index + 1). Keeps a reference to `body`.

        A NOOP has the time of the entry before it. Raises DiskFullError, with nothing
        staged, where the entry would need space that can't be had; and always while
        `full`.
        """
        self.append_all((Entry(index, term, kind, timestamp_ns, body),))

    def append_all(self, group: Sequence[Entry]) -> None:
        """Stage all of these entries, one after the other, or none."""
        with self._stage_lock:
            if self._failure is not None:
                raise self._failure
            if self.full:
                raise DiskFullError("the disk is full")
            need = 0
            for entry in group:
                assert len(entry.body) <= limits.ENTRY_BYTES_MAX, "an entry over the limit"
                need += layout.entry_bytes(len(entry.body))
            if self._spare.has_failed and self._staged_bytes + need > self._room:
                self._check_spare_failure()
            for entry in group:
                self._stage(entry)
            self._staged_bytes += need

    def _stage(self, entry: Entry) -> None:
        index, term, timestamp_ns = entry.index, entry.term, entry.timestamp_ns
        if entry.kind == NOOP:
            timestamp_ns = self.last_timestamp_ns
            entry = Entry(index, term, NOOP, timestamp_ns, entry.body)
        assert index == self.last_index + 1, f"entry {index} after {self.last_index}"
        assert timestamp_ns >= self.last_timestamp_ns, (
            f"the log's clock went back: entry {index} of kind {entry.kind} is of {timestamp_ns}, "
            f"the one before of {self.last_timestamp_ns}"
        )
        assert term >= self.last_term, "the log's term went back"
        self._staged.append(entry)
        if term != self.last_term:
            self._note_last_term()
            self._terms.note(index, term)
        self.last_index, self.last_term = index, term
        self.last_timestamp_ns = timestamp_ns

    def _note_last_term(self) -> None:
        """Have the last run of terms end at the last entry, as it always does in effect."""
        if self.last_index:
            self._terms.note(self.last_index, self.last_term)

    @property
    def _room(self) -> int:
        """Bytes left in the active segment."""
        return 0 if self._active is None else self._active.limit - self._active.position

    def _check_spare_failure(self) -> None:
        error = self._spare.error
        if isinstance(error, DiskFullError):
            self.full = True
            raise DiskFullError(str(error))
        if error is not None:
            raise self._fail(error)

    def try_resume(self) -> bool:
        """After a DiskFullError: whether there is space again. Cheap; call it now and then."""
        if not self.full:
            return True
        with self._sync_lock:
            if not self._spare.try_prepare(self._next_segment_bytes(0)):
                return False
            self.full = False
            return True

    # --- syncing ---------------------------------------------------------------

    def sync(self, *, witness: bool = True) -> int:
        """Write and sync everything staged; return synced_index. Thread-safe, callable inline.

        Without `witness` the caller owes a call of `write_witness` soon: it may first
        send the replies, which wait for nothing but the sync.

        Raises DiskFullError when there was no space: every entry from
        `error.from_index` on is dropped (none is durable, none comes back after a
        crash), those before it are durable, last_index is from_index - 1 again and
        `full` is set. Raises FatalStorageError when the process must stop.
        """
        with self._sync_lock:
            if self._failure is not None:
                raise self._failure
            with self._stage_lock:
                staged, self._staged = self._staged, []
            if staged:
                self._write_all(staged)
                if witness:
                    self._raise_witness()
            return self.synced_index

    def write_witness(self) -> None:
        """Note in the witness file what is durable, after a `sync` that left it to the caller."""
        with self._sync_lock:
            if self._failure is None:
                self._raise_witness()

    def note_commit(self, index: int) -> None:
        """Entries up to here are committed: once they are applied, the witness may say so."""
        if index > self._noted_commit:
            self._noted_commit = index

    def _raise_witness(self) -> None:
        assert self._witness is not None
        try:
            self._witness.raise_to(self.synced_index, self.commit_hint)
        except FatalStorageError as error:
            raise self._fail(error) from error

    def _write_all(self, staged: list[Entry]) -> None:
        started = time.perf_counter_ns()
        try:
            while staged:
                active = self._active
                count = count_that_fits(staged, active.position, active.limit) if active else 0
                if active and count:
                    self._take_over(staged[:count], active.write(staged[:count], self.synced_index))
                else:
                    count = self._roll(staged)
                staged = staged[count:]
        except DiskFullError as error:
            self._drop_staged()
            raise DiskFullError(str(error), from_index=self.synced_index + 1) from error
        except Exception as error:
            raise self._fail(error) from error
        self._syncs += 1
        self._sync_ns += time.perf_counter_ns() - started
        if self._is_time_for_spare() and self._spare.is_idle:
            self._spare.start(self._next_segment_bytes(0))

    def _take_over(self, group: list[Entry], written: int) -> None:
        """The group is durable: say so."""
        self._synced_bytes += written
        with self._stage_lock:
            self._staged_bytes -= written
            assert group[0].index == self.synced_index + 1
            self.synced_index = group[-1].index

    # --- rolling ---------------------------------------------------------------

    def _is_time_for_spare(self) -> bool:
        active = self._active
        return active is not None and active.position > active.limit // _SPARE_STARTS_AT

    def _next_segment_bytes(self, need: int) -> int:
        """Segments double in size up to the limit; one entry always fits."""
        stored = self._stored.size_bytes
        wanted = min(max(stored, self._bounds.segment_bytes_first), self._bounds.segment_bytes)
        return max(wanted, -(-(SEGMENT_HEADER_BYTES + need) // 4096) * 4096)

    def _roll(self, staged: list[Entry]) -> int:
        """Start the next segment with as many of `staged` as fit; return how many."""
        size = self._next_segment_bytes(layout.entry_bytes(len(staged[0].body)))
        file, size = self._spare.take(size)
        before, first_index = self._active, staged[0].index
        head = SegmentHead(
            self._identity,
            first_index,
            before.parent_crc if before else 0,
            self._durable_timestamp_ns,
            size,
            self._durable_term,
        )
        path = segment_path(self._directory, first_index)
        active = ActiveSegment(file, Segment(path, head, mark_bytes=self._bounds.mark_bytes))
        group = staged[: count_that_fits(staged, SEGMENT_HEADER_BYTES, size)]
        try:
            after = active.write_first(group, self.synced_index)
            self._disk.rename(self._spare.path, path)
        except DiskFullError:  # a file system that copies on write; nothing has the log's name yet
            file.close()
            self._disk.remove(self._spare.path)
            raise
        self._disk.sync_directory(self._directory)
        file.path = path
        if before is not None:
            before.close()
        self._active = active
        self._stored.add(active.segment)
        self._rolls += 1
        self._take_over(group, active.adopt(group, after))
        return len(group)

    # --- failing ---------------------------------------------------------------

    def _drop_staged(self) -> None:
        """Nothing behind synced_index was written: forget it, and refuse more until resumed."""
        with self._stage_lock:
            self._staged.clear()
            self._staged_bytes = 0
            self._go_on_after_active(self.synced_index)
            self._terms.forget_after(self.synced_index)
            self.full = True

    @property
    def _durable_timestamp_ns(self) -> int:
        return self._base.timestamp_ns if self._active is None else self._active.timestamp_ns

    @property
    def _durable_term(self) -> int:
        return self._base.term if self._active is None else self._active.term

    def _fail(self, error: BaseException) -> FatalStorageError:
        """From now on every call raises this: the process must stop."""
        if not isinstance(error, FatalStorageError):
            if not isinstance(error, Exception) or isinstance(error, AssertionError):
                raise error
            error = FatalStorageError(f"{self._directory}: {error}")
        self._failure = error
        return error

    # --- reading ---------------------------------------------------------------

    def read(
        self, from_index: int, to_index: int | None = None, window_bytes: int = _READ_WINDOW_BYTES
    ) -> Iterator[Entry]:
        """Synced entries from_index..to_index (inclusive), checked, in order. Any thread.

        Raises CorruptionError at damage, FileNotFoundError where a segment was
        removed meanwhile; from_index must not be below first_index.
        """
        last = self.synced_index if to_index is None else min(to_index, self.synced_index)
        return self._stored.read(from_index, last, window_bytes)

    def term_of(self, index: int) -> int:
        """The term of an entry from first_index - 1 to last_index; rarely reads it from disk."""
        assert self.first_index - 1 <= index <= self.last_index, f"the term of entry {index}"
        if index == 0:
            return 0
        with self._stage_lock:
            self._note_last_term()
            term = self._terms.find(index)
        if term is None:
            term = self._read_terms(index)
        return term

    def _read_terms(self, index: int) -> int:
        """The term of a stored entry; those before it, down to where a walk can start, are noted.

        Where logs part, the core asks for one term after the other, downwards.
        """
        start = self._stored.start_of_walk(index)
        term = 0
        for entry in self.read(start, index, _TERM_WINDOW_BYTES):
            if entry.term != term or entry.index == index:
                term = entry.term
                with self._stage_lock:
                    self._terms.note(entry.index, term)
        return term

    def segments(self) -> list[tuple[int, int, int, int]]:
        """(first index, last index, bytes, timestamp of the last entry) per segment, oldest first.

        The last one is the segment being written.
        """
        return self._stored.rows(self.synced_index, self._durable_timestamp_ns)

    def bytes_after(self, index: int) -> int:
        """About how many bytes the entries above `index` take: the measure of a replay."""
        position = 0 if self._active is None else self._active.position
        return self._stored.bytes_after(index, position)

    # --- removing --------------------------------------------------------------

    def remove_before(self, index: int) -> int:
        """Remove whole segments whose entries are all below `index`; return how many.

        Oldest first, so that what is left is always one unbroken range. The
        segment being written stays.
        """
        with self._sync_lock:
            count = self._stored.remove_before(index)
            if count:
                self._disk.sync_directory(self._directory)
                with self._stage_lock:
                    self._terms.forget_before(self.first_index - 1)
            return count

    def restart_after(self, base: LogBase) -> None:
        """Let everything go, durably: the log is empty and goes on after `base`.

        Nothing may be staged. The superblock says so already: after a crash, the next
        start does this again.
        """
        with self._sync_lock:
            if self._failure is not None:
                raise self._failure
            assert not self._staged and self._witness is not None
            try:
                if self._active is not None:
                    self._active.close()
                    self._active = None
                remove_segments(self._disk, self._directory)
                self._witness.settle(base.index, base.index)
            except Exception as error:
                raise self._fail(error) from error
            with self._stage_lock:
                self._base, self._commit = base, base.index
                self._noted_commit = max(self._noted_commit, base.index)
                self._stored = StoredSegments(self._disk, [], base.index)
                self._terms = Terms()
                self._terms.note(base.index, base.term)
                self._go_on_after_active(base.index)

    def repair(self, entry: Entry, *following: Entry) -> None:
        """Put a peer's committed entry where a damaged one lies; see `repair.repair_entry`.

        Nothing is written meanwhile. Any thread.
        """
        with self._sync_lock:
            run = (entry, *following)
            assert self.first_index <= entry.index <= run[-1].index <= self.synced_index
            segments = self._stored.all
            at = segment_of(segments, entry.index)
            is_active = at + 1 == len(segments)
            assert self._active is not None
            file = self._active.file
            if not is_active:
                file = self._disk.open(segments[at].path, write=True)
            try:
                after = None if is_active else segments[at + 1].head
                repair_in(file, segments[at], after, run, self.commit_hint)
            finally:
                if not is_active:
                    file.close()

    def truncate_after(self, index: int) -> None:
        """Remove every entry above `index`, durably (for replication).

        Nothing may be staged, and nothing above `index` committed. Once this has begun,
        a start ends it: the witness says so before the first byte goes. `index` is
        in the log or the one that an empty log goes on after. Raises RottenEntryError
        where an entry that stays is damaged; the process must stop, as for
        FatalStorageError, and the next start meets the same.
        """
        with self._sync_lock:
            if self._failure is not None:
                raise self._failure
            assert not self._staged and self.commit_hint <= index <= self.synced_index
            # Retention keeps only what snapshots cover, and they cover committed entries.
            assert index >= self.first_index or index == self._base.index
            assert self._witness is not None
            try:
                self._witness.begin_cut(index)
                self._remove_after(index)
                self._witness.end_cut()
            except RottenEntryError as error:
                # In what stays. The removal has begun: the next start meets the damage too,
                # and goes on with the removal once that is repaired.
                self._fail(error)
                raise
            except Exception as error:
                raise self._fail(error) from error
            with self._stage_lock:
                self._terms.forget_after(index)
                self._go_on_after_active(index)

    def _remove_after(self, index: int) -> None:
        """Remove segments, newest first, then what follows `index` in the one that holds it."""
        while self._stored.all and self._stored.all[-1].first_index > index:
            if self._active is not None:
                self._active.close()
                self._active = None
            self._stored.remove_last()
            self._disk.sync_directory(self._directory)
        if self._stored.all:
            segment = self._stored.all[-1]
            if self._active is None:
                file = self._disk.open(segment.path, write=True)
                self._active = ActiveSegment(file, segment)
            self._cut_active(self._active, index)

    def _cut_active(self, active: ActiveSegment, index: int) -> None:
        segment = active.segment
        segment.marks = [mark for mark in segment.marks if mark[0] <= index]
        walk = Walk(active.file, segment, segment.nearest(index))
        for entry in walk:
            if entry.index == index:
                break
        if walk.next_index != index + 1:
            raise tail.rot(active.file, walk, f"{self._witness_path} says that it stays")
        # Of the segment that was being written it is known from where on it is blank.
        is_known = active.position > SEGMENT_HEADER_BYTES
        tail.cut(active.file, walk.position, active.position if is_known else walk.limit)
        active.take_over_from(walk)

    # --- the rest --------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Figures of this log since it was opened."""
        return {
            "segments": len(self._stored),
            "bytes": self._stored.size_bytes,
            "first_index": self.first_index,
            "last_index": self.last_index,
            "synced_index": self.synced_index,
            "staged_bytes": self._staged_bytes,
            "syncs": self._syncs,
            "synced_bytes": self._synced_bytes,
            "sync_ns": self._sync_ns,
            "rolls": self._rolls,
            "full": int(self.full),
            "failed": int(self._failure is not None),
            "cut_bytes": self.cut_bytes,
        }

    def close(self) -> None:
        """Close files. Staged entries are not written."""
        with self._sync_lock:
            self._spare.close()
            if self._witness is not None:
                if self._failure is None:
                    self._raise_witness()
                self._witness.close()
            if self._active is not None:
                self._active.close()
            self._active = self._witness = None
            self._failure = FatalStorageError(f"{self._directory}: the log is closed")

    def check_invariants(self) -> None:
        with self._stage_lock:
            assert self.synced_index <= self.last_index
            assert len(self._staged) <= self.last_index - self.synced_index
            assert self._room >= 0
            assert (self._active is None) == (not self._stored.all)


def _remove_temporary(disk: Disk, directory: str) -> None:
    for name in disk.names(directory):
        if name.endswith(".tmp"):
            disk.remove(f"{directory}/{name}")
