"""A snapshot from a peer takes the place of this node's state and log.

A follower that needs entries which its leader's retention has removed gets the leader's
snapshot instead: a file equal to the leader's, byte by byte. Owns the order in which
it takes effect, so that a start after a crash finds the old state or the new one:

    1  restore       every byte checked, the machine made (may take seconds: in a thread)
    2  rename        the file gets its name; the directory is synced
    3  superblock    names the snapshot, says where the log goes on, and that the log on
                     disk is older: from here on the new state is the truth
    4  log, witness  all segments go, then the witness says the snapshot's index
    5  outcomes      go; older snapshots too, which no log leads on from
    6  superblock    the log on disk is the snapshot's: empty, going on after it

A crash before 3 leaves a snapshot that the superblock does not name and that no
outcomes file belongs to: it is removed, the leader sends it again. After 3, the
next start goes on with 4.

The events of the entries up to the snapshot were never here. What needs them, a range
that cuts a bucket, is refused, by the same note that retention leaves: no event that
is missing is later than so and so. The bound is read from the state, which knows the
last event of each total.

Refuses to replace a log that holds the snapshot's last entry: then its later entries,
which may count for a majority, go on after the snapshot, and none is needed. Raft
never asks for that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unimeter.engine.machine import Machine
from unimeter.errors import CorruptionError
from unimeter.storage.disk import Disk
from unimeter.storage.segments import RESTORE_ADVICE, indexes_of, remove_segments
from unimeter.storage.snapshot_file import SnapshotHead, read_snapshot
from unimeter.storage.snapshots import remove_snapshots, snapshot_path
from unimeter.storage.superblock import SuperblockFile
from unimeter.storage.wal import LogBase
from unimeter.storage.witness import Witness

if TYPE_CHECKING:
    from unimeter.storage.recovery import Opened

_CELL_WORDS, _CELL_TIMESTAMP = 12, 8  # as `engine.totals` lays them out
_MEMBER_WORDS, _MEMBER_TIMESTAMP = 4, 1
_PIECE = 16_384  # words looked at in one go: half a millisecond


@dataclass(frozen=True)
class Received:
    """A whole snapshot of a peer, not in effect yet."""

    path: str
    head: SnapshotHead
    machine: Machine
    latest_ns: int  # no event counted in it is later

    @property
    def base(self) -> LogBase:
        """What the log goes on after."""
        return LogBase(self.head.index, self.head.term, self.head.timestamp_ns)


def restore_snapshot(
    disk: Disk, path: str, cluster_id: bytes, machine_class: type[Machine] = Machine
) -> Received:
    """Check every byte of a received file and make its machine. Takes time; any thread.

    Raises CorruptionError where the file is damaged or another cluster's.
    """
    head, state, _ = read_snapshot(disk, path)
    if head.cluster_id != cluster_id:
        raise CorruptionError(
            path, 16, f"cluster {cluster_id.hex()}", head.cluster_id.hex(), "Nothing was changed."
        )
    machine = restore(machine_class, state, path)
    if machine.applied != head.index:
        raise CorruptionError(
            path, 32, f"the state at {head.index}", f"at {machine.applied}", "Nothing was changed."
        )
    return Received(path, head, machine, latest_event_ns(machine))


def restore(machine_class: type[Machine], state: memoryview, path: str) -> Machine:
    """The machine of a state whose checksums are right."""
    try:
        return machine_class.restore(state)
    except (ValueError, IndexError, struct.error) as error:
        raise CorruptionError(
            path,
            0,
            "a state this program can read",
            str(error),
            "Every checksum is right, so another program wrote it. " + RESTORE_ADVICE,
        ) from error


def latest_event_ns(machine: Machine) -> int:
    """A time that no event counted so far is later than: of the last event of each total."""
    _, _, cells, members, *_ = machine.counter.totals.dump()
    latest = _largest(cells[_CELL_TIMESTAMP::_CELL_WORDS])
    return max(latest, _largest(members[_MEMBER_TIMESTAMP::_MEMBER_WORDS]))


def _largest(stamps: memoryview) -> int:
    """Piece by piece, so that other threads get their turn in between."""
    pieces = range(0, len(stamps), _PIECE)
    return max((max(stamps[start : start + _PIECE]) for start in pieces), default=0)


def install(opened: Opened, received: Received) -> Machine:
    """Put a received snapshot into effect, durably; return its machine. See the module's table.

    Nothing may be staged or running on the directory; the machine before is given up.
    """
    disk, path, wal, superblock = opened.disk, opened.path, opened.wal, opened.superblock
    base = received.base
    assert base.index > opened.machine.applied, "a snapshot behind the state"
    if wal.first_index - 1 <= base.index <= wal.last_index:
        assert wal.term_of(base.index) != base.term, "the log holds the snapshot's last entry"
    opened.snapshots.abandon()
    disk.rename(received.path, snapshot_path(path, base.index))
    disk.sync_directory(f"{path}/snapshots")
    block = superblock.current
    removed_ns = max(received.latest_ns, block.removed_timestamp_ns)
    # A log may not end in a term that this node has not seen. It voted for nobody in a
    # later one, or it would have seen it.
    is_later = base.term > block.term
    superblock.update(
        term=max(block.term, base.term),
        vote=0 if is_later else block.vote,
        snapshot_index=base.index,
        kept_index=base.index + 1,
        removed_timestamp_ns=removed_ns,
        base_index=base.index,
        base_term=base.term,
        base_timestamp_ns=base.timestamp_ns,
        is_installing=True,
    )
    wal.restart_after(base)
    _remove_older(disk, path, base.index)
    superblock.update(is_installing=False)
    opened.events.restart_after(base.index, removed_ns)
    opened.snapshots.last_index = base.index
    opened.snapshots.note_newest(received.head.state_bytes, base.timestamp_ns)
    opened.machine, opened.commit_index = received.machine, base.index
    return received.machine


def finish_install(disk: Disk, path: str, superblock: SuperblockFile) -> str:
    """At opening: go on where a crash interrupted an install; a sentence on it, or nothing."""
    block = superblock.current
    if not block.is_installing:
        return ""
    remove_segments(disk, f"{path}/log")
    witness = Witness(disk, f"{path}/synced", block.base_index, block.base_index)
    witness.settle(block.base_index, block.base_index)
    witness.close()
    _remove_older(disk, path, block.base_index)
    superblock.update(is_installing=False)
    return (
        f"{path}: a crash had interrupted the taking over of a peer's snapshot at entry "
        f"{block.base_index}; it is in effect now"
    )


def _remove_older(disk: Disk, path: str, index: int) -> None:
    """Outcomes and snapshots of what was before."""
    for to_index in indexes_of(disk, f"{path}/outcomes", ".out"):
        disk.remove(f"{path}/outcomes/{to_index:016x}.out")
    disk.sync_directory(f"{path}/outcomes")
    remove_snapshots(disk, path, lambda found: found < index)
