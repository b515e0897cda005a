"""Opening a data directory: lock, superblock, log, snapshot, replay.

    1  lock                 one process owns a directory
    2  superblock           whose it is; another version, node or cluster is refused
    3  log                  heads of all segments, entries of the last; a torn tail is cut
    4  outcomes, snapshot   the newest whole ones that the log goes on from
    5  replay               later entries through Machine.apply, at the kernel's speed

A sole voter replays its whole log: what is durable there is committed. A member of a
cluster replays what it knows to be committed; the rest of its log may still be
replaced, and waits for a leader.

Owns that order and the making of a new directory, where the superblock comes last:
it exists only when the log with its first entry does, so a crash in the middle of
making leaves a directory that is simply made again.

Refuses a directory that holds something else, rather than scattering files into
it. What was mended (a torn tail, a damaged copy, a damaged snapshot) is said in
`Opened.notes`, because who keeps invoices wants to know of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from unimeter import limits
from unimeter.engine import entries
from unimeter.engine.machine import Machine
from unimeter.errors import CorruptionError, InvalidInputError, WrongDirectoryError
from unimeter.storage import retention
from unimeter.storage.disk import Disk, Lock
from unimeter.storage.events import EventStore
from unimeter.storage.install import (
    Received,
    finish_install,
    install,
    restore,
    restore_snapshot,
)
from unimeter.storage.layout import Identity
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.rotten import forget_rotten, note_rotten, noted_rotten
from unimeter.storage.segments import RESTORE_ADVICE, WINDOW_BYTES, Walk, list_segments
from unimeter.storage.snapshots import (
    Snapshotter,
    load_newest,
    remove_unfinished,
    set_aside,
)
from unimeter.storage.superblock import (
    RECOVERED,
    Superblock,
    SuperblockFile,
    check_owner,
    read_superblock,
)
from unimeter.storage.wal import LogBase, Wal, WalLimits
from unimeter.types import Membership

Progress = Callable[[int, int, int], None]
"""Called now and then with (log bytes replayed, log bytes in all, events replayed)."""

FIRST_TERM = 1
_FOLDERS = ("log", "snapshots", "outcomes")
_FILES = ("LOCK", "superblock", "superblock.tmp", "synced", "rotten", "rotten.tmp", "lost+found")
_OURS = {*_FILES, *_FOLDERS}
_PROGRESS_BYTES = 8 * 1024 * 1024


@dataclass
class Opened:
    """An open data directory. Everything in it belongs to the caller until `close`."""

    disk: Disk
    path: str
    cluster_id: bytes
    node_id: int
    machine: Machine
    wal: Wal
    events: EventStore
    snapshots: Snapshotter
    superblock: SuperblockFile
    lock: Lock
    created: bool = False  # this call made the directory
    notes: list[str] = field(default_factory=list)  # sentences for the operator: what was mended
    commit_index: int = 0  # known to be committed at opening; all of it is applied
    replayed_entries: int = 0
    replayed_events: int = 0

    def apply_retention(self, policy: RetentionPolicy, now_ns: int) -> int:
        """Remove what the policy lets go; return how many segments went."""
        segments = self.wal.segments()
        covered = self.snapshots.removal_limit()
        keep = retention.first_kept(segments, policy, now_ns, covered)
        if keep <= self.wal.first_index:
            return 0
        latest = self.events.latest_before(keep)
        latest = max(latest, self.superblock.current.removed_timestamp_ns)
        # First the fact that events are missing, durably; then the removal.
        self.superblock.update(removed_timestamp_ns=latest, kept_index=keep)
        self.events.removed_timestamp_ns = latest
        removed = self.wal.remove_before(keep)
        self.events.remove_before(keep)
        self.snapshots.prune()
        return removed

    def restore_snapshot(self, path: str) -> Received:
        """Check a peer's whole snapshot file and make its machine. Takes time; any thread."""
        return restore_snapshot(self.disk, path, self.cluster_id, type(self.machine))

    def install_snapshot(self, received: Received) -> Machine:
        """Have it take the place of state and log, durably; `machine` is its from now on."""
        return install(self, received)

    def note_rotten(self, index: int) -> None:
        """An entry was found damaged: have the next start check it, so that it is repaired."""
        note_rotten(self.disk, self.path, index)

    def free_bytes(self) -> int:
        """Bytes left on the directory's file system."""
        return self.disk.free_bytes(self.path)

    def statistics(self) -> dict[str, int]:
        """The log's, the event store's and the snapshots' figures together."""
        figures = self.wal.statistics()
        return {**figures, **self.events.statistics(), **self.snapshots.statistics()}

    def close(self) -> None:
        """Close everything and give the lock back. Sync first; this does not."""
        self.snapshots.abandon()
        self.wal.close()
        self.superblock.close()
        self.lock.release()


def open_directory(
    disk: Disk,
    path: str,
    *,
    create: bool = True,
    cluster_id: bytes | None = None,
    node_id: int = 1,
    genesis_key: bytes | None = None,
    membership: Membership = Membership.VOTER,
    sole_voter: bool = True,
    bounds: WalLimits | None = None,
    progress: Progress | None = None,
    machine_class: type[Machine] = Machine,
    entropy: Callable[[int], bytes] = os.urandom,
    now_ns: Callable[[], int] = time.time_ns,
) -> Opened:
    """Open the directory, making it (with its GENESIS entry, synced) where it is new or empty.

    Raises DirectoryInUseError, WrongDirectoryError (another format version,
    cluster or node; or a directory that holds something else), CorruptionError
    (file, offset, expected, found), FatalStorageError. `cluster_id=None` takes
    whatever the directory says.

    With `genesis_key` (16 secret bytes that all nodes of a cluster share) and a
    cluster id every node makes the same first entry by itself: key for key, at time 0.
    Without it the key is random and the time is now. `membership` is noted in a new
    directory only. `sole_voter=False` leaves what is not known to be committed
    unapplied: then machine.applied may be below wal.last_index.
    """
    if not 1 <= node_id <= limits.NODE_ID_MAX:
        raise InvalidInputError(f"node id {node_id} must be 1 to {limits.NODE_ID_MAX}")
    assert genesis_key is None or (len(genesis_key) == 16 and cluster_id is not None)
    bounds = bounds or WalLimits()
    is_new = _check_contents(disk, path, create)
    if is_new:
        disk.make_directory(path)
    with ExitStack() as opening:  # closes everything again if one step refuses
        lock = disk.lock(f"{path}/LOCK")
        opening.callback(lock.release)
        for folder in _FOLDERS:
            disk.make_directory(f"{path}/{folder}")
        if is_new:
            block = Superblock(
                Identity(cluster_id or entropy(16), node_id),
                now_ns(),
                term=FIRST_TERM,
                membership=membership,
            )
            superblock = _make(disk, path, block, bounds, genesis_key, entropy)
        else:
            superblock = SuperblockFile.open(disk, path)
        opening.callback(superblock.close)
        check_owner(path, superblock.current.identity, cluster_id, node_id)
        opened = _load(disk, path, superblock, lock, bounds, machine_class, opening)
        opened.created = is_new
        if not sole_voter:
            _check_noted(disk, path, opened.wal)
        _replay(opened, opened.wal.last_index if sole_voter else opened.commit_index, progress)
        if genesis_key is not None and opened.machine.hash_key != genesis_key:
            raise WrongDirectoryError(
                f"{path}: was made with another cluster's secret; "
                "give the node the secret its cluster was made with, or an empty directory"
            )
        opening.pop_all()
        return opened


# --- making ------------------------------------------------------------------------


def make_recovering(
    disk: Disk,
    path: str,
    identity: Identity,
    genesis_key: bytes,
    *,
    bounds: WalLimits | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
    now_ns: Callable[[], int] = time.time_ns,
) -> Superblock:
    """Make a new directory for a node of a cluster whose old one is lost; return what it says.

    It has a new incarnation and is marked as recovering: what its former self voted is
    not known any more. Raises WrongDirectoryError, with nothing changed, where there
    is data already, of this node or anyone's. What a refused start on the new disk left,
    a fresh directory that never took part, is no data and is made anew.
    """
    _refuse_data(disk, path)
    _clear_fresh(disk, path)
    opened = open_directory(
        disk,
        path,
        cluster_id=identity.cluster_id,
        node_id=identity.node_id,
        genesis_key=genesis_key,
        membership=Membership.RECOVERING,
        sole_voter=False,
        bounds=bounds,
        entropy=entropy,
        now_ns=now_ns,
    )
    opened.close()
    return opened.superblock.current


def _refuse_data(disk: Disk, path: str) -> None:
    """Refuse a directory that holds more than a crash in the middle of making leaves."""
    advice = f"Move it away (mv {path} {path}.old) and run this again; delete it when all is well"
    if disk.exists(f"{path}/superblock"):
        block, _ = read_superblock(disk, f"{path}/superblock")
        if block.membership is Membership.RECOVERING:
            raise WrongDirectoryError(f"{path}: is marked as recovering already: start the node")
        if _is_fresh(disk, path, block):
            return
        raise WrongDirectoryError(
            f"{path}: holds data of node {block.identity.node_id}, which would be lost. {advice}"
        )
    try:
        is_empty = not disk.names(f"{path}/log") or not _has_more_than_genesis(disk, path)
    except (CorruptionError, WrongDirectoryError):
        is_empty = False
    if not is_empty:
        raise WrongDirectoryError(f"{path}: holds data whose superblock is lost. {advice}")


def _is_fresh(disk: Disk, path: str, block: Superblock) -> bool:
    """Whether the directory was made and never took part: it holds its first entry only."""
    return block.membership is Membership.FRESH and not _has_more_than_genesis(disk, path)


def _clear_fresh(disk: Disk, path: str) -> None:
    """Take the superblock away: what is left is what a crash in the middle of making leaves."""
    if not disk.exists(f"{path}/superblock"):
        return
    lock = disk.lock(f"{path}/LOCK")
    try:
        disk.remove(f"{path}/superblock")
        disk.sync_directory(path)
    finally:
        lock.release()


def _check_contents(disk: Disk, path: str, create: bool) -> bool:
    """Whether the directory is still to be made; refuse one that holds something else."""
    names = set(disk.names(path))
    if "superblock" in names:
        return False
    if not create:
        raise WrongDirectoryError(f"{path}: there is no data directory here")
    strange = sorted(names - _OURS)
    if strange:
        raise WrongDirectoryError(
            f"{path}: is not empty and is no data directory (it holds {strange[0]!r}); "
            "name an empty or a new one"
        )
    return True


def _make(
    disk: Disk,
    path: str,
    block: Superblock,
    bounds: WalLimits,
    genesis_key: bytes | None,
    entropy: Callable[[int], bytes],
) -> SuperblockFile:
    """Make the log with its first entry, then the superblock."""
    _clear_unfinished(disk, path)
    identity = block.identity
    timestamp_ns = block.created_ns if genesis_key is None else 0
    wal = Wal.open(disk, path, identity, bounds)
    body = entries.genesis_body(identity.cluster_id, genesis_key or entropy(16))
    wal.append(1, FIRST_TERM, entries.GENESIS, timestamp_ns, body)
    wal.sync()
    wal.close()
    incarnation = int.from_bytes(entropy(8), "little") & (RECOVERED - 1) or 1
    if block.membership is Membership.RECOVERING:
        # A later one is greater, so an older copy of the directory is told from it.
        incarnation = RECOVERED | block.created_ns // 10**9 << 24 | incarnation & 0xFFFFFF
    return SuperblockFile.create(disk, path, replace(block, incarnation=incarnation))


def _clear_unfinished(disk: Disk, path: str) -> None:
    """Remove what a crash in the middle of making left: at most a log with its first entry."""
    if _has_more_than_genesis(disk, path):
        raise CorruptionError(
            f"{path}/superblock", 0, "a superblock beside the log", "no file", RESTORE_ADVICE
        )
    for name in disk.names(f"{path}/log"):
        disk.remove(f"{path}/log/{name}")
    for name in ("synced", "superblock.tmp"):
        if disk.exists(f"{path}/{name}"):
            disk.remove(f"{path}/{name}")
    disk.sync_directory(f"{path}/log")
    disk.sync_directory(path)


def _has_more_than_genesis(disk: Disk, path: str) -> bool:
    """Whether there is more than a crash in the middle of making can leave."""
    segments = [name for name in disk.names(f"{path}/log") if name.endswith(".seg")]
    return (
        len(segments) > 1 or bool(disk.names(f"{path}/snapshots")) or _has_second_entry(disk, path)
    )


def _has_second_entry(disk: Disk, path: str) -> bool:
    """Whether the log, whoever's it is, holds more than the first entry."""
    for segment in list_segments(disk, f"{path}/log", None):
        file = disk.open(segment.path)
        try:
            walk = Walk(file, segment)
            return sum(1 for _ in walk) != 1 or walk.damage is not None
        finally:
            file.close()
    return False


# --- loading -----------------------------------------------------------------------


def _load(
    disk: Disk,
    path: str,
    superblock: SuperblockFile,
    lock: Lock,
    bounds: WalLimits,
    machine_class: type[Machine],
    opening: ExitStack,
) -> Opened:
    """Everything but the replay."""
    _remove_temporary(disk, path)
    # The process before this one may have been killed between a rename and the sync of the
    # directory: then a file that is there has a name that a power cut takes back.
    for folder in (path, *(f"{path}/{folder}" for folder in _FOLDERS)):
        disk.sync_directory(folder)
    notes = [superblock.mended] if superblock.mended else []
    finished = finish_install(disk, path, superblock)
    if finished:
        notes.append(finished)
    current = superblock.current
    identity = current.identity
    for index in remove_unfinished(disk, path, current.snapshot_index):
        notes.append(f"{path}: a peer's snapshot at entry {index} was not in effect yet; removed")
    base = LogBase(current.base_index, current.base_term, current.base_timestamp_ns)
    wal = Wal.open(disk, path, identity, bounds, current.kept_index, base)
    opening.callback(wal.close)
    _check_log(path, wal, current)
    if wal.cut_bytes:
        notes.append(
            f"{path}/log: cut {wal.cut_bytes} bytes of a write that a crash had interrupted, "
            f"behind entry {wal.last_index}; nothing of it was acknowledged"
        )
    events = EventStore(disk, path, wal)
    events.removed_timestamp_ns = current.removed_timestamp_ns
    until, said = events.load(identity.cluster_id, wal.first_index)
    notes += said
    head, state, said = load_newest(disk, path, identity, wal.first_index, wal.last_index, until)
    notes += said
    machine = machine_class()
    if state is not None:
        machine = restore(machine_class, state, f"{path}/snapshots")
    index = 0 if head is None else head.index
    if index < current.snapshot_index:
        notes.append(
            f"{path}: replaying from entry {index} instead of the snapshot at "
            f"{current.snapshot_index}, which can't be used"
        )
    set_aside(disk, path, index)
    events.start_from(index)
    if index != current.snapshot_index:
        superblock.update(snapshot_index=index)
    snapshots = Snapshotter(disk, path, superblock, wal, events)
    if head is not None:
        snapshots.note_newest(head.state_bytes, head.timestamp_ns)
    opened = Opened(
        disk,
        path,
        identity.cluster_id,
        identity.node_id,
        machine,
        wal,
        events,
        snapshots,
        superblock,
        lock,
        notes=notes,
        # GENESIS, which each node makes by itself, and what a snapshot holds are committed.
        commit_index=max(1, index, current.snapshot_index, wal.commit_hint),
    )
    wal.note_commit(opened.commit_index)
    wal.applied_index = events.applied_index = lambda: opened.machine.applied
    return opened


def _check_log(path: str, wal: Wal, current: Superblock) -> None:
    """The log must hold its first entry, or reach back to a snapshot, and up to the newest."""
    if wal.last_index < max(1, current.snapshot_index):
        raise CorruptionError(
            f"{path}/log",
            0,
            f"entries up to {max(1, current.snapshot_index)}",
            f"entries up to {wal.last_index}",
            RESTORE_ADVICE,
        )


def _check_noted(disk: Disk, path: str, wal: Wal) -> None:
    """Look, once, at the entry that was found damaged in an earlier run.

    Raises RottenEntryError if it still is. Where no peer can repair it now, the start after
    this one does without: the node may be needed for its peers to start at all.
    """
    index = noted_rotten(disk, path)
    forget_rotten(disk, path)
    if wal.first_index <= index <= wal.last_index:
        for _ in wal.read(index, index):
            pass


def _remove_temporary(disk: Disk, path: str) -> None:
    for folder in _FOLDERS:
        for name in disk.names(f"{path}/{folder}"):
            if name.endswith(".tmp"):
                disk.remove(f"{path}/{folder}/{name}")


def _replay(opened: Opened, until: int, progress: Progress | None) -> None:
    """Apply the entries after the snapshot, up to `until`."""
    machine, wal, events = opened.machine, opened.wal, opened.events
    apply, note = machine.apply, events.note
    total = wal.bytes_after(machine.applied)
    done = said = replayed = counted = 0
    for entry in wal.read(machine.applied + 1, until, WINDOW_BYTES):
        applied = apply(entry.index, entry.kind, entry.timestamp_ns, entry.body)
        counted += applied.stored + applied.duplicates + applied.refused
        if applied.duplicates or applied.refused:
            note(entry.index, applied.outcomes)
        replayed += 1
        done += len(entry.body)
        if progress is not None and done - said > _PROGRESS_BYTES:
            said = done
            progress(min(done, total), total, counted)
    assert machine.applied == until, f"replay ends at {machine.applied}, committed is {until}"
    opened.commit_index = until
    wal.note_commit(until)
    opened.replayed_entries, opened.replayed_events = replayed, counted
    if progress is not None and replayed:
        progress(total, total, counted)
