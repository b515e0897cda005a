"""Whose directory it is in a cluster: incarnations, peers, how it was made."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from tests.storage.meter import PATH, TINY, Meter, small_meter
from tests.storage.test_raft_log import BOUNDS, CLUSTER, KEY, RaftLog, entry, open_member

from unimeter.errors import (
    CorruptionError,
    DirectoryInUseError,
    InvalidInputError,
    WrongDirectoryError,
)
from unimeter.storage.layout import Identity
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.recovery import make_recovering, open_directory
from unimeter.storage.superblock import (
    COPIES,
    COPY_BYTES,
    PEERS_MAX,
    RECOVERED,
    Membership,
    Superblock,
    decode_copy,
    encode_copy,
    read_superblock,
)

WHO = Identity(CLUSTER, 2)


def test_every_fact_of_a_superblock_comes_back() -> None:
    block = Superblock(
        WHO,
        created_ns=5,
        sequence=9,
        term=7,
        vote=3,
        snapshot_index=100,
        removed_timestamp_ns=-1,
        kept_index=101,
        incarnation=2**64 - 1,
        membership=Membership.FRESH,
        peers=tuple((node, 2**64 - node) for node in range(1, PEERS_MAX + 1)),
        base_index=100,
        base_term=6,
        base_timestamp_ns=55,
        is_installing=True,
    )
    for copy in range(COPIES):
        data = encode_copy(block, copy)
        assert len(data) == COPY_BYTES and decode_copy(data, copy) == (1, block)


def test_a_directory_of_a_single_node_reads_as_a_voter_without_peers() -> None:
    block = small_meter().opened.superblock.current
    assert block.membership is Membership.VOTER and block.peers == ()
    # Of an earlier release: all of the new fields are zeros.
    data = bytearray(encode_copy(Superblock(WHO, 5, incarnation=0), 0))
    assert not any(data[104:])
    decoded = decode_copy(bytes(data), 0)
    assert decoded == (1, Superblock(WHO, 5))


def test_peers_and_membership_are_durable_when_update_returns() -> None:
    disk = MemoryDisk(faults=True)
    opened = open_member(disk, membership=Membership.FRESH)
    made = opened.superblock.current
    assert made.membership is Membership.FRESH and made.incarnation
    opened.superblock.update(membership=Membership.VOTER, peers=((2, 22), (3, 33)))
    again = open_member(disk.crash(Random(3), 0.0))
    found = again.superblock.current
    assert (found.membership, found.peers) == (Membership.VOTER, ((2, 22), (3, 33)))
    assert found.incarnation == made.incarnation
    with pytest.raises(AssertionError):
        opened.superblock.update(incarnation=1)
    with pytest.raises(AssertionError):
        opened.superblock.update(peers=((3, 33), (2, 22)))


def test_membership_is_noted_in_a_new_directory_only() -> None:
    disk = MemoryDisk()
    open_member(disk, membership=Membership.FRESH).close()
    again = open_member(disk, membership=Membership.VOTER)
    assert again.superblock.current.membership is Membership.FRESH


def test_two_directories_of_one_node_have_different_incarnations() -> None:
    found = {open_member(MemoryDisk()).superblock.current.incarnation for _ in range(5)}
    assert len(found) == 5 and not any(incarnation & RECOVERED for incarnation in found)


@pytest.mark.parametrize("node_id", [0, 256, -1])
def test_a_node_id_that_is_none_is_refused(node_id: int) -> None:
    with pytest.raises(InvalidInputError, match="must be 1 to 255"):
        open_directory(MemoryDisk(), PATH, node_id=node_id)


def test_a_member_replays_what_is_committed_and_not_one_entry_more() -> None:
    """What is behind it may still be replaced; how the file is read must not matter."""
    bounds = replace(BOUNDS, mark_bytes=0)
    for committed in range(2, 10):
        disk = MemoryDisk()
        opened = open_member(disk, bounds=bounds)
        log = RaftLog(opened, (1, 2, 3))
        log.stage([entry(index) for index in range(2, committed + 1)])
        opened.wal.sync()
        for one in opened.wal.read(2):
            opened.machine.apply(one.index, one.kind, one.timestamp_ns, one.body)
        opened.snapshots.begin(opened.machine)
        opened.snapshots.wait()
        opened.wal.note_commit(committed)
        log.stage([entry(index) for index in range(committed + 1, committed + 9)])
        opened.wal.sync()
        opened.close()
        again = open_member(disk, bounds=bounds)
        assert (again.machine.applied, again.wal.last_index) == (committed, committed + 8)
        again.close()


def test_a_directory_made_with_another_secret_is_refused() -> None:
    disk = MemoryDisk()
    open_member(disk).close()
    with pytest.raises(WrongDirectoryError, match="another cluster's secret"):
        open_directory(
            disk, PATH, cluster_id=CLUSTER, genesis_key=b"z" * 16, sole_voter=False, bounds=TINY
        )
    open_member(disk).close()


def recover(disk: MemoryDisk) -> Superblock:
    return make_recovering(disk, PATH, WHO, KEY, bounds=TINY)


def test_a_recovering_directory_is_new_and_says_so() -> None:
    disk = MemoryDisk()
    block = recover(disk)
    assert block.membership is Membership.RECOVERING and block.incarnation & RECOVERED
    opened = open_member(disk, 2, membership=Membership.FRESH)
    assert opened.superblock.current.membership is Membership.RECOVERING
    assert opened.machine.applied == opened.wal.last_index == 1
    other = open_member(MemoryDisk(), 1)
    assert opened.machine.state_hash() == other.machine.state_hash()


def test_data_is_never_recovered_over() -> None:
    disk = MemoryDisk()
    log = RaftLog(open_member(disk, 2))
    log.stage([entry(2)])
    log._wal.sync()
    log._opened.close()
    before = {path: disk.contents(path) for path in disk.paths()}
    with pytest.raises(WrongDirectoryError, match=r"holds data of node 2.*mv data data\.old"):
        recover(disk)
    disk.remove(f"{PATH}/superblock")
    before.pop(f"{PATH}/superblock")
    with pytest.raises(WrongDirectoryError, match="superblock is lost"):
        recover(disk)
    for damaged in ("log", "snapshots"):
        copy = disk.clone()
        copy.put(f"{PATH}/{damaged}/{1:016x}.seg", b"?")
        with pytest.raises(WrongDirectoryError, match="superblock is lost"):
            recover(copy)
    assert {path: disk.contents(path) for path in disk.paths()} == before
    foreign = MemoryDisk()
    foreign.put(f"{PATH}/thesis.txt", b"precious")
    with pytest.raises(WrongDirectoryError, match="thesis"):
        recover(foreign)


def test_recovering_twice_says_what_to_do() -> None:
    disk = MemoryDisk()
    recover(disk)
    with pytest.raises(WrongDirectoryError, match="start the node"):
        recover(disk)


def test_what_a_refused_start_on_the_new_disk_left_is_no_data() -> None:
    disk = MemoryDisk()
    opened = open_member(disk, 2, membership=Membership.FRESH)
    with pytest.raises(DirectoryInUseError):
        recover(disk)
    before = opened.superblock.current.incarnation
    opened.close()
    block = recover(disk)
    assert block.membership is Membership.RECOVERING and block.incarnation != before
    assert open_member(disk, 2).machine.applied == 1


def test_a_fresh_directory_with_entries_is_data() -> None:
    disk = MemoryDisk()
    log = RaftLog(open_member(disk, 2, membership=Membership.FRESH))
    log.stage([entry(2)])
    log._wal.sync()
    log._opened.close()
    with pytest.raises(WrongDirectoryError, match="holds data of node 2"):
        recover(disk)


class PowerCut(BaseException):
    """The world stops here."""


def test_a_power_cut_while_it_is_made_is_no_obstacle_to_the_next_try() -> None:
    done = False
    step = 0
    while not done:
        disk = MemoryDisk(faults=True)
        left = [step]

        def on_operation(operation: str, path: str, left: list[int] = left) -> None:
            left[0] -= operation != "read"
            if left[0] < 0:
                raise PowerCut

        disk.on_operation = on_operation
        try:
            recover(disk)
            done = True
        except PowerCut:
            pass
        disk.on_operation = None
        survivor = disk.crash(Random(step), 0.5)
        try:
            recover(survivor)
        except WrongDirectoryError as error:
            assert "start the node" in str(error)
        block, _ = read_superblock(survivor, f"{PATH}/superblock")
        assert block.membership is Membership.RECOVERING
        step += 1
    assert step > 10


def test_a_membership_of_a_later_release_is_no_voter() -> None:
    with pytest.raises(CorruptionError):
        disk = Meter(MemoryDisk()).opened.disk
        assert isinstance(disk, MemoryDisk)
        block, _ = read_superblock(disk, f"{PATH}/superblock")
        object.__setattr__(block, "membership", 9)
        disk.put(f"{PATH}/superblock", b"".join(encode_copy(block, copy) for copy in range(4)))
        read_superblock(disk, f"{PATH}/superblock")
