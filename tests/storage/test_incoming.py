"""A snapshot file that arrives in pieces: what is believed, what survives, what is thrown away."""

from __future__ import annotations

from random import Random

import pytest

from unimeter import limits
from unimeter.errors import CorruptionError, DiskFullError
from unimeter.storage.incoming import Incoming, OutgoingFile, part_path, remove_stale_parts
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.snapshot_file import (
    CHUNK_BYTES,
    HEADER_BYTES,
    SnapshotHead,
    read_snapshot,
    write_snapshot,
)

INDEX, TERM = 77, 3
STATE = Random(1).randbytes(3 * CHUNK_BYTES + 12_345)
STEP = 200_000  # no divisor of anything in the format


def snapshot_bytes(index: int = INDEX, term: int = TERM, state: bytes = STATE) -> bytes:
    disk = MemoryDisk()
    file = disk.open("s", create=True)
    write_snapshot(file, SnapshotHead(bytes(16), index, term, 5, len(state)), [state])
    return file.read(0, file.size())


WHOLE = snapshot_bytes()


@pytest.fixture
def disk() -> MemoryDisk:
    made = MemoryDisk(faults=True)
    made.make_directory("d")
    made.make_directory("d/snapshots")
    made.sync_directory("d")
    return made


def feed(incoming: Incoming, data: bytes, until: int | None = None, step: int = STEP) -> None:
    """Write from where it is to `until`."""
    end = len(data) if until is None else until
    while incoming.received < end:
        at = incoming.received
        incoming.write(at, data[at : min(end, at + step)])


@pytest.mark.parametrize("step", [1_000_000, STEP, 4_097])
def test_a_file_that_came_whole_is_the_file_that_was_sent(disk: MemoryDisk, step: int) -> None:
    incoming = Incoming(disk, "d")
    assert incoming.begin(INDEX, TERM, len(WHOLE)) == 0
    feed(incoming, WHOLE, step=step)
    assert incoming.is_whole
    path = incoming.finish()
    assert path == part_path("d/snapshots", INDEX) == "d/snapshots/000000000000004d.part"
    head, state, _ = read_snapshot(disk, path)
    assert bytes(state) == STATE and (head.index, head.term) == (INDEX, TERM)


def test_an_empty_state_is_a_file_too(disk: MemoryDisk) -> None:
    empty = snapshot_bytes(state=b"")
    incoming = Incoming(disk, "d")
    incoming.begin(INDEX, TERM, len(empty))
    feed(incoming, empty)
    assert incoming.is_whole


def test_a_finished_file_survives_a_power_cut(disk: MemoryDisk) -> None:
    incoming = Incoming(disk, "d")
    incoming.begin(INDEX, TERM, len(WHOLE))
    feed(incoming, WHOLE)
    path = incoming.finish()
    for seed in range(20):
        _, state, _ = read_snapshot(disk.crash(Random(seed)), path)
        assert bytes(state) == STATE


def test_a_lost_connection_goes_on_where_it_stopped(disk: MemoryDisk) -> None:
    incoming = Incoming(disk, "d")
    incoming.begin(INDEX, TERM, len(WHOLE))
    feed(incoming, WHOLE, until=1_500_001)
    assert incoming.begin(INDEX, TERM, len(WHOLE)) == 1_500_001
    feed(incoming, WHOLE)
    assert incoming.is_whole


BOUNDARIES = [
    0,
    HEADER_BYTES,
    *(HEADER_BYTES + n * (CHUNK_BYTES + 8) for n in (1, 2, 3)),
    len(WHOLE) - 32,
    len(WHOLE),
]
CUTS = sorted(
    {max(0, min(len(WHOLE), edge + off)) for edge in BOUNDARIES for off in (-1, 0, 1, 40)}
)


@pytest.mark.parametrize("cut", CUTS)
def test_a_restart_goes_on_at_the_last_whole_chunk(disk: MemoryDisk, cut: int) -> None:
    first = Incoming(disk, "d")
    first.begin(INDEX, TERM, len(WHOLE))
    feed(first, WHOLE, until=cut)
    second = Incoming(disk, "d")  # another process, the same disk
    resumed = second.begin(INDEX, TERM, len(WHOLE))
    assert resumed == max(edge for edge in BOUNDARIES if edge <= cut)
    feed(second, WHOLE)
    assert bytes(read_snapshot(disk, second.finish())[1]) == STATE


def test_a_power_cut_in_the_middle_never_leaves_bytes_that_are_believed(disk: MemoryDisk) -> None:
    resumed = set()
    for seed in range(25):
        random = Random(seed)
        incoming = Incoming(disk, "d")
        incoming.begin(INDEX, TERM, len(WHOLE))
        feed(incoming, WHOLE, until=random.randrange(len(WHOLE)))
        disk.sync_directory("d/snapshots")  # the name may survive, the bytes are unsynced
        survivor = disk.crash(random, arrival=random.choice([0.0, 0.5, 0.999, 1.0]))
        after = Incoming(survivor, "d")
        resumed.add(after.begin(INDEX, TERM, len(WHOLE)))
        feed(after, WHOLE)
        assert bytes(read_snapshot(survivor, after.finish())[1]) == STATE
        incoming.close()
    assert len(resumed) > 2, "some kept whole chunks, some nothing"


@pytest.mark.parametrize("at", [3, 50, HEADER_BYTES + 4, 500_000, 2_000_000, len(WHOLE) - 20])
def test_a_flipped_byte_is_thrown_away_with_its_chunk_only(disk: MemoryDisk, at: int) -> None:
    broken = bytearray(WHOLE)
    broken[at] ^= 0x10
    incoming = Incoming(disk, "d")
    incoming.begin(INDEX, TERM, len(WHOLE))
    with pytest.raises(CorruptionError):
        feed(incoming, bytes(broken))
    assert incoming.received == max(edge for edge in BOUNDARIES if edge <= at)
    feed(incoming, WHOLE)
    assert bytes(read_snapshot(disk, incoming.finish())[1]) == STATE


def test_a_byte_flipped_on_the_disk_is_found_when_going_on(disk: MemoryDisk) -> None:
    first = Incoming(disk, "d")
    first.begin(INDEX, TERM, len(WHOLE))
    feed(first, WHOLE, until=2_500_000)
    disk.open(first.path, write=True).write(1_200_000, [b"rot"])
    second = Incoming(disk, "d")
    assert second.begin(INDEX, TERM, len(WHOLE)) == BOUNDARIES[2]


def test_a_whole_file_of_another_snapshot_is_not_taken_for_this_one(disk: MemoryDisk) -> None:
    for other in (snapshot_bytes(index=78), snapshot_bytes(term=4), snapshot_bytes(state=b"x")):
        incoming = Incoming(disk, "d")
        incoming.begin(INDEX, TERM, len(WHOLE))
        with pytest.raises(CorruptionError, match="a snapshot of entry 77, term 3"):
            incoming.write(0, other[:HEADER_BYTES])
        assert incoming.received == 0
        incoming.close()


def test_a_file_of_another_format_is_not_taken(disk: MemoryDisk) -> None:
    incoming = Incoming(disk, "d")
    incoming.begin(INDEX, TERM, len(WHOLE))
    header = bytearray(WHOLE[:HEADER_BYTES])
    header[8] += 1
    import zlib

    header[12:16] = bytes(4)
    header[12:16] = zlib.crc32(bytes(header)).to_bytes(4, "little")
    with pytest.raises(CorruptionError):
        incoming.write(0, bytes(header))
    assert incoming.received == 0


def test_bytes_that_do_not_follow_are_ignored(disk: MemoryDisk) -> None:
    incoming = Incoming(disk, "d")
    incoming.begin(INDEX, TERM, len(WHOLE))
    feed(incoming, WHOLE, until=500)
    assert incoming.write(501, b"gap") == 500
    assert incoming.write(499, b"again") == 500
    assert incoming.write(500, bytes(len(WHOLE))) == 500, "more than the file has"
    feed(incoming, WHOLE)
    assert incoming.is_whole


def test_a_newer_offer_takes_the_place_of_an_older(disk: MemoryDisk) -> None:
    incoming = Incoming(disk, "d")
    incoming.begin(INDEX, TERM, len(WHOLE))
    feed(incoming, WHOLE, until=2_000_000)
    newer = snapshot_bytes(index=90)
    assert incoming.begin(90, TERM, len(newer)) == 0
    assert disk.names("d/snapshots") == ["000000000000005a.part"]
    feed(incoming, newer)
    assert incoming.is_whole


def test_a_part_file_that_is_too_long_or_no_snapshot_is_begun_again(disk: MemoryDisk) -> None:
    for content in (b"nonsense" * 100, WHOLE + b"more"):
        file = disk.open(part_path("d/snapshots", INDEX), create=True)
        file.write(0, [content])
        incoming = Incoming(disk, "d")
        assert incoming.begin(INDEX, TERM, len(WHOLE)) == 0
        feed(incoming, WHOLE)
        assert bytes(read_snapshot(disk, incoming.finish())[1]) == STATE


def test_a_snapshot_that_would_fill_the_disk_is_not_begun() -> None:
    small = MemoryDisk(capacity=limits.DISK_FREE_BYTES_MIN + len(WHOLE) - 1)
    small.make_directory("d/snapshots")
    with pytest.raises(DiskFullError, match="does not fit"):
        Incoming(small, "d").begin(INDEX, TERM, len(WHOLE))
    enough = MemoryDisk(capacity=limits.DISK_FREE_BYTES_MIN + len(WHOLE))
    enough.make_directory("d/snapshots")
    assert Incoming(enough, "d").begin(INDEX, TERM, len(WHOLE)) == 0


def test_stale_part_files_are_removed_and_a_useful_one_stays(disk: MemoryDisk) -> None:
    for name in ("4c.part", "000000000000004d.part", "000000000000004e.part", "x.part", "1.snap"):
        disk.open(f"d/snapshots/{name}", create=True)
    assert remove_stale_parts(disk, "d", INDEX) == 3
    assert disk.names("d/snapshots") == ["000000000000004e.part", "1.snap"]
    assert remove_stale_parts(disk, "d", INDEX) == 0


def test_a_snapshot_file_is_read_for_sending(disk: MemoryDisk) -> None:
    disk.open("d/snapshots/s", create=True).write(0, [WHOLE])
    outgoing = OutgoingFile(disk, "d/snapshots/s")
    assert outgoing.size == len(WHOLE)
    assert outgoing.read(1000, 500) == WHOLE[1000:1500]
    outgoing.close()
