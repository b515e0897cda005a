"""When an entry is acknowledged, what becomes of a deposed leader's, and a disk that is full.

Three nodes of `tests.server.clusters`, moved by hand.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from tests.server.clusters import RAFT, FakeClient, Member, World, world
from tests.server.rawclient import START_NS, batch
from tests.server.test_node import decoded, feed, metric_body, open_by_hand, payload_of

from unimeter.errors import DiskFullError
from unimeter.raft.messages import MSG_APP, MSG_APP_RESP, MSG_HEARTBEAT
from unimeter.server.peer_codec import decode_message
from unimeter.storage.disk import FatalStorageError
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.wal import WalLimits
from unimeter.types import Event
from unimeter.wire.messages import ErrorCode, ErrorReply, IngestReply

LARGE = 3000  # events of one batch: more than a loop syncs by itself, or a segment holds


@pytest.fixture
def w() -> Iterator[World]:
    with world() as made:
        yield made


def is_not_leader(client: FakeClient, asked: int) -> bool:
    reply = client.response(asked)
    return isinstance(reply, ErrorReply) and reply.code == ErrorCode.NOT_LEADER


def acknowledged(w: World, sender: int, to: int) -> list[int]:
    """The indexes that appends are acknowledged up to, in messages on their way."""
    messages = [
        decode_message(memoryview(bytearray(payload)))
        for kind, payload in w.queues.get((sender, to), ())
        if kind == RAFT
    ]
    return [one.index for one in messages if one.type is MSG_APP_RESP and not one.reject]


# --- acknowledged means synced by a majority -------------------------------------------


def test_the_leaders_own_sync_alone_answers_nobody(w: World) -> None:
    client = w.client(1)
    asked = client.ingest(7, 3)
    w.settle(only=[1])
    assert w.nodes[1].node.wal.synced_index == w.nodes[1].node.replica.raft.last_index
    assert client.response(asked) is None
    assert w.nodes[1].total(7) == 0
    w.settle(only=[1, 2])
    assert client.stored(asked) == 3
    assert w.nodes[1].total(7) == 3


def test_a_majority_without_the_leaders_own_sync_answers_nobody(w: World) -> None:
    client = w.client(1)
    asked = client.ingest(7, LARGE)  # for the sync thread
    w.settle(syncs=[2, 3])
    leader = w.nodes[1].node
    assert leader.replica.raft.commit == leader.replica.raft.last_index
    assert leader.wal.synced_index < leader.replica.raft.last_index
    assert client.response(asked) is None
    assert w.nodes[1].total(7) == 0
    w.settle()
    assert client.stored(asked) == LARGE


def test_a_follower_acknowledges_only_after_its_sync(w: World) -> None:
    client = w.client(1)
    asked = [client.ingest(7, LARGE, first=LARGE * n) for n in range(3)]  # for the sync thread
    w.settle(syncs=[])
    follower = w.nodes[2]
    assert follower.sync.is_asked
    before = follower.node.wal.synced_index
    assert all(index <= before for index in acknowledged(w, 2, 1))
    believed = w.nodes[1].node.replica.raft.status().progress[2].match
    assert believed <= before, "the leader has heard of no entry that is not durable there"
    w.settle()
    assert [client.stored(one) for one in asked] == [LARGE] * 3


def test_acknowledged_events_survive_a_power_cut_of_any_minority(w: World) -> None:
    client = w.client(1)
    asked = client.ingest(7, 3, session_hi=1, session_lo=1, sequence=1)
    w.settle(only=[1, 2])
    assert client.stored(asked) == 3
    w.crash(1, arrival=0.0)
    leader = w.wait_leader()
    assert leader.node_id == 2, "node 3 lacks the entry: it can't lead"
    again = w.client(2)
    resent = again.ingest(7, 3, session_hi=1, session_lo=1, sequence=1)
    w.settle()
    reply = again.response(resent)
    assert isinstance(reply, IngestReply)
    assert reply.is_remembered and reply.stored == 3, "the first reply, once more"
    w.start(1)
    w.tick(5)
    assert [one.total(7) for one in w.running] == [3, 3, 3]
    w.check_same()


def test_acknowledged_events_survive_a_power_cut_of_each_follower_in_turn(w: World) -> None:
    client = w.client(1)
    for n in range(6):
        asked = client.ingest(7, 2, first=2 * n)
        w.settle()
        assert client.stored(asked) == 2
        follower = 2 + n % 2
        w.crash(follower, arrival=0.0)
        w.start(follower)
        w.tick(5)
        assert w.nodes[follower].total(7) == 2 * n + 2
    w.check_same()


# --- a deposed leader ------------------------------------------------------------------


def depose(w: World, *, with_entries: bool) -> tuple[FakeClient, list[int]]:
    """Node 1 proposes three batches and is cut off; node 2 leads, with them or without."""
    client = w.client(1)
    if with_entries:
        w.cut((2, 1), (3, 1), (1, 3))
    else:
        w.isolate(1)
    asked = []
    for n in range(3):
        asked.append(client.ingest(7, 2, first=2 * n))
        w.settle(only=[1, 2])
    w.isolate(1)
    w.elect(2)
    return client, asked


def test_a_deposed_leaders_entries_are_refused_once_others_stand_in_their_place(
    w: World,
) -> None:
    client, asked = depose(w, with_entries=False)
    assert [client.response(one) for one in asked] == [None] * 3
    w.heal()
    w.tick(3)
    assert all(is_not_leader(client, one) for one in asked)
    assert w.nodes[1].node.inflight_bytes == 0 and w.nodes[1].node.idle
    assert [one.total(7) for one in w.running] == [0, 0, 0]
    w.check_same()


def test_a_deposed_leaders_entries_that_the_next_one_has_are_acknowledged(w: World) -> None:
    client, asked = depose(w, with_entries=True)
    assert [client.response(one) for one in asked] == [None] * 3
    w.heal()
    w.tick(3)
    assert [client.stored(one) for one in asked] == [2, 2, 2]
    assert w.nodes[1].node.inflight_bytes == 0
    assert [one.total(7) for one in w.running] == [6, 6, 6]
    w.check_same()


def test_news_of_a_sync_that_comes_late_acknowledges_nothing_of_what_replaced_it(
    w: World,
) -> None:
    client = w.client(1)
    w.isolate(1)
    asked = [client.ingest(7, LARGE, first=LARGE * n) for n in range(3)]
    old = w.nodes[1]
    old.run()
    assert old.sync.is_asked, "the old leader's entry is with its sync thread"
    w.settle(only=[2, 3])
    w.elect(2, only=[2, 3])
    w.cuts.clear()
    for _ in range(200):
        if old.node.replica.raft.status().hard_state.term > 2 and _last_term(old) > 2:
            break  # the core has the new entry; the log will with the turn that is due
        w.pass_time()
        for pair in sorted(w.queues):
            if pair[1] != 1:
                w.deliver(*pair)
            elif w.deliver(*pair) and _last_term(old) > 2:
                break
            else:
                old.run()
        for node in (2, 3):
            w.nodes[node].run()
            w.nodes[node].finish_sync()
    first = old.node.wal.synced_index + 1
    old.sync.work()  # the thread is done, and tells: behind the turn that replaces its entries
    assert old.node.wal.synced_index >= first
    old.run()
    assert old.node.wal.last_term > 2 and old.node.wal.synced_index < first
    assert acknowledged(w, 1, 2) == [], "nothing of the new entries is durable here"
    assert old.node.replica.has_work
    w.settle()
    assert all(is_not_leader(client, one) for one in asked)
    w.check_same()


def _last_term(member: Member) -> int:
    return member.node.replica.raft._core.log.last_term


def test_an_index_that_is_proposed_again_in_a_later_term_answers_both(w: World) -> None:
    client = w.client(1)
    w.isolate(1)
    former = []
    for n in range(4):
        former.append(client.ingest(7, 1, first=n))
        w.settle(only=[1])
    # Node 2's first entry replaces all four on node 1, and then node 2 is gone: nothing commits.
    w.lost = lambda sender, to, kind, payload: to == 2 and _acknowledges(kind, payload)
    w.elect(2)
    w.cuts.clear()
    overwritten = w.nodes[1].node.replica
    w.until(lambda: overwritten.wal.last_term > 2)
    w.lost = lambda *_: False
    assert [client.response(one) for one in former] == [None] * 4
    w.crash(2)
    w.heal()
    w.lost = lambda sender, to, kind, payload: to == 1 and _acknowledges(kind, payload)
    w.elect(1)
    again = []
    for n in range(4):
        again.append(client.ingest(8, 1, first=n))
        w.settle()
    places = list(w.nodes[1].node._waiting)
    assert len(places) > len({index for index, _ in places}), "an index is proposed twice"
    assert [client.response(one) for one in former] == [None] * 4, "nothing is decided yet"
    w.lost = lambda *_: False
    w.tick(3)
    assert all(is_not_leader(client, one) for one in former)
    assert [client.stored(one) for one in again] == [1] * 4
    assert w.nodes[1].node.inflight_bytes == 0 and w.nodes[1].node.idle
    assert (w.nodes[1].total(7), w.nodes[1].total(8)) == (0, 4)


def _acknowledges(kind: int, payload: bytes) -> bool:
    """Whether a frame says that an append was taken."""
    if kind != RAFT:
        return False
    message = decode_message(memoryview(bytearray(payload)))
    return message.type is MSG_APP_RESP and not message.reject


def test_a_batch_for_a_leader_that_the_core_has_deposed_goes_nowhere(w: World) -> None:
    client = w.client(1)
    w.isolate(1)
    w.elect(2)
    w.cuts.clear()
    w.until_queued(2, 1, MSG_HEARTBEAT, MSG_APP)
    w.deliver(2, 1)  # the core knows of the new leader; the turn that says so is due
    assert w.nodes[1].node.leads and w.nodes[1].node.replica.raft.lead != 1
    asked = client.ingest(7, 1)
    w.settle()
    assert is_not_leader(client, asked) or client.stored(asked) == 1
    w.tick(3)
    assert w.nodes[3].total(7) == (0 if is_not_leader(client, asked) else 1)
    w.check_same()


def test_a_vote_outlives_a_power_cut_so_no_term_has_two_leaders(w: World) -> None:
    w.isolate(3)
    w.lost = lambda sender, to, kind, payload: sender == 2 and _is_append(kind, payload)
    w.elect_by_transfer(2)
    term = w.nodes[2].node.replica.term
    block = w.nodes[1].node.opened.superblock.current
    assert (block.term, block.vote) == (term, 2)
    w.cuts.clear()
    w.isolate(2)
    w.crash(1, arrival=0.0)
    w.start(1)
    w.until(lambda: w.nodes[1].leads or w.nodes[3].leads)
    assert w.leader is not None and w.leader.node.replica.term > term
    assert w.leaders[term] == 2


def _is_append(kind: int, payload: bytes) -> bool:
    return kind == RAFT and decode_message(memoryview(bytearray(payload))).type is MSG_APP


# --- offsets and time --------------------------------------------------------------------


def test_a_new_leader_goes_on_behind_what_is_not_applied_yet(w: World) -> None:
    client = w.client(1)
    w.cut((2, 1), (3, 1))
    client.ingest(7, 5)
    w.settle()  # everybody has it, nobody knows that it is committed
    assert [one.total(7) for one in w.running] == [0, 0, 0]
    w.isolate(1)
    member = w.nodes[2]
    w.cut((3, 2))
    member.call(member.node.stand_for_election)
    w.settle()
    w.cuts.discard((3, 2))
    w.tick(40)
    leader = w.wait_leader()
    other = w.client(leader.node_id)
    asked = other.ingest(8, 2)
    w.settle()
    reply = other.response(asked)
    assert isinstance(reply, IngestReply)
    assert reply.last_offset == 7, "five events come before these two"
    w.heal()
    w.tick(5)
    w.check_same()


def test_a_batch_for_a_leader_in_its_very_first_moment_gets_the_next_offset(w: World) -> None:
    """Held by a follower, carried out while it becomes leader with unapplied entries."""
    client = w.client(1)
    w.cut((2, 1), (3, 1))
    client.ingest(7, 5)
    w.settle()
    other = w.client(2)
    w.crash(1)
    asked = other.ingest(8, 2)  # held: the leader is gone
    w.wait_leader()
    w.settle()
    reply = other.response(asked)
    assert isinstance(reply, IngestReply)
    assert (reply.stored, reply.last_offset) == (2, 7)
    w.check_same()


def test_time_never_goes_back_between_leaders_an_hour_apart(w: World) -> None:
    hour = 3600 * 10**9
    w.skew_ns = {1: hour, 2: -hour, 3: 0}
    now = [Event(9, "calls", 1)]  # the leader sets the time
    times = []
    for leader in (1, 2, 3, 1, 2):
        if not w.nodes[leader].leads:
            w.elect_by_transfer(leader)
        client = w.client(leader)
        asked = client.ingest_events(now)
        w.settle()
        assert client.stored(asked) == 1
        times.append(w.nodes[leader].node.wal.last_timestamp_ns)
    assert times == sorted(times)
    assert times[1] == times[0] >= START_NS + hour, "an hour behind: the last entry's time"
    w.tick(3)
    w.check_same()


def test_events_get_the_time_of_their_own_turn_and_not_of_the_last_one(w: World) -> None:
    client = w.client(1)
    asked = client.ingest_events([Event(9, "calls", 1)])
    w.settle()
    w.tick(30)
    later = w.time_ns(1)
    # A peer's message and the client's frame are read in one turn of the loop.
    w.until_queued(2, 1)
    w.deliver(2, 1)
    assert w.nodes[1].node.turn_due
    asked = client.ingest_events([Event(9, "calls", 1)])
    assert w.nodes[1].node.builder.now_ns >= later
    w.settle()
    assert client.stored(asked) == 1


def test_a_new_leader_knows_the_time_before_its_first_batch(w: World) -> None:
    w.elect_by_transfer(3)
    client = w.client(3)
    w.until_queued(2, 3)
    w.deliver(2, 3)
    assert w.nodes[3].node.turn_due
    asked = client.ingest_events([Event(9, "calls", 1)])
    w.settle()
    assert client.stored(asked) == 1


# --- a full disk -------------------------------------------------------------------------


def fill_up(member: Member) -> None:
    """No file of this node may grow any more."""
    member.disk.capacity = member.disk.used_bytes()


def make_room(w: World, *nodes: int) -> None:
    for node in nodes:
        w.nodes[node].disk.capacity = None
        w.nodes[node].node.upkeep._reviewed = float("-inf")


def test_a_full_disk_of_a_follower_holds_up_nobody_and_is_caught_up_with(w: World) -> None:
    fill_up(w.nodes[3])
    client = w.client(1)
    asked = [client.ingest(7, LARGE, first=LARGE * n) for n in range(4)]
    w.settle()
    assert [client.stored(one) for one in asked] == [LARGE] * 4
    full = w.nodes[3].node
    assert full.wal.full and full.replica.group._to_stage, "kept until there is space"
    assert w.nodes[3].total(7) < 4 * LARGE
    make_room(w, 3)
    w.tick(10)
    assert not full.replica.group._to_stage
    w.check_same()


def test_a_full_disk_of_the_leader_keeps_what_others_have_and_writes_it_later(w: World) -> None:
    fill_up(w.nodes[1])
    client = w.client(1)
    asked = [client.ingest(7, LARGE, first=LARGE * n) for n in range(3)]
    w.settle()
    leader = w.nodes[1].node
    assert leader.refusal == "the disk is full"
    late = client.ingest(7, 1, first=9 * LARGE)
    w.settle()
    refused = client.response(late)
    assert isinstance(refused, ErrorReply) and refused.code == ErrorCode.BACKPRESSURE
    waiting = [one for one in asked if client.response(one) is None]
    assert waiting, "not durable here: not acknowledged from here"
    make_room(w, 1)
    w.tick(10)
    assert [client.stored(one) for one in asked] == [LARGE] * 3
    assert leader.refusal == ""
    asked = [client.ingest(7, 1, first=9 * LARGE)]
    w.settle()
    assert client.stored(asked[0]) == 1
    w.tick(3)
    w.check_same()


def test_a_leader_whose_disk_is_full_lets_another_lead_so_ingest_goes_on(w: World) -> None:
    fill_up(w.nodes[1])
    client, other = w.client(1), w.client(2)
    asked = [client.ingest(7, LARGE, first=LARGE * n) for n in range(3)]
    w.settle()
    assert w.nodes[1].node.refusal == "the disk is full"
    w.until(lambda: w.leader is not None and w.leader.node_id != 1 and w.leader.leads)
    assert w.leader is not None
    kept = other.ingest(8, LARGE)
    w.settle()
    assert other.stored(kept) == LARGE, "the two others go on"
    make_room(w, 1)
    w.tick(20)
    assert [client.stored(one) for one in asked] == [LARGE] * 3, "and nothing is lost"
    w.check_same()


def test_a_leader_stays_where_nobody_has_more_room(w: World) -> None:
    for member in w.running:
        fill_up(member)
    client = w.client(1)
    asked = client.ingest(7, LARGE)
    w.settle()
    term = w.nodes[1].node.replica.term
    w.tick(40)
    assert w.nodes[1].leads and w.nodes[1].node.replica.term == term
    assert client.response(asked) is None
    make_room(w, 1, 2, 3)
    w.tick(10)
    assert client.stored(asked) == LARGE


def test_what_a_full_disk_kept_is_dropped_where_another_leader_replaced_it(w: World) -> None:
    client = w.client(1)
    w.isolate(1)
    fill_up(w.nodes[1])
    asked = [client.ingest(7, LARGE, first=LARGE * n) for n in range(3)]
    w.settle()
    old = w.nodes[1].node
    assert old.replica.group._to_stage
    w.elect(2)
    other = w.client(2)
    kept = [other.ingest(8, LARGE, first=LARGE * n) for n in range(3)]
    w.settle()
    w.heal()
    w.tick(5)
    make_room(w, 1)
    w.tick(10)
    assert [other.stored(one) for one in kept] == [LARGE] * 3
    assert all(is_not_leader(client, one) for one in asked)
    w.check_same()


def test_what_a_full_disk_kept_is_not_acknowledged_to_the_leader_it_came_from() -> None:
    """Node 3 holds entries of node 1 in memory, and those of node 2 take their place.

    Node 1 still believes that it leads: with an answer of node 3 that claims its entries it
    would count a copy that never was.
    """
    w = World(5)
    w.elect(1)
    w.make_metric()
    w.isolate(1, 3)
    fill_up(w.nodes[3])
    client = w.client(1)
    for n in range(3):
        client.ingest(7, LARGE, first=LARGE * n)
    w.settle()
    group = w.nodes[3].node.replica.group
    assert group._to_stage and group._pending
    w.elect(2, only=[2, 4, 5])
    claimed: list[int] = []

    def note(sender: int, to: int, kind: int, payload: bytes) -> bool:
        if (sender, to) == (3, 1) and _acknowledges(kind, payload):
            message = decode_message(memoryview(bytearray(payload)))
            claimed.append(message.index - w.nodes[3].node.wal.synced_index)
        return False

    w.lost = note
    w.cuts.clear()
    w.cut(*((1, node) for node in (2, 3, 4, 5)), *((node, 1) for node in (2, 4, 5)))
    term = w.nodes[2].node.replica.term
    w.until(lambda: w.nodes[3].node.replica.raft._core.log.last_term == term)
    make_room(w, 3)
    w.until(lambda: w.nodes[3].node.wal.last_term == term)
    assert [more for more in claimed if more > 0] == [], "entries that are on no disk of node 3"
    w.lost = lambda *_: False
    w.heal()
    w.tick(20)
    w.check_same()
    w.close()


def test_a_snapshot_ends_the_waiting_of_a_follower_whose_disk_is_full() -> None:
    """What it could not write is in the snapshot; its answer is not stuck behind that."""
    bounds = WalLimits(segment_bytes=4096, segment_bytes_first=4096, background=False)
    w = World(3, bounds=bounds, retention=RetentionPolicy(bytes=1))
    w.elect(1)
    w.make_metric()
    leader, follower = w.nodes[1], w.nodes[3]
    client = w.client(1)
    fill_up(follower)
    first = 0

    def store(count: int) -> None:
        nonlocal first
        for _ in range(count):
            client.ingest(7, 1, first=first)
            first += 1
            w.settle()

    while not follower.node.replica.group._to_stage:
        store(1)
    store(3)
    w.isolate(3)
    while leader.node.wal.first_index <= follower.node.replica.raft.last_index:
        store(10)
        leader.node.tick()
    assert follower.node.replica.group._pending, "answers that wait for space"
    w.unlink(1, 3)
    w.heal()
    w.tick(20)
    assert follower.cluster.transfers.installed == 1
    assert not follower.node.replica.group._pending
    w.check_same()
    make_room(w, 3)
    store(3)
    w.tick(3)
    w.check_same()
    w.close()


def test_a_full_disk_in_a_group_of_one_answers_what_was_durable_before_it() -> None:
    """Two entries in one group, the second has no space: the first is still acknowledged."""
    node, host, _ = open_by_hand()
    node.propose(3, metric_body(), lambda *_: None)
    host.turn()
    real = node.replica.log.stage
    calls = 0

    def stage(entries: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            node.wal.full = True
            raise DiskFullError("no space")
        real(entries)  # type: ignore[arg-type]

    node.replica.log.stage = stage  # type: ignore[method-assign]
    answers: list[object] = []
    feed(node, 5, payload_of(1, 1))
    node.propose(3, metric_body(), lambda *given: answers.append(given[0]))
    host.turn()
    assert calls == 2
    ((slot, data),) = host.take_replies()
    reply = decoded(data)
    assert slot == 5 and isinstance(reply, IngestReply) and reply.stored == 1
    assert len(answers) == 1 and isinstance(answers[0], DiskFullError)
    node.replica.log.stage = real  # type: ignore[method-assign]
    node.upkeep._reviewed = float("-inf")
    node.upkeep.review()
    feed(node, 6, payload_of(1, 1, first=1))
    host.turn()
    assert [slot for slot, _ in host.take_replies()] == [6]
    node.close()


# --- a failed one --------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [1, 2])
def test_a_failed_sync_stops_that_node_only(w: World, broken: int) -> None:
    member = w.nodes[broken]

    def fail(operation: str, path: str) -> None:
        if operation == "sync" and "/log/" in path:
            raise OSError(errno.EIO, "input/output error")

    member.disk.on_operation = fail
    w.may_fail.add(broken)
    client = w.client(1)
    asked = client.ingest(7, 3, session_hi=1, session_lo=1, sequence=1)
    w.settle()
    assert isinstance(member.error, FatalStorageError)
    if broken == 1:
        assert client.response(asked) is None or client.is_closed
    else:
        assert client.stored(asked) == 3
    w.crash(broken)
    leader = w.wait_leader()
    other = w.client(leader.node_id)
    asked = other.ingest(7, 3, session_hi=1, session_lo=1, sequence=1)
    w.settle()
    assert other.stored(asked) == 3
    w.may_fail.clear()
    w.start(broken)
    w.tick(10)
    assert [one.total(7) for one in w.running] == [3, 3, 3]
    w.check_same()


def test_the_batches_of_one_turn_share_an_entry_and_its_commit(w: World) -> None:
    clients = [w.client(1) for _ in range(5)]
    before = w.nodes[1].node.replica.raft.last_index
    asked = [client.ingest_events(batch(n, 2)) for n, client in enumerate(clients, 1)]
    w.settle()
    assert w.nodes[1].node.replica.raft.last_index == before + 1
    assert [client.stored(one) for client, one in zip(clients, asked, strict=True)] == [2] * 5
