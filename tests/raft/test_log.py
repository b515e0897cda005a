"""One node's log: reading across the durable and the unstable part, appending, applying."""

from __future__ import annotations

import pytest
from tests.raft.group import entries

from unimeter.errors import DataError
from unimeter.raft import (
    NO_LIMIT,
    Compacted,
    HardState,
    MemoryStorage,
    Snapshot,
    SnapshotMeta,
    Unavailable,
)
from unimeter.raft.log import RaftLog
from unimeter.raft.messages import entry_size

SIZE = entry_size(entries(1)[0])


def log_with(*stored: int, unstable: tuple[int, ...] = (), applying_max: int = NO_LIMIT) -> RaftLog:
    """A log with entries of these terms on disk, and some that are not."""
    disk = MemoryStorage()
    disk.append(entries(*stored))
    log = RaftLog(disk, applying_max, entry_size)
    if unstable:
        log.append(entries(*unstable, start=len(stored) + 1))
    log.check_invariants()
    return log


def terms(log: RaftLog) -> list[int]:
    log.check_invariants()
    return [log.term(index) for index in range(1, log.last_index + 1)]


def test_terms_are_known_across_both_parts() -> None:
    log = log_with(1, 1, 2, unstable=(2, 3, 3))
    assert terms(log) == [1, 1, 2, 2, 3, 3]
    assert log.term(0) == 0
    with pytest.raises(Unavailable):
        log.term(7)


def test_terms_before_a_snapshot_are_gone_except_its_own() -> None:
    disk = MemoryStorage()
    disk.append(entries(1, 1, 2, 2))
    disk.compact(2)
    log = RaftLog(disk, NO_LIMIT, entry_size)
    assert (log.term(2), log.term(3), log.first_index()) == (1, 2, 3)
    with pytest.raises(Compacted):
        log.term(1)
    assert log.term_or_zero(1) == 0 and not log.matches(1, 1)


@pytest.mark.parametrize(
    ("low", "high", "size", "want"),
    [
        (1, 3, NO_LIMIT, [1, 2]),
        (3, 6, NO_LIMIT, [3, 4, 5]),
        (5, 7, NO_LIMIT, [5, 6]),
        (1, 7, NO_LIMIT, [1, 2, 3, 4, 5, 6]),
        (1, 7, 0, [1]),
        (1, 7, SIZE * 2, [1, 2]),
        (3, 7, SIZE * 3, [3, 4, 5]),
        (4, 7, SIZE * 2 - 1, [4]),
        (5, 7, 1, [5]),
    ],
)
def test_slice_crosses_the_parts_and_keeps_the_limit(
    low: int, high: int, size: int, want: list[int]
) -> None:
    log = log_with(1, 1, 1, 1, unstable=(1, 1))
    assert [entry.index for entry in log.slice(low, high, size)] == want


def test_append_that_fits_is_taken_and_only_what_was_checked_commits() -> None:
    log = log_with(1, 1)
    assert log.maybe_append(2, 1, 9, entries(1, 2, start=3)) == 4
    assert (terms(log), log.committed) == ([1, 1, 1, 2], 4)


def test_append_after_an_entry_that_is_missing_or_other_is_refused() -> None:
    log = log_with(1, 1)
    assert log.maybe_append(3, 1, 0, entries(1, start=4)) is None
    assert log.maybe_append(2, 2, 0, entries(2, start=3)) is None
    assert (terms(log), log.committed) == ([1, 1], 0)


def test_append_replaces_from_the_first_conflict_on() -> None:
    log = log_with(1, 1, 2, 2, 2)
    assert log.maybe_append(1, 1, 0, entries(1, 3, start=2)) == 3
    assert terms(log) == [1, 1, 3]
    assert [entry.index for entry in log.unstable.next_entries()] == [3]


def test_append_that_brings_nothing_new_removes_nothing() -> None:
    log = log_with(1, 1, 1, 1)
    assert log.maybe_append(1, 1, 0, entries(1, start=2)) == 2
    assert terms(log) == [1, 1, 1, 1] and not log.unstable.has_next_entries()


def test_committed_entry_is_never_replaced() -> None:
    log = log_with(1, 1, 1)
    log.commit_to(2)
    with pytest.raises(AssertionError, match="would replace a committed one"):
        log.maybe_append(1, 1, 0, entries(2, start=2))


def test_commit_index_never_goes_back_and_never_past_the_log() -> None:
    log = log_with(1, 1)
    log.commit_to(2)
    log.commit_to(1)
    assert log.committed == 2
    with pytest.raises(AssertionError, match="past the last index"):
        log.commit_to(3)


@pytest.mark.parametrize(
    ("index", "term", "want"),
    [
        (5, 9, (5, 5)),
        (5, 5, (5, 5)),
        (5, 3, (3, 3)),
        (4, 2, (2, 1)),
        (5, 0, (0, 0)),
        (9, 9, (9, 0)),
    ],
)
def test_guess_where_logs_part_skips_whole_terms(
    index: int, term: int, want: tuple[int, int]
) -> None:
    assert log_with(1, 1, 3, 5, 5).find_conflict_by_term(index, term) == want


@pytest.mark.parametrize(
    ("index", "term", "is_up_to_date"),
    [(1, 4, True), (9, 2, False), (3, 3, True), (4, 3, True), (2, 3, False)],
)
def test_newer_log_is_one_of_a_later_term_or_longer(
    index: int, term: int, is_up_to_date: bool
) -> None:
    assert log_with(1, 3, 3).is_up_to_date(index, term) is is_up_to_date


def test_only_durable_entries_are_applied_unless_allowed() -> None:
    log = log_with(1, 1, unstable=(1,))
    log.commit_to(3)
    assert [entry.index for entry in log.next_committed(False)] == [1, 2]
    assert [entry.index for entry in log.next_committed(True)] == [1, 2, 3]


def test_applying_pauses_at_its_limit_and_goes_on_when_reported() -> None:
    log = log_with(1, 1, 1, 1, applying_max=SIZE * 2)
    log.commit_to(4)
    batch = log.next_committed(False)
    assert [entry.index for entry in batch] == [1, 2]
    log.accept_applying(batch, False)
    assert log.next_committed(False) == () and not log.has_next_committed(False)
    log.applied_to(2, log.size(batch))
    assert [entry.index for entry in log.next_committed(False)] == [3, 4]


def test_nothing_is_applied_before_a_snapshot_is_stored() -> None:
    log = log_with(1, 1)
    log.commit_to(2)
    log.restore(Snapshot(SnapshotMeta(7, 2, (1,))))
    assert (log.committed, log.last_index, log.last_term, log.first_index()) == (7, 7, 2, 8)
    assert not log.has_next_committed(True)
    log.check_invariants()


def test_known_run_of_one_term_survives_appends_and_truncation() -> None:
    log = log_with(1, 1)
    log.append(entries(1, 2, 2, start=3))
    assert log.same_term_from == 4
    log.append(entries(2, start=6))
    assert log.same_term_from == 4
    log.append(entries(3, start=5))
    assert (log.same_term_from, terms(log)) == (5, [1, 1, 1, 2, 3])


def test_restart_takes_up_the_newest_proof_of_a_commit() -> None:
    log = log_with(1, 1, 1)
    log.load(HardState(3, 1, 1), applied=2)
    assert (log.committed, log.applied, log.applying) == (2, 2, 2)


def test_log_that_lost_committed_entries_is_refused() -> None:
    with pytest.raises(DataError, match="entries that were durable are lost"):
        log_with(1, 1).load(HardState(1, 0, 3), applied=0)
