"""The part of the log that is not durable: handing out, completions, overwriting."""

from __future__ import annotations

import pytest
from tests.raft.group import entries

from unimeter.raft import Snapshot, SnapshotMeta
from unimeter.raft.unstable import Unstable


def unstable_with(*terms: int, offset: int = 5) -> Unstable:
    found = Unstable(offset)
    if terms:
        found.truncate_and_append(entries(*terms, start=offset))
    return found


def terms(unstable: Unstable) -> list[int]:
    unstable.check_invariants()
    return [entry.term for entry in unstable.entries]


def test_entries_are_handed_out_once() -> None:
    unstable = unstable_with(1, 1)
    assert [entry.index for entry in unstable.next_entries()] == [5, 6]
    unstable.accept_in_progress()
    assert unstable.next_entries() == [] and not unstable.has_next_entries()
    unstable.truncate_and_append(entries(1, start=7))
    assert [entry.index for entry in unstable.next_entries()] == [7]


def test_completion_forgets_what_is_durable() -> None:
    unstable = unstable_with(1, 1, 2)
    unstable.accept_in_progress()
    assert unstable.stable_to(6, 1)
    assert (terms(unstable), unstable.offset) == ([2], 7)
    assert unstable.stable_to(7, 2)
    assert (terms(unstable), unstable.offset, unstable.in_progress) == ([], 8, 8)


@pytest.mark.parametrize(
    ("index", "term"),
    [(4, 1), (5, 2), (6, 2), (7, 1), (8, 2)],
    ids=["before", "other-term", "other-term-inside", "older-term", "behind-the-end"],
)
def test_completion_of_something_else_changes_nothing(index: int, term: int) -> None:
    unstable = unstable_with(1, 1, 2)
    unstable.accept_in_progress()
    assert not unstable.stable_to(index, term)
    assert (terms(unstable), unstable.offset) == ([1, 1, 2], 5)


def test_entries_that_replace_others_are_handed_out_again() -> None:
    unstable = unstable_with(1, 1, 1)
    unstable.accept_in_progress()
    unstable.truncate_and_append(entries(2, 2, start=6))
    assert terms(unstable) == [1, 2, 2]
    assert [entry.index for entry in unstable.next_entries()] == [6, 7]


def test_entries_that_replace_a_durable_suffix_move_the_offset_back() -> None:
    unstable = unstable_with(1, offset=5)
    unstable.accept_in_progress()
    unstable.truncate_and_append(entries(3, start=3))
    assert (terms(unstable), unstable.offset, unstable.in_progress) == ([3], 3, 3)


def test_gap_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="gap before entry 7"):
        unstable_with(1).truncate_and_append(entries(1, start=7))


def test_term_is_known_of_entries_and_of_the_snapshot_just_before() -> None:
    unstable = unstable_with(1, 2)
    assert [unstable.maybe_term(index) for index in (4, 5, 6, 7)] == [None, 1, 2, None]
    unstable.restore(Snapshot(SnapshotMeta(20, 7, (1,))))
    assert [unstable.maybe_term(index) for index in (6, 19, 20, 21)] == [None, None, 7, None]


def test_snapshot_is_handed_out_once_and_forgotten_when_it_is_stored() -> None:
    unstable = unstable_with(1)
    snapshot = Snapshot(SnapshotMeta(9, 2, (1,)))
    unstable.restore(snapshot)
    assert (unstable.next_snapshot(), terms(unstable), unstable.offset) == (snapshot, [], 10)
    unstable.accept_in_progress()
    assert unstable.next_snapshot() is None
    unstable.stable_snapshot_to(8)
    assert unstable.snapshot is snapshot
    unstable.stable_snapshot_to(9)
    assert unstable.snapshot is None
