"""A follower whose entries were removed: it takes over the leader's snapshot, whatever is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.clusters import RAFT, SNAPSHOT, FakeClient, World

from unimeter.raft.messages import MSG_APP_RESP
from unimeter.server.peer_codec import decode_message
from unimeter.server.transfers import ANSWER_TICKS
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.wal import WalLimits
from unimeter.wire.messages import ErrorCode, ErrorReply

BOUNDS = WalLimits(segment_bytes=4096, segment_bytes_first=4096, background=False)


@pytest.fixture
def w() -> Iterator[World]:
    made = World(3, bounds=BOUNDS, retention=RetentionPolicy(bytes=1))
    made.elect(1)
    made.make_metric()
    yield made
    made.close()


def leave_behind(w: World, node: int) -> int:
    """Node 1 stores and removes its log, until a node that is away needs a snapshot."""
    client, leader = w.client(1), w.nodes[1]
    last = w.nodes[node].node.replica.raft.last_index
    first = 0
    while leader.node.wal.first_index <= last + 1:
        for _ in range(10):
            client.ingest(7, 1, first=first)
            first += 1
            w.settle()
        leader.node.tick()
    return first


def test_a_node_that_was_away_takes_over_state_and_follows_on(w: World) -> None:
    w.crash(3)
    count = leave_behind(w, 3)
    member = w.start(3)
    w.tick(10)
    assert member.cluster.transfers.installed == 1
    assert member.total(7) == count
    w.check_same()
    client = w.client(3)
    asked = client.ingest(7, 1, first=10**6)
    w.settle()
    assert client.stored(asked) == 1
    w.elect_by_transfer(3)
    w.check_same()


def test_what_it_took_over_outlives_a_power_cut(w: World) -> None:
    w.crash(3)
    count = leave_behind(w, 3)
    w.start(3)
    w.tick(10)
    w.crash(3, arrival=0.0)
    member = w.start(3)
    w.tick(10)
    assert member.cluster.transfers.installed == 0, "once is enough"
    assert member.total(7) == count
    w.check_same()


def test_an_answer_that_was_lost_is_not_waited_for_for_ever(w: World) -> None:
    w.crash(3)
    leave_behind(w, 3)
    w.lost = lambda sender, to, kind, payload: (
        (sender, kind) == (3, RAFT)
        and decode_message(memoryview(bytearray(payload))).type is MSG_APP_RESP
    )
    member = w.start(3)
    w.tick(10)
    assert member.cluster.transfers.installed == 1
    w.lost = lambda *_: False
    client = w.client(1)
    client.ingest(7, 1, first=10**6)
    w.tick(10)
    assert member.node.machine.applied < w.nodes[1].node.machine.applied
    w.tick(ANSWER_TICKS + 10)
    assert member.cluster.transfers.installed == 1, "and not sent a second time"
    w.check_same()


def test_a_snapshot_that_is_lost_on_its_way_is_sent_again(w: World) -> None:
    w.crash(3)
    leave_behind(w, 3)
    w.lost = lambda sender, to, kind, payload: kind == SNAPSHOT
    member = w.start(3)
    w.tick(20)
    assert member.cluster.transfers.installed == 0
    assert w.nodes[1].cluster.transfers.failed > 0
    w.lost = lambda *_: False
    w.tick(20)
    assert member.cluster.transfers.installed == 1
    w.check_same()


def test_the_proposals_of_a_deposed_leader_that_takes_a_snapshot_have_an_unknown_outcome(
    w: World,
) -> None:
    """Whether the snapshot includes them, nobody can say."""
    old = w.client(1)
    w.isolate(1)
    asked = old.ingest(8, 1)
    w.settle(only=[1])
    w.elect(2, only=[2, 3])
    other: FakeClient = w.client(2)
    leader, last = w.nodes[2], w.nodes[1].node.replica.raft.last_index
    first = 0
    while leader.node.wal.first_index <= last + 1:
        other.ingest(7, 1, first=first)
        first += 1
        w.settle(only=[2, 3])
        leader.node.tick()
    assert old.response(asked) is None
    w.heal()
    w.tick(20)
    assert w.nodes[1].cluster.transfers.installed == 1
    reply = old.response(asked)
    assert isinstance(reply, ErrorReply) and reply.code == ErrorCode.OUTCOME_UNKNOWN
    assert w.nodes[1].node.inflight_bytes == 0 and w.nodes[1].node.idle
    w.check_same()


def test_a_node_whose_snapshot_is_too_old_when_it_arrives_gets_a_newer_one(w: World) -> None:
    """The leader's log has gone on meanwhile, and no longer reaches back to it."""
    w.crash(3)
    leave_behind(w, 3)
    held: list[tuple[int, object]] = []

    def hold(sender: int, to: int, kind: int, payload: object) -> bool:
        return kind == SNAPSHOT and not held and bool(held.append((kind, payload)) or True)

    w.post, post = (  # type: ignore[method-assign]
        lambda sender, to, kind, payload: (
            True if hold(sender, to, kind, payload) else post(sender, to, kind, payload)
        ),
        w.post,
    )
    member = w.start(3)
    w.tick(10)
    assert held and member.cluster.transfers.installed == 0
    first = 10**6
    old = held[0][1].message.snapshot.meta.index  # type: ignore[attr-defined]
    client = w.client(1)
    while w.nodes[1].node.wal.first_index <= old + 1:
        client.ingest(7, 1, first=first)
        first += 1
        w.settle()
        w.nodes[1].node.tick()
    held[0][1].arrive(member)  # type: ignore[attr-defined]
    w.tick(40)
    assert member.cluster.transfers.installed == 2
    w.check_same()
