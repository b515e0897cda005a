"""The simulator's disk: what a sync promises, and what ends of processes and of power leave."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.storage.meter import CALLS, NOW, PATH, Meter

from unimeter.errors import DirectoryInUseError, DiskFullError, FatalStorageError
from unimeter.sim.chance import Chance
from unimeter.sim.disk import DeadProcess, SimDisk, SimFile, shown
from unimeter.storage.disk import SECTOR_BYTES
from unimeter.storage.verify import verify
from unimeter.types import Event

SIZE = 4 * SECTOR_BYTES
LOG = "data/log"


class PowerCut(BaseException):
    """The world stops here."""


def make(seed: int = 1, files: int = 1) -> tuple[SimDisk, list[SimFile]]:
    """A disk with some durable files of zeros."""
    disk = SimDisk(Chance(seed))
    disk.make_directory(LOG)
    opened = [disk.open(f"{LOG}/{number}", create=True) for number in range(files)]
    for file in opened:
        file.fill_zeros(0, SIZE)
        file.sync()
    disk.sync_directory(LOG)
    return disk, opened


def sectors(data: bytes) -> list[bytes]:
    return [data[at : at + SECTOR_BYTES] for at in range(0, len(data), SECTOR_BYTES)]


# --- what is durable -------------------------------------------------------------------

WRITE = st.tuples(st.integers(0, 1), st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=900))
STEPS = st.lists(st.one_of(WRITE, st.integers(0, 1), st.sampled_from(["kill", "cut"])), max_size=30)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_a_power_cut_leaves_of_each_sector_one_of_the_versions_since_its_sync(
    steps: list[tuple[int, int, bytes] | int | str], seed: int, arrival: float
) -> None:
    """Against a model that knows only whole files and lists the versions of each sector."""
    disk, files = make(seed, 2)
    model = [bytearray(SIZE), bytearray(SIZE)]
    versions = [[[bytes(SECTOR_BYTES)] for _ in range(4)] for _ in range(2)]
    for step in [*steps, "cut"]:
        if isinstance(step, tuple):
            number, offset, piece = step
            piece = piece[: SIZE - offset]
            files[number].write(offset, [piece[:3], piece[3:]])
            model[number][offset : offset + len(piece)] = piece
            for sector, now in enumerate(sectors(bytes(model[number]))):
                versions[number][sector].append(now)
        elif isinstance(step, int):
            files[step].sync()
            versions[step] = [[now] for now in sectors(bytes(model[step]))]
        else:
            if step == "kill":
                disk.kill()
            else:
                disk.power_cut(arrival)
            files = [disk.open(file.path, write=True) for file in files]
        for number, file in enumerate(files):
            found = file.read(0, SIZE + 1)
            assert len(found) == SIZE
            if step == "cut":
                for sector, left in enumerate(sectors(found)):
                    allowed = versions[number][sector]
                    assert left in (allowed[:1] if arrival == 0 else allowed)
                    assert arrival < 1 or left == allowed[-1]
                    versions[number][sector] = [left]
                model[number][:] = found
                assert disk.durable_bytes(file.path) == found
            assert found == model[number]


def test_later_writes_may_arrive_without_earlier_ones() -> None:
    found = set()
    for seed in range(40):
        disk, (file,) = make(seed)
        file.write(0, [b"a" * SECTOR_BYTES])
        file.write(SECTOR_BYTES, [b"b" * SECTOR_BYTES])
        disk.power_cut(0.5)
        data = disk.contents(file.path)
        found.add((data[:1] == b"a", data[SECTOR_BYTES : SECTOR_BYTES + 1] == b"b"))
    assert found == {(False, False), (True, False), (False, True), (True, True)}


def test_a_write_of_many_sectors_arrives_in_parts() -> None:
    left = set()
    for seed in range(20):
        disk, (file,) = make(seed)
        file.write(100, [b"a" * 1500])
        disk.power_cut(0.5)
        left.add(tuple(any(sector) for sector in sectors(disk.contents(file.path))))
    assert len(left) > 5


def test_the_witness_may_be_written_for_ever_without_a_sync() -> None:
    disk, (file,) = make()
    for number in range(1000):
        file.write(0, [number.to_bytes(32, "big")])
    assert len(file._content.pending) <= 64
    disk.power_cut(1.0)
    assert disk.contents(file.path)[:32] == (999).to_bytes(32, "big")


# --- names -------------------------------------------------------------------------------


def names_after_cuts(change: object, arrival: float = 0.5) -> set[tuple[str, ...]]:
    """The sets of names that power cuts leave after `change(disk)`."""
    found = set()
    for seed in range(40):
        disk, _ = make(seed)
        change(disk)  # type: ignore[operator]
        disk.power_cut(arrival)
        found.add(tuple(disk.names(LOG)))
    return found


def test_a_rename_happens_whole_or_not_at_all_until_the_directory_is_synced() -> None:
    def rename(disk: SimDisk) -> None:
        disk.rename(f"{LOG}/0", f"{LOG}/1")

    def rename_and_sync(disk: SimDisk) -> None:
        rename(disk)
        disk.sync_directory(LOG)

    assert names_after_cuts(rename) == {("0",), ("1",)}
    assert names_after_cuts(rename_and_sync) == {("1",)}


def test_a_new_file_and_a_removed_one_are_there_or_not() -> None:
    def change(disk: SimDisk) -> None:
        disk.open(f"{LOG}/new.tmp", create=True)
        disk.rename(f"{LOG}/new.tmp", f"{LOG}/new")
        disk.remove(f"{LOG}/0")

    found = names_after_cuts(change)
    expected = [(), ("new",), ("new.tmp",), ("0",), ("0", "new"), ("0", "new.tmp")]
    assert found == set(expected)
    assert names_after_cuts(change, 0.0) == {("0",)}
    assert names_after_cuts(change, 1.0) == {("new",)}


def test_a_synced_file_without_a_synced_name_is_not_durable() -> None:
    disk, _ = make()
    file = disk.open(f"{LOG}/new", create=True)
    file.write_durably(0, [b"entry"])
    assert not disk.durable_contains(b"entry", "data")
    assert "new" not in disk.durable_copy().names(LOG)
    disk.sync_directory(LOG)
    assert disk.durable_contains(b"entry", "data") and not disk.durable_contains(b"entry", "other")
    assert disk.durable_names("data") == ["log/0", "log/new"]
    file.write(0, [b"other"])
    assert disk.durable_copy().contents(f"{LOG}/new") == b"entry"
    assert disk.clone().contents(f"{LOG}/new") == b"other"


def test_what_the_real_disk_refuses_is_refused() -> None:
    disk, _ = make()
    with pytest.raises(FileNotFoundError):
        disk.open(f"{LOG}/none")
    with pytest.raises(FileNotFoundError):
        disk.open("nowhere/file", create=True)
    with pytest.raises(FatalStorageError):
        disk.rename(f"{LOG}/none", f"{LOG}/1")
    with pytest.raises(FatalStorageError):
        disk.remove(f"{LOG}/none")
    with pytest.raises(AssertionError):
        disk.open(f"{LOG}/0").write(0, [b"x"])


# --- ends of processes --------------------------------------------------------------------


def test_what_a_killed_process_wrote_stays_readable_and_is_not_durable() -> None:
    disk, (file,) = make()
    file.write(0, [b"written"])
    disk.kill()
    assert disk.open(file.path).read(0, 7) == b"written"
    disk.power_cut(0.0)
    assert disk.open(file.path).read(0, 7) == bytes(7)


@pytest.mark.parametrize("end", ["kill", "power_cut", "lose"])
def test_a_process_that_ended_cant_touch_the_disk(end: str) -> None:
    disk, _ = make()
    process = disk.process()
    file = process.open(f"{LOG}/0", write=True)
    lock = process.lock("data/LOCK")
    with pytest.raises(DirectoryInUseError):
        process.lock("data/LOCK")
    disk.power_cut(0.5) if end == "power_cut" else getattr(disk, end)()
    before = disk.digest()
    for act in (
        lambda: file.write(0, [b"x"]),
        lambda: file.fill_zeros(0, 1),
        lambda: file.read(0, 1),
        file.sync,
        file.size,
        lambda: process.open(f"{LOG}/1", create=True),
        lambda: process.remove(f"{LOG}/0"),
        lambda: process.rename(f"{LOG}/0", f"{LOG}/1"),
        lambda: process.names(LOG),
        lambda: process.sync_directory(LOG),
        lambda: process.lock("data/LOCK"),
    ):
        with pytest.raises(DeadProcess):
            act()
    again = disk.process().lock("data/LOCK")
    lock.release()  # of the dead: nothing happens
    file.close()
    with pytest.raises(DirectoryInUseError):
        disk.process().lock("data/LOCK")
    again.release()
    disk.process().lock("data/LOCK")
    assert disk.digest() == before
    assert not disk.exists(f"{LOG}/0") or end != "lose"


def test_where_the_world_stops_an_operation_nothing_was_done_and_the_process_is_dead() -> None:
    disk, (file,) = make()
    operations = (
        lambda: file.write(0, [b"x" * 2000]),
        lambda: disk.open(f"{LOG}/1", create=True),
        lambda: disk.rename(f"{LOG}/0", f"{LOG}/1"),
        lambda: disk.remove(f"{LOG}/0"),
        lambda: disk.make_directory("data/more"),
    )
    before = disk.digest()

    def stop(operation: str, path: str, size: int) -> None:
        raise PowerCut

    for operation in operations:
        disk.on_operation = None
        file = disk.open(f"{LOG}/0", write=True)
        disk.on_operation = stop
        with pytest.raises(PowerCut):
            operation()
        with pytest.raises(DeadProcess):
            file.size()
        assert disk.digest() == before and not disk.exists("data/more")


def test_a_stopped_write_may_leave_a_beginning_of_itself() -> None:
    lengths = set()
    for seed in range(40):
        disk, (file,) = make(seed)
        disk.tear = 0.8

        def stop(operation: str, path: str, size: int) -> None:
            assert (operation, size) == ("write", 1500)
            raise PowerCut

        disk.on_operation = stop
        with pytest.raises(PowerCut):
            file.write(100, [b"x" * 1500])
        data = disk.contents(file.path)
        lengths.add(data.count(b"x"))
        assert data.rstrip(b"\0") == bytes(100) * (b"x" in data) + b"x" * data.count(b"x")
    assert lengths == {0, 412, 924, 1436}


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_failed_sync_that_is_tried_again_loses_what_it_wrote(seed: int) -> None:
    disk, (file,) = make(seed)
    file.write(0, [b"a" * SIZE])
    failures = [True, False]
    disk.fail_sync = lambda path: failures.pop(0)
    with pytest.raises(FatalStorageError, match="instead of trying again"):
        file.sync()
    file.sync()
    disk.power_cut(1.0)
    assert disk.contents(file.path).count(0) >= SECTOR_BYTES


def test_after_a_failed_sync_reads_may_show_what_was_there_before() -> None:
    dropped = kept = 0
    for seed in range(20):
        disk, (file,) = make(seed)
        file.write(0, [b"a" * SECTOR_BYTES])
        disk.fail_sync = lambda path: True
        with pytest.raises(FatalStorageError):
            file.sync()
        dropped += file.read(0, 1) == b"\0"
        kept += file.read(0, 1) == b"a"
    assert dropped and kept and dropped + kept == 20


def test_a_failed_write_is_fatal_and_a_full_disk_is_not() -> None:
    disk, (file,) = make()
    disk.fail_write = lambda path: path == file.path
    with pytest.raises(FatalStorageError):
        file.write(0, [b"x"])
    disk.fail_write = None
    disk.capacity = SIZE + 10
    assert disk.free_bytes(LOG) == 10
    file.write(0, [b"x" * SIZE])  # needs no more space
    with pytest.raises(DiskFullError):
        file.write(SIZE - 5, [b"y" * 16])
    assert disk.contents(file.path) == b"x" * SIZE


def test_errors_of_the_world_are_sorted_as_those_of_the_system() -> None:
    disk, (file,) = make()

    def fail(operation: str, path: str, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.on_operation = fail
    with pytest.raises(DiskFullError):
        file.write(0, [b"x"])
    with pytest.raises(FatalStorageError):
        file.sync()
    file.size()  # the process goes on


# --- the real storage code on it ---------------------------------------------------------------


class Node:
    """A meter that is cut at one operation; what it acknowledged."""

    def __init__(self, seed: int, cut_at: int) -> None:
        self.disk = SimDisk(Chance(seed))
        self.acknowledged: dict[int, bytes] = {}
        self._left = cut_at
        self.disk.on_operation = self._count

    def _count(self, operation: str, path: str, size: int) -> None:
        self._left -= operation != "read"
        if self._left < 0:
            raise PowerCut

    def run(self) -> bool:
        """Whether it was cut before it was done."""
        try:
            meter = Meter(self.disk.process())
            meter.create(CALLS)
            for number in range(14):
                for _ in range(1 + number % 2):
                    meter.stage([Event(number, "calls", 1, NOW) for _ in range(15)])
                    meter.machine.next_offset += 15
                entries = {entry.index: bytes(entry.body) for entry in meter.wal._staged}
                meter.machine.next_offset -= 15 * (1 + number % 2)
                meter.commit()
                self.acknowledged |= entries
                if number % 6 == 5:
                    meter.snapshot()
        except (PowerCut, DeadProcess):
            return True
        return False

    def recover(self, arrival: float) -> None:
        """The power fails; a new process has all that was acknowledged."""
        self.disk.on_operation = None
        self.disk.power_cut(arrival)
        meter = Meter(self.disk.process())
        assert meter.wal.last_index >= max(self.acknowledged, default=0), "an entry is gone"
        found = {entry.index: bytes(entry.body) for entry in meter.wal.read(meter.wal.first_index)}
        assert self.acknowledged.items() <= found.items()
        meter.close()
        report = verify(PATH, disk=self.disk.clone())
        assert report.ok, report.problems


@pytest.mark.parametrize("arrival", [0.0, 0.5, 0.9])
def test_the_real_log_survives_a_power_cut_at_each_operation(arrival: float) -> None:
    cut_at, cuts = 0, 0
    while True:
        node = Node(cut_at, cut_at)
        was_cut = node.run()
        node.recover(arrival)
        if not was_cut:
            break
        cut_at, cuts = cut_at + 1, cuts + 1
    assert cuts > 60 and len(node.acknowledged) > 20


def test_a_log_that_does_not_sync_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimFile, "write_durably", SimFile.write)
    node = Node(1, 10_000)
    assert not node.run()
    with pytest.raises(AssertionError, match="an entry is gone"):
        node.recover(0.0)


# --- determinism -------------------------------------------------------------------------------


def history(seed: int, pid: int) -> bytes:
    disk, files = make(seed, 2)
    for number in range(20):
        files[number % 2].write(number * 40, [bytes([number]) * 700])
        if number % 7 == 0:
            files[number % 2].sync()
    for name in ("b.snap", "a.snap"):
        disk.open(f"{LOG}/{name}.{pid}.tmp", create=True).write(0, [b"state" * 400])
    disk.power_cut(0.5)
    return disk.digest()


def test_the_same_seed_leaves_the_same_bytes_whatever_the_pid() -> None:
    assert history(7, 9) == history(7, 100_000) == history(7, 31)
    assert len({history(seed, 1) for seed in range(10)}) == 10
    assert shown("data/a.snap.123.tmp") == "data/a.snap.pid.tmp" != shown("data/log/1.tmp")


def test_a_pid_is_shown_neither_in_a_path_nor_in_the_midst_of_a_sentence() -> None:
    assert shown("d/snapshots/0a.snap.24798.tmp") == "d/snapshots/0a.snap.pid.tmp"
    sentence = "snapshot at 74 failed: DiskFullError: d/4a.snap.24798.tmp: No space left on device"
    assert "24798" not in shown(sentence) and "4a.snap.pid.tmp: No space" in shown(sentence)
