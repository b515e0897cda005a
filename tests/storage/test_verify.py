"""Verify: agrees with a healthy directory, and finds what was tampered with."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest
from tests.storage.meter import NOW, PATH, Meter, small_meter
from tests.storage.test_install import INDEX, Member, between, follower, state_at, take_over

from unimeter.engine.machine import Machine
from unimeter.engine.records import EventsBody
from unimeter.errors import DirectoryInUseError, InvalidInputError, WrongDirectoryError
from unimeter.storage.inspect import inspect
from unimeter.storage.memory_disk import MemoryDisk
from unimeter.storage.outcomes import encode_outcomes, read_outcomes
from unimeter.storage.snapshot_file import SnapshotHead, write_snapshot
from unimeter.storage.superblock import SuperblockFile
from unimeter.storage.verify import verify
from unimeter.types import (
    AggType,
    DimensionFilter,
    Event,
    MetricSchema,
    OperationType,
    PeriodType,
    Resolution,
)


def rich_meter(seed: int = 1, batches: int = 30) -> Meter:
    """Every aggregation, dimensions, string accounts, seats, late events, duplicates."""
    random = Random(seed)
    meter = Meter(MemoryDisk())
    model = [DimensionFilter("model"), DimensionFilter("kind")]
    for agg in AggType:
        if agg != AggType.COUNT_UNIQUE:
            code = agg.name.lower()
            meter.create(MetricSchema(code, agg, filters=model))
    meter.create(
        MetricSchema("seats", AggType.COUNT_UNIQUE, recurring=True),
        MetricSchema("visitors", AggType.COUNT_UNIQUE, filters=model, period_type=PeriodType.DAY),
        MetricSchema(
            "hourly",
            AggType.SUM,
            period_type=PeriodType.CALENDAR,
            zone="Asia/Kolkata",
            resolution=Resolution.HOUR,
        ),
    )
    codes = [*(agg.name.lower() for agg in AggType if agg != AggType.COUNT_UNIQUE), "hourly", "no"]
    for number in range(batches):
        events = []
        for _ in range(random.randrange(1, 30)):
            at = NOW + timedelta(seconds=random.randrange(-40 * 86_400, 86_400))
            account = random.choice((1, 2, "ann", "bob"))
            properties = {"model": random.choice("ab")} if random.random() < 0.7 else {}
            if random.random() < 0.3:
                code = random.choice(("seats", "visitors"))
                operation = random.choice((OperationType.ADD, OperationType.REMOVE))
                event = Event(account, code, random.randrange(9), at, operation)
            else:
                value = random.randrange(-(2**63), 2**63)
                event = Event(account, random.choice(codes), value, at)
                event.id = random.choice((None, f"id{random.randrange(50)}"))
            event.properties = properties
            events.append(event)
        meter.ingest(events)
        if number % 10 == 9:
            meter.snapshot()
    return meter


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_directory_is_verified(seed: int) -> None:
    meter = rich_meter(seed)
    stages: set[str] = set()
    report = verify(PATH, lambda stage, done, total: stages.add(stage), meter.opened.disk.clone())
    assert report.ok, report.problems
    assert report.events == meter.machine.stored > 100
    assert report.totals > 50 and report.snapshots == 2 and report.entries == meter.wal.last_index
    assert report.state_hash == meter.machine.state_hash()
    assert stages == {"snapshots", "log", "totals"}


def test_a_wrong_total_is_found_though_every_checksum_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = rich_meter().opened.disk.clone()
    original = Machine.apply

    def miscount(
        self: Machine, index: int, kind: int, timestamp_ns: int, body: memoryview
    ) -> object:
        """An engine that reads every value of one entry as one more."""
        if index == 20:
            words = memoryview(bytearray(body)).cast("Q")
            events = EventsBody(body)
            for number in range(events.event_count):
                words[events._records + 4 * number + 2] ^= 1
            body = words.cast("B")
        return original(self, index, kind, timestamp_ns, body)

    monkeypatch.setattr(Machine, "apply", miscount)
    report = verify(PATH, disk=disk)
    assert any("the events add up to" in problem for problem in report.problems)
    assert any("gives" in problem for problem in report.problems), "the snapshots differ too"


def test_a_forged_snapshot_is_found() -> None:
    meter = small_meter()
    meter.snapshot()
    disk = meter.opened.disk.clone()
    other = small_meter(batches=7)
    buffers = [bytes(buffer) for buffer in other.machine.snapshot()]
    head = SnapshotHead(meter.opened.cluster_id, 8, 1, 1, sum(map(len, buffers)))
    file = disk.open(f"{PATH}/snapshots/{8:016x}.snap", create=True)
    write_snapshot(file, head, buffers)
    assert any("has the hash" in problem for problem in verify(PATH, disk=disk).problems)


def test_forged_outcomes_are_found() -> None:
    meter = small_meter()
    meter.snapshot()
    disk = meter.opened.disk.clone()
    path = f"{PATH}/outcomes/{8:016x}.out"
    outcomes = read_outcomes(disk, path)
    outcomes.bitmaps[3] = (3, b"\x07")
    disk.put(path, encode_outcomes(outcomes))
    assert any("stored outcomes" in problem for problem in verify(PATH, disk=disk).problems)


def test_verify_changes_nothing_and_wants_the_lock() -> None:
    meter = small_meter()
    disk = meter.opened.disk
    assert isinstance(disk, MemoryDisk)
    with pytest.raises(DirectoryInUseError):
        verify(PATH, disk=disk)
    meter.close()
    before = {path: disk.contents(path) for path in disk.paths()}
    assert verify(PATH, disk=disk).ok
    assert {path: disk.contents(path) for path in disk.paths()} == before
    with pytest.raises(WrongDirectoryError):
        verify("elsewhere", disk=disk)


def test_inspect_names_every_record() -> None:
    meter = rich_meter()
    disk = meter.opened.disk.clone()
    rows = list(inspect(PATH, events=True, disk=disk))
    kinds = [row.what for row in rows]
    assert kinds.count("superblock") == 4
    assert kinds.count("entry") == meter.wal.last_index
    assert kinds.count("event") == meter.machine.events
    assert kinds.count("snapshot") == 2 and kinds.count("segment") == len(meter.wal.segments())
    assert "damage" not in kinds
    assert any("put metric 'hourly', SUM, CALENDAR periods" in row.detail for row in rows)
    assert len([row for row in inspect(PATH, from_index=30, disk=disk) if row.what == "entry"]) == (
        meter.wal.last_index - 29
    )


def test_inspect_shows_damage_as_a_row_whatever_byte_is_flipped() -> None:
    meter = small_meter()
    meter.snapshot()
    disk = meter.opened.disk.clone()
    random = Random(5)
    for path in disk.paths():
        original = disk.contents(path)
        end = max(1, len(original.rstrip(b"\0")))
        for _ in range(40):
            data = bytearray(original)
            data[random.randrange(end)] ^= 1 << random.randrange(8)
            disk.put(path, bytes(data))
            rows = list(inspect(PATH, events=True, disk=disk))
            assert any(row.what == "damage" for row in rows), path
        disk.put(path, original)


# --- members of a cluster ------------------------------------------------------------


def member_directory(commit: int = 25) -> tuple[MemoryDisk, Member]:
    """Entries to 41 of two leaders, committed to 25 as far as this node knows."""
    disk = MemoryDisk()
    member = Member(disk)
    member.opened.superblock.update(peers=((2, 22), (3, 33)))
    member.write(*between(2, 41))
    member.commit(commit)
    return disk, member


def test_what_is_not_known_to_be_committed_is_checked_and_not_counted() -> None:
    disk, member = member_directory()
    member.opened.close()
    report = verify(PATH, disk=disk)
    assert report.ok, report.problems
    assert (report.index, report.term, report.last_index) == (25, 4, 41)
    assert report.state_hash == state_at(25)
    assert any("entries 26 to 41 are not known to be committed" in note for note in report.notes)
    path = sorted(name for name in disk.paths() if name.endswith(".seg"))[-1]
    data = bytearray(disk.contents(path))
    data[len(data.rstrip(b"\0")) - 40] ^= 1
    disk.put(path, bytes(data))
    assert not verify(PATH, disk=disk).ok, "its bytes are checked"


@pytest.mark.parametrize("at", [1, 2, 19, 20, 21, 30, 41])
def test_the_state_at_any_index_of_two_nodes_can_be_compared(at: int) -> None:
    disk, member = member_directory()
    member.opened.close()
    report = verify(PATH, disk=disk, at_index=at)
    assert report.ok and report.index == at and report.state_hash == state_at(at)
    assert report.term == (4 if at >= 20 else 1) and report.last_index == 41


def test_a_state_that_is_not_stored_is_refused() -> None:
    disk, member = member_directory()
    member.opened.close()
    with pytest.raises(InvalidInputError, match="ends with entry 41"):
        verify(PATH, disk=disk, at_index=42)
    disk = MemoryDisk()
    installed = follower(disk, "behind")
    take_over(installed)
    installed.write(*between(INDEX + 1, 41))
    installed.commit(35)
    installed.opened.close()
    with pytest.raises(InvalidInputError, match=f"the oldest is that at {INDEX}"):
        verify(PATH, disk=disk, at_index=INDEX - 1)
    assert verify(PATH, disk=disk, at_index=INDEX).state_hash == state_at(INDEX)
    assert verify(PATH, disk=disk, at_index=33).state_hash == state_at(33)


def test_a_sole_voter_is_counted_to_its_end() -> None:
    disk = small_meter().opened.disk.clone()
    report = verify(PATH, disk=disk)
    assert report.index == report.last_index == 8 and report.term == 1
    again = verify(PATH, disk=disk, at_index=5)
    assert again.ok and again.index == 5 and again.state_hash != report.state_hash


def test_an_interrupted_install_and_removal_are_notes_and_no_problems() -> None:
    disk = MemoryDisk()
    installed = follower(disk, "long")
    updates = [0]
    original = SuperblockFile.update

    class PowerCut(BaseException):
        """The world stops here."""

    def update(self: SuperblockFile, **changes: object) -> None:
        original(self, **changes)
        updates[0] += 1
        raise PowerCut

    with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(SuperblockFile, "update", update)
        take_over(installed)
    disk = disk.clone()
    before = {path: disk.contents(path) for path in disk.paths()}
    report = verify(PATH, disk=disk)
    assert report.ok and report.state_hash == state_at(INDEX) and report.last_index == INDEX
    assert any("did not end" in note for note in report.notes)
    assert all(row.what != "damage" for row in inspect(PATH, disk=disk))
    assert {path: disk.contents(path) for path in disk.paths()} == before

    disk, member = member_directory()
    member.opened.wal._witness.begin_cut(30)  # type: ignore[union-attr]
    disk = disk.clone()
    report = verify(PATH, disk=disk)
    assert report.ok and report.last_index == 30 and report.index == 25
    assert any("being removed" in note for note in report.notes)
    assert all(row.what != "damage" for row in inspect(PATH, disk=disk))
    assert any("begins a leader's term" in row.detail for row in inspect(PATH, disk=disk))
