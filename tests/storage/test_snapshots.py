"""Snapshots: in the background, inline, which are kept, what a child may not keep."""

from __future__ import annotations

import errno
import os
import select
import socket
from pathlib import Path

import pytest
from tests.storage.meter import NOW, PATH, Meter, small_meter

from unimeter.errors import DirectoryInUseError
from unimeter.storage.background import Child
from unimeter.storage.disk import OsDisk
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.snapshot_file import CHUNK_BYTES, SnapshotHead, read_snapshot, write_snapshot
from unimeter.storage.verify import verify
from unimeter.storage.wal import WalLimits
from unimeter.types import Event

SMALL = WalLimits(segment_bytes=256 * 1024, segment_bytes_first=64 * 1024)


def on_disk(path: Path) -> Meter:
    from tests.storage.meter import CALLS

    meter = Meter(OsDisk(), str(path), SMALL)
    if meter.wal.last_index == 1:
        meter.create(CALLS)
    return meter


def snapshots(meter: Meter) -> list[int]:
    names = meter.opened.disk.names(f"{meter.opened.path}/snapshots")
    return [int(name.removesuffix(".snap"), 16) for name in names]


def test_a_snapshot_starts_the_next_opening() -> None:
    meter = small_meter()
    meter.snapshot()
    meter.ingest([Event(1, "calls", 9, NOW)])
    again = Meter(meter.opened.disk.clone())
    assert again.opened.replayed_entries == 1
    assert again.machine.state_hash() == meter.machine.state_hash()
    assert again.total(1) == meter.total(1) == 30
    assert again.opened.events.scan(None, None) == meter.opened.events.scan(None, None)


def test_two_snapshots_are_kept_and_the_base_while_the_log_starts_at_it() -> None:
    meter = small_meter(batches=40)
    taken = []
    for number in range(5):
        meter.ingest([Event(number, "calls", 1, NOW)] * 30)
        meter.snapshot()
        taken.append(meter.machine.applied)
        if number == 2:
            assert meter.wal.remove_before(taken[1]) > 0
    assert meter.wal.first_index > 1
    assert snapshots(meter) == [taken[1], *taken[-2:]]


def test_a_forked_child_writes_while_the_parent_goes_on(tmp_path: Path) -> None:
    meter = on_disk(tmp_path)
    meter.ingest([Event(1, "calls", 5, NOW, id="x"), Event(1, "calls", 5, NOW, id="x")])
    at, state = meter.machine.applied, meter.machine.state_hash()
    taker = meter.opened.snapshots
    assert taker.fileno() == -1 and taker.poll() is None
    taker.begin(meter.machine)
    assert taker.busy and taker.fileno() >= 0
    for number in range(20):
        meter.ingest([Event(2, "calls", number, NOW)])
    while (result := taker.poll()) is None:
        select.select([taker.fileno()], [], [], 10)
    assert result.error == "" and result.index == at
    path = f"{tmp_path}/snapshots/{at:016x}.snap"
    assert read_snapshot(OsDisk(), path)[2] == state
    expected = meter.machine.state_hash()
    meter.close()
    again = on_disk(tmp_path)
    assert again.opened.replayed_entries == 20
    assert again.machine.state_hash() == expected
    assert len(again.opened.events.scan(1, None).events) == 1, "the duplicate is not listed"
    again.close()


def test_a_child_keeps_neither_the_lock_nor_a_socket(tmp_path: Path) -> None:
    meter = on_disk(tmp_path)
    listener = socket.create_server(("127.0.0.1", 0))
    reading, writing = os.pipe()

    def work() -> None:
        names = os.listdir("/proc/self/fd")
        links = []
        for name in names:
            try:
                links.append(os.readlink(f"/proc/self/fd/{name}"))
            except OSError:
                continue
        kept = [link for link in links if link != "/dev/null" and "/proc" not in link]
        raise RuntimeError(",".join(kept))

    child = Child.start(work)
    words = child.wait()
    os.close(reading)
    os.close(writing)
    listener.close()
    assert words.startswith("RuntimeError: pipe:") and words.count(",") == 0, words
    meter.close()


def test_a_killed_child_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    meter = on_disk(tmp_path)
    meter.ingest([Event(1, "calls", 1, NOW)])

    class Stuck:
        applied, timestamp_ns = meter.machine.applied, 1

        def snapshot(self) -> list[bytes]:
            select.select([], [], [])
            return []

    taker = meter.opened.snapshots
    taker.begin(Stuck())
    assert taker.poll() is None
    child = taker._child
    assert child is not None
    os.kill(child.pid, 9)
    result = taker.wait()
    assert result is not None and "killed" in result.error
    assert snapshots(meter) == []
    taker.begin(Stuck())
    taker.abandon()
    assert not taker.busy
    meter.close()


def test_a_child_that_the_host_reaped_is_no_error(tmp_path: Path) -> None:
    child = Child.start(lambda: None)
    os.waitpid(child.pid, 0)
    assert child.wait() == ""


def test_a_failed_child_tells_why(tmp_path: Path) -> None:
    meter = on_disk(tmp_path)
    meter.ingest([Event(1, "calls", 1, NOW)])
    os.rmdir(tmp_path / "outcomes")
    meter.opened.snapshots.begin(meter.machine)
    result = meter.opened.snapshots.wait()
    assert result is not None and "outcomes" in result.error
    os.mkdir(tmp_path / "outcomes")
    meter.snapshot(background=True)
    meter.close()


def test_the_lock_is_refused_to_a_second_opening_and_names_the_owner(tmp_path: Path) -> None:
    meter = on_disk(tmp_path)
    with pytest.raises(DirectoryInUseError, match=f"pid {os.getpid()}"):
        on_disk(tmp_path)
    meter.close()
    on_disk(tmp_path).close()


@pytest.mark.parametrize("size", [0, 8, CHUNK_BYTES - 8, CHUNK_BYTES, 3 * CHUNK_BYTES + 16])
def test_states_of_any_size_come_back(size: int) -> None:
    disk = MemoryDisk()
    state = os.urandom(size)
    half = size // 2
    pieces = [state[: half // 2], b"", state[half // 2 : half], memoryview(state)[half:]]
    head = SnapshotHead(b"c" * 16, 7, 2, 99, size)
    file = disk.open(f"{PATH}/x", create=True)
    assert write_snapshot(file, head, pieces) == file.size()
    found, data, _ = read_snapshot(disk, f"{PATH}/x")
    assert found == head and bytes(data) == state


# --- what the simulator found -------------------------------------------------------------


def test_a_snapshot_that_failed_leaves_no_outcomes_behind() -> None:
    """The next file of outcomes begins where the failed one began: two would overlap."""
    meter = small_meter()
    disk = meter.opened.disk
    assert isinstance(disk, MemoryDisk)

    def no_space(operation: str, path: str) -> None:
        if operation == "write" and ".snap" in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.on_operation = no_space
    meter.opened.snapshots.begin(meter.machine, background=False)
    result = meter.opened.snapshots.poll()
    disk.on_operation = None
    assert result is not None and result.error and not result.rotten_index
    assert disk.names(f"{PATH}/outcomes") == [] and snapshots(meter) == []

    meter.ingest([Event(1, "calls", 5, NOW, id="a1"), Event(1, "calls", 5, NOW, id="new")])
    meter.snapshot()
    left = disk.clone()
    report = verify(PATH, disk=left, at_index=None)
    assert report.ok, report.problems
    assert Meter(disk.clone()).opened.replayed_entries == 0, "the snapshot is used"


def spoil(data: bytes) -> bytes:
    """A segment with one bit of its last entry's body flipped."""
    place = data.rindex(b"spoilt")
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_snapshot_that_meets_a_damaged_entry_names_it_where_it_stands() -> None:
    meter = small_meter()
    disk = meter.opened.disk
    assert isinstance(disk, MemoryDisk)
    index = meter.ingest([Event(1, "calls", 1, NOW, id="spoilt")])
    meter.ingest([Event(1, "calls", 1, NOW)])
    for path in disk.paths():
        if b"spoilt" in disk.contents(path) and path.endswith(".seg"):
            disk._files[path].data[:] = spoil(disk.contents(path))
    meter.opened.snapshots.begin(meter.machine, background=False)
    result = meter.opened.snapshots.poll()
    assert result is not None and result.rotten_index == index and result.error
    assert snapshots(meter) == [] and disk.names(f"{PATH}/outcomes") == []


def test_a_child_that_meets_a_damaged_entry_tells_its_parent_which(tmp_path: Path) -> None:
    meter = on_disk(tmp_path)
    index = meter.ingest([Event(1, "calls", 1, NOW, id="spoilt")])
    meter.ingest([Event(1, "calls", 1, NOW)])
    (segment,) = [p for p in (tmp_path / "log").iterdir() if b"spoilt" in p.read_bytes()]
    whole = segment.read_bytes()
    segment.write_bytes(spoil(whole))
    meter.opened.snapshots.begin(meter.machine)
    result = meter.opened.snapshots.wait()
    assert result is not None and result.rotten_index == index and result.error
    assert snapshots(meter) == []
    segment.write_bytes(whole)
    meter.snapshot(background=True)
    meter.close()
