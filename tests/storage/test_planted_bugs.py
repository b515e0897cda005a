"""The crash histories must fail when storage is broken on purpose: a test of the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.storage.test_crash import History

from unimeter.errors import UnimeterError
from unimeter.storage import layout, tail
from unimeter.storage.memory_disk import MemoryDisk, MemoryFile
from unimeter.storage.witness import Witness

SEEDS = range(40)


def is_caught() -> bool:
    for seed in SEEDS:
        try:
            History(seed).run()
        except (AssertionError, UnimeterError):
            return True
    return False


def without_sync(monkeypatch: pytest.MonkeyPatch, fits: Callable[[str], bool]) -> None:
    original = MemoryFile.sync

    def sync(self: MemoryFile) -> None:
        if not fits(self.path):
            original(self)

    monkeypatch.setattr(MemoryFile, "sync", sync)


def without_directory_sync(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    original = MemoryDisk.sync_directory

    def sync(self: MemoryDisk, path: str) -> None:
        if not path.endswith(folder):
            original(self, path)

    monkeypatch.setattr(MemoryDisk, "sync_directory", sync)


@pytest.mark.parametrize("part", ["/log/", "superblock", "/snapshots/", "/outcomes/"])
def test_a_file_that_is_not_synced_is_caught(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    without_sync(monkeypatch, lambda path: part in path)
    assert is_caught()


@pytest.mark.parametrize("folder", ["/log", "/snapshots"])
def test_a_directory_that_is_not_synced_is_caught(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    without_directory_sync(monkeypatch, folder)
    assert is_caught()


def test_a_witness_that_runs_ahead_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def ahead(self: Witness, index: int, commit: int = 0) -> None:
        self._file.write(0, [layout.encode_witness(index + 1)])

    monkeypatch.setattr(Witness, "raise_to", ahead)
    assert is_caught()


def test_a_torn_tail_that_is_not_cut_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "cut", lambda file, position, limit: 1)
    assert is_caught()


def test_a_torn_tail_taken_for_rot_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_has_missing_sector", lambda file, damage: False)
    assert is_caught()
