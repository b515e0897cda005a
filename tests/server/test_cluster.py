"""Who leads: handing over, a leader whose process has ended, what the peers are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.clusters import FakeClient, World, world

from unimeter.server.cluster import TRANSFER_SECONDS
from unimeter.wire.messages import (
    Done,
    ErrorCode,
    ErrorReply,
    Response,
    TransferLeader,
)


@pytest.fixture
def w() -> Iterator[World]:
    with world() as made:
        made.tick(12)
        yield made


def ask_transfer(w: World, through: int, node: int) -> tuple[FakeClient, int]:
    client = w.client(through)
    asked = client.ask(TransferLeader(node))
    w.settle()
    return client, asked


def answered(w: World, through: int, node: int) -> Response | None:
    client, asked = ask_transfer(w, through, node)
    w.tick(3)
    return client.response(asked)


# --- handing over ----------------------------------------------------------------------------


@pytest.mark.parametrize("through", [1, 2, 3])
def test_leadership_is_handed_to_the_node_that_is_named(w: World, through: int) -> None:
    assert isinstance(answered(w, through, 3), Done)
    assert w.nodes[3].leads


def test_leadership_is_handed_to_the_node_that_is_furthest(w: World) -> None:
    w.cut((1, 2))
    client = w.client(1)
    for n in range(3):
        client.ingest(7, 1, first=n)
        w.settle()
    assert isinstance(answered(w, 1, 0), Done)
    assert w.nodes[3].leads


def test_leadership_stays_where_it_is_asked_to_be(w: World) -> None:
    term = w.nodes[1].node.replica.term
    assert isinstance(answered(w, 2, 1), Done)
    assert w.nodes[1].leads and w.nodes[1].node.replica.term == term


def test_leadership_is_not_handed_to_a_stranger_or_to_one_that_is_not_there(w: World) -> None:
    refused = answered(w, 1, 9)
    assert isinstance(refused, ErrorReply) and refused.code == ErrorCode.INVALID_INPUT
    assert "the cluster has 1, 2, 3" in refused.text
    w.crash(3)
    refused = answered(w, 1, 3)
    assert isinstance(refused, ErrorReply) and "is not connected" in refused.text
    w.crash(2)
    refused = answered(w, 1, 0)
    assert isinstance(refused, ErrorReply) and "near enough" in refused.text


def test_a_hand_over_to_a_node_that_says_nothing_is_given_up_and_the_leader_goes_on(
    w: World,
) -> None:
    w.isolate(3)
    client, asked = ask_transfer(w, 1, 3)
    assert client.response(asked) is None
    w.tick(int(TRANSFER_SECONDS / 0.05) + 2)
    refused = client.response(asked)
    assert isinstance(refused, ErrorReply) and "did not take over in time" in refused.text
    assert w.nodes[1].leads
    stored = client.ingest(7, 1)
    w.settle()
    assert client.stored(stored) == 1


def test_all_who_asked_for_a_hand_over_hear_of_it(w: World) -> None:
    asks = [ask_transfer(w, through, 2) for through in (1, 1, 3)]
    w.tick(3)
    assert [isinstance(client.response(asked), Done) for client, asked in asks] == [True] * 3


# --- a leader that is gone ---------------------------------------------------------------------


def test_a_leader_whose_process_has_ended_is_replaced_without_waiting(w: World) -> None:
    before = w.now
    w.crash(1)
    w.wait_leader()
    assert w.now - before < 0.3


def test_a_leader_that_is_silent_is_replaced_after_the_elections_timeout(w: World) -> None:
    before = w.now
    w.isolate(1)
    w.until(lambda: any(w.nodes[n].leads for n in (2, 3)))
    assert 0.3 < w.now - before < 2.5


def test_a_follower_that_ends_disturbs_nobody(w: World) -> None:
    term = w.nodes[1].node.replica.term
    w.crash(3)
    w.tick(40)
    assert w.nodes[1].leads and w.nodes[1].node.replica.term == term
    w.start(3)
    w.tick(40)
    assert w.nodes[1].leads and w.nodes[1].node.replica.term == term


def test_a_node_cut_off_comes_back_without_an_election(w: World) -> None:
    term = w.nodes[1].node.replica.term
    w.isolate(3)
    w.tick(200)
    w.heal()
    w.tick(40)
    assert w.nodes[1].leads and w.nodes[1].node.replica.term == term


def test_a_leader_without_a_majority_steps_down(w: World) -> None:
    w.isolate(1)
    w.tick(60)
    assert not w.nodes[1].leads
    assert "no leader is known" in w.nodes[1].cluster.readiness


@pytest.mark.parametrize("one_way", [((1, 2), (1, 3)), ((2, 1), (3, 1))])
def test_a_partition_in_one_direction_ends_in_one_leader_that_stores(
    w: World, one_way: tuple[tuple[int, int], ...]
) -> None:
    w.cut(*one_way)
    w.tick(60)
    leader = w.wait_leader()
    assert leader.node_id in (2, 3)
    term = leader.node.replica.term
    w.tick(100)
    assert leader.leads and leader.node.replica.term == term, "and it stays"
    client = w.client(leader.node_id)
    asked = client.ingest(7, 1)
    w.settle()
    assert client.stored(asked) == 1


# --- partitions --------------------------------------------------------------------------------


def test_a_minority_acknowledges_nothing_and_what_it_took_is_gone_or_counted_once(
    w: World,
) -> None:
    w.isolate(1)
    minority = w.client(1)
    asked = [minority.ingest(7, 1, first=n) for n in range(3)]
    w.tick(60)
    assert all(
        minority.response(one) is None or isinstance(minority.response(one), ErrorReply)
        for one in asked
    )
    leader = w.wait_leader()
    majority = w.client(leader.node_id)
    stored = majority.ingest(7, 3)  # the same events, by their ids
    w.settle()
    assert majority.stored(stored) == 3
    w.heal()
    w.tick(120)
    assert [one.total(7) for one in w.running] == [3] * 3
    w.check_same()


def test_five_nodes_store_with_two_lost_and_not_with_three() -> None:
    with world(5) as w:
        w.crash(4)
        w.crash(5)
        client = w.client(1)
        asked = client.ingest(7, 1)
        w.settle()
        assert client.stored(asked) == 1
        w.crash(3)
        asked = client.ingest(7, 1, first=1)
        w.tick(40)
        assert not hasattr(client.response(asked), "stored")
        w.start(5)
        w.wait_leader()
        w.tick(60)
        other = w.client(w.wait_leader().node_id)
        again = other.ingest(7, 2)
        w.tick(3)
        assert other.stored(again) in (0, 1), "the first is a duplicate; the second if it was kept"
        assert w.wait_leader().total(7) == 2
