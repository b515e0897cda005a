"""Majorities, against a definition so plain that it can't be wrong."""

from __future__ import annotations

from itertools import product

import pytest

from unimeter.raft.quorum import EVERYTHING, VoteResult, committed_index, majority, vote_result


@pytest.mark.parametrize(("voters", "want"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_majority_is_more_than_half(voters: int, want: int) -> None:
    assert majority(voters) == want


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_committed_index_is_the_highest_that_a_majority_has_reached(size: int) -> None:
    for matched in product(range(4), repeat=size):
        reached = [i for i in range(4) if sum(m >= i for m in matched) * 2 > size]
        assert committed_index(matched) == max(reached), matched


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_vote_is_decided_when_the_missing_ones_can_change_nothing(size: int) -> None:
    for answers in product((True, False, None), repeat=size):
        votes = {voter: vote for voter, vote in enumerate(answers) if vote is not None}
        ends = {
            sum(end) * 2 > size
            for end in product(
                *[(vote,) if vote is not None else (True, False) for vote in answers]
            )
        }
        if len(ends) == 2:
            want = VoteResult.PENDING
        else:
            want = VoteResult.WON if True in ends else VoteResult.LOST
        assert vote_result(range(size), votes) is want, answers


def test_votes_of_strangers_do_not_count() -> None:
    assert vote_result((1, 2, 3), {1: True, 8: True, 9: True}) is VoteResult.PENDING


def test_empty_group_has_committed_everything_and_won() -> None:
    assert committed_index(()) == EVERYTHING
    assert vote_result((), {}) is VoteResult.WON
