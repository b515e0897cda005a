"""After a sync that failed, the next process must not take the page cache for the disk.

The simulator found these: a kernel marks pages clean when their write has failed (Rebello and
others, "Can Applications Recover from fsync Failures?", USENIX ATC 2020), so what the next
process reads, whole, no later sync writes, and the next power cut takes it away.
"""

from __future__ import annotations

import pytest

from unimeter.engine.entries import NOOP
from unimeter.sim.chance import Chance
from unimeter.sim.disk import DeadProcess, SimDisk
from unimeter.storage.disk import FatalStorageError
from unimeter.storage.layout import Identity
from unimeter.storage.recovery import open_directory
from unimeter.storage.superblock import COPIES, COPY_BYTES, Superblock, SuperblockFile, decode_copy
from unimeter.storage.wal import Wal, WalLimits

ALICE = Identity(b"a" * 16, 1)
BOUNDS = WalLimits(segment_bytes=16384, segment_bytes_first=8192, background=False)
SEEDS = range(20)  # what of a failed sync arrived, stayed readable or is gone is drawn


def open_wal(disk: SimDisk) -> Wal:
    return Wal.open(disk.process(), "d", ALICE, BOUNDS)


def put(wal: Wal, *bodies: bytes) -> None:
    for body in bodies:
        wal.append(wal.last_index + 1, 1, 2, 1000 + wal.last_index, body)


def fail_next_sync(disk: SimDisk, part: str) -> None:
    """The next sync of a file whose path has `part` fails, later ones do not."""

    def fails(path: str) -> bool:
        if part not in path:
            return False
        disk.fail_sync = None
        return True

    disk.fail_sync = fails


def bodies(wal: Wal, last: int) -> list[bytes]:
    return [bytes(entry.body) for entry in wal.read(1, last)]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_counted_durable_after_a_failed_sync_survives_the_next_power_cut(
    seed: int,
) -> None:
    disk = SimDisk(Chance(seed))
    wal = open_wal(disk)
    put(wal, b"one" * 300, b"two" * 300)
    wal.sync()
    put(wal, b"three")  # of one sector: it is whole in the page cache, or not there at all
    fail_next_sync(disk, ".seg")
    with pytest.raises(FatalStorageError):
        wal.sync()
    disk.kill()

    again = open_wal(disk)
    counted = again.synced_index
    assert counted in (2, 3)
    promised = bodies(again, counted)
    disk.power_cut(arrival=0.0)

    after = open_wal(disk)
    assert after.last_index == counted
    assert bodies(after, counted) == promised


def make_superblock(disk: SimDisk) -> SuperblockFile:
    disk.make_directory("d")
    SuperblockFile.create(disk, "d", Superblock(ALICE, 1, 1)).close()
    return SuperblockFile.open(disk.process(), "d")


def good_copies(disk: SimDisk, sequence: int) -> int:
    """How many durable copies are whole and that new."""
    data = disk.durable_bytes("d/superblock")
    found = 0
    for copy in range(COPIES):
        decoded = decode_copy(data[copy * COPY_BYTES : (copy + 1) * COPY_BYTES], copy)
        found += not isinstance(decoded, str) and decoded[1].sequence == sequence
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_superblock_that_was_opened_has_two_durable_copies_of_what_it_says(seed: int) -> None:
    disk = SimDisk(Chance(seed))
    opened = make_superblock(disk)
    opened.update(term=3, vote=1)
    fail_next_sync(disk, "superblock")
    with pytest.raises(FatalStorageError):
        opened.update(term=4, vote=2)
    disk.kill()

    again = SuperblockFile.open(disk.process(), "d")
    term, sequence = again.current.term, again.current.sequence
    assert term in (3, 4)
    assert good_copies(disk, sequence) == 2, "one flipped bit takes one copy"
    disk.power_cut(arrival=0.0)
    assert SuperblockFile.open(disk.process(), "d").current.term == term


def test_a_vote_that_could_not_be_written_is_not_current() -> None:
    disk = SimDisk(Chance(1))
    opened = make_superblock(disk)
    opened.update(term=3, vote=1)
    fail_next_sync(disk, "superblock")
    with pytest.raises(FatalStorageError):
        opened.update(term=4, vote=2)
    assert (opened.current.term, opened.current.vote) == (3, 1)


def test_a_start_makes_durable_the_names_of_the_files_that_it_counts() -> None:
    """A process is killed between the rename of a segment and the sync of its directory."""
    disk = SimDisk(Chance(1))
    opened = open_directory(disk.process(), "d", bounds=BOUNDS)
    index = opened.wal.last_index
    is_renamed = False

    def stop_before_the_directory_is_synced(operation: str, path: str, _: int) -> None:
        nonlocal is_renamed
        is_renamed |= operation == "rename" and path.startswith("d/log/")
        if is_renamed and operation == "sync_directory":
            raise DeadProcess

    disk.on_operation = stop_before_the_directory_is_synced
    with pytest.raises(DeadProcess):
        while True:
            index += 1
            opened.wal.append(index, opened.wal.last_term, NOOP, 0, b"")
            opened.wal.sync()
    disk.on_operation = None
    disk.kill()
    assert is_renamed

    again = open_directory(disk.process(), "d", bounds=BOUNDS)
    counted = again.wal.synced_index
    disk.power_cut(arrival=0.0)

    after = open_directory(disk.process(), "d", bounds=BOUNDS)
    assert after.wal.last_index == counted
