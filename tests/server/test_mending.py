"""A damaged entry that a running node meets is asked for, taken and put back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.server.clusters import world
from tests.server.rawclient import DAY_NS, START_NS

from unimeter.errors import CorruptionError, RottenEntryError
from unimeter.raft.messages import Entry
from unimeter.server.handlers import MEND_MS
from unimeter.server.mending import ASK_TICKS, REFUSED_TICKS, Mending
from unimeter.types import Event, from_ns
from unimeter.wire.messages import ErrorCode, ErrorReply, UsageQuery


class FakePeers:
    """Two reachable peers, and what was asked of them."""

    def __init__(self, *reachable: int) -> None:
        self.reachable = reachable
        self.asked: list[tuple[int, int]] = []

    def is_up(self, node_id: int) -> bool:
        return node_id in self.reachable

    def fetch(self, node_id: int, index: int) -> bool:
        self.asked.append((node_id, index))
        return True


class FakeWal:
    """Takes a peer's entry, or finds that it is not the one that was here."""

    synced_index = 100

    def __init__(self) -> None:
        self.repaired: list[Entry] = []
        self.refuses = False
        self.wants: list[int] = []

    def repair(self, *run: Entry) -> None:
        if self.refuses:
            raise CorruptionError("log", 0, "the entry that was here", "another", "recover")
        if self.wants:
            error = RottenEntryError("log", 0, "it", "not it", "recover", index=7, position=64)
            error.wants = self.wants.pop(0)
            raise error
        self.repaired.extend(run)


def mending(*reachable: int) -> tuple[Mending, FakePeers, FakeWal, set[int], list[str]]:
    peers, wal, rotten = FakePeers(*reachable), FakeWal(), set[int]()
    said: list[str] = []
    log = SimpleNamespace(rotten=rotten, first_rotten=lambda: min(rotten, default=0))
    node = SimpleNamespace(
        wal=wal, replica=SimpleNamespace(log=log), request_turn=lambda: said.append("turn")
    )
    members = SimpleNamespace(others={2: ("b", 1), 3: ("c", 1)})
    cluster: Any = SimpleNamespace(node=node, peers=peers, members=members, say=said.append)
    return Mending(cluster), peers, wal, rotten, said


def entry(index: int) -> Entry:
    return Entry(index, 2, 2, 5, b"body")


def test_nothing_is_asked_while_nothing_is_damaged() -> None:
    mend, peers, _, _, _ = mending(2, 3)
    for _ in range(5):
        mend.tick()
    assert peers.asked == []


def test_a_damaged_entry_is_asked_for_once_and_repaired() -> None:
    mend, peers, wal, rotten, said = mending(2, 3)
    rotten.update({9, 7})
    mend.tick()
    mend.tick()
    assert [index for _, index in peers.asked] == [7], "one at a time, the oldest first"
    mend.fetched(peers.asked[0][0], entry(7))
    assert (wal.repaired, rotten, mend.repaired) == ([entry(7)], {9}, 1)
    assert said[-1] == "turn", "the follower that waits for it is sent to again"
    mend.tick()
    assert peers.asked[-1][1] == 9


def test_another_peer_is_asked_when_one_is_silent_or_has_no_such_entry() -> None:
    mend, peers, wal, rotten, _ = mending(2, 3)
    rotten.add(7)
    mend.tick()
    first = peers.asked[0][0]
    mend.fetched(first, None)
    for _ in range(ASK_TICKS):
        mend.tick()
    assert [node for node, _ in peers.asked] == [first, 5 - first]
    mend.fetched(5 - first, entry(7))
    assert wal.repaired == [entry(7)]


def test_an_answer_that_nobody_waits_for_is_passed_over() -> None:
    mend, _, wal, rotten, _ = mending(2, 3)
    mend.fetched(2, entry(7))
    rotten.add(7)
    mend.tick()
    mend.fetched(2, entry(8))
    assert wal.repaired == [] and rotten == {7}


def test_a_peers_entry_that_is_not_the_one_that_was_here_changes_nothing() -> None:
    mend, peers, wal, rotten, said = mending(2)
    rotten.add(7)
    wal.refuses = True
    mend.tick()
    mend.fetched(2, entry(7))
    assert mend.repaired == 0 and wal.repaired == []
    assert "can't be repaired" in said[-1]
    assert peers.asked == [(2, 7)]


def test_what_can_not_be_repaired_is_said_once_and_tried_again_now_and_then() -> None:
    mend, peers, wal, rotten, said = mending(2)
    rotten.add(7)
    wal.refuses = True
    mend.tick()
    mend.fetched(2, entry(7))
    assert not rotten, "what waits for a repair does not wait for this one"
    for _ in range(REFUSED_TICKS - 1):
        rotten.add(7)  # a reader finds it again
        mend.tick()
    assert (peers.asked, len(said)) == ([(2, 7)], 1)
    assert not rotten
    rotten.update({7, 9})  # another one does not wait for it
    mend.tick()
    assert peers.asked[1:] == [(2, 7)], "the oldest first"
    mend.fetched(2, entry(7))
    mend.tick()
    assert peers.asked[2:] == [(2, 9)] and len(said) == 1
    wal.refuses = False
    mend.fetched(2, entry(9))
    for _ in range(REFUSED_TICKS):
        mend.tick()
    rotten.add(7)
    mend.tick()
    mend.fetched(2, entry(7))
    assert wal.repaired == [entry(9), entry(7)] and not rotten


def test_a_run_of_damaged_entries_is_asked_for_one_after_the_other() -> None:
    mend, peers, wal, rotten, said = mending(2, 3)
    rotten.add(7)
    wal.wants = [8, 9]
    mend.tick()
    node = peers.asked[0][0]
    for index in (7, 8, 9):
        assert peers.asked[-1] == (node, index)
        mend.fetched(node, entry(index))
    assert wal.repaired == [entry(7), entry(8), entry(9)]
    assert (rotten, mend.repaired, said[-1]) == (set(), 1, "turn")


def test_a_peer_that_is_silent_in_a_run_is_passed_over_and_the_run_begins_anew() -> None:
    mend, peers, wal, rotten, _ = mending(2, 3)
    rotten.add(7)
    wal.wants = [8]
    mend.tick()
    first = peers.asked[0][0]
    mend.fetched(first, entry(7))
    for _ in range(ASK_TICKS):
        mend.tick()
    assert peers.asked == [(first, 7), (first, 8), (5 - first, 7)]
    mend.fetched(first, entry(8))
    assert wal.repaired == [] and rotten == {7}
    mend.fetched(5 - first, entry(7))
    assert wal.repaired == [entry(7)]


def test_an_entry_that_is_not_durable_here_is_not_asked_for() -> None:
    mend, peers, wal, rotten, said = mending(2)
    rotten.add(7)
    wal.wants = [wal.synced_index + 1]
    mend.tick()
    mend.fetched(2, entry(7))
    assert peers.asked == [(2, 7)] and "can't be repaired" in said[-1]


def test_without_a_peer_nothing_happens_until_there_is_one() -> None:
    mend, peers, _, rotten, _ = mending()
    rotten.add(7)
    mend.tick()
    assert peers.asked == []
    peers.reachable = (3,)
    mend.tick()
    assert peers.asked == [(3, 7)]


def test_a_query_that_met_damage_is_asked_to_come_again_and_is_answered_once_it_is_mended() -> None:
    with world() as w:
        client = w.client(2)
        times = from_ns(START_NS), from_ns(START_NS + DAY_NS // 2)
        asked = client.ingest_events(
            [Event(7, "calls", 1, time, id=f"spoilt-event-{time}") for time in times]
        )
        w.settle()
        index = client.position(asked)
        member = w.nodes[2]
        for path in member.disk.paths():
            place = member.disk.contents(path).rfind(b"spoilt-event")
            if path.endswith(".seg") and place >= 0:
                member.disk._files[path].data[place] ^= 1
        inside = UsageQuery(7, "calls", START_NS, START_NS + 10**9)  # cuts a bucket
        first = client.ask(inside)
        w.settle()
        told = client.response(first)
        assert isinstance(told, ErrorReply) and told.code == ErrorCode.BACKPRESSURE
        assert f"entry {index}" in told.text and told.retry_after_ms == MEND_MS
        copy = w.nodes[1].cluster.fetch(index)
        assert copy is not None and member.node.replica.log.rotten == {index}
        member.node.wal.repair(copy)
        member.node.replica.log.rotten.discard(index)
        again = client.ask(inside)
        w.settle()
        assert client.count(again) == 1


def test_nobody_is_asked_for_an_entry_that_is_stored_no_more() -> None:
    mend, peers, _, rotten, _ = mending(2, 3)
    rotten.add(4)
    mend.cluster.node.replica.log.first_rotten = lambda: 0  # type: ignore[method-assign]
    mend.tick()
    assert peers.asked == []
