"""Each checker of replicas finds its broken promise and passes the kept one."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from unimeter.engine.entries import EVENTS, NOOP
from unimeter.raft.messages import FOLLOWER, LEADER, Entry
from unimeter.raft.storage import Compacted
from unimeter.sim.chance import Chance
from unimeter.sim.disk import SimDisk
from unimeter.sim.failures import CheckFailed
from unimeter.sim.platform import DATA_DIR
from unimeter.sim.replica_checks import (
    AcknowledgedIsDurable,
    CommitNeverMovesBack,
    LeaderCompleteness,
    LogMatching,
    OneLeaderPerTerm,
    ReplicasEqual,
    SnapshotsEqual,
)
from unimeter.sim.scheduler import Scheduler
from unimeter.sim.story import Story

BODY = b"events of a client " * 5


def machine(number: int, **raft: Any) -> Any:
    """A machine as far as the checkers look at one."""
    core = SimpleNamespace(**{"role": FOLLOWER, "term": 1, "commit": 0, "last_index": 0, **raft})
    log = SimpleNamespace(recent={}, terms={})
    log.maybe_recent = log.recent.get
    log.term = log.terms.__getitem__
    block = SimpleNamespace(term=core.term, vote=0)
    opened = SimpleNamespace(
        superblock=SimpleNamespace(current=block), snapshots=SimpleNamespace(last_index=0)
    )
    node = SimpleNamespace(
        replica=SimpleNamespace(raft=core, log=log, is_sole=False),
        machine=SimpleNamespace(applied=0),
        opened=opened,
        failure=None,
    )
    hashes = SimpleNamespace(newest=(0, b""))
    return SimpleNamespace(
        name=f"n{number}",
        node_id=number,
        node=node,
        disk=SimDisk(Chance(number)),
        damage=False,
        was_damaged=False,
        is_recovering=False,
        is_ready=True,
        server=SimpleNamespace(cluster=SimpleNamespace(hashes=hashes)),
        world=SimpleNamespace(story=Story(), scheduler=Scheduler()),
    )


def entry(index: int, term: int = 1, body: bytes = BODY, kind: int = EVENTS) -> Entry:
    return Entry(index, term, kind, 1000 + index, body)


def fails(name: str, words: str, look: Callable[..., None], *given: Any) -> None:
    with pytest.raises(CheckFailed, match=words) as caught:
        look(*given)
    assert caught.value.checker == name


# --- leaders and terms -------------------------------------------------------------------


def test_two_leaders_of_one_term_are_found_and_leaders_of_two_terms_are_none() -> None:
    check = OneLeaderPerTerm()
    check.turn(machine(1, role=LEADER, term=2))
    check.turn(machine(1, role=LEADER, term=2))
    check.turn(machine(2, role=LEADER, term=3))
    check.turn(machine(3, term=2))
    fails("OneLeaderPerTerm", "n1 and n3 both lead in term 2", check.turn,
          machine(3, role=LEADER, term=2))  # fmt: skip


@pytest.mark.parametrize("what", ["commit", "applied"])
def test_commit_and_applied_that_move_back_in_one_life_are_found(what: str) -> None:
    check, one = CommitNeverMovesBack(), machine(1, commit=5)
    one.node.machine.applied = 4
    check.turn(one)
    check.turn(one)
    if what == "commit":
        one.node.replica.raft.commit = 4
    else:
        one.node.machine.applied = 3
    check.turn(machine(2))  # another's are its own
    fails("CommitNeverMovesBack", "commit 5 to", check.turn, one)


def test_a_new_life_finds_out_anew_what_is_committed_and_keeps_its_term() -> None:
    check, one = CommitNeverMovesBack(), machine(1, commit=5, term=3)
    check.turn(one)
    check.gone(one)
    again = machine(1, term=3)
    check.ready(again)
    check.turn(again)
    fails("CommitNeverMovesBack", "knew term 3 and came back in term 2", check.ready,
          machine(1, term=2))  # fmt: skip


def test_a_node_on_a_new_disk_may_have_forgotten_its_term() -> None:
    check = CommitNeverMovesBack()
    check.turn(machine(1, term=3))
    fresh = machine(1, term=0)
    fresh.is_recovering = True
    check.ready(fresh)


# --- the log -----------------------------------------------------------------------------


@pytest.mark.parametrize("other", [entry(1, term=2), entry(1, body=BODY[:-1]), entry(1, kind=NOOP)])
def test_replicas_that_count_different_entries_are_found(other: Entry) -> None:
    check = LogMatching()
    for number in (1, 2):
        check.applied(machine(number), entry(1))
    assert check.committed[1].term == 1
    fails("LogMatching", "entry 1 of n3", check.applied, machine(3), other)


def test_a_noop_is_the_same_whatever_time_it_stands_at() -> None:
    check = LogMatching()
    check.applied(machine(1), Entry(1, 1, NOOP, 5, b""))
    check.applied(machine(2), Entry(1, 1, NOOP, 9, b""))


def test_one_index_and_term_with_two_entries_is_found_before_it_is_committed() -> None:
    check = LogMatching()
    one, other, third = (machine(n, last_index=4, term=2) for n in (1, 2, 3))
    one.node.replica.log.recent[4] = entry(4, 2)
    other.node.replica.log.recent[4] = entry(4, 1, b"of an older term")
    third.node.replica.log.recent[4] = entry(4, 2, b"another of that term")
    check.turn(one)
    check.turn(one)
    check.turn(other)
    fails("LogMatching", "n3: another entry 4 of term 2", check.turn, third)


def test_a_checker_of_logs_does_not_read_what_is_not_in_memory() -> None:
    check, one = LogMatching(), machine(1, last_index=4)
    check.turn(one)  # `recent` has nothing
    assert not check._by_place


def leaders() -> tuple[LogMatching, LeaderCompleteness]:
    log = LogMatching()
    for index in (1, 2, 3):
        log.applied(machine(1), entry(index))
    return log, LeaderCompleteness(log)


def test_a_leader_without_a_committed_entry_is_found() -> None:
    _, check = leaders()
    whole = machine(1, role=LEADER, term=2, last_index=3)
    whole.node.replica.log.terms[3] = 1
    check.turn(whole)
    fails("LeaderCompleteness", "entries up to 2; entry 3 is committed", check.turn,
          machine(2, role=LEADER, term=3, last_index=2))  # fmt: skip


def test_a_leader_with_another_entry_in_a_committed_ones_place_is_found() -> None:
    _, check = leaders()
    other = machine(2, role=LEADER, term=3, last_index=5)
    other.node.replica.log.terms[3] = 2
    fails("LeaderCompleteness", "entry 3 of term 2", check.turn, other)


def test_a_follower_and_a_deposed_leader_may_lack_entries_and_a_snapshot_counts() -> None:
    log, check = leaders()
    check.turn(machine(1, last_index=1, term=2))
    log.applied(machine(1), entry(4, term=7))
    check.turn(machine(2, role=LEADER, term=6, last_index=3))
    covered = machine(3, role=LEADER, term=8, last_index=9)

    def term(index: int) -> int:
        raise Compacted(index)

    covered.node.replica.log.term = term
    check.turn(covered)


# --- states and snapshots ----------------------------------------------------------------


def test_replicas_of_two_states_at_one_entry_are_found() -> None:
    check = ReplicasEqual()
    one, other, third = (machine(n) for n in (1, 2, 3))
    one.server.cluster.hashes.newest = (4, b"\x01")
    other.server.cluster.hashes.newest = (8, b"\x02")
    check.turn(machine(4))  # has hashed nothing yet
    for member in (one, other, one):
        check.turn(member)
    assert check.compared == 0
    check.note("n2", 4, "01")
    assert check.compared == 1
    third.server.cluster.hashes.newest = (8, b"\x03")
    fails("ReplicasEqual", "at entry 8 the state of n2 is 02, that of n3 03", check.turn, third)


def with_snapshot(number: int, index: int, data: bytes) -> Any:
    made = machine(number)
    made.node.opened.snapshots.last_index = index
    made.disk.put(f"{DATA_DIR}/snapshots/{index:016x}.snap", data)
    return made


def test_snapshots_of_one_entry_that_differ_are_found_but_not_damaged_ones() -> None:
    check = SnapshotsEqual()
    check.turn(machine(9))
    check.turn(with_snapshot(1, 7, b"state"))
    check.turn(with_snapshot(2, 7, b"state"))
    check.turn(with_snapshot(2, 8, b"later"))
    assert check.compared == 1
    rotten = with_snapshot(4, 7, b"stale")
    rotten.damage = True
    check.turn(rotten)
    fails("SnapshotsEqual", "snapshots 7 of n1 and n3", check.turn, with_snapshot(3, 7, b"other"))


# --- what was acknowledged ---------------------------------------------------------------


def cluster_with(*durable: int, count: int = 3) -> tuple[dict[int, Any], AcknowledgedIsDurable]:
    """Machines of which these have entry 1 on their disks, the others in the page cache."""
    log = LogMatching()
    log.applied(machine(1), entry(1))
    machines = {n: machine(n) for n in range(1, count + 1)}
    for number, member in machines.items():
        disk = member.disk
        disk.make_directory(f"{DATA_DIR}/log")
        disk.make_directory(f"{DATA_DIR}/snapshots")
        file = disk.open(f"{DATA_DIR}/log/1.seg", create=True)
        disk.sync_directory(f"{DATA_DIR}/log")
        file.write(100, [BODY])
        if number in durable:
            file.sync()
    return machines, AcknowledgedIsDurable(log, machines)


@pytest.mark.parametrize(("durable", "count"), [((1,), 1), ((1, 2), 3), ((2, 3, 5), 5)])
def test_an_acknowledged_entry_on_a_majority_of_the_disks_is_fine(
    durable: tuple[int, ...], count: int
) -> None:
    _, check = cluster_with(*durable, count=count)
    check.acknowledged(1)
    assert check.looked == 1


@pytest.mark.parametrize(("durable", "count"), [((), 1), ((3,), 3), ((1, 2), 5)])
def test_an_acknowledged_entry_that_a_power_cut_would_take_is_found(
    durable: tuple[int, ...], count: int
) -> None:
    _, check = cluster_with(*durable, count=count)
    fails("AcknowledgedIsDurable", "entry 1 is acknowledged and durable on", check.acknowledged, 1)


def test_an_acknowledged_entry_that_nobody_counted_is_found() -> None:
    _, check = cluster_with(1, 2)
    fails("AcknowledgedIsDurable", "no replica has counted it", check.acknowledged, 2)


@pytest.mark.parametrize("excuse", ["damage", "is_recovering", "snapshot"])
def test_a_disk_that_was_damaged_or_taken_away_or_has_a_snapshot_is_not_held_against_it(
    excuse: str,
) -> None:
    machines, check = cluster_with(1)
    if excuse == "snapshot":
        machines[2].disk.put(f"{DATA_DIR}/snapshots/{1:016x}.snap", b"state")
    else:
        setattr(machines[2], excuse, True)
    check.acknowledged(1)


def test_a_body_that_is_too_short_to_be_told_from_others_is_not_looked_for() -> None:
    machines, check = cluster_with()
    check._log.applied(machines[1], entry(2, body=b"short"))
    check.acknowledged(2)
    assert check.looked == 0
