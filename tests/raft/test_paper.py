"""The claims of the Raft paper and dissertation, one test each, section in the docstring."""

from __future__ import annotations

import pytest
from tests.raft.group import Group, entries, stored

from unimeter.raft import (
    NOOP,
    HardState,
    Message,
    MessageType,
    ProposalDropped,
    Role,
    Snapshot,
    SnapshotMeta,
)

T = MessageType


# §5.1 Terms


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_whoever_sees_a_higher_term_follows_into_it(role: Role) -> None:
    """§5.1: if one server's term is smaller than another's, it updates its term and follows."""
    group = Group()
    if role is Role.LEADER:
        group.elect(1)
    elif role is Role.CANDIDATE:
        group[1].raw.campaign()
    assert group[1].raw.role is role
    group[1].raw.step(Message(T.MSG_APP, 1, 2, 9, log_term=0, index=0))
    assert (group[1].raw.role, group[1].raw.term, group[1].raw.lead) == (Role.FOLLOWER, 9, 2)


def test_message_of_a_lower_term_is_refused() -> None:
    """§5.1: a server that receives a request with a stale term number rejects it."""
    group = Group()
    leader = group.elect(1)
    group[2].raw.step(Message(T.MSG_HEARTBEAT, 2, 3, 9))
    before = group[2].log()
    late = Message(T.MSG_APP, 2, 1, leader.raw.term, 1, 1, entries(1, start=2), commit=2)
    assert not group[2].raw.step(late)
    assert (group[2].log(), group[2].raw.lead) == (before, 3)


# §5.2 Elections


def test_follower_that_hears_nothing_campaigns_at_its_random_timeout() -> None:
    """§5.2: election timeouts are chosen randomly from a fixed interval."""
    drawn = []

    def random_ticks(spread: int) -> int:
        drawn.append(spread)
        return 4

    group = Group(3, election_ticks=10, random_ticks=random_ticks)
    group.tick(1, 13)
    assert group[1].raw.role is Role.FOLLOWER and set(drawn) == {10}
    group.tick(1)
    assert (group[1].raw.role, group[1].raw.term) == (Role.CANDIDATE, 1)
    asked = group[1].handle_ready()
    assert [(m.type, m.to, m.term) for m in asked] == [(T.MSG_VOTE, 2, 1), (T.MSG_VOTE, 3, 1)]


def test_heartbeats_keep_followers_from_campaigning() -> None:
    """§5.2: leaders send periodic heartbeats to all followers to maintain their authority."""
    group = Group(3, election_ticks=5)
    group.elect(1)
    for _ in range(40):
        for node in group.voters:
            group.tick(node)
        group.settle()
    assert group.leaders() == [1] and {host.raw.term for host in group.hosts.values()} == {1}


@pytest.mark.parametrize(
    ("size", "grants", "role"),
    [
        (1, 0, Role.LEADER),
        (3, 0, Role.CANDIDATE),
        (3, 1, Role.LEADER),
        (5, 1, Role.CANDIDATE),
        (5, 2, Role.LEADER),
    ],
)
def test_candidate_needs_a_majority(size: int, grants: int, role: Role) -> None:
    """§5.2: a candidate wins an election if it receives votes from a majority of the cluster."""
    group = Group(size)
    group.isolate(*range(2 + grants, size + 1))
    group[1].raw.campaign()
    group.settle()
    assert group[1].raw.role is role


def test_vote_is_first_come_first_served_and_survives_a_restart() -> None:
    """§5.2: each server will vote for at most one candidate in a given term."""
    group = Group()
    group[3].raw.step(Message(T.MSG_VOTE, 3, 1, 1))
    group.post(group[3].handle_ready())
    group.restart(3)
    group[3].raw.step(Message(T.MSG_VOTE, 3, 2, 1))
    group[3].raw.step(Message(T.MSG_VOTE, 3, 1, 1))
    answers = [(m.to, m.reject) for m in group[3].handle_ready()]
    assert answers == [(2, True), (1, False)]


def test_two_candidates_of_one_term_do_not_both_win() -> None:
    """§5.2, figure 3, election safety: at most one leader can be elected in a given term."""
    group = Group()
    group[1].raw.campaign()
    group[2].raw.campaign()
    group.settle()
    assert {host.raw.term for host in group.hosts.values()} == {1}
    assert len(group.leaders()) == 1
    assert {host.raw.lead for host in group.hosts.values()} == set(group.leaders())


def test_split_vote_ends_in_the_next_term() -> None:
    """§5.2: with a split vote each candidate times out and starts a new election."""
    group = Group(4)
    group.cut = {(1, 4), (2, 3), (4, 1), (3, 2)}
    group[1].raw.campaign()
    group[2].raw.campaign()
    group.settle()
    assert group.leaders() == []
    group.heal()
    group.elect(1)
    assert group[1].raw.term == 2


def test_candidate_recognises_the_leader_of_its_term() -> None:
    """§5.2: if the leader's term is at least the candidate's, the candidate follows."""
    group = Group()
    group[1].raw.campaign()
    group[1].raw.step(Message(T.MSG_HEARTBEAT, 1, 3, 1))
    assert (group[1].raw.role, group[1].raw.lead, group[1].raw.term) == (Role.FOLLOWER, 3, 1)


# §5.3 Log replication


def test_entry_is_committed_when_a_majority_has_it_and_then_applied_everywhere() -> None:
    """§5.3: a log entry is committed once the leader has replicated it on a majority."""
    group = Group(5)
    group.elect(1)
    group.isolate(3, 4, 5)
    group.propose(1, "x")
    group.settle()
    assert group[1].applied_bodies() == []
    group.heal()
    group.tick(1)
    group.settle()
    for host in group.hosts.values():
        assert host.applied_bodies() == [b"x"]
        assert host.log()[-1].term == 1


def test_leader_never_changes_its_own_log_but_appends() -> None:
    """§5.3, figure 3, leader append-only."""
    group = Group()
    leader = group.elect(1)
    log = leader.log()
    for step in range(20):
        group.propose(1, str(step))
        group[2].raw.report_unreachable(3)
        leader.raw.step(Message(T.MSG_APP_RESP, 1, 2, 1, 0, 1, reject=True, reject_hint=0))
        group.tick(1)
        group.settle()
        assert leader.log()[: len(log)] == log
        log = leader.log()
    assert len(log) == 21


FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}
LEADER_OF_FIGURE_7 = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)


@pytest.mark.parametrize("follower", FIGURE_7)
@pytest.mark.parametrize("message_bytes", [0, 1 << 20], ids=["one-entry-a-message", "many"])
def test_every_log_of_figure_7_becomes_the_leaders(follower: str, message_bytes: int) -> None:
    """§5.3, figure 7: the leader makes the followers' logs equal to its own."""
    group = Group(3, max_size_per_message=message_bytes)
    voters = group.voters
    group.hosts[1] = stored(
        1, voters, entries(*LEADER_OF_FIGURE_7), HardState(7), max_size_per_message=message_bytes
    )
    group.hosts[2] = stored(2, voters, entries(*FIGURE_7[follower]), HardState(7))
    # A majority is needed that votes for the leader whatever this follower's log is.
    group.hosts[3] = stored(3, voters, entries(*LEADER_OF_FIGURE_7), HardState(7))
    group.elect(1)
    group.propose(1, "x")
    group.settle()
    for node in (2, 3):
        assert group[node].terms() == [*LEADER_OF_FIGURE_7, 8, 8]
        assert group[node].log() == group[1].log()
        assert group[node].disk.entries(1, 13, 1 << 30) == group[1].log()


def test_logs_part_is_found_in_a_round_for_each_term_not_each_entry() -> None:
    """§5.3: the follower can include the term of the conflict, to find it in fewer rounds."""
    voters = (1, 2, 3)
    group = Group()
    group.hosts[1] = stored(1, voters, entries(*[1] * 3, *[6] * 300), HardState(6))
    group.hosts[2] = stored(2, voters, entries(*[1] * 3, *[2] * 200, *[3] * 200), HardState(6))
    group.hosts[3] = stored(3, voters, entries(*[1] * 3, *[6] * 300), HardState(6))
    group.elect(1)
    refused = [m for m in group.sent if m.type is T.MSG_APP_RESP and m.sender == 2 and m.reject]
    assert group[2].log() == group[1].log()
    assert 1 <= len(refused) <= 3


def test_append_repeated_has_no_further_effect() -> None:
    """§5.5: Raft messages are idempotent; a follower ignores entries already in its log."""
    group = Group()
    group.elect(1)
    group.propose(1, "a", "b")
    group.post(group[1].handle_ready())
    append = group.take(T.MSG_APP, 2)[0]
    for _ in range(3):
        group[2].raw.step(append)
    answers = [m.index for m in group[2].handle_ready() if m.type is T.MSG_APP_RESP]
    assert answers == [3, 3, 3] and group[2].terms() == [1, 1, 1]


def test_leader_sends_again_what_a_crashed_follower_missed() -> None:
    """§5.5: if a follower crashes, the leader retries indefinitely."""
    group = Group(3, election_ticks=10)
    group.elect(1)
    group.isolate(3)
    for step in range(5):
        group.propose(1, str(step))
        group.settle()
    group.heal()
    group.restart(3)
    group.tick(1)
    group.settle()
    assert group[3].applied_bodies() == [b"0", b"1", b"2", b"3", b"4"]


# §5.4 Safety


@pytest.mark.parametrize(
    ("ours", "theirs", "granted"),
    [
        ((1,), (1,), True),
        ((1,), (1, 1), True),
        ((1, 1), (1,), False),
        ((1, 1, 1), (2,), True),
        ((2,), (1, 1, 1), False),
        ((), (1,), True),
        ((1,), (), False),
    ],
)
def test_vote_is_refused_to_a_log_that_lacks_something(
    ours: tuple[int, ...], theirs: tuple[int, ...], granted: bool
) -> None:
    """§5.4.1: the voter denies its vote if its own log is more up-to-date."""
    voter = stored(1, (1, 2, 3), entries(*ours), HardState(2))
    last = theirs[-1] if theirs else 0
    voter.raw.step(Message(T.MSG_VOTE, 1, 2, 3, last, len(theirs)))
    answer = voter.handle_ready()[0]
    assert (answer.type, answer.reject) == (T.MSG_VOTE_RESP, not granted)
    assert voter.disk.hard_state.vote == (2 if granted else 0)


def test_node_without_a_committed_entry_is_not_elected() -> None:
    """§5.4.3, figure 3, leader completeness: a leader has all entries of earlier terms."""
    group = Group(5)
    group.elect(1)
    group.isolate(4, 5)
    group.propose(1, "committed")
    group.settle()
    assert group[1].applied_bodies() == [b"committed"]
    group.heal()
    group.isolate(1)
    for behind in (4, 5):
        group[behind].raw.campaign()
        group.settle()
        assert group.leaders() == [1]
    group[2].raw.campaign()
    group.settle()
    assert group[2].raw.role is Role.LEADER
    group.settle()
    assert all(group[n].applied_bodies() == [b"committed"] for n in (2, 3, 4, 5))


@pytest.fixture
def figure_8() -> Group:
    """Figure 8 (c): node 1 leads term 4, and its entry 2 of term 2 is on nodes 1, 2 and 3."""
    group = Group(5)
    logs = {1: (1, 2), 2: (1, 2), 3: (1, 2), 4: (1,), 5: (1, 3)}
    for node, terms in logs.items():
        group.hosts[node] = stored(node, group.voters, entries(*terms), HardState(3, 0, 1))
    group.isolate(4, 5)
    group.win(1)
    assert group[1].raw.term == 4
    return group


def test_entry_of_an_earlier_term_is_not_committed_by_counting_copies(figure_8: Group) -> None:
    """§5.4.2, figure 8 (c) and (d): a majority holds entry 2, and it is replaced all the same."""
    for node in (2, 3):
        figure_8[1].raw.step(Message(T.MSG_APP_RESP, 1, node, 4, 0, 2))
    assert figure_8[1].core.progress[3].match == 2
    assert figure_8[1].raw.commit == 1
    # Node 1 crashes before its own entry reaches anybody; node 5 wins with its entry of term 3.
    figure_8.heal()
    figure_8.isolate(1)
    figure_8.wire.clear()
    figure_8.restart(1)
    figure_8[5].raw.campaign()  # term 4: refused, nodes 2 and 3 voted for node 1
    figure_8.settle()
    figure_8.elect(5)
    assert [figure_8[node].terms() for node in (2, 3, 4)] == [[1, 3, 5]] * 3


def test_entry_of_an_earlier_term_is_committed_along_with_one_of_the_leaders(
    figure_8: Group,
) -> None:
    """§5.4.2, figure 8 (e): once an entry of its own term is on a majority, so is all before."""
    figure_8.settle()
    assert figure_8[1].raw.commit == 3
    assert [entry.term for entry in figure_8[2].applied] == [1, 2, 4]


# §6 and §6.2 Disruption


def test_node_that_hears_its_leader_ignores_requests_for_votes() -> None:
    """§6: servers disregard RequestVote when they believe a current leader exists."""
    group = Group(3, check_quorum=True, election_ticks=10)
    group.elect(1)
    assert not group[2].raw.step(Message(T.MSG_VOTE, 2, 3, 9, 9, 99))
    assert group[2].raw.term == 1
    group.tick(2, 9)
    assert not group[2].raw.step(Message(T.MSG_VOTE, 2, 3, 9, 9, 99))
    group[2].core.election_elapsed = 10
    assert group[2].raw.step(Message(T.MSG_VOTE, 2, 3, 9, 9, 99))
    assert group[2].raw.term == 9


def test_leader_without_a_majority_steps_down() -> None:
    """Dissertation §6.2: a leader steps down if an election timeout passes without a majority."""
    group = Group(5, check_quorum=True, election_ticks=10)
    group.elect(1)
    group.tick(1, 10)
    group.settle()
    assert group[1].raw.role is Role.LEADER, "heard from everybody in the first interval"
    group.isolate(1, 2)
    for _ in range(20):
        group.tick(1)
        group.settle()
    assert (group[1].raw.role, group[1].raw.lead) == (Role.FOLLOWER, 0)
    with pytest.raises(ProposalDropped):
        group.propose(1, "x")


# §7 Snapshots


def test_follower_that_is_too_far_behind_gets_a_snapshot_and_goes_on() -> None:
    """§7: the leader must occasionally send snapshots to followers that lag behind."""
    group = Group()
    group.elect(1)
    group.isolate(3)
    for step in range(10):
        group.propose(1, str(step))
        group.settle()
    group[1].compact(8)
    group.heal()
    for _ in range(3):
        group.tick(1)
        group.settle()
    assert [m.to for m in group.sent if m.type is T.MSG_SNAP] == [3]
    assert group[3].disk.first_index() == 9, "the log before the snapshot is gone"
    assert group[3].applied_bodies() == group[1].applied_bodies()
    group.propose(1, "more")
    group.settle()
    assert group[3].applied_bodies()[-1] == b"more"


def test_snapshot_replaces_a_log_that_conflicts_with_it() -> None:
    """§7: if the snapshot has new information, the follower discards its entire log."""
    host = stored(2, (1, 2, 3), entries(1, 1, 1), HardState(1, 0, 1))
    state = entries(1, 2, 2, 2, 2)
    host.raw.step(
        Message(T.MSG_SNAP, 2, 1, 2, snapshot=Snapshot(SnapshotMeta(5, 2, (1, 2, 3)), state))
    )
    answer = host.handle_ready()[-1]
    assert (answer.type, answer.index, host.applied) == (T.MSG_APP_RESP, 5, state)
    assert (host.disk.first_index(), host.raw.commit, host.raw.applied) == (6, 5, 5)


def test_snapshot_of_a_part_of_the_log_leaves_what_follows() -> None:
    """§7: entries following the snapshot are still valid and must be retained."""
    host = stored(2, (1, 2, 3), entries(1, 1, 1, 1), HardState(1, 0, 1))
    host.raw.step(Message(T.MSG_SNAP, 2, 1, 1, snapshot=Snapshot(SnapshotMeta(3, 1, (1, 2, 3)))))
    host.handle_ready()
    assert (host.terms(), host.raw.commit) == ([1, 1, 1, 1], 3)


def test_older_snapshot_and_one_for_others_are_ignored() -> None:
    """§7: a stale snapshot has no new information."""
    host = stored(2, (1, 2, 3), entries(1, 1, 1), HardState(1, 0, 2))
    for meta in (SnapshotMeta(2, 1, (1, 2, 3)), SnapshotMeta(9, 1, (1, 3, 4))):
        host.raw.step(Message(T.MSG_SNAP, 2, 1, 1, snapshot=Snapshot(meta)))
    assert [m.index for m in host.handle_ready()] == [2, 2]
    assert (host.terms(), host.raw.commit) == ([1, 1, 1], 2)


def test_node_with_a_snapshot_that_is_not_stored_does_not_campaign() -> None:
    """§7: the snapshot must be in place before the node can count on its log."""
    host = stored(2, (1, 2, 3), [], HardState(1), async_storage_writes=True)
    snapshot = Snapshot(SnapshotMeta(5, 1, (1, 2, 3)), [])
    host.raw.step(Message(T.MSG_SNAP, 2, 1, 1, snapshot=snapshot))
    host.handle_ready()
    host.raw.campaign()
    assert host.raw.role is Role.FOLLOWER
    for response in host.write_one():
        if response.to == 2:
            host.raw.step(response)
    host.raw.campaign()
    assert host.raw.role is Role.CANDIDATE


# §8 and dissertation §6.4 Client interaction, reads


def test_leader_begins_its_term_with_an_empty_entry() -> None:
    """§8: each leader commits a blank no-op entry into the log at the start of its term."""
    group = Group()
    group.elect(2)
    first = group[2].log()[0]
    assert (first.index, first.term, first.kind, first.timestamp_ns, first.body) == (
        1,
        1,
        NOOP,
        0,
        b"",
    )
    assert group[2].raw.commit == 1


def test_read_waits_until_the_leader_has_committed_in_its_term() -> None:
    """§8 and §6.4: a new leader does not know yet which entries are committed."""
    group = Group()
    group.win(1)
    assert group[1].raw.read_index(b"early")
    assert group[1].raw.statistics()["reads_waiting"] == 1
    group.work(group[1])
    assert group[1].reads == {}
    group.settle()
    assert group[1].reads == {b"early": 1}


def test_read_is_answered_with_the_commit_index_of_its_arrival() -> None:
    """§6.4: the read index is the commit index when the request arrived."""
    group = Group()
    group.elect(1)
    group.propose(1, "a")
    group.settle()
    assert group[1].raw.read_index(b"r")
    group.propose(1, "b")
    group.settle()
    assert group[1].reads == {b"r": 2} and group[1].raw.commit == 3


def test_follower_forwards_its_read_to_the_leader() -> None:
    """§6.4: followers can serve reads with the leader's read index."""
    group = Group()
    group.elect(1)
    group.propose(1, "a")
    group.settle()
    assert group[3].raw.read_index(b"far")
    group.settle()
    assert (group[3].reads, group[1].reads) == ({b"far": 2}, {})


def test_deposed_leader_answers_no_read() -> None:
    """§6.4: a leader must confirm by heartbeats that it has not been superseded."""
    group = Group()
    group.elect(1)
    group.isolate(1)
    group[2].raw.campaign()
    group.settle()
    group.propose(2, "newer")
    group.settle()
    assert group[1].raw.role is Role.LEADER, "it does not know yet"
    assert group[1].raw.read_index(b"stale")
    for _ in range(3):
        group.tick(1)
        group.settle()
    assert group[1].reads == {}
    group.heal()
    group.tick(1)
    group.tick(2)
    group.settle()
    assert group[1].raw.role is Role.FOLLOWER and group[1].reads == {}
    assert group[1].raw.statistics()["reads_waiting"] == 0


def test_node_alone_reads_at_once_but_not_before_its_first_commit() -> None:
    """§6.4: even alone, a stored commit index may be older than what was acknowledged."""
    group = Group(1)
    group[1].raw.campaign()
    group.post(group[1].handle_ready())
    group[1].raw.read_index(b"early")
    assert group[1].core.read_states == []
    group.settle()
    group[1].raw.read_index(b"late")
    group.settle()
    assert group[1].reads == {b"early": 1, b"late": 1}


def test_read_without_a_leader_is_refused() -> None:
    group = Group()
    assert not group[1].raw.read_index(b"x")
    group[1].raw.campaign()
    assert not group[1].raw.read_index(b"x")


# Dissertation §3.10 Leadership transfer


def test_leadership_goes_to_a_node_that_is_caught_up_at_once() -> None:
    """§3.10: the leader sends TimeoutNow; the target starts an election immediately."""
    group = Group(3, check_quorum=True, pre_vote=True)
    group.elect(1)
    group[1].raw.transfer_leader(2)
    group.settle()
    assert (group.leaders(), group[2].raw.term) == ([2], 2)
    assert not [m for m in group.sent if m.type is T.MSG_PRE_VOTE and m.sender == 2]


def test_leadership_waits_until_the_target_has_caught_up_and_takes_no_proposals() -> None:
    """§3.10: the prior leader stops accepting new requests and replicates to the target."""
    group = Group()
    group.elect(1)
    group.isolate(3)
    group.propose(1, "a")
    group.settle()
    group[1].raw.transfer_leader(3)
    with pytest.raises(ProposalDropped):
        group.propose(1, "b")
    assert group[1].raw.status().transferee == 3
    group.heal()
    group.tick(1)
    group.settle()
    assert group.leaders() == [3]
    assert group[3].applied_bodies() == [b"a"]


def test_transfer_to_a_dead_node_is_given_up_after_an_election_timeout() -> None:
    """§3.10: if it does not complete after about an election timeout, the leader resumes."""
    group = Group(3, election_ticks=10)
    group.elect(1)
    group.isolate(3)
    group[1].raw.transfer_leader(3)
    group.tick(1, 9)
    with pytest.raises(ProposalDropped):
        group.propose(1, "x")
    group.tick(1)
    group.propose(1, "y")
    group.settle()
    assert group[1].applied_bodies() == [b"y"]


def test_follower_asks_the_leader_for_a_transfer() -> None:
    group = Group()
    group.elect(1)
    group[2].raw.transfer_leader(2)
    group.settle()
    # The request travels as a message of its own, signed by the target.
    assert group.leaders() == [2]


def test_transfer_to_itself_or_twice_to_the_same_changes_nothing() -> None:
    group = Group()
    leader = group.elect(1)
    leader.raw.transfer_leader(1)
    assert leader.raw.status().transferee == 0
    group.isolate(2)
    group.propose(1, "x")
    group.settle()
    leader.raw.transfer_leader(2)
    leader.raw.transfer_leader(2)
    assert leader.raw.status().transferee == 2
    leader.raw.transfer_leader(3)
    group.settle()
    assert group[3].raw.role is Role.LEADER


# Dissertation §9.6 PreVote


def test_partitioned_node_does_not_raise_its_term_and_disturbs_nobody() -> None:
    """§9.6: a partitioned server never increases its term, so it can rejoin quietly."""
    group = Group(3, pre_vote=True, check_quorum=True, election_ticks=10)
    group.elect(1)
    group.isolate(3)
    for _ in range(100):
        for node in group.voters:
            group.tick(node)
        group.settle()
    assert (group[3].raw.role, group[3].raw.term) == (Role.PRE_CANDIDATE, 1)
    group.heal()
    for _ in range(3):
        for node in group.voters:
            group.tick(node)
        group.settle()
    assert group.leaders() == [1]
    assert {host.raw.term for host in group.hosts.values()} == {1}


def test_pre_vote_is_refused_to_a_log_that_is_behind() -> None:
    """§9.6: a server grants a pre-vote only if it would grant its vote."""
    group = Group(3, pre_vote=True)
    group.elect(1)
    group.isolate(3)
    group.propose(1, "x")
    group.settle()
    group.heal()
    group[3].raw.campaign()
    group.settle()
    assert group[3].raw.role is Role.FOLLOWER and group[3].raw.term == 1


def test_pre_vote_promises_nothing() -> None:
    """§9.6: granting a pre-vote changes neither term nor vote."""
    group = Group(3, pre_vote=True)
    for candidate in (2, 3):
        group[1].raw.step(Message(T.MSG_PRE_VOTE, 1, candidate, 1))
    answers = group[1].handle_ready()
    assert [(m.type, m.reject, m.term) for m in answers] == [
        (T.MSG_PRE_VOTE_RESP, False, 1),
        (T.MSG_PRE_VOTE_RESP, False, 1),
    ]
    assert (group[1].raw.term, group[1].disk.hard_state) == (0, HardState())


def test_pre_vote_of_an_older_term_is_told_the_newer() -> None:
    """§9.6: else a node with a shorter log but a higher term and one with a longer log hang."""
    host = stored(1, (1, 2, 3), entries(1), HardState(5, 1, 1), pre_vote=True)
    host.raw.step(Message(T.MSG_PRE_VOTE, 1, 2, 3, 1, 2))
    answer = host.handle_ready()[0]
    assert (answer.type, answer.reject, answer.term) == (T.MSG_PRE_VOTE_RESP, True, 5)


# Figure 3 as a whole


def test_state_machines_apply_the_same_entry_at_each_index() -> None:
    """Figure 3, state machine safety; tests/raft/test_chaos.py looks for exceptions at random."""
    group = Group(5)
    for leader in (1, 3, 5, 2):
        group.elect(leader)
        group.propose(leader, f"by {leader}")
        group.settle()
    applied = {tuple(map(repr, host.applied)) for host in group.hosts.values()}
    assert len(applied) == 1
    assert group[4].applied_bodies() == [b"by 1", b"by 3", b"by 5", b"by 2"]
