"""What each node knows of the others, and what of it may be believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.clusters import World, world

from unimeter.server import standing
from unimeter.wire.messages import (
    HEARD_NEVER,
    ClusterStatus,
    ClusterStatusReply,
    Membership,
    NodeRole,
)


@pytest.fixture
def w() -> Iterator[World]:
    with world() as made:
        made.tick(12)  # a status is said twice a second
        yield made


def status(w: World, node: int) -> ClusterStatusReply:
    client = w.client(node)
    asked = client.ask(ClusterStatus())
    w.settle()
    reply = client.response(asked)
    assert isinstance(reply, ClusterStatusReply)
    return reply


@pytest.mark.parametrize("node", [1, 2, 3])
def test_every_node_tells_of_all_nodes(w: World, node: int) -> None:
    reply = status(w, node)
    assert (reply.node_id, reply.node_count, reply.leader) == (node, 3, 1)
    assert [one.node_id for one in reply.nodes] == [1, 2, 3]
    assert [one.role for one in reply.nodes] == [
        NodeRole.LEADER,
        NodeRole.FOLLOWER,
        NodeRole.FOLLOWER,
    ]
    assert [one.client_address for one in reply.nodes] == [f"10.0.0.{n}:7001" for n in (1, 2, 3)]
    assert {one.membership for one in reply.nodes} == {Membership.VOTER}
    assert {one.term for one in reply.nodes} == {w.nodes[1].node.replica.term}
    assert {one.applied for one in reply.nodes} == {w.nodes[1].node.machine.applied}
    assert {one.lag for one in reply.nodes} == {0}


def test_the_leader_knows_how_far_each_copy_is(w: World) -> None:
    w.cut((1, 3))
    client = w.client(1)
    for n in range(5):
        client.ingest(7, 1, first=n)
        w.settle()
    w.tick(10)
    one, two, three = status(w, 1).nodes
    assert one.match == two.match == w.nodes[1].node.replica.raft.last_index
    assert three.match == one.match - 5
    assert (two.lag, three.lag) == (0, 5)


def test_a_process_that_has_ended_is_unreachable_at_once_and_a_silent_one_after_a_while(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    w.crash(3)
    assert status(w, 1).nodes[2].role is NodeRole.UNREACHABLE
    w.isolate(2)
    assert status(w, 1).nodes[1].role is NodeRole.FOLLOWER
    monkeypatch.setattr(standing, "HEARD_SECONDS_MAX", 0.0)
    assert status(w, 1).nodes[1].role is NodeRole.UNREACHABLE


def test_a_node_never_heard_of_is_told_as_that() -> None:
    w = World(3, start=False)
    w.start(1)
    w.tick(3)
    reply = status(w, 1)
    assert [one.heard_ms for one in reply.nodes] == [0, HEARD_NEVER, HEARD_NEVER]
    assert reply.nodes[0].membership is Membership.FRESH
    assert reply.leader == 0
    w.close()


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"\xff\xfe",
        b"[1, 2]",
        b"null",
        b"{}",
        b'{"role": null, "term": "x", "membership": [], "state_hash": 5}',
        b'{"role": 99, "term": -1, "applied": 1e300, "membership": 77, "version": 3}',
        b'{"membership": null}',
        json.dumps({"applied": 2**80, "state_hash": "zz", "client_address": 7}).encode(),
    ],
)
def test_words_that_are_no_status_do_no_harm(w: World, words: bytes) -> None:
    member = w.nodes[1]
    member.cluster.standing.heard(2, words)
    found: Any = status(w, 1).nodes[1]
    assert (found.node_id, member.error) == (2, None)
    member.cluster.best_successor()


def test_a_node_that_recovers_is_no_successor(w: World) -> None:
    w.crash(3)
    w.wipe(3)
    w.make_recovering(3)
    w.start(3)
    w.tick(12)
    assert status(w, 1).nodes[2].membership is Membership.RECOVERING
    w.isolate(2)
    w.unlink(1, 2)
    assert w.nodes[1].cluster.best_successor() == 0
