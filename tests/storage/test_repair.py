"""A rotten entry is put back from a peer's copy, byte for byte, or the repair is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest
from tests.storage.test_raft_log import CLUSTER, KEY, PATH

from unimeter.engine import entries
from unimeter.errors import (
    CorruptionError,
    DirectoryInUseError,
    FatalStorageError,
    RottenEntryError,
)
from unimeter.raft.messages import NOOP, Entry
from unimeter.raft.storage import Compacted, SnapshotTemporarilyUnavailable
from unimeter.storage import layout, repair, rotten
from unimeter.storage.layout import Identity
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.raft_log import RaftLog
from unimeter.storage.recovery import Opened, open_directory
from unimeter.storage.repair import repair_entry
from unimeter.storage.segments import Walk
from unimeter.storage.wal import WalLimits

BOUNDS = WalLimits(segment_bytes=8192, segment_bytes_first=8192, background=False)
WHO = Identity(CLUSTER, 1)
FIRST = f"{PATH}/log/{1:016x}.seg"
LAST = 22


def open_member(disk: MemoryDisk) -> Opened:
    return open_directory(
        disk, PATH, cluster_id=CLUSTER, genesis_key=KEY, sole_voter=False, bounds=BOUNDS
    )


def entry(index: int) -> Entry:
    if index == 1:
        return Entry(1, 1, entries.GENESIS, 0, CLUSTER + KEY)
    term = 1 + index // 5
    if index % 5 == 0:
        return Entry(index, term, NOOP, 0, b"")
    size = (3, 900, 0, 1200, 40)[index % 5]
    return Entry(index, term, entries.METRIC_DELETE, index * 10, bytes([97 + index % 20]) * size)


def whole() -> tuple[MemoryDisk, list[tuple[str, int, int]]]:
    """A directory of three segments, and (path, start, end) of each of its entries."""
    disk = MemoryDisk()
    opened = open_member(disk)
    log = RaftLog(opened)
    for first in range(2, LAST + 1, 3):
        log.stage([entry(index) for index in range(first, min(first + 3, LAST + 1))])
        opened.wal.sync()
    assert len(opened.wal.segments()) == 3
    places = []
    for segment in opened.wal._stored.all:
        file = disk.open(segment.path)
        position = layout.SEGMENT_HEADER_BYTES
        while position + 64 <= segment.head.segment_bytes:
            fields = layout.ENTRY.unpack(file.read(position, 64))
            if fields[0] != layout.ENTRY_MAGIC:
                break
            size = layout.entry_bytes(fields[8])
            places.append((segment.path, position, position + size))
            position += size
    assert len(places) == LAST
    opened.close()
    return disk, places


WHOLE, PLACES = whole()


def spoilt(*changes: tuple[str, int, int | None]) -> MemoryDisk:
    """A copy with bits flipped, (path, offset, bit), or bytes made zero (bit None)."""
    disk = WHOLE.clone()
    for path, offset, bit in changes:
        data = bytearray(disk.contents(path))
        data[offset] = 0 if bit is None else data[offset] ^ 1 << bit
        disk.put(path, bytes(data))
    return disk


def find_damage(disk: MemoryDisk) -> RottenEntryError:
    """What opening, or reading the whole log, says."""
    with pytest.raises(RottenEntryError) as caught:
        opened = open_member(disk)
        try:
            list(opened.wal.read(1))
        finally:
            opened.close()
    return caught.value


def contents(disk: MemoryDisk) -> dict[str, bytes]:
    return {path: disk.contents(path) for path in disk.paths() if path.endswith(".seg")}


def samples(index: int) -> list[int]:
    """Offsets in an entry: the whole header and trailer, some of the body."""
    _, start, end = PLACES[index - 1]
    inside = range(start + 64, end - 8)
    step = max(1, len(inside) // 12)
    return [*range(start, start + 64), *inside[::step], *range(end - 8, end)]


@pytest.mark.parametrize("index", range(1, LAST + 1))
def test_any_flipped_byte_of_an_entry_is_reported_and_repaired(index: int) -> None:
    path, start, _ = PLACES[index - 1]
    for offset in samples(index):
        disk = spoilt((path, offset, offset % 8))
        found = find_damage(disk)
        assert (found.index, found.path, found.position) == (index, path, start)
        repair_entry(disk, PATH, WHO, entry(index))
        assert contents(disk) == contents(WHOLE)
        open_member(disk).close()


def others(right: Entry) -> list[Entry]:
    """Entries that are not the one that was here."""
    body = bytes(right.body)
    found = [
        replace(right, term=right.term + 1),
        replace(right, kind=entries.EVENTS),
        replace(right, body=body + b"!"),
        replace(right, body=body[:-1] + b"?" if body else b"8 bytes."),
    ]
    if right.kind != NOOP:
        found.append(replace(right, timestamp_ns=right.timestamp_ns + 1))
    return found


@pytest.mark.parametrize("index", range(2, LAST + 1))
def test_another_entry_is_refused_and_changes_nothing(index: int) -> None:
    path, start, end = PLACES[index - 1]
    for offset in (start + 4, start + 8, start + 24, start + 33, start + 48, end - 9, end - 3):
        disk = spoilt((path, offset, 3))
        before = contents(disk)
        for other in others(entry(index)):
            with pytest.raises(CorruptionError, match="unimeter recover"):
                repair_entry(disk, PATH, WHO, other)
            assert contents(disk) == before
        repair_entry(disk, PATH, WHO, entry(index))
        assert contents(disk) == contents(WHOLE)


@pytest.mark.parametrize("index", range(2, LAST))
def test_two_damaged_entries_in_a_row_are_repaired_one_after_the_other(index: int) -> None:
    random = Random(index)
    for _ in range(25):
        disk = spoilt(
            (PLACES[index - 1][0], random.choice(samples(index)), random.randrange(8)),
            (PLACES[index][0], random.choice(samples(index + 1)), random.randrange(8)),
        )
        with pytest.raises(RottenEntryError) as caught:
            repair_entry(disk, PATH, WHO, entry(index + 1))
            repair_entry(disk, PATH, WHO, entry(index + 1))  # the next segment's is independent
            raise find_damage(disk)
        assert caught.value.index == index
        repair_entry(disk, PATH, WHO, entry(index))
        repair_entry(disk, PATH, WHO, entry(index + 1))
        assert contents(disk) == contents(WHOLE)


def test_a_whole_header_overwritten_is_made_again_from_its_neighbours() -> None:
    for index in range(1, LAST + 1):
        path, start, _ = PLACES[index - 1]
        disk = spoilt(*[(path, start + at, None) for at in range(64)])
        if index == LAST:
            disk.put(f"{PATH}/synced", layout.encode_witness(LAST))
        assert find_damage(disk).index == index
        repair_entry(disk, PATH, WHO, entry(index))
        assert contents(disk) == contents(WHOLE)


def lost(disk: MemoryDisk, index: int) -> None:
    """Nothing is left of this entry and of all after it in its segment."""
    path, start, _ = PLACES[index - 1]
    data = bytearray(disk.contents(path))
    data[start:] = bytes(len(data) - start)
    disk.put(path, bytes(data))


def test_a_lost_end_is_made_again_only_where_it_is_known_to_be_committed() -> None:
    for commit in (1, LAST - 2, LAST - 1, LAST):
        disk = WHOLE.clone()
        lost(disk, LAST - 1)
        disk.put(f"{PATH}/synced", layout.encode_witness(LAST, commit))
        assert find_damage(disk).index == LAST - 1
        before = contents(disk)
        for index in (LAST - 1, LAST):
            if commit >= index:
                repair_entry(disk, PATH, WHO, entry(index))
                before = contents(disk)
                continue
            with pytest.raises(CorruptionError, match="unimeter recover"):
                repair_entry(disk, PATH, WHO, entry(index))
            assert contents(disk) == before
            break
        if commit == LAST:
            opened = open_member(disk)
            found = list(opened.wal.read(1))
            assert [(e.index, e.term, bytes(e.body)) for e in found] == [
                (i, entry(i).term, entry(i).body) for i in range(1, LAST + 1)
            ]


def test_where_nothing_is_left_but_what_follows_the_chain_still_proves_it() -> None:
    index = 9
    path, start, end = PLACES[index - 1]
    disk = spoilt(*[(path, at, None) for at in range(start, end)])
    for other in others(entry(index)):
        with pytest.raises(CorruptionError):
            repair_entry(disk, PATH, WHO, other)
    repair_entry(disk, PATH, WHO, entry(index))
    assert contents(disk) == contents(WHOLE)


def blanked(first: int, last: int) -> MemoryDisk:
    """Of these entries, of one segment, nothing is left."""
    path, start, _ = PLACES[first - 1]
    assert PLACES[last - 1][0] == path
    return spoilt(*[(path, at, None) for at in range(start, PLACES[last - 1][2])])


def runs(longest: int) -> list[tuple[int, int]]:
    """(first, last) of every run of neighbours in one segment before the last entry."""
    return [
        (first, last)
        for first in range(1, LAST)
        for last in range(first + 1, min(first + longest, LAST))
        if PLACES[first - 1][0] == PLACES[last - 1][0]
    ]


@pytest.mark.parametrize(("first", "last"), runs(5))
def test_a_run_of_which_nothing_is_left_is_proved_by_what_follows_it(first: int, last: int) -> None:
    disk = blanked(first, last)
    before = contents(disk)
    for upto in range(first, last):
        with pytest.raises(RottenEntryError, match="unimeter recover") as caught:
            repair_entry(disk, PATH, WHO, *map(entry, range(first, upto + 1)))
        assert (caught.value.index, caught.value.wants) == (first, upto + 1)
        assert contents(disk) == before
    for wrong in range(first, last + 1):
        for other in others(entry(wrong)):
            run = [other if index == wrong else entry(index) for index in range(first, last + 1)]
            with pytest.raises(CorruptionError, match="unimeter recover"):
                repair_entry(disk, PATH, WHO, *run)
            assert contents(disk) == before
    repair_entry(disk, PATH, WHO, *map(entry, range(first, last + 1)))
    assert contents(disk) == contents(WHOLE)
    open_member(disk).close()


def test_a_run_in_which_a_body_only_is_damaged_ends_before_that() -> None:
    """The header that is whole proves those before it; its own entry is repaired after them."""
    disk = blanked(7, 8)
    path, start, _ = PLACES[8]
    data = bytearray(disk.contents(path))
    data[start + 70] ^= 1
    disk.put(path, bytes(data))
    repair_entry(disk, PATH, WHO, entry(7), entry(8))
    assert find_damage(disk).index == 9
    repair_entry(disk, PATH, WHO, entry(9))
    assert contents(disk) == contents(WHOLE)


def test_a_run_at_the_end_is_made_again_only_where_it_is_known_to_be_committed() -> None:
    for commit in (LAST - 1, LAST):
        disk = blanked(LAST - 1, LAST)
        path, _, end = PLACES[LAST - 1]
        data = bytearray(disk.contents(path))
        data[end - 30] = 7  # something of the last one is there, and proves nothing
        disk.put(path, bytes(data))
        disk.put(f"{PATH}/synced", layout.encode_witness(LAST, commit))
        with pytest.raises(RottenEntryError) as caught:
            repair_entry(disk, PATH, WHO, entry(LAST - 1))
        assert caught.value.wants == LAST
        if commit < LAST:
            with pytest.raises(RottenEntryError) as caught:
                repair_entry(disk, PATH, WHO, entry(LAST - 1), entry(LAST))
            assert caught.value.wants == 0
        else:
            repair_entry(disk, PATH, WHO, entry(LAST - 1), entry(LAST))
            assert open_member(disk).wal.last_index == LAST


def test_a_run_at_the_end_is_proved_by_what_is_left_of_its_last_entry() -> None:
    """Its trailer names its header's crc, which covers the one before; nobody has to know more."""
    path, start, _ = PLACES[LAST - 2]
    _, last_start, _ = PLACES[LAST - 1]
    disk = spoilt(*[(path, at, None) for at in range(start, last_start + 64)])
    disk.put(f"{PATH}/synced", layout.encode_witness(LAST, 1))
    with pytest.raises(RottenEntryError) as caught:
        repair_entry(disk, PATH, WHO, entry(LAST - 1))
    assert caught.value.wants == LAST
    with pytest.raises(CorruptionError, match="unimeter recover"):
        repair_entry(disk, PATH, WHO, replace(entry(LAST - 1), term=9), entry(LAST))
    repair_entry(disk, PATH, WHO, entry(LAST - 1), entry(LAST))
    assert contents(disk) == contents(WHOLE)


def test_a_run_ends_with_its_segment() -> None:
    """The next segment's head names the last entry before it: no entry behind that helps."""
    last = next(index for index in range(1, LAST) if PLACES[index][0] != PLACES[index - 1][0])
    disk = blanked(last - 1, last)
    with pytest.raises(RottenEntryError) as caught:
        repair_entry(disk, PATH, WHO, replace(entry(last - 1), term=9), entry(last))
    assert caught.value.wants == 0
    repair_entry(disk, PATH, WHO, entry(last - 1), entry(last))
    assert contents(disk) == contents(WHOLE)


def test_a_running_node_repairs_a_run() -> None:
    disk = WHOLE.clone()
    opened = open_member(disk)
    path, start, _ = PLACES[6]
    end = PLACES[8][2]
    disk._files[path].data[start:end] = bytes(end - start)
    with pytest.raises(RottenEntryError) as caught:
        opened.wal.repair(entry(7), entry(8))
    assert caught.value.wants == 9
    opened.wal.repair(entry(7), entry(8), entry(9))
    assert [one.index for one in opened.wal.read(1)] == list(range(1, LAST + 1))
    assert contents(disk) == contents(WHOLE)
    opened.close()


def test_a_whole_entry_is_left_alone_and_a_missing_one_refused() -> None:
    disk = WHOLE.clone()
    repair_entry(disk, PATH, WHO, replace(entry(9), term=77))
    assert contents(disk) == contents(WHOLE)
    with pytest.raises(CorruptionError):
        repair_entry(disk, PATH, WHO, entry(LAST + 2))
    assert contents(disk) == contents(WHOLE)


def test_it_wants_the_lock_of_a_directory_that_is_not_open() -> None:
    disk = WHOLE.clone()
    opened = open_member(disk)
    with pytest.raises(DirectoryInUseError):
        repair_entry(disk, PATH, WHO, entry(9))
    repair_entry(disk, PATH, WHO, entry(9), lock=False)
    opened.close()


@pytest.mark.parametrize("index", [5, 9, LAST])
def test_a_running_node_repairs_its_log_and_goes_on(index: int) -> None:
    disk = WHOLE.clone()
    opened = open_member(disk)
    log = RaftLog(opened)
    path, start, end = PLACES[index - 1]
    content = disk._files[path]
    for at in (start + 2, end - 2):
        content.data[at] ^= 1
        with pytest.raises(RottenEntryError) as caught:
            low = 1
            while low <= LAST:
                low += len(log.entries(low, LAST + 1, 500))
        assert caught.value.index == index
        with pytest.raises(CorruptionError):
            opened.wal.repair(replace(entry(index), term=50))
        opened.wal.repair(entry(index))
        assert [e.index for e in log.entries(1, LAST + 1, 1 << 20)] == list(range(1, LAST + 1))
    log.stage([Entry(LAST + 1, 9, entries.METRIC_DELETE, 10_000, b"more")])
    opened.wal.sync()
    opened.close()
    assert open_member(disk).wal.last_index == LAST + 1


def test_damage_in_what_stays_of_a_removed_suffix_is_met_again_by_the_next_start() -> None:
    disk = WHOLE.clone()
    opened = open_member(disk)
    path, start, _ = PLACES[3]
    disk._files[path].data[start + 70] ^= 1
    with pytest.raises(RottenEntryError) as caught:
        RaftLog(opened).stage([Entry(7, 9, entries.METRIC_DELETE, 1000, b"new")])
    assert caught.value.index == 4 and opened.wal.statistics()["failed"]
    with pytest.raises(FatalStorageError):
        opened.wal.append(8, 9, entries.METRIC_DELETE, 1000, b"")
    opened.close()
    for _ in range(2):
        with pytest.raises(RottenEntryError) as caught:
            open_member(disk)
        assert caught.value.index == 4
    repair_entry(disk, PATH, WHO, entry(4))
    opened = open_member(disk)
    assert opened.wal.last_index == 6
    RaftLog(opened).stage([Entry(7, 9, entries.METRIC_DELETE, 1000, b"new")])
    opened.wal.sync()
    assert [e.index for e in opened.wal.read(1)] == list(range(1, 8))


def test_damage_met_while_it_ran_is_found_by_the_next_start() -> None:
    disk = WHOLE.clone()
    log = RaftLog(open_member(disk))
    path, start, _ = PLACES[3]
    disk._files[path].data[start + 70] ^= 1
    assert [e.index for e in log.entries(2, LAST, 1 << 20)] == [2, 3], "what comes before it"
    with pytest.raises(RottenEntryError):
        log.entries(4, LAST, 1 << 20)
    log._opened.close()
    copy = disk.clone()
    with pytest.raises(RottenEntryError) as caught:
        open_member(disk)
    assert caught.value.index == 4
    repair_entry(disk, PATH, WHO, entry(4))
    open_member(disk).close()
    # Where nobody can repair it now, the node runs without that entry.
    with pytest.raises(RottenEntryError):
        open_member(copy)
    open_member(copy).close()
    assert not disk.exists(f"{PATH}/rotten")
    assert contents(disk) == contents(WHOLE)


@pytest.mark.parametrize("data", [b"", b"nonsense", rotten.encode_note(4)[:-1], b"\0" * 24])
def test_a_note_that_can_not_be_read_is_let_go(data: bytes) -> None:
    disk = WHOLE.clone()
    disk.put(f"{PATH}/rotten", data)
    open_member(disk).close()
    assert not disk.exists(f"{PATH}/rotten")


@pytest.mark.parametrize("index", [1, 4, LAST, LAST + 1, 0])
def test_a_note_of_an_entry_that_is_whole_or_gone_is_let_go(index: int) -> None:
    disk = WHOLE.clone()
    opened = open_member(disk)
    opened.note_rotten(index)
    opened.close()
    open_member(disk).close()
    assert not disk.exists(f"{PATH}/rotten")


class PowerCut(BaseException):
    """The world stops here."""


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_in_a_repair_leaves_an_entry_that_can_be_repaired(seed: int) -> None:
    random = Random(seed)
    index = random.choice((4, 9, 14, LAST))
    path, _, _ = PLACES[index - 1]
    disk = MemoryDisk(faults=True)
    spoiled = spoilt((path, random.choice(samples(index)), random.randrange(8)))
    for name in spoiled.paths():
        disk.put(name, spoiled.contents(name))
    disk._directories = set(spoiled._directories)

    def on_operation(operation: str, path: str) -> None:
        if operation == "sync":
            raise PowerCut

    disk.on_operation = on_operation
    with pytest.raises(PowerCut):
        repair_entry(disk, PATH, WHO, entry(index))
    left = disk.crash(random, 0.5)
    repair_entry(left, PATH, WHO, entry(index))
    assert contents(left) == contents(WHOLE)


# --- the bugs that these tests are for ---------------------------------------------------


def is_caught(test: Callable[[int], None]) -> bool:
    for index in (4, 9, LAST):
        try:
            test(index)
        except (Exception, pytest.fail.Exception):
            return True
    return False


def test_a_peers_entry_that_is_believed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_agrees", lambda header, entry: True)
    assert is_caught(test_another_entry_is_refused_and_changes_nothing)


def test_a_header_that_nothing_proves_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_find_headers", lambda walk, run, *_: first_of(walk, run))
    assert is_caught(test_another_entry_is_refused_and_changes_nothing)


def first_of(walk: Walk, run: Sequence[Entry]) -> list[bytes]:
    """Headers that could have been here."""
    return next(repair._chains(walk, run, run[-1].index - 1))


def test_a_guess_at_what_was_synced_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = repair._chains
    monkeypatch.setattr(repair, "_chains", lambda *given: [next(original(*given))])
    assert is_caught(test_any_flipped_byte_of_an_entry_is_reported_and_repaired)


def test_a_run_that_nothing_proves_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_find_headers", lambda walk, run, *_: first_of(walk, run))
    with pytest.raises(pytest.fail.Exception):
        test_a_run_of_which_nothing_is_left_is_proved_by_what_follows_it(7, 9)


def test_with_peers_to_ask_damage_reads_as_not_there_until_it_is_mended() -> None:
    disk = WHOLE.clone()
    opened = open_member(disk)
    log = RaftLog(opened, (1, 2, 3), can_mend=True)
    path, start, _ = PLACES[3]
    disk._files[path].data[start + 70] ^= 1
    with pytest.raises(RottenEntryError):
        log.entries(4, LAST, 1 << 20)  # not applied yet: it may be wanted for that
    opened.machine.applied = 4
    with pytest.raises(Compacted):
        log.entries(4, LAST, 1 << 20)
    assert log.rotten == {4} and disk.exists(f"{PATH}/rotten"), "the next start looks as well"
    with pytest.raises(SnapshotTemporarilyUnavailable):
        log.snapshot()
    opened.wal.repair(entry(4))
    log.rotten.discard(4)
    assert [e.index for e in log.entries(4, LAST, 1 << 20)][:2] == [4, 5]
    opened.close()


def test_damage_that_retention_removed_holds_no_snapshot_back() -> None:
    disk = WHOLE.clone()
    opened = open_member(disk)
    log = RaftLog(opened, (1, 2, 3), can_mend=True)
    log.note_rotten(4)
    opened.superblock.update(snapshot_index=LAST)
    with pytest.raises(SnapshotTemporarilyUnavailable):
        log.snapshot()
    assert log.first_rotten() == 4
    opened.wal.remove_before(LAST)
    assert opened.wal.first_index > 4
    assert log.first_rotten() == 0
    assert log.snapshot().meta.index == LAST
    opened.close()
