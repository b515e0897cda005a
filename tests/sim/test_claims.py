"""A node that claims what its disk does not have is found in the moment in which it says so."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sim.test_replica_checks import entry, fails, machine

from unimeter.raft.messages import (
    LEADER,
    MSG_APP,
    MSG_APP_RESP,
    MSG_VOTE,
    MSG_VOTE_RESP,
    Message,
    MessageType,
)
from unimeter.raft.storage import Compacted
from unimeter.server.peer_codec import encode_message
from unimeter.sim.claims import _PLACE, ClaimsAreDurable
from unimeter.sim.platform import DATA_DIR
from unimeter.storage.disk import File
from unimeter.storage.layout import Identity
from unimeter.storage.superblock import Superblock, SuperblockFile
from unimeter.wire.peer import PING, RAFT, frame_buffers, frame_of

NAME = "ClaimsAreDurable"


def node(number: int, *, synced: int = 0, written: int = 0) -> Any:
    """A machine with entries of term 1, up to `synced` on disk, up to `written` in the cache."""
    made = machine(number)
    disk = made.disk
    for folder in ("log", "snapshots"):
        disk.make_directory(f"{DATA_DIR}/{folder}")
    block = Superblock(Identity(b"c" * 16, number), 1, term=2, vote=3)
    SuperblockFile.create(disk, DATA_DIR, block).close()
    file: File = disk.open(f"{DATA_DIR}/log/1.seg", create=True)
    disk.sync_directory(f"{DATA_DIR}/log")
    for index in range(1, max(synced, written) + 1):
        file.write(64 * index, [_PLACE.pack(index, 1)])
        if index == synced:
            file.sync()
    made.node.replica.raft.term_of = lambda index: 1
    return made


def sent(check: ClaimsAreDurable, by: Any, **fields: Any) -> None:
    message = Message(**{"sender": by.node_id, "to": 3, "term": 2, **fields})
    buffers = frame_buffers(RAFT, encode_message(message))
    check.sent(by, b"".join(bytes(one) for one in buffers))


def acknowledges(check: ClaimsAreDurable, by: Any, index: int, **fields: Any) -> None:
    sent(check, by, type=MSG_APP_RESP, index=index, **fields)


def test_an_entry_that_is_synced_may_be_acknowledged_and_one_that_is_written_may_not() -> None:
    one = node(1, synced=3, written=4)
    check = ClaimsAreDurable({1: one})
    for index in (1, 3, 3):
        acknowledges(check, one, index)
    assert check.looked == 3
    fails(NAME, "n1 acknowledges entry 4 of term 1 to n3", acknowledges, check, one, 4)


def test_a_refusal_acknowledges_nothing() -> None:
    one = node(1)
    acknowledges(ClaimsAreDurable({1: one}), one, 4, reject=True)


def test_what_a_snapshot_covers_may_be_acknowledged() -> None:
    one = node(1)
    one.disk.put(f"{DATA_DIR}/snapshots/{9:016x}.snap", b"state")
    check = ClaimsAreDurable({1: one})
    acknowledges(check, one, 9)
    fails(NAME, "entry 10", acknowledges, check, one, 10)


def test_what_is_compacted_and_what_is_damaged_is_not_looked_at() -> None:
    one = node(1)
    check = ClaimsAreDurable({1: one})

    def compacted(index: int) -> int:
        raise Compacted(index)

    one.node.replica.raft.term_of = compacted
    acknowledges(check, one, 4)
    rotten = node(1)
    rotten.damage = True
    acknowledges(check, rotten, 4)
    assert check.looked == 0


def test_other_frames_claim_nothing() -> None:
    one = node(1)
    check = ClaimsAreDurable({1: one})
    check.sent(one, frame_of(PING, b"payload"))
    check.sent(one, b"\0\0")
    sent(check, one, type=MSG_APP, index=9)
    assert check.looked == 0


@pytest.mark.parametrize("kind", [MSG_VOTE, MSG_VOTE_RESP])
@pytest.mark.parametrize(
    ("term", "vote", "is_kept"),
    [(2, "right", True), (3, "right", True), (1, "right", False), (2, "wrong", False)],
)
def test_a_vote_stands_on_the_disk_before_it_is_told(
    kind: MessageType, term: int, vote: str, is_kept: bool
) -> None:
    """`term` and `vote` are what the disk says; told is a vote of term 2, by n1 or for n3."""
    wanted = 1 if kind is MSG_VOTE else 3
    one = node(1)
    block = Superblock(Identity(b"c" * 16, 1), 1, term=term, vote=wanted if vote == "right" else 2)
    SuperblockFile.create(one.disk, DATA_DIR, block).close()
    check = ClaimsAreDurable({1: one})
    if is_kept:
        sent(check, one, type=kind)
    else:
        fails(NAME, f"n1 sends {kind} of term 2 to n3", lambda: sent(check, one, type=kind))
    assert check.looked == 1


def test_a_vote_in_the_page_cache_is_none() -> None:
    one = node(1)
    file = SuperblockFile.open(one.disk, DATA_DIR)
    one.disk.fail_sync = lambda path: True
    with pytest.raises(Exception, match="fdatasync failed"):
        file.update(term=5, vote=3)
    check = ClaimsAreDurable({1: one})
    with pytest.raises(Exception, match="its disk says term 2, vote 3"):
        sent(check, one, type=MSG_VOTE_RESP, term=5)


def test_a_refused_vote_needs_the_term_only() -> None:
    one = node(1)  # has voted for n3 in term 2
    check = ClaimsAreDurable({1: one})
    sent(check, one, type=MSG_VOTE_RESP, to=2, reject=True)
    fails(NAME, "disk says term 2", lambda: sent(check, one, type=MSG_VOTE_RESP, to=2, term=3,
                                                 reject=True))  # fmt: skip


def test_a_leader_counts_as_committed_what_a_majority_has_on_disk() -> None:
    machines = {1: node(1, synced=4), 2: node(2, synced=3), 3: node(3, synced=2, written=4)}
    check, leader = ClaimsAreDurable(machines), machines[1]
    leader.node.replica.raft.role = LEADER
    leader.node.replica.raft.commit = 3
    check.turn(leader)
    leader.node.replica.raft.commit = 4
    fails(NAME, r"n1 counts entry 4 of term 1 as committed; it is durable on \['n1'\] of 3",
          check.turn, leader)  # fmt: skip
    machines[3].is_recovering = True
    check.gone(leader)
    check.turn(leader)


def test_two_of_five_are_no_majority() -> None:
    machines = {n: node(n, synced=3 if n < 3 else 1) for n in range(1, 6)}
    check, leader = ClaimsAreDurable(machines), machines[1]
    leader.node.replica.raft.role = LEADER
    leader.node.replica.raft.commit = 1
    check.turn(leader)
    leader.node.replica.raft.commit = 3
    fails(NAME, "of 5", check.turn, leader)


def test_what_a_node_counts_it_has_itself() -> None:
    one = node(1, synced=2, written=3)
    check = ClaimsAreDurable({1: one})
    check.applied(one, entry(2))
    fails(NAME, "n1 counts entry 3 of term 1", check.applied, one, entry(3))
    one.damage = True
    check.applied(one, entry(3))
