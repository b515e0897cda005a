"""The partition map: a leader in every row, queries spread, every node named."""

from __future__ import annotations

import pytest
from tests.server.clusters import World, world

from unimeter.server.routes import REPLICAS_PER_ROW, rows_of
from unimeter.types import PARTITION_COUNT
from unimeter.wire import v1, v2
from unimeter.wire.messages import PacketType, PartitionMapReply

THREE = {1: "a:1", 2: "b:2", 3: "c:3"}
FIVE = {**THREE, 4: "d:4", 5: "e:5"}


@pytest.mark.parametrize("addresses", [THREE, FIVE])
@pytest.mark.parametrize("lead", [1, 3])
def test_every_row_has_the_leader_and_followers_that_rotate(
    addresses: dict[int, str], lead: int
) -> None:
    rows = rows_of(addresses, lead, PARTITION_COUNT)
    assert len(rows) == PARTITION_COUNT
    assert {row.leader for row in rows} == {addresses[lead]}
    followers = {address for node, address in addresses.items() if node != lead}
    for row in rows:
        assert len(row.replicas) == min(REPLICAS_PER_ROW, len(followers))
        assert len(set(row.replicas)) == len(row.replicas)
        assert set(row.replicas) <= followers
    firsts = [row.replicas[0] for row in rows]
    assert set(firsts) == followers, "queries go to a row's first one"
    counts = [firsts.count(address) for address in followers]
    assert max(counts) - min(counts) <= 1
    named = {row.leader for row in rows} | {one for row in rows for one in row.replicas}
    assert named == set(addresses.values()), "what a client of version 1 subscribes to"


def test_without_a_leader_the_rows_name_everybody_as_replica() -> None:
    rows = rows_of(THREE, 0, PARTITION_COUNT)
    assert {row.leader for row in rows} == {""}
    assert {one for row in rows for one in row.replicas} == set(THREE.values())


def test_a_node_that_knows_only_itself_names_itself() -> None:
    assert rows_of({2: "b:2"}, 2, 2)[0].replicas == ["b:2"]
    assert rows_of({2: "b:2"}, 2, 2)[0].leader == "b:2"


def test_a_node_without_an_address_is_in_no_row() -> None:
    rows = rows_of({1: "a:1", 2: "", 3: "c:3"}, 1, PARTITION_COUNT)
    assert {one for row in rows for one in row.replicas} == {"c:3"}


def asked_map(w: World, node: int, version: int) -> PartitionMapReply:
    client = w.client(node)
    asked = client.start(PacketType.GET_PARTITION_MAP, b"", version)
    w.settle()
    frame = client.frames[asked]
    wire = v1 if version == 1 else v2
    reply = wire.decode_response(PacketType.GET_PARTITION_MAP, frame.status, frame.payload)[1]
    assert isinstance(reply, PartitionMapReply)
    return reply


def address(node: int) -> str:
    return f"10.0.0.{node}:7001"


@pytest.mark.parametrize("node", [1, 2, 3])
def test_all_nodes_tell_the_same_map(node: int) -> None:
    with world() as w:
        w.tick(2)
        for version in (1, 2):
            reply = asked_map(w, node, version)
            assert {row.leader for row in reply.routes} == {address(1)}
            named = {one for row in reply.routes for one in row.replicas}
            assert named == {address(2), address(3)}


def test_version_1_is_never_told_an_empty_leader() -> None:
    """Its client would dial an empty name."""
    with world() as w:
        w.tick(2)
        w.isolate(3)
        w.tick(50)  # 2.5 seconds: not silent for so long yet that it is not named any more
        assert w.nodes[3].node.lead == 0
        assert asked_map(w, 3, 2).routes[0].leader == ""
        assert asked_map(w, 3, 1).routes[0].leader == address(1), "the last one known"
        w.heal()
        w.tick(10)
        # The leader is known, and how clients reach it is not: its link is lost.
        follower = next(one for one in w.running if not one.leads)
        lead = follower.node.lead
        follower.cluster.standing._hellos.pop(lead)
        follower.cluster.clients.map_changed()
        assert asked_map(w, follower.node_id, 1).routes[0].leader != ""


def test_a_new_leader_is_pushed_to_who_asked_for_the_map_in_its_version() -> None:
    with world() as w:
        w.tick(2)
        new, old = w.client(2), w.client(2)
        new.start(PacketType.GET_PARTITION_MAP, b"", 2)
        old.start(PacketType.GET_PARTITION_MAP, b"", 1)
        w.settle()
        new.pushes.clear()
        old.pushes.clear()
        w.elect_by_transfer(3)
        w.tick(2)
        (told,) = old.pushes
        assert told.status == PacketType.PARTITION_MAP_UPDATE
        _, said = v1.decode_push(told.status, told.payload)
        assert isinstance(said, PartitionMapReply), "version 1 hears once: of the leader"
        assert {row.leader for row in said.routes} == {address(3)}
        frame = new.pushes[-1]
        assert frame.status == PacketType.PARTITION_MAP_UPDATE
        _, pushed = v2.decode_push(frame.status, frame.payload)
        assert isinstance(pushed, PartitionMapReply)
        assert {row.leader for row in pushed.routes} == {address(3)}


def test_a_node_that_has_gone_leaves_the_map() -> None:
    with world() as w:
        w.tick(2)
        w.crash(3)
        w.tick(2)
        assert {one for row in asked_map(w, 1, 2).routes for one in row.replicas} == {address(2)}
        w.start(3)
        w.tick(2)
        named = {one for row in asked_map(w, 1, 2).routes for one in row.replicas}
        assert named == {address(2), address(3)}
