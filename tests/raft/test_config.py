"""What a node is told when it starts."""

from __future__ import annotations

import pytest

from unimeter.errors import InvalidInputError
from unimeter.raft import (
    LOCAL_APPEND_THREAD,
    Config,
    MemoryStorage,
    RawNode,
    Snapshot,
    SnapshotMeta,
)
from unimeter.raft.messages import NO_LIMIT


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"node_id": 0}, "node_id must be above 0"),
        ({"node_id": LOCAL_APPEND_THREAD}, "is reserved"),
        ({"voters": (1, 2, 2)}, "voters repeat"),
        ({"voters": (0, 1)}, "voters must be above 0"),
        ({"heartbeat_ticks": 0}, "heartbeat_ticks must be above 0"),
        ({"election_ticks": 1}, "about ten times it"),
        ({"max_size_per_message": -1}, "must not be negative"),
        ({"max_inflight_messages": 0}, "max_inflight_messages must be above 0"),
        ({"max_inflight_bytes": 5}, "at least max_size_per_message"),
        ({"applied": -1}, "applied must not be negative"),
    ],
)
def test_broken_rule_is_refused_by_name(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        RawNode(Config(**{"node_id": 1, "voters": (1, 2, 3), **options}), MemoryStorage())  # type: ignore[arg-type]


def test_zero_means_no_limit_or_the_size_of_a_message() -> None:
    config = Config(1, max_size_per_message=77)
    assert config.committed_size_limit == 77
    assert config.uncommitted_size_limit == config.inflight_bytes_limit == NO_LIMIT


def test_safe_choices_are_the_defaults() -> None:
    config = Config(1)
    assert config.pre_vote and config.check_quorum and config.votes_wait_for_sync


def test_voters_come_from_the_storage_when_none_are_given() -> None:
    disk = MemoryStorage()
    disk.apply_snapshot(Snapshot(SnapshotMeta(4, 1, (3, 1, 2))))
    assert RawNode(Config(1), disk).voters == (1, 2, 3)
    assert RawNode(Config(1, (2, 1, 3)), disk).voters == (1, 2, 3)


def test_other_voters_than_the_stored_ones_are_refused() -> None:
    disk = MemoryStorage()
    disk.apply_snapshot(Snapshot(SnapshotMeta(4, 1, (1, 2, 3))))
    with pytest.raises(InvalidInputError, match="start with the stored voters"):
        RawNode(Config(1, (1, 2)), disk)
