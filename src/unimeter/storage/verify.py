"""Read everything, check every checksum, recompute every total, compare.

Owns the proof that a directory is what it should be. Four readings that must
agree:

    the bytes        every checksum of every file
    the snapshots    each is byte by byte what replaying the log up to it gives
    the outcomes     which events counted, as stored and as replayed
    the totals       the engine's, and those added up from the stored events in
                     plain Python (`recompute`)

It takes the directory's lock (a running node would change what is read), changes
nothing, and goes on after a finding where it can, so that one run tells all.
Replay starts from the first entry; where retention removed it, from the oldest
snapshot that the stored log goes on from.

What a member of a cluster does not know to be committed may be replaced by other
entries: its bytes are checked, and it is not counted. Two members are compared at an
index that both have: `at_index`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from unimeter.engine import entries
from unimeter.engine.machine import Machine
from unimeter.engine.records import EventsBody
from unimeter.errors import CorruptionError, InvalidInputError
from unimeter.storage import reading
from unimeter.storage.disk import Disk, FatalStorageError, OsDisk
from unimeter.storage.outcomes import Bitmaps, bitmap_of, read_outcomes
from unimeter.storage.reading import LogReader
from unimeter.storage.recompute import Recount
from unimeter.storage.snapshot_file import read_snapshot
from unimeter.storage.superblock import Superblock
from unimeter.types import AggType

Progress = Callable[[str, int, int], None]
_SAID_MAX = 1000  # findings listed; a damaged total can show in a million places


@dataclass
class Report:
    """What verify found. `ok` when there is no problem."""

    path: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    segments: int = 0
    entries: int = 0
    events: int = 0  # counted events recomputed
    snapshots: int = 0
    totals: int = 0  # totals compared
    bytes: int = 0
    seconds: float = 0.0
    state_hash: str = ""  # of the state after entry `index`
    index: int = 0
    term: int = 0  # of that entry
    last_index: int = 0  # of the log, committed or not

    @property
    def ok(self) -> bool:
        return not self.problems

    def say(self, problem: str) -> None:
        if len(self.problems) < _SAID_MAX:
            self.problems.append(problem)


def verify(
    path: str,
    progress: Progress | None = None,
    disk: Disk | None = None,
    at_index: int | None = None,
) -> Report:
    """Check the directory at `path` without changing it. progress(stage, done, total).

    Counts up to `at_index`; if that is None, up to the last entry known to be committed,
    which for a node that is no member of a cluster is the last. Raises
    InvalidInputError where the state at `at_index` can't be had from what is stored,
    DirectoryInUseError while a node runs on it and WrongDirectoryError where there is no
    data directory of this format; everything else is in the report.
    """
    started = time.monotonic()
    disk = disk or OsDisk()
    report = Report(path)
    lock = None
    block, bad_copy = _superblock(disk, path, report)
    try:
        lock = disk.lock(f"{path}/LOCK")
    except FatalStorageError as error:
        report.notes.append(f"{error}; read without the lock")
    try:
        if block is not None:
            if bad_copy is not None:
                report.say(f"{path}/superblock: copy {bad_copy} of 4 is damaged")
            _Verification(disk, path, block, report, progress or _silent, at_index).run()
    finally:
        if lock is not None:
            lock.release()
    report.seconds = time.monotonic() - started
    return report


def _silent(stage: str, done: int, total: int) -> None:
    return


def _superblock(disk: Disk, path: str, report: Report) -> tuple[Superblock | None, int | None]:
    try:
        return reading.find_superblock(disk, path)
    except CorruptionError as damage:
        report.say(str(damage))
        return None, None


class _Verification:
    """One run: what was read so far."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        block: Superblock,
        report: Report,
        progress: Progress,
        at_index: int | None,
    ) -> None:
        self.disk, self.path, self.block = disk, path, block
        self.report, self.progress = report, progress
        self.at_index = at_index
        self.limit: int | None = None  # entries above it are not counted
        self.hashes: dict[int, tuple[str, str]] = {}  # of each snapshot: hash, path
        self.bitmaps: Bitmaps = {}
        self.covered = 0  # outcomes are stored up to this index

    def run(self) -> None:
        self._check_snapshots()
        try:
            log = reading.open_log(self.disk, self.path, self.block)
        except CorruptionError as damage:
            self.report.say(str(damage))
            return
        self.limit = self.at_index
        if self.at_index is None:
            self.limit = reading.known_commit(self.block, log.witness)
        if self.block.is_installing:
            self.report.notes.append(
                f"{self.path}: the taking over of a peer's snapshot at {self.block.base_index} "
                "did not end; a start goes on with it"
            )
        self._check_outcomes(log.first_index)
        self.report.segments = len(log.segments)
        self.report.bytes += sum(segment.head.segment_bytes for segment in log.segments)
        machine = self._base(log.first_index)
        if machine is not None:
            self._replay(log, machine)

    # --- the files ---------------------------------------------------------------

    def _check_snapshots(self) -> None:
        found = reading.snapshots_of(self.disk, self.path)
        for number, (index, path) in enumerate(found):
            self.progress("snapshots", number, len(found))
            try:
                head, state, digest = read_snapshot(self.disk, path)
            except CorruptionError as damage:
                self.report.say(str(damage))
                continue
            if head.index != index or head.cluster_id != self.block.identity.cluster_id:
                self.report.say(f"{path}: holds the state at entry {head.index}, or another's")
                continue
            self.hashes[index] = (digest, path)
            self.report.snapshots += 1
            self.report.bytes += len(state)
        self.progress("snapshots", len(found), len(found))
        pointed = self.block.snapshot_index
        if pointed and pointed not in dict(found):
            self.report.say(f"{self.path}/superblock: names a snapshot at {pointed}: no such file")

    def _check_outcomes(self, first_index: int) -> None:
        """Read all bitmaps; stop trusting them at the first damaged file."""
        for to_index, path in reading.outcomes_of(self.disk, self.path):
            if to_index < first_index:
                continue  # about to be removed by retention, or brought back by a power cut
            try:
                found = read_outcomes(self.disk, path)
            except CorruptionError as damage:
                self.report.say(str(damage))
                return
            if found.to_index != to_index or (self.covered and found.after != self.covered):
                self.report.say(f"{path}: does not go on after entry {self.covered}")
                return
            self.bitmaps.update(found.bitmaps)
            self.covered = to_index

    # --- the replay --------------------------------------------------------------

    def _base(self, first_index: int) -> Machine | None:
        """The machine that replay starts from."""
        if first_index == 1:
            self._check_reach(1)
            return Machine()
        usable = [index for index in sorted(self.hashes) if index >= first_index - 1]
        if not usable:
            self.report.say(
                f"{self.path}/log: starts at entry {first_index} and no whole snapshot reaches it"
            )
            return None
        path = self.hashes[usable[0]][1]
        self._check_reach(usable[0])
        self.report.notes.append(
            f"events before entry {usable[0] + 1} were removed by retention, or are no longer "
            f"needed: totals are recomputed from the snapshot {path} on"
        )
        head, state, _ = read_snapshot(self.disk, path)
        self.report.term, self.report.last_index = head.term, head.index
        return Machine.restore(state)

    def _check_reach(self, first: int) -> None:
        """The oldest state that can be had is that at `first`."""
        if self.at_index is not None and self.at_index < first:
            raise InvalidInputError(
                f"the state at entry {self.at_index} can't be had any more; the oldest is that "
                f"at {first}"
            )

    def _replay(self, log: LogReader, machine: Machine) -> None:
        recount = Recount(machine)
        total = sum(segment.head.segment_bytes for segment in log.segments)
        done = 0
        try:
            for entry in log.entries():
                self.report.entries += 1
                self.report.last_index = entry.index
                done += len(entry.body)
                if self.report.entries % 64 == 0:
                    self.progress("log", min(done, total), total)
                if self.limit is not None and entry.index > self.limit:
                    continue
                if entry.index > machine.applied:
                    self.report.term = entry.term
                    self._apply(
                        machine, recount, entry.index, entry.kind, entry.timestamp_ns, entry.body
                    )
        except CorruptionError as damage:
            self.report.say(str(damage))
            self.report.notes.append(f"what follows is checked up to entry {machine.applied}")
        self.progress("log", total, total)
        if log.torn_at:
            self.report.notes.append(f"{log.torn_at}: a torn write, which a start will cut")
        end = machine.applied if self.limit is None else self.report.last_index
        for index in [index for index in self.hashes if index > end]:
            self.report.say(f"{self.hashes[index][1]}: is newer than the log")
        self._say_limit(machine.applied)
        self._compare(machine, recount)

    def _say_limit(self, applied: int) -> None:
        """What was left out, or can't be had."""
        last = self.report.last_index
        if self.at_index is not None and self.at_index > applied and self.report.ok:
            raise InvalidInputError(
                f"the state at entry {self.at_index} can't be had; the log ends with entry {last}"
            )
        if self.at_index is None and last > applied and self.report.ok:
            self.report.notes.append(
                f"entries {applied + 1} to {last} are not known to be committed: checked, "
                "not counted"
            )

    def _apply(
        self,
        machine: Machine,
        recount: Recount,
        index: int,
        kind: int,
        timestamp_ns: int,
        data: bytes | memoryview,
    ) -> None:
        body = EventsBody(data) if kind == entries.EVENTS else None
        if body is not None:
            recount.take_over(body)
        applied = machine.apply(index, kind, timestamp_ns, data)
        if body is not None:
            outcomes = bytes(applied.outcomes)
            if index <= self.covered:
                self._compare_outcomes(index, outcomes)
            recount.add(body, lambda number: outcomes[number] == 0)
        if index in self.hashes:
            self._compare_snapshot(index, machine)

    def _compare_outcomes(self, index: int, outcomes: bytes) -> None:
        stored = self.bitmaps.get(index)
        counted = bitmap_of(outcomes)
        if stored is None and outcomes.count(0) == len(outcomes):
            return
        if stored != (len(outcomes), counted):
            self.report.say(
                f"{self.path}/outcomes: entry {index}: the stored outcomes are not those of "
                "applying it again"
            )

    def _compare_snapshot(self, index: int, machine: Machine) -> None:
        digest, path = self.hashes[index]
        found = machine.state_hash()
        if found != digest:
            self.report.say(
                f"{path}: its state has the hash {digest}, replaying the log up to entry {index} "
                f"gives {found}"
            )

    def _compare(self, machine: Machine, recount: Recount) -> None:
        expected = machine.statistics()["cells"]
        report, progress = self.report, self.progress
        report.totals = recount.compare(
            report.say, lambda done: progress("totals", min(done, expected), expected)
        )
        progress("totals", expected, expected)
        report.events = recount.events
        report.state_hash, report.index = machine.state_hash(), machine.applied
        has_members = any(one.agg == AggType.COUNT_UNIQUE for one in machine.catalog.metrics)
        if has_members and not recount.starts_from_zero:
            report.notes.append("numbers of members were not recomputed: their events are gone")
