"""Replicas compare their states: the odd one out stops, and only that one."""

from __future__ import annotations

import struct
from typing import Any, cast

import pytest
from tests.server.clusters import members_for, world

from unimeter import limits
from unimeter.server.hashes import KEPT, DivergedError, Hashes

GOOD, BAD, WORSE = b"g" * 16, b"b" * 16, b"w" * 16


class FakeNode:
    """A node whose state is what the test says."""

    def __init__(self) -> None:
        self.ready: list[tuple[int, bytes]] = []

    def take_state_hash(self) -> tuple[int, bytes] | None:
        return self.ready.pop(0) if self.ready else None


class Group:
    """The comparison of one node, and what it said."""

    def __init__(self, node_id: int, count: int = 3) -> None:
        self.node = FakeNode()
        self.sent: list[bytes] = []
        self.said: list[str] = []
        members = members_for(node_id, count)
        self.hashes = Hashes(members, cast(Any, self.node), self.sent.append, self.said.append)

    def own(self, index: int, state: bytes) -> None:
        self.node.ready.append((index, state))
        self.hashes.tick()

    def heard(self, sender: int, index: int, state: bytes) -> None:
        self.hashes.heard(sender, frame(index, state))


def frame(index: int, state: bytes) -> bytes:
    return struct.pack("<Q16s", index, state)


def test_a_node_tells_its_own_hash_and_remembers_the_newest() -> None:
    group = Group(1)
    group.own(4096, GOOD)
    assert group.sent == [frame(4096, GOOD)]
    assert group.hashes.newest == (4096, GOOD)


def test_agreement_is_counted_and_says_nothing() -> None:
    group = Group(1)
    group.heard(2, 4096, GOOD)
    group.own(4096, GOOD)
    assert group.hashes.compared == 0
    group.heard(3, 4096, GOOD)
    assert (group.hashes.compared, group.said) == (1, [])


@pytest.mark.parametrize("own_first", [True, False])
def test_the_odd_one_out_of_three_stops_with_the_table_in_its_message(own_first: bool) -> None:
    group = Group(3)
    with pytest.raises(DivergedError) as caught:
        if own_first:
            group.own(4096, BAD)
        group.heard(1, 4096, GOOD)
        group.heard(2, 4096, GOOD)
        group.own(4096, BAD)
    text = str(caught.value)
    for node, state in ((1, GOOD), (2, GOOD), (3, BAD)):
        assert f"node {node}: {state.hex()}" in text
    assert "entry 4096" in text and "unimeter recover" in text


def test_the_two_that_agree_warn_once_and_go_on() -> None:
    group = Group(1)
    group.own(4096, GOOD)
    group.heard(3, 4096, BAD)
    group.heard(2, 4096, GOOD)
    assert len(group.said) == 1 and "differ at entry 4096" in group.said[0]
    assert group.hashes.compared == 0


def test_three_different_states_stop_nobody() -> None:
    group = Group(1)
    group.own(4096, GOOD)
    group.heard(2, 4096, BAD)
    group.heard(3, 4096, WORSE)
    assert len(group.said) == 1


def test_two_odd_ones_of_five_stop_and_never_the_three() -> None:
    three = Group(1, 5)
    three.own(4096, GOOD)
    three.heard(4, 4096, BAD)  # the two odd ones are heard first
    three.heard(5, 4096, BAD)
    three.heard(2, 4096, GOOD)
    three.heard(3, 4096, GOOD)
    assert three.said
    odd = Group(4, 5)
    odd.own(4096, BAD)
    odd.heard(5, 4096, BAD)
    odd.heard(1, 4096, GOOD)
    odd.heard(2, 4096, GOOD)
    with pytest.raises(DivergedError):
        odd.heard(3, 4096, GOOD)


def test_only_states_at_one_entry_are_compared() -> None:
    group = Group(1)
    group.own(4096, GOOD)
    group.heard(2, 8192, BAD)
    group.heard(3, 8192, BAD)
    assert group.said == []
    with pytest.raises(DivergedError):
        group.own(8192, GOOD)


def test_what_is_no_hash_and_who_is_no_member_are_passed_over() -> None:
    group = Group(1)
    group.own(4096, GOOD)
    group.hashes.heard(2, b"short")
    group.heard(9, 4096, BAD)
    assert group.said == []


def test_only_the_newest_comparisons_are_kept() -> None:
    group = Group(1)
    for n in range(3 * KEPT):
        group.own(4096 * n, GOOD)
    assert len(group.hashes._known) == KEPT
    group.heard(2, 4096 * (3 * KEPT - 1), BAD)
    assert len(group.said) == 1


def test_a_replica_whose_memory_was_damaged_stops_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "STATE_HASH_ENTRIES", 4)
    with world() as w:
        client = w.client(1)
        for n in range(8):
            client.ingest(7, 1, first=n)
            w.tick(2)
        assert min(one.cluster.hashes.compared for one in w.running) >= 2
        assert all(one.error is None for one in w.running)
        w.may_fail.add(3)
        rotten = w.nodes[3].node.machine
        monkeypatch.setattr(rotten, "state_hash", lambda: "00" * 16)
        for n in range(8, 16):
            client.ingest(7, 1, first=n)
            w.tick(2)
        assert isinstance(w.nodes[3].error, DivergedError)
        assert [w.nodes[n].error for n in (1, 2)] == [None, None]
        asked = client.ingest(7, 1, first=16)
        w.tick(2)
        assert client.stored(asked) == 1
