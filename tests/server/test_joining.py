"""Who may take part: new nodes, a node with an empty disk, one that was recovered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.server.clusters import PATH, World, world

from unimeter.raft.messages import (
    MSG_APP,
    MSG_HEARTBEAT,
    MSG_PRE_VOTE,
    MSG_TIMEOUT_NOW,
    MSG_VOTE,
    NO_NODE,
    Message,
)
from unimeter.server.opening import hello_of
from unimeter.storage.superblock import Membership


@pytest.fixture
def w() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def five() -> Iterator[World]:
    with world(5) as made:
        yield made


def membership(w: World, node: int) -> Membership:
    return w.nodes[node].node.opened.superblock.current.membership


def ingest(w: World, through: int, count: int, first: int = 0) -> None:
    client = w.client(through)
    asked = client.ingest(7, count, first=first)
    w.settle()
    assert client.stored(asked) == count


def lose_disk(w: World, node: int) -> None:
    w.crash(node)
    w.wipe(node)


# --- fresh ---------------------------------------------------------------------------------


def test_new_nodes_take_part_once_all_have_met_and_not_before() -> None:
    w = World(3, start=False)
    w.start(1)
    w.start(2)
    w.tick(60)
    assert [membership(w, n) for n in (1, 2)] == [Membership.FRESH] * 2
    assert w.leader is None, "two of three would be a majority"
    assert "missing: 3" in w.nodes[1].cluster.joining.reason
    assert "until all others have answered" in w.nodes[1].cluster.readiness
    w.start(3)
    assert w.wait_leader()
    assert [membership(w, n) for n in (1, 2, 3)] == [Membership.VOTER] * 3
    assert w.nodes[1].cluster.readiness == ""
    w.close()


def test_a_new_node_hears_no_raft_message_and_casts_no_vote() -> None:
    w = World(3, start=False)
    fresh = w.start(1)
    term = fresh.node.replica.raft.term
    for kind in (MSG_VOTE, MSG_PRE_VOTE, MSG_APP, MSG_HEARTBEAT, MSG_TIMEOUT_NOW):
        fresh.cluster.on_message(Message(kind, 1, 2, term=9, index=1, log_term=1))
    w.tick(40)
    raft = fresh.node.replica.raft
    assert (raft.term, raft.lead, raft.last_index) == (term, NO_NODE, 1)
    assert fresh.node.opened.superblock.current.vote == NO_NODE
    w.close()


def test_a_cluster_that_has_met_starts_again_with_a_majority(w: World) -> None:
    ingest(w, 1, 2)
    for node in (1, 2, 3):
        w.crash(node)
    w.start(1)
    w.start(2)
    leader = w.wait_leader()
    assert leader.node_id in (1, 2)
    w.tick(3)
    assert leader.total(7) == 2


def test_an_empty_directory_under_a_known_id_is_refused_and_never_votes(w: World) -> None:
    ingest(w, 1, 2)
    lose_disk(w, 3)
    stranger = w.start(3)
    w.tick(60)
    assert membership(w, 3) is Membership.FRESH
    assert not stranger.cluster.joining.is_active
    sentence = stranger.cluster.readiness
    assert "refuses this node" in sentence and "unimeter recover" in sentence
    assert "comes with another data directory" in w.refusals[3, 1]
    # Nor when one of the others is gone: two of three, one of them without a memory.
    w.crash(1)
    w.tick(80)
    assert w.leader is None
    w.start(1)
    w.wait_leader()
    ingest(w, w.wait_leader().node_id, 1, first=2)
    assert stranger.node.machine.applied == 1


def test_an_empty_directory_is_refused_by_a_leader_that_has_just_started_too(w: World) -> None:
    for node in (1, 2):
        w.crash(node)
        w.start(node)
    lose_disk(w, 3)
    w.start(3)
    w.tick(40)
    assert membership(w, 3) is Membership.FRESH
    assert not w.nodes[3].cluster.joining.is_active


def test_the_former_directory_put_back_is_welcome_again(w: World) -> None:
    ingest(w, 1, 2)
    w.crash(3, arrival=1.0)
    former = w.nodes[3].disk
    w.wipe(3)
    w.start(3)
    w.tick(10)
    w.crash(3)
    w.nodes[3].disk = former
    w.start(3)
    w.tick(10)
    assert w.nodes[3].cluster.joining.is_active
    assert w.nodes[3].total(7) == 2


def test_an_older_copy_of_a_directory_is_refused_by_the_leader(w: World) -> None:
    ingest(w, 1, 2)
    w.crash(3, arrival=1.0)
    copy = w.nodes[3].disk.crash(w.random, 1.0)
    w.start(3)
    for n in range(3):
        ingest(w, 1, 2, first=2 + 2 * n)
    w.crash(3, arrival=1.0)
    w.nodes[3].disk = copy
    w.start(3)
    w.tick(5)
    assert "older copy" in w.refusals[3, 1]
    assert (1, 3) not in w.links


def test_a_node_that_can_not_read_its_log_may_ask_the_leader_for_an_entry(w: World) -> None:
    """It does not know how far its log goes, and the leader may be the only one that is left."""
    ingest(w, 1, 2)
    w.crash(3, arrival=1.0)
    member = w.nodes[3]
    hello = hello_of(member.disk, PATH, member.members, clock_ns=5)
    judge = w.nodes[1].cluster.joining.judge
    assert judge(hello) == ""
    assert "older copy" in judge(replace(hello, last_index=1))


# --- recovering ------------------------------------------------------------------------------


def recover(w: World, node: int) -> None:
    lose_disk(w, node)
    w.make_recovering(node)
    w.start(node)


def test_a_recovered_node_catches_up_and_votes_again(w: World) -> None:
    ingest(w, 1, 5)
    recover(w, 3)
    member = w.nodes[3]
    assert membership(w, 3) is Membership.RECOVERING
    w.tick(2)
    ingest(w, 1, 5, first=5)
    assert member.total(7) == 10, "it follows"
    assert membership(w, 3) is Membership.RECOVERING, "and does not vote yet"
    w.until(lambda: membership(w, 3) is Membership.VOTER, 60)
    block = member.node.opened.superblock.current
    assert block.vote == 1, "what it may have voted before is not known: now it is the leader"
    assert dict(block.peers).keys() == {1, 2}
    w.check_same()
    w.crash(1)
    leader = w.wait_leader()
    ingest(w, leader.node_id, 1, first=10)
    assert member.total(7) == 11


def test_a_recovered_node_starts_again_as_a_voter(w: World) -> None:
    recover(w, 3)
    w.until(lambda: membership(w, 3) is Membership.VOTER, 60)
    w.crash(3)
    w.start(3)
    assert w.nodes[3].cluster.joining.is_active
    w.tick(3)
    w.elect_by_transfer(3)


def test_a_node_that_recovers_votes_for_nobody_and_never_stands(w: World) -> None:
    ingest(w, 1, 5)
    recover(w, 3)
    w.tick(2)
    assert w.nodes[3].cluster.joining.is_active
    w.isolate(3)  # it can't ask whether it has caught up
    w.crash(1)
    w.heal()
    raft = w.nodes[3].node.replica.raft
    w.tick(100)
    assert membership(w, 3) is Membership.RECOVERING
    assert w.leader is None, "node 2 needs another vote, and node 3 has none to give"
    assert raft.status().hard_state.vote == NO_NODE
    w.start(1)
    w.wait_leader()
    w.until(lambda: membership(w, 3) is Membership.VOTER, 80)


def test_a_node_that_recovers_takes_no_message_of_a_term_before_the_newest_it_heard_of(
    w: World,
) -> None:
    """Its former self may have voted in any term up to that."""
    w.elect(2)
    w.elect(1)
    newest = w.nodes[1].node.replica.raft.term
    recover(w, 3)
    member = w.nodes[3]
    before = member.node.replica.raft.term
    assert before < newest
    member.cluster.on_message(Message(MSG_HEARTBEAT, 3, 2, term=newest - 1))
    assert member.node.replica.raft.term == before
    member.cluster.on_message(Message(MSG_HEARTBEAT, 3, 1, term=newest))
    assert member.node.replica.raft.term == newest


def test_a_node_that_recovers_waits_for_all_others(five: World) -> None:
    w = five
    ingest(w, 1, 5)
    w.crash(5)
    recover(w, 4)
    w.tick(60)
    assert not w.nodes[4].cluster.joining.is_active
    assert "missing: 5" in w.nodes[4].cluster.readiness
    w.start(5)
    w.until(lambda: membership(w, 4) is Membership.VOTER, 80)
    assert dict(w.nodes[4].node.opened.superblock.current.peers).keys() == {1, 2, 3, 5}
    w.crash(4)
    w.start(4)
    w.tick(5)
    w.check_same()


def test_all_nodes_learn_of_the_recovered_one_whenever_they_meet_it(five: World) -> None:
    w = five
    recover(w, 4)
    w.until(lambda: membership(w, 4) is Membership.VOTER, 80)
    incarnation = w.nodes[4].node.opened.superblock.current.incarnation
    for node in (1, 2, 3, 5):
        assert dict(w.nodes[node].node.opened.superblock.current.peers)[4] == incarnation
        w.crash(node)
        w.start(node)
        w.tick(2)
        assert (node, 4) in w.links


def test_the_leader_forgets_what_the_lost_disk_had_acknowledged(w: World) -> None:
    """Else two acknowledgements, one of a disk that is gone, would make a majority."""
    ingest(w, 1, 5)
    last = w.nodes[1].node.replica.raft.last_index
    assert w.nodes[1].node.replica.raft.status().progress[3].match == last
    lose_disk(w, 3)
    w.make_recovering(3)
    w.cut((1, 3), (3, 1))
    w.start(3)
    w.cuts.clear()
    member = w.nodes[3]
    # The leader meets it; nothing it says has arrived yet.
    hello = member.cluster.hello()
    assert w.nodes[1].cluster.judge(hello) == ""
    assert w.nodes[1].node.replica.raft.status().progress[3].match == 0


def test_what_the_leader_meant_for_the_lost_node_never_reaches_the_recovered_one(
    w: World,
) -> None:
    """Its commit index is past the end of the empty log."""
    ingest(w, 1, 5)
    lose_disk(w, 3)
    w.make_recovering(3)
    w.nodes[3].start()
    w.link(2, 3)
    assert w.nodes[1].node.replica.raft.read_index(b"a question")  # heartbeats; a turn is due
    w.link(1, 3)
    w.settle()
    w.until(lambda: membership(w, 3) is Membership.VOTER, 60)
    w.check_same()


def test_the_directory_that_was_lost_is_refused_once_another_took_its_place(w: World) -> None:
    ingest(w, 1, 5)
    w.crash(3, arrival=1.0)
    former = w.nodes[3].disk
    w.wipe(3)
    w.make_recovering(3)
    w.start(3)
    w.until(lambda: membership(w, 3) is Membership.VOTER, 60)
    w.crash(3, arrival=1.0)
    second = w.nodes[3].disk
    w.nodes[3].disk = former
    w.start(3)
    w.tick(10)
    assert "another data directory" in w.refusals[3, 1]
    assert (1, 3) not in w.links and (2, 3) not in w.links
    w.crash(3)
    w.nodes[3].disk = second
    w.start(3)
    w.tick(10)
    assert (1, 3) in w.links


def test_a_second_recovery_takes_the_place_of_the_first_and_not_the_other_way_round(
    w: World,
) -> None:
    recover(w, 3)
    w.until(lambda: membership(w, 3) is Membership.VOTER, 60)
    w.crash(3, arrival=1.0)
    first = w.nodes[3].disk
    w.wipe(3)
    w.make_recovering(3)
    w.start(3)
    w.until(lambda: membership(w, 3) is Membership.VOTER, 60)
    w.crash(3)
    w.nodes[3].disk = first
    w.start(3)
    w.tick(10)
    assert (1, 3) not in w.links and (2, 3) not in w.links


def test_recovery_is_begun_again_after_a_crash_in_the_midst_of_it(w: World) -> None:
    ingest(w, 1, 5)
    recover(w, 3)
    w.tick(2)
    w.crash(3)
    w.start(3)
    assert membership(w, 3) is Membership.RECOVERING
    w.until(lambda: membership(w, 3) is Membership.VOTER, 60)
    w.check_same()


def test_a_node_recovers_while_the_leader_changes(w: World) -> None:
    ingest(w, 1, 5)
    recover(w, 3)
    for n in range(6):
        w.tick(5)
        other = 2 if w.wait_leader().node_id == 1 else 1
        w.elect_by_transfer(other)
        ingest(w, other, 1, first=5 + n)
    w.until(lambda: membership(w, 3) is Membership.VOTER, 80)
    block = w.nodes[3].node.opened.superblock.current
    assert block.vote == w.wait_leader().node_id and block.term == w.wait_leader().node.replica.term
    w.tick(3)
    w.check_same()
