"""Reads that wait: for a position, for the quorum's word, and not for ever."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest
from tests.server.clusters import RAFT, World, world
from tests.server.rawclient import DAY_NS, START_NS

from unimeter.raft.messages import (
    MSG_APP_RESP,
    MSG_HEARTBEAT,
    MSG_HEARTBEAT_RESP,
    MSG_READ_INDEX,
    MessageType,
)
from unimeter.server.peer_codec import decode_message
from unimeter.server.reads import ASK_AGAIN_SECONDS, READ_WAIT_SECONDS, Reads
from unimeter.wire.messages import ErrorCode, ErrorReply, UsageQuery


class Quorum:
    """Hears the questions; the test answers."""

    def __init__(self) -> None:
        self.contexts: list[bytes] = []
        self.has_leader = True
        self.now = 0.0
        self.reads = Reads(self.ask, lambda: self.now, b"12345678")
        self.done: list[str] = []

    def ask(self, context: bytes) -> bool:
        if self.has_leader:
            self.contexts.append(context)
        return self.has_leader

    def linearizable(self, name: str) -> None:
        self.reads.after_quorum(
            lambda: self.done.append(name), lambda: self.done.append(f"{name}!")
        )

    def at(self, position: int, name: str) -> None:
        late = f"{name}!"
        self.reads.at_position(
            position, lambda: self.done.append(name), lambda: self.done.append(late)
        )


@pytest.fixture
def quorum() -> Quorum:
    return Quorum()


@pytest.fixture
def w() -> Iterator[World]:
    with world() as made:
        yield made


# --- the line itself -----------------------------------------------------------------------


def test_reads_of_one_turn_share_a_question_and_those_after_it_the_next(quorum: Quorum) -> None:
    quorum.linearizable("a")
    quorum.linearizable("b")
    quorum.reads.ask()
    quorum.linearizable("c")  # may not use the answer: it could be older than this read
    quorum.reads.ask()
    assert len(quorum.contexts) == 1
    quorum.reads.confirmed(quorum.contexts[0], 0)
    assert quorum.done == ["a", "b"]
    assert len(quorum.contexts) == 2
    quorum.reads.confirmed(quorum.contexts[1], 0)
    assert quorum.done == ["a", "b", "c"]


def test_a_confirmed_read_waits_until_its_position_is_applied(quorum: Quorum) -> None:
    quorum.reads.applied(4)
    quorum.linearizable("a")
    quorum.reads.ask()
    quorum.reads.confirmed(quorum.contexts[0], 6)
    quorum.reads.applied(5)
    assert quorum.done == []
    quorum.reads.applied(6)
    assert quorum.done == ["a"]


def test_positions_are_served_in_order_and_at_once_where_applied(quorum: Quorum) -> None:
    quorum.reads.applied(5)
    quorum.at(9, "nine")
    quorum.at(7, "seven")
    quorum.at(5, "five")
    assert quorum.done == ["five"]
    quorum.reads.applied(8)
    quorum.reads.applied(20)
    assert quorum.done == ["five", "seven", "nine"]


def test_an_answer_to_a_question_given_up_is_ignored(quorum: Quorum) -> None:
    quorum.linearizable("a")
    quorum.reads.ask()
    quorum.reads.ask_again()
    first, second = quorum.contexts
    quorum.reads.confirmed(first, 0)
    assert quorum.done == []
    quorum.reads.confirmed(second, 0)
    assert quorum.done == ["a"]


def test_contexts_never_repeat(quorum: Quorum) -> None:
    for _ in range(20):
        quorum.linearizable("a")
        quorum.reads.ask()
        quorum.reads.confirmed(quorum.contexts[-1], 0)
        quorum.reads.confirmed(b"", 0)
    assert len(set(quorum.contexts)) == 20


def test_contexts_differ_from_node_to_node_and_after_a_restart(w: World) -> None:
    prefixes = [member.node.reads._prefix for member in w.running]
    w.crash(3)
    prefixes.append(w.start(3).node.reads._prefix)
    assert len({*prefixes}) == 4
    assert all(len(prefix) == 8 for prefix in prefixes)


def test_a_question_without_an_answer_is_asked_again(quorum: Quorum) -> None:
    quorum.linearizable("a")
    quorum.reads.ask()
    quorum.now += ASK_AGAIN_SECONDS / 2
    quorum.reads.tick()
    assert len(quorum.contexts) == 1
    quorum.now += ASK_AGAIN_SECONDS
    quorum.reads.tick()
    assert len(quorum.contexts) == 2


def test_reads_wait_for_a_leader_and_are_asked_when_there_is_one(quorum: Quorum) -> None:
    quorum.has_leader = False
    quorum.linearizable("a")
    quorum.reads.ask()
    assert quorum.contexts == []
    quorum.has_leader = True
    quorum.reads.ask_again()
    quorum.reads.confirmed(quorum.contexts[0], 0)
    assert quorum.done == ["a"]


def test_every_kind_of_waiting_ends_and_nothing_runs_after_it_was_turned_away(
    quorum: Quorum,
) -> None:
    quorum.linearizable("asked")
    quorum.reads.ask()
    quorum.linearizable("to ask")
    quorum.at(9, "position")
    assert len(quorum.reads) == 3
    quorum.now += READ_WAIT_SECONDS + 0.01
    quorum.reads.tick()
    assert sorted(quorum.done) == ["asked!", "position!", "to ask!"]
    assert len(quorum.reads) == 0 and quorum.reads.timeouts == 3
    for context in quorum.contexts:
        quorum.reads.confirmed(context, 0)
    quorum.reads.applied(20)
    assert len(quorum.done) == 3
    quorum.linearizable("later")
    quorum.reads.ask()
    quorum.reads.confirmed(quorum.contexts[-1], 0)
    assert quorum.done[-1] == "later"


# --- in a cluster -----------------------------------------------------------------------------


def is_type(kind: int, payload: bytes, what: MessageType) -> bool:
    """Whether a frame is a raft message of that type."""
    return kind == RAFT and decode_message(memoryview(bytearray(payload))).type is what


def acknowledge(w: World, node: int, account: int, count: int, first: int = 0) -> int:
    """Store events through a node; the position of the acknowledgement."""
    client = w.client(node)
    asked = client.ingest(account, count, first=first)
    w.settle()
    assert client.stored(asked) == count
    return client.position(asked)


@pytest.mark.parametrize("node", [1, 2, 3])
def test_a_linearizable_read_on_any_node_shows_what_was_acknowledged(w: World, node: int) -> None:
    for n in range(3):
        acknowledge(w, 1 + n, 7, 2, first=2 * n)
        client = w.client(node)
        asked = client.query(7, linearizable=True)
        w.settle()
        assert client.count(asked) == 2 * (n + 1)


def test_a_deposed_leader_answers_no_linearizable_read_and_a_session_read_at_once(
    w: World,
) -> None:
    acknowledge(w, 1, 7, 2)
    w.isolate(1)
    w.elect(2)
    acknowledge(w, 2, 7, 3, first=2)
    assert w.nodes[1].node.leads, "it does not know yet"
    old = w.client(1)
    linear = old.query(7, linearizable=True)
    session = old.query(7)
    w.settle()
    assert old.response(linear) is None
    assert old.count(session) == 2
    w.until(lambda: old.response(linear) is not None)
    late = old.response(linear)
    assert isinstance(late, ErrorReply) and late.code == ErrorCode.BACKPRESSURE
    again = old.query(7, linearizable=True)
    w.tick(3)
    w.heal()
    w.until(lambda: old.response(again) is not None)
    assert old.count(again) == 5


def test_a_read_asked_before_the_partition_is_not_answered_with_the_old_total(w: World) -> None:
    acknowledge(w, 1, 7, 2)
    old = w.client(1)
    asked = old.query(7, linearizable=True)
    # The question reaches the followers; their answers come back after another leader counted.
    w.nodes[1].run()
    w.until_queued(2, 1, MSG_HEARTBEAT_RESP)
    w.until_queued(3, 1, MSG_HEARTBEAT_RESP)
    stale = {pair: list(w.queues[pair]) for pair in ((2, 1), (3, 1))}
    w.isolate(1)
    w.elect(2)
    acknowledge(w, 2, 7, 3, first=2)
    w.cuts.clear()
    for pair, frames in stale.items():
        w.queues[pair] = deque(frames)
    w.settle(only=[1])
    if old.response(asked) is not None:
        # Both had answered before anything newer was stored: 2 was the total when it was asked.
        assert old.count(asked) == 2
    after = old.query(7, linearizable=True)
    w.tick(5)
    assert old.count(after) == 5


@pytest.mark.parametrize("what", [MSG_HEARTBEAT, MSG_HEARTBEAT_RESP, MSG_READ_INDEX])
def test_a_lost_message_costs_a_linearizable_read_a_moment_only(
    w: World, what: MessageType
) -> None:
    acknowledge(w, 1, 7, 2)
    w.lost = lambda sender, to, kind, payload: is_type(kind, payload, what)
    client = w.client(2)
    asked = client.query(7, linearizable=True)
    w.settle()
    assert client.response(asked) is None
    w.lost = lambda *_: False
    w.tick(8)
    assert client.count(asked) == 2


def test_a_linearizable_read_outlives_its_leader(w: World) -> None:
    acknowledge(w, 1, 7, 2)
    client = w.client(3)
    w.isolate(1)
    asked = client.query(7, linearizable=True)
    w.settle()
    assert client.response(asked) is None
    w.elect(2)
    w.settle()
    assert client.count(asked) == 2


def test_a_new_leader_answers_no_read_before_an_entry_of_its_term_is_committed(
    w: World,
) -> None:
    client = w.client(1)
    w.cut((1, 3), (2, 1))
    asked = client.ingest(7, 2)
    w.settle()  # node 2 has it, and the leader does not know
    assert client.response(asked) is None
    w.isolate(1)
    w.lost = lambda sender, to, kind, payload: is_type(kind, payload, MSG_APP_RESP)
    w.elect(2)
    reader = w.client(2)
    read = reader.query(7, linearizable=True)
    w.tick(2)
    assert reader.response(read) is None
    w.lost = lambda *_: False
    w.tick(4)
    assert reader.count(read) == 2, "committed by the new leader's first entry"


def test_a_session_read_waits_on_a_follower_for_the_position_it_names(w: World) -> None:
    w.cut((1, 3))
    position = acknowledge(w, 1, 7, 4)
    follower = w.client(3)
    plain, waiting = follower.query(7), follower.query(7, min_position=position)
    w.settle()
    assert follower.count(plain) == 0, "a follower that is behind"
    assert follower.response(waiting) is None
    w.cuts.clear()
    w.tick(4)
    assert follower.count(waiting) == 4


def test_a_session_read_that_waits_too_long_is_told_to_come_again(w: World) -> None:
    follower = w.client(3)
    asked = follower.query(7, min_position=10**6)
    w.tick(int(READ_WAIT_SECONDS / 0.05) + 2)
    reply = follower.response(asked)
    assert isinstance(reply, ErrorReply) and reply.code == ErrorCode.BACKPRESSURE


def test_a_client_reads_its_own_writes_from_any_node(w: World) -> None:
    for n in range(12):
        writer = w.client(1 + n % 3)
        asked = writer.ingest(7, 1, first=n)
        w.settle(only=[1, 2] if n % 2 else None)
        w.until(lambda writer=writer, asked=asked: writer.response(asked) is not None)
        position = writer.position(asked)
        reader = w.client(1 + (n + 1) % 3)
        read = reader.query(7, min_position=position)
        w.until(lambda reader=reader, read=read: reader.response(read) is not None)
        assert reader.count(read) == n + 1


def test_version_1_reads_on_any_node_what_another_acknowledged(w: World) -> None:
    w.cut((1, 3))
    acknowledge(w, 1, 7, 4)
    client = w.client(3)
    asked = client.ask(UsageQuery(7, "calls", START_NS, START_NS + DAY_NS), version=1)
    w.settle()
    assert client.response(asked) is None
    w.cuts.clear()
    w.tick(10)
    assert client.count(asked) == 4


def test_who_is_told_that_it_is_late_may_stand_in_line_again() -> None:
    clock = [0.0]
    reads = Reads(lambda context: True, lambda: clock[0], bytes(8))
    told: list[str] = []

    def again() -> None:
        told.append("late")
        reads.at_position(2, lambda: told.append("run"), lambda: told.append("late again"))

    for position in (5, 6, 7):
        reads.at_position(position, lambda: told.append("never"), again)
    clock[0] = 1_000.0
    reads.tick()
    assert told == ["late"] * 3 and len(reads) == 3
    reads.applied(2)
    assert told == ["late"] * 3 + ["run"] * 3 and len(reads) == 0
