"""The log in memory that tests and the simulator store in."""

from __future__ import annotations

import pytest
from tests.raft.group import entries

from unimeter.raft import (
    NO_LIMIT,
    Compacted,
    ConfState,
    HardState,
    MemoryStorage,
    Snapshot,
    SnapshotMeta,
    Unavailable,
)
from unimeter.raft.messages import entry_size


def disk_with(*terms: int) -> MemoryStorage:
    disk = MemoryStorage()
    disk.append(entries(*terms))
    return disk


def indexes(disk: MemoryStorage) -> list[int]:
    first, last = disk.first_index(), disk.last_index()
    return [entry.index for entry in disk.entries(first, last + 1, NO_LIMIT)]


def test_new_disk_is_empty() -> None:
    disk = MemoryStorage()
    assert disk.initial_state() == (HardState(), ConfState())
    assert (disk.first_index(), disk.last_index(), disk.term(0)) == (1, 0, 0)
    assert disk.snapshot().meta == SnapshotMeta()


def test_append_replaces_a_suffix_and_ignores_what_is_compacted() -> None:
    disk = disk_with(1, 1, 1)
    disk.append(entries(2, start=2))
    assert (indexes(disk), disk.term(2)) == ([1, 2], 2)
    disk.compact(2)
    disk.append(entries(1, 2, 2, start=1))
    assert (indexes(disk), disk.first_index()) == ([3], 3)
    with pytest.raises(AssertionError, match="gap"):
        disk.append(entries(2, start=5))


def test_terms_and_entries_outside_are_compacted_or_unavailable() -> None:
    disk = disk_with(1, 2, 3, 4)
    disk.compact(2)
    assert (disk.term(2), disk.term(4)) == (2, 4)
    for refused, error in ((1, Compacted), (5, Unavailable)):
        with pytest.raises(error):
            disk.term(refused)
    with pytest.raises(Compacted):
        disk.entries(2, 4, NO_LIMIT)
    with pytest.raises(Compacted):
        disk.compact(2)


def test_entries_keep_a_size_but_are_at_least_one() -> None:
    disk = disk_with(1, 1, 1)
    size = entry_size(entries(1)[0])
    assert [len(disk.entries(1, 4, limit)) for limit in (0, size, size * 2, size * 3 - 1)] == [
        1,
        1,
        2,
        2,
    ]


def test_snapshot_replaces_the_log_and_an_older_one_does_nothing() -> None:
    disk = disk_with(1, 1)
    disk.apply_snapshot(Snapshot(SnapshotMeta(5, 2, (1, 2)), "state"))
    assert (disk.first_index(), disk.last_index(), disk.term(5)) == (6, 5, 2)
    assert disk.initial_state()[1] == ConfState((1, 2))
    disk.apply_snapshot(Snapshot(SnapshotMeta(4, 2, ())))
    assert disk.snapshot().data == "state"


def test_snapshot_of_an_index_leaves_the_log_until_it_is_compacted() -> None:
    disk = disk_with(1, 1, 2)
    made = disk.make_snapshot(2, (1,), None)
    assert made.meta == SnapshotMeta(2, 1, (1,)) and indexes(disk) == [1, 2, 3]
    disk.compact(2)
    assert indexes(disk) == [3]
