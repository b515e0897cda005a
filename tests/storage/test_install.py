"""A peer's snapshot takes the place of state and log: the old ones or the new, at any power cut."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from random import Random

import pytest
from tests.storage.meter import CALLS, NOW, TINY
from tests.storage.test_raft_log import CLUSTER, KEY, PATH

from unimeter.engine import catalog, entries
from unimeter.engine.decode import EntryBuilder
from unimeter.errors import CorruptionError, RangeUnavailableError
from unimeter.raft.messages import NOOP, Entry, HardState, Snapshot, SnapshotMeta
from unimeter.raft.storage import Compacted
from unimeter.storage import install, wal
from unimeter.storage.disk import Disk, OsDisk
from unimeter.storage.memory_disk import MemoryDisk, MemoryFile
from unimeter.storage.raft_log import RaftLog
from unimeter.storage.recovery import Opened, open_directory
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.segments import remove_segments
from unimeter.storage.superblock import SuperblockFile
from unimeter.storage.verify import verify
from unimeter.types import Event
from unimeter.wire.v2_ingest import encode_ingest

ARRIVED = f"{PATH}/snapshots/arrived.part"


class PowerCut(BaseException):
    """The world stops here."""


class Member:
    """One member's directory, driven by hand: stage, sync, commit and apply."""

    def __init__(self, disk: Disk, node_id: int = 1) -> None:
        self.opened: Opened = open_directory(
            disk,
            PATH,
            cluster_id=CLUSTER,
            node_id=node_id,
            genesis_key=KEY,
            sole_voter=False,
            bounds=TINY,
        )
        self.log = RaftLog(self.opened, (1, 2, 3))

    def write(self, *group: Entry) -> None:
        self.log.stage(group)
        self.opened.wal.sync()

    def commit(self, index: int) -> None:
        opened = self.opened
        opened.wal.note_commit(index)
        for entry in opened.wal.read(opened.machine.applied + 1, index):
            applied = opened.machine.apply(entry.index, entry.kind, entry.timestamp_ns, entry.body)
            if applied.duplicates or applied.refused:
                opened.events.note(entry.index, applied.outcomes)
        opened.wal.write_witness()

    def snapshot(self) -> None:
        self.opened.snapshots.begin(self.opened.machine, background=False)
        result = self.opened.snapshots.poll()
        assert result is not None and not result.error


@cache
def history() -> tuple[Entry, ...]:
    """Entries 2 to 41 of a cluster: two leaders, one metric, events with ids."""
    builder, offset = EntryBuilder(), 1
    base_ns = int(NOW.timestamp()) * 10**9
    found = [
        Entry(2, 1, NOOP, 0, b""),
        Entry(3, 1, entries.METRIC_PUT, base_ns, catalog.put_body(CALLS)),
    ]
    for index in range(4, 42):
        term = 1 if index < 20 else 4
        if index == 20:
            found.append(Entry(20, term, NOOP, 0, b""))
            continue
        at = builder.now_ns = base_ns + index * 10**9
        when = NOW + timedelta(seconds=index)
        events = [
            Event(1, "calls", index, when, id=f"a{index}"),
            Event(2, "calls", 1, when, id="b"),
        ]
        builder.feed_payload(2, index, encode_ingest(events), 0)
        sealed = builder.seal(at, offset)
        assert sealed is not None
        found.append(Entry(index, term, entries.EVENTS, at, sealed.body))
        offset += len(events)
    return tuple(found)


def between(first: int, last: int) -> list[Entry]:
    return [entry for entry in history() if first <= entry.index <= last]


@cache
def leaders_snapshot(index: int) -> bytes:
    disk = MemoryDisk()
    leader = Member(disk, 2)
    leader.write(*between(2, index))
    leader.commit(index)
    leader.snapshot()
    return disk.contents(f"{PATH}/snapshots/{index:016x}.snap")


@cache
def state_at(index: int) -> str:
    member = Member(MemoryDisk(), 3)
    member.write(*between(2, index))
    member.commit(index)
    return member.opened.machine.state_hash()


SUFFIXES: dict[str, list[Entry]] = {
    "behind": [],
    # Uncommitted entries of a leader that lost, below, at and above the snapshot's index.
    "short": [Entry(i, 2, entries.METRIC_DELETE, 10**18 * 2, b"x" * 300) for i in range(11, 25)],
    "long": [Entry(i, 2, entries.METRIC_DELETE, 10**18 * 2, b"x" * 700) for i in range(11, 60)],
    "exact": [Entry(i, 2, entries.METRIC_DELETE, 10**18 * 2, b"x" * 900) for i in range(11, 32)],
}
INDEX = 30


def follower(disk: Disk, suffix: str) -> Member:
    """Committed up to 10, with a snapshot of its own at 6, and a suffix that will not stay."""
    member = Member(disk)
    member.write(*between(2, 6))
    member.commit(6)
    member.snapshot()
    member.write(*between(7, 10))
    member.commit(10)
    for entry in SUFFIXES[suffix]:
        member.write(entry)
    file = disk.open(ARRIVED, create=True)
    file.write(0, [leaders_snapshot(INDEX)])
    file.sync()
    disk.sync_directory(f"{PATH}/snapshots")
    return member


def take_over(member: Member) -> None:
    received = member.opened.restore_snapshot(ARRIVED)
    member.log.install(Snapshot(SnapshotMeta(INDEX, 4, (1, 2, 3)), received))


def stop_at(step: int) -> Callable[[str, str], None]:
    left = [step]

    def on_operation(operation: str, path: str) -> None:
        left[0] -= operation != "read"
        if left[0] < 0:
            raise PowerCut

    return on_operation


def check_new(member: Member) -> None:
    """The snapshot is in effect, the log is empty behind it, and goes on."""
    opened, log = member.opened, member.log
    assert opened.machine.applied == opened.commit_index == INDEX
    assert opened.machine.state_hash() == state_at(INDEX)
    assert (log.first_index(), log.last_index(), log.term(INDEX)) == (INDEX + 1, INDEX, 4)
    assert log.snapshot().meta == SnapshotMeta(INDEX, 4, (1, 2, 3))
    with pytest.raises(Compacted):
        log.entries(INDEX, INDEX + 1, 0)
    assert opened.wal.last_timestamp_ns == opened.machine.timestamp_ns
    member.write(*between(INDEX + 1, 41))
    member.commit(41)
    assert opened.machine.state_hash() == state_at(41)
    opened.wal.check_invariants()


def check_survivor(disk: MemoryDisk, suffix: str) -> bool:
    """Whether the new state is there; if not the old one must be, whole."""
    member = Member(disk)
    opened = member.opened
    is_new = opened.machine.applied == INDEX
    if is_new:
        check_new(member)
    else:
        assert opened.machine.state_hash() == state_at(opened.machine.applied)
        assert 6 <= opened.machine.applied <= 10
        last = SUFFIXES[suffix][-1].index if SUFFIXES[suffix] else 10
        assert (opened.wal.first_index, opened.wal.last_index) == (1, last)
        # The leader sends it again.
        file = disk.open(ARRIVED, create=True)
        file.write(0, [leaders_snapshot(INDEX)])
        file.sync()
        disk.sync_directory(f"{PATH}/snapshots")
        take_over(member)
        check_new(member)
    member.snapshot()
    opened.close()
    again = Member(disk)
    assert not again.opened.notes
    assert again.opened.machine.state_hash() == state_at(41)
    again.opened.close()
    report = verify(PATH, disk=disk)
    assert report.ok, report.problems
    assert report.state_hash == state_at(41)
    return is_new


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_power_cut_at_any_step_leaves_the_old_state_or_the_new_one(suffix: str) -> None:
    step, seen, is_done = 0, set(), False
    while not is_done:
        for arrival in (0.0, 0.4, 1.0):
            disk = MemoryDisk(faults=True)
            member = follower(disk, suffix)
            disk.on_operation = stop_at(step)
            try:
                take_over(member)
                is_done = True
            except PowerCut:
                pass
            disk.on_operation = None
            seen.add(check_survivor(disk.crash(Random(step), arrival), suffix))
        step += 1
    assert seen == {False, True} and step > 8


@pytest.mark.parametrize("seed", range(30))
def test_power_cuts_while_a_start_goes_on_with_it(seed: int) -> None:
    random = Random(seed)
    suffix = random.choice(list(SUFFIXES))
    disk = MemoryDisk(faults=True)
    member = follower(disk, suffix)
    disk.on_operation = stop_at(random.randrange(3, 18))
    try:
        take_over(member)
    except PowerCut:
        pass
    for _ in range(3):
        disk = disk.crash(random, random.choice((0.0, 0.3, 0.7, 1.0)))
        disk.on_operation = stop_at(random.randrange(1, 14))
        try:
            Member(disk).opened.close()
        except PowerCut:
            pass
        disk.on_operation = None
    check_survivor(disk.crash(random, 0.5), suffix)


def test_the_running_node_goes_on_from_the_snapshot() -> None:
    disk = MemoryDisk()
    member = follower(disk, "long")
    member.log.entries(2, 20, 10_000)
    old = member.opened.machine
    take_over(member)
    assert member.opened.machine is not old
    check_new(member)
    assert disk.names(f"{PATH}/snapshots") == [f"{INDEX:016x}.snap"]
    assert member.opened.apply_retention(RetentionPolicy(bytes=1), 0) == 0
    member.log.check_invariants()


def test_on_a_real_disk_it_takes_over_and_a_start_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    disk = OsDisk()
    member = follower(disk, "long")
    take_over(member)
    check_new(member)
    member.snapshot()
    member.log.close()
    member.opened.close()
    again = Member(disk)
    assert again.opened.machine.state_hash() == state_at(41)
    again.opened.close()
    assert verify(PATH).ok


def test_a_log_never_ends_in_a_term_that_the_node_has_not_seen() -> None:
    for term, vote in ((1, 0), (2, 3), (4, 2), (9, 1)):
        member = follower(MemoryDisk(), "behind")
        member.log.persist_vote(term, vote)
        take_over(member)
        found = member.log.initial_state()[0]
        assert found == HardState(max(term, 4), vote if term >= 4 else 0, INDEX)


def test_exact_answers_over_events_that_were_never_here_are_refused() -> None:
    member = follower(MemoryDisk(), "behind")
    take_over(member)
    member.write(*between(INDEX + 1, 41))
    member.commit(41)
    events = member.opened.events
    second = 10**9
    base = int(NOW.timestamp()) * second
    with pytest.raises(RangeUnavailableError, match="began with a peer's snapshot"):
        events.rows(1, "calls", base + INDEX * second, base + 50 * second, 3)
    rows = events.rows(1, "calls", base + (INDEX + 1) * second, base + 50 * second, 3)
    assert [row.entry_index for row in rows] == list(range(INDEX + 1, 42))
    page = events.scan(2, None)
    assert page.events == [], "every one of account 2 after the first was a duplicate"


def test_retention_and_snapshots_go_on_after_it() -> None:
    member = follower(MemoryDisk(), "short")
    take_over(member)
    for index in range(INDEX + 1, 42):
        member.write(*between(index, index))
        member.commit(index)
        if index % 4 == 0:
            member.opened.wal._active.limit = 0  # type: ignore[union-attr]  # a new segment
            member.snapshot()
    assert member.opened.apply_retention(RetentionPolicy(bytes=1), 0) > 0
    assert member.log.first_index() > INDEX + 1
    disk = member.opened.disk
    assert isinstance(disk, MemoryDisk)
    again = Member(disk.clone())
    assert again.opened.machine.state_hash() == state_at(41)


def test_a_damaged_or_foreign_file_is_refused_and_nothing_changes() -> None:
    disk = MemoryDisk()
    member = follower(disk, "short")
    data = bytearray(leaders_snapshot(INDEX))
    data[200] ^= 1
    disk.put(ARRIVED, bytes(data))
    with pytest.raises(CorruptionError):
        take_over(member)
    disk.put(ARRIVED, leaders_snapshot(INDEX))
    with pytest.raises(CorruptionError):
        install.restore_snapshot(disk, ARRIVED, b"x" * 16)
    with pytest.raises(AssertionError):
        received = member.opened.restore_snapshot(ARRIVED)
        member.log.install(Snapshot(SnapshotMeta(INDEX, 5, ()), received))
    assert member.opened.machine.applied == 10 and member.opened.wal.last_index == 24


def test_a_log_that_holds_the_snapshots_entry_is_never_replaced() -> None:
    disk = MemoryDisk()
    member = follower(disk, "behind")
    member.write(*between(11, 35))
    with pytest.raises(AssertionError, match="the log holds"):
        take_over(member)


def test_the_latest_event_is_found_among_totals_and_members() -> None:
    member = Member(MemoryDisk())
    assert install.latest_event_ns(member.opened.machine) == 0
    member.write(*between(2, 12))
    member.commit(12)
    expected = int(NOW.timestamp() + 12) * 10**9
    assert install.latest_event_ns(member.opened.machine) == expected


# --- the bugs that these tests are for ---------------------------------------------------


def is_caught() -> bool:
    for suffix in SUFFIXES:
        try:
            test_a_power_cut_at_any_step_leaves_the_old_state_or_the_new_one(suffix)
        except Exception:
            return True
    return False


def test_a_log_removed_before_the_superblock_says_so_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = SuperblockFile.update

    def update(self: SuperblockFile, **changes: object) -> None:
        if "base_index" in changes:
            remove_segments(disk_of(self), f"{PATH}/log")
        original(self, **changes)

    monkeypatch.setattr(SuperblockFile, "update", update)
    assert is_caught()


def disk_of(superblock: SuperblockFile) -> MemoryDisk:
    file = superblock._file
    assert isinstance(file, MemoryFile)
    return file._disk


def test_an_install_that_is_not_announced_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = SuperblockFile.update

    def update(self: SuperblockFile, **changes: object) -> None:
        changes.pop("is_installing", None)
        original(self, **changes)

    monkeypatch.setattr(SuperblockFile, "update", update)
    assert is_caught()


def test_a_peers_snapshot_taken_for_our_own_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unimeter.storage.recovery.remove_unfinished", lambda *_: [])
    assert is_caught()


def test_segments_that_come_back_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryDisk.sync_directory

    def sync(self: MemoryDisk, path: str) -> None:
        if not path.endswith("/log"):
            original(self, path)

    monkeypatch.setattr(MemoryDisk, "sync_directory", sync)
    assert is_caught()


def test_a_witness_that_stays_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal.Witness, "settle", lambda self, index, commit: None)
    assert is_caught()
