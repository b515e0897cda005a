"""The face of the core: what is handed out when, and what is refused."""

from __future__ import annotations

import pytest
from tests.raft.group import Group, bodies, entries, stored

from unimeter.raft import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    HardState,
    Message,
    MessageType,
    ProposalDropped,
    Role,
    Snapshot,
    SnapshotMeta,
    SoftState,
)
from unimeter.raft.messages import LOCAL_TYPES, RESPONSE_TYPES

T = MessageType


def test_new_node_has_nothing_to_do() -> None:
    host = stored(1, (1, 2, 3), entries(1, 1), HardState(1, 2, 0))
    assert not host.raw.has_ready()
    ready = host.raw.ready()
    assert (ready.soft_state, ready.hard_state, ready.snapshot) == (None, None, None)
    assert not ready.must_sync and not ready.entries and not ready.messages


def test_ready_hands_everything_out_once() -> None:
    host = stored(1, (1,), [], HardState())
    host.raw.campaign()
    first = host.raw.ready()
    assert first.hard_state == HardState(1, 1, 0)
    assert first.soft_state == SoftState(0, Role.CANDIDATE)
    assert not host.raw.has_ready()
    host.disk.hard_state = first.hard_state
    host.raw.advance()
    second = host.raw.ready()
    assert second.hard_state is None and second.soft_state == SoftState(1, Role.LEADER)
    assert [entry.index for entry in second.entries] == [1]
    host.disk.append(second.entries)
    host.raw.advance()
    third = host.raw.ready()
    assert (third.entries, third.hard_state, third.must_sync) == ([], HardState(1, 1, 1), False)
    assert [entry.index for entry in third.committed_entries] == [1]


def test_ready_twice_without_advance_is_the_hosts_bug() -> None:
    host = stored(1, (1,), [], HardState())
    host.raw.campaign()
    host.raw.ready()
    with pytest.raises(AssertionError, match="without advance"):
        host.raw.ready()


def test_advance_with_asynchronous_writes_is_the_hosts_bug() -> None:
    host = stored(1, (1,), [], HardState(), async_storage_writes=True)
    with pytest.raises(AssertionError, match="completions are stepped"):
        host.raw.advance()


def test_proposal_gets_index_and_term_and_keeps_the_rest() -> None:
    group = Group()
    group.elect(2)
    proposed = bodies("a", "b")
    proposed[1].timestamp_ns = 77
    assert group[2].raw.propose(proposed) == 3
    group.settle()
    last = group[1].applied[-1]
    assert (last.index, last.term, last.kind, last.timestamp_ns, last.body) == (3, 1, 1, 77, b"b")
    assert [entry.index for entry in proposed] == [0, 0], "the caller's entries are the caller's"


def test_body_is_not_copied() -> None:
    group = Group(1)
    group.elect(1)
    proposed = bodies("a")
    proposed[0].body = memoryview(bytearray(b"abc"))
    group[1].raw.propose(proposed)
    group.settle()
    assert group[1].applied[-1].body is proposed[0].body


def test_proposal_without_a_leader_is_dropped() -> None:
    group = Group()
    for prepare in (lambda: None, group[1].raw.campaign):
        prepare()
        with pytest.raises(ProposalDropped) as dropped:
            group.propose(1, "x")
        assert dropped.value.retryable
    assert group[1].raw.statistics()["proposals_dropped"] == 2


def test_follower_forwards_a_proposal_unless_told_not_to() -> None:
    group = Group()
    group.elect(1)
    assert group.propose(2, "far") == 0
    group.settle()
    assert group[3].applied_bodies() == [b"far"]
    group = Group(3, forward_proposals=False)
    group.elect(1)
    with pytest.raises(ProposalDropped):
        group.propose(2, "far")


def test_forwarded_proposal_that_arrives_twice_is_two_entries() -> None:
    """Raft promises nothing else: a retry is told apart by the engine's event keys."""
    group = Group()
    group.elect(1)
    group.propose(2, "far")
    group.post(group[2].handle_ready())
    proposal = group.take(T.MSG_PROP)[0]
    for _ in range(2):
        assert group[1].raw.step(proposal)
    group.settle()
    assert group[3].applied_bodies() == [b"far", b"far"]


def test_leader_refuses_more_than_its_uncommitted_limit_but_never_the_first() -> None:
    group = Group(3, max_uncommitted_size=10)
    group.elect(1)
    group.isolate(1)
    group.propose(1, "x" * 50)
    with pytest.raises(ProposalDropped):
        group.propose(1, "y")
    assert group[1].raw.propose(bodies("")) == 3
    group.heal()
    group.tick(1)
    group.settle()
    assert group[1].raw.statistics()["uncommitted_bytes"] == 0
    assert group.propose(1, "y") == 4


def test_large_proposal_travels_in_messages_of_the_limit() -> None:
    group = Group(3, max_size_per_message=100)
    group.elect(1)
    group.sent.clear()
    group.propose(1, *["x" * 30] * 6)
    group.settle()
    counts = [len(m.entries) for m in group.sent if m.type is T.MSG_APP and m.to == 2 and m.entries]
    assert sum(counts) == 6 and max(counts) == 1
    assert group[2].applied_bodies() == [b"x" * 30] * 6


def test_window_limits_what_is_on_its_way() -> None:
    group = Group(3, max_inflight_messages=2)
    group.elect(1)
    group.isolate(3)
    for text in "abcde":
        group.propose(1, text)
    group.work(group[1])
    carried = [m.entries[0].body for m in group.sent if m.to == 3 and m.entries][1:]
    assert carried == [b"a", b"b"]
    assert str(group[1].raw.status().progress[3]).endswith("inflight=2[full]")
    group.heal()
    group.tick(1)
    group.settle()
    assert group[3].applied_bodies() == [b"a", b"b", b"c", b"d", b"e"]


def test_entries_being_applied_are_limited_until_they_are_reported() -> None:
    group = Group(1, max_committed_size_per_ready=70, async_storage_writes=True)
    group.elect(1)
    group.propose(1, "a", "b", "c", "d")
    raw = group[1].raw
    for message in raw.ready().messages:
        for response in message.responses:
            group[1].disk.append(message.entries)
            raw.step(response)
    first = raw.ready()
    assert [bytes(entry.body) for entry in first.committed_entries] == [b"a", b"b"]
    assert not raw.has_ready()
    raw.step(first.messages[-1].responses[0])
    assert [bytes(entry.body) for entry in raw.ready().committed_entries] == [b"c", b"d"]


@pytest.mark.parametrize("kind", LOCAL_TYPES)
def test_peer_may_not_send_what_a_node_tells_itself(kind: MessageType) -> None:
    group = Group()
    group.elect(1)
    assert not group[2].raw.step(Message(kind, 2, 1, 1))
    assert group[2].raw.statistics()["messages_dropped"] == 1
    assert group[2].raw.role is Role.FOLLOWER


@pytest.mark.parametrize("kind", [kind for kind in RESPONSE_TYPES if kind not in LOCAL_TYPES])
def test_answer_of_a_stranger_is_dropped(kind: MessageType) -> None:
    group = Group()
    group.elect(1)
    assert not group[1].raw.step(Message(kind, 1, 9, 1, index=1))
    assert group[1].raw.commit == 1


def test_node_without_a_group_waits_for_a_snapshot_and_then_belongs() -> None:
    host = stored(3, (), [], HardState())
    for _ in range(30):
        host.raw.tick()
    assert host.raw.role is Role.FOLLOWER and not host.raw.has_ready()
    meta = SnapshotMeta(4, 1, (1, 2, 3))
    host.raw.step(Message(T.MSG_SNAP, 3, 1, 1, snapshot=Snapshot(meta, entries(1, 1, 1, 1))))
    host.handle_ready()
    assert (host.raw.voters, host.raw.applied, len(host.applied)) == ((1, 2, 3), 4, 4)


@pytest.mark.parametrize("succeeded", [True, False])
def test_report_on_a_snapshot_ends_the_waiting(succeeded: bool) -> None:
    group = Group()
    group.elect(1)
    group.isolate(3)
    group.propose(1, "a", "b")
    group.settle()
    group[1].compact(3)
    group.heal()
    group.tick(1)
    while not group.take(T.MSG_SNAP, 3):  # and it is lost
        for host in group.hosts.values():
            group.work(host)
        group.deliver(lambda message: message.type is not T.MSG_SNAP)
    progress = group[1].core.progress[3]
    assert str(progress).startswith("StateSnapshot")
    group[1].raw.report_snapshot(3, succeeded)
    assert (str(progress.state), progress.next) == ("StateProbe", 4 if succeeded else 2)
    assert progress.is_paused()
    group.tick(1)
    group.settle()
    assert group[3].applied_bodies() == [b"a", b"b"]


def test_unreachable_peer_is_probed() -> None:
    group = Group()
    group.elect(1)
    group[1].raw.report_unreachable(2)
    assert str(group[1].raw.status().progress[2].state) == "StateProbe"
    group.tick(1)
    group.settle()
    assert str(group[1].raw.status().progress[2].state) == "StateReplicate"


def test_snapshot_is_retried_when_it_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    from unimeter.raft import SnapshotTemporarilyUnavailable

    group = Group()
    group.elect(1)
    group.isolate(3)
    group.propose(1, "a")
    group.settle()
    group[1].compact(2)
    ready = group[1].disk.snapshot

    def not_ready() -> Snapshot:
        raise SnapshotTemporarilyUnavailable

    monkeypatch.setattr(group[1].disk, "snapshot", not_ready)
    group.heal()
    group.tick(1)
    group.settle()
    assert group[3].applied_bodies() == []
    monkeypatch.setattr(group[1].disk, "snapshot", ready)
    group.tick(1)
    group.settle()
    group.tick(1)
    group.settle()
    assert group[3].applied_bodies() == [b"a"]


def test_storage_orders_carry_their_completions() -> None:
    host = stored(1, (1,), [], HardState(), async_storage_writes=True)
    host.raw.campaign()
    (order,) = host.raw.ready().messages
    assert (order.type, order.to, order.term, order.vote) == (
        T.MSG_STORAGE_APPEND,
        LOCAL_APPEND_THREAD,
        1,
        1,
    )
    (vote,) = order.responses
    host.raw.step(vote)
    (order,) = host.raw.ready().messages
    own, completion = order.responses
    assert (own.type, completion.type) == (T.MSG_APP_RESP, T.MSG_STORAGE_APPEND_RESP)
    assert (completion.term, completion.index, completion.log_term) == (1, 1, 1)
    host.disk.append(order.entries)
    host.raw.step(own)
    host.raw.step(completion)
    write, apply = host.raw.ready().messages
    assert (write.commit, write.responses) == (1, [])
    assert (apply.to, apply.term, apply.responses[0].sender) == (
        LOCAL_APPLY_THREAD,
        0,
        LOCAL_APPLY_THREAD,
    )
    host.raw.step(apply.responses[0])
    assert host.raw.applied == 1


def test_statistics_and_status_say_what_a_node_is() -> None:
    group = Group()
    group.elect(1)
    numbers = group[1].raw.statistics()
    assert (numbers["term"], numbers["lead"], numbers["commit"], numbers["applied"]) == (1, 1, 1, 1)
    assert numbers["role"] == int(Role.LEADER) and numbers["messages_dropped"] == 0
    status = group[1].raw.status()
    assert list(status.progress) == [1, 2, 3] and status.soft_state == SoftState(1, Role.LEADER)
    assert group[2].raw.status().progress == {}


def test_trace_tells_of_elections_and_costs_nothing_when_it_is_off() -> None:
    lines: list[tuple[str, str]] = []
    group = Group(3, trace=lambda level, text: lines.append((level, text)))
    group.elect(1)
    assert ("INFO", "1 became leader at term 1") in lines
    assert any("cast MsgVote for 1" in text for _, text in lines)


def test_names_are_those_of_etcd() -> None:
    assert [str(T(number)) for number in (3, 8, 17, 19, 22)] == [
        "MsgApp",
        "MsgHeartbeat",
        "MsgPreVote",
        "MsgStorageAppend",
        "MsgStorageApplyResp",
    ]
    assert str(Role.PRE_CANDIDATE) == "StatePreCandidate"


def test_term_of_the_log_counts_when_its_hard_state_was_not_written() -> None:
    host = stored(1, (1, 2, 3), entries(1, 4), HardState(1, 2, 1))
    assert host.raw.term == 4
    host.raw.step(Message(T.MSG_VOTE, 1, 3, 4, 4, 2))
    assert host.raw.ready().hard_state == HardState(4, 3, 1)


def test_node_that_was_never_in_a_term_refuses_by_silence() -> None:
    host = stored(1, (), [], HardState())
    host.disk.apply_snapshot(Snapshot(SnapshotMeta(5, 1, (1, 2, 3)), []))
    started = type(host)(host.config, host.disk)
    assert started.raw.term == 0
    started.raw.step(Message(T.MSG_PRE_VOTE, 1, 2, 1, 0, 0))
    assert started.handle_ready() == []


# What a host knows and a peer can't say


def test_host_that_saw_a_leader_die_shortens_the_wait() -> None:
    group = Group(3, check_quorum=True, election_ticks=10)
    group.elect(1)
    group.isolate(1)
    group[2].raw.campaign()
    group.settle()
    assert group[3].raw.lead == 1, "it heard the leader just now and grants nothing"
    for node in (2, 3):
        group[node].raw.forget_leader(2)
        assert group[3].raw.lead == 1, "not the one it follows"
        group[node].raw.forget_leader(1)
    group[2].raw.campaign()
    group.settle()
    assert (group[2].raw.role, group[3].raw.lead) == (Role.LEADER, 2)


def test_forgetting_a_leader_does_not_make_room_for_a_second_one() -> None:
    group = Group()
    group.elect(1)
    group[2].raw.forget_leader(1)
    with pytest.raises(AssertionError, match="two leaders of term 1"):
        group[2].raw.step(Message(T.MSG_HEARTBEAT, 2, 3, 1))


def test_vote_that_is_not_cast_goes_to_the_leader_and_is_written() -> None:
    host = stored(3, (1, 2, 3), [], HardState(1))
    host.raw.vote_for_leader()
    assert not host.raw.has_ready()
    host.raw.step(Message(T.MSG_HEARTBEAT, 3, 1, 4))
    host.handle_ready()
    host.raw.vote_for_leader()
    host.handle_ready()
    assert host.disk.hard_state == HardState(4, 1, 0)
    host.raw.step(Message(T.MSG_VOTE, 3, 2, 4, 9, 9))
    assert [message.reject for message in host.handle_ready()] == [True]


def test_node_that_lost_its_disk_is_probed_and_counts_for_nothing() -> None:
    group = Group()
    group.elect(1)
    group.isolate(2)
    group.propose(1, "a")
    group.settle()
    group[1].raw.forget_progress(3)
    assert group[1].raw.status().progress[3].match == 0
    group.hosts[3] = stored(3, group.voters, [], HardState(1, 1, 0))
    group.propose(1, "b")
    group.settle()
    assert group[3].applied_bodies() == [b"a", b"b"]
    assert group[1].raw.status().progress[3].match == 3


def test_node_alone_takes_back_what_it_could_not_write() -> None:
    group = Group(1, async_storage_writes=True)
    group.elect(1)
    group[1].stalled = True
    group.propose(1, "a", "b", "c")
    group.settle()
    group[1].appends.clear()
    group[1].raw.withdraw(3)
    group[1].raw.check_invariants()
    assert (group[1].raw.last_index, group[1].raw.statistics()["uncommitted_bytes"]) == (2, 1)
    with pytest.raises(AssertionError, match="is committed can't be taken back"):
        group[1].raw.withdraw(1)
    group[1].raw.withdraw(2)
    group[1].stalled = False
    group.propose(1, "d")
    group.settle()
    assert group[1].applied_bodies() == [b"d"]
    assert [entry.index for entry in group[1].applied] == [1, 2]


def test_what_others_may_have_seen_is_not_taken_back() -> None:
    group = Group(3, async_storage_writes=True)
    group.elect(1)
    group.propose(1, "a")
    with pytest.raises(AssertionError, match="what others may have seen"):
        group[1].raw.withdraw(2)
