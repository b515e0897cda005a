"""How a leader sends to one node: the three states, the window, steps back."""

from __future__ import annotations

import pytest

from unimeter.raft.progress import Inflights, Progress, ProgressState


def progress(state: ProgressState, match: int = 5, next_index: int = 6) -> Progress:
    made = Progress(match, next_index, Inflights(2, 100))
    if state is ProgressState.REPLICATE:
        made.become_replicate()
    elif state is ProgressState.SNAPSHOT:
        made.become_snapshot(9)
    return made


def test_window_is_full_by_count_or_by_bytes_and_frees_in_order() -> None:
    window = Inflights(3, 100)
    window.add(4, 60)
    window.add(7, 50)
    assert window.is_full() and len(window) == 2
    with pytest.raises(AssertionError, match="beyond the window"):
        window.add(8, 1)
    window.free_to(6)
    assert (len(window), window.bytes, window.is_full()) == (1, 50, False)
    window.add(8, 1)
    window.add(9, 1)
    assert window.is_full()
    window.free_to(9)
    assert (len(window), window.bytes) == (0, 0)


def test_probe_sends_one_append_and_waits() -> None:
    probing = progress(ProgressState.PROBE)
    probing.sent_entries(0, 0)
    assert not probing.is_paused()
    probing.sent_entries(3, 30)
    assert probing.is_paused() and probing.next == 6


def test_replicate_runs_ahead_until_the_window_is_full() -> None:
    replicating = progress(ProgressState.REPLICATE)
    replicating.sent_entries(2, 10)
    assert (replicating.next, replicating.is_paused()) == (8, False)
    replicating.sent_entries(1, 10)
    assert (replicating.next, replicating.is_paused()) == (9, True)
    assert str(replicating) == "StateReplicate match=5 next=9 paused inactive inflight=2[full]"
    replicating.check_invariants()


def test_snapshot_sends_nothing_and_is_probed_behind_it() -> None:
    waiting = progress(ProgressState.SNAPSHOT)
    assert waiting.is_paused() and waiting.next == 10
    assert str(waiting) == "StateSnapshot match=5 next=10 paused pendingSnap=9 inactive"
    waiting.become_probe()
    assert (waiting.next, waiting.pending_snapshot) == (10, 0)


def test_snapshot_that_failed_is_probed_from_the_match() -> None:
    waiting = progress(ProgressState.SNAPSHOT)
    waiting.pending_snapshot = 0
    waiting.become_probe()
    assert waiting.next == 6


def test_acknowledgement_only_moves_forward() -> None:
    probing = progress(ProgressState.PROBE)
    assert not probing.maybe_update(5)
    assert probing.maybe_update(8)
    assert (probing.match, probing.next) == (8, 9)
    assert not probing.maybe_update(7)
    assert probing.match == 8


def test_refused_probe_steps_back_to_the_hint_but_not_below_the_match() -> None:
    probing = progress(ProgressState.PROBE, match=2, next_index=10)
    assert not probing.maybe_decrease(5, 3), "not the probe that is on its way"
    assert probing.maybe_decrease(9, 4) and probing.next == 5
    assert probing.maybe_decrease(4, 0) and probing.next == 3


def test_refusal_while_replicating_steps_back_to_the_match() -> None:
    replicating = progress(ProgressState.REPLICATE)
    replicating.sent_entries(2, 2)
    assert not replicating.maybe_decrease(5, 5), "acknowledged meanwhile"
    assert replicating.maybe_decrease(7, 6) and replicating.next == 6


def test_commit_index_is_news_only_once() -> None:
    replicating = progress(ProgressState.REPLICATE)
    assert replicating.can_bump_commit(4)
    replicating.sent_commit = 4
    assert not replicating.can_bump_commit(4)
    replicating.sent_commit = 5
    assert not replicating.can_bump_commit(8), "nothing behind the match was sent"
