"""Opening: new, again, somebody else's, not a data directory at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.storage.meter import CALLS, NOW, PATH, TINY, Meter, small_meter

from unimeter.errors import CorruptionError, WrongDirectoryError
from unimeter.storage.disk import FatalStorageError, OsDisk
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.recovery import open_directory
from unimeter.types import Event


def test_a_new_directory_holds_its_genesis_durably() -> None:
    meter = Meter(MemoryDisk(faults=True))
    assert meter.opened.created
    assert meter.machine.applied == meter.wal.synced_index == 1
    assert meter.machine.cluster_id == meter.opened.cluster_id == bytes([7]) * 16


def test_two_directories_have_different_clusters_and_keys(tmp_path: Path) -> None:
    first = open_directory(OsDisk(), str(tmp_path / "a"))
    second = open_directory(OsDisk(), str(tmp_path / "b"))
    assert first.cluster_id != second.cluster_id
    assert first.machine.hash_key != second.machine.hash_key
    first.close()
    second.close()


def test_a_directory_of_another_node_or_cluster_is_refused() -> None:
    disk = small_meter().opened.disk
    with pytest.raises(WrongDirectoryError, match="belongs to node 1, this is node 2"):
        open_directory(disk.clone(), PATH, node_id=2)
    with pytest.raises(WrongDirectoryError, match="belongs to cluster"):
        open_directory(disk.clone(), PATH, cluster_id=b"x" * 16)


def test_a_directory_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("unimeter.storage.superblock.FORMAT_VERSION", 9)
        patch.setattr("unimeter.storage.layout.FORMAT_VERSION", 9)
        disk = small_meter().opened.disk
    with pytest.raises(WrongDirectoryError, match="format version 9"):
        Meter(disk.clone())


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(WrongDirectoryError, match="thesis"):
        open_directory(OsDisk(), str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.txt"]
    with pytest.raises(WrongDirectoryError, match="is a file"):
        open_directory(OsDisk(), str(tmp_path / "thesis.txt"))


def test_a_missing_directory_is_refused_where_it_may_not_be_made(tmp_path: Path) -> None:
    with pytest.raises(WrongDirectoryError, match="no data directory"):
        open_directory(OsDisk(), str(tmp_path / "typo"), create=False)
    assert not (tmp_path / "typo").exists()


def test_a_lost_superblock_is_refused_and_an_unfinished_directory_is_made_again() -> None:
    disk = small_meter().opened.disk.clone()
    disk.remove(f"{PATH}/superblock")
    with pytest.raises(CorruptionError, match="superblock"):
        Meter(disk)
    unfinished = Meter(MemoryDisk()).opened.disk.clone()
    unfinished.remove(f"{PATH}/superblock")
    assert Meter(unfinished).opened.created


def test_a_refused_opening_gives_the_lock_back() -> None:
    disk = small_meter().opened.disk.clone()
    good = disk.contents(f"{PATH}/synced")
    disk.put(f"{PATH}/synced", b"nonsense")
    with pytest.raises(CorruptionError):
        Meter(disk)
    disk.put(f"{PATH}/synced", good)
    assert Meter(disk).machine.applied == 8


def test_an_unreadable_disk_is_no_traceback() -> None:
    disk = small_meter().opened.disk.clone()

    def fail(operation: str, path: str) -> None:
        if operation == "read" and path.endswith(".seg"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.on_operation = fail
    with pytest.raises(FatalStorageError, match="Input/output error"):
        Meter(disk)


def test_progress_counts_events_and_ends_at_the_total() -> None:
    meter = Meter(MemoryDisk())
    meter.create(CALLS)
    for _ in range(50):
        meter.ingest([Event(1, "calls", 1, NOW)] * 40)
    calls: list[tuple[int, int, int]] = []
    opened = open_directory(
        meter.opened.disk.clone(), PATH, bounds=TINY, progress=lambda *seen: calls.append(seen)
    )
    assert calls[-1][0] == calls[-1][1] and calls[-1][2] == 2000
    assert opened.replayed_events == 2000 and opened.replayed_entries == 52


def test_files_with_other_names_are_left_alone() -> None:
    disk = small_meter().opened.disk.clone()
    for name in ("log/notes.seg", "snapshots/old.snap", "outcomes/x.out", "log/readme"):
        disk.put(f"{PATH}/{name}", b"not ours")
    meter = Meter(disk)
    assert meter.machine.applied == 8 and not meter.opened.notes
    meter.snapshot()
    assert disk.contents(f"{PATH}/log/notes.seg") == b"not ours"
