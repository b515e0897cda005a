"""Power cuts at every step of a member's life: appends, elections lost, commits, snapshots.

Each seed is one history of one follower: groups of entries, suffixes that another
leader replaces, commits that it hears of, snapshots of its own and of a leader,
retention, tiny segments, and a power cut at a random operation of the disk. What was
durable and not replaced is there, what is applied was committed, and a power cut never
looks like rot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from tests.storage.test_raft_log import CLUSTER, KEY, PATH, open_member

from unimeter.engine import entries
from unimeter.engine.machine import Machine
from unimeter.errors import UnimeterError
from unimeter.raft.messages import NOOP, Entry, Snapshot, SnapshotMeta
from unimeter.storage import tail, witness
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.raft_log import RaftLog
from unimeter.storage.retention import RetentionPolicy
from unimeter.storage.snapshot_file import SnapshotHead, write_snapshot
from unimeter.storage.superblock import SuperblockFile
from unimeter.storage.verify import verify

ROUNDS = 7
GENESIS = Entry(1, 1, entries.GENESIS, 0, CLUSTER + KEY)
ARRIVED = f"{PATH}/snapshots/arrived.part"


class PowerCut(BaseException):
    """The world stops here."""


@dataclass(frozen=True)
class Log:
    """A log as it may be found: what it goes on after, and its entries."""

    base: int = 0
    entries: tuple[Entry, ...] = (GENESIS,)

    @property
    def last(self) -> Entry:
        return self.entries[-1]

    def keeps(self, index: int) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.index <= index)


@dataclass
class Counts:
    """How often the rare places were met."""

    replaced: int = 0
    half_replaced: int = 0
    installed: int = 0
    grown: int = 0
    behind_commit: int = 0
    vote: tuple[int, int] = (1, 0)
    notes: list[str] = field(default_factory=list)


class History:
    """One follower, what its log may hold, and what was committed in its cluster."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = MemoryDisk(faults=True)
        self.everything: dict[int, Entry] = {1: GENESIS}  # the newest entry of each index
        self.sure = Log()  # durable: one of these two is found,
        self.coming = Log()  # or, of the second, a beginning that keeps what both have
        self.committed = 1
        self.term = 1
        self.told: list[int] = []  # terms of the snapshots that leaders sent
        self.counts = Counts()

    def run(self) -> Counts:
        for _ in range(ROUNDS):
            self.disk.on_operation = self._cutter()
            try:
                self._work()
            except PowerCut:
                pass
            arrival = self.random.choice((0.0, 0.2, 0.5, 0.9, 1.0))
            self.disk = self.disk.crash(self.random, arrival)
            self._check()
        return self.counts

    def _cutter(self) -> Callable[[str, str], None]:
        wanted = self.random.choice(("", "sync"))
        left = [self.random.randrange(1, 60 if wanted else 150)]

        def on_operation(operation: str, path: str) -> None:
            left[0] -= operation == wanted if wanted else operation != "read"
            if left[0] < 0:
                raise PowerCut

        return on_operation

    # --- what happens --------------------------------------------------------------

    def _work(self) -> None:
        self.log = RaftLog(open_member(self.disk), (1, 2, 3), 2000)
        self.opened = self.log._opened
        while True:
            step = self.random.random()
            if step < 0.45:
                self._append(self._after())
            elif step < 0.6 and self._after() > self.committed:
                self._append(self.random.randrange(self.committed, self._after()))
                self.counts.replaced += 1
            elif step < 0.8:
                self._commit()
            elif step < 0.87 and self.opened.machine.applied > 1:
                self._snapshot()
            elif step < 0.92:
                self.opened.apply_retention(RetentionPolicy(bytes=20_000), 0)
                kept = self.opened.wal.first_index
                self.sure = self.coming = Log(
                    self.sure.base, tuple(e for e in self.sure.entries if e.index >= kept)
                )
            elif step < 0.96:
                self._vote()
            else:
                self._install()

    def _after(self) -> int:
        return self.sure.last.index if self.sure.entries else self.sure.base

    def _timestamp_at(self, index: int) -> int:
        return self.everything[index].timestamp_ns

    def _append(self, after: int) -> None:
        """Stage one to three groups behind `after`, replacing what is there, and sync."""
        if after < self._after() or self.random.random() < 0.3:
            self.term += 1
        group: list[Entry] = []
        timestamp_ns = self._timestamp_at(after)
        for index in range(after + 1, after + 1 + self.random.randrange(1, 6)):
            timestamp_ns += self.random.randrange(3)
            if not group and self.random.random() < 0.3:
                timestamp_ns = self._timestamp_at(after)
                group.append(Entry(index, self.term, NOOP, timestamp_ns, b""))
                continue
            body = bytes([97 + self.random.randrange(26)]) * self.random.choice((1, 60, 700, 3000))
            group.append(Entry(index, self.term, entries.METRIC_DELETE, timestamp_ns, body))
        self.coming = Log(self.sure.base, self.sure.keeps(after) + tuple(group))
        self.log.stage(group)
        if self.random.random() < 0.3:
            more = Entry(
                group[-1].index + 1, self.term, entries.METRIC_DELETE, timestamp_ns, b"more"
            )
            self.coming = Log(self.coming.base, (*self.coming.entries, more))
            self.log.stage([more])
        self.opened.wal.sync()
        self._settle()

    def _settle(self) -> None:
        self.sure = self.coming
        for entry in self.sure.entries:
            self.everything[entry.index] = entry

    def _commit(self) -> None:
        self.committed = self.random.randrange(self.committed, self._after() + 1)
        self.opened.wal.note_commit(self.committed)
        machine = self.opened.machine
        for entry in self.opened.wal.read(machine.applied + 1, self.committed):
            machine.apply(entry.index, entry.kind, entry.timestamp_ns, entry.body)
        self.opened.wal.write_witness()

    def _snapshot(self) -> None:
        self.opened.snapshots.begin(self.opened.machine, background=False)
        result = self.opened.snapshots.poll()
        assert result is None or not result.error

    def _vote(self) -> None:
        self.term += 1
        before = self.counts.vote
        self.counts.vote = (self.term, 2)
        try:
            self.log.persist_vote(self.term, 2)
        except PowerCut:
            self.counts.vote = before  # it may be there and need not
            raise

    def _install(self) -> None:
        """A leader whose log goes on behind what is committed sends its snapshot."""
        self.term += 1
        self.told.append(self.term)
        machine = self._state_at(self.committed)
        first = self.committed + 1
        last = max(self._after(), first) + self.random.randrange(4)
        leaders = {}
        timestamp_ns = self._timestamp_at(self.committed)
        for index in range(first, last + 1):
            timestamp_ns += 2
            leaders[index] = Entry(
                index, self.term, entries.METRIC_DELETE, timestamp_ns, b"leader's"
            )
            machine.apply(index, entries.METRIC_DELETE, timestamp_ns, b"leader's")
        buffers = [bytes(buffer) for buffer in machine.snapshot()]
        size = sum(map(len, buffers))
        head = SnapshotHead(CLUSTER, last, self.term, machine.timestamp_ns, size)
        file = self.disk.open(ARRIVED, create=True)
        write_snapshot(file, head, buffers)
        self.disk.sync_directory(f"{PATH}/snapshots")
        self.coming = Log(last, ())
        self.everything_then = self.everything | leaders
        received = self.opened.restore_snapshot(ARRIVED)
        self.log.install(Snapshot(SnapshotMeta(last, self.term, (1, 2, 3)), received))
        self._installed()

    def _installed(self) -> None:
        self.sure = self.coming
        self.everything = self.everything_then
        self.committed = self.sure.base
        self.counts.installed += 1

    def _state_at(self, index: int) -> Machine:
        machine = Machine()
        for at in range(1, index + 1):
            entry = self.everything[at]
            machine.apply(at, entry.kind, entry.timestamp_ns, entry.body)
        return machine

    # --- what is found ---------------------------------------------------------------

    def _check(self) -> None:
        log = RaftLog(open_member(self.disk), (1, 2, 3), 0)
        opened = log._opened
        found = tuple(
            Entry(e.index, e.term, e.kind, e.timestamp_ns, bytes(e.body))
            for e in opened.wal.read(log.first_index())
        )
        self._judge(log, found)
        machine = opened.machine
        assert machine.applied == opened.commit_index <= self.committed, "applied too much"
        assert machine.state_hash() == self._state_at(machine.applied).state_hash()
        self.counts.behind_commit += machine.applied < self.committed
        for entry in found:
            assert log.term(entry.index) == entry.term
        block = opened.superblock.current
        allowed = [self.counts.vote, (self.term, 2)]
        allowed += [(term, 0) for term in self.told if term > self.counts.vote[0]]
        assert (block.term, block.vote) in allowed, "a vote was lost"
        self.counts.vote = (block.term, block.vote)
        opened.wal.check_invariants()
        opened.close()
        report = verify(PATH, disk=self.disk)
        assert report.ok, report.problems

    def _judge(self, log: RaftLog, found: tuple[Entry, ...]) -> None:
        """Which of the possible logs it is; from here on it is the one."""
        first = log.first_index()
        is_new_base = self.coming.base != self.sure.base and first == self.coming.base + 1
        if is_new_base and not found:
            self._installed()
            return
        kept = tuple(e for e in self.sure.entries if e.index >= first)
        coming = tuple(e for e in self.coming.entries if e.index >= first)
        common = sum(ours == theirs for ours, theirs in zip(kept, coming, strict=False))
        if found != kept:
            assert found == coming[: len(found)] and len(found) >= common, "a log nobody wrote"
            self.counts.half_replaced += len(kept) > common and len(found) < len(coming)
            self.counts.grown += len(found) > len(kept)
        self.sure = self.coming = Log(self.sure.base, found)
        for entry in found:
            self.everything[entry.index] = entry


@pytest.mark.parametrize("seed", range(80))
def test_a_members_log_survives_power_cuts(seed: int) -> None:
    History(seed).run()


def test_the_histories_reach_the_rare_places() -> None:
    met = [History(seed).run() for seed in range(100, 160)]
    assert sum(counts.replaced for counts in met) > 50
    assert sum(counts.half_replaced for counts in met) > 5
    assert sum(counts.installed for counts in met) > 20
    assert sum(counts.grown for counts in met) > 5
    assert sum(counts.behind_commit for counts in met) > 20


# --- the bugs that these histories are for ----------------------------------------------


def is_caught() -> bool:
    for seed in range(60):
        try:
            History(seed).run()
        except (AssertionError, UnimeterError, FileNotFoundError, StopIteration):
            return True
    return False


def test_a_removal_that_is_not_announced_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def lower(self: witness.Witness, index: int) -> None:
        self.settle(index, min(index, self.commit))

    monkeypatch.setattr(witness.Witness, "begin_cut", lower)
    assert is_caught()


def test_a_suffix_that_stays_on_disk_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "cut", lambda file, position, limit: 0)
    assert is_caught()


def test_a_commit_hint_that_runs_ahead_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = witness.Witness.raise_to

    def ahead(self: witness.Witness, index: int, commit: int = 0) -> None:
        original(self, index, commit + 1)

    monkeypatch.setattr(witness.Witness, "raise_to", ahead)
    assert is_caught()


def test_a_vote_that_is_not_written_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = SuperblockFile.update

    def update(self: SuperblockFile, **changes: object) -> None:
        if "vote" not in changes:
            original(self, **changes)

    monkeypatch.setattr(SuperblockFile, "update", update)
    assert is_caught()


def test_an_install_that_is_not_announced_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = SuperblockFile.update

    def update(self: SuperblockFile, **changes: object) -> None:
        changes.pop("is_installing", None)
        if changes:
            original(self, **changes)

    monkeypatch.setattr(SuperblockFile, "update", update)
    assert is_caught()
