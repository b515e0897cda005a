"""Failures that were published of other implementations, each by the name of its mistake.

Architecture section 5 lists them. What concerns the storage alone (a sync error that is
retried, a suffix removed front to back) is tested there; here is the core's part.
"""

from __future__ import annotations

import pytest
from tests.raft.group import Group, Host, entries, stored

from unimeter.raft import HardState, MemoryStorage, Message, MessageType, Role
from unimeter.raft.messages import NO_LIMIT

T = MessageType
VOTERS = (1, 2, 3)


def follower(*terms: int, term: int, commit: int = 0, **options: object) -> Host:
    """Node 2 with this log on its disk."""
    return stored(2, VOTERS, entries(*terms), HardState(term, 0, commit), **options)


def answers(host: Host, kind: MessageType) -> list[Message]:
    return [message for message in host.handle_ready() if message.type is kind]


def test_commit_of_an_earlier_terms_entry_by_counting() -> None:
    leader = stored(1, VOTERS, entries(1, 1), HardState(1))
    leader.raw.campaign()
    leader.handle_ready()
    leader.raw.step(Message(T.MSG_VOTE_RESP, 1, 2, 2))
    leader.raw.step(Message(T.MSG_APP_RESP, 1, 2, 2, 0, 2))
    assert (leader.raw.role, leader.raw.last_index) == (Role.LEADER, 3)
    assert leader.raw.commit == 0
    leader.handle_ready()  # its own entry is durable here
    leader.raw.step(Message(T.MSG_APP_RESP, 1, 2, 2, 0, 3))
    assert leader.raw.commit == 3


def test_truncation_without_a_conflict() -> None:
    host = follower(1, 1, 1, 1, term=1)
    # A late, shorter append: entries 3 and 4 are acknowledged, perhaps committed.
    host.raw.step(Message(T.MSG_APP, 2, 1, 1, 1, 1, entries(1, start=2)))
    assert host.terms() == [1, 1, 1, 1]
    host.handle_ready()
    assert host.disk.last_index() == 4


def test_commit_past_the_last_entry_checked() -> None:
    # Entries 3 and 4 are of a deposed leader; the new one has only been compared up to 2.
    host = follower(1, 1, 1, 1, term=2)
    host.raw.step(Message(T.MSG_APP, 2, 3, 2, 1, 1, entries(1, start=2), commit=4))
    assert host.raw.commit == 2
    host.handle_ready()
    assert [entry.index for entry in host.applied] == [1, 2]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["in-turn", "asynchronous"])
def test_vote_or_term_not_durable_before_the_reply(asynchronous: bool) -> None:
    host = follower(1, term=1, async_storage_writes=asynchronous)
    host.raw.step(Message(T.MSG_VOTE, 2, 3, 5, 1, 1))
    ready = host.raw.ready()
    assert ready.must_sync
    votes = [m for m in ready.messages if m.type is T.MSG_VOTE_RESP]
    if asynchronous:
        order = next(m for m in ready.messages if m.type is T.MSG_STORAGE_APPEND)
        assert votes == [] and (order.term, order.vote) == (5, 3)
        assert [m.type for m in order.responses] == [T.MSG_VOTE_RESP]
    else:
        assert len(votes) == 1 and ready.hard_state == HardState(5, 3, 0)


def test_vote_in_a_term_that_is_durable_already() -> None:
    host = follower(1, term=5)
    host.raw.step(Message(T.MSG_VOTE, 2, 3, 5, 1, 1))
    assert host.raw.has_ready()
    ready = host.raw.ready()
    assert (ready.hard_state, ready.must_sync) == (HardState(5, 3, 0), True)


def test_own_vote_is_counted_only_when_it_is_durable() -> None:
    host = stored(1, (1,), [], HardState(), async_storage_writes=True)
    host.raw.campaign()
    host.handle_ready()
    assert host.raw.role is Role.CANDIDATE, "alone, and its own vote is not on its disk"
    for response in host.write_one():
        host.raw.step(response)
    assert host.raw.role is Role.LEADER and host.disk.hard_state.vote == 1


def test_request_for_votes_leaves_after_the_candidates_log_is_durable() -> None:
    """A candidate that loses unsynced entries may win with votes given to its longer log.

    Node 2 holds entry 2 in memory, campaigns with it, crashes before the write, and is
    back in the same term without it: the votes that were given to (1, 2) still arrive.
    """
    host = follower(1, term=1, async_storage_writes=True)
    host.raw.step(Message(T.MSG_APP, 2, 1, 1, 1, 1, entries(1, start=2)))
    host.raw.campaign()
    assert [m for m in host.handle_ready() if m.type is T.MSG_VOTE] == []
    while host.appends:
        responses = host.write_one()
    requests = [m for m in responses if m.type is T.MSG_VOTE]
    assert [(m.to, m.index, m.log_term) for m in requests] == [(1, 2, 1), (3, 2, 1)]
    assert host.disk.last_index() == 2


@pytest.mark.parametrize("waits", [False, True], ids=["at-once", "after-the-sync"])
def test_votes_given_to_entries_that_were_never_durable(waits: bool) -> None:
    """The whole course of it, and that nothing else prevents it."""
    group = Group(3, async_storage_writes=True, votes_wait_for_sync=waits)
    group.elect(1)
    group[2].stalled = True
    group.propose(1, "x")
    group.settle()
    assert group[1].raw.commit == 2, "on the disks of nodes 1 and 3"
    group.isolate(1)
    group[2].raw.campaign()
    group.settle(2)
    request = group.take(T.MSG_VOTE, 3)
    assert bool(request) is not waits
    group.restart(2)
    assert (group[2].raw.last_index, group[2].raw.term) == (1, 1)
    for message in request:  # node 3 votes for an entry 2 that node 2 has lost
        group[3].raw.step(message)
    group[2].raw.campaign()
    if waits:
        group.settle()
        assert group.leaders() == [1]
    else:
        with pytest.raises(AssertionError, match="would replace a committed one"):
            group.settle()
        assert group.leaders() == [1, 2], "node 2 leads without entry 2"


@pytest.mark.parametrize("asynchronous", [False, True], ids=["in-turn", "asynchronous"])
def test_acknowledgement_before_the_sync(asynchronous: bool) -> None:
    host = follower(1, term=1, async_storage_writes=asynchronous)
    host.raw.step(Message(T.MSG_APP, 2, 1, 1, 1, 1, entries(1, 1, start=2)))
    if asynchronous:
        assert answers(host, T.MSG_APP_RESP) == [] and host.disk.last_index() == 1
        acknowledged = [m for m in host.write_one() if m.type is T.MSG_APP_RESP]
        assert host.disk.last_index() == 3
        assert [(m.to, m.index) for m in acknowledged] == [(1, 3)]
    else:
        ready = host.raw.ready()
        assert ready.must_sync and [entry.index for entry in ready.entries] == [2, 3]
        assert [m.index for m in ready.messages if m.type is T.MSG_APP_RESP] == [3]


def test_leader_counts_its_own_copy_only_after_its_own_sync() -> None:
    group = Group(3, async_storage_writes=True)
    leader = group.elect(1)
    leader.stalled = True
    group.isolate(3)
    group.propose(1, "x")
    group.settle()
    assert group[2].disk.last_index() == 2 and leader.disk.last_index() == 1
    assert leader.raw.commit == 1, "one synced copy of three"
    leader.stalled = False
    group.settle()
    assert leader.raw.commit == 2


def test_leader_applying_before_its_own_write_is_durable() -> None:
    group = Group(3, async_storage_writes=True)
    leader = group.elect(1)
    leader.stalled = True
    group.propose(1, "x")
    group.settle()
    assert leader.raw.commit == 2, "both followers have synced it"
    assert leader.applied_bodies() == [], "and a restart would find it in the state, not in the log"
    leader.stalled = False
    group.settle()
    assert leader.applied_bodies() == [b"x"]


def test_late_completion_of_an_overwritten_suffix() -> None:
    """The A-B-A of `ready`: the same entry stands there again, and its write does not."""
    host = follower(1, term=1, async_storage_writes=True)
    old = entries(1, 1, start=2)
    host.raw.step(Message(T.MSG_APP, 2, 1, 1, 1, 1, old))
    host.handle_ready()
    host.raw.step(Message(T.MSG_APP, 2, 3, 2, 1, 1, entries(2, 2, start=2)))
    host.handle_ready()
    host.raw.step(Message(T.MSG_APP, 2, 1, 3, 1, 1, old))
    host.handle_ready()
    assert host.terms() == [1, 1, 1]

    first = host.write_one()[-1]
    assert (first.type, first.index, first.log_term) == (T.MSG_STORAGE_APPEND_RESP, 3, 1)
    host.raw.step(first)
    assert [e.term for e in host.core.log.unstable.entries] == [1, 1], "still only in memory"
    host.raw.step(host.write_one()[-1])
    assert [host.disk.term(index) for index in (1, 2, 3)] == [1, 2, 2]
    assert host.terms() == [1, 1, 1], "what the disk says now is not the log"
    host.raw.step(host.write_one()[-1])
    assert host.core.log.unstable.entries == []
    assert [host.disk.term(index) for index in (1, 2, 3)] == [1, 1, 1] == host.terms()


def test_completion_of_other_entries_within_the_term() -> None:
    host = follower(1, term=2, async_storage_writes=True)
    host.raw.step(Message(T.MSG_APP, 2, 1, 2, 1, 1, entries(2, 2, start=2)))
    late = Message(T.MSG_STORAGE_APPEND_RESP, 2, (1 << 64) - 1, 2, log_term=1, index=3)
    host.raw.step(late)
    assert len(host.core.log.unstable.entries) == 2


def test_suffix_is_replaced_from_one_index_on_and_removed_back_to_front() -> None:
    """What the storage is given: contiguous entries, so that it can remove behind the first.

    Removing back to front leaves, wherever it stops, a log without a gap; and the
    core starts from any such log.
    """
    host = follower(1, 1, 1, 1, 1, term=1, commit=1)
    host.raw.step(Message(T.MSG_APP, 2, 3, 2, 1, 2, entries(2, start=3), commit=2))
    written = host.raw.ready().entries
    assert [(entry.index, entry.term) for entry in written] == [(3, 2)]
    for left in (5, 4, 3, 2):
        disk = MemoryStorage()
        disk.append(entries(1, 1, 1, 1, 1)[:left])
        disk.hard_state = HardState(1, 0, 1)
        again = Host(host.config, disk)
        again.raw.step(Message(T.MSG_APP, 2, 3, 2, 1, 2, written, commit=3))
        again.handle_ready()
        assert [e.term for e in disk.entries(1, 4, NO_LIMIT)] == [1, 1, 2]
        assert disk.last_index() == 3


def test_reply_with_a_stale_term_accepted() -> None:
    group = Group()
    group.elect(1)
    group.elect(2)
    group.elect(1)
    leader = group[1]
    group.isolate(1)
    group.propose(1, "x")
    group.settle()
    last, commit = leader.raw.last_index, leader.raw.commit
    for sender in (2, 3):
        assert not leader.raw.step(Message(T.MSG_APP_RESP, 1, sender, 1, 0, last))
        assert leader.core.progress[sender].match < last
    assert leader.raw.commit == commit < last


def test_vote_of_a_stale_term_accepted() -> None:
    host = stored(1, VOTERS, [], HardState(4))
    host.raw.campaign()
    host.handle_ready()
    assert not host.raw.step(Message(T.MSG_VOTE_RESP, 1, 2, 4))
    assert host.raw.role is Role.CANDIDATE
    assert host.raw.step(Message(T.MSG_VOTE_RESP, 1, 2, 5))
    assert host.raw.role is Role.LEADER


def test_pre_vote_counted_as_a_vote() -> None:
    host = stored(1, VOTERS, [], HardState(4), pre_vote=True)
    host.raw.campaign()
    host.handle_ready()
    host.raw.step(Message(T.MSG_PRE_VOTE_RESP, 1, 2, 5))
    assert host.raw.role is Role.CANDIDATE
    host.handle_ready()
    host.raw.step(Message(T.MSG_PRE_VOTE_RESP, 1, 3, 5))
    assert host.raw.role is Role.CANDIDATE, "a late promise is not a vote"


@pytest.mark.parametrize("kind", [T.MSG_APP, T.MSG_HEARTBEAT, T.MSG_SNAP])
@pytest.mark.parametrize("role", ["leader", "follower", "deposed"])
def test_two_leaders_of_one_term_tolerated_instead_of_stopped(kind: MessageType, role: str) -> None:
    group = Group()
    group.elect(1)
    node = 2 if role == "follower" else 1
    if role == "deposed":
        group[1].core.become_follower(1, 0)
    with pytest.raises(AssertionError, match="two leaders of term 1"):
        group[node].raw.step(Message(kind, node, 3, 1))


@pytest.mark.parametrize(
    ("pre_vote", "check_quorum", "is_quiet"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
    ids=["both", "pre-vote", "check-quorum", "neither"],
)
def test_asymmetric_partition_livelock(pre_vote: bool, check_quorum: bool, is_quiet: bool) -> None:
    """A node that is heard and hears nobody must not depose one leader after another.

    Each of the two precautions is enough here; without any, the livelock is real.
    """
    group = Group(3, pre_vote=pre_vote, check_quorum=check_quorum, election_ticks=10)
    group.elect(1)
    group.cut = {(1, 3), (2, 3)}
    for _ in range(200):
        for node in group.voters:
            group.tick(node)
        group.settle()
    if is_quiet:
        assert group.leaders() == [1] and group[1].raw.term == 1
        group.propose(1, "x")
        group.settle()
        assert group[2].applied_bodies() == [b"x"]
    else:
        assert group[1].raw.term > 10


def test_leader_that_is_not_heard_gives_way() -> None:
    """The other direction: a leader that sends and hears nobody must not lead for ever."""
    group = Group(3, pre_vote=True, check_quorum=True, election_ticks=10)
    group.elect(1)
    group[2].core.timeout_ticks = 12
    group[3].core.timeout_ticks = 17
    group.cut = {(2, 1), (3, 1)}
    for _ in range(60):
        for node in group.voters:
            group.tick(node)
        group.settle()
    assert group.leaders() == [2]
    group.propose(2, "x")
    group.settle()
    assert group[3].applied_bodies() == [b"x"]


def test_node_left_at_a_higher_term_comes_back() -> None:
    """Requests for votes are ignored while a leader is heard; an answer raises its term."""
    group = Group(3, check_quorum=True, election_ticks=10)
    group.elect(1)
    group.isolate(3)
    for _ in range(35):
        group.tick(3)
        group.settle()
    assert group[3].raw.term > 1
    group.heal()
    for _ in range(25):
        for node in group.voters:
            group.tick(node)
        group.settle()
    assert len(group.leaders()) == 1
    assert len({host.raw.term for host in group.hosts.values()}) == 1
