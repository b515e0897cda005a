"""Hundreds of seeds of a bad world; see `chaos` for what it does and what it checks.

A failing seed is one integer: `run_seed(seed)` repeats it exactly, with this world. What
it found becomes a minimal test by name (in test_published_failures or test_rawnode).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from tests.raft.chaos import run_seed

from unimeter.raft import quorum
from unimeter.raft.log import RaftLog
from unimeter.raft.unstable import Unstable

BATCHES = 10
SEEDS_PER_BATCH = 60

# Situations that a batch of seeds must have reached, or it has tested nothing.
MUST_HAPPEN = (
    "leader",
    "crash",
    "crash after a step of a write",
    "late completion",
    "suffix overwritten",
    "snapshot stored",
    "read",
    "proposal dropped",
    "MsgReadIndexResp",
    "MsgTimeoutNow",
    "MsgPreVoteResp",
)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_bad_world_breaks_no_promise(batch: int) -> None:
    hits: Counter[str] = Counter()
    for seed in range(batch * SEEDS_PER_BATCH, (batch + 1) * SEEDS_PER_BATCH):
        try:
            hits += run_seed(seed).hits
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    for situation in MUST_HAPPEN:
        assert hits[situation], f"no seed of the batch reached: {situation}"


def test_same_seed_is_the_same_course_of_events() -> None:
    first, second = run_seed(7), run_seed(7)
    assert first.hits == second.hits
    assert [repr(node.applied) for node in first.nodes.values()] == [
        repr(node.applied) for node in second.nodes.values()
    ]


def _votes_for_any_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftLog, "is_up_to_date", lambda self, index, term: True)


def _half_is_a_majority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quorum, "majority", lambda voters: max(voters // 2, 1))


def _completion_of_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry counts as durable here as soon as anything is."""
    stable_to = Unstable.stable_to

    def all_of_them(self: Unstable, index: int, term: int) -> bool:
        last = self.entries[-1] if self.entries else None
        return last is not None and stable_to(self, last.index, last.term)

    monkeypatch.setattr(Unstable, "stable_to", all_of_them)


@pytest.mark.parametrize(
    "plant", [_votes_for_any_log, _half_is_a_majority, _completion_of_anything]
)
def test_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        for seed in range(60):
            run_seed(seed)
