"""Majorities: what index a majority has reached, and how a vote stands.

Owns the arithmetic and nothing else: pure functions of numbers. A joint quorum (two
majorities during a change of membership) is the minimum of two of these; it comes
with membership changes.

An empty group has committed everything and won every vote. It can't do harm, since a
node outside of its own group never campaigns, and it is what lets a joint quorum
with one empty half behave like the other half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Final

EVERYTHING: Final = (1 << 64) - 1  # the index that an empty group has committed


class VoteResult(IntEnum):
    """How a vote stands."""

    PENDING = 1
    LOST = 2
    WON = 3


def majority(voters: int) -> int:
    """How many of that many are a majority."""
    return voters // 2 + 1


def committed_index(matched: Sequence[int]) -> int:
    """The highest index that a majority has reached, given one index for each voter."""
    if not matched:
        return EVERYTHING
    return sorted(matched)[len(matched) - majority(len(matched))]


def vote_result(voters: Iterable[int], votes: Mapping[int, bool]) -> VoteResult:
    """How a vote stands; votes of strangers don't count."""
    granted = rejected = total = 0
    for voter in voters:
        total += 1
        vote = votes.get(voter)
        granted += vote is True
        rejected += vote is False
    if total == 0 or granted >= majority(total):
        return VoteResult.WON
    if total - rejected < majority(total):
        return VoteResult.LOST
    return VoteResult.PENDING
