"""The write-ahead log: numbered entries in zero-filled segments, synced in groups.

    log/0000000000000001.seg    entries 1.. of this node, in order, then zeros
    log/000000000000a41f.seg    the segment that goes on where the first ends
    log/spare.tmp               the next one, being filled with zeros
    synced                      an index that was durable once (the witness)

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

The witness is written after each sync and never synced itself: after a SIGKILL it
is exact, after a power cut it is some earlier index; both are true.

Rejected: growing files (183 instead of 127 microseconds a sync), segments named by
a counter (saves a rename per 64 MiB, hides which entries a file holds).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from unimeter import limits
from unimeter.errors import CorruptionError
from unimeter.storage import layout, tail
from unimeter.storage.disk import Buffer, Disk, DiskFullError, FatalStorageError, File
from unimeter.storage.layout import SEGMENT_HEADER_BYTES, Identity, SegmentHead
from unimeter.storage.segments import (
    RESTORE_ADVICE,
    Entry,
    Segment,
    Walk,
    list_segments,
    segment_path,
    split_removed,
)
from unimeter.storage.spare import Spare

__all__ = ["Entry", "Identity", "Wal", "WalLimits"]

_SPARE_STARTS_AT = 8  # prepare the next segment when an eighth of this one is used
_READ_WINDOW_BYTES = 1024 * 1024  # one read of `read`, which may be asked for one entry
_WITNESS_ADVICE = (
    "Nothing was changed. If the log is known to be complete, remove this file; it is made anew."
)


@dataclass(frozen=True)
class WalLimits:
    """Bounds of a log, injectable so that tests reach the edges soon."""

    segment_bytes: int = limits.SEGMENT_BYTES
    segment_bytes_first: int = 4 * 1024 * 1024  # a log starts small; sizes double from here
    background: bool = True  # prepare segments in a thread (False: on the spot)


class _Staged(NamedTuple):
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    term: int
    kind: int
    timestamp_ns: int
    body: Buffer


class Wal:
    """The log of one data directory.

    `append` and `sync` may be called from different threads, and `read` from any.
    Order of an entry's life: append (staged, nothing durable), sync (durable, may
    be acknowledged), read.
    """

    def __init__(self, disk: Disk, path: str, identity: Identity, bounds: WalLimits) -> None:
        """Use `open`."""
        self.first_index = 1  # of the oldest entry stored; last_index + 1 when there is none
        self.last_index = 0  # of the newest staged or synced entry
        self.synced_index = 0  # everything up to here is durable
        self.last_timestamp_ns = 0  # of the newest staged or synced entry
        self.last_term = 0
        self.full = False  # the disk is full; appends are refused until `try_resume` is True
        self.cut_bytes = 0  # of a torn tail, cut at opening
        self._disk, self._identity, self._bounds = disk, identity, bounds
        self._directory, self._witness_path = f"{path}/log", f"{path}/synced"
        self._spare = Spare(disk, f"{self._directory}/spare.tmp", background=bounds.background)
        self._segments: list[Segment] = []
        self._active: File | None = None  # the last segment, open for writing
        self._witness: File | None = None
        self._witnessed_index = 0  # what the witness file says
        self._position = 0  # in the active segment: where the next entry goes; blank from here
        self._limit = 0  # size of the active segment
        self._parent_crc = 0
        self._durable_timestamp_ns = 0
        self._staged: list[_Staged] = []
        self._staged_bytes = 0
        self._stage_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._failure: FatalStorageError | None = None
        self._syncs = self._synced_bytes = self._sync_ns = self._rolls = 0

    # --- opening ---------------------------------------------------------------

    @classmethod
    def open(
        cls,
        disk: Disk,
        path: str,
        identity: Identity,
        bounds: WalLimits | None = None,
        kept_index: int = 1,
    ) -> Wal:
        """Open the log in the data directory `path`; cut a torn tail, refuse a rotten one.

        Segments that end before `kept_index` were being removed: that is finished.

        Checks every head and every entry of the last segment. The segments before
        it are checked when they are read.
        """
        wal = cls(disk, path, identity, bounds or WalLimits())
        disk.make_directory(wal._directory)
        _remove_temporary(disk, wal._directory)
        found = list_segments(disk, wal._directory, identity)
        gone, wal._segments = split_removed(found, kept_index)
        for segment in gone:
            disk.remove(segment.path)
        witness = read_witness(disk, wal._witness_path)
        if wal._segments:
            try:
                wal._open_last(witness)
            except BaseException:
                wal.close()
                raise
        elif witness:
            raise CorruptionError(
                wal._directory, 0, f"segments up to entry {witness}", "no segment", RESTORE_ADVICE
            )
        wal._open_witness()
        return wal

    def _open_last(self, witness: int) -> None:
        segment = self._segments[-1]
        file = self._active = self._disk.open(segment.path, write=True)
        walk = Walk(file, segment)
        for entry in walk:
            self.last_term = entry.term
        if tail.check_tail(file, walk, witness, self._witness_path):
            self.cut_bytes = tail.cut(file, walk.position, walk.limit)
        self._limit, self._position = walk.limit, walk.position
        self._parent_crc = walk.parent_crc or 0
        self.first_index = self._segments[0].first_index
        self.last_index = self.synced_index = walk.next_index - 1
        self.last_timestamp_ns = self._durable_timestamp_ns = walk.timestamp_ns
        # What was read may still be in the page cache only: the process before this one
        # may have been killed between its write and its sync. Durable means durable.
        file.sync()

    def _open_witness(self) -> None:
        is_new = not self._disk.exists(self._witness_path)
        self._witness = self._disk.open(self._witness_path, write=True, create=is_new)
        self._witness.write(0, [layout.encode_witness(self.synced_index)])
        self._witnessed_index = self.synced_index
        if is_new:
            self._witness.sync()
            self._disk.sync_directory(self._witness_path.rpartition("/")[0])

    # --- appending -------------------------------------------------------------

    @property
    def staged_bytes(self) -> int:
        """Bytes appended and not yet synced."""
        return self._staged_bytes

    def append(
        self, index: int, term: int, kind: int, timestamp_ns: int, body: bytes | memoryview
    ) -> None:
        """Stage one entry (index must be last_index + 1). Keeps a reference to `body`.

        Raises DiskFullError, with nothing staged, where the entry would need
        space that can't be had; and always while `full`.
        """
        assert len(body) <= limits.ENTRY_BYTES_MAX, "an entry over the limit"
        with self._stage_lock:
            if self._failure is not None:
                raise self._failure
            if self.full:
                raise DiskFullError("the disk is full")
            assert index == self.last_index + 1, f"entry {index} after {self.last_index}"
            assert timestamp_ns >= self.last_timestamp_ns, "the log's clock went back"
            assert term >= self.last_term, "the log's term went back"
            need = layout.entry_bytes(len(body))
            if self._spare.has_failed and self._position + self._staged_bytes + need > self._limit:
                self._check_spare_failure()
            self._staged.append(_Staged(index, term, kind, timestamp_ns, body))
            self._staged_bytes += need
            self.last_index, self.last_term = index, term
            self.last_timestamp_ns = timestamp_ns

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
                self._write_all(staged, witness)
            return self.synced_index

    def _write_all(self, staged: list[_Staged], witness: bool) -> None:
        started = time.perf_counter_ns()
        try:
            while staged:
                count = self._count_that_fits(staged)
                if count:
                    self._write_group(staged[:count])
                else:
                    count = self._roll(staged)
                staged = staged[count:]
        except DiskFullError as error:
            self._drop_staged()
            raise DiskFullError(str(error), from_index=self.synced_index + 1) from error
        except Exception as error:
            raise self._fail(error) from error
        finally:
            if witness:
                self._write_witness()
        self._syncs += 1
        self._sync_ns += time.perf_counter_ns() - started
        if self._position > self._limit // _SPARE_STARTS_AT and self._spare.is_idle:
            self._spare.start(self._next_segment_bytes(0))

    def _count_that_fits(self, staged: list[_Staged]) -> int:
        """How many of the staged entries the active segment has room for."""
        position = self._position
        for count, entry in enumerate(staged):
            position += layout.entry_bytes(len(entry.body))
            if position > self._limit:
                return count
        return len(staged)

    def _write_group(self, group: list[_Staged]) -> None:
        """Write consecutive entries into the active segment with one call, and sync."""
        assert self._active is not None
        buffers, positions, crc = self._encode(group, self._position, self._parent_crc)
        end = self._position + sum(map(len, buffers))
        try:
            self._active.write_durably(self._position, buffers)
        except DiskFullError:
            # The place was filled with zeros, but a file system that copies on write needs
            # space all the same. Part of the group may be there: it must not be found later.
            self._blank_or_fail(end)
            raise
        self._take_over(group, positions, end, crc)

    def _blank_or_fail(self, end: int) -> None:
        assert self._active is not None
        try:
            self._active.fill_zeros(self._position, end - self._position)
            self._active.sync()
        except DiskFullError as error:
            raise FatalStorageError(
                f"{self._active.path}: the disk is full and the place of a failed write can't be "
                "made blank again; the process stops, a restart cuts it"
            ) from error

    def _encode(
        self, group: list[_Staged], position: int, crc: int
    ) -> tuple[list[Buffer], list[int], int]:
        seed, synced = self._identity.seed, self.synced_index
        buffers: list[Buffer] = []
        positions = []
        for entry in group:
            header, crc = layout.encode_entry_header(
                seed,
                crc,
                entry.index,
                entry.term,
                synced,
                entry.timestamp_ns,
                entry.kind,
                entry.body,
                position,
            )
            buffers += (header, entry.body, layout.entry_tail(crc, len(entry.body)))
            positions.append(position)
            position += layout.entry_bytes(len(entry.body))
        return buffers, positions, crc

    def _take_over(self, group: list[_Staged], positions: list[int], end: int, crc: int) -> None:
        """The group is durable: say so."""
        segment = self._segments[-1]
        written = 0
        for entry, position in zip(group, positions, strict=True):
            segment.mark(entry.index, position)
            written += layout.entry_bytes(len(entry.body))
        self._position, self._parent_crc = end, crc
        self._durable_timestamp_ns = group[-1].timestamp_ns
        self._synced_bytes += written
        with self._stage_lock:
            self._staged_bytes -= written
            assert group[0].index == self.synced_index + 1
            self.synced_index = group[-1].index

    # --- rolling ---------------------------------------------------------------

    def _next_segment_bytes(self, need: int) -> int:
        """Segments double in size up to the limit; one entry always fits."""
        stored = sum(segment.head.segment_bytes for segment in self._segments)
        wanted = min(max(stored, self._bounds.segment_bytes_first), self._bounds.segment_bytes)
        return max(wanted, -(-(SEGMENT_HEADER_BYTES + need) // 4096) * 4096)

    def _roll(self, staged: list[_Staged]) -> int:
        """Start the next segment with as many of `staged` as fit; return how many."""
        first = staged[0]
        size = self._next_segment_bytes(layout.entry_bytes(len(first.body)))
        file, size = self._spare.take(size)
        crc = self._parent_crc
        head = SegmentHead(self._identity, first.index, crc, self._durable_timestamp_ns, size)
        end, count = SEGMENT_HEADER_BYTES, 0
        for entry in staged:
            behind = end + layout.entry_bytes(len(entry.body))
            if behind > size:
                break
            end, count = behind, count + 1
        buffers, positions, crc = self._encode(staged[:count], SEGMENT_HEADER_BYTES, crc)
        path = segment_path(self._directory, first.index)
        try:
            file.write(0, [layout.encode_segment_head(head), *buffers])
            file.sync()
            self._disk.rename(self._spare.path, path)
        except DiskFullError:  # a file system that copies on write; nothing has the log's name yet
            file.close()
            self._disk.remove(self._spare.path)
            raise
        self._disk.sync_directory(self._directory)
        if self._active is not None:
            self._active.close()
        file.path = path
        self._active, self._limit = file, size
        if not self._segments:
            self.first_index = first.index
        self._segments.append(Segment(path, head))
        self._rolls += 1
        self._take_over(staged[:count], positions, end, crc)
        return count

    # --- failing ---------------------------------------------------------------

    def _drop_staged(self) -> None:
        """Nothing behind synced_index was written: forget it, and refuse more until resumed."""
        with self._stage_lock:
            self._staged.clear()
            self._staged_bytes = 0
            self.last_index = self.synced_index
            self.last_timestamp_ns = self._durable_timestamp_ns
            self.full = True

    def _fail(self, error: BaseException) -> FatalStorageError:
        """From now on every call raises this: the process must stop."""
        if not isinstance(error, FatalStorageError):
            if not isinstance(error, Exception) or isinstance(error, AssertionError):
                raise error
            error = FatalStorageError(f"{self._directory}: {error}")
        self._failure = error
        return error

    def write_witness(self) -> None:
        """Note in the witness file what is durable, after a `sync` that left it to the caller."""
        with self._sync_lock:
            if self._failure is None:
                self._write_witness()

    def _write_witness(self) -> None:
        if self._witnessed_index == self.synced_index:
            return
        assert self._witness is not None
        try:
            self._witness.write(0, [layout.encode_witness(self.synced_index)])
        except DiskFullError:
            return  # an older witness is as true as a newer one
        self._witnessed_index = self.synced_index

    # --- reading ---------------------------------------------------------------

    def read(
        self, from_index: int, to_index: int | None = None, window_bytes: int = _READ_WINDOW_BYTES
    ) -> Iterator[Entry]:
        """Synced entries from_index..to_index (inclusive), checked, in order. Any thread.

        Raises CorruptionError at damage, FileNotFoundError where a segment was
        removed meanwhile; from_index must not be below first_index.
        """
        last = self.synced_index if to_index is None else min(to_index, self.synced_index)
        segments = self._segments
        for at, segment in enumerate(segments):
            after = segments[at + 1].head if at + 1 < len(segments) else None
            if segment.first_index > last:
                return
            if after is not None and after.first_index <= from_index:
                continue
            yield from self._read_segment(segment, after, from_index, last, window_bytes)

    def _read_segment(
        self, segment: Segment, after: SegmentHead | None, first: int, last: int, window_bytes: int
    ) -> Iterator[Entry]:
        file = self._disk.open(segment.path)
        try:
            walk = Walk(file, segment, segment.nearest(first), window_bytes)
            for entry in walk:
                if entry.index > last:
                    return
                if entry.index >= first:
                    yield entry
                if entry.index == last and after is None:
                    return
            if after is not None:
                tail.check_sealed(segment.path, walk, after)
            elif walk.next_index <= last:
                damage = walk.damage
                raise CorruptionError(
                    segment.path,
                    damage.offset if damage else walk.position,
                    damage.expected if damage else f"entry {walk.next_index}",
                    damage.found if damage else "zeros",
                    RESTORE_ADVICE,
                )
        finally:
            file.close()

    # --- removing --------------------------------------------------------------

    def segments(self) -> list[tuple[int, int, int, int]]:
        """(first index, last index, bytes, timestamp of the last entry) per segment, oldest first.

        The last one is the segment being written.
        """
        rows = [
            (
                one.first_index,
                after.first_index - 1,
                one.head.segment_bytes,
                after.head.parent_timestamp_ns,
            )
            for one, after in pairwise(self._segments)
        ]
        if self._segments:
            last = self._segments[-1]
            rows.append(
                (last.first_index, self.synced_index, self._limit, self._durable_timestamp_ns)
            )
        return rows

    def bytes_after(self, index: int) -> int:
        """About how many bytes the entries above `index` take: the measure of a replay."""
        total = 0
        for segment, after in pairwise(self._segments):
            if after.first_index > index + 1:
                total += segment.head.segment_bytes - segment.nearest(index + 1)[1]
        if self._segments:
            total += self._position - self._segments[-1].nearest(index + 1)[1]
        return max(0, total)

    def remove_before(self, index: int) -> int:
        """Remove whole segments whose entries are all below `index`; return how many.

        Oldest first, so that what is left is always one unbroken range. The
        segment being written stays.
        """
        with self._sync_lock:
            count = 0
            while len(self._segments) > 1 and self._segments[1].first_index <= index:
                self._disk.remove(self._segments[0].path)
                self._segments = self._segments[1:]
                count += 1
            if count:
                self._disk.sync_directory(self._directory)
                self.first_index = self._segments[0].first_index
            return count

    def truncate_after(self, index: int) -> None:
        """Remove every entry above `index`, durably, newest first (for replication).

        Nothing may be staged. `index` must not be below first_index.
        """
        with self._sync_lock:
            assert not self._staged and self.first_index <= index <= self.synced_index
            assert self._active is not None and self._witness is not None
            # The witness may never claim more than the log has.
            self._witness.write(0, [layout.encode_witness(index)])
            self._witness.sync()
            self._witnessed_index = index
            while self._segments[-1].first_index > index:
                self._active.close()
                self._disk.remove(self._segments[-1].path)
                self._disk.sync_directory(self._directory)
                self._segments = self._segments[:-1]
                self._active = self._disk.open(self._segments[-1].path, write=True)
            self._cut_active(index)

    def _cut_active(self, index: int) -> None:
        assert self._active is not None
        segment = self._segments[-1]
        segment.marks.clear()
        walk = Walk(self._active, segment)
        for entry in walk:
            self.last_term = entry.term
            if entry.index == index:
                break
        assert walk.next_index == index + 1
        tail.cut(self._active, walk.position, walk.limit)
        segment.marks[:] = [mark for mark in segment.marks if mark[0] <= index]
        self._position, self._limit = walk.position, walk.limit
        self._parent_crc = walk.parent_crc or 0
        self.last_index = self.synced_index = index
        self.last_timestamp_ns = self._durable_timestamp_ns = walk.timestamp_ns

    # --- the rest --------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Figures of this log since it was opened."""
        return {
            "segments": len(self._segments),
            "bytes": sum(segment.head.segment_bytes for segment in self._segments),
            "first_index": self.first_index,
            "last_index": self.last_index,
            "synced_index": self.synced_index,
            "staged_bytes": self._staged_bytes,
            "syncs": self._syncs,
            "synced_bytes": self._synced_bytes,
            "sync_ns": self._sync_ns,
            "rolls": self._rolls,
            "full": int(self.full),
            "cut_bytes": self.cut_bytes,
        }

    def close(self) -> None:
        """Close files. Staged entries are not written."""
        with self._sync_lock:
            self._spare.close()
            if self._failure is None and self._witness is not None:
                self._write_witness()
            for file in (self._active, self._witness):
                if file is not None:
                    file.close()
            self._active = self._witness = None
            self._failure = FatalStorageError(f"{self._directory}: the log is closed")

    def check_invariants(self) -> None:
        with self._stage_lock:
            assert self.synced_index <= self.last_index
            assert len(self._staged) <= self.last_index - self.synced_index
            assert self._position <= self._limit
            assert (self._active is None) == (not self._segments)


def read_witness(disk: Disk, path: str) -> int:
    """The index in the witness file; 0 where there is none."""
    if not disk.exists(path):
        return 0
    file = disk.open(path)
    try:
        found = layout.decode_witness(file.read(0, layout.WITNESS_BYTES + 1))
    finally:
        file.close()
    if isinstance(found, str):
        raise CorruptionError(path, 0, "an index and its checksum", found, _WITNESS_ADVICE)
    return found


def _remove_temporary(disk: Disk, directory: str) -> None:
    for name in disk.names(directory):
        if name.endswith(".tmp"):
            disk.remove(f"{directory}/{name}")
