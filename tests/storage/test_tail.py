"""Torn tail or rot: the worked examples of docs/internals/formats.md."""

from __future__ import annotations

import pytest

from unimeter.errors import CorruptionError
from unimeter.storage.layout import Identity
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.wal import Wal, WalLimits

OWNER = Identity(b"c" * 16, 1)
BOUNDS = WalLimits(segment_bytes=65536, segment_bytes_first=65536, background=False)
SECTOR = 512


class Log:
    """Three synced entries, then a group of three; ways to spoil it; no witness."""

    def __init__(self, group_synced_before: int = 3) -> None:
        self.disk = MemoryDisk()
        wal = Wal.open(self.disk, "d", OWNER, BOUNDS)
        for index in range(1, 4):
            wal.append(index, 1, 2, index, bytes([index]) * 700)
            wal.sync()
        self.ends = [wal._active.position]
        for index in range(4, 7):
            wal.append(index, 1, 2, index, bytes([index]) * 1500)
            self.ends.append(self.ends[-1] + 64 + 1504 + 8)
        wal.sync()
        assert self.ends[-1] == wal._active.position
        wal.close()
        self.path = "d/log/0000000000000001.seg"
        self.disk.remove("d/synced")
        self.data = bytearray(self.disk.contents(self.path))

    def lose(self, start: int, stop: int) -> None:
        """These bytes never arrived."""
        self.data[start:stop] = bytes(stop - start)

    def open(self) -> Wal:
        self.disk.put(self.path, bytes(self.data))
        return Wal.open(self.disk, "d", OWNER, BOUNDS)


def sector_after(position: int) -> int:
    return -(-position // SECTOR) * SECTOR


def test_a_lost_sector_in_the_last_write_cuts_from_that_entry_on() -> None:
    log = Log()
    hole = sector_after(log.ends[1] + 64)
    log.lose(hole, hole + SECTOR)  # inside entry 5; entry 6 arrived whole
    wal = log.open()
    assert wal.last_index == 4 and wal.cut_bytes > 0
    assert not any(log.disk.contents(log.path)[log.ends[1] :]), "entry 6 is cut with it"


def test_a_lost_end_of_the_last_write_cuts_from_that_entry_on() -> None:
    log = Log()
    log.lose(sector_after(log.ends[1]), len(log.data))
    assert log.open().last_index == 4


def test_a_lost_header_with_later_sectors_there_is_cut() -> None:
    log = Log()
    log.lose(log.ends[0], sector_after(log.ends[0] + 64))
    assert log.open().last_index == 3


def test_nothing_of_the_last_write_arrived_is_the_clean_end() -> None:
    log = Log()
    log.lose(log.ends[0], len(log.data))
    wal = log.open()
    assert wal.last_index == 3 and wal.cut_bytes == 0


def test_a_lost_sector_of_an_entry_that_a_later_one_saw_durable_is_rot() -> None:
    log = Log()
    start = log.ends[0] - 700 - 76  # entry 3; the group was written when 3 was durable
    hole = sector_after(start + 64)
    log.lose(hole, hole + SECTOR)
    with pytest.raises(CorruptionError, match="proves that it was durable"):
        log.open()


def test_a_flipped_bit_in_the_last_entry_is_rot() -> None:
    log = Log()
    log.data[log.ends[2] + 900] ^= 4
    with pytest.raises(CorruptionError, match="every sector of it was written") as caught:
        log.open()
    assert caught.value.offset == log.ends[2] + 64


def test_a_cut_inside_a_sector_is_rot() -> None:
    """A disk writes sectors whole; what ends in the middle of one was cut by something else."""
    log = Log()
    middle = sector_after(log.ends[2] + 64) + 100
    log.lose(middle, sector_after(middle))
    with pytest.raises(CorruptionError, match="every sector of it was written"):
        log.open()


def test_the_first_entry_of_a_segment_is_never_torn() -> None:
    log = Log()
    log.lose(4096, len(log.data))
    with pytest.raises(CorruptionError, match="named only when its first entry is durable"):
        log.open()


def test_an_entry_in_the_place_of_another_is_rot() -> None:
    log = Log()
    entry = log.data[log.ends[1] : log.ends[2]]
    log.data[log.ends[0] : log.ends[1]] = entry
    with pytest.raises(CorruptionError, match="expected entry 4, found entry 5"):
        log.open()


def test_a_shorter_file_is_rot() -> None:
    log = Log()
    del log.data[60_000:]
    with pytest.raises(CorruptionError, match="expected a file of 65536 bytes, found 60000"):
        log.open()


def test_the_witness_makes_a_lost_tail_rot() -> None:
    log = Log()
    copy = Wal.open(log.disk, "d", OWNER, BOUNDS)  # writes a witness of 6
    copy.close()
    log.lose(log.ends[1], len(log.data))
    with pytest.raises(CorruptionError, match="synced says that entry 6 was durable"):
        log.open()
