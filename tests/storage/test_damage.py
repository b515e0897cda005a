"""Every byte flipped, every cut, every blank: the acknowledged prefix or a refusal, never else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from tests.storage.meter import CALLS, NOW, PATH, Meter, small_meter

from unimeter.errors import CorruptionError, DataError, WrongDirectoryError
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.outcomes import read_outcomes
from unimeter.storage.snapshot_file import read_snapshot
from unimeter.storage.superblock import COPY_BYTES, read_superblock
from unimeter.storage.verify import verify
from unimeter.types import Event

SEGMENT = f"{PATH}/log/0000000000000001.seg"
WITNESS = f"{PATH}/synced"


def states_by_index() -> dict[int, str]:
    """The state after each entry of `small_meter`."""
    meter = Meter(MemoryDisk())
    states = {1: meter.machine.state_hash()}
    meter.create(CALLS)
    states[2] = meter.machine.state_hash()
    full = small_meter()
    for entry in full.wal.read(3):
        meter.machine.apply(entry.index, entry.kind, entry.timestamp_ns, entry.body)
        states[entry.index] = meter.machine.state_hash()
    return states


@pytest.fixture(scope="module")
def states() -> dict[int, str]:
    return states_by_index()


def spoil(disk: MemoryDisk, path: str, change: Callable[[bytearray], None]) -> MemoryDisk:
    copy = disk.clone()
    data = bytearray(disk.contents(path))
    change(data)
    copy.put(path, bytes(data))
    return copy


def flips(disk: MemoryDisk, path: str) -> Iterator[tuple[int, MemoryDisk]]:
    for offset in range(len(disk.contents(path))):

        def flip(data: bytearray, at: int = offset) -> None:
            data[at] ^= 1 << at % 8

        yield offset, spoil(disk, path, flip)


def cuts(disk: MemoryDisk, path: str) -> Iterator[tuple[int, MemoryDisk]]:
    for length in range(len(disk.contents(path))):

        def cut(data: bytearray, at: int = length) -> None:
            del data[at:]

        yield length, spoil(disk, path, cut)


def blanks(disk: MemoryDisk, path: str) -> Iterator[tuple[int, MemoryDisk]]:
    end = len(disk.contents(path).rstrip(b"\0"))
    for offset in range(end + 20):

        def blank(data: bytearray, at: int = offset) -> None:
            data[at:] = bytes(len(data) - at)

        yield offset, spoil(disk, path, blank)


def try_open(disk: MemoryDisk) -> Meter | CorruptionError | WrongDirectoryError:
    """Open, or the refusal; every other exception fails the test."""
    try:
        return Meter(disk)
    except (CorruptionError, WrongDirectoryError) as refusal:
        if isinstance(refusal, CorruptionError):
            assert refusal.path and refusal.expected is not None and refusal.found is not None
        return refusal


def check_complete(disk: MemoryDisk, states: dict[int, str], last: int) -> bool:
    """Whether it opened; then the state must be that after entry `last`, and take events."""
    found = try_open(disk)
    if not isinstance(found, Meter):
        return False
    assert found.machine.applied == last
    assert found.machine.state_hash() == states[last]
    found.ingest([Event(1, "calls", 1000, NOW)])
    expected = found.machine.state_hash()
    again = Meter(disk.clone())
    assert again.machine.state_hash() == expected
    return True


def test_every_flipped_byte_of_the_log_is_refused_or_harmless(states: dict[int, str]) -> None:
    disk = small_meter().opened.disk
    end = len(disk.contents(SEGMENT).rstrip(b"\0"))
    cut = 0
    for offset, copy in flips(disk, SEGMENT):
        if offset < end + 100 or offset % 31 == 0:
            opened = check_complete(copy, states, 8)
            assert not (opened and offset < end), "a flipped byte of a stored entry passed"
            cut += opened
    assert cut, "a flipped byte in the blank part can be cut"


def test_every_cut_of_the_log_is_refused(states: dict[int, str]) -> None:
    disk = small_meter().opened.disk
    assert all(isinstance(try_open(copy), CorruptionError) for _, copy in cuts(disk, SEGMENT))


def test_every_blank_tail_is_refused_while_the_witness_knows_better(
    states: dict[int, str],
) -> None:
    disk = small_meter().opened.disk
    end = len(disk.contents(SEGMENT).rstrip(b"\0"))
    for offset, copy in blanks(disk, SEGMENT):
        assert check_complete(copy, states, 8) == (offset >= end), offset


def test_every_blank_tail_without_a_witness_recovers_a_prefix_or_is_refused(
    states: dict[int, str],
) -> None:
    """After a power cut the witness may be old: then a torn tail is cut at an entry."""
    disk = small_meter().opened.disk
    disk.remove(WITNESS)
    recovered = set()
    for _, copy in blanks(disk, SEGMENT):
        found = try_open(copy)
        if isinstance(found, Meter):
            assert found.machine.state_hash() == states[found.machine.applied]
            recovered.add(found.machine.applied)
    assert recovered == {2, 3, 4, 5, 6, 7, 8} | ({1} & recovered)


def test_every_flipped_byte_of_the_superblock_is_mended_or_refused(
    states: dict[int, str],
) -> None:
    disk = small_meter().opened.disk
    for offset, copy in flips(disk, f"{PATH}/superblock"):
        block, damaged = read_superblock(copy, f"{PATH}/superblock")
        assert (block.sequence, damaged) == (1, offset // COPY_BYTES)
        if offset % 211:  # an opening takes a millisecond
            continue
        found = try_open(copy)
        assert isinstance(found, Meter), f"one damaged copy of four, at {offset}"
        assert found.machine.state_hash() == states[8]
        assert found.opened.notes and "damaged" in found.opened.notes[0]
        found.close()
        assert not Meter(copy).opened.notes, "it was mended"


def test_every_cut_of_the_superblock_is_refused() -> None:
    disk = small_meter().opened.disk
    for length in range(0, len(disk.contents(f"{PATH}/superblock")), 61):

        def cut(data: bytearray, at: int = length) -> None:
            del data[at:]

        assert isinstance(try_open(spoil(disk, f"{PATH}/superblock", cut)), CorruptionError)


def test_every_flipped_byte_of_the_witness_is_refused() -> None:
    disk = small_meter().opened.disk
    for _, copy in [*flips(disk, WITNESS), *cuts(disk, WITNESS)]:
        assert isinstance(try_open(copy), CorruptionError)


@pytest.mark.parametrize("folder", ["snapshots", "outcomes"])
def test_every_damaged_snapshot_or_outcomes_file_is_replaced_by_replay(folder: str) -> None:
    meter = small_meter(batches=4)
    meter.snapshot()
    meter.ingest([Event(1, "calls", 50, NOW, id="a1"), Event(9, "calls", 3, NOW)])
    meter.snapshot()
    meter.ingest([Event(1, "calls", 7, NOW)])
    disk, expected = meter.opened.disk, meter.machine.state_hash()
    events = meter.opened.events.scan(None, None).events
    path = [name for name in disk.paths() if f"/{folder}/" in name][-1]
    read = read_snapshot if folder == "snapshots" else read_outcomes
    step = 41 if folder == "snapshots" else 1  # an opening takes a millisecond
    for offset, copy in itertools.chain(flips(disk, path), cuts(disk, path)):
        with pytest.raises(CorruptionError):
            read(copy, path)
        if offset % step:
            continue
        found = Meter(copy)
        assert found.machine.state_hash() == expected
        assert found.opened.notes, "what was passed over is said"
        assert found.opened.events.scan(None, None).events == events
        found.close()
    found = Meter(copy)
    found.snapshot()
    found.close()
    assert verify(PATH, disk=copy).ok


def test_a_damaged_only_snapshot_is_refused_when_the_log_does_not_reach_back() -> None:
    meter = small_meter(batches=30)
    meter.snapshot()
    meter.ingest([Event(1, "calls", 50, NOW)])
    meter.snapshot()
    assert meter.wal.remove_before(30) > 0
    disk = meter.opened.disk
    assert isinstance(try_open(disk.clone()), Meter)
    for path in [name for name in disk.paths() if "/snapshots/" in name]:
        data = bytearray(disk.contents(path))
        data[100] ^= 1
        disk.put(path, bytes(data))
    assert isinstance(try_open(disk.clone()), CorruptionError)


def test_every_missing_file_is_refused_or_replaced(states: dict[int, str]) -> None:
    meter = small_meter()
    meter.snapshot()
    for path in meter.opened.disk.paths():
        copy = meter.opened.disk.clone()
        copy.remove(path)
        opened = check_complete(copy, states, 8)
        assert opened == ("/log/" not in path and "superblock" not in path), path


def test_verify_reports_every_flipped_byte_of_a_stored_entry() -> None:
    disk = small_meter(batches=2).opened.disk
    end = len(disk.contents(SEGMENT).rstrip(b"\0"))
    for offset, copy in flips(disk, SEGMENT):
        if offset >= end:
            break
        try:
            assert not verify(PATH, disk=copy).ok, offset
        except DataError:
            continue
