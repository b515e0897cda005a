"""A conflicting suffix goes as one step: all of it is there, or none, whenever the power ends.

The log has several segments and terms; entries of a later term replace its end. A
power cut at every operation of the disk, with lost, torn and reordered sectors and
names, must leave the old log whole, or its kept beginning and a beginning of the new.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from unimeter.raft.messages import Entry
from unimeter.storage import tail, wal
from unimeter.storage.layout import Identity
from unimeter.storage.memory_disk import MemoryDisk, MemoryFile
from unimeter.storage.wal import LogBase, Wal, WalLimits
from unimeter.storage.witness import Witness, read_witness

OWNER = Identity(b"t" * 16, 3)
BOUNDS = WalLimits(segment_bytes=8192, segment_bytes_first=8192, background=False)
BASE = LogBase(index=100, term=2, timestamp_ns=1000)
LAST = 125


class PowerCut(BaseException):
    """The world stops here."""


def open_log(disk: MemoryDisk, base: LogBase = BASE) -> Wal:
    return Wal.open(disk, "d", OWNER, BOUNDS, base=base)


def old(index: int) -> Entry:
    return Entry(index, 2 + (index - 100) // 8, 2, index * 10, bytes([index]) * (index * 37 % 1500))


def new(index: int) -> Entry:
    return Entry(index, 9 + index % 2, 2, 5000, bytes([200]) * (index * 53 % 1500))


def new_suffix(after: int, count: int = 6) -> list[Entry]:
    found = [new(index) for index in range(after + 1, after + 1 + count)]
    return [Entry(e.index, 9, e.kind, e.timestamp_ns, e.body) for e in found]


def filled(disk: MemoryDisk) -> Wal:
    """Entries 101 to 125 in groups of up to three, so that headers say different things durable."""
    log = open_log(disk)
    for first in range(101, LAST + 1, 3):
        log.append_all([old(index) for index in range(first, min(first + 3, LAST + 1))])
        log.sync()
    return log


def contents(log: Wal) -> list[tuple[int, int, int, bytes]]:
    return [(e.index, e.term, e.timestamp_ns, bytes(e.body)) for e in log.read(log.first_index)]


def as_read(entries: list[Entry]) -> list[tuple[int, int, int, bytes]]:
    return [(e.index, e.term, e.timestamp_ns, bytes(e.body)) for e in entries]


OLD = as_read([old(index) for index in range(101, LAST + 1)])


def replace(log: Wal, after: int) -> None:
    log.truncate_after(after)
    log.append_all(new_suffix(after))
    log.sync()


def stop_at(step: int) -> Callable[[str, str], None]:
    left = [step]

    def on_operation(operation: str, path: str) -> None:
        if operation == "read":
            return
        left[0] -= 1
        if left[0] < 0:
            raise PowerCut

    return on_operation


def check_survivor(disk: MemoryDisk, after: int) -> int:
    """Open what a power cut left; return how many entries of the new suffix are there."""
    log = open_log(disk)
    found = contents(log)
    kept, replaced = OLD[: after - 100], as_read(new_suffix(after))
    count = len(found) - len(kept)
    assert found == OLD or found == kept + replaced[:count], "neither the old log nor the new"
    assert log.last_index == log.synced_index == 100 + len(found)
    last = found[-1] if found else (100, BASE.term, BASE.timestamp_ns, b"")
    assert (log.last_index, log.last_term, log.last_timestamp_ns) == last[:3]
    terms = {index: term for index, term, _, _ in found}
    assert all(log.term_of(index) == terms[index] for index in terms)
    log.check_invariants()
    if found != OLD:
        # Whatever was removed, the log goes on and a second start finds the same.
        log.append_all([Entry(log.last_index + 1, 12, 2, 9000, b"next" * 300)])
        log.sync()
        log.close()
        again = open_log(disk)
        assert contents(again)[:-1] == found and again.last_term == 12
    return count if found != OLD else -1


@pytest.mark.parametrize("after", [100, 101, 102, 105, 111, 117, 122, 124])
def test_a_power_cut_at_any_step_leaves_the_old_log_or_the_new_one(after: int) -> None:
    step, seen, is_done = 0, set(), False
    while not is_done:
        for arrival in (0.0, 0.3, 0.6, 1.0):
            disk = MemoryDisk(faults=True)
            log = filled(disk)
            disk.on_operation = stop_at(step)
            try:
                replace(log, after)
                is_done = True
            except PowerCut:
                pass
            disk.on_operation = None
            seen.add(check_survivor(disk.crash(Random(step), arrival), after))
        step += 1
    assert {-1, 0, 6} <= seen, "the old log, the cut one and the new one were all met"
    assert step > 6


@pytest.mark.parametrize("seed", range(40))
def test_a_second_power_cut_while_a_start_goes_on_removing(seed: int) -> None:
    random = Random(seed)
    after = random.randrange(100, LAST)
    disk = MemoryDisk(faults=True)
    log = filled(disk)
    disk.on_operation = stop_at(random.randrange(2, 12))
    try:
        replace(log, after)
    except PowerCut:
        pass
    for _ in range(3):
        disk = disk.crash(random, random.choice((0.0, 0.3, 0.7, 1.0)))
        disk.on_operation = stop_at(random.randrange(1, 12))
        try:
            open_log(disk)
        except PowerCut:
            pass
        disk.on_operation = None
    check_survivor(disk.crash(random, 0.5), after)


@pytest.mark.parametrize("after", [100, 101, 108, 115, 124, 125])
def test_after_removal_everything_known_of_the_log_ends_there(after: int) -> None:
    log = filled(MemoryDisk())
    list(log.read(101))
    log.truncate_after(after)
    kept = OLD[: after - 100]
    assert contents(log) == kept
    last = kept[-1] if kept else (100, BASE.term, BASE.timestamp_ns)
    assert (log.last_index, log.last_term, log.last_timestamp_ns) == last[:3]
    assert all(mark[0] <= after for segment in log._stored.all for mark in segment.marks)
    assert log.term_of(after) == last[1]
    with pytest.raises(AssertionError):
        log.term_of(after + 1)
    for entry in new_suffix(after, 30):
        log.append_all([entry])
        log.sync()
    expected = kept + as_read(new_suffix(after, 30))
    assert contents(log) == expected
    for first in range(101, after + 30, 5):
        assert [e.index for e in log.read(first, first + 3)] == list(
            range(first, min(first + 4, after + 31))
        )
    log.check_invariants()


def test_an_empty_log_goes_on_after_its_base() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    assert (log.first_index, log.last_index, log.synced_index) == (101, 100, 100)
    assert (log.last_term, log.last_timestamp_ns, log.term_of(100)) == (2, 1000, 2)
    assert contents(log) == [] and log.segments() == [] and log.bytes_after(100) == 0
    log.close()
    log = open_log(disk)
    log.append_all([old(101)])
    log.sync()
    log.close()
    again = open_log(disk)
    assert contents(again) == OLD[:1] and again.term_of(100) == 2


def test_a_committed_entry_is_never_removed() -> None:
    log = filled(MemoryDisk())
    log.note_commit(110)
    with pytest.raises(AssertionError):
        log.truncate_after(109)
    log.truncate_after(110)


def test_staged_entries_are_never_removed() -> None:
    log = filled(MemoryDisk())
    log.append_all(new_suffix(LAST, 1))
    with pytest.raises(AssertionError):
        log.truncate_after(110)


@pytest.mark.parametrize("seed", range(30))
def test_a_torn_write_over_a_removed_suffix_is_cut_and_rot_in_it_refused(seed: int) -> None:
    """Behind the cut everything is blank again, so the rules for the end hold as before."""
    random = Random(seed)
    after = random.randrange(101, LAST)
    disk = MemoryDisk(faults=True)
    log = filled(disk)
    log.truncate_after(after)
    log.append_all(new_suffix(after)[:3])
    log.sync()
    log.append_all(new_suffix(after)[3:])
    syncs = [0]

    def on_operation(operation: str, path: str) -> None:
        syncs[0] += operation == "sync"
        if syncs[0]:
            raise PowerCut

    disk.on_operation = on_operation
    with pytest.raises(PowerCut):
        log.sync()
    left = disk.crash(random, 0.5)
    count = check_survivor(left, after)
    assert count >= 3, "what was acknowledged is there"


def test_a_suffix_that_is_being_cut_is_not_read_as_damage_by_a_start() -> None:
    disk = MemoryDisk(faults=True)
    log = filled(disk)
    log._witness.begin_cut(104)  # type: ignore[union-attr]
    path = log._stored.all[0].path
    data = bytearray(disk.contents(path))
    data[7700:7800] = b"?" * 100  # rot, or half of a cut: nobody will ask
    disk.put(path, bytes(data))
    again = open_log(disk)
    assert contents(again) == OLD[:4]
    assert not read_witness(disk, "d/synced").is_cutting


# --- the bugs that these tests are for ---------------------------------------------------


def is_caught() -> bool:
    for after in (100, 102, 111, 122):
        try:
            test_a_power_cut_at_any_step_leaves_the_old_log_or_the_new_one(after)
        except Exception:
            return True
    return False


def test_a_cut_that_is_not_announced_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before: the witness only says less, and the suffix goes from its front on."""
    monkeypatch.setattr(Witness, "begin_cut", lambda self, index: self.settle(index, 0))
    assert is_caught()


def test_an_announcement_that_is_not_durable_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryFile.sync

    def sync(self: MemoryFile) -> None:
        if not self.path.endswith("synced"):
            original(self)

    monkeypatch.setattr(MemoryFile, "sync", sync)
    assert is_caught()


def test_an_end_that_is_not_cut_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "cut", lambda file, position, limit: 0)
    assert is_caught()


def test_a_removal_of_names_that_is_not_durable_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryDisk, "sync_directory", lambda self, path: None)
    assert is_caught()


def test_an_announcement_that_stays_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Witness, "end_cut", lambda self: None)
    monkeypatch.setattr(Witness, "raise_to", lambda self, index, commit=0: None)
    assert is_caught()


def test_terms_that_stay_behind_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal.Terms, "forget_after", lambda self, index: None)
    with pytest.raises(AssertionError):
        test_after_removal_everything_known_of_the_log_ends_there(108)
