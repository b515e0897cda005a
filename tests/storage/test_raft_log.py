"""The log as the Raft core reads it: what it says, stages, replaces, and reads for followers."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from unimeter.engine import entries
from unimeter.errors import BackpressureError
from unimeter.raft.messages import NO_LIMIT, NOOP, Entry, HardState, entry_size
from unimeter.raft.storage import Compacted, SnapshotTemporarilyUnavailable, Unavailable
from unimeter.storage.disk import Disk, OsDisk
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.raft_log import READERS_MAX, RaftLog, SyncFirst
from unimeter.storage.recovery import Opened, open_directory
from unimeter.storage.wal import WalLimits
from unimeter.storage.witness import read_witness

PATH = "data"
CLUSTER, KEY = b"c" * 16, b"k" * 16
BOUNDS = WalLimits(segment_bytes=16384, segment_bytes_first=8192, background=False)


def open_member(disk: Disk, node_id: int = 1, path: str = PATH, **options: object) -> Opened:
    options.setdefault("bounds", BOUNDS)
    return open_directory(
        disk,
        path,
        cluster_id=CLUSTER,
        node_id=node_id,
        genesis_key=KEY,
        sole_voter=False,
        **options,  # type: ignore[arg-type]
    )


def entry(index: int, term: int = 1, size: int = 100) -> Entry:
    """A METRIC_DELETE of a metric that is not there: it can be applied, and changes nothing."""
    return Entry(index, term, entries.METRIC_DELETE, index * 10, bytes([65 + term]) * size)


def filled(disk: Disk, last: int = 60, cache: int = 2000, size: int = 500) -> RaftLog:
    opened = open_member(disk)
    log = RaftLog(opened, (1, 2, 3), cache)
    log.stage([entry(index, 1 + index // 25, size) for index in range(2, last + 1)])
    opened.wal.sync()
    return log


def test_a_new_member_knows_its_first_entry_committed() -> None:
    opened = open_member(MemoryDisk())
    state, conf = RaftLog(opened, (1, 2, 3)).initial_state()
    assert state == HardState(1, 0, 1) and conf.voters == (1, 2, 3)
    assert opened.machine.applied == 1


def test_entries_come_from_memory_and_from_disk_as_one_log() -> None:
    log = filled(MemoryDisk())
    for low in range(2, 61, 3):
        for high in range(low + 1, 62, 7):
            found = log.entries(low, high, NO_LIMIT)
            assert [one.index for one in found] == list(range(low, high))
            assert [one.term for one in found] == [1 + one.index // 25 for one in found]
    assert log.statistics()["log_entries_from_memory"] > 0
    assert log.statistics()["log_entries_from_disk"] > 0
    log.check_invariants()


@pytest.mark.parametrize("cache", [0, 2000, 1 << 20])
@pytest.mark.parametrize("max_size", [0, 1, 531, 532, 1063, 1064, 5000, 1 << 20])
def test_entries_are_cut_where_their_sizes_exceed_the_limit(max_size: int, cache: int) -> None:
    log = filled(MemoryDisk(), cache=cache)
    size = entry_size(entry(9, size=500))
    expected = max(1, max_size // size)
    for low in (2, 30, 55, 57, 60):
        found = log.entries(low, 61, max_size)
        assert [one.index for one in found] == list(range(low, min(61, low + expected)))


def test_a_follower_that_is_behind_reads_each_byte_once() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    opens: list[str] = []
    disk.on_operation = lambda operation, path: opens.append(path) if operation == "open" else None
    low = 2
    while low < 56:
        low += len(log.entries(low, 61, 1200))
    assert log.statistics()["log_readers_opened"] == 1
    assert len(opens) <= len(log._wal.segments())


def test_places_of_followers_are_bounded() -> None:
    log = filled(MemoryDisk())
    for low in range(2, 40):
        log.entries(low, low + 1, 0)
        log.entries(low, low + 1, 0)
    assert log.statistics()["log_readers"] <= READERS_MAX
    log.check_invariants()
    log.close()


def test_a_reader_goes_on_into_what_was_appended_since() -> None:
    log = filled(MemoryDisk(), last=20, cache=0)
    found = list(log.entries(2, 21, NO_LIMIT))
    log.stage([entry(index, 2, 500) for index in range(21, 50)])
    log._wal.sync()
    found += log.entries(21, 50, NO_LIMIT)
    assert [one.index for one in found] == list(range(2, 50))


def test_memory_is_bounded() -> None:
    log = filled(MemoryDisk(), cache=3000)
    for index in range(61, 400):
        log.stage([entry(index, 9, index % 50)])
        log._wal.sync()
        assert log.statistics()["log_cache_bytes"] <= 3000
        log.check_invariants()
    assert log._recent._head < 200, "what is let go is let go"


def test_terms_are_known_from_before_the_first_to_the_last() -> None:
    log = filled(MemoryDisk())
    assert [log.term(index) for index in (0, 1, 24, 25, 49, 50, 60)] == [0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(Unavailable):
        log.term(61)


def test_terms_are_known_after_a_start_and_mostly_without_reading() -> None:
    disk = MemoryDisk()
    filled(disk)._opened.close()
    log = RaftLog(open_member(disk))
    reads: list[str] = []
    disk.on_operation = lambda operation, path: reads.append(path) if operation == "read" else None
    for _ in range(3):
        for index in range(60, 0, -1):  # as the core asks where two logs part
            assert log.term(index) == 1 + index // 25
    assert 0 < len(reads) <= len(log._wal.segments()), "heads of segments settle most of it"


def test_the_term_before_the_first_entry_is_known_after_removal_and_a_start() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    log._wal.remove_before(30)
    log._opened.superblock.update(kept_index=30)
    first = log.first_index()
    assert first > 1 and log.term(first - 1) == 1 + (first - 1) // 25
    with pytest.raises(Compacted):
        log.term(first - 2)
    with pytest.raises(Compacted):
        log.entries(first - 1, first, NO_LIMIT)
    wal = log._wal
    wal.close()
    again = type(wal).open(disk, PATH, log._opened.superblock.current.identity, BOUNDS, 30)
    assert again.term_of(first - 1) == 1 + (first - 1) // 25


def test_removal_while_a_follower_reads_is_told_as_compacted() -> None:
    log = filled(MemoryDisk())
    log.entries(2, 3, 0)
    log._wal.remove_before(40)
    with pytest.raises(Compacted):
        low = 3
        while True:
            low += len(log.entries(low, 61, 600))


def test_a_vote_is_durable_and_written_only_when_it_is_another() -> None:
    disk = MemoryDisk(faults=True)
    log = RaftLog(open_member(disk))
    log.persist_vote(4, 2)
    sequence = log._opened.superblock.current.sequence
    log.persist_vote(4, 2)
    assert log._opened.superblock.current.sequence == sequence
    again = open_member(disk.crash(Random(1), 0.0))
    assert RaftLog(again).initial_state()[0] == HardState(4, 2, 1)
    with pytest.raises(AssertionError, match="second vote"):
        log.persist_vote(4, 3)
    with pytest.raises(AssertionError, match="went back"):
        log.persist_vote(3, 0)


def test_a_term_is_durable_before_anybody_is_voted_for_in_it() -> None:
    disk = MemoryDisk(faults=True)
    RaftLog(open_member(disk)).persist_vote(4, 0)
    again = open_member(disk.crash(Random(1), 0.0))
    assert RaftLog(again).initial_state()[0] == HardState(4, 0, 1)


def test_staged_entries_replace_a_suffix_only_when_nothing_is_staged() -> None:
    disk = MemoryDisk()
    log = filled(disk, cache=1 << 20)
    log.stage([entry(61, 3)])
    with pytest.raises(SyncFirst):
        log.stage([entry(40, 7)])
    assert log._wal.last_index == 61
    log._wal.sync()
    log.entries(30, 35, NO_LIMIT)
    log.stage([entry(40, 7), entry(41, 7)])
    assert (log._wal.last_index, log._wal.last_term, log.last_index()) == (41, 7, 39)
    log._wal.sync()
    for _ in range(2):
        found = log.entries(38, 42, NO_LIMIT)
        assert [(one.index, one.term) for one in found] == [(38, 2), (39, 2), (40, 7), (41, 7)]
        assert log.term(39) == 2 and log.term(40) == 7
        log._opened.close()
        log = RaftLog(open_member(disk))


def test_a_reader_is_not_given_what_was_replaced() -> None:
    log = filled(MemoryDisk(), cache=0)
    log.entries(2, 20, NO_LIMIT)  # leaves a place open before entry 20
    log.stage([entry(20, 7, 50), entry(21, 8, 50)])
    log._wal.sync()
    assert [one.term for one in log.entries(20, 22, NO_LIMIT)] == [7, 8]


def test_a_full_disk_stages_none_of_a_group() -> None:
    disk = MemoryDisk(capacity=1_400_000)
    large = WalLimits(segment_bytes=64 * 1024, segment_bytes_first=64 * 1024, background=False)
    log = RaftLog(open_member(disk, bounds=large))
    index = 2
    with pytest.raises(BackpressureError):
        while True:
            log.stage([entry(index, 1, 20_000), entry(index + 1, 1, 20_000)])
            log._wal.sync()
            index += 2
    with pytest.raises(BackpressureError):
        log.stage([entry(log._wal.last_index + 1, 1, 10)])
    disk.capacity = None
    assert log._wal.try_resume()
    after = log._wal.last_index + 1
    log.stage([entry(after, 2, 10)])
    log._wal.sync()
    log.check_invariants()
    assert log.entries(after, after + 1, 0)[0].term == 2


def test_a_leaders_empty_entry_has_the_time_of_the_entry_before() -> None:
    disk = MemoryDisk()
    opened = open_member(disk)
    log = RaftLog(opened)
    log.stage([Entry(2, 2, NOOP, 0, b""), entry(3, 2), Entry(4, 3, NOOP, 0, b"")])
    opened.wal.sync()
    assert [one.timestamp_ns for one in opened.wal.read(1)] == [0, 0, 30, 30]
    assert opened.wal.last_timestamp_ns == 30
    for one in opened.wal.read(2):
        opened.machine.apply(one.index, one.kind, one.timestamp_ns, one.body)
    assert opened.machine.timestamp_ns == 30 and opened.machine.applied == 4


def test_a_member_replays_what_was_committed_and_no_more() -> None:
    disk = MemoryDisk()
    log = filled(disk)
    apply(log, 35)
    log._wal.note_commit(36)
    log._wal.write_witness()
    log._opened.close()
    opened = open_member(disk)
    assert opened.machine.applied == opened.commit_index == 35
    assert opened.wal.last_index == 60
    assert RaftLog(opened).initial_state()[0].commit == 35
    opened.close()
    sole = open_directory(disk, PATH, bounds=BOUNDS)
    assert sole.machine.applied == sole.commit_index == 60


def apply(log: RaftLog, index: int) -> None:
    machine = log._opened.machine
    for one in log._wal.read(machine.applied + 1, index):
        machine.apply(one.index, one.kind, one.timestamp_ns, one.body)


def test_a_commit_heard_of_before_its_entries_came_is_not_believed_of_others() -> None:
    """A leader's message brings entries 8 to 12 and says "12 is committed"; 8 to 10 are others."""
    disk = MemoryDisk()
    log = filled(disk, last=10)
    apply(log, 7)
    log._wal.note_commit(12)
    log._wal.write_witness()
    assert read_witness(disk, f"{PATH}/synced").commit == 7
    copy = open_member(disk.clone())
    assert copy.machine.applied == 7 and copy.wal.last_index == 10
    log.stage([entry(index, 5) for index in range(8, 13)])
    log._wal.sync()
    apply(log, 12)
    log._wal.write_witness()
    assert read_witness(disk, f"{PATH}/synced").commit == 12


def test_the_commit_hint_is_never_above_what_is_durable() -> None:
    disk = MemoryDisk(faults=True)
    log = filled(disk, last=10)
    apply(log, 10)
    log.stage([entry(11), entry(12)])
    log._wal.note_commit(12)
    log._wal.write_witness()
    survivor = open_member(disk.crash(Random(2), 1.0))
    assert survivor.machine.applied == survivor.wal.synced_index == 10


def test_there_is_no_snapshot_until_one_is_in_effect(tmp_path: Path) -> None:
    opened = open_member(OsDisk(), path=str(tmp_path / "d"))
    log = RaftLog(opened, (1, 2, 3))
    with pytest.raises(SnapshotTemporarilyUnavailable):
        log.snapshot()
    log.stage([entry(2, 5), entry(3, 5)])
    opened.wal.sync()
    for one in opened.wal.read(2, 3):
        opened.machine.apply(one.index, one.kind, one.timestamp_ns, one.body)
    opened.snapshots.begin(opened.machine, background=False)
    assert opened.snapshots.poll() is not None
    found = log.snapshot()
    assert (found.meta.index, found.meta.term, found.meta.voters) == (3, 5, (1, 2, 3))
    assert isinstance(found.data, str) and found.data.endswith(f"{3:016x}.snap")
    assert log.first_index() == 1, "entries stay readable behind a snapshot"
    opened.close()


def test_nodes_of_a_cluster_make_the_same_first_entry_and_state() -> None:
    disks = [MemoryDisk() for _ in range(3)]
    members = [open_member(disk, node_id) for node_id, disk in enumerate(disks, 1)]
    firsts = [next(member.wal.read(1)) for member in members]
    assert {(e.index, e.term, e.timestamp_ns, bytes(e.body)) for e in firsts} == {
        (1, 1, 0, CLUSTER + KEY)
    }
    assert len({member.machine.state_hash() for member in members}) == 1
    assert len({member.superblock.current.incarnation for member in members}) == 3


@pytest.mark.parametrize("seed", range(4))
def test_on_a_real_disk_any_suffix_is_replaced_and_read_back(tmp_path: Path, seed: int) -> None:
    """Direct writes, segments prepared in the background, readers of followers, restarts."""
    random = Random(seed)
    bounds = WalLimits(segment_bytes=128 * 1024, segment_bytes_first=32 * 1024)
    path = str(tmp_path / "d")
    log = RaftLog(open_member(OsDisk(), path=path, bounds=bounds), (1, 2, 3), 20_000)
    model, term = {1: (1, 0, CLUSTER + KEY)}, 1
    for _ in range(150):
        after = len(model)
        if random.random() < 0.2 and after > 1:
            after = random.randrange(max(1, after - 40), after)
        term += after < len(model)
        group = []
        for index in range(after + 1, after + 1 + random.randrange(1, 8)):
            body = random.randbytes(random.choice((0, 1, 100, 3000, 20_000)))
            group.append(Entry(index, term, entries.METRIC_DELETE, index, body))
        log.stage(group)
        log._wal.sync()
        model = {index: kept for index, kept in model.items() if index <= after}
        model |= {one.index: (one.term, one.timestamp_ns, bytes(one.body)) for one in group}
        low = random.randrange(1, len(model) + 1)
        found = log.entries(low, len(model) + 1, random.choice((0, 5000, 100_000)))
        for place, one in enumerate(found):
            assert one.index == low + place
            assert (one.term, one.timestamp_ns, bytes(one.body)) == model[one.index]
        index = random.randrange(1, len(model) + 1)
        assert log.term(index) == model[index][0]
        if random.random() < 0.1:
            log.close()
            log._opened.close()
            log = RaftLog(open_member(OsDisk(), path=path, bounds=bounds), (1, 2, 3), 20_000)
            assert log.last_index() == len(model)
    log.check_invariants()
    log._wal.check_invariants()
    log.close()
    log._opened.close()
