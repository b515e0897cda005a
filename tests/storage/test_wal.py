"""The log: order, groups, segments, a full disk, a failed sync."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from unimeter.errors import BackpressureError, CorruptionError, WrongDirectoryError
from unimeter.storage.disk import DiskFullError, FatalStorageError, OsDisk
from unimeter.storage.layout import Identity
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.wal import Wal, WalLimits

ALICE = Identity(b"a" * 16, 1)
BOUNDS = WalLimits(segment_bytes=16384, segment_bytes_first=8192, background=False)


def open_wal(disk: MemoryDisk, bounds: WalLimits = BOUNDS, identity: Identity = ALICE) -> Wal:
    return Wal.open(disk, "d", identity, bounds)


def put(wal: Wal, *bodies: bytes) -> None:
    for body in bodies:
        wal.append(wal.last_index + 1, 1, 2, 1000 + wal.last_index, body)


def filled(disk: MemoryDisk, count: int = 60, size: int = 500, bounds: WalLimits = BOUNDS) -> Wal:
    wal = open_wal(disk, bounds)
    for number in range(count):
        put(wal, bytes([number]) * size)
        wal.sync()
    return wal


def test_entries_come_back_in_order_with_their_bytes() -> None:
    disk = MemoryDisk()
    wal = filled(disk)
    wal.close()
    again = open_wal(disk)
    found = list(again.read(1))
    assert [entry.index for entry in found] == list(range(1, 61))
    assert all(bytes(entry.body) == bytes([entry.index - 1]) * 500 for entry in found)
    assert [entry.timestamp_ns for entry in found] == list(range(1000, 1060))
    assert len(again.segments()) > 2
    again.check_invariants()


def test_nothing_is_durable_before_sync_and_everything_after() -> None:
    disk = MemoryDisk(faults=True)
    wal = open_wal(disk)
    put(wal, b"one", b"two")
    assert (wal.last_index, wal.synced_index) == (2, 0)
    assert wal.sync() == 2
    put(wal, b"three")
    assert list(wal.read(3)) == []
    assert open_wal(disk.crash(Random(1), arrival=0.0)).last_index == 2


def test_a_group_is_one_write_and_one_sync() -> None:
    disk = MemoryDisk()
    wal = open_wal(disk)
    put(wal, b"first")
    wal.sync()
    seen: list[str] = []
    disk.on_operation = lambda operation, path: seen.append(operation) if ".seg" in path else None
    put(wal, *[b"x" * 100] * 8)
    wal.sync()
    assert seen == ["write", "sync"]


def test_reading_starts_anywhere_and_ends_anywhere() -> None:
    wal = filled(MemoryDisk())
    for first in range(1, 61, 7):
        for last in range(first, 61, 11):
            expected = list(range(first, last + 1))
            assert [entry.index for entry in wal.read(first, last)] == expected
            assert [entry.index for entry in wal.read(first, last, 300)] == expected


def test_an_entry_larger_than_a_segment_gets_one_of_its_size() -> None:
    disk = MemoryDisk()
    wal = open_wal(disk)
    put(wal, b"small", b"L" * 50_000, b"small")
    wal.sync()
    again = open_wal(disk)
    assert [len(entry.body) for entry in again.read(1)] == [5, 50_000, 5]


def test_bodies_of_zeros_are_no_torn_tail() -> None:
    disk = MemoryDisk()
    large = WalLimits(65536, 65536, background=False)
    wal = open_wal(disk, large)
    put(wal, *[bytes(size) for size in (0, 1, 7, 504, 505, 512, 1024, 5000)])
    wal.sync()
    wal.close()
    assert [len(entry.body) for entry in open_wal(disk, large).read(1)][-1] == 5000
    # One flipped bit in such a body is rot, though many of its sectors are zero.
    path = disk.paths()[0]
    data = bytearray(disk.contents(path))
    data[len(data.rstrip(b"\0")) - 3000] = 1
    disk.put(path, bytes(data))
    disk.remove("d/synced")
    with pytest.raises(CorruptionError, match="every sector of it was written"):
        open_wal(disk, large)


def test_old_segments_are_removed_whole_and_reading_goes_on() -> None:
    disk = MemoryDisk()
    wal = filled(disk)
    removed = wal.remove_before(40)
    assert removed > 0 and 1 < wal.first_index <= 40
    assert wal.segments()[0][1] >= 39
    wal.close()
    again = open_wal(disk)
    assert next(again.read(again.first_index)).index == again.first_index == wal.first_index
    assert again.last_index == 60


@pytest.mark.parametrize("index", [1, 13, 14, 15, 30, 59, 60])
def test_a_removed_suffix_stays_removed_and_the_log_goes_on(index: int) -> None:
    disk = MemoryDisk()
    wal = filled(disk)
    wal.truncate_after(index)
    assert wal.last_index == wal.synced_index == index
    wal.append(index + 1, 2, 2, 5000, b"other")
    wal.sync()
    wal.close()
    again = open_wal(disk)
    assert again.last_index == index + 1
    assert bytes(next(again.read(index + 1)).body) == b"other"
    assert again.last_term == 2


def test_a_full_disk_refuses_before_anything_is_claimed_and_goes_on_later() -> None:
    disk = MemoryDisk(capacity=2_200_000)
    wal = open_wal(disk, WalLimits(512 * 1024, 512 * 1024, background=False))
    acknowledged = 0
    with pytest.raises(BackpressureError):
        for _ in range(100):
            put(wal, b"x" * 100_000)
            acknowledged = wal.sync()
    assert wal.full and wal.last_index == wal.synced_index == acknowledged > 5
    with pytest.raises(DiskFullError):
        put(wal, b"y")
    assert not wal.try_resume()
    disk.capacity = 10_000_000
    assert wal.try_resume()
    put(wal, b"z")
    wal.sync()
    wal.close()
    found = [bytes(entry.body[:1]) for entry in open_wal(disk).read(1)]
    assert found == [b"x"] * acknowledged + [b"z"]


def test_a_group_that_meets_a_full_disk_leaves_nothing_behind() -> None:
    """A file system that copies on write can be full inside a file; part of the group is there."""
    disk = MemoryDisk(faults=True)
    wal = open_wal(disk)
    put(wal, b"kept")
    wal.sync()

    def fail(operation: str, path: str) -> None:
        if operation == "write" and ".seg" in path:
            data = bytearray(disk.contents(path))
            file = disk._files[path]
            file.store(len(data.rstrip(b"\0")) + 13, b"partly written, of the failed group")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.on_operation = fail
    put(wal, b"lost" * 100, b"lost too")
    with pytest.raises(DiskFullError) as caught:
        wal.sync()
    assert caught.value.from_index == 2
    assert (wal.last_index, wal.synced_index, wal.staged_bytes) == (1, 1, 0)
    disk.on_operation = None
    survivor = open_wal(disk.crash(Random(3), arrival=1.0))
    assert survivor.last_index == 1 and survivor.cut_bytes == 0
    assert wal.try_resume()
    put(wal, b"after")
    assert wal.sync() == 2
    assert [bytes(entry.body) for entry in open_wal(disk.clone()).read(1)] == [b"kept", b"after"]


def test_a_failed_sync_is_never_tried_again() -> None:
    disk = MemoryDisk()
    wal = open_wal(disk)
    put(wal, b"one")
    wal.sync()

    def fail(operation: str, path: str) -> None:
        if operation == "sync" and ".seg" in path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.on_operation = fail
    put(wal, b"two")
    with pytest.raises(FatalStorageError):
        wal.sync()
    disk.on_operation = None
    with pytest.raises(FatalStorageError):
        wal.sync()
    with pytest.raises(FatalStorageError):
        put(wal, b"three")
    assert wal.synced_index == 1


def test_an_empty_range_reads_nothing() -> None:
    """Wherever it begins: also at an entry that the log remembers the place of."""
    wal = filled(MemoryDisk(), bounds=replace(BOUNDS, mark_bytes=0))
    assert len(list(wal.read(1))) == 60
    for first in range(1, 62):
        assert list(wal.read(first, first - 1)) == [], first


def test_a_segment_of_another_directory_is_refused() -> None:
    disk = MemoryDisk()
    filled(disk, 2).close()
    with pytest.raises(WrongDirectoryError, match="node 1 of cluster"):
        open_wal(disk, identity=Identity(b"a" * 16, 2))


def test_a_segment_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    with monkeypatch.context() as patch:
        patch.setattr("unimeter.storage.layout.FORMAT_VERSION", 2)
        filled(disk, 2).close()
    with pytest.raises(WrongDirectoryError, match="format version 2"):
        open_wal(disk)


def test_a_missing_middle_segment_is_refused() -> None:
    disk = MemoryDisk()
    filled(disk).close()
    disk.remove(disk.paths()[1])
    with pytest.raises(CorruptionError, match="next segment was written after it"):
        list(open_wal(disk).read(1))


def test_segments_prepared_in_the_background_hold_everything(tmp_path: Path) -> None:
    bounds = WalLimits(segment_bytes=256 * 1024, segment_bytes_first=64 * 1024)
    wal = Wal.open(OsDisk(), str(tmp_path), ALICE, bounds)
    for number in range(200):
        put(wal, bytes([number]) * 9000)
        wal.sync()
    wal.close()
    again = Wal.open(OsDisk(), str(tmp_path), ALICE, bounds)
    assert [entry.body[0] for entry in again.read(1)] == list(range(200))
    assert not [name for name in os.listdir(tmp_path / "log") if name.endswith(".tmp")]
    again.close()


def test_readers_in_many_threads_see_whole_prefixes_while_the_log_is_written() -> None:
    disk = MemoryDisk()
    wal = open_wal(disk)
    put(wal, b"0")
    wal.sync()
    failures: list[BaseException] = []
    done = threading.Event()

    def read(seed: int) -> None:
        random = Random(seed)
        try:
            while not done.is_set():
                last = wal.synced_index
                first = random.randrange(1, last + 1)
                found = [entry.index for entry in wal.read(first, last, 4096)]
                assert found == list(range(first, last + 1))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        put(wal, bytes([number % 256]) * (number % 700))
        wal.sync()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_no_room_for_the_next_segment_shows_before_an_entry_is_accepted() -> None:
    disk = MemoryDisk(capacity=1_150_000)
    wal = open_wal(disk, WalLimits(65536, 65536, background=True))
    put(wal, b"x" * 20_000)
    wal.sync()
    thread = wal._spare._thread
    assert thread is not None, "an eighth is used: the next one is being prepared"
    thread.join()
    with pytest.raises(DiskFullError) as caught:
        for _ in range(10):
            put(wal, b"y" * 10_000)
    assert caught.value.from_index == 0, "nothing that was accepted is dropped"
    accepted = wal.last_index
    assert wal.sync() == accepted > 2
    assert not wal.try_resume()
    disk.capacity = None
    while not wal.try_resume():
        wal._spare._join()
    put(wal, b"z" * 10_000)
    assert wal.sync() == accepted + 1
    wal.close()


def test_a_disk_that_fails_while_a_segment_is_prepared_stops_the_log() -> None:
    disk = MemoryDisk()
    wal = open_wal(disk, WalLimits(65536, 65536, background=True))

    def fail(operation: str, path: str) -> None:
        if operation == "sync" and path.endswith("spare.tmp"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    put(wal, b"x" * 20_000)
    wal.sync()
    wal._spare.close()
    disk.on_operation = fail
    put(wal, b"x" * 100)
    wal.sync()
    wal._spare._join()
    with pytest.raises(FatalStorageError):
        for _ in range(10):
            put(wal, b"y" * 10_000)
            wal.sync()
    with pytest.raises(FatalStorageError):
        wal.sync()
