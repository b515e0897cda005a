"""Taking snapshots, choosing one to start from, keeping the right ones.

    snapshots/<index>.snap    the state after entry <index>
    outcomes/<index>.out      which events counted, since the snapshot before

Owns when a snapshot is in effect. The order: outcomes file (temporary name, sync,
rename, sync of the directory), snapshot file (the same), then the superblock names
it. A crash in between leaves a whole snapshot that nobody needs, or a temporary
file, which opening removes.

Usually a forked child writes (see `background`), at a moment when everything
applied is synced, while the parent goes on. Inline writing is for memory, tests
and hosts that can't fork.

Kept: the newest two, so that one damaged file costs a longer replay and not the
directory, and the base: the oldest one that the stored log goes on from, which
`verify` recomputes from. A snapshot that fails its checksums is renamed
`.damaged`, never deleted, and the one before it is used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from unimeter.errors import CorruptionError, DataError, RottenEntryError
from unimeter.storage.background import Child
from unimeter.storage.disk import Buffer, Disk, DiskFullError
from unimeter.storage.events import EventStore
from unimeter.storage.layout import Identity
from unimeter.storage.segments import indexes_of
from unimeter.storage.snapshot_file import SnapshotHead, read_snapshot, write_snapshot
from unimeter.storage.superblock import SuperblockFile
from unimeter.storage.wal import Wal

SNAPSHOTS_KEPT = 2  # besides the base
_SUFFIX = ".snap"


class Snapshotable(Protocol):
    """What a snapshot needs of the machine."""

    @property
    def applied(self) -> int: ...

    @property
    def timestamp_ns(self) -> int: ...

    def snapshot(self) -> Sequence[Buffer]: ...


@dataclass(frozen=True)
class SnapshotResult:
    """How a snapshot ended. `error` is empty on success."""

    index: int
    size_bytes: int
    seconds: float
    error: str = ""
    rotten_index: int = 0  # an entry of the log that it met and that is damaged; 0 = none


def snapshot_path(directory: str, index: int) -> str:
    return f"{directory}/snapshots/{index:016x}{_SUFFIX}"


def snapshot_indexes(disk: Disk, directory: str) -> list[int]:
    """The indexes of the snapshots in a data directory, oldest first."""
    return indexes_of(disk, f"{directory}/snapshots", _SUFFIX)


class Snapshotter:
    """Takes the snapshots of one data directory, one at a time."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        superblock: SuperblockFile,
        wal: Wal,
        events: EventStore,
    ) -> None:
        self.last_index = superblock.current.snapshot_index  # of the newest in effect, 0 = none
        self.last_bytes = self.last_timestamp_ns = 0  # its size, and the log's clock at that entry
        self._disk, self._directory = disk, directory
        self._superblock, self._wal, self._events = superblock, wal, events
        self._identity: Identity = superblock.current.identity
        self._child: Child | None = None
        self._index = 0  # of the one being taken
        self._timestamp_ns = 0
        self._started = 0.0
        self._result: SnapshotResult | None = None
        self._taken = self._failed = 0

    @property
    def busy(self) -> bool:
        """Whether one is being taken, or its result was not asked for yet."""
        return self._child is not None or self._result is not None

    # --- taking ------------------------------------------------------------------

    def begin(self, machine: Snapshotable, *, background: bool = True) -> None:
        """Start a snapshot of `machine` at machine.applied (which must be synced).

        In the background a forked child writes; the caller may go on applying at
        once. Then `poll()` (or watch `fileno()` for reading and poll when it is).
        Inline (background=False, or a disk that can't fork) it is written before
        this returns, and the next poll() gives the result. Nothing happens where
        there is a snapshot at this index already.
        """
        assert not self.busy, "one snapshot at a time"
        index = machine.applied
        assert index <= self._wal.synced_index, "a snapshot ahead of the durable log"
        if index == self.last_index:
            return
        self._index, self._started = index, time.monotonic()
        term = self._wal.term_of(index)
        timestamp_ns = self._timestamp_ns = machine.timestamp_ns

        def work() -> str:
            try:
                self._write(index, term, timestamp_ns, machine.snapshot())
            except RottenEntryError as error:  # met in the log; the host may mend it
                return f"{error.index} {error}"
            return ""

        try:
            if background and self._disk.can_fork:
                self._child = Child.start(work)
                return
            said = work()
        except (DiskFullError, DataError, OSError) as error:
            self._result = self._fail(f"{type(error).__name__}: {error}")
            return
        self._result = self._end(said)

    def note_newest(self, size_bytes: int, timestamp_ns: int) -> None:
        """What is known of the newest snapshot in effect: only looked at, by whoever watches."""
        self.last_bytes, self.last_timestamp_ns = size_bytes, timestamp_ns

    def fileno(self) -> int:
        """Readable when the background child has finished; -1 when none runs."""
        return -1 if self._child is None else self._child.pipe

    def poll(self) -> SnapshotResult | None:
        """Never blocks: None while running or idle; the result once, when it has ended."""
        if self._child is not None:
            words = self._child.poll()
            if words is None:
                return None
            self._end_child(words, self._child.said)
        result, self._result = self._result, None
        return result

    def wait(self) -> SnapshotResult | None:
        """Block until the running snapshot has ended (at close); None when none runs."""
        if self._child is not None:
            words = self._child.wait()
            self._end_child(words, self._child.said)
        result, self._result = self._result, None
        return result

    def abandon(self) -> None:
        """Kill a running child and remove what it wrote."""
        if self._child is not None:
            child, self._child = self._child, None
            child.kill()
            self._remove_unfinished()
        self._result = None

    def statistics(self) -> dict[str, int]:
        return {
            "snapshot_index": self.last_index,
            "snapshots_taken": self._taken,
            "snapshots_failed": self._failed,
            "snapshot_running": int(self._child is not None),
        }

    def _end_child(self, words: str, said: str) -> None:
        self._child = None
        self._result = self._fail(words) if words else self._end(said)

    def _end(self, said: str) -> SnapshotResult:
        """The files are durable, unless a damaged entry was met: its index and what to tell."""
        if not said:
            return self._succeed()
        index, _, words = said.partition(" ")
        return replace(self._fail(words), rotten_index=int(index))

    def _write(self, index: int, term: int, timestamp_ns: int, buffers: Sequence[Buffer]) -> None:
        """Write both files whole and durably (in the child, or inline)."""
        self._events.write_outcomes(self._identity.cluster_id, index)
        size = sum(memoryview(buffer).nbytes for buffer in buffers)
        head = SnapshotHead(self._identity.cluster_id, index, term, timestamp_ns, size)
        path = snapshot_path(self._directory, index)
        # The pid keeps the child of a killed parent apart from the next parent's own.
        temporary = f"{path}.{os.getpid()}.tmp"
        file = self._disk.open(temporary, create=True)
        try:
            write_snapshot(file, head, buffers)
        finally:
            file.close()
        self._disk.rename(temporary, path)
        self._disk.sync_directory(f"{self._directory}/snapshots")

    def _succeed(self) -> SnapshotResult:
        """The files are durable: put them into effect, then let old ones go."""
        index, path = self._index, snapshot_path(self._directory, self._index)
        self._superblock.update(snapshot_index=index)
        self._events.adopt(index)
        self.last_index = index
        self._taken += 1
        file = self._disk.open(path)
        size = file.size()
        file.close()
        self.note_newest(size, self._timestamp_ns)
        self.prune()
        return SnapshotResult(index, size, time.monotonic() - self._started)

    def _fail(self, words: str) -> SnapshotResult:
        self._failed += 1
        self._remove_unfinished()
        return SnapshotResult(self._index, 0, time.monotonic() - self._started, words)

    def _remove_unfinished(self) -> None:
        """What a snapshot that failed has left; the next one would not go on from it."""
        for folder in ("snapshots", "outcomes"):
            for name in self._disk.names(f"{self._directory}/{folder}"):
                if name.endswith(".tmp"):
                    with suppress(FileNotFoundError):
                        self._disk.remove(f"{self._directory}/{folder}/{name}")
        self._events.discard_unadopted()

    # --- keeping -----------------------------------------------------------------

    def removal_limit(self) -> int:
        """Entries up to this index may go: the older of the kept snapshots covers them."""
        indexes = [i for i in snapshot_indexes(self._disk, self._directory) if i <= self.last_index]
        return indexes[-SNAPSHOTS_KEPT] if len(indexes) >= SNAPSHOTS_KEPT else 0

    def prune(self) -> int:
        """Remove snapshots that neither the newest two nor the base; return how many."""
        indexes = [i for i in snapshot_indexes(self._disk, self._directory) if i <= self.last_index]
        keep = set(indexes[-SNAPSHOTS_KEPT:])
        first = self._wal.first_index
        if first > 1:
            keep.update([index for index in indexes if index >= first - 1][:1])
        removed = [index for index in indexes if index not in keep]
        for index in removed:
            self._disk.remove(snapshot_path(self._directory, index))
        for name in self._disk.names(f"{self._directory}/snapshots"):
            if name.endswith(".damaged"):
                self._disk.remove(f"{self._directory}/snapshots/{name}")
        return len(removed)


def load_newest(
    disk: Disk,
    directory: str,
    identity: Identity,
    first_index: int,
    last_index: int,
    outcomes_until: int,
) -> tuple[SnapshotHead | None, memoryview | None, list[str]]:
    """The newest whole snapshot the log goes on from, and sentences on those passed over.

    (None, None, notes) means: replay from the first entry. Raises CorruptionError
    where nothing reaches back to the stored log.
    """
    notes: list[str] = []
    error: CorruptionError | None = None
    for index in reversed(snapshot_indexes(disk, directory)):
        path = snapshot_path(directory, index)
        if index > last_index:
            raise CorruptionError(
                f"{directory}/log",
                0,
                f"entries up to {index}, which {path} was made from",
                f"entries up to {last_index}",
                "Nothing was changed. Restore the missing segments.",
            )
        if index < first_index - 1:
            break
        if index > outcomes_until:
            continue  # its outcomes are damaged or missing; replay from an older one makes them
        try:
            head, state, _ = read_snapshot(disk, path)
            _check_head(path, head, index, identity)
            return head, state, notes
        except CorruptionError as damage:
            error = error or damage
            notes.append(f"{damage} Passed over; kept as {path}.damaged")
    if first_index > 1:
        raise error or CorruptionError(
            f"{directory}/snapshots",
            0,
            f"a snapshot at entry {first_index - 1} or later",
            "none",
            "The log does not reach back to its first entry. Restore the snapshots from a copy.",
        )
    return None, None, notes


def _check_head(path: str, head: SnapshotHead, index: int, identity: Identity) -> None:
    if head.index != index or head.cluster_id != identity.cluster_id:
        raise CorruptionError(
            path,
            16,
            f"index {index} of cluster {identity.cluster_id.hex()}",
            f"index {head.index} of cluster {head.cluster_id.hex()}",
            "The file was renamed.",
        )


def remove_snapshots(disk: Disk, directory: str, is_gone: Callable[[int], bool]) -> list[int]:
    """Remove those at the indexes that `is_gone` says, durably; return them."""
    removed = [index for index in snapshot_indexes(disk, directory) if is_gone(index)]
    for index in removed:
        disk.remove(snapshot_path(directory, index))
    if removed:
        disk.sync_directory(f"{directory}/snapshots")
    return removed


def remove_unfinished(disk: Disk, directory: str, named_index: int) -> list[int]:
    """Remove a peer's snapshots that were not put into effect; return their indexes.

    One of this node's own is written after the outcomes file that belongs to it, and is
    used although the superblock does not name it yet.
    """
    covered = set(indexes_of(disk, f"{directory}/outcomes", ".out"))
    return remove_snapshots(
        disk, directory, lambda index: index > named_index and index not in covered
    )


def set_aside(disk: Disk, directory: str, after: int) -> None:
    """Take every snapshot above `after` out of the way: damaged, or made from damaged files."""
    indexes = [index for index in snapshot_indexes(disk, directory) if index > after]
    for index in indexes:
        path = snapshot_path(directory, index)
        disk.rename(path, f"{path}.damaged")
    if indexes:
        disk.sync_directory(f"{directory}/snapshots")
